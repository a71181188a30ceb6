//! Which of candle's model files type-check over candle-trt's tensors.
//!
//! [`port`] writes files again with other `use` lines; [`attempt`] has the compiler check all of them together, takes out
//! those that have errors and checks the rest until no error is left. What it finds ([`Outcome`]) is kept as a text, from
//! which the files are compiled that type-check: no build but a trial compiles a file that may fail.

mod attempt;
pub mod changed;
mod outcome;
pub mod port;

pub use attempt::{LIST, attempt};
pub use outcome::Outcome;
