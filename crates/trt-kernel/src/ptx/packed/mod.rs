//! Packed rows in kernels: where their blocks lie, and values out of their streams.
//!
//! `docs/packing.md` says what the bytes are. All sizes follow from the weight's and are constants of the text. Where units lie is
//! said by the weight's code, which the host made of checked data; so a kernel relies on that. What lies in a unit it does
//! not rely on: a block that is not inside of its unit has zeros as values, and no stream is read beyond its block. The
//! invariant: whatever bytes a unit has, nothing outside of it is read.

mod place;
mod stream;
mod table;

pub(super) use place::{Blocks, Found};
pub(super) use stream::{BEHIND, Piece, Source, Stream, Words};
pub(super) use table::table;

use crate::{Arg, Matmul, PackedType};
use trt_pack::{Geometry, PIECE, unit_rows};

/// How the rows of a packed weight are cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub packed: PackedType,
    pub geometry: Geometry,
    /// Rows of the weight.
    rows: usize,
    /// Rows of a unit but the last.
    unit_rows: usize,
    /// The argument with the weight's code.
    pub code: Arg,
}

impl Layout {
    /// None for a product by another weight.
    pub fn of(kernel: &Matmul) -> Option<Layout> {
        let packed = kernel.right().as_packed()?;
        let (rows, columns) = (kernel.n.constant_size()?, kernel.k.constant_size()?);
        Some(Layout {
            packed,
            geometry: packed.geometry(columns)?,
            rows,
            unit_rows: unit_rows(columns),
            code: kernel.code()?,
        })
    }

    /// Pieces of the last stretch of a row.
    pub fn last(&self) -> usize {
        let before = (self.geometry.stretches() - 1) * self.geometry.stretch();
        self.geometry.columns() / PIECE - before
    }
}
