//! What makes a plan happen with the bytes of files, on a device, out of a pool.

mod config;
mod error;
mod places;
mod rates;
mod sources;
mod stack;
mod staging;
mod streamer;
mod unpack;
mod weight;

pub use config::{Config, ProgramId, Traffic, Uses};
pub use error::Error;
pub use streamer::{Pass, Streamer};
pub use unpack::{Packed, Unpack};
pub use weight::{Form, Matrix, Weight};
