//! What is left of a budget when a new one is refused and another party has taken the memory of the
//! old one meanwhile.

#[allow(dead_code, reason = "the tests of the executor use all of it")]
#[path = "support/bench.rs"]
mod bench;
#[path = "../../trt-device/tests/support/forward.rs"]
mod forward;
mod support;
#[path = "support/thief.rs"]
mod thief;

use bench::{Bench, STREAMED};
use std::sync::Arc;
use thief::Thief;
use trt_stream::{Error, ProgramId, Request, Why};

/// What is left while another party takes the rest.
const LEFT: u64 = 1000;

fn bench() -> (Bench, Arc<Thief>) {
    let thief = Thief::new(16 << 20);
    (Bench::on(thief.clone(), u64::MAX), thief)
}

/// A budget that is almost all, so that the ring goes with the full one and has to be had back.
fn almost_all(streamer: &mut trt_stream::Streamer) -> trt_stream::Applied {
    let request = Request::Bytes(streamer.total() - 1);
    let applied = streamer.set_budget(request, 0).unwrap();
    assert!(applied.ring > LEFT, "{applied:?}");
    applied
}

#[test]
fn a_budget_that_cannot_be_had_back_falls_to_what_there_is() {
    let (bench, thief) = bench();
    let mut streamer = bench.streamer(Request::Minimum);
    let before = almost_all(&mut streamer);
    bench.pass(&mut streamer, 0, &STREAMED);
    thief.take_before_next(LEFT);
    let error = streamer.set_budget(Request::Full, 0).unwrap_err();
    assert!(error.out_of_memory().is_some(), "{error}");
    let fallen = streamer.applied().unwrap();
    let there_is = before.pinned + before.resident + LEFT;
    assert_eq!(fallen.applied, there_is);
    let from = before.applied;
    assert_eq!(fallen.why, Why::Pressure { from });
    assert_eq!(fallen.requested, before.requested);
    assert_eq!(bench.pool.in_use(), fallen.used());
    bench.pass(&mut streamer, 0, &STREAMED);
    bench.pass(&mut streamer, 0, &STREAMED);
    assert_eq!(streamer.last_pass().bytes, fallen.streamed);
}

#[test]
fn on_a_device_that_does_not_tell_what_is_free_it_falls_step_by_step() {
    let (bench, thief) = bench();
    let mut streamer = bench.streamer(Request::Minimum);
    let before = almost_all(&mut streamer);
    thief.tell(false);
    thief.take_before_next(LEFT);
    streamer.set_budget(Request::Full, 0).unwrap_err();
    let fallen = streamer.applied().unwrap();
    assert!(fallen.floor < fallen.applied && fallen.applied < before.applied);
    let from = before.applied;
    assert_eq!(fallen.why, Why::Pressure { from });
    assert_eq!(bench.pool.in_use(), fallen.used());
    bench.pass(&mut streamer, 0, &STREAMED);
    bench.pass(&mut streamer, 0, &STREAMED);
}

#[test]
fn what_fell_regrows_to_what_was_asked_for_once_memory_is_back() {
    let (bench, thief) = bench();
    let mut streamer = bench.streamer(Request::Minimum);
    let before = almost_all(&mut streamer);
    thief.take_before_next(LEFT);
    streamer.set_budget(Request::Full, 0).unwrap_err();
    let fallen = streamer.applied().unwrap();
    assert_eq!(streamer.regrow(u64::MAX).unwrap().applied, fallen.applied);
    thief.give_back();
    assert!(streamer.would_regrow(u64::MAX).unwrap());
    assert_eq!(streamer.regrow(u64::MAX).unwrap(), before);
    assert!(!streamer.would_regrow(u64::MAX).unwrap());
    bench.pass(&mut streamer, 0, &STREAMED);
    bench.pass(&mut streamer, 0, &STREAMED);
    assert_eq!(streamer.last_pass().bytes, before.streamed);
}

#[test]
fn without_memory_for_the_floor_there_is_no_budget_until_memory_is_back() {
    let (bench, thief) = bench();
    let mut streamer = bench.streamer(Request::Minimum);
    let floor = streamer.applied().unwrap();
    thief.take_before_next(0);
    let error = streamer.set_budget(Request::Full, 0).unwrap_err();
    assert!(error.out_of_memory().is_some(), "{error}");
    assert!(matches!(streamer.applied(), Err(Error::Starved)));
    let refused = streamer.begin(ProgramId(0)).map(|_| ()).unwrap_err();
    assert!(matches!(refused, Error::Starved), "{refused}");
    let refused = streamer.regrow(u64::MAX).unwrap_err();
    assert!(refused.out_of_memory().is_some(), "{refused}");
    assert!(matches!(streamer.applied(), Err(Error::Starved)));
    thief.give_back();
    assert_eq!(streamer.regrow(u64::MAX).unwrap(), floor);
    bench.pass(&mut streamer, 0, &STREAMED);
    bench.pass(&mut streamer, 0, &STREAMED);
}
