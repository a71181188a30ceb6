//! The planner's promises, each proved by the independent checker.

use proptest::prelude::*;
use trt_alloc::{Lifetime, Plan, PlanError, Value, check, largest_live, plan};

fn value(bytes: u64, first: u32, last: u32) -> Lifetime {
    Lifetime {
        bytes,
        align: 256,
        first,
        last,
        in_place_of: None,
    }
}

fn over(old: u32, lifetime: Lifetime) -> Lifetime {
    Lifetime {
        in_place_of: Some(Value(old)),
        ..lifetime
    }
}

fn planned(lifetimes: &[Lifetime]) -> Plan {
    let plan = plan(lifetimes);
    check(lifetimes, &plan).unwrap();
    plan
}

#[test]
fn a_program_without_values_needs_nothing() {
    assert_eq!(planned(&[]).peak, 0);
    assert_eq!(largest_live(&[]), 0);
}

#[test]
fn values_that_never_meet_share_bytes() {
    let lifetimes = [value(512, 0, 1), value(512, 2, 3)];
    assert_eq!(planned(&lifetimes).peak, 512);
}

#[test]
fn the_last_step_is_part_of_a_life() {
    let lifetimes = [value(512, 0, 1), value(512, 1, 2)];
    assert_eq!(planned(&lifetimes).peak, 1024);
}

#[test]
fn a_value_in_place_counts_once_in_the_step_of_the_hand_over() {
    let lifetimes = [value(512, 0, 1), over(0, value(512, 1, 2))];
    assert_eq!(planned(&lifetimes).peak, 512);
    assert_eq!(largest_live(&lifetimes), 512);
}

#[test]
fn a_smaller_heir_leaves_the_rest_to_others_only_after_the_hand_over() {
    // v1 takes the first 256 bytes of v0 in step 1; v2 may have the rest from step 2 on.
    let lifetimes = [
        value(1024, 0, 1),
        over(0, value(256, 1, 3)),
        value(768, 2, 3),
    ];
    assert_eq!(planned(&lifetimes).peak, 1024);
    let early = [
        value(1024, 0, 1),
        over(0, value(256, 1, 3)),
        value(768, 1, 3),
    ];
    assert_eq!(planned(&early).peak, 1024 + 768);
}

#[test]
fn a_hint_that_does_not_apply_is_ignored() {
    for lifetimes in [
        [value(512, 0, 2), over(0, value(512, 1, 3))], // still read after the hand-over
        [value(256, 0, 1), over(0, value(512, 1, 3))], // too small
        [value(512, 0, 1), over(7, value(512, 1, 3))], // no such value
    ] {
        assert_eq!(planned(&lifetimes).peak, lifetimes[0].bytes + 512);
    }
}

#[test]
fn one_value_has_one_heir() {
    let lifetimes = [
        value(512, 0, 1),
        over(0, value(256, 1, 2)),
        over(0, value(512, 1, 2)),
    ];
    assert_eq!(planned(&lifetimes).peak, 768);
    assert_eq!(largest_live(&lifetimes), 768);
}

#[test]
fn offsets_keep_any_alignment() {
    let odd = |bytes, align| Lifetime {
        align,
        ..value(bytes, 0, 1)
    };
    let lifetimes = [odd(3, 1), odd(8, 24), odd(5, 4096), odd(7, 2), odd(0, 8)];
    planned(&lifetimes);
}

/// The values of a decoder's step over `seq` tokens as a compiler with little fusion makes them.
fn decoder(
    layers: u32,
    seq: u64,
    hidden: u64,
    inner: u64,
    kv: u64,
    vocabulary: u64,
) -> Vec<Lifetime> {
    let mut values = Vec::new();
    let mut step = 0;
    let row = |elements: u64| (seq * elements * 2).next_multiple_of(256);
    let mut push = |l: Lifetime| {
        values.push(l);
        values.len() as u32 - 1
    };
    // The residual stream: written by the embedding, then in place by each addition.
    let mut residual = push(value(row(hidden), 0, 9));
    for layer in 0..layers {
        let end = if layer + 1 == layers {
            step + 15
        } else {
            step + 18
        };
        push(value(row(hidden), step + 1, step + 4)); // norm
        push(value(row(hidden), step + 2, step + 5)); // q
        push(value(row(kv), step + 3, step + 6)); // k
        push(value(row(kv), step + 4, step + 7)); // v
        push(value(row(hidden), step + 5, step + 7)); // rotated q
        push(value(row(kv), step + 6, step + 7)); // rotated k
        push(value(row(hidden), step + 7, step + 8)); // attention
        push(value(row(hidden), step + 8, step + 9)); // o
        residual = push(over(residual, value(row(hidden), step + 9, step + 14)));
        push(value(row(hidden), step + 10, step + 12)); // norm
        let gate = push(value(row(inner), step + 11, step + 13));
        push(value(row(inner), step + 12, step + 13)); // up
        push(over(gate, value(row(inner), step + 13, step + 14))); // silu(gate) * up
        residual = push(over(residual, value(row(hidden), step + 14, end)));
        step += 9;
        step = step.max(end - 9);
    }
    push(value(row(hidden), step + 10, step + 11));
    push(value(
        (vocabulary * 4).next_multiple_of(256),
        step + 11,
        step + 12,
    ));
    values
}

#[test]
fn plans_of_decoders_stay_within_a_twentieth_of_the_bound() {
    let shapes = [
        (30, 576, 1536, 192, 49152),
        (32, 4096, 14336, 1024, 128256),
        (24, 896, 4864, 128, 151936),
        (22, 2048, 5632, 256, 32000),
    ];
    for (layers, hidden, inner, kv, vocabulary) in shapes {
        for seq in [1, 7, 64, 513] {
            let lifetimes = decoder(layers, seq, hidden, inner, kv, vocabulary);
            let (peak, bound) = (planned(&lifetimes).peak, largest_live(&lifetimes));
            assert!(
                peak as f64 <= 1.05 * bound as f64,
                "{peak} over {bound} at {seq} tokens"
            );
        }
    }
}

#[test]
fn the_same_program_gives_the_same_plan() {
    let lifetimes = decoder(4, 33, 512, 1500, 128, 999);
    assert_eq!(planned(&lifetimes), planned(&lifetimes));
}

#[test]
fn the_checker_finds_shared_bytes() {
    let lifetimes = [value(512, 0, 3), value(512, 2, 4)];
    let wrong = Plan {
        offsets: vec![0, 256],
        peak: 1024,
    };
    let error = check(&lifetimes, &wrong).unwrap_err();
    assert!(
        matches!(error, PlanError::Overlap { step: 2, .. }),
        "{error}"
    );
}

#[test]
fn the_checker_finds_taking_over_without_a_right_to() {
    let wrong = Plan {
        offsets: vec![0, 0],
        peak: 512,
    };
    for lifetimes in [
        [value(512, 0, 1), value(512, 1, 2)],
        [value(512, 0, 2), over(0, value(512, 1, 3))],
        [over(1, value(512, 1, 1)), over(0, value(512, 1, 1))],
    ] {
        let error = check(&lifetimes, &wrong).unwrap_err();
        assert!(
            matches!(error, PlanError::Overlap { step: 1, .. }),
            "{error}"
        );
    }
}

#[test]
fn the_checker_guards_the_rest_of_what_is_taken_over() {
    let lifetimes = [
        value(1024, 0, 1),
        over(0, value(256, 1, 3)),
        value(768, 1, 3),
    ];
    let wrong = Plan {
        offsets: vec![0, 0, 256],
        peak: 1024,
    };
    assert!(matches!(
        check(&lifetimes, &wrong),
        Err(PlanError::Overlap { step: 1, .. })
    ));
}

#[test]
fn the_checker_finds_wrong_numbers() {
    let lifetimes = [value(512, 0, 3)];
    let with = |offset, peak| Plan {
        offsets: vec![offset],
        peak,
    };
    let found = |plan: Plan| check(&lifetimes, &plan).unwrap_err();
    assert!(matches!(
        found(with(128, 640)),
        PlanError::Misaligned { offset: 128, .. }
    ));
    assert!(matches!(
        found(with(256, 512)),
        PlanError::Peak { end: 768, .. }
    ));
    assert!(matches!(
        found(with(u64::MAX - 255, 512)),
        PlanError::Peak { .. }
    ));
    let empty = Plan {
        offsets: vec![],
        peak: 0,
    };
    assert!(matches!(
        found(empty),
        PlanError::Count {
            offsets: 0,
            values: 1
        }
    ));
    let backwards = [value(512, 3, 0)];
    assert!(matches!(
        check(&backwards, &with(0, 512)),
        Err(PlanError::Lifetime {
            first: 3,
            last: 0,
            ..
        })
    ));
}

fn lifetime(values: u32) -> impl Strategy<Value = Lifetime> {
    let align = prop_oneof![Just(1u64), Just(16), Just(256), Just(4096), Just(24)];
    let hint = proptest::option::of(0..values);
    (0u64..5000, align, 0u32..30, 0u32..8, hint).prop_map(|(bytes, align, first, more, hint)| {
        Lifetime {
            bytes,
            align,
            first,
            last: first + more,
            in_place_of: hint.map(Value),
        }
    })
}

/// Random values, half of whose hints are turned into ones that apply.
fn program() -> impl Strategy<Value = Vec<Lifetime>> {
    (1u32..60).prop_flat_map(|n| {
        (
            prop::collection::vec(lifetime(n), n as usize),
            prop::collection::vec(any::<bool>(), n as usize),
        )
            .prop_map(|(mut values, apply)| {
                for i in 0..values.len() {
                    let Some(old) = values[i].in_place_of.filter(|_| apply[i]) else {
                        continue;
                    };
                    let old = values[old.0 as usize];
                    let life = values[i].last - values[i].first;
                    values[i].first = old.last;
                    values[i].last = old.last + life;
                    values[i].bytes = values[i].bytes.min(old.bytes);
                }
                values
            })
    })
}

proptest! {
    #[test]
    fn every_plan_passes_the_checker(lifetimes in program()) {
        let plan = plan(&lifetimes);
        prop_assert_eq!(check(&lifetimes, &plan), Ok(()));
        prop_assert!(plan.peak >= largest_live(&lifetimes));
    }

    #[test]
    fn the_bound_is_what_a_count_of_every_step_says(lifetimes in program()) {
        let plain: Vec<_> = lifetimes.iter().map(|l| Lifetime { in_place_of: None, ..*l }).collect();
        let live = |step| plain.iter().filter(|l| l.first <= step && step <= l.last).map(|l| l.bytes).sum();
        prop_assert_eq!(largest_live(&plain), (0..80).map(live).max().unwrap_or(0u64));
    }
}

/// A decoder of three layers whose keys are normalised: no first order reaches the bound, and
/// neither do moves to the front of what reaches the peak.
#[test]
fn orders_that_only_an_exchange_improves_are_improved() {
    #[rustfmt::skip]
    let lives = [
        (8, 0, 0, None), (2, 47, 48, None), (384, 0, 11, None), (384, 1, 4, None),
        (768, 2, 5, None), (768, 5, 8, None), (768, 8, 10, None), (256, 3, 6, None),
        (256, 6, 9, None), (256, 4, 7, None), (768, 10, 11, None), (384, 11, 15, Some(2)),
        (384, 12, 14, None), (640, 13, 14, None), (640, 14, 15, Some(13)),
        (384, 15, 26, Some(11)), (384, 16, 19, None), (768, 17, 20, None), (768, 20, 23, None),
        (768, 23, 25, None), (256, 18, 21, None), (256, 21, 24, None), (256, 19, 22, None),
        (768, 25, 26, None), (384, 26, 30, Some(15)), (384, 27, 29, None), (640, 28, 29, None),
        (640, 29, 30, Some(26)), (384, 30, 41, Some(24)), (384, 31, 34, None),
        (768, 32, 35, None), (768, 35, 38, None), (768, 38, 40, None), (256, 33, 36, None),
        (256, 36, 39, None), (256, 34, 37, None), (768, 40, 41, None), (384, 41, 46, Some(28)),
        (384, 42, 44, None), (640, 43, 44, None), (640, 44, 45, Some(39)), (384, 45, 46, None),
        (1, 46, 47, None),
    ];
    let lifetimes = lives.map(
        |(size, first, last, old): (u64, u32, u32, Option<u32>)| Lifetime {
            in_place_of: old.map(Value),
            ..value(size * 256, first, last)
        },
    );
    let plan = plan(&lifetimes);
    check(&lifetimes, &plan).unwrap();
    assert_eq!(plan.peak, largest_live(&lifetimes));
}
