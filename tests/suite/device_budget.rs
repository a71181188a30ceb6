//! One budget for several engines: exact sums, benefit before proportion, all or nothing.

use crate::common::small::{Stingy, bits, compile, take_all};
use candle_core::{DType, Device as Cpu, Tensor};
use candle_trt::candle_nn::{self, Module};
use candle_trt::device::{Device, Host};
use candle_trt::{Call, Compiler, DeviceBudget, DeviceShares, Engine, Error, Priority, Profile};
use candle_trt::{Request, TileTarget, Weights};
use std::collections::HashMap;
use std::sync::Arc;

/// What the tiles of an engine may be off by.
const TILE: u64 = 16 << 10;

fn engines<const N: usize>(device: &Arc<dyn Device>) -> [Engine; N] {
    std::array::from_fn(|_| {
        compile(device.clone(), |c| c.budget(Request::Minimum)).expect("room for floors")
    })
}

fn discrete() -> Arc<dyn Device> {
    Arc::new(Host::discrete())
}

fn joined(device: &Arc<dyn Device>, engines: &[Engine], request: Request) -> DeviceBudget {
    let budget = DeviceBudget::new(device.clone(), request);
    for engine in engines {
        budget.join(engine, Priority::NORMAL).expect("room");
    }
    budget
}

fn applied(engines: &[Engine]) -> Vec<u64> {
    let budget = |e: &Engine| e.device_budget().expect("a budget").applied;
    engines.iter().map(budget).collect()
}

fn agrees(plan: &DeviceShares, engines: &[Engine]) {
    let budgets = applied(engines);
    let shares: Vec<u64> = plan.engines.iter().map(|e| e.share).collect();
    assert_eq!(budgets, shares);
    assert_eq!(budgets.iter().sum::<u64>(), plan.spent);
    assert_eq!(plan.spent + plan.remainder, plan.budget);
}

#[test]
fn the_budgets_of_all_engines_add_up_to_what_was_asked() {
    let device = discrete();
    let engines = engines::<3>(&device);
    let budget = joined(&device, &engines, Request::Minimum);
    let floor: u64 = engines.iter().map(Engine::minimum_device_budget).sum();
    let total: u64 = engines.iter().map(Engine::total_device_budget).sum();
    let wanted = bits(&engines[0]);
    for bytes in (0..=10).map(|i| floor + (total - floor) * i / 10) {
        let plan = budget.set(Request::Bytes(bytes)).expect("above the floors");
        agrees(&plan, &engines);
        assert_eq!((plan.spent, plan.remainder), (bytes, 0));
        assert!(bits(&engines[1]) == wanted);
    }
    let plan = budget.set(Request::Bytes(total + 77)).expect("too much");
    agrees(&plan, &engines);
    assert_eq!((plan.spent, plan.remainder), (total, 77));
    let plan = budget.set(Request::Bytes(0)).expect("the least");
    assert_eq!(plan.spent, floor);
}

#[test]
fn at_100_percent_no_engine_streams() {
    let device = discrete();
    let engines = engines::<2>(&device);
    let budget = joined(&device, &engines, Request::Minimum);
    budget
        .set("100%".parse().expect("a share"))
        .expect("memory");
    for engine in &engines {
        bits(engine);
        assert_eq!(engine.last_traffic().bytes, 0);
    }
}

#[test]
fn below_the_floors_is_an_error_that_names_them_and_changes_nothing() {
    let device = discrete();
    let engines = engines::<2>(&device);
    let floor = engines[0].minimum_device_budget();
    let budget = joined(&device, &engines, Request::Bytes(2 * floor + 500));
    let before = budget.plan().expect("a plan");
    let error = budget
        .set(Request::Bytes(2 * floor - 3))
        .expect_err("too little");
    let text = error.to_string();
    assert!(text.contains(&format!("{floor} + {floor}")), "{text}");
    assert!(text.contains("3 bytes below"), "{text}");
    assert!(matches!(error, Error::BelowFloors(_)));
    assert_eq!(budget.plan().expect("the old plan"), before);
    agrees(&before, &engines);
}

#[test]
fn if_the_second_engine_refuses_the_first_has_its_budget_back() {
    let device: Arc<dyn Device> = Arc::new(Host::discrete().with_memory(64 << 20));
    let engines = engines::<2>(&device);
    let wanted = bits(&engines[0]);
    let budget = joined(&device, &engines, Request::Minimum);
    let before: Vec<_> = engines
        .iter()
        .map(|e| e.device_budget().expect("a budget"))
        .collect();
    let grows = engines[0].total_device_budget() - engines[0].minimum_device_budget();
    // Room for one of them to grow.
    let other = take_all(&device, grows + grows / 2);
    let error = budget.set(Request::Full).expect_err("no room for two");
    let second = matches!(
        error,
        Error::Member {
            engine: 1,
            engines: 2,
            ..
        }
    );
    assert!(second && error.out_of_memory().is_some(), "{error}");
    let after: Vec<_> = engines
        .iter()
        .map(|e| e.device_budget().expect("a budget"))
        .collect();
    assert_eq!(after, before);
    drop(other);
    budget.replan().expect("the old request");
    assert_eq!(applied(&engines), [before[0].applied, before[1].applied]);
    budget.set(Request::Full).expect("now there is room");
    assert!(bits(&engines[0]) == wanted && bits(&engines[1]) == wanted);
}

#[test]
fn an_engine_that_cannot_join_leaves_everything_as_it_was() {
    let device = Stingy::new();
    let shared: Arc<dyn Device> = device.clone();
    let engines = engines::<2>(&shared);
    let budget = joined(&shared, &engines[..1], Request::Full);
    let before = applied(&engines);
    device.refuse_above(10_000);
    let error = budget
        .join(&engines[1], Priority::NORMAL)
        .expect_err("refused");
    assert!(matches!(error, Error::Member { engine: 1, .. }), "{error}");
    assert_eq!((applied(&engines), budget.members()), (before, 1));
    let elsewhere = compile(discrete(), |c| c).expect("another device");
    let error = budget
        .join(&elsewhere, Priority::NORMAL)
        .expect_err("not here");
    assert!(matches!(error, Error::OtherDevice { .. }), "{error}");
}

#[test]
fn what_matters_more_or_runs_more_often_gets_more() {
    let device = discrete();
    let engines = engines::<2>(&device);
    let budget = joined(&device, &engines, "60%".parse().expect("a share"));
    let equal = applied(&engines);
    assert!(equal[0].abs_diff(equal[1]) <= TILE, "{equal:?}");
    budget
        .join(&engines[1], Priority(2))
        .expect("a new priority");
    let weighted = applied(&engines);
    assert!(
        weighted[1] > equal[1] + TILE,
        "{weighted:?} after {equal:?}"
    );
    assert_eq!(weighted.iter().sum::<u64>(), equal.iter().sum::<u64>());
    // Six calls against none outweigh the priority.
    bits(&engines[0]);
    let plan = budget.replan().expect("the same budget");
    assert_eq!((plan.engines[0].calls, plan.engines[1].calls), (6, 0));
    assert!(applied(&engines)[0] > applied(&engines)[1]);
    agrees(&plan, &engines);
}

#[test]
fn calls_of_calibrating_are_none_of_an_engines_own() {
    let device = discrete();
    let engines = engines::<2>(&device);
    let budget = joined(&device, &engines, "60%".parse().expect("a share"));
    let before = budget.plan().expect("a plan");
    engines[0].calibrate(&[]).expect("it is measured");
    assert_eq!(budget.replan().expect("the same"), before);
    agrees(&before, &engines);
}

#[test]
fn engines_leave_by_call_or_by_being_dropped() {
    let device = discrete();
    let [a, b, c] = engines::<3>(&device);
    let total = a.total_device_budget();
    let budget = DeviceBudget::new(device, Request::Bytes(total + total / 2));
    for engine in [&a, &b, &c] {
        budget.join(engine, Priority::NORMAL).expect("room");
    }
    let third = c.device_budget().expect("a budget");
    let plan = budget.leave(&c).expect("the others grow");
    assert_eq!(c.device_budget().expect("a budget"), third);
    agrees(&plan, &[a.clone(), b.clone()]);
    assert_eq!(plan.spent, total + total / 2);
    drop(b);
    assert_eq!(budget.members(), 1);
    let plan = budget.replan().expect("for one");
    agrees(&plan, &[a]);
    assert_eq!((plan.spent, plan.remainder), (total, total / 2));
    assert_eq!(budget.replan().expect("for none").engines, []);
}

#[test]
fn an_automatic_device_budget_is_what_is_free() {
    let device: Arc<dyn Device> = Arc::new(Host::discrete().with_memory(64 << 20));
    let engines = engines::<2>(&device);
    let total = engines[0].total_device_budget();
    let states = engines[0].memory().states_per_session;
    // A 64th of the device is left alone.
    let other = take_all(&device, total + 2 * states + (1 << 20));
    let budget = joined(&device, &engines, Request::Automatic);
    let plan = budget.plan().expect("a plan");
    agrees(&plan, &engines);
    let floors: u64 = plan.engines.iter().map(|e| e.floor).sum();
    assert_eq!(plan.spent, total + floors, "{plan}");
    drop(other);
    budget.replan().expect("all is free");
    assert_eq!(applied(&engines), [total, total]);
}

/// Rows and columns of a layer.
const WIDTH: usize = 64;

/// So many layers, of which each is used `uses` times in a call.
fn layers(device: &Arc<dyn Device>, count: usize, uses: usize) -> Engine {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("model.safetensors");
    let layer = |i: usize| {
        let w = Tensor::randn(0f32, 0.1, (WIDTH, WIDTH), &Cpu::Cpu).expect("a matrix");
        (format!("layer{i}.weight"), w)
    };
    let weights: HashMap<String, Tensor> = (0..count).map(layer).collect();
    candle_core::safetensors::save(&weights, &path).expect("a file");
    let compiler = Compiler::new(Weights::open(&path).expect("it opens"))
        .shared_device(device.clone())
        .profile(Profile::single(&[("rows", 1, 4)]).expect("a profile"))
        .weight_streaming(true)
        .tile_target(TileTarget::Bytes(16 << 10))
        .budget(Request::Minimum);
    let engine = compiler.compile(|vb: candle_nn::VarBuilder| {
        let layer = |i| candle_nn::linear_no_bias(WIDTH, WIDTH, vb.pp(format!("layer{i}")));
        let all = (0..count).map(layer).collect::<Result<Vec<_>, _>>()?;
        Ok(move |call: &Call| {
            let mut x = call.input("x", (call.int("rows")?, WIDTH), DType::F32)?;
            for layer in (0..uses).flat_map(|_| &all) {
                x = layer.forward(&x)?.silu()?;
            }
            Ok(vec![x])
        })
    });
    engine.expect("it compiles")
}

/// Bytes that a call of each streams, once all that is resident is there.
fn streamed_in_a_round(engines: &[Engine]) -> u64 {
    let x = [Tensor::ones((1, WIDTH), DType::F32, &Cpu::Cpu).expect("a tensor")];
    let streamed = |engine: &Engine| {
        let mut session = engine.session().expect("a session");
        session.run(&x).expect("a call that loads");
        let before = engine.traffic().bytes;
        for _ in 0..4 {
            session.run(&x).expect("a call");
        }
        (engine.traffic().bytes - before) / 4
    };
    engines.iter().map(streamed).sum()
}

#[test]
fn what_is_used_twice_in_a_call_comes_before_what_is_used_once_and_less_is_streamed() {
    let device = discrete();
    let engines = [layers(&device, 40, 1), layers(&device, 12, 2)];
    let floors = engines.each_ref().map(Engine::minimum_device_budget);
    let rooms = engines
        .each_ref()
        .map(|e| e.total_device_budget() - e.minimum_device_budget());
    assert!(rooms[0] > 2 * rooms[1], "of different sizes");
    let floor: u64 = floors.iter().sum();
    for part in 1..4 {
        // A fourth of the room, half, three fourths.
        let bytes = floor + (rooms[0] + rooms[1]) * part / 4;
        let proportional = [0, 1].map(|i| floors[i] + rooms[i] * part / 4);
        for (engine, bytes) in engines.iter().zip(proportional) {
            let request = Request::Bytes(bytes);
            engine.set_device_budget(request).expect("there is memory");
        }
        let wasted = streamed_in_a_round(&engines);
        let budget = joined(&device, &engines, Request::Minimum);
        let plan = budget.set(Request::Bytes(bytes)).expect("above the floors");
        agrees(&plan, &engines);
        assert_eq!(plan.spent, bytes);
        let shares = applied(&engines);
        assert!(
            shares[1] > proportional[1] + TILE && shares[0] + TILE < proportional[0],
            "{shares:?} is as good as {proportional:?}"
        );
        let streamed = streamed_in_a_round(&engines);
        assert!(streamed + TILE < wasted, "{streamed} bytes after {wasted}");
    }
}
