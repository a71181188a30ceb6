//! What a compiler makes of a limit, of a budget, and of streaming being off, in any combination.

use crate::semantics::{MODES, compile, logits, parse, streaming, try_compile};
use candle_trt::device::{Host, HostMode};
use candle_trt::{Compiler, Error, Request};

#[test]
fn a_limit_without_a_budget_is_the_largest_budget_that_fits() {
    for mode in MODES {
        let free = streaming(mode);
        let memory = free.memory();
        let other = memory.activations + memory.constants + memory.states_per_session;
        let (floor, total) = (free.minimum_device_budget(), free.total_device_budget());
        let expected = logits(&free);
        // The limit alone has weights stream.
        for left in [floor, total / 3, total - 1, total, 40 * total] {
            let engine = compile(mode, |c| c.device_limit(other + left));
            let applied = engine.device_budget().expect("a budget");
            assert_eq!(applied.applied, left.min(total), "{mode:?}");
            assert_eq!(applied.requested, Request::Automatic);
            assert!(logits(&engine) == expected, "{mode:?}");
            assert_eq!(engine.last_traffic().bytes, applied.streamed);
            // So it is for every later limit while no budget was asked for.
            for later in [total, floor, total / 2] {
                let applied = engine.set_device_limit(other + later).expect("it fits");
                assert_eq!(applied.applied, later, "{mode:?} after {left}");
            }
        }
        let below = try_compile(mode, |c| c.device_limit(other + floor - 1));
        match below.expect_err("a byte is missing") {
            Error::LimitTooSmall { left, floor: f, .. } => {
                assert_eq!((left, f), (floor - 1, floor))
            }
            error => panic!("{error}"),
        }
    }
}

#[test]
fn a_limit_beyond_what_the_device_has_gives_the_budget_that_there_is_memory_for() {
    let free = streaming(HostMode::Discrete);
    let memory = free.memory();
    let other = memory.activations + memory.constants + memory.states_per_session;
    let (floor, total) = (free.minimum_device_budget(), free.total_device_budget());
    let bytes = other + floor + (total - floor) / 2;
    let engine = compile(HostMode::Discrete, |c| {
        let device = Host::new(HostMode::Discrete).with_memory(bytes);
        c.device(device).device_limit(100 * total)
    });
    let applied = engine.device_budget().expect("a budget").applied;
    // A 64th of the device is left alone.
    let most = bytes - other;
    assert!(
        applied <= most && applied >= most - bytes / 64,
        "{applied} of {most}"
    );
    assert_eq!(engine.device_limit(), 100 * total);
    assert!(logits(&engine) == logits(&free));
    let again = engine.set_device_limit(200 * total).expect("it fits");
    assert!(
        again.applied <= most && again.applied >= applied,
        "{again:?}"
    );
}

#[test]
fn a_first_budget_implies_streaming_and_contradicts_its_being_off() {
    let bytes = streaming(HostMode::Discrete).minimum_device_budget();
    for request in [Request::Minimum, Request::Bytes(bytes), parse("50%")] {
        let engine = compile(HostMode::Discrete, |c| c.budget(request));
        let applied = engine.device_budget().expect("a budget");
        assert_eq!(applied.requested, request);
        assert!(applied.streamed > 0, "{applied:?}");
        let off = |c: Compiler| c.weight_streaming(false).budget(request);
        let error = try_compile(HostMode::Discrete, off).expect_err("they contradict");
        assert!(
            matches!(error, Error::BudgetWithoutStreaming { budget } if budget == request),
            "{error}"
        );
        assert!(error.to_string().contains(&request.to_string()), "{error}");
    }
    // All weights are what an engine without streaming has.
    let full = compile(HostMode::Discrete, |c| {
        c.budget(Request::Full).weight_streaming(false)
    });
    assert!(matches!(
        full.set_device_budget(Request::Full),
        Err(Error::NoStreaming)
    ));
}
