//! Predicted times on layouts and rates of known numbers.

#[path = "timing/turning.rs"]
mod turning;

use proptest::prelude::*;
use std::sync::Arc;
use std::time::Duration;
use trt_kernel::ROW_PANEL;
use trt_stream::{
    Arrive, Costs, Layout, Rates, Sheet, TileTarget, Tiling, Timed, Units, Use, WeightId,
};

/// `count` weights of 1 MB in tiles of about 64 KB, used one after the other.
fn layout(count: u32) -> (Layout, Vec<Use>) {
    let sheet = |i| Sheet::plain(WeightId(i), 1024, 1000);
    let sheets: Vec<Sheet> = (0..count).map(sheet).collect();
    let uses: Vec<Use> = sheets.iter().map(|s| s.weight.into()).collect();
    let tiling = Tiling::cut(&sheets, TileTarget::Bytes(64_000)).unwrap();
    (Layout::new(tiling, std::slice::from_ref(&uses), 0), uses)
}

/// 100 MB/s over the link, 10 GB/s from memory.
const COSTS: Costs = Costs {
    link: 1e8,
    memory: 1e10,
    settled: 0.002,
    packed: 0.0,
    streaming: 0.003,
    contention: 0.0,
};

fn near(found: f64, expected: f64, part: f64) {
    assert!(
        (found / expected - 1.0).abs() <= part,
        "{found} is not {expected}"
    );
}

#[test]
fn a_slow_link_alone_decides() {
    let (layout, uses) = layout(20);
    let total = layout.limits().total;
    let half = layout.predict(&uses, total / 2, &COSTS);
    assert!(half.link_bytes >= total / 2, "{half:?}");
    near(half.link_seconds, half.link_bytes as f64 / 1e8, 1e-9);
    near(half.seconds, half.link_seconds, 0.02);
}

#[test]
fn a_fast_link_hides_behind_computing() {
    let (layout, uses) = layout(20);
    let costs = Costs {
        link: 1e11,
        ..COSTS
    };
    let half = layout.predict(&uses, layout.limits().total / 2, &costs);
    near(half.seconds, 0.003, 0.02);
}

#[test]
fn contention_adds_a_part_of_the_copying_to_computing() {
    let (layout, uses) = layout(20);
    let costs = Costs {
        link: 1e10,
        contention: 0.5,
        ..COSTS
    };
    let floor = layout.predict(&uses, layout.limits().floor(), &costs);
    near(floor.contention_seconds, floor.link_seconds / 2.0, 1e-9);
    near(floor.seconds, 0.003 + floor.contention_seconds, 0.02);
}

#[test]
fn with_everything_there_nothing_is_copied() {
    let (layout, uses) = layout(20);
    let full = layout.predict(&uses, layout.limits().total, &COSTS);
    assert_eq!((full.link_bytes, full.link_seconds), (0, 0.0));
    near(full.seconds, 0.002, 1e-6);
    near(full.memory_seconds, 20.48e6 / 1e10, 1e-9);
    assert_eq!(full.launch_seconds, 0.0);
}

#[test]
fn two_slots_let_copying_and_computing_of_equal_length_overlap() {
    // One weight of three tiles through two slots; copying takes as long as computing.
    let sheet = Sheet::plain(WeightId(0), 192, 1000);
    let tiling = Tiling::cut(&[sheet], TileTarget::Bytes(64_000)).unwrap();
    let uses = vec![WeightId(0).into()];
    let layout = Layout::new(tiling, std::slice::from_ref(&uses), 0);
    let costs = Costs {
        link: 1e8,
        settled: 0.00192,
        streaming: 0.00192,
        ..COSTS
    };
    let floor = layout.predict(&uses, layout.limits().floor(), &costs);
    assert_eq!(floor.link_bytes, 192_000);
    near(floor.seconds, 0.00192, 0.05);
}

#[test]
fn a_latency_that_no_budget_reaches_has_none() {
    let (layout, uses) = layout(20);
    let total = layout.limits().total;
    let ask = |micros| layout.budget_for(&uses, Duration::from_micros(micros), total, &COSTS);
    assert_eq!(ask(1999), None);
    assert_eq!(ask(2001), Some(total));
    assert_eq!(ask(10_000_000), Some(layout.limits().floor()));
}

#[test]
fn fitting_finds_the_costs_that_calls_were_timed_with() {
    let (layout, uses) = layout(40);
    let limits = layout.limits();
    let rates = Rates {
        link: 2e9,
        memory: 1e10,
    };
    let shares = [0, 25, 50, 75, 100].map(|p| (limits.total * p / 100).max(limits.floor()));
    for (link, contention) in [(1e8, 0.0), (1e9, 0.3), (3e9, 0.8), (4e9, 0.0)] {
        let costs = Costs {
            link,
            contention,
            settled: 0.020,
            streaming: 0.022,
            ..COSTS
        };
        let measured = |budget| layout.predict(&uses, budget, &costs).seconds;
        let timed = [0, limits.total / 2, limits.total - 1, limits.total].map(|budget| Timed {
            budget,
            seconds: measured(budget),
        });
        let fitted = Costs::fit(&layout, &uses, &rates, &timed);
        for budget in shares {
            let found = layout.predict(&uses, budget, &fitted).seconds;
            near(found, measured(budget), 0.02);
        }
    }
}

#[test]
fn at_the_knee_the_link_is_busy_as_long_as_a_call_computes() {
    let (layout, uses) = layout(40);
    let limits = layout.limits();
    let knee = |costs| layout.knee(&uses, limits.floor()..=limits.total, &costs);
    let costs = Costs {
        link: 1e9,
        streaming: 0.020,
        ..COSTS
    };
    let at = layout.predict(&uses, knee(costs).expect("between"), &costs);
    near(at.link_seconds, 0.020, 0.02);
    // All copying is hidden, or none of it.
    assert_eq!(
        knee(Costs {
            link: 1e12,
            ..costs
        }),
        None
    );
    assert_eq!(
        layout.knee(&uses, limits.floor()..=limits.floor() + 1, &costs),
        None
    );
}

#[test]
fn calls_at_the_knee_show_what_fetches_cost_though_their_times_vary() {
    let (layout, uses) = layout(40);
    let limits = layout.limits();
    let rates = Rates {
        link: 1e9,
        memory: 1e10,
    };
    let costs = Costs {
        link: 1e9,
        contention: 0.4,
        settled: 0.006,
        streaming: 0.012,
        ..COSTS
    };
    let exact = |budget| layout.predict(&uses, budget, &costs).seconds;
    let between = limits.floor()..=limits.total;
    for (a, b) in [(0.98, 1.02), (1.02, 0.98), (0.98, 0.98), (1.02, 1.02)] {
        let timed = |budget, off| Timed {
            budget,
            seconds: exact(budget) * off,
        };
        let first = [limits.floor(), limits.total - 1, limits.total].map(|b| timed(b, a));
        let known = Costs::fit(&layout, &uses, &rates, &first);
        let knee = layout
            .knee(&uses, between.clone(), &known)
            .expect("between");
        let all = [first.as_slice(), &[timed(knee, b)]].concat();
        let fitted = Costs::fit(&layout, &uses, &rates, &all);
        for percent in [100, 90, 75, 50, 25, 0] {
            let budget = (limits.total * percent / 100).max(limits.floor());
            near(
                layout.predict(&uses, budget, &fitted).seconds,
                exact(budget),
                0.08,
            );
        }
    }
}

#[test]
fn without_a_call_at_the_full_budget_the_link_is_found() {
    let (layout, uses) = layout(40);
    let limits = layout.limits();
    let rates = Rates {
        link: 2e9,
        memory: 1e11,
    };
    let timed = [limits.floor(), limits.total / 2].map(|budget| Timed {
        budget,
        seconds: layout.predict(&uses, budget, &COSTS).seconds,
    });
    let fitted = Costs::fit(&layout, &uses, &rates, &timed);
    near(fitted.link, 1e8, 0.02);
    let quarter = limits.total / 4;
    let expected = layout.predict(&uses, quarter, &COSTS).seconds;
    near(
        layout.predict(&uses, quarter, &fitted).seconds,
        expected,
        0.02,
    );
}

#[test]
fn rates_that_are_too_low_do_not_slow_predictions() {
    let (layout, uses) = layout(40);
    let limits = layout.limits();
    let rates = Rates {
        link: 1e9,
        memory: 1e8,
    };
    let costs = Costs {
        link: 1e10,
        ..COSTS
    };
    let seconds = |budget| layout.predict(&uses, budget, &costs).seconds;
    let timed = |budget| Timed {
        budget,
        seconds: seconds(budget),
    };
    for last in [limits.total - 1, limits.total] {
        let timed = [limits.floor(), limits.total / 2, last].map(timed);
        let fitted = Costs::fit(&layout, &uses, &rates, &timed);
        let quarter = layout.predict(&uses, limits.total / 4, &fitted);
        near(quarter.seconds, seconds(limits.total / 4), 0.02);
        let full = layout.predict(&uses, limits.total, &fitted);
        assert!(full.seconds <= quarter.seconds, "{full:?}");
        if last == limits.total {
            assert!(full.memory_seconds <= full.seconds * 1.001, "{full:?}");
        }
    }
}

fn costs() -> impl Strategy<Value = Costs> {
    let rate = || (6.0f64..12.0).prop_map(|e| 10f64.powf(e));
    let seconds = || (-5.0f64..0.0).prop_map(|e| 10f64.powf(e));
    let packed = prop_oneof![Just(0.0), 0.5f64..3.0];
    let slower = (1.0f64..3.0, packed);
    (rate(), rate(), seconds(), slower, 0.0f64..1.0).prop_map(
        |(link, memory, settled, (slower, packed), contention)| Costs {
            link,
            memory,
            settled,
            packed: settled * packed,
            streaming: settled * slower,
            contention,
        },
    )
}

/// A weight of whose unit `i` this part of 100 is stored.
fn packed(plain: Sheet, part: impl Fn(usize) -> usize) -> Sheet {
    let mut offsets = vec![0];
    for unit in 0..plain.rows.div_ceil(ROW_PANEL) {
        offsets.push(offsets[unit] + ROW_PANEL * plain.row_bytes * part(unit) / 100);
    }
    Sheet {
        units: Some(Arc::new(Units::new(ROW_PANEL, offsets).unwrap())),
        arrive: Arrive::Unpack,
        ..plain
    }
}

#[test]
fn the_link_brings_what_is_stored_and_kernels_read_what_is_held() {
    let layout = |sheet: Sheet| {
        let uses = vec![sheet.weight.into()];
        let tiling = Tiling::cut(&[sheet], TileTarget::Bytes(64_000)).unwrap();
        (Layout::new(tiling, std::slice::from_ref(&uses), 0), uses)
    };
    let plain = Sheet::plain(WeightId(0), 1024, 1000);
    let half = packed(plain.clone(), |unit| 40 + unit % 2 * 20);
    let ((plain, uses), (half, _)) = (layout(plain), layout(half));
    let least = |layout: &Layout| layout.predict(&uses, layout.limits().floor(), &COSTS);
    let (plain, half) = (least(&plain), least(&half));
    assert_eq!(half.link_bytes * 2, plain.link_bytes);
    assert_eq!(half.memory_bytes, plain.memory_bytes);
    near(half.seconds * 2.0, plain.seconds, 0.02);
}

/// Weights of different sizes, some packed, some that turn plain, some used twice.
fn programs() -> impl Strategy<Value = (Layout, Vec<Use>)> {
    let part = prop::option::of((0usize..=100, any::<bool>()));
    let sheets = prop::collection::vec((1usize..2000, 1usize..60, part), 1..10);
    let again = prop::collection::vec(any::<prop::sample::Index>(), 0..3);
    (sheets, again, 500u64..30_000, 0u64..9000).prop_map(|(sheets, again, target, pinned)| {
        let sheets: Vec<Sheet> = sheets
            .into_iter()
            .enumerate()
            .map(|(i, (rows, row_bytes, part))| {
                let plain = Sheet::plain(WeightId(i as u32), rows, row_bytes);
                match part {
                    None => plain,
                    Some((part, turns)) => Sheet {
                        arrive: match turns {
                            true => Arrive::Upload,
                            false => Arrive::Unpack,
                        },
                        turns,
                        ..packed(plain, |unit| (part + unit * 17) % 101)
                    },
                }
            })
            .collect();
        let mut uses: Vec<Use> = sheets.iter().map(|s| s.weight.into()).collect();
        let again = again.iter().map(|i| sheets[i.index(sheets.len())].weight);
        uses.extend(again.map(Use::from));
        let tiling = Tiling::cut(&sheets, TileTarget::Bytes(target)).unwrap();
        (
            Layout::new(tiling, std::slice::from_ref(&uses), pinned),
            uses,
        )
    })
}

proptest! {
    #[test]
    fn more_budget_never_takes_longer((layout, uses) in programs(), costs in costs()) {
        let limits = layout.limits();
        let (floor, total) = (limits.floor(), limits.total);
        let mut last = f64::MAX;
        for i in 0..=100 {
            let budget = floor + (total - floor) * i / 100;
            let p = layout.predict(&uses, budget, &costs);
            prop_assert!(p.seconds <= last, "{} after {last} at {budget}", p.seconds);
            last = p.seconds;
        }
    }

    #[test]
    fn a_time_is_between_the_longest_part_and_the_sum((layout, uses) in programs(), costs in costs(), at in 0u64..=100) {
        let limits = layout.limits();
        let budget = limits.floor() + (limits.total - limits.floor()) * at / 100;
        let p = layout.predict(&uses, budget, &costs);
        // What reads packed tiles is at least as slow as what reads plain ones.
        let packed = costs.packed.max(costs.settled);
        let (fast, slow) = match p.link_bytes {
            0 => (costs.settled, packed),
            _ => (costs.streaming.max(packed), costs.streaming.max(packed)),
        };
        let least = p.link_seconds.max(fast + p.contention_seconds);
        let computing = slow + p.contention_seconds;
        prop_assert!(p.seconds >= least * 0.999_999 - 1e-9, "{p:?}");
        prop_assert!(p.seconds <= (p.link_seconds + computing) * 1.000_001, "{p:?}");
    }

    #[test]
    fn the_budget_for_what_a_budget_gives_is_no_larger((layout, uses) in programs(), costs in costs(), at in 0u64..=100) {
        let limits = layout.limits();
        let budget = limits.floor() + (limits.total - limits.floor()) * at / 100;
        let time = layout.predict(&uses, budget, &costs).time();
        let found = layout.budget_for(&uses, time, limits.total, &costs).expect("one is known");
        prop_assert!(found <= budget);
        prop_assert!(layout.predict(&uses, found, &costs).time() <= time);
        if found > limits.floor() {
            prop_assert!(layout.predict(&uses, found - 1, &costs).time() > time);
        }
    }
}
