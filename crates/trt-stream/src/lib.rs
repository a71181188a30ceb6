//! placeholder
#![deny(unsafe_code)]

mod budget;
mod error;
mod executor;
mod header;
mod index;
mod near;
mod open;
mod order;
mod pass;
mod places;
mod schedule;
mod simulate;
mod tile;

pub use budget::{Applied, BudgetError, Granted, Limits, ParseRequestError, Percent, Request, Why};
pub use error::{Error, WeightsError};
pub use executor::{Config, ProgramId, Streamer, Traffic};
pub use index::{FileId, TensorInfo, WeightFile, WeightId, Weights};
pub use pass::Pass;
pub use schedule::{Cycle, Layout, MIN_SLOTS, Runs, Slot, Split, Step, UseIndex};
pub use simulate::{Account, Violation, simulate};
pub use tile::{Sheet, Tile, TileId, TileTarget, Tiling};
