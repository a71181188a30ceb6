//! The thread of a stream: it does items in order and marks each as done.
//!
//! Work is dropped before it is marked as done, so memory that only it held is free by the time
//! a caller has synchronised. After an error everything that computes or copies is skipped
//! until the error is taken, but waits, records and page releases still happen: nobody hangs
//! and nothing stays resident because of a failure.

use super::event::{Point, Timeline};
use super::queue::{Item, Queue};
use super::{copy, pages};
use crate::device::{ExecutableOf, GraphOf};
use crate::{Error, Work};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use trt_kernel::host::Team;

/// Works through a stream until it is closed.
pub(super) fn run(queue: &Queue, team: &Team) {
    let timeline = queue.timeline();
    let mut items = VecDeque::new();
    let mut done = 0;
    while queue.take(&mut items, done) {
        while let Some(item) = items.pop_front() {
            done += 1;
            if let Err(error) = step(item, team, timeline) {
                tracing::warn!(stream = timeline.name, item = done, %error, "work failed");
                timeline.fail(done, error);
            }
            timeline.advance(done);
        }
    }
}

/// Does one item and drops it.
fn step(item: Item, team: &Team, timeline: &Timeline) -> Result<(), Error> {
    match item {
        Item::Wait(None) => Ok(()),
        Item::Wait(Some(point)) => wait(&point, timeline),
        Item::Work(work)
            if timeline.failed() && !matches!(work, Work::Discard(_) | Work::Trim(_)) =>
        {
            Ok(())
        }
        Item::Work(work) => {
            // What a panic leaves half-done is only the bytes of device memory, and the error
            // says that they mean nothing.
            catch_unwind(AssertUnwindSafe(|| execute(&work, team, timeline))).unwrap_or_else(
                |panic| {
                    Err(Error::Panicked {
                        work: work.name(),
                        stream: timeline.name.clone(),
                        message: message(&*panic),
                    })
                },
            )
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

fn execute(work: &Work, team: &Team, timeline: &Timeline) -> Result<(), Error> {
    match work {
        Work::Launch {
            executable,
            env,
            args,
            tiles,
            scratch: _,
        } => match &executable.0 {
            ExecutableOf::Host(own) => own.run(env, args, tiles, team, timeline),
            ExecutableOf::ByHost(own) => {
                own.run(env, args, tiles, team, &timeline.name, &copy::Here)
            }
            ExecutableOf::Cuda(_) => Err(super::wrong("an executable")),
        },
        Work::Replay { graph, env } => match &graph.0 {
            GraphOf::Host(works) => works
                .iter()
                .try_for_each(|w| execute(&w.with_env(*env), team, timeline)),
            GraphOf::Cuda(_) => Err(super::wrong("a graph")),
        },
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
        Work::Trim(slice) => pages::trim(slice),
        Work::Record(_) | Work::Wait(_) => Ok(()),
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".into())
}
