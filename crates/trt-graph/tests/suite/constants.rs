//! Constants that a call makes: what they are found to be at any call, and which are refused.

use crate::support::{compare, trace_step};
use trt_graph::candle::{Device, Result, Tensor};
use trt_graph::{Error, Graph, Op};

const INTS: [(&str, i64, i64); 2] = [("a", 2, 40), ("n", 3, 20)];
const CPU: Device = Device::Cpu;

/// Traces a constant that depends on a call's integers `a` and `n`.
fn constant(make: impl Fn(usize, usize) -> Result<Tensor>) -> std::result::Result<Graph, Error> {
    trace_step(&INTS, |call, _| {
        Ok(vec![make(call.int("a")?, call.int("n")?)?])
    })
}

fn table(queries: usize, keys: usize, f: impl Fn(usize, usize) -> f32) -> Result<Tensor> {
    let data: Vec<f32> = (0..queries * keys).map(|i| f(i / keys, i % keys)).collect();
    Tensor::from_vec(data, (queries, keys), &CPU)
}

fn causal(graph: &Graph) -> String {
    let found = graph.nodes.iter().find_map(|n| match &n.op {
        Op::Causal { offset, window } => Some(format!("{offset} {window:?}")),
        _ => None,
    });
    found.unwrap_or_else(|| graph.to_string())
}

#[test]
fn causal_masks_are_recognised_by_value() {
    let bytes = |n: usize| {
        (0..n * n)
            .map(|i| u8::from(i % n > i / n))
            .collect::<Vec<u8>>()
    };
    let mask = constant(|_, n| Tensor::from_vec(bytes(n), (n, n), &CPU)).unwrap();
    assert_eq!(causal(&mask), "0 None");
    let hide = |yes: bool| if yes { f32::NEG_INFINITY } else { 0.0 };
    let additive = constant(|a, n| table(n, a + n, |i, j| hide(j > i + a))).unwrap();
    assert_eq!(causal(&additive), "v0 None");
    compare(&additive, &[11, 7], 0.0).unwrap();
    let window =
        constant(|a, n| table(n, a + n, |i, j| hide(j > i + a || j + 5 <= i + a))).unwrap();
    assert_eq!(causal(&window), "v0 Some(5)");
    compare(&window, &[11, 7], 0.0).unwrap();
}

/// Windows to both sides, relative places in buckets, slopes: whatever follows from `j - i`, counted from the start or
/// the end of both axes.
#[test]
fn what_follows_from_distances_is_a_table_to_the_ends_of_the_profile() {
    let far = |i: usize, j: usize, w: usize| i.abs_diff(j) > w;
    for w in [1, 3, 18] {
        let hide = |yes: bool| if yes { f32::NEG_INFINITY } else { 0.0 };
        let window = constant(|_, n| table(n, n, |i, j| hide(far(i, j, w)))).unwrap();
        compare(&window, &[2, 20], 0.0).unwrap();
        compare(&window, &[2, 7], 0.0).unwrap();
    }
    let bucket = |d: i64| (d.unsigned_abs().min(9) + 10 * u64::from(d > 0)) as u32;
    let buckets = constant(|a, n| {
        let places = (0..n * (a + n)).map(|p| (p / (a + n) + a, p % (a + n)));
        let ids = places.map(|(i, j)| bucket(j as i64 - i as i64)).collect();
        Tensor::from_vec(ids, (1, n, a + n), &CPU)
    });
    let buckets = buckets.unwrap();
    assert!(buckets.to_string().contains("index_select"), "{buckets}");
    for call in [[2, 3], [40, 20], [13, 11]] {
        compare(&buckets, &call, 0.0).unwrap();
    }
    let slopes = constant(|a, n| {
        let slope = |p: usize| (p % n) as f32 - (p / n % n) as f32;
        let of = |p: usize| slope(p) * [0.5, 0.25, 3.0][p / (n * n)];
        let all = (0..3 * n * n).map(of).collect();
        assert!(a > 0);
        Tensor::from_vec(all, (1, 3, n, n), &CPU)
    });
    compare(&slopes.unwrap(), &[2, 17], 0.0).unwrap();
    let line = constant(|a, _| {
        let places = (0..a).map(|j| ((j * j) as f32).sin());
        Tensor::from_vec(places.collect(), a, &CPU)
    });
    compare(&line.unwrap(), &[33, 4], 0.0).unwrap();
}

#[test]
fn fills_and_ranges_are_recognised_by_value() {
    let fill = constant(|_, n| Tensor::from_vec(vec![2.5f32; n], n, &CPU)).unwrap();
    assert!(fill.nodes.iter().any(|n| n.op == Op::Float(2.5)), "{fill}");
    let range =
        constant(|a, n| Tensor::from_vec((a as u32..(a + n) as u32).collect(), (1, n), &CPU))
            .unwrap();
    assert!(
        range.to_string().contains("arange start=v0 step=1"),
        "{range}"
    );
    compare(&range, &[9, 4], 0.0).unwrap();
}

#[test]
fn a_table_that_changes_arbitrarily_is_refused() {
    let e = constant(|_, n| table(n, n, |i, j| (i * j + n) as f32))
        .unwrap_err()
        .to_string();
    assert!(
        e.contains("constant f32[3, 3]") && e.contains("pass it as an input"),
        "{e}"
    );
}

#[test]
fn a_float_that_differs_is_refused() {
    let e = constant(|a, _| Tensor::new(&[1f32, 2.], &CPU)? * (a as f64))
        .unwrap_err()
        .to_string();
    assert!(e.contains("float 2.0") && e.contains("float 3.0"), "{e}");
}
