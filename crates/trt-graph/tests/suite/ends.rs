//! Profiles are traced to their ends: what begins late is found or refused, and nothing is
//! sampled that a call could not be.

use crate::support::{compare, trace_step, weights};
use proptest::prelude::*;
use std::cell::Cell;
use trt_graph::candle::{DType, Device, Result, Tensor, bail};
use trt_graph::candle_nn::VarBuilder;
use trt_graph::{Call, Class, Error, Graph, Op, Profile};

const CPU: Device = Device::Cpu;

/// What a step of the models here knows: cached positions, new ones, and how many positions the
/// model has counted by itself before this call.
struct Place {
    past: usize,
    seq: usize,
    counted: usize,
}

type Traced = std::result::Result<Graph, Error>;

/// Traces a cache of rows in a class; `step` gets the new rows, all rows, a table, and the place.
fn cached(
    class: &Class,
    rows: usize,
    step: impl Fn(&Tensor, &Tensor, &Tensor, &Place) -> Result<Tensor>,
) -> Traced {
    let step = &step;
    let mut load = |_: VarBuilder| {
        let table = Tensor::zeros((rows, 4), DType::F32, &CPU)?;
        let mut kept: Option<Tensor> = None;
        let mut counted = 0;
        Ok(move |call: &Call<'_>| {
            let (past, seq) = (call.int("past")?, call.int("seq")?);
            let x = call.input("x", (seq, 4), DType::F32)?;
            let place = Place { past, seq, counted };
            let all = match kept.take() {
                None => x.clone(),
                Some(old) => Tensor::cat(&[&old, &x], 0)?,
            };
            counted += seq;
            let out = step(&x, &all, &table, &place);
            kept = Some(all);
            Ok(vec![out?])
        })
    };
    trt_graph::trace(&mut load, &weights(), class)
}

fn masked(x: &Tensor, all: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let scores = x.matmul(&all.t()?)?;
    let low = Tensor::new(f32::NEG_INFINITY, &CPU)?.broadcast_as(scores.shape())?;
    mask.where_cond(&low, &scores)?.max_keepdim(1)
}

fn window(w: usize, place: &Place) -> Result<Tensor> {
    let keys = place.past + place.seq;
    let hidden = |q: usize, k: usize| u8::from(k > q || q - k >= w);
    let mask: Vec<u8> = (place.past..keys)
        .flat_map(|q| (0..keys).map(move |k| hidden(q, k)))
        .collect();
    Tensor::from_vec(mask, (place.seq, keys), &CPU)
}

fn causal(graph: &Graph) -> Option<Option<usize>> {
    graph.nodes.iter().find_map(|n| match &n.op {
        Op::Causal { window, .. } => Some(*window),
        _ => None,
    })
}

#[test]
fn a_window_is_found_however_wide_it_is() {
    for (w, context) in [
        (3, 16),
        (4608, 5000),
        (4609, 5000),
        (11_000, 12_000),
        (99_990, 100_000),
    ] {
        let profile = Profile::decoder(context, 3).unwrap();
        for class in &profile.classes {
            let step =
                |x: &Tensor, all: &Tensor, _: &Tensor, p: &Place| masked(x, all, &window(w, p)?);
            let graph = cached(class, 1, step).unwrap();
            assert_eq!(causal(&graph), Some(Some(w)), "{w} in {}", class.name);
        }
    }
}

#[test]
fn a_window_that_no_call_reaches_leaves_nothing_hidden() {
    let profile = Profile::decoder(40, 3).unwrap();
    let step = |x: &Tensor, all: &Tensor, _: &Tensor, p: &Place| masked(x, all, &window(40, p)?);
    let graph = cached(&profile.classes[0], 1, step).unwrap();
    assert_eq!(causal(&graph), None);
    let graph = cached(&profile.classes[1], 1, step).unwrap();
    assert_eq!(causal(&graph), Some(None));
}

/// The classes of a decoder, traced with a branch.
fn branches(branch: impl Fn(&Place) -> bool + Copy) -> Vec<Traced> {
    let profile = Profile::decoder(9000, 64).unwrap();
    let step = move |_: &Tensor, all: &Tensor, _: &Tensor, p: &Place| match branch(p) {
        true => all.sum_keepdim(0)?.exp(),
        false => all.sum_keepdim(0),
    };
    profile.classes.iter().map(|c| cached(c, 1, step)).collect()
}

#[test]
fn a_branch_that_is_taken_from_some_number_on_is_refused_by_name() {
    let all: [fn(&Place) -> bool; 5] = [
        |p| p.past > 5000,
        |p| p.past >= 8998,
        |p| p.past + p.seq > 8999,
        |p| p.past < 3,
        |p| p.past == 0,
    ];
    for branch in all {
        for traced in branches(branch) {
            let error = traced.expect_err("two ways");
            assert!(
                error.to_string().contains("control flow differs between"),
                "{error}"
            );
        }
    }
    let error = branches(|p| p.past > 5000)
        .remove(0)
        .expect_err("two ways")
        .to_string();
    assert!(
        error.contains("past=5001 seq=1") && error.contains("past=5000 seq=1"),
        "{error}"
    );
    // Only in the class that has such calls.
    let only: [fn(&Place) -> bool; 3] = [
        |p| p.seq > 63,
        |p| p.past == 0 && p.seq > 60,
        |p| p.past > 8000 && p.seq > 60,
    ];
    for branch in only {
        let mut traced = branches(branch);
        let error = traced.remove(1).expect_err("two ways").to_string();
        assert!(error.contains("control flow differs between"), "{error}");
        traced.remove(0).unwrap();
    }
}

#[test]
fn a_branch_on_a_count_of_the_models_own_is_refused_too() {
    for traced in branches(|p| p.counted > 5000) {
        let error = traced.expect_err("two ways").to_string();
        assert!(error.contains("control flow differs between"), "{error}");
    }
}

#[test]
fn a_model_that_counts_positions_itself_is_the_same_graph() {
    let profile = Profile::decoder(600, 16).unwrap();
    for class in &profile.classes {
        let by = |count: fn(&Place) -> usize| {
            cached(class, 600, move |x, all, table, p| {
                let rows = table.narrow(0, count(p), p.seq)?;
                (x + rows)?.sum_keepdim(0)? + all.sum_keepdim(0)?
            })
        };
        let own = by(|p| p.counted).unwrap();
        assert_eq!(own, by(|p| p.past).unwrap(), "{}", class.name);
    }
}

#[test]
fn a_model_that_refuses_calls_outside_of_its_profile_is_traced() {
    for longest in [1, 3] {
        let profile = Profile::decoder(600, longest).unwrap();
        for class in &profile.classes {
            let graph = cached(class, 600, |x, all, table, p| {
                if p.seq > longest || p.past + p.seq > 600 {
                    bail!("{} tokens at {} are none of its calls", p.seq, p.past)
                }
                let rows = table.narrow(0, p.past, p.seq)?;
                masked(&(x + rows)?, all, &window(599, p)?)
            });
            assert_eq!(causal(&graph.unwrap()), Some(Some(599)), "{}", class.name);
        }
    }
}

#[test]
fn where_such_a_model_cannot_be_followed_to_the_end_it_is_said_with_numbers() {
    let profile = Profile::decoder(100_000, 2).unwrap();
    let error = cached(&profile.classes[0], 100_000, |x, all, table, p| {
        let rows = table.narrow(0, p.counted, p.seq)?;
        masked(&(x + rows)?, all, &window(50_000, p)?)
    })
    .unwrap_err();
    assert!(
        matches!(
            error,
            Error::TooFar {
                most: 268_435_456,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("past=50000 seq=1"), "{error}");
}

#[test]
fn a_corner_with_too_large_constants_is_refused_before_model_code_makes_them() {
    let asked = Cell::new(0);
    let error = trace_step(&[("n", 2, 1_000_000)], |call, _| {
        let n = call.int("n")?;
        asked.set(asked.get().max(n));
        let mask: Vec<u8> = (0..n * n).map(|i| u8::from(i % n > i / n)).collect();
        Ok(vec![Tensor::from_vec(mask, (n, n), &CPU)?])
    })
    .unwrap_err();
    assert!(asked.get() <= 5, "{}", asked.get());
    let text = error.to_string();
    assert!(matches!(error, Error::TooLarge { .. }), "{text}");
    assert!(
        text.contains("n=500001") && text.contains("250001000001 bytes"),
        "{text}"
    );
}

#[test]
fn integers_without_constants_may_be_as_large_as_they_like() {
    let graph = trace_step(&[("n", 1, 1 << 30), ("m", 0, 1 << 40)], |call, _| {
        let x = call.input("x", (call.int("n")?, 3), DType::F32)?;
        let y = call.input("y", call.int("m")?, DType::F32)?;
        Ok(vec![x.exp()?, y.exp()?])
    })
    .unwrap();
    compare(&graph, &[7, 5], 1e-6).unwrap();
}

#[test]
fn profiles_that_cannot_be_are_refused() {
    for (refused, what) in [
        (Profile::decoder(0, 1), "from 1"),
        (Profile::decoder(8, 0), "from 1"),
        (Profile::decoder(usize::MAX, 2), "from 1"),
        (Profile::single(&[("n", -1, 2)]), "range -1..=2 of n"),
        (Profile::single(&[("n", 1, i64::MAX)]), "above"),
        (
            Profile::single(&[("n", 1, 2), ("n", 1, 3)]),
            "two runtime integers are called n",
        ),
    ] {
        let error = refused.expect_err(what).to_string();
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn a_split_profile_has_the_same_calls_in_more_classes() {
    let profile = || Profile::prompts_first(9, 6).unwrap();
    let split = profile().split("past", 1).unwrap().split("seq", 4).unwrap();
    let names: Vec<&str> = split.classes.iter().map(|c| c.name.as_str()).collect();
    let expected = [
        "decode past 0..=0",
        "decode past 1..=8",
        "prompt seq 2..=3",
        "prompt seq 4..=6",
    ];
    assert_eq!(names, expected);
    let serving =
        |p: &Profile, call: [i64; 2]| p.classes.iter().filter(|c| c.accepts(&call)).count();
    for (past, seq) in (0..10).flat_map(|past| (0..8).map(move |seq| (past, seq))) {
        let call = [past, seq];
        assert_eq!(serving(&split, call), serving(&profile(), call), "{call:?}");
    }
    let error = profile().split("past", 40).unwrap_err().to_string();
    assert!(error.contains("past below 40"), "{error}");
    assert!(profile().split("length", 2).is_err());
}

#[test]
fn any_small_decoder_is_traced_with_tables_of_just_its_context() {
    for context in (1..=9).chain([13]) {
        for longest in [1, 2, 3, 4, 5, 9, 20] {
            let profile = Profile::decoder(context, longest).unwrap();
            for class in &profile.classes {
                let step = |x: &Tensor, all: &Tensor, table: &Tensor, p: &Place| {
                    if p.past + p.seq > context {
                        bail!("past {} seq {} is none of the calls", p.past, p.seq)
                    }
                    let rows = table.narrow(0, p.past, p.seq)?;
                    masked(&(x + rows)?, all, &window(context, p)?)
                };
                let at = format!("{} of decoder({context}, {longest})", class.name);
                let graph = cached(class, context, step).unwrap_or_else(|e| panic!("{at}: {e}"));
                // Every call of the class, against the reference of a call by itself.
                for past in 0..context as i64 {
                    for seq in 1..=longest as i64 {
                        if class.accepts(&[past, seq]) {
                            compare(&graph, &[past, seq], 1e-5)
                                .unwrap_or_else(|e| panic!("{at}: {e}"));
                            let rows = graph.states.first().map(|s| s.shape[0].clone());
                            let env = trt_kernel::Env::new(&[past, seq]);
                            assert!(rows.is_none_or(|r| r.eval(&env) == past), "{at}");
                        }
                    }
                }
                assert_eq!(graph.states.is_empty(), context == 1, "{at}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_sampled_point_is_a_call(context in 1usize..3000, longest in 1usize..3000, small in 0usize..2) {
        let (context, longest) = match small {
            0 => (context % 40 + 1, longest % 40 + 1),
            _ => (context, longest),
        };
        let profile = Profile::decoder(context, longest).unwrap();
        for class in &profile.classes {
            let points = class.sample_points().unwrap();
            prop_assert!(!points.is_empty());
            for point in points {
                prop_assert!(class.accepts(&point), "{} of decoder({context}, {longest})", class.describe(&point));
            }
        }
    }
}
