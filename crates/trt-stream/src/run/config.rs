//! What a streamer is told, and the checks that need no device work.

use super::Error;
use super::weight::{Weight, as_it_lies};
use crate::files::Weights;
use crate::plan::{
    Arrive, Demand, Layout, Limits, Part, Request, Sheet, TileTarget, Tiling, Turning, Use,
    WeightId,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use trt_alloc::Pool;
use trt_device::{Residency, Stream};
use trt_kernel::Role;

/// A program, by its position in [`Config::programs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProgramId(pub u32);

/// What a [`Streamer`](crate::Streamer) is to stream.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the memory comes from; its device is the one that runs.
    pub pool: Pool,
    /// The files.
    pub files: Arc<Weights>,
    /// The weights, which are numbered as here. Those with [`Role::Whole`] are always on the device and
    /// count in the budget, so they should be small; those with [`Role::Table`] are read through the
    /// mapping, not in the budget. A tied table may be streamed too.
    pub weights: Vec<Weight>,
    /// The stream on which the caller launches kernels.
    pub compute: Stream,
    /// For each program, what it reads by rows, in the order in which a pass uses it.
    pub programs: Vec<Vec<Use>>,
    /// Which weights share a launch, and whether those of two forms turn plain.
    pub turning: Turning,
    /// How large tiles should be.
    pub tile_target: TileTarget,
    /// The first budget.
    pub request: Request,
    /// Bytes that [`Request::Automatic`] may take at first.
    pub free: u64,
}

/// What of a [`Config`] bounds the budget: it is known before there is anything on a device.
#[derive(Clone, Copy, Debug)]
pub struct Uses<'a> {
    /// As in [`Config::weights`].
    pub weights: &'a [Weight],
    /// As in [`Config::programs`].
    pub programs: &'a [Vec<Use>],
    /// As in [`Config::turning`].
    pub turning: &'a Turning,
    /// How weights become usable on the device.
    pub residency: Residency,
    /// How large tiles should be.
    pub tile_target: TileTarget,
}

impl Uses<'_> {
    /// What will bound the budget.
    ///
    /// # Errors
    /// A weight whose bytes cannot be counted, or whose form cannot be cut.
    pub fn limits(&self) -> Result<Limits, Error> {
        let (lists, _) = distinct(self.programs);
        Ok(self.layout(&lists)?.limits())
    }

    /// Tiles and order of the streamed weights, given the distinct lists of uses.
    fn layout(&self, lists: &[Vec<Use>]) -> Result<Layout, Error> {
        let arrive = as_it_lies(self.residency);
        let tiling = Tiling::cut(&sheets(self.weights, lists, arrive)?, self.tile_target)?;
        let whole = self.weights.iter().filter(|w| w.roles.has(Role::Whole));
        let mut pinned = 0u64;
        for weight in whole {
            pinned = pinned.saturating_add(weight.source_bytes()? as u64);
        }
        Ok(Layout::turning(tiling, lists, pinned, self.turning))
    }
}

impl Config {
    /// What memory gains: needs no device work.
    ///
    /// # Errors
    /// A weight whose bytes cannot be counted, or whose form cannot be cut.
    pub fn demand(&self, weight: f64) -> Result<Demand, Error> {
        let (lists, _) = distinct(&self.programs);
        Ok(self.layout(&lists)?.demand(weight))
    }

    /// Tiles and order of the streamed weights, given the distinct lists of uses.
    pub(super) fn layout(&self, lists: &[Vec<Use>]) -> Result<Layout, Error> {
        self.uses().layout(lists)
    }

    fn uses(&self) -> Uses<'_> {
        Uses {
            weights: &self.weights,
            programs: &self.programs,
            turning: &self.turning,
            residency: self.pool.device().info().residency,
            tile_target: self.tile_target,
        }
    }

    /// Checks that every form lies in its file, and that what is used by rows is there, may be read
    /// so, and is not pinned too. Where in its file a weight starts does not matter: devices that
    /// read it in place do so at any address, or bring it to one.
    pub(super) fn check(&self) -> Result<(), Error> {
        for weight in &self.weights {
            weight.check(&self.files)?;
        }
        let known = |id: WeightId| {
            let count = self.weights.len();
            let weight = self.weights.get(id.0 as usize);
            weight.ok_or(Error::UnknownWeight { id, count })
        };
        for weight in self.turning.together.iter().flatten() {
            known(*weight)?;
        }
        for Use { weight, part } in self.programs.iter().flatten() {
            let info = known(*weight)?;
            let name = || info.name.to_string();
            if info.roles.has(Role::Whole) {
                return Err(Error::TwoRoles { name: name() });
            }
            if !info.roles.has(Role::Rows) {
                return Err(Error::not_in_role(info, Role::Rows));
            }
            let count = info.matrix.experts;
            match part {
                Part::Expert(expert) if *expert as usize >= count => {
                    return Err(Error::NoExpert {
                        name: name(),
                        expert: *expert,
                        count,
                    });
                }
                Part::Expert(_) | Part::All => {}
            }
        }
        Ok(())
    }
}

/// The distinct lists of uses, and which of them each program has.
pub(super) fn distinct(programs: &[Vec<Use>]) -> (Vec<Vec<Use>>, Vec<usize>) {
    let mut lists: Vec<Vec<Use>> = Vec::new();
    let mut list_of = Vec::with_capacity(programs.len());
    for program in programs {
        let known = lists.iter().position(|l| l == program);
        list_of.push(known.unwrap_or(lists.len()));
        if known.is_none() {
            lists.push(program.clone());
        }
    }
    (lists, list_of)
}

/// Bytes and number of fetches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Traffic {
    /// Fetches into the ring.
    pub fetches: u64,
    /// Their bytes, as they cross the link.
    pub bytes: u64,
    /// Bytes of tiles that became resident, as they cross the link.
    pub loaded: u64,
}

/// What is to be cut: the weights that programs use by rows, but for ids of other weights.
fn sheets(weights: &[Weight], lists: &[Vec<Use>], arrive: Arrive) -> Result<Vec<Sheet>, Error> {
    let used: BTreeSet<WeightId> = lists.iter().flatten().map(|u| u.weight).collect();
    let known = used
        .into_iter()
        .filter_map(|id| Some((id, weights.get(id.0 as usize)?)));
    known.map(|(id, weight)| weight.sheet(id, arrive)).collect()
}
