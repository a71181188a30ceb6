//! The thread of a stream: it does items in order and marks each as done.
//!
//! Work is dropped before it is marked as done, so memory that only it held is free by the time
//! a caller has synchronised. After an error everything that computes or copies is skipped
//! until the error is taken, but waits, records and page releases still happen: nobody hangs
//! and nothing stays resident because of a failure. Whatever panics, the work, what is dropped
//! with it, or who listens to logs, the item is marked as done and the thread goes on.

use super::event::{Point, Timeline};
use super::queue::{Item, Queue};
use super::{HostGraph, Loaded, copy, pages};
use crate::contract::intact;
use crate::{Call, Error, Info, Work};
use std::collections::VecDeque;
use trt_kernel::host::{Team, contain};

/// Where work is done.
#[derive(Clone, Copy)]
struct On<'a> {
    info: &'a Info,
    team: &'a Team,
    timeline: &'a Timeline,
}

/// Works through a stream until it is closed.
pub(super) fn run(queue: &Queue, info: &Info, team: &Team) {
    let timeline = queue.timeline();
    let on = On {
        info,
        team,
        timeline,
    };
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
            let result = contain(|| step(&item, on)).unwrap_or_else(|m| Err(panicked(m)));
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
fn step(item: &Item, on: On<'_>) -> Result<(), Error> {
    match item {
        Item::Wait(None) => Ok(()),
        Item::Wait(Some(point)) => wait(point, on.timeline),
        Item::Work(work)
            if on.timeline.failed() && !matches!(work, Work::Discard(_) | Work::Trim(_)) =>
        {
            Ok(())
        }
        Item::Work(work) => execute(work, on),
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

fn execute(work: &Work, on: On<'_>) -> Result<(), Error> {
    match work {
        Work::Launch {
            executable,
            env,
            args,
            tiles,
            scratch: _,
        } => {
            intact(work.slices())?;
            let call = Call {
                env,
                args,
                tiles,
                scratch: None,
                stream: &on.timeline.name,
            };
            match executable.open(on.info)? {
                Loaded::Own(own) => own.run(call, on.team),
                Loaded::ByHost(own) => own.run(call, on.team, &copy::Here),
            }
        }
        Work::Replay { graph, env } => {
            let HostGraph(works) = graph.open(on.info)?;
            let mut works = works.iter();
            works.try_for_each(|work| execute(&work.with_env(*env), on))
        }
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
        Work::Populate(slice) => pages::populate(slice, on.info),
        Work::Discard(slice) => pages::discard(slice, on.info),
        Work::Trim(slice) => pages::trim(slice, on.info),
        Work::Record(_) | Work::Wait(_) => Ok(()),
    }
}
