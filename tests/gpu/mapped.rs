//! Weight files that are cut while they are open, or whose tensors are not aligned, and ids that no
//! table has: a whole model on a GPU.

use crate::cuda;
use crate::cut::*;
use crate::tiny::tokens;
use candle_core::DType;
use candle_trt::Request;
use candle_trt::device::{Cuda, Device};
use std::sync::Arc;

#[test]
fn a_file_that_is_cut_between_tokens_fails_calls_until_it_is_whole_again() {
    let Some(gpu) = cuda() else { return };
    a_cut_between_tokens_fails_the_call(gpu);
}

#[test]
fn a_file_that_is_cut_while_it_streams_fails_the_call_and_the_next_one_is_right() {
    let Some(gpu) = cuda() else { return };
    a_cut_while_streaming_fails_the_call(gpu, 0);
    // The table is copied, which leaves no room to register the file: weights come by reads.
    let ring = Cuda::with_host_budget(0, file_bytes() - 1).expect("a device");
    let ring = Arc::new(ring);
    a_cut_while_streaming_fails_the_call(ring.clone(), 2);
    assert!(ring.transfers().ring > 0, "{:?}", ring.transfers());
}

#[test]
fn tensors_that_their_type_does_not_align_give_the_same_bits_at_every_budget() {
    if cuda().is_none() {
        return;
    }
    alignment_changes_no_bit(|| cuda().expect("there is one"));
    // A table that is copied, since the file does not align it, counts like one that is registered.
    let dir = tempfile::tempdir().expect("a folder");
    let device = Arc::new(Cuda::new(0).expect("a device"));
    let engine = compile(dir.path(), DType::F32, 2, device.clone());
    let mut session = engine.session().expect("a session");
    session.prefill(&tokens(5)).expect("a prompt");
    assert!(device.transfers().copied > 0);
}

#[test]
fn a_token_outside_the_vocabulary_is_an_error_and_the_engine_goes_on() {
    let Some(gpu) = cuda() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let engine = compile(dir.path(), DType::F32, 0, gpu as Arc<dyn Device>);
    for budget in [Request::Minimum, Request::Full] {
        engine.set_device_budget(budget).expect("a budget");
        let mut session = engine.session().expect("a session");
        let want = session.prefill(&tokens(5)).expect("a prompt");
        session.reset();
        let error = session.prefill(&[3, 4_000_000_000, 1]).expect_err("none");
        assert!(error.to_string().contains("4000000000"), "{error}");
        assert_eq!(session.position(), 0);
        assert_eq!(session.prefill(&tokens(5)).expect("a prompt"), want);
    }
}
