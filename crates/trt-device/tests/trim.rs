//! Giving freed heap back, in a process of its own: others' allocations would hide it.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

use trt_device::trim_host_memory;

#[test]
fn trimming_gives_freed_pieces_back() {
    // Pieces too small to be mapped on their own, each below one that stays, so that the
    // allocator cannot give them back by itself.
    let pairs = (0..1024).map(|_| (vec![1u8; 64 << 10], vec![1u8; 64]));
    let (pieces, kept): (Vec<_>, Vec<_>) = pairs.unzip();
    drop(std::hint::black_box(pieces));
    let back = trim_host_memory();
    assert!(back > 32 << 20, "{back}");
    assert!(std::hint::black_box(kept).iter().all(|k| k[0] == 1));
}
