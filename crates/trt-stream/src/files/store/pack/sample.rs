//! The code of a weight, from some of its values.
//!
//! A code of a part is only a little worse for the rest, and any value can be packed with any code. So all codes are known after reading
//! little, and with them about how many bytes packing takes.

use super::Candidate;
use crate::files::Weights;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use trt_pack::{Code, Counts};

/// Bytes that are looked at in one place.
const STRETCH: usize = 32 << 10;
/// Places that are looked at, spread over a weight.
const PLACES: usize = 32;
/// Packed rows take less than this share of their bytes, or stay as they are.
pub(super) const PAYS: f64 = 0.95;

/// A weight that it pays to pack.
pub(super) struct Chosen {
    pub of: Candidate,
    pub code: Code,
    /// About the share of its bytes that it takes packed.
    share: f64,
}

impl Chosen {
    /// About the bytes that it takes packed.
    pub fn packed_bytes(&self) -> u64 {
        (self.share * self.of.cut.bytes() as f64) as u64
    }
}

/// Those of the candidates that it pays to pack, in their order, each with its code.
pub(super) fn choose(weights: &Weights, candidates: &[Candidate]) -> Vec<Chosen> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(candidate) = candidates.get(number) else {
                return;
            };
            let Some((code, share)) = code(weights, candidate) else {
                continue;
            };
            let of = candidate.clone();
            let chosen = Chosen { of, code, share };
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            found.push((number, chosen));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(candidates.len()) {
            scope.spawn(work);
        }
        work();
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_by_key(|(number, _)| *number);
    found.into_iter().map(|(_, chosen)| chosen).collect()
}

/// A weight's code and the share of its bytes that it takes packed, if that pays.
fn code(weights: &Weights, candidate: &Candidate) -> Option<(Code, f64)> {
    let bytes = weights.bytes(candidate.id)?;
    let stretches = bytes.len().div_ceil(STRETCH);
    let every = stretches.div_ceil(PLACES).max(1);
    let mut counts = Counts::new(candidate.cut.kind);
    let mut values = Vec::with_capacity(STRETCH / 2);
    for stretch in bytes.chunks(STRETCH).step_by(every) {
        super::write::values(stretch, &mut values);
        counts.add(&values);
    }
    let code = Code::best(&counts)?;
    let share = (8.0 + code.bits(&counts)) / 16.0;
    (share < PAYS).then_some((code, share))
}
