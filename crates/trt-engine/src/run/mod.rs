//! An engine on its device: what is where, calls, sessions.
//!
//! Whoever holds the lock of a [`Run`](change::Run) may call or change what is where; how much may be
//! there is not decided here.

pub(crate) mod arena;
pub(crate) mod call;
pub(crate) mod change;
pub(crate) mod engine;
mod integers;
mod logits;
pub(crate) mod pressure;
pub(crate) mod program;
pub(crate) mod session;
pub(crate) mod states;
mod tensor_bytes;
