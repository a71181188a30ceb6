//! Random programs over weights of one form and of two, and schedules of them held against the
//! simulator.

use proptest::prelude::*;
use std::sync::Arc;
use trt_kernel::ROW_PANEL;
use trt_stream::{
    Account, Arrive, Case, Cycle, Layout, Sheet, Split, TileId, TileTarget, Tiling, Turning, Units,
    Use, Violation, WeightId, simulate,
};

/// Weights of random sizes and forms, used in a random order, some twice and some by expert.
#[derive(Clone, Debug)]
pub struct Program {
    pub sheets: Vec<Sheet>,
    pub uses: Vec<Use>,
    /// Weights that share a launch.
    pub together: Vec<Vec<WeightId>>,
    pub pinned: u64,
    pub target: u64,
}

/// How a weight is packed: panels of a unit, and of each unit how much of 100 is stored.
type Packing = (usize, Vec<usize>);

fn sheet() -> impl Strategy<Value = Sheet> {
    let packing = (1usize..4, prop::collection::vec(0usize..=100, 1..40));
    let sizes = (prop::sample::select(vec![1, 1, 1, 2, 4]), 1usize..2000);
    let form = (prop::bool::weighted(0.5), 0u8..3, packing);
    (sizes, 1usize..40, form).prop_map(|((experts, rows), row_bytes, (packed, how, packing))| {
        let rows = rows.div_ceil(experts);
        let plain = Sheet {
            experts,
            ..Sheet::plain(WeightId(0), rows, row_bytes)
        };
        match packed {
            false => plain,
            true => Sheet {
                units: Some(Arc::new(units(&plain, &packing))),
                arrive: match how {
                    0 => Arrive::Unpack,
                    _ => Arrive::Upload,
                },
                turns: how == 2,
                ..plain
            },
        }
    })
}

fn units(sheet: &Sheet, (panels, stored): &Packing) -> Units {
    let rows = panels * ROW_PANEL;
    let mut offsets = vec![0];
    for unit in 0..sheet.experts * sheet.rows.div_ceil(rows) {
        let bytes = rows * sheet.row_bytes * stored[unit % stored.len()] / 100;
        offsets.push(offsets[unit] + bytes);
    }
    Units::new(rows, offsets).unwrap()
}

pub fn programs() -> impl Strategy<Value = Program> {
    (
        prop::collection::vec(sheet(), 1..12),
        0u64..5000,
        500u64..20_000,
    )
        .prop_flat_map(|(mut sheets, pinned, target)| {
            let count = sheets.len();
            for (i, sheet) in sheets.iter_mut().enumerate() {
                sheet.weight = WeightId(i as u32);
            }
            let every = Just((0..count as u32).collect::<Vec<_>>()).prop_shuffle();
            let extra = prop::collection::vec((0..count as u32, prop::option::of(0u32..4)), 0..5);
            let launch = prop::collection::vec((0..count as u32).prop_map(WeightId), 1..4);
            let together = prop::collection::vec(launch, 0..4);
            (every, extra, together).prop_map(move |(every, extra, together)| {
                let extra = extra.into_iter().map(|(weight, expert)| {
                    let experts = sheets[weight as usize].experts as u32;
                    match expert {
                        None => Use::from(WeightId(weight)),
                        Some(expert) => Use::expert(WeightId(weight), expert % experts),
                    }
                });
                Program {
                    uses: every
                        .into_iter()
                        .map(|w| WeightId(w).into())
                        .chain(extra)
                        .collect(),
                    sheets: sheets.clone(),
                    together,
                    pinned,
                    target,
                }
            })
        })
}

impl Program {
    pub fn layout(&self) -> Layout {
        let tiling = Tiling::cut(&self.sheets, TileTarget::Bytes(self.target)).unwrap();
        let turning = Turning {
            together: self.together.clone(),
            ..Turning::default()
        };
        let lists = std::slice::from_ref(&self.uses);
        Layout::turning(tiling, lists, self.pinned, &turning)
    }

    /// The same where kernels read in place what is not unpacked.
    pub fn in_place(&self) -> Program {
        let sheet = |sheet: &Sheet| match sheet.arrive {
            Arrive::Upload => Sheet {
                arrive: Arrive::Populate,
                ..sheet.clone()
            },
            Arrive::Populate | Arrive::Unpack => sheet.clone(),
        };
        Program {
            sheets: self.sheets.iter().map(sheet).collect(),
            ..self.clone()
        }
    }

    /// Bytes that one use after another reads, as its file stores them: told by the sheets alone.
    fn stored(&self, layout: &Layout, split: &Split) -> u64 {
        let tiling = layout.tiling();
        let tiles = self.uses.iter().flat_map(|u| tiling.of(*u));
        let there = |t: &TileId| {
            let weight = tiling.tile(*t).weight;
            split.resident.contains(t) || split.turned.contains(&weight)
        };
        let streamed = tiles.filter(|t| !there(t));
        let bytes = |t: TileId| {
            let tile = tiling.tile(t);
            let sheet = &self.sheets[tile.weight.0 as usize];
            match &sheet.units {
                None => tile.rows.len() * sheet.row_bytes,
                Some(units) => {
                    let offsets = units.around(tile.rows.clone(), sheet.rows);
                    offsets.last().unwrap() - offsets.first().unwrap()
                }
            }
        };
        streamed.map(|t| bytes(t) as u64).sum()
    }

    /// Streamed bytes in the third cycle of a proven schedule.
    pub fn streamed(&self, layout: &Layout, budget: u64) -> u64 {
        let split = layout.split(budget);
        let cycle = layout.cycle(&split, &self.uses);
        let account = proven(layout, self, &split, &cycle, budget, 3);
        let account = account.unwrap_or_else(|v| panic!("budget {budget}: {v}\n{cycle}"));
        assert_eq!(account.streamed, self.stored(layout, &split));
        account.streamed
    }
}

pub fn proven(
    layout: &Layout,
    program: &Program,
    split: &Split,
    cycle: &Cycle,
    budget: u64,
    cycles: usize,
) -> Result<Account, Violation> {
    let case = Case {
        tiling: layout.tiling(),
        uses: &program.uses,
        together: &program.together,
        pinned: program.pinned,
        split,
        cycle,
        budget,
    };
    simulate(&case, cycles)
}

/// Budgets from the floor to the total.
pub fn budgets(layout: &Layout, count: u64) -> impl Iterator<Item = u64> + use<> {
    let limits = layout.limits();
    let (floor, total) = (limits.floor(), limits.total);
    (0..=count).map(move |i| floor + (total - floor) * i / count)
}
