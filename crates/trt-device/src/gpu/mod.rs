//! What any GPU back end needs, whatever its driver.
//!
//! A GPU does not look where a kernel reads and writes, and runs it long after it was submitted. So
//! launches are checked before: against the reach of their kernels ([`Bounds`], and [`Needs`] for
//! recorded ones), against the addresses that kernels take ([`Alignment`]) and the rows that they may
//! cover ([`row_range_law`]); and what work uses is kept until it is done ([`Retire`]). Files whose pages
//! a driver locks are cut the same way everywhere ([`chunks`]), and read [ahead](Ahead). Nothing here
//! calls a driver.

mod ahead;
mod aligned;
mod bounds;
pub(crate) mod chunks;
mod needs;
mod retire;
mod rows;

pub(crate) use ahead::Ahead;
pub(crate) use aligned::{Alignment, WIDEST};
pub(crate) use bounds::Bounds;
pub(crate) use needs::Needs;
pub(crate) use retire::Retire;
pub(crate) use rows::{count, refused, row_range_law};
