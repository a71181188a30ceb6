//! Budgets, allocations and limits that change while calls run, on the host device.

use crate::common::small::compile;
use crate::common::stress::stress;
use crate::common::tiny::tokens;
use candle_trt::device::{Host, HostMode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const TIME: Duration = Duration::from_millis(900);

#[test]
fn budgets_may_change_while_several_threads_call() {
    for mode in [HostMode::Unified, HostMode::Discrete] {
        stress(Arc::new(Host::new(mode)), false, TIME);
    }
}

#[test]
fn memory_may_be_taken_while_several_threads_call() {
    let device = Host::new(HostMode::Discrete).with_memory(80 << 20);
    stress(Arc::new(device), true, TIME);
}

#[test]
fn a_change_waits_for_the_calls_that_came_before_it_and_not_for_all_that_follow() {
    let engine = compile(Arc::new(Host::discrete()), |c| c).expect("it compiles");
    let (done, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut meanwhile = Vec::new();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut session = engine.session().expect("a session");
                while !done.load(Ordering::SeqCst) {
                    session.reset();
                    session.prefill(&tokens(5)).expect("a call");
                    calls.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for i in 0..200 {
            let before = calls.load(Ordering::SeqCst);
            let budget = ["min", "80%"][i % 2].parse().expect("a budget");
            engine.set_device_budget(budget).expect("a budget");
            meanwhile.push(calls.load(Ordering::SeqCst) - before);
        }
        done.store(true, Ordering::SeqCst);
    });
    // Three may be in front; more end while this thread is not scheduled. Were the turn given to
    // whoever is awake, some changes would wait for thousands.
    let most = meanwhile.iter().max().copied().unwrap_or(0);
    assert!(most <= 50, "calls during a change: {meanwhile:?}");
}
