//! Work as data: what a stream can be asked to do.

use super::{Error, Event, Executable, Graph, Slice};
use std::ops::Range;
use trt_kernel::Env;
use trt_kernel::fusible::MAX_TILES;

/// Rows of a streamed weight, cut into tiles of equal height but for the last, each in memory
/// of its own. The default is no rows.
#[derive(Clone, Debug, Default)]
pub struct Tiles {
    /// The rows.
    pub rows: Range<usize>,
    /// Rows of a tile.
    pub step: usize,
    /// Where each tile's first row is; at most [`trt_kernel::fusible::MAX_TILES`].
    pub places: Vec<Slice>,
}

/// One thing to do on a stream.
#[derive(Clone, Debug)]
pub enum Work {
    /// Runs a kernel. `args` are in the kernel's order. For ranged products `tiles` may name the
    /// rows of each weight ([`Kernel::streamed`](trt_kernel::Kernel::streamed)) that the launch covers; those arguments are
    /// then not used. Of a group with tiles only the products run that have rows, and its other
    /// parts do not. A kernel's elements are computed side by side: no byte that is written for one
    /// may be read or written for another, which the submitter vouches for, as for events.
    Launch {
        /// The kernel.
        executable: Executable,
        /// Values of the runtime integers.
        env: Env,
        /// One slice per argument.
        args: Vec<Slice>,
        /// The rows of each weight, in the order of [`Kernel::streamed`](trt_kernel::Kernel::streamed); none: everything.
        tiles: Vec<Tiles>,
        /// Working memory of at least [`Executable::scratch`] bytes, if it needs any.
        scratch: Option<Slice>,
    },
    /// Submits recorded work again, with other runtime integers.
    Replay {
        /// The work.
        graph: Graph,
        /// Values of the runtime integers.
        env: Env,
    },
    /// Copies between slices of equal length on the device.
    Copy {
        /// Destination.
        dst: Slice,
        /// Source.
        src: Slice,
    },
    /// Copies mapped file bytes to device memory of equal length.
    Upload {
        /// Destination in device memory.
        dst: Slice,
        /// Source in a mapping.
        src: Slice,
    },
    /// Copies bytes of the caller to the device.
    Write {
        /// Destination, as long as `bytes`.
        dst: Slice,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Makes the pages of a mapping resident in this process, until they are discarded.
    Populate(Slice),
    /// Lets the pages of a mapping go, but for what another slice that was populated shares with
    /// them. Reading them later is slower, not wrong.
    Discard(Slice),
    /// Lets the pages in a slice of a mapping go that came along with others and that nobody
    /// populated, such as rows that a kernel gathered.
    Trim(Slice),
    /// Moves the event to this point.
    Record(Event),
    /// Holds the stream until the event's latest record is reached.
    Wait(Event),
}

/// A launch as it was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Values of the runtime integers.
    pub env: &'a Env,
    /// One slice per argument.
    pub args: &'a [Slice],
    /// As in [`Work::Launch`].
    pub tiles: &'a [Tiles],
    /// Working memory.
    pub scratch: Option<&'a Slice>,
    /// The name of the stream, for errors.
    pub stream: &'a str,
}

impl Work {
    /// What it is, e.g. `launch`.
    pub fn name(&self) -> &'static str {
        match self {
            Work::Launch { .. } => "launch",
            Work::Replay { .. } => "replay",
            Work::Copy { .. } => "copy",
            Work::Upload { .. } => "upload",
            Work::Write { .. } => "write",
            Work::Populate(_) => "populate",
            Work::Discard(_) => "discard",
            Work::Trim(_) => "trim",
            Work::Record(_) => "record",
            Work::Wait(_) => "wait",
        }
    }

    /// The same work in another call.
    pub fn with_env(&self, new: Env) -> Work {
        let mut work = self.clone();
        if let Work::Launch { env, .. } | Work::Replay { env, .. } = &mut work {
            *env = new;
        }
        work
    }

    /// The memory that it uses, but for what a graph keeps.
    pub fn slices(&self) -> impl Iterator<Item = &Slice> {
        let (some, args, tiles): ([Option<&Slice>; 2], &[Slice], &[Tiles]) = match self {
            Work::Launch {
                args,
                tiles,
                scratch,
                ..
            } => ([scratch.as_ref(), None], args, tiles),
            Work::Copy { dst, src } | Work::Upload { dst, src } => {
                ([Some(dst), Some(src)], &[], &[])
            }
            Work::Write { dst: slice, .. }
            | Work::Populate(slice)
            | Work::Discard(slice)
            | Work::Trim(slice) => ([Some(slice), None], &[], &[]),
            Work::Replay { .. } | Work::Record(_) | Work::Wait(_) => ([None; 2], &[], &[]),
        };
        let places = tiles.iter().flat_map(|t| &t.places);
        some.into_iter().flatten().chain(args).chain(places)
    }

    /// Whether it can be recorded.
    ///
    /// # Errors
    /// [`Error::NotRecordable`] if it is neither a copy nor a launch by the device itself.
    pub fn recordable(&self) -> Result<(), Error> {
        match self {
            Work::Launch { executable, .. } if executable.by_host().is_some() => {
                Err(Error::NotRecordable {
                    work: "a launch by the host",
                })
            }
            Work::Launch { .. } | Work::Copy { .. } => Ok(()),
            other => Err(Error::NotRecordable { work: other.name() }),
        }
    }
}

impl Tiles {
    /// Whether there are as many places as the rows need.
    ///
    /// # Errors
    /// [`Error::Tiles`] if there are more or fewer, or more than a launch takes.
    pub fn check(&self) -> Result<(), Error> {
        let rows = self.rows.end.saturating_sub(self.rows.start);
        let needed = rows.div_ceil(self.step.max(1));
        let found = self.places.len();
        match found == needed && found <= MAX_TILES {
            true => Ok(()),
            false => Err(Error::Tiles {
                start: self.rows.start,
                end: self.rows.end,
                step: self.step,
                needed: needed.min(MAX_TILES),
                found,
            }),
        }
    }

    /// The rows and place of each tile.
    pub fn each(&self) -> impl Iterator<Item = (Range<usize>, &Slice)> {
        let starts = self.rows.clone().step_by(self.step.max(1));
        starts.zip(&self.places).map(|(start, place)| {
            let end = start.saturating_add(self.step).min(self.rows.end);
            (start..end, place)
        })
    }
}
