//! From model code, or a saved engine, to an engine on a device.
//!
//! A model becomes programs, programs find their weights and then their kernels, and with what a
//! device must hold all of it becomes an engine: [`build`] says the order, each file one step.

mod build;
pub(crate) mod compiler;
mod contents;
mod derived;
pub(crate) mod limits;
mod make;
mod metadata;
mod packed;
mod ready;
pub(crate) mod saved;
mod source;
pub(crate) mod tensors;
