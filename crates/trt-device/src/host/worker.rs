//! The thread of a stream: it does items in order and marks each as done.
//!
//! Work is dropped before it is marked as done, so memory that only it held is free by the time
//! a caller has synchronised. After an error everything that computes or copies is skipped
//! until the error is taken, but waits, records and page releases still happen: nobody hangs
//! and nothing stays resident because of a failure.

use super::event::{Point, Timeline};
use super::queue::{Item, Queue};
use super::{copy, pages};
use crate::{Error, Slice, Work};
use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use trt_kernel::{Env, Kernel};

/// A kernel prepared for the CPU.
#[derive(Debug)]
pub(crate) struct HostExecutable {
    kind: &'static str,
    args: usize,
    written: Vec<usize>,
}

impl HostExecutable {
    pub(super) fn new(kernel: &Kernel) -> Result<Self, Error> {
        kernel.check()?;
        Ok(HostExecutable {
            kind: kernel.kind(),
            args: kernel.args().len(),
            written: kernel.written().iter().map(|a| a.0 as usize).collect(),
        })
    }

    /// Whether a launch may take these arguments.
    pub(super) fn check(&self, args: &[Slice]) -> Result<(), Error> {
        if args.len() != self.args {
            return Err(Error::Args {
                kernel: self.kind,
                expected: self.args,
                found: args.len(),
            });
        }
        match self.written.iter().find(|i| args[**i].is_mapping()) {
            None => Ok(()),
            Some(i) => Err(Error::ReadOnly {
                work: format!("argument a{i} of a {} kernel", self.kind),
            }),
        }
    }

    fn run(
        &self,
        _env: &Env,
        _args: &[Slice],
        _rows: Option<Range<usize>>,
        _timeline: &Timeline,
    ) -> Result<(), Error> {
        Ok(())
    }
}

/// Works through a stream until it is closed.
pub(super) fn run(queue: &Queue) {
    let timeline = queue.timeline();
    let mut items = VecDeque::new();
    let mut done = 0;
    while queue.take(&mut items, done) {
        while let Some(item) = items.pop_front() {
            done += 1;
            if let Err(error) = step(item, timeline) {
                tracing::warn!(stream = timeline.name, item = done, %error, "work failed");
                timeline.fail(done, error);
            }
            timeline.advance(done);
        }
    }
}

/// Does one item and drops it.
fn step(item: Item, timeline: &Timeline) -> Result<(), Error> {
    match item {
        Item::Wait(None) => Ok(()),
        Item::Wait(Some(point)) => wait(&point, timeline),
        Item::Work(work) if timeline.failed() && !matches!(work, Work::Discard(_)) => Ok(()),
        Item::Work(work) => {
            // What a panic leaves half-done is only the bytes of device memory, and the error
            // says that they mean nothing.
            catch_unwind(AssertUnwindSafe(|| execute(&work, timeline))).unwrap_or_else(|panic| {
                Err(Error::Panicked {
                    work: name(&work),
                    stream: timeline.name.clone(),
                    message: message(&*panic),
                })
            })
        }
    }
}

/// Waits for a point of another stream, and fails with it.
fn wait(point: &Point, timeline: &Timeline) -> Result<(), Error> {
    if std::ptr::eq(&*point.timeline, timeline) {
        return Ok(());
    }
    point.wait();
    point.failure().map_or(Ok(()), Err)
}

fn execute(work: &Work, timeline: &Timeline) -> Result<(), Error> {
    match work {
        Work::Launch {
            executable,
            env,
            args,
            rows,
        } => executable.0.run(env, args, rows.clone(), timeline),
        Work::Copy { dst, src } => {
            copy::copy(dst, src);
            Ok(())
        }
        Work::Upload { dst, src } => copy::upload(dst, src),
        Work::Write { dst, bytes } => {
            copy::write(dst, bytes);
            Ok(())
        }
        Work::Populate(slice) => pages::populate(slice),
        Work::Discard(slice) => pages::discard(slice),
        Work::Record(_) | Work::Wait(_) => Ok(()),
    }
}

fn name(work: &Work) -> &'static str {
    match work {
        Work::Launch { .. } => "launch",
        Work::Copy { .. } => "copy",
        Work::Upload { .. } => "upload",
        Work::Write { .. } => "write",
        Work::Populate(_) => "populate",
        Work::Discard(_) => "discard",
        Work::Record(_) => "record",
        Work::Wait(_) => "wait",
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".into())
}
