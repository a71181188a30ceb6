//! How one kernel computes: a small language and the back ends that run it.
//!
//! A [`Body`] is a straight-line program over an index space. Everything that fusion
//! produces is a `Body`; a [`Kernel`] puts one to work: a [`Row`] kernel runs it over rows and
//! columns, and the templates ([`Matmul`], [`Attention`], [`Gather`], [`Move`]) own their loop
//! nests and run it as epilogue, score or element function. Sizes, strides and offsets are
//! [`Dim`]s, polynomials in the runtime integers of a call (`past`, `seq`, …), so one kernel
//! serves every length.
//!
//! The language knows no graph, device or file. [`host`] executes a kernel on the CPU; [`ptx`]
//! emits text for NVIDIA GPUs, with how to [`launch`] it as data. What both can run as one launch is in
//! [`fusible`].
//!
//! **The row-range law.** A [`Matmul`] whose `b` operand is a weight may be launched on any
//! range of output columns `n` (rows of the weight) whose ends lie on multiples of
//! [`ROW_PANEL`] or on `n`; each output is computed by the same instructions in the same order
//! whatever the range. Weights can therefore be cut into row tiles that are resident or
//! arriving, and results are bit-identical at every budget.
//!
//! ```
//! use trt_kernel::{Arg, BodyBuilder, Binary, DType, Dim, Env, Kernel, Row, Unary, View, host};
//!
//! // out[r, c] = silu(a[r, c]) * b[r, c] over 2 x 3 elements
//! let space = vec![Dim::from(2), Dim::from(3)];
//! let whole = View::contiguous(&space);
//! let mut body = BodyBuilder::new();
//! let a = body.load(Arg(0), whole.clone());
//! let b = body.load(Arg(1), whole.clone());
//! let s = body.unary(Unary::Silu, a);
//! let p = body.binary(Binary::Mul, s, b);
//! body.store(Arg(2), whole, p);
//! let kernel = Kernel::Row(Row { space, args: vec![DType::F32; 3], body: body.finish() });
//! kernel.check().unwrap();
//!
//! let a = [1f32, 2., 3., 4., 5., 6.];
//! let b = [1f32; 6];
//! let mut out = [0f32; 6];
//! host::run_on_slices(&kernel, &Env::default(), None, &mut [
//!     host::Span::from_slice(&a), host::Span::from_slice(&b), host::Span::from_mut(&mut out),
//! ]).unwrap();
//! assert!((out[0] - 0.7310586).abs() < 1e-6);
//! ```
#![deny(unsafe_code)]

mod access;
mod body;
mod check;
mod dim;
mod dtype;
mod encoding;
pub mod fusible;
pub mod host;
mod kernel;
pub mod launch;
pub mod ptx;
mod role;
mod scalar;
mod sizes;
mod stored;
mod sum_order;
mod text;
mod touches;

pub use access::{Access, Reach, Toucher};
pub use body::{Arg, Body, BodyBuilder, BodyError, Inst, Reg, Ty, View};
pub use check::KernelError;
pub use dim::{Dim, Env, Interval, Var};
pub use dtype::DType;
pub use encoding::{BlockType, EncodeError, Encoding, PackedType};
pub use kernel::{
    Attention, Causal, Gather, Group, Kernel, Left, Matmul, Move, Operand, Order, Routed, Row,
};
pub use role::{Role, Roles};
pub use scalar::{Binary, Compare, Reduce, Unary};
pub use sum_order::{Fold, SumOrder, Within};

/// Row ranges of a streamed [`Matmul`] start and end on multiples of this many weight rows
/// (or at the weight's end).
pub const ROW_PANEL: usize = 64;
