//! Schedules against the simulator, on random programs and budgets.

use proptest::prelude::*;
use trt_stream::{Layout, Runs, Sheet, Split, Step, TensorId, TileTarget, Tiling, simulate};

/// Weights of random sizes, used in a random order, some twice and some whole.
#[derive(Clone, Debug)]
struct Program {
    sheets: Vec<Sheet>,
    uses: Vec<TensorId>,
    pinned: u64,
    target: u64,
}

fn programs() -> impl Strategy<Value = Program> {
    let sheet = (1usize..2000, 1usize..40, prop::bool::weighted(0.1));
    (
        prop::collection::vec(sheet, 1..12),
        0u64..5000,
        500u64..20_000,
    )
        .prop_flat_map(|(sheets, pinned, target)| {
            let count = sheets.len();
            let sheets: Vec<Sheet> = sheets
                .into_iter()
                .enumerate()
                .map(|(i, (rows, row_bytes, whole))| Sheet {
                    weight: TensorId(i as u32),
                    rows,
                    row_bytes,
                    whole,
                })
                .collect();
            let every = Just((0..count as u32).collect::<Vec<_>>()).prop_shuffle();
            let extra = prop::collection::vec(0..count as u32, 0..3);
            (every, extra).prop_map(move |(every, extra)| Program {
                sheets: sheets.clone(),
                uses: every.into_iter().chain(extra).map(TensorId).collect(),
                pinned,
                target,
            })
        })
}

impl Program {
    fn layout(&self) -> Layout {
        let tiling = Tiling::cut(&self.sheets, TileTarget::Bytes(self.target));
        Layout::new(tiling, std::slice::from_ref(&self.uses), self.pinned)
    }

    /// Streamed bytes in the third cycle of a proven schedule.
    fn streamed(&self, layout: &Layout, budget: u64, runs: Runs) -> u64 {
        let split = layout.split(budget);
        let cycle = layout.cycle(&split, &self.uses, runs);
        let account = simulate(
            layout.tiling(),
            &self.uses,
            self.pinned,
            &split,
            &cycle,
            budget,
            3,
        );
        account
            .unwrap_or_else(|v| panic!("budget {budget}: {v}\n{cycle}"))
            .streamed
    }
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
        let layout = program.layout();
        for budget in budgets(&layout, 17) {
            program.streamed(&layout, budget, Runs::Apart);
            program.streamed(&layout, budget, Runs::Adjacent);
        }
    }

    #[test]
    fn streamed_bytes_never_grow_with_the_budget(program in programs()) {
        let layout = program.layout();
        let mut last = u64::MAX;
        for budget in budgets(&layout, 97) {
            let streamed = program.streamed(&layout, budget, Runs::Apart);
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
        let layout = program.layout();
        let few = Program {
            uses: program.uses[..=pick.index(program.uses.len())].to_vec(),
            ..program
        };
        for budget in budgets(&layout, 7) {
            few.streamed(&layout, budget, Runs::Adjacent);
        }
    }
}

fn uniform(weights: u32, rows: usize) -> (Layout, Vec<TensorId>) {
    let uses: Vec<TensorId> = (0..weights).map(TensorId).collect();
    let sheets: Vec<Sheet> = uses
        .iter()
        .map(|&weight| Sheet {
            weight,
            rows,
            row_bytes: 10,
            whole: false,
        })
        .collect();
    let tiling = Tiling::cut(&sheets, TileTarget::Bytes(640));
    (Layout::new(tiling, std::slice::from_ref(&uses), 0), uses)
}

#[test]
fn the_floor_is_two_slots_and_everything_streams() {
    let (layout, _) = uniform(4, 128);
    let split = layout.split(layout.limits().floor());
    assert_eq!(
        (split.slots, split.slot_bytes, split.resident_bytes),
        (2, 640, 0)
    );
}

#[test]
fn at_the_total_nothing_is_fetched_and_each_weight_is_one_launch_in_place() {
    let (layout, uses) = uniform(4, 128);
    let split = layout.split(layout.limits().total);
    assert_eq!(split.slots, 0);
    let cycle = layout.cycle(&split, &uses, Runs::Adjacent);
    assert_eq!((cycle.fetches.len(), cycle.steps.len()), (0, 4));
}

#[test]
fn the_ring_grows_with_the_budget() {
    let (layout, _) = uniform(16, 128);
    let slots = |tiles: u64| layout.split(tiles * 640).slots;
    assert_eq!([2, 6, 7, 11, 31, 32].map(slots), [2, 2, 3, 4, 4, 0]);
}

#[test]
fn a_schedule_prints_as_it_runs() {
    let (layout, uses) = uniform(3, 128);
    let split = layout.split(2 * 640 + 2 * 640);
    let cycle = layout.cycle(&split, &uses, Runs::Adjacent);
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
    let (layout, uses) = uniform(3, 128);
    let budget = 4 * 640;
    let split = layout.split(budget);
    let good = layout.cycle(&split, &uses, Runs::Apart);
    let verdict = |cycle: &trt_stream::Cycle, budget| {
        simulate(layout.tiling(), &uses, 0, &split, cycle, budget, 2).map_err(|v| v.what)
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
