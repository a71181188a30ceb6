//! Predicted times where weights are packed or plain.

use super::{COSTS, near};
use std::sync::Arc;
use trt_kernel::ROW_PANEL;
use trt_stream::{
    Costs, Layout, Rates, Sheet, TileTarget, Tiling, Timed, Turning, Units, Use, WeightId,
};

/// `count` weights of 1 MB, two thirds of it packed, used one after the other.
fn layout(count: u32, prefer_plain: bool) -> (Layout, Vec<Use>) {
    let unit = ROW_PANEL * 1000 * 2 / 3;
    let units = Units::new(ROW_PANEL, (0..=16).map(|i| i * unit).collect()).unwrap();
    let sheet = |i| Sheet {
        units: Some(Arc::new(units.clone())),
        turns: true,
        ..Sheet::plain(WeightId(i), 1024, 1000)
    };
    let sheets: Vec<Sheet> = (0..count).map(sheet).collect();
    let uses: Vec<Use> = sheets.iter().map(|s| s.weight.into()).collect();
    let tiling = Tiling::cut(&sheets, TileTarget::Bytes(64_000)).unwrap();
    let turning = Turning {
        together: Vec::new(),
        prefer_plain,
    };
    let lists = std::slice::from_ref(&uses);
    (Layout::turning(tiling, lists, 0, &turning), uses)
}

const PACKED: Costs = Costs {
    packed: 0.005,
    streaming: 0.006,
    ..COSTS
};

#[test]
fn each_weight_that_turns_saves_its_part_of_computing() {
    let (layout, uses) = layout(20, true);
    let limits = layout.limits();
    let at = |budget| layout.predict(&uses, budget, &PACKED);
    near(at(limits.still()).seconds, 0.005, 1e-6);
    near(
        at((limits.still() + limits.total) / 2).seconds,
        0.0035,
        1e-6,
    );
    near(at(limits.total).seconds, 0.002, 1e-6);
    let [packed, plain] = [limits.still(), limits.total].map(|b| at(b).memory_bytes);
    assert_eq!((packed, plain), (limits.still(), limits.total));
    assert!(at(limits.still() - 1).seconds >= 0.006);
}

#[test]
fn where_packed_is_preferred_it_takes_what_it_was_measured_to() {
    let (layout, uses) = layout(20, false);
    let costs = Costs {
        packed: 0.0015,
        ..PACKED
    };
    assert_eq!(costs.plain_is_faster(), Some(false));
    assert_eq!(PACKED.plain_is_faster(), Some(true));
    assert_eq!(COSTS.plain_is_faster(), None);
    let total = layout.limits().total;
    near(layout.predict(&uses, total, &costs).seconds, 0.0015, 1e-6);
}

#[test]
fn fitting_finds_what_packed_weights_cost() {
    let (layout, uses) = layout(40, true);
    let limits = layout.limits();
    let rates = Rates {
        link: 2e9,
        memory: 1e11,
    };
    let (still, total) = (limits.still(), limits.total);
    let timed = |budgets: &[u64]| {
        let seconds = |budget| layout.predict(&uses, budget, &PACKED).seconds;
        let budgets = budgets.iter().copied();
        let timed = budgets.map(|budget| Timed {
            budget,
            seconds: seconds(budget),
        });
        Costs::fit(&layout, &uses, &rates, &timed.collect::<Vec<_>>())
    };
    let streams = [limits.floor(), still / 2, still - 1];
    let all = timed(&[&streams[..], &[still, total]].concat());
    let between = timed(&[&streams[..], &[still + (total - still) / 4, total]].concat());
    for fitted in [all, between] {
        near(fitted.packed, 0.005, 0.02);
        near(fitted.settled, 0.002, 0.02);
        for budget in [limits.floor(), still / 3, still, (still + total) / 2, total] {
            let found = layout.predict(&uses, budget, &fitted).seconds;
            near(found, layout.predict(&uses, budget, &PACKED).seconds, 0.03);
        }
    }
    // Without room for plain weights nothing says how fast these are.
    let fitted = timed(&[&streams[..], &[still]].concat());
    near(layout.predict(&uses, still, &fitted).seconds, 0.005, 0.02);
    assert_eq!(fitted.plain_is_faster(), None);
}

#[test]
fn rates_alone_bound_either_form() {
    let (layout, uses) = layout(20, true);
    let limits = layout.limits();
    let rates = Rates {
        link: 1e9,
        memory: 1e10,
    };
    let best = Costs::at_best(&layout, &uses, &rates);
    near(best.settled, limits.total as f64 / 1e10, 1e-9);
    near(best.packed, limits.still() as f64 / 1e10, 1e-9);
}

/// Layers of four launches whose weights are 2, 3, 7 and 14 tiles, the last of two, and a large head,
/// all packed to two thirds.
fn decoder(layers: u32) -> (Layout, Vec<Use>) {
    let unit = ROW_PANEL * 1000 * 2 / 3;
    let mut tiles = [2, 3, 7, 7, 7].repeat(layers as usize);
    tiles.push(64);
    let sheet = |(weight, tiles): (u32, &usize)| {
        let offsets = (0..=*tiles).map(|i| i * unit).collect();
        Sheet {
            units: Some(Arc::new(Units::new(ROW_PANEL, offsets).unwrap())),
            turns: true,
            ..Sheet::plain(WeightId(weight), tiles * ROW_PANEL, 1000)
        }
    };
    let sheets: Vec<Sheet> = (0..).zip(&tiles).map(sheet).collect();
    let uses: Vec<Use> = sheets.iter().map(|s| s.weight.into()).collect();
    let tiling = Tiling::cut(&sheets, TileTarget::Bytes(64_000)).unwrap();
    let gate_and_up = (0..layers).map(|l| [3, 4].map(|w| WeightId(l * 5 + w)).to_vec());
    let turning = Turning {
        together: gate_and_up.collect(),
        ..Turning::default()
    };
    let lists = std::slice::from_ref(&uses);
    (Layout::turning(tiling, lists, 0, &turning), uses)
}

#[test]
fn what_little_streams_comes_while_others_are_computed() {
    let (layout, uses) = decoder(32);
    let still = layout.limits().still();
    // All packed weights come over the link in 40 times what they are computed in.
    let costs = Costs {
        link: still as f64 / 0.2,
        memory: 1e12,
        settled: 0.004,
        packed: 0.005,
        streaming: 0.005,
        contention: 0.0,
    };
    for part in 0..=40 {
        let budget = still - still * part / 100;
        let p = layout.predict(&uses, budget, &costs);
        let least = p.link_seconds.max(0.005);
        let most = least * if part < 4 { 1.2 } else { 1.02 };
        assert!(p.seconds <= most, "{p:?} at -{part}%");
    }
}
