//! The pool's limit is a contract.

use std::sync::Arc;
use trt_alloc::{Error, Pool, Purpose};
use trt_device::{Device, Host, Work};

fn pool(limit: u64) -> Pool {
    Pool::new(Arc::new(Host::unified()), limit)
}

#[test]
fn what_is_acquired_or_reserved_counts_until_it_is_dropped() {
    let pool = pool(10_000);
    let weights = pool.acquire(4000, Purpose::Weights).unwrap();
    let ring = pool.reserve(1000, Purpose::Ring).unwrap();
    assert_eq!(weights.memory().len(), 4000);
    assert_eq!((pool.in_use(), pool.in_use_by(Purpose::Ring)), (5000, 1000));
    drop(weights);
    assert_eq!(pool.in_use(), 1000);
    drop(ring);
    assert_eq!(pool.in_use(), 0);
    assert_eq!(pool.high_water(), 5000);
}

#[test]
fn the_limit_is_kept_and_the_error_says_everything() {
    let pool = pool(10_000);
    let _weights = pool.acquire(6000, Purpose::Weights).unwrap();
    let _io = pool.reserve(1000, Purpose::Io).unwrap();
    let error = pool.acquire(3001, Purpose::Activations).unwrap_err();
    assert_eq!(
        error.to_string(),
        "3001 bytes for activations exceed the device limit of 10000 bytes: \
         in use 7000 bytes (weights 6000, io 1000)"
    );
    assert_eq!(pool.in_use(), 7000);
    assert!(pool.acquire(3000, Purpose::Activations).is_ok());
    assert!(pool.reserve(u64::MAX, Purpose::Scratch).is_err());
}

#[test]
fn memory_counts_as_long_as_queued_work_refers_to_it() {
    let device = Arc::new(Host::unified());
    let pool = Pool::new(device.clone(), 10_000);
    let stream = device.stream("test").unwrap();
    let lease = pool.acquire(4, Purpose::Io).unwrap();
    let slice = lease.whole();
    drop(lease);
    assert_eq!(pool.in_use(), 4);
    let write = Work::Write {
        dst: slice,
        bytes: vec![1; 4],
    };
    device.submit(stream, write).unwrap();
    device.synchronize(stream).unwrap();
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn memory_that_the_device_refuses_does_not_count() {
    let pool = pool(u64::MAX);
    let error = pool.acquire(u64::MAX / 2, Purpose::Weights).unwrap_err();
    assert!(matches!(error, Error::Device(_)), "{error}");
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn the_limit_may_move_but_not_below_what_is_in_use() {
    let pool = pool(100);
    let _held = pool.reserve(80, Purpose::States).unwrap();
    let error = pool.set_limit(79).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a device limit of 79 bytes is below what is in use: 80 bytes (states 80)"
    );
    assert_eq!(pool.limit(), 100);
    pool.set_limit(80).unwrap();
    assert!(pool.reserve(1, Purpose::Io).is_err());
    pool.set_limit(200).unwrap();
    assert!(pool.reserve(120, Purpose::Io).is_ok());
}

#[test]
fn the_high_water_mark_starts_again_from_what_is_in_use() {
    let pool = pool(100);
    let _kept = pool.reserve(10, Purpose::States).unwrap();
    drop(pool.reserve(50, Purpose::Io).unwrap());
    assert_eq!(pool.high_water(), 60);
    pool.reset_high_water();
    assert_eq!(pool.high_water(), 10);
}

#[test]
fn a_reservation_moves_only_the_difference() {
    let pool = pool(100);
    let mut ring = pool.reserve(60, Purpose::Ring).unwrap();
    ring.resize(90).unwrap();
    assert_eq!((pool.in_use(), pool.high_water()), (90, 90));
    assert!(ring.resize(101).is_err());
    assert_eq!((ring.bytes(), pool.in_use()), (90, 90));
    ring.resize(5).unwrap();
    assert_eq!(pool.in_use(), 5);
    drop(ring);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn threads_together_never_exceed_the_limit() {
    let pool = pool(1000);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for i in 0..2000 {
                    let asked = 100 + i % 300;
                    if let Ok(held) = pool.reserve(asked, Purpose::Scratch) {
                        assert!(pool.in_use() <= 1000);
                        assert_eq!(held.bytes(), asked);
                    }
                }
            });
        }
    });
    assert_eq!(pool.in_use(), 0);
    assert!(pool.high_water() <= 1000);
}
