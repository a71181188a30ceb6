//! Memory of one session's states: one block, since a device rounds each allocation up (a GPU to
//! 2 MiB, which for two states a layer would be a third more).

use super::engine::Core;
use crate::error::Error;
use trt_alloc::Purpose;
use trt_device::{ALIGN, Slice};
use trt_graph::program::State;

/// Where each state begins in the block, and how many bytes it has; more than any device has where
/// that cannot be counted.
fn places(states: &[State]) -> impl Iterator<Item = (usize, usize)> {
    states.iter().scan(0, |end: &mut usize, s| {
        let sizes = s.capacity.iter().copied();
        let bytes = sizes.fold(s.dtype.size(), usize::saturating_mul).max(1);
        let start = *end;
        *end = start.saturating_add(aligned(bytes));
        Some((start, bytes))
    })
}

/// Bytes of the block; 0 without states.
pub(crate) fn bytes(states: &[State]) -> u64 {
    places(states).last().map_or(0, |(start, bytes)| {
        start.saturating_add(aligned(bytes)) as u64
    })
}

fn aligned(bytes: usize) -> usize {
    bytes.checked_next_multiple_of(ALIGN).unwrap_or(usize::MAX)
}

/// Memory for the states of one session, which counts until the last of them is gone.
///
/// # Errors
/// If there is no memory for them.
pub(crate) fn acquire(engine: &Core) -> Result<Vec<Slice>, Error> {
    let states = engine
        .programs()
        .first()
        .map_or(&[][..], |p| &p.program.states);
    if states.is_empty() {
        return Ok(Vec::new());
    }
    let block = engine
        .pool()
        .acquire(bytes(states), Purpose::States)?
        .whole();
    let each = places(states).map(|(start, bytes)| block.slice(start..start.saturating_add(bytes)));
    Ok(each.collect::<Result<_, _>>()?)
}
