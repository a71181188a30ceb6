//! Bytes of mapped files on their way to the device, and where kernels read them in place.

mod files;
mod pull;
mod registry;
mod ring;
mod settle;

pub use files::Transfers;
pub(super) use files::{Files, OwnMapping};
pub(super) use pull::Pull;
