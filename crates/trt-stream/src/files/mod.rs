//! Weight files: which tensors there are, where they lie, and their bytes through a mapping.
//!
//! Nothing here knows why a tensor is wanted: not how it is cut, nor where it is put. Who wrote a
//! file is not trusted.

mod copies;
mod derived;
mod error;
mod file;
mod fnv;
mod foreign;
mod gguf;
mod header;
mod index;
mod name;
mod near;
mod open;
mod packed;
mod regular;
mod shards;
mod shown;
mod store;
mod tensor;
mod view;

pub use copies::Copies;
pub use error::WeightsError;
pub use gguf::{Array, Kind, Metadata, RowOrder, Value, View};
pub use index::Weights;
pub use name::{NameError, plain_name};
pub use packed::{PackedRows, Packing};
pub use regular::{FileError, open_regular, read_regular};
pub(crate) use shown::Shown;
pub use store::{
    Derivation, Derive, KeepError, Made, PackOptions, Store, StoreError, WithDerived, keep,
};
pub use tensor::{FileId, TensorId, TensorInfo, WeightFile};
