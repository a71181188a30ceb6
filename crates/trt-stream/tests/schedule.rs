//! Schedules against the simulator, on random programs and budgets.

#[path = "support/programs.rs"]
mod programs;
#[path = "schedule/turning.rs"]
mod turning;

use programs::{Program, budgets, programs, proven};
use proptest::prelude::*;
use std::sync::Arc;
use trt_stream::{Arrive, Cycle, Lane, Layout, Sheet, Split, Step, TileForm, Units, Use, WeightId};

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
        let tiling = layout.tiling();
        let of = |split: &Split, form| {
            let tiles = split.resident.iter().copied();
            tiles.filter(|t| tiling.tile(*t).form == form).collect::<Vec<_>>()
        };
        for pair in splits.windows(2) {
            for form in TileForm::ALL {
                // Packed tiles go from the end as weights turn plain.
                let (less, more) = match (form, pair[1].turned.is_empty()) {
                    (TileForm::Packed, false) if pair[0].slots == 0 => (&pair[1], &pair[0]),
                    (TileForm::Packed, false) => continue,
                    (_, _) => (&pair[0], &pair[1]),
                };
                prop_assert!(of(more, form).starts_with(&of(less, form)));
            }
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
        together: Vec::new(),
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
