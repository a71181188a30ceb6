//! What calls take of the process's memory and what they leave there, as the system counts it.
//! Each case runs in a process of its own.

use candle_core::{DType, Device as Cpu, Tensor};
use candle_trt::candle::Module as _;
use candle_trt::device::{AnonPeak, Device, Host, ProcessMemory};
use candle_trt::{
    Allocation, Call, Compiler, Engine, FromTensors, Profile, Shared, Weights, candle_nn,
};
use std::collections::HashMap;
use std::process::Command;
use std::sync::Arc;

const MIB: u64 = 1 << 20;
const NARROW: usize = 64;
const WIDE: usize = 4096;
const ROWS: usize = 2048;
const ALONE: &str = "CANDLE_TRT_ALONE";

/// Runs a test in a process that runs nothing else; `name` is the test's.
fn alone(name: &str, test: impl FnOnce()) {
    let name = format!("allocation_memory::{name}");
    if std::env::var(ALONE).as_deref() == Ok(&*name) {
        return test();
    }
    let output = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", &name, "--nocapture"])
        .env(ALONE, &name)
        .output()
        .expect("the child starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    println!("{out}");
    assert!(
        output.status.success() && out.contains("1 passed"),
        "{out}\n{err}"
    );
}

/// Few weights, and activations of 16 KiB a row.
fn compile(device: Arc<dyn Device>, allocation: impl Into<Allocation>) -> Engine {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("model.safetensors");
    let random = |shape| Tensor::randn(0f32, 0.1, shape, &Cpu::Cpu).expect("a tensor");
    let weights = HashMap::from([
        ("up.weight", random((WIDE, NARROW))),
        ("down.weight", random((NARROW, WIDE))),
    ]);
    candle_core::safetensors::save(&weights, &path).expect("a file");
    Compiler::new(Weights::open(&path).expect("it opens"))
        .shared_device(device)
        .profile(Profile::single(&[("rows", 2, ROWS as i64)]).expect("a profile"))
        .allocation(allocation)
        .compile(|vb: candle_nn::VarBuilder| {
            let up = candle_nn::linear_no_bias(NARROW, WIDE, vb.pp("up"))?;
            let down = candle_nn::linear_no_bias(WIDE, NARROW, vb.pp("down"))?;
            Ok(move |call: &Call| {
                let x = call.input("x", (call.int("rows")?, NARROW), DType::F32)?;
                Ok(vec![down.forward(&up.forward(&x)?.silu()?)?])
            })
        })
        .expect("it compiles")
}

fn run(engine: &Engine, rows: usize) {
    let x = Tensor::ones((rows, NARROW), DType::F32, &Cpu::Cpu).expect("an input");
    let mut session = engine.session().expect("a session");
    session.run(&[x]).expect("it runs");
}

/// Makes what the first call of a length makes for good: weights that are resident, threads, and
/// the working memory of kernels, which is each thread's own. Returns the device's bytes in use.
fn warm(engine: &Engine) -> u64 {
    run(engine, ROWS);
    engine.memory().in_use
}

fn anonymous() -> u64 {
    ProcessMemory::now().expect("the system tells").anonymous
}

#[test]
fn a_dynamic_call_takes_its_plan_and_leaves_nothing() {
    alone("a_dynamic_call_takes_its_plan_and_leaves_nothing", || {
        let engine = compile(Arc::new(Host::discrete()), Allocation::Dynamic);
        let idle = warm(&engine);
        let (before, peak) = (anonymous(), AnonPeak::start().expect("it tells"));
        run(&engine, ROWS);
        let plan = engine.memory().high_water - idle;
        let outputs = (ROWS * NARROW * 4) as u64;
        let (took, left) = (peak.peak() - before, anonymous().saturating_sub(before));
        println!("plan {plan}, outputs {outputs}: took {took}, left {left}");
        assert!(plan >= (ROWS * WIDE * 4) as u64, "{plan}");
        assert!(
            took >= plan * 9 / 10,
            "{took} of {plan}: nothing was measured"
        );
        assert!(took <= plan + outputs + MIB.max(plan / 8), "{took}");
        assert!(left <= MIB, "{left} bytes stayed");
    });
}

/// As [`compile`], for rows of a table; a number beyond it fails on the device, after the arena was
/// lent and work was submitted.
fn compile_ids(allocation: Allocation) -> Engine {
    let random = |shape| Tensor::randn(0f32, 0.1, shape, &Cpu::Cpu).expect("a tensor");
    let weights = HashMap::from([
        ("table.weight".to_string(), random((8, NARROW))),
        ("up.weight".to_string(), random((WIDE, NARROW))),
        ("down.weight".to_string(), random((NARROW, WIDE))),
    ]);
    Compiler::new(Weights::from_tensors(weights).expect("they are copied"))
        .shared_device(Arc::new(Host::discrete()))
        .profile(Profile::single(&[("rows", 2, ROWS as i64)]).expect("a profile"))
        .allocation(allocation)
        .compile(|vb: candle_nn::VarBuilder| {
            let table = candle_nn::embedding(8, NARROW, vb.pp("table"))?;
            let up = candle_nn::linear_no_bias(NARROW, WIDE, vb.pp("up"))?;
            let down = candle_nn::linear_no_bias(WIDE, NARROW, vb.pp("down"))?;
            Ok(move |call: &Call| {
                let ids = call.input("ids", call.int("rows")?, DType::U32)?;
                Ok(vec![
                    down.forward(&up.forward(&table.forward(&ids)?)?.silu()?)?,
                ])
            })
        })
        .expect("it compiles")
}

#[test]
fn a_dynamic_call_that_fails_on_the_device_leaves_nothing() {
    alone(
        "a_dynamic_call_that_fails_on_the_device_leaves_nothing",
        || {
            let engine = compile_ids(Allocation::Dynamic);
            let mut session = engine.session().expect("a session");
            let mut run = |id: u32| {
                let ids = Tensor::full(id, ROWS, &Cpu::Cpu).expect("an input");
                session.run(&[ids])
            };
            run(7).expect("it runs");
            run(8).expect_err("the table has 8 rows");
            let (before, idle) = (anonymous(), engine.memory().in_use);
            let peak = AnonPeak::start().expect("it tells");
            let error = run(8).expect_err("the table has 8 rows");
            assert!(error.to_string().contains('8'), "{error}");
            let (took, left) = (peak.peak() - before, anonymous().saturating_sub(before));
            println!("took {took}, left {left}");
            assert!(took >= (ROWS * WIDE * 4) as u64 / 2, "{took}: no arena");
            assert!(left <= MIB, "{left} bytes stayed");
            assert_eq!(engine.memory().in_use, idle);
        },
    );
}

#[test]
fn a_thousand_dynamic_calls_leave_nothing() {
    alone("a_thousand_dynamic_calls_leave_nothing", || {
        let engine = compile(Arc::new(Host::discrete()), Allocation::Dynamic);
        let rows = |i: usize| 2 + i * 37 % 62;
        (0..50).for_each(|i| run(&engine, rows(i)));
        let (before, idle) = (anonymous(), engine.memory().in_use);
        (0..1000).for_each(|i| run(&engine, rows(i)));
        let left = anonymous().saturating_sub(before);
        println!("left {left} after 1000 calls");
        assert!(left <= MIB, "{left} bytes stayed");
        assert_eq!(engine.memory().in_use, idle);
    });
}

#[test]
fn engines_that_share_an_arena_take_the_largest() {
    alone("engines_that_share_an_arena_take_the_largest", || {
        let device: Arc<dyn Device> = Arc::new(Host::discrete());
        let engines = [(); 4].map(|()| compile(device.clone(), Allocation::Dynamic));
        engines.iter().map(warm).for_each(|idle| assert!(idle > 0));
        let before = anonymous();
        let took = |allocation: Allocation| {
            for engine in &engines {
                let own = allocation.clone();
                engine.set_allocation(own).expect("there is memory");
            }
            engines.iter().for_each(|e| run(e, ROWS));
            anonymous().saturating_sub(before)
        };
        let shared = Shared::new();
        let (each, together) = (took(Allocation::Static), took(Allocation::from(&shared)));
        let arena = shared.bytes();
        let left = took(Allocation::Dynamic);
        println!("arena {arena}: 4 engines took {each} static, {together} shared, {left} dynamic");
        assert!(each >= 4 * arena * 9 / 10, "{each} of 4 x {arena}");
        assert!(
            together >= arena * 9 / 10 && together <= arena + MIB,
            "{together}"
        );
        assert!(left <= MIB && shared.bytes() == 0, "{left} bytes stayed");
    });
}
