//! Kernels on the CPU.

use super::event::Timeline;
use crate::device::Tiles;
use crate::{Error, Slice};
use std::ops::Range;
use std::time::Instant;
use trt_kernel::host::{HostError, Prepared, Span, Team};
use trt_kernel::{Env, Kernel};

/// A kernel prepared for the CPU.
#[derive(Debug)]
pub(crate) struct HostExecutable {
    prepared: Prepared,
    kind: &'static str,
    args: usize,
    written: Vec<usize>,
    /// The argument that tiles stand for.
    weight: Option<usize>,
}

impl HostExecutable {
    pub(crate) fn new(kernel: &Kernel) -> Result<Self, Error> {
        Ok(HostExecutable {
            prepared: Prepared::new(kernel)?,
            kind: kernel.kind(),
            args: kernel.args().len(),
            written: kernel.written().iter().map(|a| a.0 as usize).collect(),
            weight: kernel.streamed().map(|a| a.0 as usize),
        })
    }

    /// Whether a launch may take these arguments.
    pub(crate) fn check(&self, args: &[Slice], tiles: Option<&Tiles>) -> Result<(), Error> {
        tiles.map_or(Ok(()), Tiles::check)?;
        if args.len() != self.args {
            return Err(Error::Args {
                kernel: self.kind,
                expected: self.args,
                found: args.len(),
            });
        }
        let read_only = |i: &&usize| args.get(**i).is_some_and(Slice::is_mapping);
        match self.written.iter().find(read_only) {
            None => Ok(()),
            Some(i) => Err(Error::ReadOnly {
                work: format!("a {} kernel, to argument a{i},", self.kind),
            }),
        }
    }

    /// The argument that tiles stand for.
    pub(crate) fn weight(&self) -> Option<usize> {
        self.weight
    }

    /// The arguments that a launch writes.
    pub(crate) fn written(&self) -> &[usize] {
        &self.written
    }

    /// Runs the kernel on these bytes, or on a range of its weight's rows.
    pub(crate) fn launch(
        &self,
        env: &Env,
        rows: Option<Range<usize>>,
        spans: &[Span<'_>],
        team: &Team,
    ) -> Result<(), HostError> {
        self.prepared.run(env, rows, spans, team)
    }

    /// The error of a launch on a stream.
    pub(crate) fn failed(&self, stream: &str, source: HostError) -> Error {
        Error::Launch {
            kernel: self.kind,
            stream: stream.into(),
            source,
        }
    }

    /// Runs the kernel and returns when it is done.
    pub(super) fn run(
        &self,
        env: &Env,
        args: &[Slice],
        tiles: Option<&Tiles>,
        team: &Team,
        timeline: &Timeline,
    ) -> Result<(), Error> {
        let start = tracing::enabled!(tracing::Level::TRACE).then(Instant::now);
        let mut spans: Vec<Span<'static>> = args.iter().map(span).collect();
        let result = match (tiles, self.weight) {
            (None, _) => self.prepared.run(env, None, &spans, team),
            (Some(tiles), Some(weight)) => tiles.each().try_for_each(|(rows, place)| {
                spans[weight] = span(place);
                self.prepared.run(env, Some(rows), &spans, team)
            }),
            // Refused by the kernel, which has no rows.
            (Some(tiles), None) => {
                let rows = Some(tiles.rows.clone());
                self.prepared.run(env, rows, &spans, team)
            }
        };
        if let Some(start) = start {
            let micros = start.elapsed().as_micros() as u64;
            let (stream, kernel) = (timeline.name.as_str(), self.kind);
            let rows = tiles.map(|t| t.rows.clone());
            tracing::trace!(stream, kernel, ?rows, ?env, micros, "launch");
        }
        result.map_err(|source| self.failed(&timeline.name, source))
    }
}

/// The bytes of a slice, for a launch that ends before the slice is dropped.
fn span(slice: &Slice) -> Span<'static> {
    // SAFETY: the slice keeps `len` readable bytes alive, writable unless they are a mapping;
    // spans live only within `HostExecutable::run`, which borrows the slices. That nobody else
    // touches what the launch writes is the submitter's rule of events.
    unsafe { Span::from_raw(slice.pointer(), slice.len(), !slice.is_mapping()) }
}
