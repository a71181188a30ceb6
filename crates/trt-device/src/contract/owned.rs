//! Streams that have an owner: when it goes, the stream serves the next who asks for one.

use super::{Device, Error, Stream};
use std::fmt;
use std::sync::Arc;

/// A stream that goes back to its device when this is dropped. What was submitted is still done,
/// but errors of it are not told to anyone.
pub struct OwnedStream {
    device: Arc<dyn Device>,
    stream: Stream,
}

impl OwnedStream {
    /// A stream of the device that nobody else uses; `name` appears in logs.
    ///
    /// # Errors
    /// What [`Device::stream`] fails with.
    pub fn new(device: &Arc<dyn Device>, name: &str) -> Result<OwnedStream, Error> {
        Ok(OwnedStream {
            stream: device.stream(name)?,
            device: device.clone(),
        })
    }

    /// The stream, to be used as long as this lives.
    pub fn id(&self) -> Stream {
        self.stream
    }
}

impl Drop for OwnedStream {
    fn drop(&mut self) {
        self.device.retire(self.stream);
    }
}

impl fmt::Debug for OwnedStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.stream)
    }
}

/// Streams of a device that nobody uses.
#[derive(Debug, Default)]
pub(crate) struct Idle(Vec<Stream>);

impl Idle {
    /// Takes a stream back, once.
    pub fn put(&mut self, stream: Stream) {
        if !self.0.contains(&stream) {
            self.0.push(stream);
        }
    }

    /// One of them, if there is any.
    pub fn take(&mut self) -> Option<Stream> {
        self.0.pop()
    }
}
