//! From model code in candle's style to a program of kernels.
//!
//! A model is ordinary code over [`candle`] and [`candle_nn`], which mirror the paths of
//! `candle_core` and `candle_nn` with symbolic tensors: a model ports by changing its `use`
//! lines. Running it once records what it computes; running it at several sample points shows
//! which integers depend on the call. What comes out serves every call of a profile.
//!
//! The stages, and what holds after each:
//!
//! 1. **[`mirror`]**: a [`candle::Tensor`] knows its operation, operands, shape and dtype; no
//!    element is computed and no weight byte is read. Shapes are concrete, so the model's own
//!    control flow works, and errors come where candle gives them.
//! 2. **[`trace()`]** runs the model at the sample points of one [`Class`] of calls and
//!    anti-unifies the recordings: every sample has the same nodes, every integer that differs is
//!    affine in the runtime integers at all samples, every constant that differs belongs to a
//!    family (a fill, a range, a causal mask). Anything else is an [`Error`] with the node.
//! 3. **[`passes`]**: each takes a [`Graph`] and returns one that means the same, and [`verify`]
//!    holds between any two: nodes in topological order, shapes and dtypes that fit their op.
//!    [`reference`](mod@reference) defines what a graph means. [`passes::derive`] then makes graphs of their own of what
//!    follows from weights alone, for those who can keep the results.
//! 4. **[`lower`]** makes a [`Program`](program::Program): every node is computed in exactly one
//!    launch or again in each kernel that uses it, layout ops become strides, and every operand
//!    of a launch is written before it is read. A program is plain data over buffers and weights.
//! 5. **[`launches`]** makes fewer launches of the same work: each fusion takes launches and returns
//!    launches, and [`Program::verify`](program::Program::verify) holds between any two.
//!
//! **A weight** is a name until the end: `VarBuilder::get` makes a node of it, a product reads
//! it as a ranged operand (so that whoever runs the program may cut it into row tiles), a gather
//! reads single rows of it, and any other use wants it whole. [`program::Weight`] says which.
//!
//! **A cache** is a tensor that one call makes and a later one uses. Tracing finds it by its
//! place in the recording of that call and declares a state; `cat(state, new)` that becomes
//! the state's next value is an append in place, in memory for the longest call of the profile.
//! [`trace_profile`] traces all classes of a profile, which share their states.
//!
//! ```
//! use std::sync::Arc;
//! use trt_graph::candle::{DType, Module, Result, Tensor};
//! use trt_graph::candle_nn::{Linear, Stored, VarBuilder, WeightSource, linear_no_bias};
//! use trt_graph::{Call, Profile, compile, trace};
//!
//! /// The files hold one weight.
//! struct Files;
//! impl WeightSource for Files {
//!     fn find(&self, name: &str) -> Option<Stored> {
//!         (name == "proj.weight").then(|| Stored::new(name, vec![8, 4], trt_kernel::DType::BF16))
//!     }
//!     fn similar(&self, _: &str) -> Vec<String> {
//!         vec!["proj.weight".into()]
//!     }
//! }
//!
//! // A model: loaded once, then stepped. `rows` may be anything from 2 to 64.
//! let mut load = |vb: VarBuilder| {
//!     let proj: Linear = linear_no_bias(4, 8, vb.pp("proj"))?;
//!     Ok(move |call: &Call<'_>| -> Result<Vec<Tensor>> {
//!         let x = call.input("x", (call.int("rows")?, 4), DType::F32)?;
//!         Ok(vec![(proj.forward(&x)?.silu()? * 0.5)?])
//!     })
//! };
//! let vb = VarBuilder::new(Arc::new(Files), DType::F32);
//! let profile = Profile::single(&[("rows", 2, 64)])?;
//! let graph = trace(&mut load, &vb, &profile.classes[0])?;
//! let (program, report) = compile(graph)?;
//!
//! println!("{program}");
//! assert_eq!(program.launches[0].label, "matmul+silu+mul");
//! assert!(program.weights[0].roles.has(trt_kernel::Role::Rows));
//! assert_eq!(report.kernels.len(), 1);
//! # Ok::<(), trt_graph::Error>(())
//! ```
#![forbid(unsafe_code)]

mod compile;
mod error;
mod graph;
mod ints;
pub mod launches;
mod line;
mod lower;
pub mod mirror;
pub mod passes;
pub mod program;
pub mod reference;
mod report;
mod text;
mod trace;
mod verify;

pub use compile::compile;
pub use error::Error;
pub use graph::{AttentionOp, Graph, InputDecl, Literal, Margin, Node, NodeId, Op, StateDecl};
pub use ints::{Floor, IntVar, Meaning, PAST, Positions, SEQ};
pub use line::Line;
pub use lower::{lower, unfused};
pub use mirror::{candle, candle_nn, candle_transformers};
pub use report::{FusionNote, KernelNote, PassNote, Report};
pub use trace::{Call, Class, Profile, ProfileBuilder, Split, Step, Traced, trace, trace_profile};
pub use verify::verify;
