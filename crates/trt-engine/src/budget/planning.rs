//! Planning on a device: who looks at its free memory and then takes of it, does so alone.
//!
//! Engines that are made, automatic and joint budgets, growing back and calibrating hold a
//! [`Planning`] from the look to the taking; else two would take the same bytes. Budgets in bytes or
//! parts do not: they go by no look, and the device refuses what there is not.
//!
//! Locks are taken in this order: the roster of a device budget, the planning of a device, the lock
//! of one engine. While it is locked, an engine neither plans nor takes another engine's lock: calls,
//! giving way and changes of a budget get by with their own. So a plan waits at most for calls to
//! end, and calls wait for no plan. The list of engines and the pools are locked last and for a
//! look only.

use super::neighbours;
use crate::run::engine::Core;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use trt_device::{Device, DeviceId};
use trt_stream::{Demand, Request};

/// The devices that somebody plans on.
static PLANNED: Mutex<Vec<DeviceId>> = Mutex::new(Vec::new());
static ENDED: Condvar = Condvar::new();

/// The right to plan on a device, which one at a time has.
pub(crate) struct Planning {
    device: Arc<dyn Device>,
}

/// An engine that is about to be made, with the bytes that it needs.
pub(crate) enum Newcomer<'a> {
    /// What memory for weights gains, and bytes beside weights.
    Automatic(&'a Demand, u64),
    /// All of its bytes.
    Fixed(u64),
}

fn planned() -> MutexGuard<'static, Vec<DeviceId>> {
    // What is done under this lock cannot panic half-way.
    PLANNED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Planning {
    /// Waits until nobody else plans on the device.
    pub fn on(device: &Arc<dyn Device>) -> Planning {
        let id = device.info().id;
        let taken = |devices: &mut Vec<DeviceId>| devices.contains(&id);
        let waited = ENDED.wait_while(planned(), taken);
        waited.unwrap_or_else(PoisonError::into_inner).push(id);
        let device = device.clone();
        Planning { device }
    }

    /// Has engines on automatic shrink for an engine to be made; returns what its weights may take.
    pub fn make_room(&self, newcomer: Newcomer<'_>) -> u64 {
        let sharing = neighbours::others(&self.device, None);
        let room = neighbours::room(&self.device, &sharing);
        let mut demands: Vec<Demand> = sharing.iter().map(|e| e.demand()).collect();
        let left = match newcomer {
            Newcomer::Automatic(demand, beside) => {
                demands.push(demand.clone());
                room.saturating_sub(beside)
            }
            Newcomer::Fixed(bytes) => room.saturating_sub(bytes),
        };
        let mut shares = neighbours::shares(left, &demands);
        let own = match newcomer {
            Newcomer::Automatic(..) => shares.pop().unwrap_or(0),
            Newcomer::Fixed(_) => left,
        };
        shrink(sharing.into_iter().zip(shares).collect());
        own
    }

    /// Has the others on automatic shrink to their shares beside that of an engine on the device.
    pub fn make_way(&self, own: &Arc<Core>) {
        shrink(neighbours::joint(own).1);
    }
}

impl Drop for Planning {
    fn drop(&mut self) {
        let id = self.device.info().id;
        planned().retain(|device| *device != id);
        ENDED.notify_all();
    }
}

fn shrink(shares: Vec<(Arc<Core>, u64)>) {
    for (engine, share) in shares {
        if neighbours::weights(&engine) <= share {
            continue;
        }
        let mut run = engine.run();
        if run.weights().requested() != Request::Automatic {
            continue;
        }
        match run.set_budget(Request::Automatic, share) {
            Ok(applied) => tracing::info!(share, ?applied, "an automatic budget made room"),
            Err(error) => tracing::warn!(share, "an automatic budget made no room: {error}"),
        }
    }
}
