//! What makes a plan happen with the bytes of files, on a device, out of a pool.

mod change;
mod config;
mod error;
mod executor;
mod pass;
mod places;
mod rates;
mod stack;

pub use config::{Config, ProgramId, Traffic, Uses};
pub use error::Error;
pub use executor::Streamer;
pub use pass::Pass;
