//! How arenas are held on the GPU: right in every state, and gone by the driver's count.

use crate::matrix;
use crate::models::{compile, tall, tokens};
use crate::{cuda, cuda_alone, free};
use candle_core::DType;
use candle_trt::device::Device;
use candle_trt::{Allocation, Engine, Request, Session, Shared};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub const MIB: u64 = 1 << 20;

/// The driver counts in pieces of 2 MiB, and keeps a little of what recording takes.
const SLACK: u64 = 4 * MIB;

/// Tokens of the largest call.
const LONGEST: usize = 512;

/// An id that the model's table does not have.
const NO_TOKEN: u32 = 4_000_000;

#[test]
fn every_pair_of_states_gives_right_outputs() {
    if let Some(device) = cuda() {
        matrix::every_pair_is_right_on(device);
    }
}

/// An engine with a large arena in dynamic allocation, which has run in each.
struct Setting {
    engine: Engine,
    session: Session,
    /// Bytes of the largest call's arena.
    arena: u64,
    /// What is free between calls.
    idle: u64,
    allocations: [Allocation; 3],
}

impl Setting {
    fn new(device: &Arc<dyn Device>) -> Setting {
        let dir = tempfile::tempdir().expect("a folder");
        let model = tall(16384);
        model
            .write(dir.path(), DType::F32, 7, 1)
            .expect("a checkpoint");
        let engine = compile(dir.path(), &model, DType::F32, device.clone(), true);
        engine.set_device_budget(Request::Full).expect("memory");
        let arena = engine.report().classes.iter().map(|c| c.arena_bytes).max();
        let arena = arena.expect("a class");
        assert!(arena >= 32 * MIB, "an arena of {arena} bytes");
        let mut setting = Setting {
            session: engine.session().expect("a session"),
            allocations: [
                Allocation::Static,
                Allocation::from(&Shared::new()),
                Allocation::Dynamic,
            ],
            engine,
            arena,
            idle: 0,
        };
        // What the first calls make for good: resident weights, streams, code.
        for allocation in setting.allocations.clone() {
            setting.set(allocation);
            setting.calls();
        }
        setting.idle = free(device);
        setting
    }

    fn set(&self, allocation: Allocation) {
        self.engine.set_allocation(allocation).expect("memory");
    }

    /// The largest prompt and a token, often enough that what can be recorded is.
    fn calls(&mut self) {
        for _ in 0..3 {
            self.prompt(LONGEST);
            self.session.decode(7).expect("a token");
        }
    }

    fn prompt(&mut self, tokens_of_it: usize) {
        self.session.reset();
        let prompt = tokens(tokens_of_it);
        self.session.prefill(&prompt).expect("a prompt");
    }

    fn failing_call(&mut self) {
        self.session.reset();
        let mut ids = tokens(LONGEST);
        ids[LONGEST / 2] = NO_TOKEN;
        let error = self.session.prefill(&ids).expect_err("no such id");
        let error = error.to_string();
        assert!(error.contains(&NO_TOKEN.to_string()), "{error}");
    }
}

#[test]
fn static_and_shared_arenas_are_held_and_gone_with_the_scope_by_the_drivers_count() {
    let Some(device) = cuda_alone() else { return };
    let mut setting = Setting::new(&device);
    let (arena, idle) = (setting.arena, setting.idle);
    for allocation in setting.allocations.clone() {
        let engine = setting.engine.clone();
        let scope = engine.resource_allocation(allocation.clone());
        let scope = scope.expect("there is memory");
        setting.calls();
        let held = idle.saturating_sub(free(&device));
        match allocation {
            Allocation::Dynamic => assert!(held <= SLACK, "{held} between dynamic calls"),
            _ => assert!(
                held + SLACK >= arena,
                "{allocation} holds {held} of {arena}"
            ),
        }
        drop(scope);
        let left = idle.saturating_sub(free(&device));
        assert!(left <= SLACK, "{left} bytes stayed after {allocation}");
    }
}

#[test]
fn a_dynamic_call_that_fails_leaves_nothing_by_the_drivers_count() {
    let Some(device) = cuda_alone() else { return };
    let mut setting = Setting::new(&device);
    for _ in 0..5 {
        setting.failing_call();
        let left = setting.idle.saturating_sub(free(&device));
        assert!(left <= SLACK, "{left} bytes stayed after an error");
        setting.calls();
        let left = setting.idle.saturating_sub(free(&device));
        assert!(
            left <= SLACK,
            "{left} bytes stayed after the calls behind it"
        );
    }
}

/// Tells a thread to end, also if what it watches panics.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The least that was free while something ran, as often as the driver tells.
pub fn least_free(device: &Arc<dyn Device>, work: impl FnOnce()) -> u64 {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut least = u64::MAX;
            while !ended.load(Ordering::Relaxed) {
                least = least.min(free(device));
            }
            least
        });
        let ends = Ends(&ended);
        work();
        drop(ends);
        watch.join().expect("the watching thread ends")
    })
}

#[test]
fn a_dynamic_call_takes_its_plan_and_a_short_one_less_by_the_drivers_count() {
    let Some(device) = cuda_alone() else { return };
    let mut setting = Setting::new(&device);
    let (plan, idle) = (setting.arena, setting.idle);
    let mut took = |tokens: usize| {
        let least = least_free(&device, || (0..5).for_each(|_| setting.prompt(tokens)));
        idle.saturating_sub(least)
    };
    let (longest, short) = (took(LONGEST), took(LONGEST / 8));
    let outputs = 96 * 4;
    assert!(
        longest >= plan * 9 / 10,
        "{longest} of {plan}: nothing was measured"
    );
    assert!(
        longest <= plan + outputs + MIB.max(plan / 8),
        "{longest} of {plan}"
    );
    assert!(
        short <= plan / 8 + MIB.max(plan / 8),
        "{short} for an eighth of {plan}"
    );
}
