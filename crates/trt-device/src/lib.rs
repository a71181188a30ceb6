//! Where programs run: memory, streams, events and kernel launches behind one trait.
//!
//! A [`Device`] takes [`Work`] on ordered [`Stream`]s. Work is data: launches, copies, page
//! residency, event records and waits. Everything submitted to one stream happens in order;
//! order between streams comes only from events. Memory is reference counted: a [`Slice`] in
//! submitted work keeps its [`Memory`] alive, so nothing is freed under a running kernel.
//! What two streams do to the same bytes is ordered by the events that the submitter places:
//! that is the one rule callers must keep.

mod device;
mod error;
mod host;
mod memory;

pub use device::{Device, Event, Executable, Info, Residency, Stream, Work};
pub use error::Error;
pub use host::{Host, HostMode};
pub use memory::{Memory, Slice};
