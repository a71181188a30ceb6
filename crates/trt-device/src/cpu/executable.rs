//! Kernels on the CPU.

use crate::{Call, Error, LaunchError, Slice, Tiles};
use std::ops::Range;
use std::time::Instant;
use trt_kernel::host::{HostError, Prepared, Span, Team};
use trt_kernel::{Encoding, Kernel};

/// A kernel prepared for the CPU.
#[derive(Debug)]
pub(crate) struct HostExecutable {
    kind: &'static str,
    args: usize,
    written: Vec<usize>,
    parts: Vec<HostPart>,
    /// How many of the parts take tiles.
    streamed: usize,
}

/// A kernel, or one of a group.
#[derive(Debug)]
pub(crate) struct HostPart {
    pub(crate) prepared: Prepared,
    /// Its arguments among those of the launch.
    pub(crate) args: Range<usize>,
    /// The one of its own arguments that tiles stand for.
    pub(crate) weight: Option<usize>,
}

/// Why a launch failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// In the kernel.
    Kernel(HostError),
    /// Around it.
    Other(Error),
}

impl From<HostError> for Failure {
    fn from(source: HostError) -> Failure {
        Failure::Kernel(source)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Other(error)
    }
}

impl From<HostError> for LaunchError {
    fn from(error: HostError) -> LaunchError {
        match error {
            HostError::Kernel(source) => LaunchError::Kernel(source),
            HostError::Arguments { expected, found } => LaunchError::Arguments { expected, found },
            HostError::OutOfBounds {
                arg,
                dtype,
                first,
                last,
                bytes,
            } => LaunchError::OutOfBounds {
                arg,
                encoding: Encoding::from(dtype),
                first,
                last,
                bytes,
            },
            HostError::ReadOnly { arg } => LaunchError::ReadOnly { arg },
            HostError::Rows { start, end, n, why } => LaunchError::Rows { start, end, n, why },
            HostError::Id { id, row, entries } => LaunchError::Id { id, row, entries },
            HostError::Index { index, size } => LaunchError::Index { index, size },
            HostError::Packed { arg, unit, why } => LaunchError::Packed { arg, unit, why },
            HostError::Memory { bytes } => LaunchError::Memory { bytes },
            HostError::Panicked { message } => LaunchError::Panicked { message },
        }
    }
}

impl HostExecutable {
    pub(crate) fn new(kernel: &Kernel) -> Result<Self, Error> {
        kernel.check()?;
        let part = |(first, part): (u16, &Kernel)| -> Result<HostPart, Error> {
            let first = first as usize;
            Ok(HostPart {
                prepared: Prepared::new(part)?,
                args: first..first + part.args().len(),
                weight: part.streamed().first().map(|a| a.0 as usize),
            })
        };
        Ok(HostExecutable {
            kind: kernel.kind(),
            args: kernel.args().len(),
            written: kernel.written().iter().map(|a| a.0 as usize).collect(),
            parts: kernel
                .numbered_parts()
                .map(part)
                .collect::<Result<_, _>>()?,
            streamed: kernel.streamed().len(),
        })
    }

    /// Whether a launch may take these arguments.
    pub(crate) fn check(&self, args: &[Slice], tiles: &[Tiles]) -> Result<(), Error> {
        tiles.iter().try_for_each(Tiles::check)?;
        if !tiles.is_empty() && tiles.len() != self.streamed {
            return Err(Error::Weights {
                kernel: self.kind,
                expected: self.streamed,
                found: tiles.len(),
            });
        }
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

    /// Its kernels, in order.
    pub(crate) fn parts(&self) -> &[HostPart] {
        &self.parts
    }

    /// What a launch on a stream failed with.
    pub(crate) fn named(&self, stream: &str, failure: Failure) -> Error {
        match failure {
            Failure::Kernel(source) => Error::Launch {
                kernel: self.kind,
                stream: stream.into(),
                source: source.into(),
            },
            Failure::Other(error) => error,
        }
    }

    /// Runs the kernel and returns when it is done.
    pub(crate) fn run(&self, call: Call<'_>, team: &Team) -> Result<(), Error> {
        let start = tracing::enabled!(tracing::Level::TRACE).then(Instant::now);
        let result = self.run_parts(call, team);
        if let Some(start) = start {
            let micros = start.elapsed().as_micros() as u64;
            let (stream, kernel, env) = (call.stream, self.kind, call.env);
            let rows: Vec<_> = call.tiles.iter().map(|t| t.rows.clone()).collect();
            tracing::trace!(stream, kernel, ?rows, ?env, micros, "launch");
        }
        result.map_err(|source| self.named(call.stream, source.into()))
    }

    fn run_parts(&self, call: Call<'_>, team: &Team) -> Result<(), HostError> {
        let Call {
            env, args, tiles, ..
        } = call;
        let mut next = tiles.iter();
        for part in &self.parts {
            let mut spans: Vec<Span<'static>> = args[part.args.clone()].iter().map(span).collect();
            let Some(weight) = part.weight.filter(|_| !tiles.is_empty()) else {
                if tiles.is_empty() {
                    // SAFETY: that kernels write no byte for two elements, and that arguments
                    // share only bytes that they may, is the submitter's word (`Work::Launch`).
                    unsafe { part.prepared.run(env, None, &mut spans, team)? };
                }
                continue;
            };
            let rows = next.next().into_iter().flat_map(Tiles::each);
            for (rows, place) in rows {
                spans[weight] = span(place);
                // SAFETY: as above.
                unsafe { part.prepared.run(env, Some(rows), &mut spans, team)? };
            }
        }
        Ok(())
    }
}

/// The bytes of a slice, for a launch that ends before the slice is dropped.
fn span(slice: &Slice) -> Span<'static> {
    // SAFETY: the slice keeps `len` readable bytes alive, writable unless they are a mapping;
    // spans live only within `HostExecutable::run`, which borrows the slices. That nobody else
    // touches what the launch writes is the submitter's rule of events.
    unsafe { Span::from_raw(slice.pointer(), slice.len(), !slice.is_mapping()) }
}
