//! Recorded work: many launches at the cost of one.
//!
//! A graph has runtime integers, a fault record and counters of its own, since their addresses are
//! part of what was recorded. Invariants: its replays follow each other, on whatever streams, so
//! its integers are never changed under a running launch and its counters never used by two; and
//! it is replayed only with integers that decide the same grids as those that it was recorded
//! with, and with which it stays inside of its memory.

use crate::cuda::driver::{Bound, Capture, Context, Grid, RawEvent, RawGraph, RawStream};
use crate::cuda::launch::{
    DeviceMemory, Fault, Integers, Loaded, Ready, Slot, Surroundings, write_integers,
};
use crate::gpu::Needs;
use crate::{Call, Error, Info, Slice, Work};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use trt_kernel::{Env, Var};

/// Recorded work of a CUDA device.
#[derive(Debug)]
pub(in crate::cuda) struct CudaGraph {
    raw: RawGraph,
    slot: Slot,
    info: Info,
    /// Recorded after each replay.
    done: RawEvent,
    /// What the runtime integers are once all replays so far are done.
    latest: Mutex<Option<Env>>,
    /// The runtime integers that decide grids, as they were.
    fixed: BTreeMap<Var, i64>,
    needs: Needs,
    /// Rows of files that its kernels read in place.
    rows: Vec<Rows>,
    /// Keeps memory and executables.
    _works: Vec<Work>,
}

/// Rows of a file, where a kernel reads them.
#[derive(Debug)]
pub(in crate::cuda) struct Rows {
    pub slice: Slice,
    /// What the kernel takes the address for a multiple of.
    pub align: u64,
    pub address: u64,
}

/// Recorded work with everything decided.
enum GraphStep {
    Launch(Ready),
    Copy { dst: u64, src: u64, len: usize },
}

/// The steps of works, and what they were decided by.
#[derive(Default)]
struct GraphWork {
    steps: Vec<GraphStep>,
    fixed: BTreeMap<Var, i64>,
    needs: Needs,
}

impl CudaGraph {
    /// Records works. `locate` gives the address of a slice, one that
    /// kernels take for a multiple of the number given where it can choose, or refuses it.
    pub fn record(
        context: &Arc<Context>,
        slot: Slot,
        info: &Info,
        works: Vec<Work>,
        mut locate: impl FnMut(&Slice, u64) -> Result<u64, Error>,
    ) -> Result<CudaGraph, Error> {
        let around = slot.surroundings();
        let mut rows = Vec::new();
        let mut locate = |slice: &Slice, align: u64| {
            let address = locate(slice, align)?;
            if slice.is_mapping() && !slice.is_empty() {
                let slice = slice.clone();
                rows.push(Rows {
                    slice,
                    align,
                    address,
                });
            }
            Ok(address)
        };
        // Everything that may register, allocate or fail comes before the capture.
        let mut plan = GraphWork::default();
        for work in &works {
            plan.add(work, info, around, &mut locate)?;
        }
        plan.needs.settle(&plan.fixed);
        let done = RawEvent::new(context)?;
        let raw = capture(context, &mut plan.steps)?;
        Ok(CudaGraph {
            raw,
            slot,
            info: info.clone(),
            done,
            latest: Mutex::default(),
            fixed: plan.fixed,
            needs: plan.needs,
            rows,
            _works: works,
        })
    }

    /// Rows of files that its kernels read in place, which must be there when it is replayed.
    pub(in crate::cuda) fn rows(&self) -> &[Rows] {
        &self.rows
    }

    /// Puts the recorded work on a stream, which errors call `name`. `keep` takes what must be kept
    /// until the stream has come here, also after an error.
    ///
    /// # Safety
    /// The graph is kept as long.
    pub unsafe fn replay(
        &self,
        bound: &Bound<'_>,
        (stream, name): (&RawStream, &str),
        env: Env,
        keep: impl FnOnce(Integers),
    ) -> Result<(), Error> {
        for (var, recorded) in &self.fixed {
            same(*var, *recorded, env.get(*var))?;
        }
        self.needs.committed(|slice| {
            let memory: &DeviceMemory = slice.memory().open(&self.info)?;
            memory.holds(slice.offset()..slice.offset() + slice.len())
        })?;
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let new = *latest != Some(env);
        if new {
            self.needs.check(&env, name)?;
        }
        stream.wait(bound, &self.done)?;
        if new {
            *latest = None;
            write_integers(bound, stream, self.slot.integers(), env, keep)?;
            *latest = Some(env);
        }
        // SAFETY: the graph holds what it uses and is kept itself; there is no way here but through
        // the lock.
        let put = unsafe { self.raw.launch(bound, stream) };
        // Also where nothing was launched: the integers were written.
        put.and(stream.record(bound, &self.done))
    }

    /// What its kernels reported, with the rows of the table that it is about; clears it.
    pub fn take_fault(&self) -> Option<Fault> {
        self.slot.take()
    }

    /// What its kernels reported.
    pub fn look_fault(&self) -> Option<Fault> {
        self.slot.look()
    }
}

fn same(var: Var, recorded: i64, asked: i64) -> Result<(), Error> {
    match recorded == asked {
        true => Ok(()),
        false => Err(Error::Stale {
            var: var.0,
            recorded,
            asked,
        }),
    }
}

impl GraphWork {
    fn add(
        &mut self,
        work: &Work,
        info: &Info,
        around: Surroundings,
        locate: &mut impl FnMut(&Slice, u64) -> Result<u64, Error>,
    ) -> Result<(), Error> {
        match work {
            Work::Launch {
                executable,
                env,
                args,
                tiles,
                scratch,
            } => {
                let Loaded::Own(executable) = executable.open(info)? else {
                    return Err(info.wrong("an executable"));
                };
                let call = Call {
                    env,
                    args,
                    tiles,
                    scratch: scratch.as_ref(),
                    stream: "recording",
                };
                let mut ready = Ready::default();
                executable.prepare(call, around, &mut ready, locate)?;
                self.steps.push(GraphStep::Launch(ready));
                executable.needs(call, &mut self.needs);
                self.note_reserved(work, info);
                self.fix(executable.grid_vars(), env)
            }
            Work::Copy { dst, src } if !src.is_mapping() => {
                self.steps.push(GraphStep::Copy {
                    dst: locate(dst, 1)?,
                    src: locate(src, 1)?,
                    len: src.len().min(dst.len()),
                });
                self.note_reserved(work, info);
                Ok(())
            }
            other => Err(Error::NotRecordable { work: other.name() }),
        }
    }

    /// Notes the reserved memory that work uses.
    fn note_reserved(&mut self, work: &Work, info: &Info) {
        for slice in work.slices().filter(|s| !s.is_empty()) {
            if let Ok(DeviceMemory::Reserved(_)) = slice.memory().open(info) {
                self.needs.reserved(slice);
            }
        }
    }

    fn fix(&mut self, vars: &[Var], env: &Env) -> Result<(), Error> {
        vars.iter().try_for_each(|&var| {
            let value = env.get(var);
            same(var, *self.fixed.entry(var).or_insert(value), value)
        })
    }
}

fn capture(context: &Arc<Context>, steps: &mut [GraphStep]) -> Result<RawGraph, Error> {
    let capture = Capture::begin(context)?;
    // Only a launch may be overlapped with.
    let mut after_launch = false;
    for step in steps {
        match step {
            GraphStep::Launch(Ready {
                words,
                starts,
                launches,
            }) => {
                for put in launches.iter() {
                    let overlap = put.grid.overlap && after_launch;
                    after_launch = true;
                    let grid = Grid {
                        overlap,
                        ..put.grid
                    };
                    let words = &mut words[put.words.clone()];
                    let starts = &starts[put.starts.clone()];
                    // SAFETY: `prepare` made the words by the entry's parameters; the graph keeps
                    // executables and memory.
                    unsafe { capture.launch(put.function, grid, words, starts)? };
                }
            }
            GraphStep::Copy { len: 0, .. } => {}
            GraphStep::Copy { dst, src, len } => {
                after_launch = false;
                // SAFETY: the addresses are those of slices that the graph keeps.
                unsafe { capture.copy(*dst, *src, *len)? };
            }
        }
    }
    capture.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launches_that_disagree_about_grids_cannot_be_recorded_together() {
        let mut plan = GraphWork::default();
        let (seq, past) = (Var(1), Var(0));
        plan.fix(&[seq], &Env::new(&[7, 1])).unwrap();
        plan.fix(&[seq], &Env::new(&[8, 1])).unwrap();
        let error = plan.fix(&[past, seq], &Env::new(&[8, 2])).unwrap_err();
        assert!(matches!(
            error,
            Error::Stale {
                var: 1,
                recorded: 1,
                asked: 2
            }
        ));
    }
}
