//! What stays on the device, and in which order the rest comes and is used: data in, data out.
//!
//! Nothing here knows a device, a file or a pool. What a plan says is proven by [`simulate`],
//! which shares no code with it.

mod budget;
mod cycle;
mod lane;
mod order;
mod schedule;
mod share;
mod simulate;
mod tile;
mod timing;
mod turning;
mod weight;

pub use budget::{Applied, BudgetError, Granted, Limits, ParseRequestError, Percent, Request, Why};
pub use cycle::{Cycle, Runs, Slot, Step, UseIndex};
pub use lane::Lane;
pub use schedule::{Layout, MIN_SLOTS, STAGES, Split};
pub use share::{BelowFloors, Demand, Gain, Shares, share};
pub use simulate::{Account, Case, Violation, simulate};
pub use tile::{SlotBytes, Tile, TileForm, TileId, TileTarget, Tiling};
pub use timing::{Costs, Prediction, Rates, Timed};
pub use turning::{Group, Turning};
pub use weight::{Arrive, Part, Sheet, SheetError, Units, Use, WeightId};
