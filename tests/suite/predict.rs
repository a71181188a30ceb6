//! Predicted times of an engine: with costs that are given, so that no clock decides, and
//! with costs that are measured, where only what a clock cannot change is asserted.

use crate::common::hooked::Hooked;
use crate::common::tiny;
use crate::families::tokens;
use candle_core::DType;
use candle_trt::device::{Host, HostMode};
use candle_trt::models::{Llama, LoadOptions};
use candle_trt::{Compiler, Costs, Engine, Error, Profile, Request, TileTarget, Weights};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// 1 MB/s over the link, so that copying decides wherever there is any.
pub const COSTS: Costs = Costs {
    link: 1e6,
    memory: 1e9,
    settled: 0.001,
    packed: 0.0,
    streaming: 0.0015,
    contention: 0.1,
};

fn compiler(mode: HostMode) -> Compiler {
    let dir = tempfile::tempdir().expect("a folder");
    let model = tiny::llama3();
    model
        .write(dir.path(), DType::F32, 7, 1)
        .expect("a checkpoint");
    Compiler::new(Weights::open(dir.path()).expect("it opens"))
        .device(Host::new(mode))
        .profile(Profile::decoder(64, 16).expect("a profile"))
        .tile_target(TileTarget::Bytes(4 << 10))
}

fn compile(compiler: Compiler) -> Engine {
    let config = tiny::llama3().config();
    let options = LoadOptions {
        max_positions: Some(64),
    };
    compiler
        .compile(|vb| Llama::load_with(vb, &config, &options))
        .expect("it compiles")
}

fn engine(mode: HostMode) -> Engine {
    compile(compiler(mode).weight_streaming(true))
}

fn known() -> Engine {
    let engine = engine(HostMode::Discrete);
    engine.set_costs(&[], COSTS).expect("a decoder's token");
    engine
}

/// Budgets from the floor to the total.
fn budgets(engine: &Engine) -> Vec<u64> {
    let (floor, total) = (engine.minimum_device_budget(), engine.total_device_budget());
    (0..=60).map(|i| floor + (total - floor) * i / 60).collect()
}

#[test]
fn a_prediction_tells_what_a_call_will_stream() {
    let engine = known();
    let mut session = engine.session().expect("a session");
    for budget in budgets(&engine).into_iter().step_by(12) {
        let request = Request::Bytes(budget);
        let predicted = engine.predict(request).expect("a budget");
        let applied = engine.set_device_budget(request).expect("a budget");
        session.decode(1).expect("a token");
        session.decode(2).expect("a token");
        assert_eq!(predicted.link_bytes, applied.streamed, "{budget}");
        assert_eq!(
            predicted.link_bytes,
            engine.last_traffic().bytes,
            "{budget}"
        );
        assert_eq!(predicted.memory_bytes, engine.total_device_budget());
        let link = predicted.link_bytes as f64 / 1e6;
        assert!(
            (predicted.link_seconds - link).abs() < 1e-12,
            "{predicted:?}"
        );
    }
}

#[test]
fn more_budget_never_takes_longer_and_the_budget_for_that_time_is_no_larger() {
    let engine = known();
    let mut last = f64::MAX;
    for budget in budgets(&engine) {
        let predicted = engine.predict(Request::Bytes(budget)).expect("a budget");
        assert_eq!(predicted.budget, budget);
        assert!(predicted.seconds <= last, "{budget}");
        last = predicted.seconds;
        let enough = engine.budget_for(predicted.time()).expect("there is one");
        assert!(enough <= budget, "{enough} for what {budget} gives");
        assert!(enough >= engine.minimum_device_budget());
        let there = engine.predict(Request::Bytes(enough)).expect("a budget");
        assert!(there.time() <= predicted.time());
    }
    assert!((last - 0.001).abs() < 1e-7, "{last}");
}

#[test]
fn requests_of_all_forms_are_predicted() {
    let engine = known();
    let at = |request: &str| {
        let request: Request = request.parse().expect("a request");
        engine.predict(request).expect("a budget").budget
    };
    assert_eq!(at("min"), engine.minimum_device_budget());
    assert_eq!(at("full"), engine.total_device_budget());
    assert_eq!(at("50%"), engine.total_device_budget() / 2);
    let below = Request::Bytes(engine.minimum_device_budget() - 1);
    assert!(engine.predict(below).is_err());
}

#[test]
fn a_time_that_cannot_be_reached_is_an_error_that_names_the_best() {
    let engine = known();
    let asked = Duration::from_micros(999);
    match engine.budget_for(asked) {
        Err(Error::LatencyOutOfReach {
            latency,
            best,
            budget,
        }) => {
            assert_eq!((latency, best), (asked, Duration::from_millis(1)));
            assert_eq!(budget, engine.total_device_budget());
        }
        other => panic!("{other:?}"),
    }
    let error = engine.budget_for(asked).expect_err("too fast").to_string();
    assert!(error.contains("999µs") && error.contains("1ms"), "{error}");
}

#[test]
fn a_limit_bounds_what_can_be_reached() {
    let engine = known();
    let memory = engine.memory();
    let other = memory.activations + memory.constants + memory.states_per_session;
    let half = engine.total_device_budget() / 2;
    engine.set_device_limit(other + half).expect("room");
    let best = engine
        .predict(Request::Bytes(half))
        .expect("a budget")
        .time();
    match engine.budget_for(Duration::from_millis(1)) {
        Err(Error::LatencyOutOfReach {
            best: found,
            budget,
            ..
        }) => assert_eq!((found, budget), (best, half)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn calibrating_leaves_budget_limit_memory_and_sessions_as_they_were() {
    for mode in [HostMode::Unified, HostMode::Discrete] {
        let engine = engine(mode);
        let mut session = engine.session().expect("a session");
        session.prefill(&tokens(9)).expect("a prompt");
        let mut other = engine.session().expect("a session");
        other.prefill(&tokens(9)).expect("a prompt");
        let expected = other.decode(3).expect("a token");
        drop(other);
        let half = Request::Bytes(engine.total_device_budget() / 2);
        let before = engine.set_device_budget(half).expect("a budget");
        // Room for the one session and no more.
        let memory = engine.memory();
        let limit = memory.in_use - memory.weights + before.applied;
        engine.set_device_limit(limit).expect("room");
        let memory = engine.memory();
        for ints in [&[][..], &[("past", 20)], &[("seq", 7)]] {
            let costs = engine.calibrate(ints).expect("it is measured");
            assert!(costs.link > 0.0 && costs.settled > 0.0, "{costs:?}");
            assert!(costs.streaming >= costs.settled, "{costs:?}");
        }
        let after = engine.device_budget().expect("a budget");
        assert_eq!(after.applied, before.applied);
        assert_eq!(after.resident, before.resident);
        assert_eq!(engine.device_limit(), limit);
        assert_eq!(engine.memory().in_use, memory.in_use);
        let same = session.decode(3).expect("a token") == expected;
        assert!(same, "{mode:?}");
    }
}

#[test]
fn a_panic_while_calibrating_leaves_the_budget_and_the_memory_as_they_were() {
    for mode in [HostMode::Unified, HostMode::Discrete] {
        let left = Arc::new(AtomicUsize::new(usize::MAX));
        let calls = left.clone();
        let panics = Hooked::on_begin(move || {
            let left = calls.fetch_sub(1, Ordering::SeqCst);
            assert!(left > 0, "it was told to");
        });
        let engine = compile(compiler(mode).weight_streaming(true).allocation(panics));
        let mut session = engine.session().expect("a session");
        let expected = session.prefill(&tokens(9)).expect("a prompt");
        let half = Request::Bytes(engine.total_device_budget() / 2);
        let before = engine.set_device_budget(half).expect("a budget");
        let memory = engine.memory().in_use;
        // In the first call at all, and in a later one.
        for after in [0, 20] {
            left.store(after, Ordering::SeqCst);
            let result = catch_unwind(AssertUnwindSafe(|| engine.calibrate(&[])));
            assert!(result.is_err(), "a call panicked");
            left.store(usize::MAX, Ordering::SeqCst);
            assert_eq!(engine.device_budget().expect("a budget"), before);
            assert_eq!(engine.memory().in_use, memory);
        }
        session.reset();
        let same = session.prefill(&tokens(9)).expect("a prompt") == expected;
        assert!(same, "{mode:?}");
        engine.calibrate(&[]).expect("nothing is in the way");
    }
}

#[test]
fn the_first_prediction_measures() {
    let engine = engine(HostMode::Discrete);
    let full = engine.predict(Request::Full).expect("it is measured");
    let floor = engine.predict(Request::Minimum).expect("it is known");
    assert!(full.seconds > 0.0 && floor.seconds >= full.seconds);
    assert_eq!(full.link_bytes, 0);
    let enough = engine.budget_for(floor.time()).expect("there is one");
    assert_eq!(enough, engine.minimum_device_budget());
}

#[test]
fn calls_that_the_profile_does_not_have_are_named() {
    let engine = engine(HostMode::Unified);
    for (ints, text) in [([("seq", 17)], "seq=17"), ([("rows", 2)], "rows=2")] {
        let error = engine.calibrate(&ints).expect_err("no such call");
        assert!(matches!(error, Error::OutsideProfile { .. }), "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[test]
fn predictions_need_streaming() {
    let engine = compile(compiler(HostMode::Unified));
    let refused = |result: Option<Error>| matches!(result, Some(Error::NoStreaming));
    assert!(refused(engine.calibrate(&[]).err()));
    assert!(refused(engine.set_costs(&[], COSTS).err()));
    assert!(refused(engine.predict(Request::Full).err()));
    assert!(refused(engine.budget_for(Duration::from_secs(1)).err()));
}

#[test]
fn costs_that_no_call_can_have_are_refused_by_name_and_change_nothing() {
    let engine = engine(HostMode::Discrete);
    engine.set_costs(&[], COSTS).expect("costs");
    let before = engine.predict(Request::Minimum).expect("a time").seconds;
    type Spoil = fn(&mut Costs);
    let cases: [(&str, Spoil); 6] = [
        ("link", |c| c.link = 0.0),
        ("memory", |c| c.memory = f64::NAN),
        ("settled", |c| c.settled = -1.0),
        ("streaming", |c| c.streaming = f64::INFINITY),
        ("contention", |c| c.contention = 1.5),
        ("contention", |c| c.contention = f64::NAN),
    ];
    for (field, spoil) in cases {
        let mut costs = COSTS;
        spoil(&mut costs);
        let error = engine.set_costs(&[], costs).expect_err("no call has that");
        assert!(error.to_string().contains(field), "{error}");
        let after = engine.predict(Request::Minimum).expect("a time").seconds;
        assert_eq!(after, before, "{field}");
    }
}
