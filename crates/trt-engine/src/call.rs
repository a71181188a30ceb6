//! One call: bind the arguments of every launch and submit them in order.
//!
//! Nothing here waits for the device. Streamed weights come from the pass, which orders their
//! arrival before the launch by events. Where all weights are on the device and the arena stays,
//! a call that comes again is recorded and from then on replayed.

use crate::Error;
use crate::engine::{ArgUse, Compiled, Inner, Run};
use crate::memory::ArenaLayout;
use crate::pressure::Failed;
use crate::recorded::Key;
use std::cell::Cell;
use trt_alloc::{Arena, Hold};
use trt_device::{Slice, Tiles, Work};
use trt_graph::program::BufferKind;
use trt_kernel::{Env, Role};
use trt_stream::{Pass, ProgramId};

/// The arena of one call, and where everything lies in it.
struct Laid<'a> {
    arena: &'a Arena,
    layout: &'a ArenaLayout,
    /// Whether a launch of the call was submitted.
    launched: &'a Cell<bool>,
}

impl Laid<'_> {
    fn part(&self, place: Option<(u64, u64)>) -> Result<Option<Slice>, Error> {
        let slice = |(offset, bytes)| self.arena.slice(offset, bytes);
        Ok(place.map(slice).transpose()?)
    }
}

/// The memory behind a program's buffers in one call. A call that is replayed looks only at its
/// inputs and outputs, so each is found when it is asked for.
struct Buffers<'a> {
    inner: &'a Inner,
    index: usize,
    arena: &'a Laid<'a>,
    states: &'a [Slice],
}

impl Buffers<'_> {
    fn get(&self, i: usize) -> Result<Slice, Error> {
        let buffers = &self.inner.programs[self.index].program.buffers;
        let found = match &buffers.get(i).map(|b| &b.kind) {
            Some(BufferKind::Input(_) | BufferKind::Output(_) | BufferKind::Temp) => {
                self.arena.part(self.arena.layout.places[i])?
            }
            Some(BufferKind::State(s)) => self.states.get(*s).cloned(),
            Some(BufferKind::Const(_)) => {
                let constant = self.inner.constants[self.index][i].as_ref();
                constant.map(|l| l.whole())
            }
            None => None,
        };
        found.ok_or_else(|| Error::lower(format!("buffer b{i} has no memory")))
    }
}

/// Runs a program and reads its outputs. `inputs` are the bytes of each input. Where the device has
/// no memory for the call, resident weights make room.
pub(crate) fn call(
    inner: &Inner,
    run: &mut Run,
    index: usize,
    env: Env,
    inputs: Vec<Vec<u8>>,
    states: &[Slice],
) -> Result<Vec<Vec<u8>>, Error> {
    inner.giving_way(run, |run| {
        let launched = Cell::new(false);
        let result = attempt(inner, run, index, env, &inputs, states, &launched);
        // What was launched may have changed states: such a call is not made again.
        result.map_err(|error| match launched.get() {
            true => Failed::For(error),
            false => Failed::Yet(error),
        })
    })
}

fn attempt(
    inner: &Inner,
    run: &mut Run,
    index: usize,
    env: Env,
    inputs: &[Vec<u8>],
    states: &[Slice],
    launched: &Cell<bool>,
) -> Result<Vec<Vec<u8>>, Error> {
    let p = &inner.programs[index];
    let layout = match run.seat.hold() {
        Hold::Member => p.arena.clone(),
        Hold::Call => run.layouts.get(index, &p.shape, &env)?,
    };
    let loan = run.seat.begin(layout.bytes, inner.compute.id())?;
    let laid = Laid {
        arena: loan.arena()?,
        layout: &layout,
        launched,
    };
    let result = submit(inner, run, index, env, inputs, states, &laid);
    if result.is_err() {
        // Works that were submitted are waited for; their errors are those of this call.
        run.streamer
            .reset()
            .iter()
            .for_each(|e| tracing::debug!("while recovering: {e}"));
        // What was recorded may read rows where they were before the error.
        run.recorded.forget(None);
    }
    result
}

fn submit(
    inner: &Inner,
    run: &mut Run,
    index: usize,
    env: Env,
    inputs: &[Vec<u8>],
    states: &[Slice],
    arena: &Laid<'_>,
) -> Result<Vec<Vec<u8>>, Error> {
    let p = &inner.programs[index];
    let buffers = Buffers {
        inner,
        index,
        arena,
        states,
    };
    for (i, bytes) in inputs.iter().enumerate() {
        // Inputs come first among a program's buffers.
        let place = buffers.get(i)?;
        let dst = part(&place, bytes.len())?;
        let bytes = bytes.clone();
        inner
            .device
            .submit(inner.compute.id(), Work::Write { dst, bytes })?;
    }
    launch_all(inner, run, index, env, &buffers, states, arena)?;
    let first = p.program.inputs.len();
    let mut outputs = Vec::with_capacity(p.program.outputs.len());
    for (o, (shape, dtype)) in p.program.outputs.iter().enumerate() {
        let len = shape.iter().map(|d| d.size(&env)).product::<usize>() * dtype.size();
        let mut bytes = vec![0; len];
        let src = part(&buffers.get(first + o)?, len)?;
        inner.device.read(inner.compute.id(), &src, &mut bytes)?;
        outputs.push(bytes);
    }
    if outputs.is_empty() {
        inner.device.synchronize(inner.compute.id())?;
    }
    // What is left of a file that was cut meanwhile may have been read with zeros after it.
    run.streamer.intact()?;
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
    buffers: &Buffers<'_>,
    states: &[Slice],
    arena: &Laid<'_>,
) -> Result<(), Error> {
    let p = &inner.programs[index];
    let id = ProgramId(index as u32);
    let generation = run.streamer.settled(id)?;
    let submit = |work| {
        arena.launched.set(true);
        Ok(inner.device.submit(inner.compute.id(), work)?)
    };
    // What the host computes for a device cannot be recorded.
    let by_host = p.executables.iter().any(|e| e.by_host().is_some());
    let records = run.recorded.enabled() && run.seat.hold() == Hold::Member && !by_host;
    let Some(generation) = generation.filter(|_| records) else {
        let mut pass = run.streamer.begin(id)?;
        for launch in 0..p.program.launches.len() {
            let maker = Maker::new(p, launch, env, buffers, arena, &pass)?;
            each_work(&maker, &mut pass, false, &mut &submit)?;
        }
        return Ok(pass.finish()?);
    };
    let places = states.iter().map(|s| s.address());
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
                let maker = Maker::new(p, launch, env, buffers, arena, &pass)?;
                each_work(&maker, &mut pass, true, &mut |work| {
                    works.push(work);
                    Ok(())
                })?;
            }
            pass.finish()?;
            if !run.recorded.due(&key) {
                return works.into_iter().try_for_each(submit);
            }
            match inner.device.record(works.clone()) {
                Ok(graph) => {
                    run.recorded.keep(key, graph.clone());
                    graph
                }
                // The works themselves may still be done; a device that is lost says so again.
                Err(why) => {
                    tracing::warn!(%why, "a call is not recorded");
                    run.recorded.refuse(&key);
                    return works.into_iter().try_for_each(submit);
                }
            }
        }
    };
    submit(Work::Replay { graph, env })
}

/// One launch of a call, with what it is made of.
struct Maker<'a> {
    p: &'a Compiled,
    launch: usize,
    env: Env,
    /// Its arguments but for the streamed weights.
    args: Vec<Option<Slice>>,
    scratch: Option<Slice>,
}

impl Maker<'_> {
    fn new<'a>(
        p: &'a Compiled,
        launch: usize,
        env: Env,
        buffers: &Buffers<'_>,
        arena: &Laid<'_>,
        pass: &Pass<'_>,
    ) -> Result<Maker<'a>, Error> {
        let mut args: Vec<Option<Slice>> = Vec::with_capacity(p.uses[launch].len());
        for used in &p.uses[launch] {
            args.push(match used {
                ArgUse::Buffer(b) => Some(buffers.get(b.0 as usize)?),
                ArgUse::Weight(_, Role::Rows) => None,
                ArgUse::Weight(w, Role::Table) => Some(pass.mapped(p.weights[w.0 as usize])?),
                ArgUse::Weight(w, Role::Whole) => Some(pass.pinned(p.weights[w.0 as usize])?),
            });
        }
        let scratch = arena.part(arena.layout.scratch[launch])?;
        Ok(Maker {
            p,
            launch,
            env,
            args,
            scratch,
        })
    }

    /// Streamed weights of the launch.
    fn streamed(&self) -> usize {
        self.args.iter().filter(|a| a.is_none()).count()
    }

    /// The launch on these rows of its weights.
    fn work(&self, tiles: Vec<Tiles>) -> Work {
        // With tiles the weights' own arguments are not used, but there must be some.
        let any = tiles.iter().find_map(|t| t.places.first());
        let bound = self.args.iter().map(|a| a.as_ref().or(any).cloned());
        Work::Launch {
            executable: self.p.executables[self.launch].clone(),
            env: self.env,
            args: bound.flatten().collect(),
            tiles,
            scratch: self.scratch.clone(),
        }
    }
}

/// Hands the works of one launch to `take`, in the order in which weights arrive. Where all of them
/// are `settled`, or just these stay on the device, what fits one launch is one.
fn each_work(
    maker: &Maker<'_>,
    pass: &mut Pass<'_>,
    settled: bool,
    take: &mut dyn FnMut(Work) -> Result<(), Error>,
) -> Result<(), Error> {
    let streamed = maker.streamed();
    if streamed == 0 {
        return take(maker.work(Vec::new()));
    }
    let only = |which: usize, tiles: Tiles| {
        let mut all = vec![Tiles::default(); streamed];
        all[which] = tiles;
        maker.work(all)
    };
    if streamed == 1 || !(settled || pass.stay(streamed)) {
        return (0..streamed).try_for_each(|which| pass.next_use(|tiles| take(only(which, tiles))));
    }
    let mut runs: Vec<Vec<Tiles>> = vec![Vec::new(); streamed];
    for run in &mut runs {
        pass.next_use(|tiles| -> Result<(), Error> {
            run.push(tiles);
            Ok(())
        })?;
    }
    if runs.iter().all(|r| r.len() == 1) {
        return take(maker.work(runs.into_iter().flatten().collect()));
    }
    let each = runs.into_iter().enumerate();
    each.flat_map(|(which, run)| run.into_iter().map(move |tiles| (which, tiles)))
        .try_for_each(|(which, tiles)| take(only(which, tiles)))
}
