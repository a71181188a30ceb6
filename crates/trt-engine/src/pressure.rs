//! What an engine does when the device has no memory for it because another took it.
//!
//! Resident weights are the one thing that an engine can do without: it gives up as many as are
//! needed, streams them instead, and tries again, down to the floor of its budget. Results are the
//! same bits. It asks for them back only when told to ([`Engine::regrow`](crate::Engine::regrow)),
//! since who took the memory may want more of it.

use crate::Error;
use crate::engine::{Inner, Run};
use serde::{Deserialize, Serialize};

/// How an engine gave way to others on its device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pressure {
    /// How often memory was refused and resident weights made room.
    pub shrinks: u64,
    /// The last time.
    pub last: Option<Shrink>,
}

/// A budget that became smaller because the device had no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shrink {
    /// Bytes of weights on the device before.
    pub from: u64,
    /// Bytes of weights on the device after.
    pub to: u64,
}

/// An attempt that failed.
pub(crate) enum Failed {
    /// It may be made again.
    Yet(Error),
    /// It may not.
    For(Error),
}

impl Inner {
    /// Makes an attempt, again and again while the device has no memory for it and resident
    /// weights can make room. Without weight streaming they cannot.
    pub fn giving_way<T>(
        &self,
        run: &mut Run,
        mut attempt: impl FnMut(&mut Run) -> Result<T, Failed>,
    ) -> Result<T, Error> {
        let mut round = 0;
        loop {
            let error = match attempt(run) {
                Ok(done) => return Ok(done),
                Err(Failed::For(error)) => return Err(error),
                Err(Failed::Yet(error)) => error,
            };
            let starved = matches!(error, Error::Stream(trt_stream::Error::Starved));
            let asked = match error.out_of_memory() {
                Some(asked) => asked,
                None if starved => 0,
                None => return Err(error),
            };
            if !self.streaming || !run.give_way(asked, round) {
                return Err(error);
            }
            round += 1;
        }
    }
}

impl Run {
    /// Gives up resident weights for `asked` bytes, more in each round: what is given back may lie
    /// in larger pieces than what was asked for. Returns whether anything was given up.
    fn give_way(&mut self, asked: u64, round: u32) -> bool {
        let before = self.streamer.applied().ok();
        let from = before.map_or(0, |b| b.used());
        if before.is_some_and(|b| from <= b.floor) {
            return false;
        }
        let free = self.streamer.free_memory().unwrap_or(0);
        let missing = asked.saturating_sub(free).max(1);
        let target = from.saturating_sub(missing.saturating_mul(1 << round.min(62)));
        self.recorded.forget(None);
        let after = match self.streamer.shrink(target) {
            Ok(after) => after,
            Err(error) => {
                tracing::error!(asked, "weights could not make room: {error}");
                return false;
            }
        };
        let to = after.used();
        self.pressure.shrinks += 1;
        self.pressure.last = Some(Shrink { from, to });
        tracing::warn!(
            asked,
            free,
            from,
            to,
            "the device has no memory left: fewer weights stay resident"
        );
        // With no budget before, there is one now.
        before.is_none() || to < from
    }

    /// Forgets what was recorded if weights have moved since.
    pub fn forget_if_moved(&mut self, changes: u64) {
        if self.streamer.changes() != changes {
            self.recorded.forget(None);
        }
    }
}
