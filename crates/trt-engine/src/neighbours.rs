//! What the engines of this process on one device know of each other.
//!
//! Engines whose budget is automatic share what is free. The invariant: when one of them takes its
//! share, the sum of their weights, of what every engine on the device will take for a call and a
//! session, and of the reserve is within what is free, or each is at its floor. Nobody's share
//! grows unless it asks. An engine's lock is only ever taken alone, so none waits for itself.

use crate::engine::Inner;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use trt_alloc::Purpose;
use trt_device::Device;
use trt_stream::{Demand, Request, share};

/// Every engine of the process. They are found by their device, which has no place for them.
static ENGINES: Mutex<Vec<Weak<Inner>>> = Mutex::new(Vec::new());

/// An engine that is about to be made, with the bytes that it needs.
pub(crate) enum Newcomer<'a> {
    /// What memory for weights gains, and bytes beside weights.
    Automatic(&'a Demand, u64),
    /// All of its bytes.
    Fixed(u64),
}

/// The part of the device's memory that is left alone, for what the driver and others take without
/// being asked: kernels, streams, pieces that are rounded up.
fn reserve(device: &dyn Device) -> u64 {
    device.info().total_memory / 64
}

/// Makes an engine known to those on its device.
pub(crate) fn enter(engine: &Arc<Inner>) {
    let mut engines = ENGINES.lock().unwrap_or_else(PoisonError::into_inner);
    engines.retain(|e| e.strong_count() > 0);
    engines.push(Arc::downgrade(engine));
}

/// The engines on a device.
fn on(device: &Arc<dyn Device>) -> Vec<Arc<Inner>> {
    // An engine that ends while it is looked at is dropped by the caller, after the lock.
    let all: Vec<Arc<Inner>> = {
        let engines = ENGINES.lock().unwrap_or_else(PoisonError::into_inner);
        engines.iter().filter_map(Weak::upgrade).collect()
    };
    let here = |e: &Arc<Inner>| Arc::ptr_eq(&e.device, device);
    all.into_iter().filter(here).collect()
}

/// What an engine holds for its weights.
fn weights(engine: &Inner) -> u64 {
    let usage = engine.pool.usage();
    usage.of(Purpose::Weights) + usage.of(Purpose::Ring)
}

/// What an engine will take for a call and a session beyond what it holds.
fn planned(engine: &Inner) -> u64 {
    let usage = engine.pool.usage();
    let arena = engine.arena.saturating_sub(usage.of(Purpose::Activations));
    arena + engine.state_bytes.saturating_sub(usage.of(Purpose::States))
}

/// What the weights of these engines may take together without the reserve.
pub(crate) fn room(device: &Arc<dyn Device>, sharing: &[Arc<Inner>]) -> u64 {
    all_room(device, sharing).saturating_sub(reserve(&**device))
}

/// What the weights of these engines may take together.
pub(crate) fn all_room(device: &Arc<dyn Device>, sharing: &[Arc<Inner>]) -> u64 {
    let all = on(device);
    let free = device.free_memory().unwrap_or_else(|| {
        let held = all.iter().map(|e| e.pool.in_use()).sum();
        device.info().total_memory.saturating_sub(held)
    });
    let held: u64 = sharing.iter().map(|e| weights(e)).sum();
    let planned: u64 = all.iter().map(|e| planned(e)).sum();
    (free + held).saturating_sub(planned)
}

/// The shares of engines in `room` bytes; if that is too little, the floors.
fn shares(room: u64, demands: &[Demand]) -> Vec<u64> {
    match share(room, demands) {
        Ok(shares) => shares.bytes,
        Err(short) => short.floors,
    }
}

/// Engines on automatic but this one.
fn others(device: &Arc<dyn Device>, own: Option<&Arc<Inner>>) -> Vec<Arc<Inner>> {
    let mut others = on(device);
    others.retain(|e| {
        e.automatic.load(Ordering::Relaxed) && !own.is_some_and(|own| Arc::ptr_eq(own, e))
    });
    others
}

/// The share of an engine that is, or would be, on automatic, and those of the others.
fn joint(own: &Arc<Inner>) -> (u64, Vec<(Arc<Inner>, u64)>) {
    let mut sharing = others(&own.device, Some(own));
    sharing.insert(0, own.clone());
    let demands: Vec<Demand> = sharing.iter().map(|e| e.demand.clone()).collect();
    let mut shares = shares(room(&own.device, &sharing), &demands).into_iter();
    let first = shares.next().unwrap_or(0);
    (first, sharing.into_iter().skip(1).zip(shares).collect())
}

/// What an engine would get on automatic.
pub(crate) fn own_share(own: &Arc<Inner>) -> u64 {
    joint(own).0
}

/// What an engine gets on automatic; the others have shrunk to their shares.
pub(crate) fn take_share(own: &Arc<Inner>) -> u64 {
    let (share, others) = joint(own);
    shrink(others);
    share
}

/// Has engines on automatic shrink for an engine to be made; returns what its weights may take.
pub(crate) fn make_room(device: &Arc<dyn Device>, newcomer: Newcomer<'_>) -> u64 {
    let sharing = others(device, None);
    let room = room(device, &sharing);
    let mut demands: Vec<Demand> = sharing.iter().map(|e| e.demand.clone()).collect();
    let left = match newcomer {
        Newcomer::Automatic(demand, beside) => {
            demands.push(demand.clone());
            room.saturating_sub(beside)
        }
        Newcomer::Fixed(bytes) => room.saturating_sub(bytes),
    };
    let mut shares = shares(left, &demands);
    let own = match newcomer {
        Newcomer::Automatic(..) => shares.pop().unwrap_or(0),
        Newcomer::Fixed(_) => left,
    };
    shrink(sharing.into_iter().zip(shares).collect());
    own
}

fn shrink(shares: Vec<(Arc<Inner>, u64)>) {
    for (engine, share) in shares {
        if weights(&engine) <= share {
            continue;
        }
        let mut run = engine.run();
        if run.streamer.requested() != Request::Automatic {
            continue;
        }
        match run.set_budget(Request::Automatic, share) {
            Ok(applied) => tracing::info!(share, ?applied, "an automatic budget made room"),
            Err(error) => tracing::warn!(share, "an automatic budget made no room: {error}"),
        }
    }
}
