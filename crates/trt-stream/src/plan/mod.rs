//! What stays on the device, and in which order the rest comes and is used: data in, data out.
//!
//! Nothing here knows a device, a file or a pool. What a plan says is proven by [`simulate`],
//! which shares no code with it.

mod budget;
mod order;
mod schedule;
mod share;
mod simulate;
mod tile;
mod timing;

pub use budget::{Applied, BudgetError, Granted, Limits, ParseRequestError, Percent, Request, Why};
pub use schedule::{Cycle, Layout, MIN_SLOTS, Runs, Slot, Split, Step, UseIndex};
pub use share::{BelowFloors, Demand, Gain, Shares, share};
pub use simulate::{Account, Violation, simulate};
pub use tile::{Sheet, Tile, TileId, TileTarget, Tiling};
pub use timing::{Costs, Prediction, Rates, Timed};
