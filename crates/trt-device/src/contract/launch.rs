//! What a launch can fail with, on whatever device.

use trt_kernel::{Encoding, KernelError};

/// Why a launch failed: what could be seen when it was submitted, or what its kernel found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// The kernel itself is wrong.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The launch has another number of arguments than the kernel.
    #[error("the kernel takes {expected} arguments, the launch has {found}")]
    Arguments {
        /// Arguments of the kernel.
        expected: usize,
        /// Arguments given.
        found: usize,
    },
    /// A view reaches outside its argument.
    #[error(
        "argument a{arg}: elements {first}..={last} of {encoding} reach outside its {bytes} bytes"
    )]
    OutOfBounds {
        /// The argument.
        arg: u16,
        /// How its elements are written down.
        encoding: Encoding,
        /// The lowest element of the access.
        first: i64,
        /// The highest element of the access.
        last: i64,
        /// Length of the argument.
        bytes: usize,
    },
    /// A store to an argument that may only be read.
    #[error("argument a{arg} is written but its memory is read-only")]
    ReadOnly {
        /// The argument.
        arg: u16,
    },
    /// A row range where none is allowed, or one that breaks the row-range law.
    #[error("rows {start}..{end} of {n}: {why}")]
    Rows {
        /// First row.
        start: usize,
        /// End of the range.
        end: usize,
        /// Rows of the weight.
        n: usize,
        /// The rule broken.
        why: &'static str,
    },
    /// An id that is no row of the table.
    #[error("id {id} at row {row} is outside the table of {entries} entries")]
    Id {
        /// The id.
        id: i64,
        /// Its place among the ids.
        row: usize,
        /// Rows of the table.
        entries: usize,
    },
    /// An index that picks no element.
    #[error("index {index} is outside of an axis of {size}")]
    Index {
        /// The index.
        index: i64,
        /// Elements that there are to pick of.
        size: i64,
    },
    /// A unit of packed rows that is not where it should be, or is none.
    #[error("argument a{arg}, unit {unit} of its packed rows: {why}")]
    Packed {
        /// The argument.
        arg: u16,
        /// The unit, counted from the weight's first.
        unit: usize,
        /// What is wrong.
        why: String,
    },
    /// There is no memory for what a launch holds meanwhile.
    #[error("no {bytes} bytes of working memory")]
    Memory {
        /// Bytes that it needs.
        bytes: usize,
    },
    /// A part of a launch panicked: a defect of this library.
    #[error("a kernel part panicked: {message}")]
    Panicked {
        /// The panic's message.
        message: String,
    },
}
