//! How much of a device an engine may hold, by itself and beside others.
//!
//! Here is decided what an engine asks for; [`Run`](crate::run::change::Run) does it, or leaves what was.

pub(crate) mod allocation;
mod calibrate;
pub(crate) mod device_budget;
mod engine_budget;
pub(crate) mod guard;
pub(crate) mod neighbours;
pub(crate) mod planning;
mod predict;
