//! What a streamer is told, and the checks that need no device work.

use super::Error;
use crate::files::{TensorId, Weights};
use crate::plan::{Demand, Layout, Limits, Request, Sheet, TileTarget, Tiling};
use std::collections::HashSet;
use std::sync::Arc;
use trt_alloc::Pool;
use trt_device::Stream;

/// A program, by its position in [`Config::programs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProgramId(pub u32);

/// What a [`Streamer`](crate::Streamer) is to stream.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the memory comes from; its device is the one that runs.
    pub pool: Pool,
    /// The weights.
    pub weights: Arc<Weights>,
    /// The stream on which the caller launches kernels.
    pub compute: Stream,
    /// For each program, the streamed weights in the order in which a pass uses them.
    pub programs: Vec<Vec<TensorId>>,
    /// Streamed weights that a kernel needs in one piece, rather than by row ranges.
    pub whole: Vec<TensorId>,
    /// Small weights that are always on the device and count in the budget.
    pub pinned: Vec<TensorId>,
    /// Tables of which rows are gathered: read through the mapping, not in the budget. A tied
    /// table may be streamed too.
    pub mapped: Vec<TensorId>,
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
    /// The weights.
    pub weights: &'a Weights,
    /// As in [`Config::programs`].
    pub programs: &'a [Vec<TensorId>],
    /// As in [`Config::whole`].
    pub whole: &'a [TensorId],
    /// As in [`Config::pinned`].
    pub pinned: &'a [TensorId],
    /// How large tiles should be.
    pub tile_target: TileTarget,
}

impl Uses<'_> {
    /// What will bound the budget.
    pub fn limits(&self) -> Limits {
        let (lists, _) = distinct(self.programs);
        self.layout(&lists).limits()
    }

    /// Tiles and order of the streamed weights, given the distinct lists of uses.
    fn layout(&self, lists: &[Vec<TensorId>]) -> Layout {
        let sheets = sheets(self.weights, lists, self.whole);
        let tiling = Tiling::cut(&sheets, self.tile_target);
        let pinned: HashSet<TensorId> = self.pinned.iter().copied().collect();
        let bytes = |id: &TensorId| self.weights.get(*id).map_or(0, |w| w.bytes() as u64);
        Layout::new(tiling, lists, pinned.iter().map(bytes).sum())
    }
}

impl Config {
    /// What memory gains: needs no device.
    pub fn demand(&self, weight: f64) -> Demand {
        let (lists, _) = distinct(&self.programs);
        self.layout(&lists).demand(weight)
    }

    /// Tiles and order of the streamed weights, given the distinct lists of uses.
    pub(super) fn layout(&self, lists: &[Vec<TensorId>]) -> Layout {
        self.uses().layout(lists)
    }

    fn uses(&self) -> Uses<'_> {
        Uses {
            weights: &self.weights,
            programs: &self.programs,
            whole: &self.whole,
            pinned: &self.pinned,
            tile_target: self.tile_target,
        }
    }
}

/// The distinct lists of uses, and which of them each program has.
pub(super) fn distinct(programs: &[Vec<TensorId>]) -> (Vec<Vec<TensorId>>, Vec<usize>) {
    let mut lists: Vec<Vec<TensorId>> = Vec::new();
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
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of tiles that became resident.
    pub loaded: u64,
}

/// What is to be cut: the weights of the programs, but for ids of other weights.
pub(super) fn sheets(weights: &Weights, lists: &[Vec<TensorId>], whole: &[TensorId]) -> Vec<Sheet> {
    let whole: HashSet<TensorId> = whole.iter().copied().collect();
    let used: HashSet<TensorId> = lists.iter().flatten().copied().collect();
    used.into_iter()
        .filter_map(|weight| {
            let info = weights.get(weight)?;
            Some(Sheet {
                weight,
                rows: info.rows(),
                row_bytes: info.bytes() / info.rows().max(1),
                whole: whole.contains(&weight),
            })
        })
        .collect()
}

/// Checks that every weight exists, and is not both pinned and streamed. Where in its file a weight
/// starts does not matter: devices that read it in place do so at any address, or bring it to one.
pub(super) fn check_roles(config: &Config) -> Result<(), Error> {
    let streamed: HashSet<TensorId> = config.programs.iter().flatten().copied().collect();
    let all = streamed.iter().chain(&config.pinned).chain(&config.mapped);
    for &id in all {
        config.weights.get(id).ok_or(Error::UnknownWeight {
            id,
            count: config.weights.len(),
        })?;
    }
    match config.pinned.iter().find(|id| streamed.contains(id)) {
        Some(&id) => Err(Error::TwoRoles {
            name: config.weights.info(id).name.clone(),
        }),
        None => Ok(()),
    }
}
