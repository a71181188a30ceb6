//! Values of blocks copied out as f32.

use super::{OfBlocks, Unpack, in_memory, of_blocks};
use crate::BlockType;
use crate::host::simd::{self, Job, Simd};

/// Values of the largest block.
const MOST_VALUES: usize = {
    let (mut most, mut i) = (0, 0);
    while i < BlockType::ALL.len() {
        let values = BlockType::ALL[i].values();
        most = if values > most { values } else { most };
        i += 1;
    }
    most
};

/// Writes the values of blocks from value `skip` on until `out` is full or the blocks end: those that
/// `BlockType::decode` gives.
pub(in crate::host) fn unpack(block: BlockType, bytes: &[u8], skip: usize, out: &mut [f32]) {
    simd::run(Values {
        block,
        bytes,
        skip,
        out,
    })
}

pub(super) struct Values<'a> {
    pub block: BlockType,
    pub bytes: &'a [u8],
    pub skip: usize,
    pub out: &'a mut [f32],
}

impl Job for Values<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let set = std::marker::PhantomData::<S>;
        of_blocks(self.block, Typed { values: self, set })
    }
}

struct Typed<'a, S> {
    values: Values<'a>,
    set: std::marker::PhantomData<S>,
}

impl<S: Simd> OfBlocks for Typed<'_, S> {
    type Out = ();
    #[inline(always)]
    fn run<T: Unpack>(self) {
        let Values {
            bytes,
            skip,
            mut out,
            ..
        } = self.values;
        let blocks = bytes.chunks_exact(T::TYPE.bytes());
        let mut skip = skip;
        for block in blocks {
            if skip >= T::TYPE.values() {
                skip -= T::TYPE.values();
                continue;
            }
            if out.is_empty() {
                return;
            }
            if skip == 0 && out.len() >= T::TYPE.values() {
                let (now, rest) = out.split_at_mut(T::TYPE.values());
                whole::<S, T>(block, now);
                out = rest;
                continue;
            }
            let mut values = [0f32; MOST_VALUES];
            let values = &mut values[..T::TYPE.values()];
            whole::<S, T>(block, values);
            let count = (values.len() - skip).min(out.len());
            let (now, rest) = out.split_at_mut(count);
            now.copy_from_slice(&values[skip..skip + count]);
            (out, skip) = (rest, 0);
        }
    }
}

/// The values of one block.
#[inline(always)]
fn whole<S: Simd, T: Unpack>(block: &[u8], out: &mut [f32]) {
    assert!(block.len() >= T::TYPE.bytes() && out.len() >= T::TYPE.values());
    let (block, out) = (block.as_ptr(), out.as_mut_ptr());
    // SAFETY: a job has the instructions, the block is whole, and vectors end with its values.
    unsafe {
        let mut head = T::Head::default();
        T::head::<S>(block, &mut head);
        in_memory::<T>(&mut head);
        for unit in 0..T::TYPE.values() / T::UNIT {
            let mut at = 0;
            while at < T::UNIT {
                let v = T::vector::<S>(block, &head, unit, at);
                S::store(v, out.add(unit * T::UNIT + at));
                at += S::LANES;
            }
        }
    }
}
