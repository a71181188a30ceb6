//! A kernel that the host computes for a device which has none for it.
//!
//! What the kernel may touch is brought to the host, the host's back end computes on it, and what
//! the kernel writes goes back. It is work of its stream like any other: whoever runs it has
//! done everything before it, and does nothing after it until it returns. The bytes brought are
//! those that the device's own kernel would read, so weights stream and count as for any launch.
//! Correct, and slow: each launch costs the way of its arguments over the link, twice for what is
//! written.
//!
//! A device decides when it loads a kernel ([`HostFallback::new`] with the reason), and says how bytes
//! travel by a
//! [`Ferry`].

use super::executable::{Failure, HostExecutable, HostPart};
use crate::{Call, Device, Error, ExecutableInfo, Slice, Stream, Tiles, Work};
use std::ops::Range;
use trt_kernel::Kernel;
use trt_kernel::host::{Span, Team};

/// How bytes travel between a device and the host. What was brought is there when that returns;
/// what was taken need only be there for what the stream does next.
pub trait Ferry {
    /// Copies device memory to the host; lengths are equal.
    ///
    /// # Errors
    /// What the device says to it.
    fn bring(&self, dst: &mut [u8], src: &Slice) -> Result<(), Error>;

    /// Copies bytes of the host to device memory; lengths are equal.
    ///
    /// # Errors
    /// What the device says to it.
    fn take(&self, dst: &Slice, src: &[u8]) -> Result<(), Error>;
}

/// The way over a stream of any device: reads wait for what comes before, writes are in order.
pub struct OverStream<'a, D: Device + ?Sized> {
    /// The device.
    pub device: &'a D,
    /// The stream of the launch.
    pub stream: Stream,
}

impl<D: Device + ?Sized> Ferry for OverStream<'_, D> {
    fn bring(&self, dst: &mut [u8], src: &Slice) -> Result<(), Error> {
        self.device.read(self.stream, src, dst)
    }

    fn take(&self, dst: &Slice, src: &[u8]) -> Result<(), Error> {
        let (dst, bytes) = (dst.clone(), src.to_vec());
        self.device.submit(self.stream, Work::Write { dst, bytes })
    }
}

/// A kernel prepared for the host on behalf of another device.
#[derive(Debug)]
pub struct HostFallback {
    own: HostExecutable,
    why: String,
}

/// Device memory that some arguments lie in, on the host. Arguments that share bytes there share
/// them here.
struct Staged {
    cover: Slice,
    bytes: Vec<u8>,
}

impl HostFallback {
    /// Prepares a kernel; `why` says what the device lacks.
    ///
    /// # Errors
    /// [`Error::Kernel`] if the host cannot run it either.
    pub fn new(kernel: &Kernel, why: String) -> Result<HostFallback, Error> {
        let own = HostExecutable::new(kernel)?;
        Ok(HostFallback { own, why })
    }

    /// What the device says of the executable: no code, no working memory, and why.
    pub fn info(&self) -> ExecutableInfo {
        ExecutableInfo {
            by_host: Some(self.why.clone()),
            ..ExecutableInfo::default()
        }
    }

    /// Whether a launch may take these arguments.
    ///
    /// # Errors
    /// Another number of arguments or of weights with tiles than the kernel has, tiles that do not
    /// fit their rows, and a mapping where the kernel writes.
    pub fn check(&self, args: &[Slice], tiles: &[Tiles]) -> Result<(), Error> {
        self.own.check(args, tiles)
    }

    /// Runs the kernel and returns when its results are on their way back.
    ///
    /// # Errors
    /// What [`HostFallback::check`] finds, [`Error::Launch`] for what the kernel finds, and errors
    /// of the ferry.
    pub fn run(&self, call: Call<'_>, team: &Team, ferry: &impl Ferry) -> Result<(), Error> {
        let Call {
            args,
            tiles,
            stream,
            ..
        } = call;
        self.check(args, tiles)?;
        let mut next = tiles.iter();
        for part in self.own.parts() {
            let own = &args[part.args.clone()];
            let rows = part.weight.and_then(|_| next.next());
            // With tiles, only products that have rows run.
            let runs = rows.map_or(tiles.is_empty(), |t| !t.rows.is_empty());
            if runs {
                let call = Call {
                    args: own,
                    tiles: rows.map_or(&[], std::slice::from_ref),
                    ..call
                };
                let ran = self.run_part(part, call, team, ferry);
                ran.map_err(|e| self.own.named(stream, e))?;
            }
        }
        tracing::trace!(stream, why = self.why, "launch by the host");
        Ok(())
    }

    /// Runs a part, on its own arguments, and on the tiles of its own weight if it has some.
    fn run_part(
        &self,
        part: &HostPart,
        call: Call<'_>,
        team: &Team,
        ferry: &impl Ferry,
    ) -> Result<(), Failure> {
        let (env, args, tiles) = (call.env, call.args, call.tiles.first());
        // The argument that tiles stand for is not read.
        let tiled = tiles.and(part.weight);
        let read = (0..args.len()).filter(|i| Some(*i) != tiled);
        let mut staged = stage(read.clone().map(|i| &args[i]), ferry)?;
        let empty = |_| Span::from_slice::<u8>(&[]);
        let mut spans: Vec<Span<'_>> = (0..args.len()).map(empty).collect();
        for i in read {
            spans[i] = span(&args[i], &mut staged);
        }
        match (tiles, tiled) {
            (Some(tiles), Some(weight)) => {
                for (rows, place) in tiles.each() {
                    let mut tile = stage([place].into_iter(), ferry)?;
                    spans[weight] = span(place, &mut tile);
                    // SAFETY: that kernels write no byte for two elements, and that arguments
                    // share only bytes that they may, is the submitter's word (`Work::Launch`).
                    unsafe { part.prepared.run(env, Some(rows), &mut spans, team)? };
                }
            }
            // SAFETY: as above.
            _ => unsafe { part.prepared.run(env, None, &mut spans, team)? },
        }
        for arg in part.prepared.kernel().written() {
            let slice = args.get(arg.0 as usize);
            if let Some((slice, bytes)) = slice.and_then(|s| Some((s, found(s, &staged)?))) {
                ferry.take(slice, bytes)?;
            }
        }
        Ok(())
    }
}

/// Brings everything that these slices cover, but for mappings, which the host reads in place.
fn stage<'a>(
    slices: impl Iterator<Item = &'a Slice>,
    ferry: &impl Ferry,
) -> Result<Vec<Staged>, Error> {
    let mut covers: Vec<Slice> = slices.filter(|s| !s.is_mapping()).cloned().collect();
    covers.sort_by_key(|s| (s.address(), s.len()));
    let mut merged: Vec<Slice> = Vec::with_capacity(covers.len());
    for next in covers {
        match merged.last_mut() {
            // Addresses that meet are of one memory.
            Some(last) if next.address() < last.address() + last.len() as u64 => {
                let end = (last.offset() + last.len()).max(next.offset() + next.len());
                *last = last.memory().whole().slice(last.offset()..end)?;
            }
            _ => merged.push(next),
        }
    }
    let bring = |cover: Slice| {
        let mut bytes = vec![0; cover.len()];
        ferry.bring(&mut bytes, &cover)?;
        Ok(Staged { cover, bytes })
    };
    merged.into_iter().map(bring).collect()
}

/// Where a slice lies in what covers it.
fn range(slice: &Slice, cover: &Slice) -> Option<Range<usize>> {
    let start = usize::try_from(slice.address().checked_sub(cover.address())?).ok()?;
    let end = start.checked_add(slice.len())?;
    (end <= cover.len()).then_some(start..end)
}

/// The bytes of a slice on the host, to be read.
fn found<'a>(slice: &Slice, staged: &'a [Staged]) -> Option<&'a [u8]> {
    let covers = staged.iter();
    covers
        .filter_map(|s| s.bytes.get(range(slice, &s.cover)?))
        .next()
}

/// The bytes of a slice on the host, for a launch that ends before they go.
fn span(slice: &Slice, staged: &mut [Staged]) -> Span<'static> {
    if let Some(mapped) = slice.mapped() {
        let start = mapped.as_ptr().cast_mut();
        // SAFETY: the mapping is readable for its length while the slice lives, which the caller
        // of `run` holds; a span that is not writable is never written.
        return unsafe { Span::from_raw(start, mapped.len(), false) };
    }
    let place = staged
        .iter_mut()
        .find_map(|s| Some((range(slice, &s.cover)?, s)));
    let Some((range, staged)) = place else {
        // Everything that is not a mapping was staged; what is not cannot be touched.
        return Span::from_slice::<u8>(&[]);
    };
    let start = staged.bytes.as_mut_ptr().wrapping_add(range.start);
    // SAFETY: the range lies in the staged bytes, which `run` keeps, unmoved and untouched by
    // anyone else, until the launches on them have returned.
    unsafe { Span::from_raw(start, range.len(), true) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DeviceId, Memory};

    struct Copies;

    impl Ferry for Copies {
        fn bring(&self, dst: &mut [u8], src: &Slice) -> Result<(), Error> {
            dst.iter_mut()
                .zip(src.offset()..)
                .for_each(|(d, at)| *d = at as u8);
            Ok(())
        }

        fn take(&self, _: &Slice, _: &[u8]) -> Result<(), Error> {
            Ok(())
        }
    }

    #[test]
    fn slices_that_share_bytes_share_them_on_the_host() {
        let memory = Memory::new(DeviceId::unique(), 0x1000 as *mut u8, 100, ()).whole();
        let slices = [10..30, 20..40, 50..60, 40..50, 10..30].map(|r| memory.slice(r).unwrap());
        let staged = stage(slices.iter(), &Copies).unwrap();
        let covers: Vec<_> = staged
            .iter()
            .map(|s| (s.cover.offset(), s.bytes.len()))
            .collect();
        assert_eq!(covers, [(10, 30), (40, 10), (50, 10)]);
        assert_eq!(found(&slices[1], &staged).unwrap()[..3], [20, 21, 22]);
        assert_eq!(found(&slices[2], &staged).unwrap().len(), 10);
        assert!(found(&memory, &staged).is_none());
    }
}
