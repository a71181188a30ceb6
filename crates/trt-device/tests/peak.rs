//! The peak of anonymous memory, in a process of its own: others' memory coming and going would
//! hide it.
#![cfg(target_os = "linux")]

use std::time::Duration;

use trt_device::AnonPeak;

#[test]
fn the_peak_covers_memory_that_is_gone_again() {
    let watch = AnonPeak::start().unwrap();
    let before = watch.peak();
    let bytes = 32 << 20;
    let touched = std::hint::black_box(vec![1u8; bytes]);
    // Many of the sampler's periods, which are milliseconds.
    std::thread::sleep(Duration::from_millis(100));
    drop(touched);
    assert!(watch.peak() >= before + (bytes as u64) * 9 / 10);
}
