//! One call: bind the arguments of every launch and submit them in order.
//!
//! Nothing here waits for the device. Streamed weights come from the pass, which orders their
//! arrival before the launch by events.

use crate::Error;
use crate::engine::{Compiled, Inner, Run, WeightUse};
use std::sync::Arc;
use trt_alloc::{Arena, Lease};
use trt_device::{Slice, Work};
use trt_graph::program::BufferKind;
use trt_kernel::Env;
use trt_stream::{Pass, ProgramId};

/// The memory behind a program's buffers in one call.
struct Buffers(Vec<Option<Slice>>);

impl Buffers {
    fn bind(
        inner: &Inner,
        index: usize,
        arena: &Arena,
        states: &[Arc<Lease>],
    ) -> Result<Buffers, Error> {
        let p = &inner.programs[index];
        let mut slices = Vec::with_capacity(p.program.buffers.len());
        for (i, buffer) in p.program.buffers.iter().enumerate() {
            slices.push(match &buffer.kind {
                BufferKind::Input(_) | BufferKind::Output(_) | BufferKind::Temp => {
                    match p.arena.places[i] {
                        Some((offset, bytes)) => Some(arena.slice(offset, bytes)?),
                        None => None,
                    }
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
    let arena = inner.strategy.begin(&inner.pool, p.arena.bytes)?;
    let result = submit(inner, run, index, env, inputs, states, &arena);
    if result.is_err() {
        // Works that were submitted are waited for; their errors are those of this call.
        run.streamer
            .reset()
            .iter()
            .for_each(|e| tracing::debug!("while recovering: {e}"));
    }
    inner.strategy.end(arena);
    result
}

fn submit(
    inner: &Inner,
    run: &mut Run,
    index: usize,
    env: Env,
    inputs: Vec<Vec<u8>>,
    states: &[Arc<Lease>],
    arena: &Arena,
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
    let mut pass = run.streamer.begin(ProgramId(index as u32))?;
    for launch in 0..p.program.launches.len() {
        submit_launch(inner, p, launch, env, &buffers, &mut pass)?;
    }
    pass.finish()?;
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

fn submit_launch(
    inner: &Inner,
    p: &Compiled,
    launch: usize,
    env: Env,
    buffers: &Buffers,
    pass: &mut Pass<'_>,
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
    let executable = &p.executables[launch];
    let submit = |args, rows| {
        let work = Work::Launch {
            executable: executable.clone(),
            env,
            args,
            rows,
        };
        inner.device.submit(inner.compute, work)
    };
    match args.iter().position(Option::is_none) {
        None => submit(args.into_iter().flatten().collect(), None)?,
        Some(_) => pass.next_use(|rows, weight| -> Result<(), Error> {
            let bound = args
                .iter()
                .map(|a| a.clone().unwrap_or_else(|| weight.clone()))
                .collect();
            Ok(submit(bound, Some(rows))?)
        })?,
    }
    Ok(())
}
