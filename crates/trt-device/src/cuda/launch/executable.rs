//! Kernels on the device, and launches of them with everything decided.
//!
//! A group without a module of its own is launched part by part, which is right for any group:
//! its parts do not touch what the others write.

use super::params::Surroundings;
use super::part::Part;
use crate::cuda::driver::{Function, Grid};
use crate::gpu::Needs;
use crate::{Call, Error, ExecutableInfo, HostFallback, Slice, Tiles};
use std::ops::Range;
use std::sync::Arc;
use trt_kernel::ptx::Emitted;
use trt_kernel::{Dim, Kernel, Var};

/// What is in an executable of the device.
#[derive(Debug)]
pub(in crate::cuda) enum Loaded {
    Own(Arc<CudaExecutable>),
    /// The device has no kernel for it.
    ByHost(HostFallback),
}

/// A kernel that the driver has assembled.
#[derive(Debug)]
pub(in crate::cuda) struct CudaExecutable {
    kind: &'static str,
    args: usize,
    written: Vec<usize>,
    parts: Vec<Part>,
    /// Enough for each part: they run one after another.
    scratch: Dim,
    grid_vars: Vec<Var>,
}

/// A launch with everything decided.
#[derive(Debug, Default)]
pub(in crate::cuda) struct Ready {
    /// The parameters of all parts.
    pub words: Vec<u64>,
    /// Where in its own words each parameter of a launch starts.
    pub starts: Vec<usize>,
    /// What to launch, in order.
    pub launches: Vec<Put>,
}

/// One launch of what is ready.
#[derive(Clone, Debug)]
pub(in crate::cuda) struct Put {
    pub function: Function,
    pub grid: Grid,
    /// Its words.
    pub words: Range<usize>,
    /// Its starts: none where words are laid out as the kernel's parameters are.
    pub starts: Range<usize>,
}

impl CudaExecutable {
    /// A kernel of which each part was emitted and assembled.
    pub(in crate::cuda) fn new(kernel: &Kernel, parts: Vec<(Emitted, Part)>) -> CudaExecutable {
        let vars = parts.iter().flat_map(|(emitted, part)| {
            let table = part.table_vars();
            emitted.grid_vars().into_iter().chain(table)
        });
        let mut grid_vars: Vec<Var> = vars.collect();
        grid_vars.sort();
        grid_vars.dedup();
        let scratch = parts.iter().map(|(_, part)| &part.scratch);
        CudaExecutable {
            kind: kernel.kind(),
            args: kernel.args().len(),
            written: kernel.written().iter().map(|a| a.0 as usize).collect(),
            scratch: scratch.fold(Dim::from(0), |sum, each| &sum + each),
            grid_vars,
            parts: parts.into_iter().map(|(_, part)| part).collect(),
        }
    }

    /// What everybody may know of it.
    pub(in crate::cuda) fn info(&self) -> ExecutableInfo {
        ExecutableInfo {
            by_host: None,
            code: self.parts.iter().map(Part::code).collect(),
            scratch: self.scratch.clone(),
            grid_vars: self.grid_vars.clone(),
        }
    }

    /// The runtime integers that decide grids, entries and the tables of tiles.
    pub(in crate::cuda) fn grid_vars(&self) -> &[Var] {
        &self.grid_vars
    }

    /// Decides a launch, or says why there can be none. `locate` gives the address of a slice, or
    /// refuses it.
    pub(in crate::cuda) fn prepare(
        &self,
        call: Call<'_>,
        around: Surroundings,
        ready: &mut Ready,
        mut locate: impl FnMut(&Slice, u64) -> Result<u64, Error>,
    ) -> Result<(), Error> {
        self.check(call)?;
        ready.words.clear();
        ready.starts.clear();
        ready.launches.clear();
        for (part, tiles) in self.running(call.tiles) {
            part.prepare(call, tiles, around, ready, &mut locate)?;
        }
        Ok(())
    }

    /// Adds what a launch that was prepared reaches in other calls.
    pub(in crate::cuda) fn needs(&self, call: Call<'_>, needs: &mut Needs) {
        for (part, tiles) in self.running(call.tiles) {
            part.needs(call, tiles, needs);
        }
    }

    /// The parts that run, with the tiles of their weights: with tiles, only products that have
    /// rows.
    fn running<'a>(&'a self, tiles: &'a [Tiles]) -> impl Iterator<Item = (&'a Part, &'a [Tiles])> {
        let each = self.parts.iter().scan(tiles, |rest, part| {
            let (own, others) = rest.split_at(part.weights().min(rest.len()));
            *rest = others;
            Some((part, own))
        });
        each.filter(move |(_, own)| tiles.is_empty() || own.iter().any(|t| !t.rows.is_empty()))
    }

    fn check(&self, call: Call<'_>) -> Result<(), Error> {
        let (found, expected) = (call.args.len(), self.args);
        if found != expected {
            return Err(Error::Args {
                kernel: self.kind,
                expected,
                found,
            });
        }
        let (found, expected) = (call.tiles.len(), self.weights());
        if found != 0 && found != expected {
            return Err(Error::Weights {
                kernel: self.kind,
                expected,
                found,
            });
        }
        let read_only = |i: &&usize| call.args.get(**i).is_some_and(Slice::is_mapping);
        match self.written.iter().find(read_only) {
            None => Ok(()),
            Some(i) => Err(Error::ReadOnly {
                work: format!("a {} kernel, to argument a{i},", self.kind),
            }),
        }
    }

    fn weights(&self) -> usize {
        self.parts.iter().map(Part::weights).sum()
    }
}
