//! Sharing a budget, held against a checker that knows only what must be true of the result.

use proptest::prelude::*;
use trt_stream::{Demand, Gain, Shares, share};

/// Tiles that spare more of the link for each of their bytes come first, as in a layout of one form
/// those do that are used more often.
fn demand() -> impl Strategy<Value = Demand> {
    let tiles = prop::collection::vec((0u64..40, 0u64..40, 1u32..4), 0..12);
    (
        0u64..100,
        tiles,
        0u64..60,
        prop::sample::select(vec![0., 0.5, 1., 1., 2., f64::NAN]),
    )
        .prop_map(|(floor, mut tiles, ring, weight)| {
            tiles.iter_mut().for_each(|t| t.1 = t.1.min(t.0));
            let worth = |t: &(u64, u64, u32)| t.1 * u64::from(t.2);
            // Across multiplied, so that nothing is rounded.
            tiles.sort_by(|a, b| (worth(b) * a.0.max(1)).cmp(&(worth(a) * b.0.max(1))));
            let all: u64 = tiles.iter().map(|t| t.0).sum();
            let tiles = tiles.into_iter();
            let tiles = tiles.map(|(held, stored, uses)| Gain { held, stored, uses });
            Demand {
                floor,
                total: floor + all.saturating_sub(ring),
                weight,
                tiles: tiles.collect(),
            }
        })
}

fn demands() -> impl Strategy<Value = Vec<Demand>> {
    prop::collection::vec(demand(), 0..6)
}

/// What the byte at this distance above the floor gains.
fn gain(demand: &Demand, byte: u64) -> f64 {
    let weight = if demand.weight > 0. {
        demand.weight
    } else {
        0.
    };
    let mut end = 0;
    for tile in &demand.tiles {
        end += tile.held;
        if byte < end {
            let spared = f64::from(tile.uses) * tile.stored as f64 / tile.held as f64;
            return weight * spared;
        }
    }
    0.
}

fn check(budget: u64, demands: &[Demand], shares: &Shares) {
    assert_eq!(shares.bytes.len(), demands.len());
    let sum: u64 = shares.bytes.iter().sum();
    assert_eq!(
        sum + shares.remainder,
        budget,
        "every byte is accounted for"
    );
    let pairs = || demands.iter().zip(&shares.bytes);
    for (demand, &bytes) in pairs() {
        assert!(demand.floor <= bytes && bytes <= demand.total);
        assert!(
            shares.remainder == 0 || bytes == demand.total,
            "bytes are left over"
        );
    }
    for (has, &bytes) in pairs().filter(|(d, b)| **b > d.floor) {
        let last = gain(has, bytes - has.floor - 1);
        for (wants, &bytes) in pairs().filter(|(d, b)| **b < d.total) {
            let next = gain(wants, bytes - wants.floor);
            assert!(
                next <= last,
                "a byte that gains {last} would gain {next} elsewhere"
            );
        }
    }
}

proptest! {
    #[test]
    fn no_byte_is_lost_or_better_used_elsewhere(demands in demands(), budget in 0u64..3000) {
        let floors: u64 = demands.iter().map(|d| d.floor).sum();
        match share(budget, &demands) {
            Ok(shares) => check(budget, &demands, &shares),
            Err(e) => {
                prop_assert!(budget < floors);
                prop_assert_eq!(e.shortfall, floors - budget);
            }
        }
    }

    #[test]
    fn a_larger_budget_takes_nothing_from_anybody(demands in demands(), above in 0u64..900, more in 0u64..90) {
        let floors: u64 = demands.iter().map(|d| d.floor).sum();
        let (less, more) = (floors + above, floors + above + more);
        let (less, more) = (share(less, &demands).unwrap(), share(more, &demands).unwrap());
        prop_assert!(less.bytes.iter().zip(&more.bytes).all(|(a, b)| a <= b));
    }

    #[test]
    fn a_higher_weight_never_gets_less(demands in demands(), above in 0u64..900, which in 0usize..6) {
        prop_assume!(which < demands.len() && demands[which].weight > 0.);
        let floors: u64 = demands.iter().map(|d| d.floor).sum();
        let before = share(floors + above, &demands).unwrap();
        let mut raised = demands;
        raised[which].weight *= 3.;
        let after = share(floors + above, &raised).unwrap();
        prop_assert!(after.bytes[which] >= before.bytes[which]);
    }
}

#[test]
fn equal_engines_get_the_same_but_for_a_tile() {
    let engine = Demand {
        floor: 10,
        total: 10 + 97 * 8,
        weight: 1.,
        tiles: vec![
            Gain {
                held: 8,
                stored: 8,
                uses: 1
            };
            97
        ],
    };
    let demands = vec![engine; 3];
    for budget in 30..30 + 3 * 97 * 8 {
        let bytes = share(budget, &demands).unwrap().bytes;
        let (least, most) = (bytes.iter().min().unwrap(), bytes.iter().max().unwrap());
        assert!(most - least <= 8, "{bytes:?}");
    }
}

#[test]
fn a_budget_below_the_floors_names_them_and_what_is_missing() {
    let engine = |floor| Demand {
        floor,
        total: 500,
        weight: 1.,
        tiles: Vec::new(),
    };
    let error = share(250, &[engine(100), engine(180)]).unwrap_err();
    assert_eq!(error.floors, [100, 180]);
    let text = error.to_string();
    assert!(
        text.contains("250") && text.contains("100 + 180") && text.contains("30 bytes"),
        "{text}"
    );
}
