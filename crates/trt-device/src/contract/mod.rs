//! What a device is, and what is handed to one and by one.
//!
//! Nothing here names a device: what a device makes is opaque to all others, who hand it back in
//! [`Work`]. Whoever implements [`Device`], in this crate or outside of it, puts what it likes into
//! handles ([`Executable::new`], [`Event::new`], [`Graph::new`], [`Memory::new`]), opens them
//! itself, and finds out by that whether they are its own. The invariant: what is in a handle is
//! given to nobody but the device that it names.

mod device;
mod error;
mod handle;
mod launch;
mod mapping;
mod memory;
mod owned;
mod room;
mod work;

pub use device::{Device, Info, Paging, Residency};
pub use error::Error;
pub use handle::{DeviceId, Event, Executable, ExecutableInfo, Graph, Stream};
pub use launch::LaunchError;
pub use mapping::MappedFile;
pub use memory::{ALIGN, Memory, Slice};
pub use owned::OwnedStream;
pub use room::{Claim, Room};
pub use work::{Call, Tiles, Work};

pub(crate) use mapping::Changed;
pub(crate) use memory::{intact, lock};
pub(crate) use owned::Idle;
