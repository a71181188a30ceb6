//! What is given back is gone from the process: alone in its process, so that it can be measured.

use std::sync::Arc;
use trt_alloc::{Allocation, Pool, Shared};
use trt_device::{AnonPeak, Device, Host, ProcessMemory};

#[test]
fn what_strategies_return_is_gone_from_the_process() {
    const BYTES: u64 = 48 << 20;
    let device: Arc<dyn Device> = Arc::new(Host::discrete());
    let pool = Pool::new(device.clone(), u64::MAX);
    let stream = device.stream("test").unwrap();
    let shared = Shared::new();
    let anonymous = || ProcessMemory::now().unwrap().anonymous;
    let before = anonymous();
    for allocation in [
        Allocation::Dynamic,
        Allocation::Static,
        Allocation::from(&shared),
    ] {
        let strategy = allocation.strategy();
        let peak = AnonPeak::start().unwrap();
        strategy.join(&pool, BYTES).unwrap();
        let arena = strategy.begin(&pool, BYTES).unwrap();
        arena.poison(&*device, stream).unwrap();
        device.synchronize(stream).unwrap();
        assert!(peak.peak() >= before + BYTES, "{allocation}: all touched");
        strategy.end(arena);
        strategy.leave(&pool, BYTES);
        let left = anonymous().saturating_sub(before);
        assert!(left < 2 << 20, "{allocation}: {left} bytes stayed");
    }
}
