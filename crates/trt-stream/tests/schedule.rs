//! Schedules against the simulator, on random programs and budgets.

use proptest::prelude::*;
use std::sync::Arc;
use trt_kernel::ROW_PANEL;
use trt_stream::{
    Account, Arrive, Case, Cycle, Lane, Layout, Sheet, Split, Step, TileId, TileTarget, Tiling,
    Units, Use, Violation, WeightId, simulate,
};

/// Weights of random sizes and forms, used in a random order, some twice and some by expert.
#[derive(Clone, Debug)]
struct Program {
    sheets: Vec<Sheet>,
    uses: Vec<Use>,
    pinned: u64,
    target: u64,
}

/// How a weight is packed: panels of a unit, and of each unit how much of 100 is stored.
type Packing = (usize, Vec<usize>);

fn sheet() -> impl Strategy<Value = Sheet> {
    let packing = (1usize..4, prop::collection::vec(0usize..=100, 1..40));
    let sizes = (prop::sample::select(vec![1, 1, 1, 2, 4]), 1usize..2000);
    let form = (prop::bool::weighted(0.3), prop::bool::ANY, packing);
    (sizes, 1usize..40, form).prop_map(
        |((experts, rows), row_bytes, (packed, unpacks, packing))| {
            let rows = rows.div_ceil(experts);
            let plain = Sheet {
                experts,
                ..Sheet::plain(WeightId(0), rows, row_bytes)
            };
            match packed {
                false => plain,
                true => Sheet {
                    units: Some(Arc::new(units(&plain, &packing))),
                    arrive: match unpacks {
                        true => Arrive::Unpack,
                        false => Arrive::Upload,
                    },
                    ..plain
                },
            }
        },
    )
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

fn programs() -> impl Strategy<Value = Program> {
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
            (every, extra).prop_map(move |(every, extra)| {
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
                    pinned,
                    target,
                }
            })
        })
}

impl Program {
    fn layout(&self) -> Layout {
        let tiling = Tiling::cut(&self.sheets, TileTarget::Bytes(self.target)).unwrap();
        Layout::new(tiling, std::slice::from_ref(&self.uses), self.pinned)
    }

    /// The same where kernels read in place what is not unpacked.
    fn in_place(&self) -> Program {
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
    fn stored(&self, layout: &Layout, resident: &[TileId]) -> u64 {
        let tiling = layout.tiling();
        let tiles = self.uses.iter().flat_map(|u| tiling.of(*u));
        let streamed = tiles.filter(|t| !resident.contains(t));
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
    fn streamed(&self, layout: &Layout, budget: u64) -> u64 {
        let split = layout.split(budget);
        let cycle = layout.cycle(&split, &self.uses);
        let account = proven(layout, self, &split, &cycle, budget, 3);
        let account = account.unwrap_or_else(|v| panic!("budget {budget}: {v}\n{cycle}"));
        assert_eq!(account.streamed, self.stored(layout, &split.resident));
        account.streamed
    }
}

fn proven(
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
        pinned: program.pinned,
        split,
        cycle,
        budget,
    };
    simulate(&case, cycles)
}

/// Budgets from the floor to the total.
fn budgets(layout: &Layout, count: u64) -> impl Iterator<Item = u64> + use<> {
    let limits = layout.limits();
    let (floor, total) = (limits.floor(), limits.total);
    (0..=count).map(move |i| floor + (total - floor) * i / count)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_launch_finds_its_rows_within_the_budget(program in programs()) {
        for program in [program.in_place(), program] {
            let layout = program.layout();
            for budget in budgets(&layout, 17) {
                program.streamed(&layout, budget);
            }
        }
    }

    #[test]
    fn streamed_bytes_never_grow_with_the_budget(program in programs()) {
        let layout = program.layout();
        let mut last = u64::MAX;
        for budget in budgets(&layout, 97) {
            let streamed = program.streamed(&layout, budget);
            prop_assert!(streamed <= last, "{} after {} at {}", streamed, last, budget);
            last = streamed;
        }
        prop_assert_eq!(last, 0);
    }

    #[test]
    fn a_larger_budget_keeps_what_a_smaller_one_holds(program in programs()) {
        let layout = program.layout();
        let splits: Vec<Split> = budgets(&layout, 31).map(|b| layout.split(b)).collect();
        for pair in splits.windows(2) {
            prop_assert!(pair[1].resident.starts_with(&pair[0].resident));
        }
    }

    #[test]
    fn a_program_over_some_of_the_weights_is_proven_too(
        program in programs(),
        pick in any::<prop::sample::Index>(),
    ) {
        let program = program.in_place();
        let layout = program.layout();
        let few = Program {
            uses: program.uses[..=pick.index(program.uses.len())].to_vec(),
            ..program
        };
        for budget in budgets(&layout, 7) {
            few.streamed(&layout, budget);
        }
    }
}

fn uniform(weights: u32, rows: usize, arrive: Arrive) -> (Layout, Program) {
    let sheet = |weight| Sheet {
        arrive,
        ..Sheet::plain(WeightId(weight), rows, 10)
    };
    let program = Program {
        sheets: (0..weights).map(sheet).collect(),
        uses: (0..weights).map(|w| WeightId(w).into()).collect(),
        pinned: 0,
        target: 640,
    };
    (program.layout(), program)
}

#[test]
fn the_floor_is_two_slots_and_everything_streams() {
    let (layout, _) = uniform(4, 128, Arrive::Upload);
    let split = layout.split(layout.limits().floor());
    assert_eq!(
        (split.slots, split.slot_bytes, split.resident_bytes),
        (2, 640, 0)
    );
}

#[test]
fn at_the_total_nothing_is_fetched_and_each_weight_is_one_launch_in_place() {
    let (layout, program) = uniform(4, 128, Arrive::Populate);
    let split = layout.split(layout.limits().total);
    assert_eq!(split.slots, 0);
    let cycle = layout.cycle(&split, &program.uses);
    assert_eq!((cycle.fetches.len(), cycle.steps.len()), (0, 4));
}

#[test]
fn the_ring_grows_with_the_budget() {
    let (layout, _) = uniform(16, 128, Arrive::Upload);
    let slots = |tiles: u64| layout.split(tiles * 640).slots;
    assert_eq!([2, 6, 7, 11, 31, 32].map(slots), [2, 2, 3, 4, 4, 0]);
}

#[test]
fn a_schedule_prints_as_it_runs() {
    let (layout, program) = uniform(3, 128, Arrive::Populate);
    let split = layout.split(2 * 640 + 2 * 640);
    let cycle = layout.cycle(&split, &program.uses);
    let expected = "\
cycle of 3 uses, 4 fetches, 2 slots moved by 0
  before: fetch t1 -> s0
  before: fetch t2 -> s1
  launch u0 rows 0..64 in t0
  launch u0 rows 64..128 in t1 after fetches 0..1
  release s0
  fetch t4 -> s0
  launch u1 rows 0..64 in t2 after fetches 1..2
  release s1
  fetch t5 -> s1
  launch u1 rows 64..128 in t3
  launch u2 rows 0..64 in t4 after fetches 2..3
  release s0
  fetch t1 -> s0
  launch u2 rows 64..128 in t5 after fetches 3..4
  release s1
  fetch t2 -> s1
";
    assert_eq!(cycle.to_string(), expected);
}

#[test]
fn the_simulator_refuses_broken_schedules() {
    let (layout, program) = uniform(3, 128, Arrive::Upload);
    let budget = 4 * 640;
    let split = layout.split(budget);
    let good = layout.cycle(&split, &program.uses);
    let verdict = |cycle: &Cycle, budget| {
        proven(&layout, &program, &split, cycle, budget, 2).map_err(|v| v.what)
    };
    assert!(verdict(&good, budget).is_ok());
    assert!(verdict(&good, budget - 1).unwrap_err().contains("budget"));
    for missing in 0..good.steps.len() {
        let mut bad = good.clone();
        bad.steps.remove(missing);
        assert!(verdict(&bad, budget).is_err(), "without step {missing}");
    }
    for next in 1..good.steps.len() {
        let ordered = match (&good.steps[next - 1], &good.steps[next]) {
            (Step::Launch { .. }, Step::Launch { .. }) => true,
            (Step::Launch { .. }, Step::Release { .. }) => true,
            (Step::Release { .. }, Step::Fetch { .. }) => true,
            // These may change places: a fetch that comes a launch later is only later.
            (_, _) => false,
        };
        let mut bad = good.clone();
        bad.steps.swap(next - 1, next);
        assert_eq!(verdict(&bad, budget).is_err(), ordered, "{next} swapped");
    }
}

#[test]
fn the_simulator_refuses_a_launch_where_its_tiles_are_not() {
    let (layout, program) = uniform(3, 128, Arrive::Upload);
    let split = layout.split(4 * 640);
    let mut bad = layout.cycle(&split, &program.uses);
    let launch = |s: &&mut Step| matches!(s, Step::Launch { .. });
    if let Some(Step::Launch { lane, .. }) = bad.steps.iter_mut().find(launch) {
        *lane = Lane::Device(1);
    }
    let why = proven(&layout, &program, &split, &bad, 4 * 640, 1).unwrap_err();
    let text = "launch u0 rows 0..64 on device 1 in t0: device 1 holds nothing";
    assert_eq!(why.what, text);
}

#[test]
fn the_simulator_counts_what_waits_to_be_unpacked() {
    let (_, mut program) = uniform(2, 256, Arrive::Upload);
    for sheet in &mut program.sheets {
        sheet.arrive = Arrive::Unpack;
        let units = Units::new(64, vec![0, 100, 300, 310, 500]).unwrap();
        sheet.units = Some(Arc::new(units));
    }
    let layout = program.layout();
    let limits = layout.limits();
    assert_eq!((limits.staging, limits.slot_bytes), (400, 640));
    assert_eq!(limits.floor(), 400 + 2 * 640);
    let split = layout.split(limits.floor());
    let cycle = layout.cycle(&split, &program.uses);
    let verdict = |split: &Split, budget| proven(&layout, &program, split, &cycle, budget, 2);
    assert_eq!(verdict(&split, limits.floor()).unwrap().streamed, 1000);
    assert!(verdict(&split, limits.floor() - 1).is_err());
    let unstaged = Split {
        staging: 399,
        ..split
    };
    let why = verdict(&unstaged, limits.floor()).unwrap_err();
    assert!(why.what.contains("staging"), "{why}");
}

#[test]
fn a_pass_may_use_expert_two_and_then_expert_zero_of_four() {
    let (_, mut program) = uniform(1, 100, Arrive::Populate);
    program.sheets[0].experts = 4;
    program.uses = [2, 0].map(|e| Use::expert(WeightId(0), e)).to_vec();
    let layout = program.layout();
    let split = layout.split(layout.limits().floor());
    let cycle = layout.cycle(&split, &program.uses);
    let expected = "\
cycle of 2 uses, 4 fetches, 2 slots moved by 0
  before: fetch t4 -> s0
  before: fetch t5 -> s1
  launch u0 rows 0..64 in t4 after fetches 0..1
  release s0
  fetch t0 -> s0
  launch u0 rows 64..100 in t5 after fetches 1..2
  release s1
  fetch t1 -> s1
  launch u1 rows 0..64 in t0 after fetches 2..3
  release s0
  fetch t4 -> s0
  launch u1 rows 64..100 in t1 after fetches 3..4
  release s1
  fetch t5 -> s1
";
    assert_eq!(cycle.to_string(), expected);
    assert_eq!(program.streamed(&layout, layout.limits().floor()), 2000);
}
