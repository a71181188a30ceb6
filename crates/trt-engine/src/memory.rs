//! Where the buffers of a program lie: lifetimes for the planner, offsets from its plan.
//!
//! Inputs, outputs and intermediate results share the arena of a call. An input lives from the
//! start to its last use, an output from its first write to the end, everything else in between.
//! Constants and states have memory of their own.

use crate::Error;
use trt_alloc::{Lifetime, Value, check, largest_live, plan};
use trt_graph::program::{BufferId, BufferKind, Program, Source};
use trt_kernel::Arg;

/// Alignment of every buffer in bytes: enough for any vector access of any device.
const ALIGN: u64 = 256;

/// The arena of one class of calls.
#[derive(Clone, Debug)]
pub(crate) struct ArenaLayout {
    /// Offset and bytes of each buffer that lies in the arena.
    pub places: Vec<Option<(u64, u64)>>,
    /// Offset and bytes of each launch's working memory.
    pub scratch: Vec<Option<(u64, u64)>>,
    /// Bytes of the arena.
    pub bytes: u64,
    /// Bytes of the largest live set: no plan can be smaller.
    pub largest_live: u64,
}

/// Plans the arena of a program whose launches need so many bytes of working memory.
pub(crate) fn arena(program: &Program, scratch: &[u64], class: &str) -> Result<ArenaLayout, Error> {
    let (mut lifetimes, buffers) = lifetimes(program);
    let launches: Vec<usize> = (0..scratch.len()).filter(|i| scratch[*i] > 0).collect();
    lifetimes.extend(launches.iter().map(|&i| Lifetime {
        bytes: scratch[i].next_multiple_of(ALIGN),
        align: ALIGN,
        first: i as u32,
        last: i as u32,
        in_place_of: None,
    }));
    let plan = plan(&lifetimes);
    check(&lifetimes, &plan).map_err(|e| Error::Plan {
        class: class.into(),
        what: e.to_string(),
    })?;
    let mut places = vec![None; program.buffers.len()];
    for ((buffer, lifetime), offset) in buffers.iter().zip(&lifetimes).zip(&plan.offsets) {
        places[buffer.0 as usize] = Some((*offset, lifetime.bytes));
    }
    let mut working = vec![None; scratch.len()];
    for (i, &launch) in launches.iter().enumerate() {
        working[launch] = Some((plan.offsets[buffers.len() + i], scratch[launch]));
    }
    Ok(ArenaLayout {
        places,
        scratch: working,
        bytes: plan.peak.max(1),
        largest_live: largest_live(&lifetimes),
    })
}

fn lifetimes(program: &Program) -> (Vec<Lifetime>, Vec<BufferId>) {
    let end = program.launches.len() as u32;
    let mut spans: Vec<Option<(u32, u32)>> = vec![None; program.buffers.len()];
    for (step, launch) in program.launches.iter().enumerate() {
        let step = step as u32;
        for source in &launch.args {
            let Source::Buffer(b) = source else { continue };
            let span = spans[b.0 as usize].get_or_insert((step, step));
            span.1 = step;
        }
    }
    let mut lifetimes = Vec::new();
    let mut buffers = Vec::new();
    for (i, buffer) in program.buffers.iter().enumerate() {
        let (first, last) = match (&buffer.kind, spans[i]) {
            (BufferKind::Input(_), span) => (0, span.map_or(0, |s| s.1)),
            (BufferKind::Output(_), span) => (span.map_or(end, |s| s.0), end),
            (BufferKind::Temp, Some(span)) => span,
            (BufferKind::Temp, None) | (BufferKind::State(_) | BufferKind::Const(_), _) => continue,
        };
        let bytes = ((buffer.max_len * buffer.dtype.size()).max(1) as u64).next_multiple_of(ALIGN);
        lifetimes.push(Lifetime {
            bytes,
            align: ALIGN,
            first,
            last,
            in_place_of: None,
        });
        buffers.push(BufferId(i as u32));
    }
    for launch in &program.launches {
        for (written, read) in &launch.in_place {
            let value = |b: &BufferId| buffers.iter().position(|x| x == b);
            if let (Some(w), Some(r)) = (value(written), value(read))
                && lifetimes[r].last == lifetimes[w].first
            {
                lifetimes[w].in_place_of.get_or_insert(Value(r as u32));
            }
        }
    }
    (lifetimes, buffers)
}

/// Whether an argument of a launch is written.
pub(crate) fn is_written(program: &Program, launch: usize, arg: usize) -> bool {
    program.launches[launch]
        .kernel
        .written()
        .contains(&Arg(arg as u16))
}
