//! What an engine does when the device has no memory for it because another took it.
//!
//! Resident weights are the one thing that an engine can do without: it gives up as many as are
//! needed, streams them instead, and tries again, down to the floor of its budget. Results are the
//! same bits. It asks for them back only when told to ([`Engine::regrow`](crate::Engine::regrow)),
//! since who took the memory may want more of it.

use super::change::Run;
use super::engine::Core;
use crate::error::Error;
use crate::report::Shrink;

/// An attempt that failed.
pub(crate) enum Failed {
    /// It may be made again.
    Yet(Error),
    /// It may not.
    For(Error),
}

impl Core {
    /// Makes an attempt, again and again while the device has no memory for it and resident
    /// weights can make room. Without weight streaming they cannot.
    ///
    /// # Errors
    /// Those of the attempt that was the last.
    pub fn shrink_and_retry<T>(
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
            if !self.streaming() || !run.shrink_for(asked, round) {
                return Err(error);
            }
            round += 1;
        }
    }
}

impl Run {
    /// Gives up resident weights for `asked` bytes, more in each round: what is given back may lie
    /// in larger pieces than what was asked for. Returns whether anything was given up.
    fn shrink_for(&mut self, asked: u64, round: u32) -> bool {
        let before = self.weights().applied().ok();
        let from = before.map_or(0, |b| b.used());
        if before.is_some_and(|b| from <= b.floor) {
            return false;
        }
        let free = self.weights().free_memory().unwrap_or(0);
        let missing = asked.saturating_sub(free).max(1);
        let target = from.saturating_sub(missing.saturating_mul(1 << round.min(62)));
        let after = match self.shrink(target) {
            Ok(after) => after,
            Err(error) => {
                tracing::error!(asked, "weights could not make room: {error}");
                return false;
            }
        };
        let to = after.used();
        self.note_shrink(Shrink { from, to });
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
}
