//! What the engines of this process on one device know of each other.
//!
//! Engines whose budget is automatic share what is free. The invariant: when one of them takes its
//! share, the sum of their weights, of what every engine on the device will take for a call and a
//! session, and of the reserve is within what is free, or each is at its floor. Nobody's share
//! grows unless it asks. Here is what they see of each other, which takes no engine's lock; what
//! they do about it is in [`Planning`](crate::budget::planning::Planning).

use crate::run::engine::Core;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use trt_alloc::Purpose;
use trt_device::{Device, DeviceId};
use trt_stream::{Demand, share};

/// Every engine of the process, with its device.
static ENGINES: Mutex<Vec<(DeviceId, Weak<Core>)>> = Mutex::new(Vec::new());

/// The part of the device's memory that is left alone, for what the driver and others take without
/// being asked: kernels, streams, pieces that are rounded up.
fn reserve(device: &dyn Device) -> u64 {
    device.info().total_memory / 64
}

/// Makes an engine known to those on its device.
pub(crate) fn enter(engine: &Arc<Core>) {
    let mut engines = ENGINES.lock().unwrap_or_else(PoisonError::into_inner);
    engines.retain(|(_, e)| e.strong_count() > 0);
    engines.push((engine.device().info().id, Arc::downgrade(engine)));
}

/// The engines on a device.
fn on(device: &Arc<dyn Device>) -> Vec<Arc<Core>> {
    let engines = ENGINES.lock().unwrap_or_else(PoisonError::into_inner);
    let here = engines.iter().filter(|(on, _)| *on == device.info().id);
    // An engine that ends while it is looked at is dropped by the caller, after the lock.
    here.filter_map(|(_, e)| e.upgrade()).collect()
}

/// What an engine holds for its weights.
pub(crate) fn weights(engine: &Core) -> u64 {
    let usage = engine.pool().usage();
    usage.of(Purpose::Weights) + usage.of(Purpose::Ring)
}

/// What an engine will take for a call and a session beyond what it holds.
fn planned(engine: &Core) -> u64 {
    let usage = engine.pool().usage();
    let arena = engine
        .arena_bytes()
        .saturating_sub(usage.of(Purpose::Activations));
    arena
        + engine
            .state_bytes()
            .saturating_sub(usage.of(Purpose::States))
}

/// What the weights of these engines may take together without the reserve.
pub(crate) fn room(device: &Arc<dyn Device>, sharing: &[Arc<Core>]) -> u64 {
    all_room(device, sharing).saturating_sub(reserve(&**device))
}

/// What the weights of these engines may take together.
pub(crate) fn all_room(device: &Arc<dyn Device>, sharing: &[Arc<Core>]) -> u64 {
    let all = on(device);
    // A call that begins or ends while this looks counts as not under way: its arena is rather
    // missing here than given away twice.
    let before: Vec<u64> = all.iter().map(|e| planned(e)).collect();
    let free = device.free_memory().unwrap_or_else(|| {
        let held = all.iter().map(|e| e.pool().in_use()).sum();
        device.info().total_memory.saturating_sub(held)
    });
    let held: u64 = sharing.iter().map(|e| weights(e)).sum();
    let planned = all.iter().zip(before).map(|(e, b)| planned(e).max(b));
    (free + held).saturating_sub(planned.sum())
}

/// What the weights of one engine may take while all others keep what they have and will need for
/// calls. Of the reserve it is no more than what a budget that is in force takes already.
pub(crate) fn room_beside(own: &Arc<Core>, in_force: u64) -> u64 {
    let all = all_room(own.device(), std::slice::from_ref(own));
    let rest = all.saturating_sub(reserve(&**own.device()));
    rest.max(all.min(in_force))
}

/// The shares of engines in `room` bytes; if that is too little, the floors.
pub(crate) fn shares(room: u64, demands: &[Demand]) -> Vec<u64> {
    match share(room, demands) {
        Ok(shares) => shares.bytes,
        Err(short) => short.floors,
    }
}

/// Engines on automatic but this one.
pub(crate) fn others(device: &Arc<dyn Device>, own: Option<&Arc<Core>>) -> Vec<Arc<Core>> {
    let mut others = on(device);
    others.retain(|e| e.automatic() && !own.is_some_and(|own| Arc::ptr_eq(own, e)));
    others
}

/// The share of an engine that is, or would be, on automatic, and those of the others.
pub(crate) fn joint(own: &Arc<Core>) -> (u64, Vec<(Arc<Core>, u64)>) {
    let mut sharing = others(own.device(), Some(own));
    sharing.insert(0, own.clone());
    let demands: Vec<Demand> = sharing.iter().map(|e| e.demand()).collect();
    let mut shares = shares(room(own.device(), &sharing), &demands).into_iter();
    let first = shares.next().unwrap_or(0);
    (first, sharing.into_iter().skip(1).zip(shares).collect())
}
