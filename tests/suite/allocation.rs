//! How the memory of intermediate results is held: what a call may take, and what is left of it.

use crate::common::matrix;
use crate::common::tiny;
use crate::families::tokens;
use candle_core::DType;
use candle_trt::alloc::{Arena, Pool, Strategy};
use candle_trt::device::{Device, Host, HostMode};
use candle_trt::models::{Llama, LoadOptions};
use candle_trt::{
    Allocation, Compiler, Engine, Error, Profile, Request, Shared, TileTarget, Weights,
};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const CONTEXT: usize = 256;

pub fn compile(allocation: impl Into<Allocation>) -> Engine {
    on(Arc::new(Host::discrete()), CONTEXT, allocation)
}

pub fn on(device: Arc<dyn Device>, context: usize, allocation: impl Into<Allocation>) -> Engine {
    let dir = tempfile::tempdir().expect("a folder");
    let model = tiny::llama();
    model
        .write(dir.path(), DType::F32, 7, 1)
        .expect("a checkpoint");
    let config = model.config();
    let options = LoadOptions {
        max_positions: Some(context),
    };
    Compiler::new(Weights::open(dir.path()).expect("it opens"))
        .shared_device(device)
        .profile(Profile::decoder(context, context - 4).expect("a profile"))
        .weight_streaming(true)
        .budget(Request::Full)
        .tile_target(TileTarget::Bytes(8 << 10))
        .allocation(allocation)
        .compile(|vb| Llama::load_with(vb, &config, &options))
        .expect("it compiles")
}

/// A prompt and some tokens in a session of its own, as bits.
pub fn bits(engine: &Engine) -> Vec<Vec<u32>> {
    let mut session = engine.session().expect("a session");
    let all = tokens(16);
    let mut calls = vec![&all[..9]];
    calls.extend(all[9..].chunks(1));
    let run = |call: &[u32]| session.prefill(call).expect("tokens");
    let bits = |logits: Vec<f32>| logits.iter().map(|v| v.to_bits()).collect();
    calls.into_iter().map(run).map(bits).collect()
}

/// Bytes of the largest call's arena.
pub fn largest_arena(engine: &Engine) -> u64 {
    let classes = engine.report().classes.iter();
    classes.map(|c| c.arena_bytes).max().expect("a class")
}

#[test]
fn every_allocation_gives_the_same_bits() {
    let shared = Shared::new();
    let wanted = bits(&compile(Allocation::Static));
    for mode in [HostMode::Unified, HostMode::Discrete] {
        for allocation in [Allocation::Dynamic, Allocation::from(&Shared::new())] {
            let engine = on(Arc::new(Host::new(mode)), CONTEXT, allocation.clone());
            assert!(bits(&engine) == wanted, "{mode:?} {allocation}");
        }
    }
    let engine = compile(&shared);
    assert!(bits(&engine) == wanted);
}

#[test]
fn a_dynamic_engine_holds_no_activations_between_calls() {
    let engine = compile(Allocation::Dynamic);
    let mut session = engine.session().expect("a session");
    session.prefill(&tokens(3)).expect("a prompt");
    let idle = engine.memory().in_use;
    for length in [1, 40, 7] {
        session.prefill(&tokens(length)).expect("a prompt");
        let memory = engine.memory();
        assert_eq!((memory.activations, memory.in_use), (0, idle));
    }
    let error = session.prefill(&[3, 5000]).expect_err("no such token");
    assert!(error.to_string().contains("5000"), "{error}");
    let memory = engine.memory();
    assert_eq!((memory.activations, memory.in_use), (0, idle));
    session.prefill(&tokens(3)).expect("it goes on");
}

#[test]
fn a_dynamic_call_takes_what_its_own_lengths_need() {
    let peak = |length: usize| {
        let engine = compile(Allocation::Dynamic);
        let mut session = engine.session().expect("a session");
        // Loads what is resident.
        session.decode(1).expect("a token");
        let idle = engine.memory().in_use;
        session.prefill(&tokens(length)).expect("a prompt");
        engine.memory().high_water - idle
    };
    let largest = largest_arena(&compile(Allocation::Dynamic));
    assert_eq!(peak(CONTEXT - 4), largest);
    let (short, twice) = (peak(50), peak(100));
    assert!(short < largest / 4, "{short} of {largest}");
    assert!(short < twice && twice < largest / 2, "{short} {twice}");
}

#[test]
fn a_smaller_budget_returns_weights_that_recorded_calls_used() {
    let engine = compile(Allocation::Static);
    let wanted = bits(&engine);
    let mut session = engine.session().expect("a session");
    for token in tokens(6) {
        session.decode(token).expect("a token");
    }
    assert!(engine.replayed_calls() > 0);
    let applied = engine
        .set_device_budget(Request::Minimum)
        .expect("a budget");
    assert!(applied.applied < applied.total);
    let held = engine.memory().weights;
    assert!(held <= applied.applied, "{held} of {}", applied.applied);
    assert!(bits(&engine) == wanted);
}

/// Lends the same memory for each call, and promises nothing about the next.
#[derive(Debug, Default)]
struct SameAgain(Mutex<Option<Arena>>);

impl Strategy for SameAgain {
    fn name(&self) -> &'static str {
        "same again"
    }

    fn begin(&self, pool: &Pool, _bytes: u64) -> Result<Arena, candle_trt::alloc::Error> {
        let kept = self.0.lock().expect("no panic").take();
        kept.map_or_else(|| Arena::acquire(pool, 4 << 20), Ok)
    }

    fn end(&self, arena: Arena) {
        *self.0.lock().expect("no panic") = Some(arena);
    }
}

/// Each call is laid out for its own lengths, so a recording would use the wrong bytes even where
/// the memory is the same.
#[test]
fn calls_whose_memory_is_theirs_alone_are_not_recorded() {
    let engine = compile(Arc::new(SameAgain::default()));
    let mut session = engine.session().expect("a session");
    for length in [5, 5, 5, 9, 9, 30, 1, 1, 1] {
        session.prefill(&tokens(length)).expect("tokens");
    }
    assert_eq!(engine.replayed_calls(), 0);
    assert!(bits(&engine) == bits(&compile(Allocation::Static)));
}

/// Counts what is asked of it.
#[derive(Debug, Default)]
pub struct Counting {
    joined: AtomicUsize,
    left: AtomicUsize,
    begun: AtomicUsize,
    ended: AtomicUsize,
}

impl Counting {
    pub fn counts(&self) -> [usize; 4] {
        [&self.joined, &self.left, &self.begun, &self.ended].map(|c| c.load(Ordering::SeqCst))
    }
}

impl Strategy for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }

    fn join(&self, _pool: &Pool, _most: u64) -> Result<(), candle_trt::alloc::Error> {
        self.joined.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn leave(&self, _pool: &Pool, _most: u64) {
        self.left.fetch_add(1, Ordering::SeqCst);
    }

    fn begin(&self, pool: &Pool, bytes: u64) -> Result<Arena, candle_trt::alloc::Error> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        Arena::acquire(pool, bytes)
    }

    fn end(&self, arena: Arena) {
        self.ended.fetch_add(1, Ordering::SeqCst);
        drop(arena);
    }
}

#[test]
fn each_call_begins_and_ends_once_even_if_it_fails() {
    let own = Arc::new(Counting::default());
    let engine = compile(own.clone());
    let mut session = engine.session().expect("a session");
    session.prefill(&tokens(5)).expect("a prompt");
    session.prefill(&[3, 5000]).expect_err("no such token");
    session.decode(1).expect("a token");
    assert_eq!(own.counts(), [1, 0, 3, 3]);
}

/// Panics in the first call, as a caller's own code may.
#[derive(Debug, Default)]
struct Panics(AtomicUsize);

impl Strategy for Panics {
    fn name(&self) -> &'static str {
        "panics"
    }

    fn begin(&self, pool: &Pool, bytes: u64) -> Result<Arena, candle_trt::alloc::Error> {
        assert!(self.0.fetch_add(1, Ordering::SeqCst) > 0, "the first call");
        Arena::acquire(pool, bytes)
    }

    fn end(&self, arena: Arena) {
        drop(arena);
    }
}

#[test]
fn a_strategy_that_panics_leaves_an_engine_that_goes_on() {
    let engine = compile(Arc::new(Panics::default()));
    let first = catch_unwind(AssertUnwindSafe(|| bits(&engine)));
    assert!(first.is_err());
    assert!(bits(&engine) == bits(&compile(Allocation::Static)));
}

#[test]
fn engines_that_share_an_arena_hold_the_largest_not_the_sum() {
    let shared = Shared::new();
    let device: Arc<dyn Device> = Arc::new(Host::discrete());
    let contexts = [64, CONTEXT, 128];
    let engines = contexts.map(|context| on(device.clone(), context, &shared));
    let needs: Vec<u64> = engines.iter().map(largest_arena).collect();
    assert_eq!(shared.bytes(), needs[1]);
    let wanted = bits(&compile(Allocation::Static));
    for engine in engines.iter().chain(&engines) {
        assert!(bits(engine) == wanted, "in turns");
    }
    for engine in &engines {
        assert_eq!(engine.memory().activations, largest_arena(engine));
        assert!(engine.replayed_calls() > 0);
    }
    let [small, large, middle] = engines;
    drop(large);
    assert_eq!(shared.bytes(), needs[2]);
    assert!(bits(&small) == wanted, "replays in what is left");
    drop((small, middle));
    assert_eq!((shared.members(), shared.bytes()), (0, 0));
}

#[test]
fn engines_that_share_an_arena_may_be_called_from_several_threads() {
    let shared = Shared::new();
    let device: Arc<dyn Device> = Arc::new(Host::discrete());
    let engines = [64, 128, 64].map(|context| on(device.clone(), context, &shared));
    let wanted = bits(&compile(Allocation::Static));
    std::thread::scope(|scope| {
        for engine in &engines {
            scope.spawn(|| (0..8).for_each(|_| assert!(bits(engine) == wanted)));
        }
    });
}

#[test]
fn a_limit_leaves_room_for_the_arena_of_a_dynamic_engine() {
    let engine = compile(Allocation::Dynamic);
    let mut session = engine.session().expect("a session");
    engine
        .set_device_budget(Request::Minimum)
        .expect("a budget");
    let floor = engine.minimum_device_budget();
    let memory = engine.memory();
    let limit = memory.in_use - memory.weights + largest_arena(&engine) + floor;
    let applied = engine.set_device_limit(limit).expect("room for all");
    assert_eq!(applied.applied, floor);
    session
        .prefill(&tokens(CONTEXT - 4))
        .expect("the longest prompt");
    let error = engine.set_device_limit(limit - 1).expect_err("too little");
    assert!(matches!(error, Error::LimitTooSmall { .. }), "{error}");
}

#[test]
fn every_pair_of_states_gives_right_outputs_on_the_discrete_host() {
    matrix::every_pair_is_right_on(Arc::new(Host::discrete()));
}

#[test]
fn every_pair_of_states_gives_right_outputs_in_unified_memory() {
    matrix::every_pair_is_right_on(Arc::new(Host::unified()));
}

#[test]
fn a_batch_gives_what_its_rows_give_alone() {
    matrix::a_batch_gives_what_its_rows_give_alone_on(Arc::new(Host::discrete()));
    matrix::a_batch_gives_what_its_rows_give_alone_on(Arc::new(Host::unified()));
}
