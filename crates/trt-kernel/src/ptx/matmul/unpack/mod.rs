//! Rows of a weight in blocks or packed, written out: a launch ahead of the product.
//!
//! Each value lies in working memory as a plain weight's would: packed rows as they were ([`rows`]), and of blocks, for
//! tensor cores, what [`crate::BlockType::decode`] says, rounded to nearest even to the dtype of the left operand ([`runs`]). The product
//! that follows is the plain one: so its outputs have the bits of a product by the plain weight, or by the one dequantised and
//! rounded, and what a range of rows gives depends on nothing but them.
//!
//! They lie in working memory as a [`Slab`].

mod rows;
mod runs;

use super::MatmulFrame;
use super::slab::{HEAD, Slab};
use crate::ptx::block::Block;
use crate::ptx::emitted::Target;
use crate::{DType, Encoding, Matmul};

/// Bytes of a piece that a lane stores.
const PIECE: usize = 16;
/// The product by the weight written out into so many bytes or 256 rows, if that is what a product reads: of blocks one
/// that tensor cores can take, of packed rows any.
pub(super) fn plain(kernel: &Matmul, room: usize) -> Option<(Matmul, Slab)> {
    let (n, k) = (kernel.n.constant_size()?, kernel.k.constant_size()?);
    let left = kernel.left_dtype();
    let dtype = match kernel.right() {
        Encoding::Plain(_) | Encoding::Code => return None,
        // The left operand cannot be the weight, whose values are f32.
        Encoding::Blocks(_) => matches!(left, DType::BF16 | DType::F16).then_some(left)?,
        Encoding::Packed(packed) => packed.dtype(),
    };
    let arg = kernel.b.arg.0 as usize;
    if !kernel.ranged || n == 0 || k == 0 {
        return None;
    }
    let mut plain = kernel.clone();
    *plain.args.get_mut(arg)? = Encoding::Plain(dtype);
    Some((plain, Slab::of(n, k, room)))
}

/// The entry that writes out the `i`-th slab of the rows of a launch.
pub(super) fn emit(kernel: &Matmul, target: Target, slab: Slab, i: usize) -> Option<Block> {
    match kernel.right() {
        Encoding::Plain(_) | Encoding::Code => None,
        Encoding::Blocks(_) => runs::emit(kernel, target, slab, i),
        Encoding::Packed(_) => rows::emit(kernel, target, slab, i),
    }
}
