//! What can be refused before work is queued.
//!
//! Whoever does the work trusts this: what it is given was made by this device.

use super::event::HostEvent;
use super::memory::HostBytes;
use super::wanted::Resident;
use super::{HostGraph, Loaded};
use crate::{Error, Info, Slice, Work};

/// Whether the device can do work, as far as can be seen before.
pub(super) fn work(info: &Info, work: &Work) -> Result<(), Error> {
    work.slices().try_for_each(|slice| own(info, slice))?;
    match work {
        Work::Launch {
            executable,
            args,
            tiles,
            ..
        } => match executable.open(info)? {
            Loaded::Own(own) => own.check(args, tiles),
            Loaded::ByHost(own) => own.check(args, tiles),
        },
        Work::Copy { dst, src } => {
            same_length("copy", src.len(), dst.len())?;
            writable("copy", dst)
        }
        Work::Upload { dst, src } => {
            same_length("upload", src.len(), dst.len())?;
            mapping("upload", src)?;
            writable("upload", dst)
        }
        Work::Write { dst, bytes } => {
            same_length("write", bytes.len(), dst.len())?;
            writable("write", dst)
        }
        Work::Populate(slice) => mapping("populate", slice),
        Work::Discard(slice) => mapping("discard", slice),
        Work::Trim(slice) => mapping("trim", slice),
        Work::Record(event) | Work::Wait(event) => event.open::<HostEvent>(info).map(drop),
        Work::Replay { graph, .. } => graph.open::<HostGraph>(info).map(drop),
    }
}

/// Whether the device can use the bytes.
pub(super) fn own(info: &Info, slice: &Slice) -> Result<(), Error> {
    let memory = slice.memory();
    match memory.is_mapping() {
        true => memory.open::<Resident>(info).map(drop),
        false => memory.open::<HostBytes>(info).map(drop),
    }
}

pub(super) fn same_length(work: &'static str, src: usize, dst: usize) -> Result<(), Error> {
    match src == dst {
        true => Ok(()),
        false => Err(Error::Length { work, src, dst }),
    }
}

fn writable(work: &str, dst: &Slice) -> Result<(), Error> {
    match dst.is_mapping() {
        false => Ok(()),
        true => Err(Error::ReadOnly { work: work.into() }),
    }
}

fn mapping(work: &'static str, slice: &Slice) -> Result<(), Error> {
    match slice.is_mapping() {
        true => Ok(()),
        false => Err(Error::NotMapping { work }),
    }
}
