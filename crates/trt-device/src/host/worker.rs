//! The thread of a stream: it does items in order and marks each as done.
//!
//! Work is dropped before it is marked as done, so memory that only it held is free by the time
//! a caller has synchronised. After an error everything that computes or copies is skipped
//! until the error is taken, but waits, records and page releases still happen: nobody hangs
//! and nothing stays resident because of a failure. Whatever panics, the work, what is dropped
//! with it, or who listens to logs, the item is marked as done and the thread goes on.

use super::event::{Point, Timeline};
use super::queue::{Item, Queue};
use super::{copy, pages};
use crate::device::{ExecutableOf, GraphOf};
use crate::memory::intact;
use crate::{Error, Work};
use std::collections::VecDeque;
use trt_kernel::host::{Team, contain};

/// Works through a stream until it is closed.
pub(super) fn run(queue: &Queue, team: &Team) {
    let timeline = queue.timeline();
    let mut items = VecDeque::new();
    let mut done = 0;
    while queue.take(&mut items, done) {
        while let Some(item) = items.pop_front() {
            done += 1;
            let work = name(&item);
            let panicked = |message| Error::Panicked {
                work,
                stream: timeline.name.clone(),
                message,
            };
            // What a panic leaves half-done is only the bytes of device memory, and the error
            // says that they mean nothing.
            let result =
                contain(|| step(&item, team, timeline)).unwrap_or_else(|m| Err(panicked(m)));
            // By itself, since what is dropped while a panic is under way must not panic too.
            let dropped = contain(|| drop(item)).map_err(panicked);
            if let Err(error) = result.and(dropped) {
                let text = error.to_string();
                timeline.fail(done, error);
                let _ = contain(|| {
                    tracing::warn!(
                        stream = timeline.name,
                        item = done,
                        error = text,
                        "work failed"
                    );
                });
            }
            timeline.advance(done);
        }
    }
}

fn name(item: &Item) -> &'static str {
    match item {
        Item::Work(work) => work.name(),
        Item::Wait(_) => "wait",
    }
}

/// Does one item.
fn step(item: &Item, team: &Team, timeline: &Timeline) -> Result<(), Error> {
    match item {
        Item::Wait(None) => Ok(()),
        Item::Wait(Some(point)) => wait(point, timeline),
        Item::Work(work)
            if timeline.failed() && !matches!(work, Work::Discard(_) | Work::Trim(_)) =>
        {
            Ok(())
        }
        Item::Work(work) => execute(work, team, timeline),
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
        } => {
            intact(work.slices())?;
            match &executable.0 {
                ExecutableOf::Host(own) => own.run(env, args, tiles, team, timeline),
                ExecutableOf::ByHost(own) => {
                    own.run(env, args, tiles, team, &timeline.name, &copy::Here)
                }
                ExecutableOf::Cuda(_) => Err(super::wrong("an executable")),
            }
        }
        Work::Replay { graph, env } => match &graph.0 {
            GraphOf::Host(works) => works
                .iter()
                .try_for_each(|w| execute(&w.with_env(*env), team, timeline)),
            GraphOf::Cuda(_) => Err(super::wrong("a graph")),
        },
        Work::Copy { dst, src } if src.is_mapping() => copy::upload(dst, src),
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
