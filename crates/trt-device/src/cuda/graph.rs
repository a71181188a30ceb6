//! Recorded work: many launches at the cost of one.
//!
//! A graph has runtime integers, a fault record and counters of its own, since their addresses are
//! part of what was recorded. Invariants: its replays follow each other, on whatever streams, so
//! its integers are never changed under a running launch and its counters never used by two; and
//! it is replayed only with integers that decide the same grids as those that it was recorded
//! with.

use super::driver::{Bound, Capture, Context, Grid, RawEvent, RawGraph, RawStream};
use super::launch::{Call, Ready};
use super::params::Surroundings;
use super::slots::{Fault, Slot};
use super::stream::write_integers;
use crate::device::ExecutableOf;
use crate::{Error, Slice, Work};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use trt_kernel::{Env, Var};

/// Recorded work of a CUDA device.
#[derive(Debug)]
pub(crate) struct CudaGraph {
    raw: RawGraph,
    slot: Slot,
    context: Arc<Context>,
    /// Recorded after each replay.
    done: RawEvent,
    /// What the runtime integers are once all replays so far are done.
    latest: Mutex<Option<Env>>,
    /// The runtime integers that decide grids, as they were.
    fixed: BTreeMap<Var, i64>,
    table_rows: usize,
    /// Keeps memory and executables.
    _works: Vec<Work>,
}

/// Recorded work with everything decided.
enum Step {
    Launch(Ready),
    Copy { dst: u64, src: u64, len: usize },
}

/// The steps of works, and what they were decided by.
#[derive(Default)]
struct Plan {
    steps: Vec<Step>,
    fixed: BTreeMap<Var, i64>,
    table_rows: usize,
}

impl CudaGraph {
    /// Records works. `locate` gives the address of a slice, or refuses it.
    pub fn record(
        context: &Arc<Context>,
        slot: Slot,
        works: Vec<Work>,
        mut locate: impl FnMut(&Slice) -> Result<u64, Error>,
    ) -> Result<CudaGraph, Error> {
        let around = slot.surroundings();
        // Everything that may register, allocate or fail comes before the capture.
        let mut plan = Plan::default();
        for work in &works {
            plan.add(work, around, &mut locate)?;
        }
        let done = RawEvent::new(context)?;
        let raw = capture(context, &mut plan.steps)?;
        Ok(CudaGraph {
            raw,
            slot,
            context: context.clone(),
            done,
            latest: Mutex::default(),
            fixed: plan.fixed,
            table_rows: plan.table_rows,
            _works: works,
        })
    }

    /// Whether it belongs to this context.
    pub fn is_of(&self, context: &Arc<Context>) -> bool {
        Arc::ptr_eq(&self.context, context)
    }

    /// Puts the recorded work on a stream.
    ///
    /// # Safety
    /// What is returned is kept, as is the graph, until the stream has come here.
    pub unsafe fn replay(
        &self,
        bound: &Bound<'_>,
        stream: &RawStream,
        env: Env,
    ) -> Result<Option<Box<[i64; Var::MAX]>>, Error> {
        for (var, recorded) in &self.fixed {
            same(*var, *recorded, env.get(*var))?;
        }
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        stream.wait(bound, &self.done)?;
        let values = match *latest == Some(env) {
            true => None,
            false => Some(write_integers(bound, stream, self.slot.integers(), env)?),
        };
        *latest = Some(env);
        // SAFETY: the graph holds what it uses and is kept itself; there is no way here but through
        // the lock.
        let put = unsafe { self.raw.launch(bound, stream) };
        stream.record(bound, &self.done)?;
        put.map(|()| values)
    }

    /// What its kernels reported, with the rows of the table that it is about; clears it.
    pub fn take_fault(&self) -> Option<(Fault, usize)> {
        Some((self.slot.take()?, self.table_rows))
    }

    /// What its kernels reported.
    pub fn look_fault(&self) -> Option<(Fault, usize)> {
        Some((self.slot.look()?, self.table_rows))
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

impl Plan {
    fn add(
        &mut self,
        work: &Work,
        around: Surroundings,
        locate: &mut impl FnMut(&Slice) -> Result<u64, Error>,
    ) -> Result<(), Error> {
        match work {
            Work::Launch {
                executable,
                env,
                args,
                tiles,
                scratch,
            } => {
                let ExecutableOf::Cuda(executable) = &executable.0 else {
                    return Err(Error::WrongDevice {
                        what: "an executable",
                        device: "a CUDA device".into(),
                    });
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
                self.steps.push(Step::Launch(ready));
                self.fix(executable.grid_vars(), env)?;
                self.table_rows = executable.table_rows().unwrap_or(self.table_rows);
                Ok(())
            }
            Work::Copy { dst, src } if !src.is_mapping() => {
                self.steps.push(Step::Copy {
                    dst: locate(dst)?,
                    src: locate(src)?,
                    len: src.len().min(dst.len()),
                });
                Ok(())
            }
            other => Err(Error::NotRecordable { work: other.name() }),
        }
    }

    fn fix(&mut self, vars: &[Var], env: &Env) -> Result<(), Error> {
        vars.iter().try_for_each(|&var| {
            let value = env.get(var);
            same(var, *self.fixed.entry(var).or_insert(value), value)
        })
    }
}

fn capture(context: &Arc<Context>, steps: &mut [Step]) -> Result<RawGraph, Error> {
    let capture = Capture::begin(context)?;
    let bound = capture.bound();
    // Only a launch may be overlapped with.
    let mut after_launch = false;
    for step in steps {
        match step {
            Step::Launch(Ready {
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
                    unsafe {
                        capture
                            .stream()
                            .launch(&bound, put.function, grid, words, starts)?
                    };
                }
            }
            Step::Copy { len: 0, .. } => {}
            Step::Copy { dst, src, len } => {
                after_launch = false;
                // SAFETY: the addresses are those of slices that the graph keeps.
                unsafe { capture.stream().copy(&bound, *dst, *src, *len)? };
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
        let mut plan = Plan::default();
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
