//! Weight files that are cut while they are open, or whose tensors are not aligned: host devices.

use crate::common::mapped::*;
use candle_trt::device::{Device, Host, HostMode};
use std::sync::Arc;

fn hosts() -> [Arc<dyn Device>; 2] {
    [Arc::new(Host::unified()), Arc::new(Host::discrete())]
}

#[test]
fn a_file_that_is_cut_between_tokens_fails_calls_until_it_is_whole_again() {
    hosts()
        .into_iter()
        .for_each(a_cut_between_tokens_fails_the_call);
}

#[test]
fn a_file_that_is_cut_while_it_streams_fails_the_call_and_the_next_one_is_right() {
    for by in [0, 3] {
        let cut = |host| a_cut_while_streaming_fails_the_call(host, by);
        hosts().into_iter().for_each(cut);
    }
}

#[test]
fn tensors_that_their_type_does_not_align_give_the_same_bits_at_every_budget() {
    for mode in [HostMode::Unified, HostMode::Discrete] {
        alignment_changes_no_bit(|| Arc::new(Host::new(mode)));
    }
}

#[test]
fn what_the_host_computes_for_a_device_reads_unaligned_tables_too() {
    let make = || -> Arc<dyn Device> { Arc::new(Host::discrete().without("gather")) };
    alignment_changes_no_bit(make);
    a_cut_between_tokens_fails_the_call(make());
}
