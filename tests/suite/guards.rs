//! What a scope of a budget restores, on every way out of it.

use crate::common::small::{bits, compile};
use candle_trt::device::{Host, HostMode};
use candle_trt::{Applied, Engine, Error, Request};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

fn engine(mode: HostMode) -> Engine {
    compile(Arc::new(Host::new(mode)), |c| c).expect("it compiles")
}

fn now(engine: &Engine) -> (Applied, u64, u64) {
    let budget = engine.device_budget().expect("a budget");
    (budget, engine.device_limit(), engine.memory().weights)
}

/// Every kind of request, and so every kind of split.
fn starts(engine: &Engine) -> Vec<Request> {
    let (floor, total) = (engine.minimum_device_budget(), engine.total_device_budget());
    vec![
        Request::Minimum,
        Request::Bytes(floor + 1),
        "40%".parse().expect("a share"),
        Request::Bytes(total - 1),
        Request::Bytes(total + 5),
        Request::Full,
        Request::Automatic,
    ]
}

#[test]
fn a_scope_restores_exactly_what_it_found_on_every_way_out() {
    for engine in [engine(HostMode::Unified), engine(HostMode::Discrete)] {
        let wanted = bits(&engine);
        for start in starts(&engine) {
            engine.set_device_budget(start).expect("a budget");
            let before = now(&engine);
            for inside in starts(&engine) {
                {
                    let mut scope = engine.weight_streaming().expect("a scope");
                    scope.set_device_budget(inside).expect("a budget");
                }
                assert_eq!(now(&engine), before, "after {inside} in {start}");
                let early = || -> Result<(), Error> {
                    let mut scope = engine.weight_streaming()?;
                    scope.set_device_budget(inside)?;
                    scope.set_device_limit(1)?;
                    Ok(())
                };
                early().expect_err("a limit of a byte");
                assert_eq!(now(&engine), before, "after an error in {start}");
                let panics = AssertUnwindSafe(|| {
                    let mut scope = engine.weight_streaming().expect("a scope");
                    scope.set_device_budget(inside).expect("a budget");
                    panic!("in a scope");
                });
                catch_unwind(panics).expect_err("it panicked");
                assert_eq!(now(&engine), before, "after a panic in {start}");
            }
        }
        assert!(bits(&engine) == wanted);
    }
}

#[test]
fn scopes_nest() {
    let engine = engine(HostMode::Discrete);
    engine
        .set_device_budget(Request::Automatic)
        .expect("a budget");
    let outside = now(&engine);
    {
        let mut outer = engine.weight_streaming().expect("a scope");
        outer
            .set_device_budget("50%".parse().expect("a share"))
            .expect("a budget");
        let between = now(&engine);
        {
            let mut inner = engine.weight_streaming().expect("a scope");
            inner.set_device_limit(1 << 30).expect("a limit");
            inner.set_device_budget(Request::Minimum).expect("a budget");
        }
        assert_eq!(now(&engine), between);
    }
    assert_eq!(now(&engine), outside);
}

/// Each restores what it found; the second found what the first had set.
#[test]
fn of_two_scopes_of_one_engine_the_last_to_end_has_the_last_word() {
    for engine in [engine(HostMode::Unified), engine(HostMode::Discrete)] {
        engine.set_device_budget(Request::Full).expect("a budget");
        let wanted = bits(&engine);
        let outside = now(&engine);
        let mut first = engine.weight_streaming().expect("a scope");
        let half = "50%".parse().expect("a share");
        first.set_device_budget(half).expect("a budget");
        let between = now(&engine);
        let mut second = engine.weight_streaming().expect("a scope");
        second
            .set_device_budget(Request::Minimum)
            .expect("a budget");
        drop(first);
        assert_eq!(now(&engine), outside);
        drop(second);
        assert_eq!(now(&engine), between);
        assert!(bits(&engine) == wanted);
    }
}

#[test]
fn a_limit_stays_raised_while_sessions_of_its_scope_hold_more_than_the_one_before() {
    for engine in [engine(HostMode::Unified), engine(HostMode::Discrete)] {
        let memory = engine.memory();
        let beside = memory.activations + memory.constants;
        let low = beside + memory.states_per_session + engine.minimum_device_budget();
        engine.set_device_limit(low).expect("room for a session");
        let before = engine.device_budget().expect("a budget");
        let mut scope = engine.weight_streaming().expect("a scope");
        let raised = low + 2 * memory.states_per_session;
        scope
            .set_device_limit(raised)
            .expect("room for three sessions");
        // Room for three is room for one and more weights, until sessions ask for it.
        scope
            .set_device_budget(Request::Minimum)
            .expect("the floor");
        let sessions = [(); 3].map(|()| engine.session().expect("states"));
        drop(scope);
        assert_eq!(engine.device_budget().expect("a budget"), before);
        assert_eq!(engine.device_limit(), raised);
        let held = engine.memory().in_use;
        assert!(low < held && held <= raised, "{low} < {held} <= {raised}");
        engine
            .set_device_limit(low)
            .expect_err("they are still there");
        drop(sessions);
        engine.set_device_limit(low).expect("they are gone");
        assert_eq!(engine.device_limit(), low);
    }
}

#[test]
fn scopes_of_two_engines_restore_each_its_own_in_any_order() {
    let engines = [HostMode::Discrete, HostMode::Unified].map(engine);
    for turned in [false, true] {
        let starts = ["30%", "60%"].map(|s| s.parse::<Request>().expect("a share"));
        for (engine, start) in engines.iter().zip(starts) {
            engine.set_device_budget(start).expect("a budget");
        }
        let before = [now(&engines[0]), now(&engines[1])];
        let mut scopes = engines.each_ref().map(|e| {
            let mut scope = e.weight_streaming().expect("a scope");
            scope.set_device_budget(Request::Minimum).expect("a budget");
            Some(scope)
        });
        let first = usize::from(turned);
        let inside = now(&engines[1 - first]);
        drop(scopes[first].take());
        assert_eq!(now(&engines[first]), before[first]);
        assert_eq!(
            now(&engines[1 - first]),
            inside,
            "the other is still inside"
        );
        drop(scopes);
        assert_eq!([now(&engines[0]), now(&engines[1])], before);
    }
}

#[test]
fn setting_what_is_in_force_moves_nothing() {
    for engine in [engine(HostMode::Unified), engine(HostMode::Discrete)] {
        for request in starts(&engine) {
            engine.set_device_budget(request).expect("a budget");
            bits(&engine);
            let work = || (engine.memory().budget_changes, engine.traffic());
            let before = work();
            engine.set_device_budget(request).expect("the same");
            drop(engine.weight_streaming().expect("an empty scope"));
            engine.regrow().expect("nothing to grow");
            assert_eq!(work(), before, "{request}");
        }
    }
}

#[test]
fn a_budget_reads_back_as_it_was_set() {
    for engine in [engine(HostMode::Unified), engine(HostMode::Discrete)] {
        let fresh = engine.device_budget().expect("a budget");
        assert_eq!(fresh.requested, Request::Automatic);
        assert!(0 < fresh.applied && fresh.applied <= fresh.total);
        let (floor, total) = (engine.minimum_device_budget(), engine.total_device_budget());
        let share = |percent: u64| (format!("{percent}%"), total * percent / 100);
        let cases = [
            ("min".to_string(), floor),
            ("0".to_string(), floor),
            (format!("{}", floor + 1), floor + 1),
            share(20),
            share(50),
            share(70),
            share(100),
            ("auto".to_string(), engine.automatic_device_budget()),
        ];
        for (text, bytes) in cases {
            let request: Request = text.parse().expect("a request");
            let reply = engine.set_device_budget(request).expect("a budget");
            assert_eq!((reply.applied, reply.floor), (bytes, floor), "{text}");
            assert_eq!(engine.device_budget().expect("a budget"), reply, "{text}");
        }
    }
}
