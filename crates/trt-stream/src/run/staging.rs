//! Where tiles that are unpacked wait for it, and the stream that unpacks them.
//!
//! The copy stream brings what is stored into one of two places, and goes on with the next
//! while a stream of its own unpacks it to where kernels read it: the link does not idle
//! meanwhile, and the compute stream has nothing to do with it. Slots and residents share the
//! two places, so that no slot has room for a tile twice.

use super::Error;
use crate::plan::{Layout, STAGES};
use trt_alloc::{Lease, Pool, Purpose};
use trt_device::{Device, Event, OwnedStream, Slice, Stream, Work};

#[derive(Debug)]
struct Stage {
    lease: Lease,
    /// Reached when what is stored is there.
    filled: Event,
    /// Reached when it was unpacked.
    emptied: Event,
}

/// The places and the stream.
#[derive(Debug)]
pub(super) struct Staging {
    stream: OwnedStream,
    stages: Vec<Stage>,
    next: usize,
}

impl Staging {
    /// Places that are large enough for any tile which is unpacked; none if no tile is.
    pub fn new(pool: &Pool, layout: &Layout) -> Result<Option<Staging>, Error> {
        let bytes = layout.tiling().stage();
        if bytes == 0 {
            return Ok(None);
        }
        let device = pool.device();
        let stage = |_| {
            Ok::<_, Error>(Stage {
                lease: pool.acquire(bytes, Purpose::Ring)?,
                filled: device.event()?,
                emptied: device.event()?,
            })
        };
        Ok(Some(Staging {
            stream: OwnedStream::new(device, "unpack")?,
            stages: (0..STAGES).map(stage).collect::<Result<_, _>>()?,
            next: 0,
        }))
    }

    /// The stream that unpacks.
    pub fn stream(&self) -> Stream {
        self.stream.id()
    }

    /// Bytes of the places.
    pub fn bytes(&self) -> u64 {
        self.stages.iter().map(|s| s.lease.bytes()).sum()
    }

    /// The place of the next tile, which stores so many bytes.
    pub fn place(&self, bytes: usize) -> Result<Slice, Error> {
        Ok(self.stages[self.next].lease.whole().slice(0..bytes)?)
    }

    /// Brings a tile to the next [`place`](Staging::place), which is `stored`, by the copy stream, and
    /// then does these works; `done` is reached after them.
    pub fn bring(
        &mut self,
        device: &dyn Device,
        copy: Stream,
        (src, stored): (Slice, Slice),
        works: Vec<Work>,
        done: Event,
    ) -> Result<(), Error> {
        let stage = &self.stages[self.next];
        self.next = (self.next + 1) % self.stages.len();
        device.submit(copy, Work::Wait(stage.emptied.clone()))?;
        if !src.is_empty() {
            device.submit(copy, Work::Upload { dst: stored, src })?;
        }
        device.submit(copy, Work::Record(stage.filled.clone()))?;
        let stream = self.stream.id();
        device.submit(stream, Work::Wait(stage.filled.clone()))?;
        for work in works {
            device.submit(stream, work)?;
        }
        for event in [&stage.emptied, &done] {
            device.submit(stream, Work::Record(event.clone()))?;
        }
        Ok(())
    }
}
