//! Weight files: which tensors there are, where they lie, and their bytes through a mapping.
//!
//! Nothing here knows why a tensor is wanted: not how it is cut, nor where it is put. Who wrote a
//! file is not trusted.

mod copies;
mod error;
mod fnv;
mod foreign;
mod header;
mod index;
mod name;
mod near;
mod open;
mod regular;
mod shards;
mod shown;

pub use copies::Copies;
pub use error::WeightsError;
pub use index::{FileId, TensorId, TensorInfo, WeightFile, Weights};
pub use name::{NameError, plain_name};
pub use regular::{FileError, open_regular, read_regular};
pub(crate) use shown::Shown;
