//! Budgets, allocations and limits that change while calls run, on the host device.

use crate::common::stress::stress;
use candle_trt::device::{Host, HostMode};
use std::sync::Arc;
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
