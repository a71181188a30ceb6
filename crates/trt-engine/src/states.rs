//! Memory of one session's states: one block, since a device rounds each allocation up (a GPU to
//! 2 MiB, which for two states a layer would be a third more).

use crate::Error;
use crate::engine::Inner;
use trt_alloc::Purpose;
use trt_device::{ALIGN, Slice};
use trt_graph::program::State;

/// Where each state begins in the block, and how many bytes it has.
fn places(states: &[State]) -> impl Iterator<Item = (usize, usize)> {
    states.iter().scan(0, |end: &mut usize, s| {
        let bytes = (s.capacity.iter().product::<usize>() * s.dtype.size()).max(1);
        let start = *end;
        *end += bytes.next_multiple_of(ALIGN);
        Some((start, bytes))
    })
}

/// Bytes of the block; 0 without states.
pub(crate) fn bytes(states: &[State]) -> u64 {
    places(states).last().map_or(0, |(start, bytes)| {
        (start + bytes.next_multiple_of(ALIGN)) as u64
    })
}

/// Memory for the states of one session, which counts until the last of them is gone.
pub(crate) fn acquire(engine: &Inner) -> Result<Vec<Slice>, Error> {
    let states = engine
        .programs
        .first()
        .map_or(&[][..], |p| &p.program.states);
    if states.is_empty() {
        return Ok(Vec::new());
    }
    let block = engine.pool.acquire(bytes(states), Purpose::States)?.whole();
    let each = places(states).map(|(start, bytes)| block.slice(start..start + bytes));
    Ok(each.collect::<Result<_, _>>()?)
}
