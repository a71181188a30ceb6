//! What was recorded lets go of its memory before anything moves, whichever way weights move.

use crate::common::forward::{Ask, Forward, Hooks};
use candle_core::{DType, Device as Candle, Tensor};
use candle_trt::alloc::{Arena, Error as AllocError, Hold, Pool, Strategy};
use candle_trt::device::{Device, Error as DeviceError, Host};
use candle_trt::{Applied, Compiler, Engine, Error, Profile, Request, TileTarget, Weights};
use candle_trt::{FromTensors, Session};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use trt_graph::candle_nn::{Linear, VarBuilder};
use trt_graph::{Call, candle::Module};

/// A change of the budget.
type Change = fn(&Engine) -> Result<Applied, Error>;

/// Bytes of every arena.
const BYTES: u64 = 1 << 20;

/// Refuses residents above so many bytes, and notes what is free whenever memory is asked for.
#[derive(Debug)]
struct Scales {
    most: AtomicUsize,
    free: Mutex<Vec<u64>>,
}

impl Hooks for Scales {
    fn before(&self, inner: &dyn Device, ask: Ask<'_>) -> Result<(), DeviceError> {
        let Ask::Commit(bytes) = ask else {
            return Ok(());
        };
        let free = inner.free_memory().expect("a host tells");
        self.free.lock().expect("no panic").push(free);
        match bytes > self.most.load(Ordering::SeqCst) {
            true => Err(DeviceError::OutOfMemory {
                device: "scales".into(),
                bytes,
                reason: "it was told to".into(),
            }),
            false => Ok(()),
        }
    }
}

/// Lends one arena until it is told to let go of it: then only what was recorded in it keeps it.
#[derive(Debug, Default)]
struct Lender(Mutex<Option<Arena>>);

impl Lender {
    fn let_go(&self) {
        *self.0.lock().expect("no panic") = None;
    }
}

impl Strategy for Lender {
    fn name(&self) -> &'static str {
        "lender"
    }

    fn hold(&self) -> Hold {
        Hold::Member
    }

    fn begin(&self, pool: &Pool, _bytes: u64) -> Result<Arena, AllocError> {
        let kept = self.0.lock().expect("no panic").take();
        kept.map_or_else(|| Arena::acquire(pool, BYTES), Ok)
    }

    fn end(&self, arena: Arena) {
        *self.0.lock().expect("no panic") = Some(arena);
    }
}

fn randn(shape: (usize, usize)) -> Tensor {
    Tensor::randn(0f32, 1., shape, &Candle::Cpu).expect("numbers")
}

/// Calls of 64 columns are scaled by a weight that is on the device in any case, so they are
/// recorded whatever the budget; calls of 32 columns multiply by one that streams.
fn compile(device: Arc<dyn Device>, lender: Arc<Lender>) -> Engine {
    let scale = Tensor::randn(0f32, 1., 64, &Candle::Cpu).expect("numbers");
    let tensors = [("scale", scale), ("proj", randn((4096, 32)))];
    let tensors: HashMap<String, Tensor> =
        tensors.into_iter().map(|(n, t)| (n.into(), t)).collect();
    let mut profile = Profile::single(&[("scaled", 1, 9)]).expect("a profile");
    let more = Profile::single(&[("multiplied", 1, 9)]).expect("a profile");
    profile.classes.extend(more.classes);
    let compiler = Compiler::new(Weights::from_tensors(tensors).expect("weights"))
        .shared_device(device)
        .profile(profile)
        .weight_streaming(true)
        .tile_target(TileTarget::Bytes(8 << 10))
        .allocation(lender);
    let engine = compiler.compile(|vb: VarBuilder| {
        let scale = vb.get(64, "scale")?;
        let proj = Linear::new(vb.get((4096, 32), "proj")?, None);
        Ok(move |call: &Call| match call.int("scaled") {
            Ok(rows) => {
                let x = call.input("x", (rows, 64), DType::F32)?;
                Ok(vec![x.broadcast_mul(&scale)?.exp()?])
            }
            Err(_) => {
                let x = call.input("x", (call.int("multiplied")?, 32), DType::F32)?;
                Ok(vec![proj.forward(&x)?])
            }
        })
    });
    engine.expect("it compiles")
}

fn run(session: &mut Session, x: &Tensor) -> Vec<Vec<f32>> {
    let out = session.run(std::slice::from_ref(x)).expect("it runs");
    out[0].to_vec2().expect("two dimensions")
}

#[test]
fn what_was_recorded_gives_its_memory_back_before_weights_move() {
    let ways: [(&str, Change); 4] = [
        ("regrow", Engine::regrow),
        ("a budget", |e| e.set_device_budget(Request::Full)),
        ("automatic", |e| e.set_device_budget(Request::Automatic)),
        ("a limit", |e| e.set_device_limit(u64::MAX)),
    ];
    for (way, grow) in ways {
        let scales = Scales {
            most: AtomicUsize::new(60_000),
            free: Mutex::default(),
        };
        let inner: Arc<dyn Device> = Arc::new(Host::discrete().with_memory(64 << 20));
        let device = Forward::to(inner.clone(), scales);
        let lender = Arc::new(Lender::default());
        let engine = compile(device.clone(), lender.clone());
        let few = engine.device_budget().expect("a budget");
        assert!(few.applied < few.total, "{way}: {few:?}");
        let mut session = engine.session().expect("a session");
        let (narrow, wide) = (randn((3, 32)), randn((3, 64)));
        let multiplied = run(&mut session, &narrow);
        // The first call is seen, the second recorded.
        let scaled = run(&mut session, &wide);
        assert!(run(&mut session, &wide) == scaled, "{way}");
        assert_eq!(engine.replayed_calls(), 1, "{way}");
        lender.let_go();
        let before = inner.free_memory().expect("a host tells");
        device.free.lock().expect("no panic").clear();
        device.most.store(usize::MAX, Ordering::SeqCst);
        let all = grow(&engine).expect("there is memory");
        assert_eq!(all.applied, all.total, "{way}");
        let seen = device.free.lock().expect("no panic").clone();
        let first = seen.first().copied().expect("residents were asked for");
        assert!(
            first >= before + BYTES,
            "{way}: {first} bytes were free when weights moved, {before} before that"
        );
        assert!(run(&mut session, &narrow) == multiplied, "{way}");
        assert!(run(&mut session, &wide) == scaled, "{way}");
    }
}

#[test]
fn a_change_that_moves_nothing_forgets_nothing() {
    let device: Arc<dyn Device> = Arc::new(Host::discrete().with_memory(64 << 20));
    let engine = compile(device, Arc::new(Lender::default()));
    let mut session = engine.session().expect("a session");
    let wide = randn((3, 64));
    run(&mut session, &wide);
    run(&mut session, &wide);
    let same: [Change; 3] = [
        Engine::regrow,
        |e| e.set_device_budget(Request::Full),
        |e| e.weight_streaming()?.set_device_budget(Request::Automatic),
    ];
    for (changes, change) in (2..).zip(same) {
        let changed = change(&engine).expect("it is in force");
        assert_eq!(changed.applied, changed.total);
        run(&mut session, &wide);
        assert_eq!(engine.replayed_calls(), changes, "replayed at once");
    }
}
