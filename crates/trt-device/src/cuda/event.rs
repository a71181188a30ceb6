//! Points in streams.

use super::driver::{Context, RawEvent};
use crate::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A point in a stream.
#[derive(Debug)]
pub(super) struct CudaEvent {
    pub raw: RawEvent,
    /// One more than the number of the stream of its latest record; 0 before the first.
    stream: AtomicU32,
}

impl CudaEvent {
    pub(super) fn new(context: &Arc<Context>) -> Result<CudaEvent, Error> {
        Ok(CudaEvent {
            raw: RawEvent::new(context)?,
            stream: AtomicU32::new(0),
        })
    }

    /// Its latest record is on the stream of this number.
    pub(super) fn recorded(&self, stream: u32) {
        self.stream.store(stream + 1, Ordering::Release);
    }

    /// The number of the stream of its latest record.
    pub(super) fn recorded_on(&self) -> Option<u32> {
        self.stream.load(Ordering::Acquire).checked_sub(1)
    }
}
