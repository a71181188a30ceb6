//! What the driver clears after memory was given back to it, and for how long.
//!
//! It clears with the copy engine that brings bytes from the host. Measured on an H100 (driver 580): 2.1 ms
//! for each GiB, in which that engine copies at half its rate or less, so that 6 GiB that go back
//! cost the next copies 10 ms. Copies to the host and kernels are not held up. So for about as long
//! as clearing takes, a part of the uploads is to go another way. Nothing but time depends on this
//! being right.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long clearing a GiB takes.
const PER_GIB: Duration = Duration::from_micros(2100);

/// Bytes that the link brings without the copy engine while one byte is cleared, as a divisor:
/// 50 GB/s for 2.1 ms of each GiB.
const CLEARED_FOR_ONE: u64 = 10;

/// The copy engine's other work.
#[derive(Debug, Default)]
pub(crate) struct Clearing(Mutex<Option<Busy>>);

#[derive(Debug)]
struct Busy {
    until: Instant,
    /// Bytes that may still go another way.
    bytes: u64,
}

impl Clearing {
    /// Memory has just been given back.
    pub fn begin(&self, now: Instant, bytes: usize) {
        let mut busy = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = busy.take().filter(|b| b.until > now);
        let (from, before) = left.map_or((now, 0), |b| (b.until, b.bytes));
        let time = PER_GIB.mul_f64(bytes as f64 / (1u64 << 30) as f64);
        *busy = Some(Busy {
            until: from + time,
            bytes: before + bytes as u64 / CLEARED_FOR_ONE,
        });
    }

    /// Whether an upload that is put on a stream now should not use the copy engine.
    pub fn holds_up(&self, now: Instant, bytes: usize) -> bool {
        let mut busy = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(left) = busy.as_mut().filter(|b| b.until > now && b.bytes > 0) else {
            *busy = None;
            return false;
        };
        left.bytes = left.bytes.saturating_sub(bytes as u64);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: usize = 1 << 30;
    const MIB: usize = 1 << 20;

    #[test]
    fn uploads_are_held_up_for_a_while_and_for_some_bytes() {
        let (clearing, start) = (Clearing::default(), Instant::now());
        assert!(!clearing.holds_up(start, MIB), "nothing was given back");
        clearing.begin(start, 6 * GIB);
        let at = |micros| start + Duration::from_micros(micros);
        assert!(clearing.holds_up(at(12_000), MIB));
        assert!(!clearing.holds_up(at(12_700), MIB), "it is over");
        clearing.begin(at(20_000), GIB);
        let held = (0..500).take_while(|_| clearing.holds_up(at(20_001), MIB));
        assert_eq!(held.count(), 103, "a tenth of a GiB");
    }

    #[test]
    fn what_is_given_back_meanwhile_is_cleared_afterwards() {
        let (clearing, start) = (Clearing::default(), Instant::now());
        clearing.begin(start, GIB);
        clearing.begin(start + Duration::from_micros(2000), GIB);
        assert!(clearing.holds_up(start + Duration::from_micros(4100), 1));
        assert!(!clearing.holds_up(start + Duration::from_micros(4300), 1));
    }
}
