//! One call: bind the arguments of every launch and submit them in order.
//!
//! Nothing here waits for the device. Streamed weights come from the pass, which orders their
//! arrival before the launch by events. Where all weights are on the device and the arena stays,
//! a call that comes again is recorded and from then on replayed.

use super::arena::ArenaLayout;
use super::change::{Key, Run};
use super::engine::Core;
use super::pressure::Failed;
use super::program::{ArgUse, Compiled, LoadedLaunch};
use crate::error::Error;
use std::cell::Cell;
use trt_alloc::{Arena, Hold};
use trt_device::{Graph, Slice, Tiles, Work};
use trt_graph::program::BufferKind;
use trt_kernel::{Encoding, Env, Role};
use trt_stream::{Pass, ProgramId};

/// What a call is of, the same in every attempt to make it.
pub(crate) struct CallContext<'a> {
    pub core: &'a Core,
    /// The class of the call, which has the program of this number.
    pub class: usize,
    /// The runtime integers.
    pub env: Env,
    /// Bytes of each input.
    pub inputs: &'a [Vec<u8>],
    pub states: &'a [Slice],
    /// Whether states are what a session begins with.
    pub begins: bool,
}

impl<'a> CallContext<'a> {
    fn program(&self) -> &'a Compiled {
        &self.core.programs()[self.class]
    }

    fn id(&self) -> ProgramId {
        ProgramId(self.class as u32)
    }
}

/// One attempt to make a call: the memory behind its program's buffers. A call that is replayed
/// looks only at its inputs and outputs, so each is found when it is asked for.
struct Bound<'a> {
    call: &'a CallContext<'a>,
    arena: &'a Arena,
    /// Where everything lies in the arena.
    layout: &'a ArenaLayout,
    /// Whether a launch of the call was submitted.
    launched: &'a Cell<bool>,
}

impl Bound<'_> {
    fn part(&self, place: Option<(u64, u64)>) -> Result<Option<Slice>, Error> {
        let slice = |(offset, bytes)| self.arena.slice(offset, bytes);
        Ok(place.map(slice).transpose()?)
    }

    fn buffer(&self, i: usize) -> Result<Slice, Error> {
        let CallContext { core, class, .. } = *self.call;
        let buffers = &self.call.program().program.buffers;
        let found = match &buffers.get(i).map(|b| &b.kind) {
            Some(BufferKind::Input(_) | BufferKind::Output(_) | BufferKind::Temp) => {
                self.part(self.layout.places[i])?
            }
            Some(BufferKind::State(s)) => self.call.states.get(*s).cloned(),
            Some(BufferKind::Const(_)) => core.constant(class, i).map(|lease| lease.whole()),
            None => None,
        };
        found.ok_or_else(|| Error::lower(format!("buffer b{i} has no memory")))
    }

    fn launch(&self, work: Work) -> Result<(), Error> {
        self.launched.set(true);
        let core = self.call.core;
        Ok(core.device().submit(core.compute(), work)?)
    }
}

/// Runs a program and reads its outputs. Where the device has no memory for the call, resident
/// weights make room.
///
/// # Errors
/// If the device fails or has no memory even so, or a file of weights was cut.
pub(crate) fn call(context: &CallContext<'_>, run: &mut Run) -> Result<Vec<Vec<u8>>, Error> {
    context.core.shrink_and_retry(run, |run| {
        let launched = Cell::new(false);
        // What was launched may have changed states: such a call is not made again.
        attempt(context, run, &launched).map_err(|error| match launched.get() {
            true => Failed::For(error),
            false => Failed::Yet(error),
        })
    })
}

fn attempt(
    context: &CallContext<'_>,
    run: &mut Run,
    launched: &Cell<bool>,
) -> Result<Vec<Vec<u8>>, Error> {
    let p = context.program();
    let layout = match run.membership().hold() {
        Hold::Member => p.arena.clone(),
        Hold::Call => run.layout(context.class, p, &context.env)?,
    };
    let guard = run.lend(layout.bytes, context.core.compute())?;
    let bound = Bound {
        call: context,
        arena: guard.arena()?,
        layout: &layout,
        launched,
    };
    let result = submit(&bound, run);
    if result.is_err() {
        run.recover();
    }
    result
}

fn submit(bound: &Bound<'_>, run: &mut Run) -> Result<Vec<Vec<u8>>, Error> {
    let CallContext {
        core, env, inputs, ..
    } = *bound.call;
    let p = bound.call.program();
    for (i, bytes) in inputs.iter().enumerate() {
        // Inputs come first among a program's buffers.
        let dst = part(&bound.buffer(i)?, bytes.len())?;
        let bytes = bytes.clone();
        let write = Work::Write { dst, bytes };
        core.device().submit(core.compute(), write)?;
    }
    begin(bound)?;
    launch_all(bound, run)?;
    let first = p.program.inputs.len();
    let mut outputs = Vec::with_capacity(p.program.outputs.len());
    for (o, (shape, dtype)) in p.program.outputs.iter().enumerate() {
        let len = shape.iter().map(|d| d.size(&env)).product::<usize>() * dtype.size();
        let mut bytes = vec![0; len];
        let src = part(&bound.buffer(first + o)?, len)?;
        core.device().read(core.compute(), &src, &mut bytes)?;
        outputs.push(bytes);
    }
    if outputs.is_empty() {
        core.device().synchronize(core.compute())?;
    }
    // What is left of a file that was cut meanwhile may have been read with zeros after it.
    run.weights().intact()?;
    Ok(outputs)
}

/// Writes what states hold before the first call, where calls read it.
fn begin(bound: &Bound<'_>) -> Result<(), Error> {
    let CallContext { core, states, .. } = *bound.call;
    let declared = &bound.call.program().program.states;
    let each = declared.iter().zip(states).filter(|_| bound.call.begins);
    for (state, memory) in each {
        let Some(initial) = &state.initial else {
            continue;
        };
        let elements: usize = state.capacity.iter().product();
        let bytes = elements * state.dtype.size();
        let times = bytes / initial.bytes.len().max(1);
        let write = Work::Write {
            dst: part(memory, bytes)?,
            bytes: initial.bytes.repeat(times),
        };
        core.device().submit(core.compute(), write)?;
    }
    Ok(())
}

fn part(slice: &Slice, len: usize) -> Result<Slice, Error> {
    Ok(slice.slice(0..len)?)
}

/// Submits all launches: again if the call was recorded, else one by one.
fn launch_all(bound: &Bound<'_>, run: &mut Run) -> Result<(), Error> {
    let p = bound.call.program();
    let generation = run.settled(bound.call.id())?;
    // What the host computes for a device cannot be recorded.
    let by_host = p.executables().any(|e| e.by_host().is_some());
    let records = run.recorded().enabled() && run.membership().hold() == Hold::Member && !by_host;
    let Some(generation) = generation.filter(|_| records) else {
        return each_launch(bound, run, false, &mut |work| bound.launch(work));
    };
    let places = bound.call.states.iter().map(|s| s.address());
    let arena = bound.arena.slice(0, 0)?.address();
    let env = bound.call.env;
    let key = Key {
        program: bound.call.class,
        generation,
        memory: places.chain([arena]).collect(),
        shape: p.shape_vars.iter().map(|v| env.get(*v)).collect(),
    };
    let graph = match run.recorded_mut().get(&key) {
        Some(graph) => Some(graph),
        None => record(bound, run, key)?,
    };
    match graph {
        Some(graph) => bound.launch(Work::Replay { graph, env }),
        None => Ok(()),
    }
}

/// Records a call that came before; any other is launched one by one, and so is one that the device
/// cannot record.
fn record(bound: &Bound<'_>, run: &mut Run, key: Key) -> Result<Option<Graph>, Error> {
    let mut works = Vec::with_capacity(bound.call.program().program.launches.len());
    each_launch(bound, run, true, &mut |work| {
        works.push(work);
        Ok(())
    })?;
    if run.recorded_mut().due(&key) {
        match bound.call.core.device().record(works.clone()) {
            Ok(graph) => {
                run.recorded_mut().keep(key, graph.clone());
                return Ok(Some(graph));
            }
            // The works themselves may still be done; a device that is lost says so again.
            Err(why) => {
                tracing::warn!(%why, "a call is not recorded");
                run.recorded_mut().refuse(&key);
            }
        }
    }
    works.into_iter().try_for_each(|work| bound.launch(work))?;
    Ok(None)
}

/// Hands the works of all launches to `take`, in order; see [`each_work`].
fn each_launch(
    bound: &Bound<'_>,
    run: &mut Run,
    settled: bool,
    take: &mut dyn FnMut(Work) -> Result<(), Error>,
) -> Result<(), Error> {
    let launches = bound.call.program().program.launches.len();
    let mut pass = run.begin(bound.call.id())?;
    for launch in 0..launches {
        let maker = Maker::new(bound, launch, &pass)?;
        each_work(&maker, &mut pass, settled, take)?;
    }
    Ok(pass.finish()?)
}

/// One launch of a call, with what it is made of.
struct Maker<'a> {
    /// In the form in which its weights are.
    loaded: &'a LoadedLaunch,
    env: Env,
    /// Its arguments but for the streamed weights.
    args: Vec<Option<Slice>>,
    scratch: Option<Slice>,
}

impl Maker<'_> {
    fn new<'a>(bound: &Bound<'a>, launch: usize, pass: &Pass<'_>) -> Result<Maker<'a>, Error> {
        let p = bound.call.program();
        let forms = &p.launches[launch];
        let loaded = match &forms.packed {
            Some(packed) if reads_packed(packed, p, pass)? => packed,
            Some(_) | None => &forms.plain,
        };
        let mut args: Vec<Option<Slice>> = Vec::with_capacity(loaded.args.len());
        for used in &loaded.args {
            args.push(match used {
                ArgUse::Buffer(b) => Some(bound.buffer(b.0 as usize)?),
                ArgUse::Weight(_, Role::Rows) => None,
                ArgUse::Weight(w, Role::Table) => Some(pass.mapped(p.weights[w.0 as usize])?),
                ArgUse::Weight(w, Role::Whole) => Some(pass.pinned(p.weights[w.0 as usize])?),
            });
        }
        let scratch = bound.part(bound.layout.scratch[launch])?;
        Ok(Maker {
            loaded,
            env: bound.call.env,
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
            executable: self.loaded.executable.clone(),
            env: self.env,
            args: bound.flatten().collect(),
            tiles,
            scratch: self.scratch.clone(),
        }
    }
}

/// Whether rows that a launch reads are packed now: then all of its weights that have two forms are.
fn reads_packed(launch: &LoadedLaunch, p: &Compiled, pass: &Pass<'_>) -> Result<bool, Error> {
    for used in &launch.args {
        if let ArgUse::Weight(w, Role::Rows) = used
            && let Encoding::Packed(_) = pass.form(p.weights[w.0 as usize])?.encoding
        {
            return Ok(true);
        }
    }
    Ok(false)
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
