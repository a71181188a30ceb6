//! Classes that are split where a model's code does something else.

use crate::support::weights;
use trt_graph::candle::{D, DType, Device::Cpu, Result, Tensor};
use trt_graph::candle_nn::VarBuilder;
use trt_graph::{Call, Error, Profile, Split, Traced, trace_profile};

fn traced<S: FnMut(&Call<'_>) -> Result<Vec<Tensor>>>(
    profile: &Profile,
    load: impl Fn() -> S,
) -> std::result::Result<Traced, Error> {
    trace_profile(
        &mut |_: VarBuilder<'static>| Ok(load()),
        &weights(),
        profile,
    )
}

fn split(class: &str, int: &str, from: i64) -> Split {
    let (class, int) = (class.into(), int.into());
    Split { class, int, from }
}

/// What the caller could have asked for is what is traced.
fn same_as(traced: &Traced, asked: &Profile) {
    assert_eq!(
        asked.apart(&traced.splits).expect("a profile"),
        traced.profile
    );
    assert_eq!(traced.graphs.len(), traced.profile.classes.len());
}

#[test]
fn a_class_is_split_where_the_code_changes_and_each_part_again() {
    let profile = Profile::single(&[("n", 1, 1000)]).expect("a profile");
    let found = traced(&profile, || {
        |call: &Call<'_>| {
            let n = call.int("n")?;
            let x = call.input("x", (n, 3), DType::F32)?;
            Ok(vec![match n {
                0..10 => x.exp()?,
                10..700 => x.log()?.exp()?,
                _ => x.sqr()?.sqrt()?.log()?,
            }])
        }
    });
    let found = found.expect("it is split");
    let mut splits = found.splits.clone();
    splits.sort_by_key(|s| s.from);
    let from: Vec<i64> = splits.iter().map(|s| s.from).collect();
    assert_eq!(from, [10, 700], "{splits:?}");
    same_as(&found, &profile);
}

#[test]
fn what_is_one_function_is_one_class() {
    let profile = Profile::single(&[("n", 1, 1000)]).expect("a profile");
    let found = traced(&profile, || {
        |call: &Call<'_>| {
            Ok(vec![
                call.input("x", (call.int("n")?, 3), DType::F32)?.exp()?,
            ])
        }
    });
    let found = found.expect("it traces");
    assert!(found.splits.is_empty());
    assert_eq!(found.profile, profile);
}

/// A model that decides by each value anew has more parts than a profile may have: the error is that of the class.
#[test]
fn a_class_of_too_many_parts_is_the_error_that_it_was() {
    let profile = Profile::single(&[("n", 1, 64)]).expect("a profile");
    let found = traced(&profile, || {
        |call: &Call<'_>| {
            let mut x = call.input("x", (call.int("n")?, 3), DType::F32)?;
            for _ in 0..call.int("n")? {
                x = x.exp()?;
            }
            Ok(vec![x])
        }
    });
    let error = found.expect_err("each length is a function of its own");
    assert!(matches!(error, Error::ControlFlow { .. }), "{error}");
    assert!(error.to_string().contains("Profile::split"), "{error}");
}

/// LFM2's convolution: prompts of fewer tokens than its window pad what they keep with zeros.
#[test]
fn prompts_that_are_shorter_than_a_window_are_a_class() {
    const WINDOW: usize = 3;
    let profile = Profile::decoder(24, 9).expect("a profile");
    let found = traced(&profile, || {
        let mut kept: Option<Tensor> = None;
        move |call: &Call<'_>| {
            let (_, seq) = call.positions()?;
            let x = call.input("x", (4, seq), DType::F32)?;
            let before = match (&kept, seq) {
                (Some(kept), 1) => kept.clone(),
                _ => Tensor::zeros((4, WINDOW), DType::F32, &Cpu)?,
            };
            let y = x.broadcast_add(&before.sum_keepdim(D::Minus1)?)?;
            let last = match seq {
                1 => Tensor::cat(&[&before.narrow(1, 1, WINDOW - 1)?, &x], 1)?,
                _ if seq < WINDOW => {
                    let zeros = Tensor::zeros((4, WINDOW - seq), DType::F32, &Cpu)?;
                    Tensor::cat(&[&zeros, &x], 1)?
                }
                _ => x.narrow(1, seq - WINDOW, WINDOW)?,
            };
            kept = Some(last);
            Ok(vec![y])
        }
    });
    let found = found.expect("it is split");
    assert_eq!(found.splits, [split("prefill", "seq", 3)]);
    same_as(&found, &profile);
}

/// A recurrence whose first step has nothing to go on from.
#[test]
fn a_first_call_that_is_another_function_is_a_class() {
    let profile = Profile::decoder(24, 1).expect("a profile");
    let found = traced(&profile, || {
        let mut state: Option<Tensor> = None;
        move |call: &Call<'_>| {
            let x = call.input("x", (1, 4), DType::F32)?;
            let gate = (&x * 0.5)?.exp()?;
            let next = match &state {
                None => (&x * 2.0)?,
                Some(state) => ((gate * state)? + &x)?,
            };
            state = Some(next.clone());
            Ok(vec![next])
        }
    });
    let found = found.expect("it is split");
    assert_eq!(found.splits, [split("decode", "past", 1)]);
    same_as(&found, &profile);
}

/// A cache that begins with nothing is one function from the first call on, so nothing is split.
#[test]
fn a_cache_is_one_class_from_its_first_call_on() {
    let profile = Profile::decoder(24, 1).expect("a profile");
    let found = traced(&profile, || {
        let mut cache: Option<Tensor> = None;
        move |call: &Call<'_>| {
            let x = call.input("x", (1, 4), DType::F32)?;
            let all = match &cache {
                None => x.clone(),
                Some(cache) => Tensor::cat(&[cache, &x], 0)?,
            };
            cache = Some(all.clone());
            Ok(vec![all.sum(0)?])
        }
    });
    assert!(found.expect("it traces").splits.is_empty());
}
