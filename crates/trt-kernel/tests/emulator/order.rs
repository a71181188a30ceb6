//! Order between blocks, through atomics.
//!
//! A release publishes what the releasing thread can be sure of: the accesses of its warp's and
//! other warps' clocks that it has seen, its own, and all that it had acquired itself. It goes with
//! the value that the atomic stores. An atomic that finds the value takes the knowledge on, so a
//! chain of atomics carries it; the thread has it once it acquires, and the other lanes and warps
//! once they synchronise with that thread.
//!
//! `atom.release` publishes what came before it, `atom.relaxed` what came before the thread's last
//! fence; `atom.acquire` acquires at once, `atom.relaxed` at the thread's next fence.

use std::rc::Rc;

/// What one thread published at one point.
#[derive(Debug)]
pub struct Released {
    /// The first clock of its block.
    pub block: u32,
    /// For each warp of it, the last clock whose accesses come before.
    pub seen: Vec<u32>,
    /// The thread, whose own accesses come before up to this clock.
    pub thread: u32,
    pub own: u32,
}

/// What several threads published.
pub type Knowledge = Vec<Rc<Released>>;

/// Adds what is not known yet.
pub fn learn(to: &mut Knowledge, more: &[Rc<Released>]) {
    for r in more {
        if !to.iter().any(|known| Rc::ptr_eq(known, r)) {
            to.push(r.clone());
        }
    }
}

impl Released {
    /// Whether an access by a thread at a clock comes before.
    pub fn covers(&self, clock: u32, thread: u32) -> bool {
        let warp = thread as usize / 32;
        let seen = self.seen.get(warp).copied().unwrap_or(0);
        clock >= self.block && (clock <= seen || thread == self.thread && clock <= self.own)
    }

    /// Whether all accesses by a warp at a clock come before.
    pub fn covers_warp(&self, clock: u32, warp: usize) -> bool {
        clock >= self.block && clock <= self.seen.get(warp).copied().unwrap_or(0)
    }
}

/// What a lane did about the order.
#[derive(Clone, Debug, Default)]
pub struct Lane {
    /// What it acquired since the warp last synchronised.
    pub acquired: Knowledge,
    /// What its relaxed atomics found since its last fence.
    pub found: Knowledge,
    /// What its last fence lets a relaxed atomic publish; a store to global memory afterwards
    /// that might be taken for an earlier one clears it.
    pub fenced: Option<Knowledge>,
}

/// The order with other blocks, as a warp knows it.
#[derive(Debug)]
pub struct Orders {
    /// What all lanes have acquired.
    pub all: Knowledge,
    pub lanes: Vec<Lane>,
}

impl Default for Orders {
    fn default() -> Orders {
        Orders {
            all: Knowledge::new(),
            lanes: vec![Lane::default(); 32],
        }
    }
}

impl Orders {
    /// The lanes synchronise.
    pub fn share(&mut self) {
        for lane in &mut self.lanes {
            let acquired = std::mem::take(&mut lane.acquired);
            learn(&mut self.all, &acquired);
        }
    }

    /// What comes before a point of a lane.
    pub fn before(&self, lane: u32, own: Released) -> Knowledge {
        let mut all = self.all.clone();
        learn(&mut all, &self.lanes[lane as usize].acquired);
        all.push(Rc::new(own));
        all
    }
}
