//! Where the buffers of a program lie: lifetimes for the planner, offsets from its plan.
//!
//! Inputs, outputs and intermediate results share the arena of a call. An input lives from the
//! start to its last use, an output from its first write to the end, everything else in between.
//! Constants and states have memory of their own. Lives are those of the program; sizes are those
//! of the largest call where one arena serves all, else those of each call.

use crate::error::Error;
use std::collections::VecDeque;
use std::sync::Arc;
use trt_alloc::{Lifetime, Plan, Value, check, largest_live, plan};
use trt_graph::program::{BufferId, BufferKind, Program, Source};
use trt_kernel::{Arg, Dim, Env};

/// Alignment of every buffer in bytes: enough for any vector access of any device.
const ALIGN: u64 = 256;

/// The lives of what lies in the arena of one class of calls; how large each is depends on the
/// runtime integers.
#[derive(Clone, Debug)]
pub(crate) struct ArenaShape {
    class: String,
    buffers: usize,
    launches: usize,
    values: Vec<LivingValue>,
    /// For values that may take over another's bytes, that one's place among the values.
    in_place_of: Vec<Option<Value>>,
}

#[derive(Clone, Debug)]
struct LivingValue {
    occupant: Occupant,
    /// Elements in a call, and in the largest.
    len: Dim,
    max_len: usize,
    /// Bytes of an element.
    size: usize,
    first: u32,
    last: u32,
}

#[derive(Clone, Copy, Debug)]
enum Occupant {
    Buffer(usize),
    /// Working memory of a launch.
    Scratch(usize),
}

/// Where everything lies in the arena, for calls of certain lengths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ArenaLayout {
    /// Offset and bytes of each buffer that lies in the arena.
    pub places: Vec<Option<(u64, u64)>>,
    /// Offset and bytes of each launch's working memory.
    pub scratch: Vec<Option<(u64, u64)>>,
    /// Bytes of the arena.
    pub bytes: u64,
    /// Bytes of the largest live set: no plan can be smaller.
    pub largest_live: u64,
    /// The offset of each value, in the order of [`ArenaShape`].
    pub offsets: Vec<u64>,
}

impl ArenaShape {
    /// What lives when in a program whose launches need so many bytes of working memory: in a
    /// call, and in the largest call.
    pub fn new(program: &Program, scratch: &[(Dim, u64)], class: &str) -> ArenaShape {
        let mut values = buffers(program);
        let value_of = |b: &BufferId| {
            let is =
                |v: &LivingValue| matches!(v.occupant, Occupant::Buffer(i) if i == b.0 as usize);
            values.iter().position(is)
        };
        let mut in_place_of = vec![None; values.len()];
        for (written, read) in program.launches.iter().flat_map(|l| &l.in_place) {
            if let (Some(w), Some(r)) = (value_of(written), value_of(read))
                && values[r].last == values[w].first
            {
                in_place_of[w].get_or_insert(Value(r as u32));
            }
        }
        let working = scratch
            .iter()
            .enumerate()
            .filter(|(_, (_, most))| *most > 0);
        values.extend(working.map(|(launch, (bytes, most))| LivingValue {
            occupant: Occupant::Scratch(launch),
            len: bytes.clone(),
            max_len: usize::try_from(*most).unwrap_or(usize::MAX),
            size: 1,
            first: launch as u32,
            last: launch as u32,
        }));
        in_place_of.resize(values.len(), None);
        ArenaShape {
            class: class.into(),
            buffers: program.buffers.len(),
            launches: program.launches.len(),
            values,
            in_place_of,
        }
    }

    /// Bytes of the largest live set of the largest call: no plan can be smaller.
    pub fn largest_live(&self) -> u64 {
        largest_live(&self.lifetimes(&self.most()))
    }

    /// Bytes of each value in the largest call.
    fn most(&self) -> Vec<u64> {
        let most = |v: &LivingValue| bytes(v.max_len, v.size);
        self.values.iter().map(most).collect()
    }

    /// The layout that serves every call. Offsets that were planned before, perhaps for another
    /// device, are taken if they prove right.
    ///
    /// # Errors
    /// [`Error::Plan`] if the plan fails its check.
    pub fn largest(&self, offsets: Option<&[u64]>) -> Result<ArenaLayout, Error> {
        self.layout(&self.most(), offsets)
    }

    /// Bytes of each value in a call.
    fn sizes(&self, env: &Env) -> Vec<u64> {
        let size = |v: &LivingValue| bytes(v.len.size(env), v.size);
        self.values.iter().map(size).collect()
    }

    fn lifetimes(&self, sizes: &[u64]) -> Vec<Lifetime> {
        let lives = self.values.iter().zip(&self.in_place_of).zip(sizes);
        let lifetime =
            |((v, in_place_of), bytes): ((&LivingValue, &Option<Value>), &u64)| Lifetime {
                bytes: *bytes,
                align: ALIGN,
                first: v.first,
                last: v.last,
                in_place_of: *in_place_of,
            };
        lives.map(lifetime).collect()
    }

    fn layout(&self, sizes: &[u64], offsets: Option<&[u64]>) -> Result<ArenaLayout, Error> {
        let lifetimes = self.lifetimes(sizes);
        let largest_live = largest_live(&lifetimes);
        let known = offsets.and_then(|o| proven(&lifetimes, o, largest_live));
        let plan = known.unwrap_or_else(|| plan(&lifetimes));
        check(&lifetimes, &plan).map_err(|e| Error::Plan {
            class: self.class.clone(),
            what: e.to_string(),
        })?;
        let mut layout = ArenaLayout {
            places: vec![None; self.buffers],
            scratch: vec![None; self.launches],
            bytes: plan.peak.max(1),
            largest_live,
            offsets: Vec::new(),
        };
        for ((value, offset), bytes) in self.values.iter().zip(&plan.offsets).zip(sizes) {
            let place = match value.occupant {
                Occupant::Buffer(i) => &mut layout.places[i],
                Occupant::Scratch(i) => &mut layout.scratch[i],
            };
            *place = Some((*offset, *bytes));
        }
        layout.offsets = plan.offsets;
        Ok(layout)
    }
}

/// The plan with these offsets, if it is right and wastes little.
fn proven(lifetimes: &[Lifetime], offsets: &[u64], largest_live: u64) -> Option<Plan> {
    let ends = lifetimes.iter().zip(offsets);
    let ends = ends.map(|(l, offset)| offset.checked_add(l.bytes));
    let peak = ends.collect::<Option<Vec<u64>>>()?.into_iter().max();
    let plan = Plan {
        offsets: offsets.to_vec(),
        peak: peak.unwrap_or(0),
    };
    let fits = plan.peak <= largest_live.saturating_mul(2) && check(lifetimes, &plan).is_ok();
    fits.then_some(plan)
}

fn bytes(len: usize, size: usize) -> u64 {
    let bytes = len.saturating_mul(size).max(1) as u64;
    bytes.checked_next_multiple_of(ALIGN).unwrap_or(u64::MAX)
}

/// The buffers of the arena. An input lives from the start, an output to the end.
fn buffers(program: &Program) -> Vec<LivingValue> {
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
    let mut values = Vec::new();
    for (i, buffer) in program.buffers.iter().enumerate() {
        let (first, last) = match (&buffer.kind, spans[i]) {
            (BufferKind::Input(_), span) => (0, span.map_or(0, |s| s.1)),
            (BufferKind::Output(_), span) => (span.map_or(end, |s| s.0), end),
            (BufferKind::Temp, Some(span)) => span,
            (BufferKind::Temp, None) | (BufferKind::State(_) | BufferKind::Const(_), _) => continue,
        };
        values.push(LivingValue {
            occupant: Occupant::Buffer(i),
            len: buffer.len.clone(),
            max_len: buffer.max_len,
            size: buffer.dtype.size(),
            first,
            last,
        });
    }
    values
}

/// Layouts of calls of certain lengths, the latest last: most calls are as long as one shortly
/// before, and planning takes longer than launching.
#[derive(Debug, Default)]
pub(crate) struct Layouts(VecDeque<KnownLayout>);

#[derive(Debug)]
struct KnownLayout {
    program: usize,
    sizes: Vec<u64>,
    layout: Arc<ArenaLayout>,
}

/// Layouts kept at most.
const KEPT: usize = 16;

impl Layouts {
    /// The layout of a program's calls with these runtime integers.
    ///
    /// # Errors
    /// [`Error::Plan`] if the plan fails its check.
    pub fn get(
        &mut self,
        program: usize,
        shape: &ArenaShape,
        env: &Env,
    ) -> Result<Arc<ArenaLayout>, Error> {
        let sizes = shape.sizes(env);
        let same = |k: &KnownLayout| k.program == program && k.sizes == sizes;
        let known = match self
            .0
            .iter()
            .rposition(same)
            .and_then(|at| self.0.remove(at))
        {
            Some(known) => known,
            None => KnownLayout {
                program,
                layout: Arc::new(shape.layout(&sizes, None)?),
                sizes,
            },
        };
        let layout = known.layout.clone();
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(known);
        Ok(layout)
    }
}

/// Whether an argument of a launch is written.
pub(crate) fn is_written(program: &Program, launch: usize, arg: usize) -> bool {
    program.launches[launch]
        .kernel
        .written()
        .contains(&Arg(arg as u16))
}
