//! Weights that are packed while anything streams, and turn plain with what is left of the budget.

use super::programs::{Program, budgets, programs, proven};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;
use trt_stream::{
    Cycle, Layout, Sheet, Split, TileForm, TileTarget, Tiling, Turning, Units, Use, WeightId, share,
};

/// Weights of four tiles of 640 bytes, packed to 320, of which some share a launch.
fn uniform(weights: u32, together: &[&[u32]]) -> (Layout, Program) {
    let offsets: Vec<usize> = (0..=4).map(|unit| unit * 320).collect();
    let sheet = |weight| Sheet {
        units: Some(Arc::new(Units::new(64, offsets.clone()).unwrap())),
        turns: true,
        ..Sheet::plain(WeightId(weight), 256, 10)
    };
    let launch = |weights: &&[u32]| weights.iter().copied().map(WeightId).collect();
    let program = Program {
        sheets: (0..weights).map(sheet).collect(),
        uses: (0..weights).map(|w| WeightId(w).into()).collect(),
        together: together.iter().map(launch).collect(),
        pinned: 0,
        target: 640,
    };
    (program.layout(), program)
}

fn turned(layout: &Layout, budget: u64) -> Vec<u32> {
    let split = layout.split(budget);
    split.turned.iter().map(|w| w.0).collect()
}

/// The same program where nothing turns.
fn packed_only(program: &Program) -> Layout {
    let tiling = Tiling::cut(&program.sheets, TileTarget::Bytes(program.target)).unwrap();
    let turning = Turning {
        together: program.together.clone(),
        prefer_plain: false,
    };
    let lists = std::slice::from_ref(&program.uses);
    Layout::turning(tiling, lists, program.pinned, &turning)
}

#[test]
fn groups_turn_one_after_another_once_everything_is_resident() {
    let (layout, program) = uniform(4, &[&[1, 2]]);
    let limits = layout.limits();
    assert_eq!((limits.still(), limits.total), (4 * 1280, 4 * 2560));
    assert_eq!((limits.whole(), limits.floor()), (4 * 2560, 2 * 320));
    // Resident are 0, then 1 and 2, then 3; from the end of that they turn.
    let at = |bytes| turned(&layout, bytes);
    assert_eq!(at(4 * 1280 - 1), [0; 0]);
    assert_eq!(at(4 * 1280 + 1279), [0; 0]);
    assert_eq!(at(4 * 1280 + 1280), [3]);
    assert_eq!(at(4 * 1280 + 3 * 1280 - 1), [3]);
    assert_eq!(at(4 * 1280 + 3 * 1280), [1, 2, 3]);
    assert_eq!(at(4 * 2560), [0, 1, 2, 3]);
    let split = layout.split(4 * 1280 + 1280);
    assert_eq!((split.resident_bytes, split.packed_bytes), (6400, 3840));
    assert_eq!(split.slots, 0);
    assert_eq!(program.streamed(&layout, 4 * 1280), 0);
    assert!(program.streamed(&layout, 4 * 1280 - 1) > 0);
}

#[test]
fn packed_tiles_of_a_launch_become_resident_together() {
    let (layout, _) = uniform(5, &[&[0, 3], &[4, 3]]);
    let tiling = layout.tiling();
    let weights = layout.order().iter().map(|t| tiling.tile(*t).weight.0);
    let mut runs: Vec<u32> = weights.collect();
    runs.dedup_by_key(|w| if [0, 3, 4].contains(w) { 9 } else { *w });
    assert_eq!(runs.len(), 3, "{runs:?}");
    let groups = layout.groups().iter();
    let groups: Vec<usize> = groups.map(|g| g.weights.len()).collect();
    assert_eq!(groups.iter().sum::<usize>(), 5);
    assert!(groups.contains(&3), "{groups:?}");
}

#[test]
fn the_simulator_refuses_a_launch_in_two_forms() {
    let (layout, program) = uniform(3, &[&[0, 2]]);
    let budget = layout.limits().total;
    let good = layout.split(budget);
    let held = |split: &Split, cycle: &Cycle| {
        proven(&layout, &program, split, cycle, budget, 1).map_err(|v| v.what)
    };
    let verdict = |split: &Split| held(split, &layout.cycle(split, &program.uses));
    let of_good = layout.cycle(&good, &program.uses);
    assert!(held(&good, &of_good).is_ok());
    let tiling = layout.tiling();
    let with = |weights: &[u32]| {
        let id = |w: &u32| WeightId(*w);
        let turned: Vec<WeightId> = weights.iter().map(id).collect();
        let tiles = |w: u32| -> Vec<_> {
            let what = Use::from(WeightId(w));
            match turned.contains(&what.weight) {
                true => tiling.plain_of(what).collect(),
                false => tiling.of(what).collect(),
            }
        };
        let resident: Vec<_> = (0..3).flat_map(tiles).collect();
        let bytes = |form| {
            let held = resident.iter().map(|t| tiling.tile(*t));
            let held = held.filter(|t| t.form == form);
            held.map(|t| t.held_bytes()).sum::<u64>()
        };
        Split {
            resident_bytes: bytes(TileForm::Packed) + bytes(TileForm::Plain),
            packed_bytes: bytes(TileForm::Packed),
            turned,
            resident,
            ..good.clone()
        }
    };
    assert!(verdict(&with(&[1])).is_ok() && verdict(&with(&[0, 2])).is_ok());
    assert!(verdict(&with(&[0])).unwrap_err().contains("in two forms"));
    // One weight in both forms, and one that is read in a form that is not there.
    let mut both = good.clone();
    both.resident[0] = tiling.of(WeightId(0).into()).next().unwrap();
    both.resident_bytes = 3 * 2560 - 320;
    assert!(held(&both, &of_good).unwrap_err().contains("others are"));
    let elsewhere = Split {
        turned: Vec::new(),
        ..good.clone()
    };
    let why = held(&elsewhere, &of_good).unwrap_err();
    assert!(why.contains("not the form in force"), "{why}");
}

#[test]
fn what_streams_comes_before_what_turns_when_engines_share() {
    let (layout, _) = uniform(4, &[]);
    let demand = layout.demand(1.0);
    let (still, total) = (layout.limits().still(), layout.limits().total);
    for budget in [2 * still, still + total, 2 * total] {
        let shares = share(budget, &[demand.clone(), demand.clone()]).unwrap();
        assert_eq!(shares.bytes.iter().sum::<u64>(), budget);
        // As equal as a weight that turns allows.
        assert!(
            shares.bytes[0].abs_diff(shares.bytes[1]) <= 1280,
            "{shares:?}"
        );
    }
    // The second's time matters a thousandth as much, and it has everything before the first turns.
    let other = layout.demand(0.001);
    let shares = share(2 * still, &[demand, other]).unwrap();
    let least: u64 = *shares.bytes.iter().min().unwrap();
    assert!(still - least <= 640, "{shares:?} of {still}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn nothing_is_plain_while_anything_streams(program in programs()) {
        let layout = program.layout();
        let limits = layout.limits();
        prop_assert!(limits.floor() <= limits.still() && limits.still() <= limits.total);
        let before = limits.still().checked_sub(1).filter(|b| *b >= limits.floor());
        let around = before.into_iter().chain([limits.still(), limits.total]);
        for budget in budgets(&layout, 31).chain(around) {
            let split = layout.split(budget);
            let streams = program.streamed(&layout, budget) > 0;
            prop_assert!(split.turned.is_empty() || split.slots == 0);
            prop_assert!(!streams || budget < limits.still(), "{budget} of {limits:?}");
            let tiles = split.resident.iter().map(|t| layout.tiling().tile(*t));
            let packed = tiles.filter(|t| t.form == TileForm::Packed);
            prop_assert_eq!(packed.map(|t| t.held_bytes()).sum::<u64>(), split.packed_bytes);
        }
    }

    #[test]
    fn weights_only_ever_turn_plain_with_more_and_all_are_at_the_total(program in programs()) {
        let layout = program.layout();
        let mut before = BTreeSet::new();
        for budget in budgets(&layout, 63) {
            let now: BTreeSet<WeightId> = layout.split(budget).turned.into_iter().collect();
            prop_assert!(now.is_superset(&before));
            before = now;
        }
        let all: BTreeSet<WeightId> = layout.tiling().turning().collect();
        prop_assert_eq!(&before, &all);
        let split = layout.split(layout.limits().total);
        prop_assert_eq!(split.packed_bytes, 0);
        let plain = |s: &Sheet| match s.turns {
            true => (s.experts * s.rows * s.row_bytes) as u64,
            false => layout.tiling().of(s.weight.into()).map(|t| layout.tiling().tile(t).held_bytes()).sum(),
        };
        let plain: u64 = program.sheets.iter().map(plain).sum();
        prop_assert_eq!(split.resident_bytes, plain);
        prop_assert_eq!(layout.limits().whole(), plain + program.pinned + split.staging);
    }

    #[test]
    fn where_packed_is_preferred_nothing_turns_and_shares_mean_the_same(program in programs()) {
        let (layout, packed) = (program.layout(), packed_only(&program));
        let (limits, fewer) = (layout.limits(), packed.limits());
        prop_assert_eq!(fewer.total, limits.still());
        prop_assert_eq!(fewer.whole(), limits.whole());
        prop_assert_eq!(fewer.floor(), limits.floor());
        prop_assert_eq!(packed.order(), layout.order());
        for budget in budgets(&layout, 15) {
            prop_assert!(packed.split(budget).turned.is_empty());
            let same = budget < limits.still();
            prop_assert!(!same || packed.split(budget) == layout.split(budget));
        }
    }
}
