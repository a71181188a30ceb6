//! Changing the budget of a streamer, by request or because the device has no memory.
//!
//! A request that is refused leaves the budget that was in force. Only where that cannot be had
//! back either, because another process took the memory meanwhile, a smaller one takes its place,
//! down to the floor. [`Request::Automatic`], [`Streamer::shrink`] and [`Streamer::regrow`] ask for
//! what there is, so they settle for less.

use super::Streamer;
use super::pass::Cursor;
use crate::plan::{Applied, Granted, Request, Split, TileId, Why};
use crate::run::Error;
use crate::run::places::Difference;

/// A change that did not happen.
struct Refused {
    error: Error,
    /// Whether everything is as before.
    restored: bool,
}

/// What growing back comes to.
enum Regrowth {
    /// The budget in force is what was asked for.
    None(Applied),
    /// As much of `most` as there is memory for, but no less than `least`.
    To {
        most: u64,
        least: u64,
        granted: Granted,
    },
}

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        let restored = true;
        Refused { error, restored }
    }
}

/// Why the budget is `bytes` where another was granted.
fn why(bytes: u64, granted: Granted) -> Why {
    match bytes == granted.bytes {
        true => granted.why,
        false => Why::Pressure {
            from: granted.bytes,
        },
    }
}

impl Streamer {
    /// Whether [`Streamer::set_budget`] would move weights: then nothing that still refers to
    /// where they are may be kept.
    ///
    /// # Errors
    /// If the request is below the floor.
    pub fn would_move(&self, request: Request, free: u64) -> Result<bool, Error> {
        let granted = request.grant(free, &self.layout.limits())?;
        Ok(self.applied.is_none() || self.layout.split(granted.bytes) != self.split)
    }

    /// Changes the budget from the next pass on: all or nothing, and only the difference moves.
    /// `free` is what [`Request::Automatic`] may take; it must include what the weights hold
    /// now. Where the device has less after all, automatic is that. Waits for running passes only
    /// if device memory has to be given back.
    ///
    /// # Errors
    /// A request below the floor, or one that the pool or the device has no memory for: the budget that
    /// was in force stays, unless it cannot be had back either.
    pub fn set_budget(&mut self, request: Request, free: u64) -> Result<Applied, Error> {
        let limits = self.layout.limits();
        let granted = request.grant(free, &limits)?;
        let least = match (request, self.applied) {
            (Request::Automatic, Some(now)) if now.applied < granted.bytes => now.applied,
            (Request::Automatic, _) => limits.floor(),
            _ => granted.bytes,
        };
        let bytes = self.settle(granted.bytes, least)?;
        self.requested = request;
        Ok(self.note(bytes, why(bytes, granted)))
    }

    /// Changes the budget to at most `bytes`, because the device has no memory for more. Below the
    /// floor it is the floor. What was requested stays requested.
    ///
    /// # Errors
    /// If there is no memory for the floor either.
    pub fn shrink(&mut self, bytes: u64) -> Result<Applied, Error> {
        let floor = self.layout.limits().floor();
        let from = self.applied.map_or(bytes, |a| a.applied);
        let bytes = self.settle(bytes.max(floor), floor)?;
        Ok(self.note(bytes, Why::Pressure { from }))
    }

    /// Changes the budget towards what was requested last, but to no more than `free`, which must
    /// include what the weights hold now, and as far as the device has memory. It never becomes
    /// smaller, and nothing happens where it is that already.
    ///
    /// # Errors
    /// If the pool or the device refuses what it seemed to have; with no budget in force, if there is no
    /// memory for the floor.
    pub fn regrow(&mut self, free: u64) -> Result<Applied, Error> {
        match self.regrowth(free)? {
            Regrowth::None(now) => Ok(now),
            Regrowth::To {
                most,
                least,
                granted,
            } => {
                let bytes = self.settle(most, least)?;
                Ok(self.note(bytes, why(bytes, granted)))
            }
        }
    }

    /// Whether [`Streamer::regrow`] would move weights, as [`Streamer::would_move`].
    ///
    /// # Errors
    /// If there is no budget that could be asked for.
    pub fn would_regrow(&self, free: u64) -> Result<bool, Error> {
        Ok(match self.regrowth(free)? {
            Regrowth::None(_) => false,
            Regrowth::To { most, .. } => {
                self.applied.is_none() || self.layout.split(most) != self.split
            }
        })
    }

    fn regrowth(&self, free: u64) -> Result<Regrowth, Error> {
        let limits = self.layout.limits();
        let granted = match self.requested.grant(free, &limits) {
            Ok(granted) => granted,
            Err(_) => Request::Minimum.grant(free, &limits)?,
        };
        let least = match self.applied {
            Some(now) if now.applied >= granted.bytes => return Ok(Regrowth::None(now)),
            Some(now) => now.applied,
            None => limits.floor(),
        };
        let most = granted.bytes.min(free.max(least));
        Ok(Regrowth::To {
            most,
            least,
            granted,
        })
    }

    /// Says whether weights of two forms turn plain where the budget has room for it. The budget stays
    /// what it is, or becomes the total if that is less then; what is requested stays requested.
    ///
    /// # Errors
    /// Those of [`Streamer::set_budget`]; then nothing has changed.
    pub fn prefer_plain(&mut self, plain: bool) -> Result<Applied, Error> {
        let now = self.applied()?;
        let before = self.layout.prefers_plain();
        self.layout.prefer_plain(plain);
        let bytes = now.applied.min(self.layout.limits().total);
        if let Err(error) = self.settle(bytes, bytes) {
            self.layout.prefer_plain(before);
            return Err(error);
        }
        let why = match bytes < now.applied {
            true => Why::ClampedToTotal { asked: now.applied },
            false => now.why,
        };
        Ok(self.note(bytes, why))
    }

    /// Goes back to a budget that was in force, or as near to it from the present one as the device
    /// has memory.
    ///
    /// # Errors
    /// If there is no memory for what is in force now.
    pub fn restore(&mut self, before: &Applied) -> Result<Applied, Error> {
        let least = self.applied.map_or(before.floor, |now| now.applied);
        // Weights that stay packed from then on have a smaller total.
        let wanted = before.applied.min(self.layout.limits().total);
        let bytes = self.settle(wanted, least.min(wanted))?;
        self.requested = before.requested;
        let granted = Granted {
            bytes: wanted,
            why: before.why,
        };
        Ok(self.note(bytes, why(bytes, granted)))
    }

    /// The budget in force.
    ///
    /// # Errors
    /// [`Error::Starved`] while there is none.
    pub fn applied(&self) -> Result<Applied, Error> {
        self.applied.ok_or(Error::Starved)
    }

    /// The last request that was accepted.
    pub fn requested(&self) -> Request {
        self.requested
    }

    /// How often a change of the budget had weights or the ring to change, since the start.
    pub fn changes(&self) -> u64 {
        self.generation
    }

    fn note(&mut self, bytes: u64, why: Why) -> Applied {
        let limits = self.layout.limits();
        let applied = Applied {
            requested: self.requested,
            applied: bytes,
            floor: limits.floor(),
            total: limits.total,
            pinned: limits.pinned,
            staging: limits.staging,
            resident: self.split.resident_bytes,
            packed: self.split.packed_bytes,
            ring: self.split.ring_bytes(),
            streamed: self.streamed(0),
            why,
        };
        self.applied = Some(applied);
        tracing::debug!(?applied, "weight budget");
        applied
    }

    /// Bytes that a pass over a list streams.
    fn streamed(&self, list: usize) -> u64 {
        let fetches = self.cycles.get(list).map_or(&[][..], |c| &c.fetches);
        let tiling = self.layout.tiling();
        let bytes = fetches.iter().map(|&t| tiling.tile(t).stored_bytes());
        bytes.sum()
    }

    /// Makes the split of `most` bytes real, or of ever fewer down to `least` while the device
    /// says that it has no memory. Returns the bytes.
    fn settle(&mut self, most: u64, least: u64) -> Result<u64, Error> {
        let mut bytes = most;
        loop {
            let split = self.layout.split(bytes);
            if self.applied.is_some() && split == self.split {
                return Ok(bytes);
            }
            let Err(refused) = self.change(split) else {
                return Ok(bytes);
            };
            if refused.error.out_of_memory().is_some() && bytes > least {
                bytes = self.lower(bytes, least);
                continue;
            }
            if !refused.restored {
                self.fall();
            }
            return Err(refused.error);
        }
    }

    /// The next budget to try below `bytes`: what the device says it has, or an eighth less.
    fn lower(&self, bytes: u64, least: u64) -> u64 {
        let slot = self.layout.limits().slot_bytes;
        let held = self.places.held();
        let told = self.device.free_memory().map(|free| held + free);
        match told {
            Some(told) if told < bytes => told.max(least),
            _ if bytes.saturating_sub(least) <= slot => least,
            _ => bytes - ((bytes - least) / 8).max(slot),
        }
    }

    /// Takes the largest budget below the last one that there is memory for, since the last one
    /// cannot be had any more.
    fn fall(&mut self) {
        let Some(before) = self.applied.take() else {
            return;
        };
        let (from, floor) = (before.applied, before.floor);
        let mut bytes = from;
        while bytes > floor {
            bytes = self.lower(bytes, floor);
            match self.change(self.layout.split(bytes)) {
                Ok(()) => {
                    let applied = self.note(bytes, Why::Pressure { from });
                    tracing::warn!(?applied, "the last weight budget could not be had back");
                    return;
                }
                Err(refused) if refused.restored => {
                    self.applied = Some(before);
                    return;
                }
                Err(refused) => tracing::debug!("a budget of {bytes} bytes: {}", refused.error),
            }
        }
        tracing::error!("there is no memory for the floor of {floor} bytes of weights");
    }

    fn change(&mut self, split: Split) -> Result<(), Refused> {
        self.generation += 1;
        let gone = self.let_go(&split)?;
        // What the ring holds was fetched for another cycle.
        self.cursor = Cursor::default();
        if let Err(error) = self.places.apply(&self.pool, self.layout.tiling(), &split) {
            let back = self
                .places
                .apply(&self.pool, self.layout.tiling(), &self.split);
            let restored = back.is_ok();
            return Err(Refused { error, restored });
        }
        let cycles = self.lists.iter();
        let cycles = cycles.map(|list| self.layout.cycle(&split, list));
        self.cycles = cycles.collect();
        self.split = split;
        for tile in gone {
            if let Err(error) = self.discard(tile) {
                tracing::warn!(%error, tile = tile.0, "pages that are no longer counted stay");
            }
        }
        Ok(())
    }

    /// Orders the copy stream after all launches so far if the new split gives anything back;
    /// returns the tiles that go.
    fn let_go(&mut self, split: &Split) -> Result<Vec<TileId>, Error> {
        let Difference { evicted, slots } = self.places.difference(split);
        if evicted.is_empty() && slots.is_empty() {
            return Ok(Vec::new());
        }
        self.copy_after_compute()?;
        // Memory is charged until no queue holds it, so room for the new split comes only with
        // the end of what was submitted. Pages are let go in the order of the copy stream.
        if self.places.has_memory() {
            self.synchronize_copy()?;
        }
        Ok(slots.into_iter().flatten().chain(evicted).collect())
    }

    /// Waits for the copy stream, and for what is unpacked. If either failed, what it should have
    /// brought did not come.
    pub(super) fn synchronize_copy(&mut self) -> Result<(), Error> {
        let mut result = self.device.synchronize(self.copy.id());
        if let Some(staging) = self.places.staging() {
            result = result.and(self.device.synchronize(staging.stream()));
        }
        if result.is_err() {
            self.cursor = Cursor::default();
            self.found.fill(None);
            self.places.distrust();
        }
        Ok(result?)
    }
}
