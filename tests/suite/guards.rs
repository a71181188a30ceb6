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
