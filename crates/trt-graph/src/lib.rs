//! From model code in candle's style to a program of kernels.

mod error;
mod graph;
pub mod mirror;
pub mod passes;
pub mod reference;
mod text;
mod trace;
mod verify;

pub use error::Error;
pub use graph::{AttentionOp, Graph, InputDecl, IntVar, Literal, Node, NodeId, Op, StateDecl};
pub use mirror::{candle, candle_nn};
pub use trace::{Call, Class, Profile, Step, trace};
pub use verify::verify;
