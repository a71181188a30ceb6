//! The code of a weight, from some of its values.
//!
//! A code of a part is only a little worse for the rest, and any value can be packed with any code. So all codes are known after reading
//! little, and with them about how many bytes packing takes.

use super::Candidate;
use crate::files::Weights;
use crate::files::store::StoreError;
use std::os::unix::fs::FileExt;
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
pub(super) fn choose(
    weights: &Weights,
    candidates: &[Candidate],
) -> Result<Vec<Chosen>, StoreError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    let work = || -> Result<(), StoreError> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(candidate) = candidates.get(number) else {
                return Ok(());
            };
            if let Some((code, share)) = code(weights, candidate)? {
                let of = candidate.clone();
                let chosen = Chosen { of, code, share };
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                found.push((number, chosen));
            }
        }
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads.min(candidates.len()))
            .map(|_| scope.spawn(work))
            .collect();
        let own = work();
        let others = others
            .into_iter()
            .map(|t| t.join().unwrap_or(Err(StoreError::Panicked)));
        others.fold(own, |all, one| all.and(one))
    })?;
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_by_key(|(number, _)| *number);
    Ok(found.into_iter().map(|(_, chosen)| chosen).collect())
}

/// A weight's code and the share of its bytes that it takes packed, if that pays.
fn code(weights: &Weights, candidate: &Candidate) -> Result<Option<(Code, f64)>, StoreError> {
    let info = weights.info(candidate.id);
    let file = &weights.files()[info.file.0 as usize];
    let stretches = info.bytes().div_ceil(STRETCH);
    let every = stretches.div_ceil(PLACES).max(1);
    let mut counts = Counts::new(candidate.cut.kind);
    let (mut bytes, mut values) = (Vec::new(), Vec::with_capacity(STRETCH / 2));
    for first in (0..info.bytes()).step_by(every * STRETCH) {
        bytes.resize(STRETCH.min(info.bytes() - first), 0);
        // Asked for and not touched through the mapping, which would read far ahead in each place.
        file.file
            .read_exact_at(&mut bytes, (info.range.start + first) as u64)
            .map_err(|error| StoreError::io("read", &file.path, error))?;
        super::write::values(&bytes, &mut values);
        counts.add(&values);
    }
    let Some(code) = Code::best(&counts) else {
        return Ok(None);
    };
    let share = (8.0 + code.bits(&counts)) / 16.0;
    Ok((share < PAYS).then_some((code, share)))
}
