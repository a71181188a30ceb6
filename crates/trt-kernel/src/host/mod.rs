//! The back end that executes kernels on the CPU.
//!
//! [`Prepared`] does once what does not depend on a call: it checks the kernel and cuts its body
//! into stages. [`Prepared::run`] executes it over [`Span`]s with the threads of a [`Team`].
//! Which thread runs a part never changes a bit of the result: work is cut by output elements
//! (or by fixed blocks merged in order), and each output is computed by the same instructions in
//! the same order. Instruction sets are chosen at run time, so bits are reproducible on one
//! machine, not across machines.

mod attention;
#[allow(unsafe_code)]
mod blocks;
mod call_view;
#[allow(unsafe_code)]
mod coded;
#[allow(unsafe_code)]
mod codes;
#[allow(unsafe_code)]
mod dot;
#[allow(unsafe_code)]
mod elements;
mod exec;
mod fold;
mod left;
mod math;
mod matmul;
mod moves;
mod panics;
mod pick;
mod pieces;
mod program;
mod row;
mod rows_first;
mod runs;
mod scratch;
#[allow(unsafe_code)]
mod simd;
mod softmax;
#[allow(unsafe_code)]
mod span;
#[allow(unsafe_code)]
mod team;
#[allow(unsafe_code)]
mod tile;
#[allow(unsafe_code)]
mod words;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod x86;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod x86_codes;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod x86_words;

pub use panics::contain;
pub use span::Span;
pub use team::Team;

use crate::{Arg, Body, DType, Encoding, Env, Kernel, KernelError, Routed};
use left::SplitProduct;
use program::Program;
use rows_first::RowsFirst;
use span::Args;
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
    encodings: Vec<Encoding>,
    /// The body, epilogue or score; a move has none.
    program: Program,
    /// How a product runs that computes its left operand.
    split: Option<SplitProduct>,
    /// How an attention runs that rows come before.
    before: Option<RowsFirst>,
}

impl Prepared {
    /// Checks a kernel and prepares it.
    ///
    /// # Errors
    /// [`KernelError`] as [`Kernel::check`], and for groups, more than eight axes, operands that are
    /// not floats and ids that are not integers.
    pub fn new(kernel: &Kernel) -> Result<Prepared, KernelError> {
        kernel.check()?;
        limits(kernel)?;
        let encodings = kernel.args();
        let dtypes: Vec<DType> = encodings.iter().map(|e| e.dtype()).collect();
        let empty = Body::default();
        let body = match kernel {
            Kernel::Row(k) => &k.body,
            Kernel::Matmul(k) => &k.epilogue,
            Kernel::Attention(k) => &k.score,
            Kernel::Gather(k) => &k.body,
            Kernel::Routed(k) => &k.product.epilogue,
            Kernel::Move(_) | Kernel::Group(_) => &empty,
        };
        let wrong = |source| KernelError::Body {
            kernel: kernel.kind(),
            source,
        };
        let split = match kernel {
            Kernel::Matmul(k) => SplitProduct::new(k).map_err(wrong)?,
            _ => None,
        };
        let before = match kernel {
            Kernel::Attention(k) => RowsFirst::new(k).map_err(wrong)?,
            _ => None,
        };
        Ok(Prepared {
            program: Program::new(body, &dtypes).map_err(wrong)?,
            kernel: kernel.clone(),
            encodings,
            split,
            before,
        })
    }

    /// The kernel.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// Executes the kernel. `spans` are in argument order. `rows` restricts a ranged matmul to
    /// these output columns; its weight span then starts at row `rows.start`, and both ends are
    /// multiples of [`crate::ROW_PANEL`] or `n`. Spans may coincide for in-place pointwise work.
    /// After an error the written arguments hold anything.
    ///
    /// # Errors
    /// [`HostError`] for spans that do not fit the kernel's arguments (their number, the bytes that
    /// views reach, read-only ones that are written), for rows that the kernel cannot be run on, ids
    /// outside of the table, working memory that is not there, and a part that panicked.
    ///
    /// # Safety
    /// With a team of several threads, no byte that one output element of the kernel writes may be
    /// read or written on behalf of another: neither by views of one argument that meet there (a
    /// store of stride 0, say), nor through two spans that share it. What
    /// [`Kernel::check`] sees is not enough for that, since strides and sizes are those of a call.
    /// With one thread nothing is asked: see [`run_on_slices`].
    #[allow(
        unsafe_code,
        reason = "what a kernel is told to write cannot be checked here"
    )]
    pub unsafe fn run(
        &self,
        env: &Env,
        rows: Option<Range<usize>>,
        spans: &mut [Span<'_>],
        team: &Team,
    ) -> Result<(), HostError> {
        if spans.len() != self.encodings.len() {
            return Err(HostError::Arguments {
                expected: self.encodings.len(),
                found: spans.len(),
            });
        }
        let args = Args {
            spans: Span::raw(spans),
            encodings: &self.encodings,
        };
        if let Some(range) = &rows
            && !matches!(self.kernel, Kernel::Matmul(_) | Kernel::Routed(_))
        {
            return Err(HostError::Rows {
                start: range.start,
                end: range.end,
                n: 0,
                why: "only a matmul runs on a range of rows",
            });
        }
        // Views with absurd numbers may overflow before they are found to be outside.
        contain(|| self.launch(env, rows, args, team))
            .unwrap_or_else(|message| Err(HostError::Panicked { message }))
    }

    fn launch(
        &self,
        env: &Env,
        rows: Option<Range<usize>>,
        args: Args,
        team: &Team,
    ) -> Result<(), HostError> {
        let program = &self.program;
        match &self.kernel {
            Kernel::Row(k) => row::run(k, program, env, args, team),
            Kernel::Matmul(k) => match &self.split {
                None => matmul::run(k, program, env, rows, args, team),
                Some(split) => split.run(program, env, rows, args, team),
            },
            Kernel::Attention(k) => match &self.before {
                None => attention::run(k, program, env, args, team),
                Some(before) => before.run(program, env, args, team),
            },
            Kernel::Gather(k) => moves::gather(k, program, env, args, team),
            Kernel::Routed(k) => matmul::routed(k, program, env, rows, args, team),
            Kernel::Move(k) => moves::copy(k, env, args, team),
            // Refused by `limits`.
            Kernel::Group(_) => Ok(()),
        }
    }
}

/// What this back end asks for beyond [`Kernel::check`].
fn limits(kernel: &Kernel) -> Result<(), KernelError> {
    if let Kernel::Attention(k) = kernel
        && let Some((rows, attention)) = k.split()
    {
        for row in rows {
            limits(&Kernel::Row(row.clone()))?;
        }
        return limits(&Kernel::Attention(attention));
    }
    let refuse = |what: String| {
        Err(KernelError::Shape {
            kernel: kernel.kind(),
            what,
        })
    };
    let axes = match kernel {
        Kernel::Row(k) => k.space.len(),
        Kernel::Move(k) => k.space.len(),
        Kernel::Matmul(_) | Kernel::Attention(_) | Kernel::Gather(_) | Kernel::Routed(_) => 0,
        Kernel::Group(_) => return refuse("its parts are prepared one by one".into()),
    };
    if axes > call_view::MAX_AXES {
        return refuse(format!(
            "{axes} axes; the host runs at most {}",
            call_view::MAX_AXES
        ));
    }
    let args = kernel.args();
    let floats: Vec<Arg> = match kernel {
        Kernel::Row(_) | Kernel::Move(_) | Kernel::Group(_) => Vec::new(),
        Kernel::Matmul(k) | Kernel::Routed(Routed { product: k, .. }) => {
            let left = k.a.stored().map(|a| a.arg);
            left.into_iter().chain([k.b.arg]).collect()
        }
        Kernel::Attention(k) => vec![k.q.arg, k.k.arg, k.v.arg, k.out.arg],
        Kernel::Gather(k) => {
            let ids = args[k.ids.arg.0 as usize].dtype();
            if ids.is_float() {
                return refuse(format!("ids are {ids}, not integers"));
            }
            vec![k.table]
        }
    };
    match floats
        .iter()
        .find(|a| !args[a.0 as usize].dtype().is_float())
    {
        Some(a) => refuse(format!(
            "operand a{} is {}, not a float",
            a.0, args[a.0 as usize]
        )),
        None => Ok(()),
    }
}

/// Prepares a kernel and runs it once, on the calling thread alone; the parts of a group one by one.
///
/// # Errors
/// [`HostError`] as [`Prepared::new`] and [`Prepared::run`].
#[allow(unsafe_code, reason = "one thread cannot race with itself")]
pub fn run_on_slices(
    kernel: &Kernel,
    env: &Env,
    rows: Option<Range<usize>>,
    spans: &mut [Span<'_>],
) -> Result<(), HostError> {
    // SAFETY: a team of one is the calling thread, which does one element after another, and it
    // holds the spans.
    unsafe { run_with(kernel, env, rows, spans, &Team::new(1)) }
}

/// As [`run_on_slices`], with the threads of a team.
///
/// # Errors
/// [`HostError`] as [`Prepared::new`] and [`Prepared::run`], for the first part that fails.
///
/// # Safety
/// As for [`Prepared::run`], for each part of a group.
#[allow(unsafe_code, reason = "passes the contract of `Prepared::run` on")]
pub unsafe fn run_with(
    kernel: &Kernel,
    env: &Env,
    rows: Option<Range<usize>>,
    spans: &mut [Span<'_>],
    team: &Team,
) -> Result<(), HostError> {
    kernel.check()?;
    let (expected, found) = (kernel.args().len(), spans.len());
    if expected != found {
        return Err(HostError::Arguments { expected, found });
    }
    for (first, part) in kernel.numbered_parts() {
        let own = first as usize..first as usize + part.args().len();
        // SAFETY: the caller's promise.
        unsafe { Prepared::new(part)?.run(env, rows.clone(), &mut spans[own], team)? };
    }
    Ok(())
}
