//! One call: bind the arguments of every launch and submit them in order.
//!
//! Nothing here waits for the device. Streamed weights come from the pass, which orders their
//! arrival before the launch by events. Where all weights are on the device and the arena stays,
//! a call that comes again is recorded and from then on replayed.

use crate::Error;
use crate::engine::{Compiled, Inner, Run, WeightUse};
use crate::memory::ArenaLayout;
use crate::recorded::Key;
use std::sync::Arc;
use trt_alloc::{Arena, Hold, Lease};
use trt_device::{Slice, Work};
use trt_graph::program::BufferKind;
use trt_kernel::Env;
use trt_stream::{Pass, ProgramId};

/// The arena of one call, and where everything lies in it.
struct Laid<'a> {
    arena: &'a Arena,
    layout: &'a ArenaLayout,
}

impl Laid<'_> {
    fn part(&self, place: Option<(u64, u64)>) -> Result<Option<Slice>, Error> {
        let slice = |(offset, bytes)| self.arena.slice(offset, bytes);
        Ok(place.map(slice).transpose()?)
    }
}

/// The memory behind a program's buffers in one call.
struct Buffers(Vec<Option<Slice>>);

impl Buffers {
    fn bind(
        inner: &Inner,
        index: usize,
        arena: &Laid<'_>,
        states: &[Arc<Lease>],
    ) -> Result<Buffers, Error> {
        let p = &inner.programs[index];
        let mut slices = Vec::with_capacity(p.program.buffers.len());
        for (i, buffer) in p.program.buffers.iter().enumerate() {
            slices.push(match &buffer.kind {
                BufferKind::Input(_) | BufferKind::Output(_) | BufferKind::Temp => {
                    arena.part(arena.layout.places[i])?
                }
                BufferKind::State(s) => states.get(*s).map(|l| l.whole()),
                BufferKind::Const(_) => inner.constants[index][i].as_ref().map(|l| l.whole()),
            });
        }
        Ok(Buffers(slices))
    }

    fn get(&self, i: usize) -> Result<&Slice, Error> {
        let missing = || Error::lower(format!("buffer b{i} has no memory"));
        self.0.get(i).and_then(Option::as_ref).ok_or_else(missing)
    }
}

/// Runs a program and reads its outputs. `inputs` are the bytes of each input.
pub(crate) fn call(
    inner: &Inner,
    run: &mut Run,
    index: usize,
    env: Env,
    inputs: Vec<Vec<u8>>,
    states: &[Arc<Lease>],
) -> Result<Vec<Vec<u8>>, Error> {
    let p = &inner.programs[index];
    let layout = match run.seat.hold() {
        Hold::Member => p.arena.clone(),
        Hold::Call => run.layouts.get(index, &p.shape, &env)?,
    };
    let loan = run.seat.begin(layout.bytes, inner.compute)?;
    let laid = Laid {
        arena: loan.arena()?,
        layout: &layout,
    };
    let result = submit(inner, run, index, env, inputs, states, &laid);
    if result.is_err() {
        // Works that were submitted are waited for; their errors are those of this call.
        run.streamer
            .reset()
            .iter()
            .for_each(|e| tracing::debug!("while recovering: {e}"));
    }
    result
}

fn submit(
    inner: &Inner,
    run: &mut Run,
    index: usize,
    env: Env,
    inputs: Vec<Vec<u8>>,
    states: &[Arc<Lease>],
    arena: &Laid<'_>,
) -> Result<Vec<Vec<u8>>, Error> {
    let p = &inner.programs[index];
    let buffers = Buffers::bind(inner, index, arena, states)?;
    for (i, bytes) in inputs.into_iter().enumerate() {
        // Inputs come first among a program's buffers.
        let place = buffers.get(i)?;
        let dst = part(place, bytes.len())?;
        inner
            .device
            .submit(inner.compute, Work::Write { dst, bytes })?;
    }
    launch_all(inner, run, index, env, &buffers, states, arena)?;
    let first = p.program.inputs.len();
    let mut outputs = Vec::with_capacity(p.program.outputs.len());
    for (o, (shape, dtype)) in p.program.outputs.iter().enumerate() {
        let len = shape.iter().map(|d| d.size(&env)).product::<usize>() * dtype.size();
        let mut bytes = vec![0; len];
        let src = part(buffers.get(first + o)?, len)?;
        inner.device.read(inner.compute, &src, &mut bytes)?;
        outputs.push(bytes);
    }
    if outputs.is_empty() {
        inner.device.synchronize(inner.compute)?;
    }
    Ok(outputs)
}

fn part(slice: &Slice, len: usize) -> Result<Slice, Error> {
    Ok(slice.slice(0..len)?)
}

/// Submits all launches: again if the call was recorded, else one by one.
fn launch_all(
    inner: &Inner,
    run: &mut Run,
    index: usize,
    env: Env,
    buffers: &Buffers,
    states: &[Arc<Lease>],
    arena: &Laid<'_>,
) -> Result<(), Error> {
    let p = &inner.programs[index];
    let id = ProgramId(index as u32);
    let generation = run.streamer.settled(id)?;
    let submit = |work| Ok(inner.device.submit(inner.compute, work)?);
    // What the host computes for a device cannot be recorded.
    let by_host = p.executables.iter().any(|e| e.by_host().is_some());
    let records = run.recorded.enabled() && run.seat.hold() == Hold::Member && !by_host;
    let Some(generation) = generation.filter(|_| records) else {
        let mut pass = run.streamer.begin(id)?;
        for launch in 0..p.program.launches.len() {
            each_work(p, launch, env, buffers, arena, &mut pass, &mut &submit)?;
        }
        return Ok(pass.finish()?);
    };
    let places = states.iter().map(|s| s.whole().address());
    let key = Key {
        program: index,
        generation,
        memory: places.chain([arena.arena.slice(0, 0)?.address()]).collect(),
        shape: p.shape_vars.iter().map(|v| env.get(*v)).collect(),
    };
    let graph = match run.recorded.get(&key) {
        Some(graph) => graph,
        None => {
            let mut works = Vec::with_capacity(p.program.launches.len());
            let mut pass = run.streamer.begin(id)?;
            for launch in 0..p.program.launches.len() {
                each_work(p, launch, env, buffers, arena, &mut pass, &mut |work| {
                    works.push(work);
                    Ok(())
                })?;
            }
            pass.finish()?;
            if !run.recorded.due(&key) {
                return works.into_iter().try_for_each(submit);
            }
            let graph = inner.device.record(works)?;
            run.recorded.keep(key, graph.clone());
            graph
        }
    };
    submit(Work::Replay { graph, env })
}

/// Hands the works of one launch to `take`.
fn each_work(
    p: &Compiled,
    launch: usize,
    env: Env,
    buffers: &Buffers,
    arena: &Laid<'_>,
    pass: &mut Pass<'_>,
    take: &mut dyn FnMut(Work) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut args: Vec<Option<Slice>> = Vec::with_capacity(p.uses[launch].len());
    for used in &p.uses[launch] {
        args.push(match used {
            WeightUse::Buffer(b) => Some(buffers.get(b.0 as usize)?.clone()),
            WeightUse::Rows(w) => Some(pass.mapped(p.weights[w.0 as usize])?),
            WeightUse::Whole(w) => Some(pass.pinned(p.weights[w.0 as usize])?),
            WeightUse::Ranged => None,
        });
    }
    let scratch = arena.part(arena.layout.scratch[launch])?;
    let work = |args, tiles| Work::Launch {
        executable: p.executables[launch].clone(),
        env,
        args,
        tiles,
        scratch: scratch.clone(),
    };
    if args.iter().all(Option::is_some) {
        return take(work(args.into_iter().flatten().collect(), None));
    }
    pass.next_use(|tiles| {
        // A launch covers at least one tile.
        let first = tiles.places.first();
        let bound = args.iter().map(|a| a.as_ref().or(first).cloned());
        take(work(bound.flatten().collect(), Some(tiles)))
    })
}
