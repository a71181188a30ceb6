//! From model code in candle's style to a program of kernels.

mod error;
mod graph;
mod lower;
pub mod mirror;
pub mod passes;
pub mod program;
pub mod reference;
mod text;
mod trace;
mod verify;

pub use error::Error;
pub use graph::{AttentionOp, Graph, InputDecl, IntVar, Literal, Node, NodeId, Op, StateDecl};
pub use lower::{KernelNote, Report, compile, lower};
pub use mirror::{candle, candle_nn};
pub use trace::{Call, Class, Profile, Step, trace};
pub use verify::verify;
