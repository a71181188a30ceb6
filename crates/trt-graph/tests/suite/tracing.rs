//! Tracing and generalising: what is found, and what is refused with which words.

use crate::support::{compare, trace_in, trace_step};
use proptest::prelude::*;
use trt_graph::candle::{DType, Device, Result, Tensor};
use trt_graph::candle_nn::VarBuilder;
use trt_graph::{Call, Error, Graph, Op, Profile};

const INTS: [(&str, i64, i64); 2] = [("a", 2, 40), ("n", 3, 20)];
const CPU: Device = Device::Cpu;

fn narrowed(start: impl Fn(usize) -> usize) -> std::result::Result<Graph, Error> {
    trace_step(&[("a", 2, 40)], |call, vb| {
        Ok(vec![vb.get((4000, 2), "w4000x2")?.narrow(
            0,
            start(call.int("a")?),
            3,
        )?])
    })
}

#[test]
fn starts_must_be_polynomials() {
    let square = narrowed(|a| a * a + 1).unwrap();
    assert!(square.to_string().contains("start=v0*v0+1"), "{square}");
    for f in [
        |a: usize| a.min(7),
        |a: usize| a.max(7),
        |a: usize| 1 << a.min(11),
    ] {
        let e = narrowed(f).unwrap_err();
        assert!(matches!(e, Error::Size { .. }), "{e}");
        let text = e.to_string();
        assert!(
            text.contains("the start of node") && text.contains("a=2,"),
            "{text}"
        );
    }
}

#[test]
fn means_over_a_runtime_size_divide_by_it() {
    let graph = trace_step(&[("n", 2, 9)], |call, _| {
        Ok(vec![
            call.input("x", (call.int("n")?, 3), DType::F32)?
                .mean_keepdim(0)?,
        ])
    })
    .unwrap();
    compare(&graph, &[8], 1e-6).unwrap();
}

#[test]
fn control_flow_that_differs_inside_a_class_is_refused() {
    let e = trace_step(&[("n", 2, 40)], |call, _| {
        let x = call.input("x", (call.int("n")?, 3), DType::F32)?;
        Ok(vec![if call.int("n")? > 10 {
            x.exp()?
        } else {
            x.log()?
        }])
    })
    .unwrap_err();
    assert!(matches!(e, Error::ControlFlow { .. }), "{e}");
    let text = e.to_string();
    assert!(
        text.contains("n=10 and n=11") && text.contains("exp"),
        "{text}"
    );
}

#[test]
fn elements_of_an_input_cannot_be_read() {
    let e = trace_step(&[("n", 2, 9)], |call, _| {
        let x = call.input("x", call.int("n")?, DType::F32)?;
        let top: f32 = x.max_all()?.to_scalar()?;
        Ok(vec![(x / f64::from(top))?])
    })
    .unwrap_err()
    .to_string();
    assert!(
        e.contains("the model failed at n=2")
            && e.contains("to_scalar reads")
            && e.contains("an input of the call"),
        "{e}"
    );
}

#[test]
fn a_profile_without_such_an_integer_is_named() {
    let e = trace_step(&[("n", 2, 9)], |call, _| {
        Ok(vec![call.input("x", call.int("length")?, DType::F32)?])
    })
    .unwrap_err()
    .to_string();
    assert!(
        e.contains("no runtime integer 'length'") && e.contains("\"n\""),
        "{e}"
    );
}

type Cached = Option<Tensor>;

/// Traces the first class of a decoder whose step gets the new part and what it keeps.
fn decoder(
    mut step: impl FnMut(&Tensor, &mut Vec<Cached>) -> Result<Tensor> + Copy,
) -> std::result::Result<Graph, Error> {
    let profile = Profile::decoder(64, 16)?;
    trace_in(&profile, |_: VarBuilder| {
        let mut kept: Vec<Cached> = vec![None; 3];
        Ok(move |call: &Call<'_>| {
            let x = call.input("x", (call.int("seq")?, 4), DType::F32)?;
            Ok(vec![step(&x, &mut kept)?])
        })
    })
}

fn join(old: &Cached, new: &Tensor) -> Result<Tensor> {
    match old {
        None => Ok(new.clone()),
        Some(old) => Tensor::cat(&[old, new], 0),
    }
}

#[test]
fn a_cache_joined_by_cat_is_a_state() {
    let graph = decoder(|x, kept| {
        let all = join(&kept[0], &x.exp()?)?;
        kept[0] = Some(all.clone());
        all.sum_keepdim(0)
    })
    .unwrap();
    assert_eq!(graph.states.len(), 1);
    assert_eq!(graph.states[0].shape[0].to_string(), "v0");
    assert_eq!(
        graph.node(graph.states[0].update).shape[0].to_string(),
        "v0 + 1"
    );
    compare(&graph, &[5, 1], 1e-5).unwrap();
    compare(&graph, &[0, 1], 1e-5).unwrap();
}

/// A model that counts its calls and reads what it made some calls ago; before that there are zeros.
fn ring(length: usize) -> std::result::Result<Graph, Error> {
    trace_in(&Profile::decoder(64, 1)?, |_: VarBuilder| {
        let mut ring = vec![Tensor::zeros((1, 4), DType::F32, &CPU)?; length];
        let mut calls = 0;
        Ok(move |call: &Call<'_>| {
            let x = call.input("x", (call.int("seq")?, 4), DType::F32)?;
            let out = (&x + (&ring[calls % length] * 2.0)?)?;
            ring[calls % length] = x.exp()?;
            calls += 1;
            Ok(vec![out])
        })
    })
}

/// Each value is handed on from state to state until it is read.
#[test]
fn a_ring_is_a_chain_of_states_that_begin_with_its_constants() {
    for length in [1, 2, 4, 7] {
        let graph = ring(length).unwrap_or_else(|e| panic!("{length}: {e}"));
        assert_eq!(graph.states.len(), length);
        let zero = trt_graph::Literal::new(vec![0; 4]);
        for state in &graph.states {
            assert_eq!(state.initial, Some(zero.clone()), "{graph}");
        }
        let handed = |s: &trt_graph::StateDecl| matches!(graph.node(s.update).op, Op::State(_));
        let handed = graph.states.iter().filter(|s| handed(s)).count();
        assert_eq!(handed, length - 1, "{graph}");
        compare(&graph, &[9, 1], 1e-5).unwrap();
    }
}

/// What does not depend on inputs is no state, however long ago it was made.
#[test]
fn a_table_that_an_earlier_call_made_is_a_constant() {
    let graph = decoder(|x, kept| {
        let table = match &kept[0] {
            Some(table) => table.clone(),
            None => Tensor::arange(0f32, 4.0, &CPU)?.cos()?.reshape((1, 4))?,
        };
        kept[0] = Some(table.clone());
        x.broadcast_mul(&table)
    })
    .unwrap();
    assert!(graph.states.is_empty(), "{graph}");
    compare(&graph, &[5, 1], 1e-5).unwrap();
}

/// A state of fixed size that the first call does not have, and zeros do not stand for.
#[test]
fn a_state_that_is_missing_at_first_is_refused() {
    let e = decoder(|x, kept| {
        let out = join(&kept[1], x)?.sum_keepdim(0)?;
        kept[1] = kept[0].take();
        kept[0] = Some(x.exp()?);
        Ok(out)
    })
    .unwrap_err()
    .to_string();
    assert!(e.contains("the first call of decode"), "{e}");
}

/// The first call reads other values than any later one finds.
#[test]
fn a_state_that_begins_differently_in_two_places_is_refused() {
    let e = decoder(|x, kept| {
        let old = |value: f32| Tensor::full(value, (1, 4), &CPU);
        let (a, b) = match &kept[0] {
            Some(kept) => (kept.clone(), kept.clone()),
            None => (old(1.0)?, old(2.0)?),
        };
        kept[0] = Some(x.exp()?);
        (a.sin()? + b.cos()?)? + x
    })
    .unwrap_err()
    .to_string();
    assert!(e.contains("begin with the same values"), "{e}");
}

#[test]
fn a_first_call_that_computes_something_else_is_refused() {
    let e = decoder(|x, kept| {
        let all = match &kept[0] {
            None => x.sin()?,
            Some(old) => Tensor::cat(&[old, x], 0)?,
        };
        kept[0] = Some(all.clone());
        all.sum_keepdim(0)
    })
    .unwrap_err()
    .to_string();
    assert!(
        e.contains("the first call of decode") && e.contains("sin"),
        "{e}"
    );
}

#[test]
fn profiles_say_what_they_need() {
    for e in [
        Profile::single(&[("n", 5, 2)]).unwrap_err(),
        Profile::single(&[("n", 1, 2); 17]).unwrap_err(),
    ] {
        assert!(
            e.to_string().starts_with("profile: ") || e.to_string().contains("range 5..=2"),
            "{e}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn affine_coefficients_are_recovered(c in 0usize..50, k in 0usize..9, m in 0usize..9) {
        let graph = trace_step(&INTS, |call, vb| {
            let start = c + k * call.int("a")? + m * call.int("n")?;
            Ok(vec![vb.get((4000, 2), "w4000x2")?.narrow(0, start, 3)?])
        })
        .unwrap();
        let start = graph.nodes.iter().find_map(|n| match &n.op {
            Op::Narrow { start, .. } => Some(start.clone()),
            _ => None,
        });
        let at = |a, n| start.clone().unwrap().eval(&trt_kernel::Env::new(&[a, n]));
        for (a, n) in [(2, 3), (39, 19), (17, 5)] {
            prop_assert_eq!(at(a, n), c as i64 + k as i64 * a + m as i64 * n);
        }
    }

    #[test]
    fn a_product_of_integers_is_found(c in 0usize..50, k in 1usize..4) {
        let graph = trace_step(&INTS, |call, vb| {
            let start = c + k * call.int("a")? * call.int("n")?;
            Ok(vec![vb.get((4000, 2), "w4000x2")?.narrow(0, start, 3)?])
        })
        .unwrap();
        let start = graph.nodes.iter().find_map(|n| match &n.op {
            Op::Narrow { start, .. } => Some(start.clone()),
            _ => None,
        });
        let at = |a, n| start.clone().unwrap().eval(&trt_kernel::Env::new(&[a, n]));
        for (a, n) in [(2, 3), (39, 19), (17, 5)] {
            prop_assert_eq!(at(a, n), c as i64 + k as i64 * a * n);
        }
    }
}

#[test]
fn elements_that_are_read_again_in_each_sample_are_those_of_the_tensor_that_is_read() {
    let graph = trace_step(&INTS, |call, _| {
        let n = call.int("n")?;
        let ramp = |start: i64| Tensor::arange(start, start + n as i64, &CPU)?.to_vec1::<i64>();
        // More than are kept, in turn, and of sizes that differ between samples.
        for start in (0..12).chain(0..12) {
            let expected: Vec<i64> = (start..start + n as i64).collect();
            assert_eq!(ramp(start)?, expected);
        }
        let halves = Tensor::arange(0f32, 4.0, &CPU)?.affine(0.5, 0.0)?;
        assert_eq!(halves.to_vec1::<f32>()?, [0.0, 0.5, 1.0, 1.5]);
        Ok(vec![Tensor::zeros(n, DType::F32, &CPU)?])
    });
    graph.unwrap();
}
