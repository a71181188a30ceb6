//! One graph for all calls of a class: at sizes that were never sampled it computes what a trace of
//! just that call computes.

use crate::support::{compare, difference, reference, trace_step};
use trt_graph::candle::{D, DType, Result, Tensor};
use trt_graph::candle_nn::{Conv2d, Conv2dConfig, LayerNorm, Linear, Module, VarBuilder, ops};
use trt_graph::{Call, Error, Graph};

type Ints<'a> = [(&'a str, i64, i64)];

/// Traces a step over ranges, and compares it at each call with the trace of that call alone.
fn holds(
    ints: &Ints<'_>,
    calls: &[&[i64]],
    tolerance: f64,
    step: impl Fn(&Call<'_>, &VarBuilder) -> Result<Vec<Tensor>> + Copy,
) -> Graph {
    let graph = trace_step(ints, step).unwrap_or_else(|e| panic!("{e}"));
    for call in calls {
        let pinned: Vec<(&str, i64, i64)> =
            ints.iter().zip(*call).map(|(i, v)| (i.0, *v, *v)).collect();
        let alone = trace_step(&pinned, step).unwrap();
        let found = reference(&graph, &graph.env(call)).0;
        let expected = reference(&alone, &alone.env(call)).0;
        assert_eq!(found.len(), expected.len());
        for (x, y) in found.iter().zip(&expected) {
            let differs = difference(x, y, 0.0);
            assert!(differs.is_none(), "{call:?}: {differs:?}\n{graph}");
        }
        compare(&graph, call, tolerance).unwrap();
    }
    graph
}

/// A layer of BERT: attention of 2 heads over 8 channels under an additive mask, and a product pair.
fn bert_layer(x: &Tensor, mask: &Tensor, vb: &VarBuilder) -> Result<Tensor> {
    let (b, l, _) = x.dims3()?;
    let part = |x: &Tensor| linear(vb, 8, 8)?.forward(x);
    let heads = |x: Tensor| x.reshape((b, l, 2, 4))?.transpose(1, 2)?.contiguous();
    let (q, k, v) = (heads(part(x)?)?, heads(part(x)?)?, heads(part(x)?)?);
    let scores = (q.matmul(&k.t()?)? / 2.0)?.broadcast_add(mask)?;
    let context = ops::softmax(&scores, D::Minus1)?.matmul(&v)?;
    let context = context
        .transpose(1, 2)?
        .contiguous()?
        .flatten_from(D::Minus2)?;
    let x = (part(&context)? + x)?;
    let x = norm(vb)?.forward(&x)?;
    let up = linear(vb, 8, 16)?.forward(&x)?.gelu()?;
    linear(vb, 16, 8)?.forward(&up)? + x
}

/// Weights are named by their shape, so products of one shape have the same ones.
fn linear(vb: &VarBuilder, from: usize, to: usize) -> Result<Linear> {
    let weight = vb.get((to, from), &format!("w{to}x{from}"))?;
    let bias = vb.get(to, &format!("w{to}"))?;
    Ok(Linear::new(weight, Some(bias)))
}

fn norm(vb: &VarBuilder) -> Result<LayerNorm> {
    let (weight, bias) = (vb.get(8, "w8")?, vb.get(8, "w8")?);
    Ok(LayerNorm::new(weight, bias, 1e-5))
}

#[test]
fn an_encoder_serves_any_batch_of_any_length_with_a_padding_mask() {
    let ints = [("batch", 1, 8), ("length", 1, 128)];
    let calls: [&[i64]; 6] = [&[1, 1], &[3, 17], &[5, 1], &[1, 90], &[8, 33], &[7, 128]];
    let graph = holds(&ints, &calls, 1e-4, |call, vb| {
        let (b, l) = (call.int("batch")?, call.int("length")?);
        let ids = call.input("ids", (b, l), DType::U32)?;
        let mask = call.input("mask", (b, l), DType::F32)?;
        let table = vb.get((9, 8), "w9x8")?;
        let x = table
            .index_select(&ids.flatten_all()?, 0)?
            .reshape((b, l, 8))?;
        let hidden = ((1.0 - mask.unsqueeze(1)?.unsqueeze(1)?)? * -1e4)?;
        let x = bert_layer(&x, &hidden, vb)?;
        let pooled = bert_layer(&x, &hidden, vb)?.narrow(1, 0, 1)?;
        let weighted = x.broadcast_mul(&mask.unsqueeze(2)?)?.sum(1)?;
        Ok(vec![pooled.squeeze(1)?.tanh()?, weighted])
    });
    assert!(graph.to_string().contains("v0*v1"), "{graph}");
}

#[test]
fn what_is_one_in_some_calls_is_told_from_what_is_one_in_all() {
    let calls: [&[i64]; 3] = [&[1], &[2], &[4]];
    holds(&[("n", 1, 4)], &calls, 1e-6, |call, vb| {
        let n = call.int("n")?;
        let x = call.input("x", (n, 8), DType::F32)?;
        let row = call.input("row", (1, 8), DType::F32)?;
        let column = call.input("column", (n, 1), DType::F32)?;
        let x = x.broadcast_add(&row)?.broadcast_mul(&column)?;
        let all = x.broadcast_add(&vb.get((1, 8), "w1x8")?)?.sum_keepdim(0)?;
        Ok(vec![x.broadcast_sub(&all)?, all.broadcast_as((n, 8))?])
    });
}

fn conv(vb: &VarBuilder, from: usize, to: usize, k: usize, stride: usize) -> Result<Conv2d> {
    let config = Conv2dConfig {
        padding: k / 2,
        stride,
        ..Conv2dConfig::default()
    };
    let weight = vb.get((to, from, k, k), &format!("w{to}x{from}x{k}x{k}"))?;
    Ok(Conv2d::new(weight, None, config))
}

/// Two blocks of a residual network, the first of which halves the sides.
fn residual(x: &Tensor, vb: &VarBuilder, from: usize, to: usize) -> Result<Tensor> {
    let y = conv(vb, from, to, 3, 2)?.forward(x)?.relu()?;
    let y = conv(vb, to, to, 3, 1)?.forward(&y)?;
    let x = (conv(vb, from, to, 1, 2)?.forward(x)? + y)?.relu()?;
    let y = conv(vb, to, to, 3, 1)?.forward(&x)?.relu()?;
    (y + x)?.relu()
}

#[test]
fn a_residual_network_serves_images_of_any_sides() {
    let ints = [("batch", 1, 4), ("height", 20, 100), ("width", 24, 90)];
    let calls = (0..16).map(|i| [1 + i % 4, 33 + 2 * i, 64 - i]);
    let calls: Vec<[i64; 3]> = calls.chain([[2, 20, 90], [1, 21, 25]]).collect();
    let calls: Vec<&[i64]> = calls.iter().map(|c| c.as_slice()).collect();
    let graph = holds(&ints, &calls, 2e-3, |call, vb| {
        let sides = (call.int("height")?, call.int("width")?);
        let x = call.input(
            "image",
            (call.int("batch")?, 3, sides.0, sides.1),
            DType::F32,
        )?;
        let x = conv(vb, 3, 4, 7, 2)?.forward(&x)?.relu()?;
        let x = x.pad_with_zeros(2, 1, 1)?.pad_with_zeros(3, 1, 1)?;
        let x = x.max_pool2d_with_stride(3, 2)?;
        let x = residual(&residual(&residual(&x, vb, 4, 6)?, vb, 6, 8)?, vb, 8, 10)?;
        let pooled = x.mean(D::Minus1)?.mean(D::Minus1)?;
        Ok(vec![
            linear(vb, 10, 5)?.forward(&pooled)?,
            x.flatten_from(2)?,
        ])
    });
    // Five halvings of two sides.
    assert_eq!(graph.floors.len(), 10, "{graph}");
    assert!(
        graph.to_string().contains("floor v12 32 : v2 + 31"),
        "{graph}"
    );
}

#[test]
fn audio_of_any_length_is_encoded() {
    let ints = [("batch", 1, 3), ("frames", 2, 200)];
    let calls: Vec<[i64; 2]> = (0..8).map(|i| [1 + i % 3, 2 + 23 * i + i % 2]).collect();
    let calls: Vec<&[i64]> = calls.iter().map(|c| c.as_slice()).collect();
    let graph = holds(&ints, &calls, 1e-4, |call, vb| {
        let (b, frames) = (call.int("batch")?, call.int("frames")?);
        let mel = call.input("mel", (b, 5, frames), DType::F32)?;
        let conv = |x: &Tensor, from: usize, stride| {
            let weight = vb.get((8, from, 3), &format!("w8x{from}x3"))?;
            x.conv1d(&weight, 1, stride, 1, 1)?.gelu()
        };
        let x = conv(&conv(&mel, 5, 1)?, 8, 2)?.transpose(1, 2)?;
        let places = vb.get((100, 8), "w100x8")?.narrow(0, 0, x.dim(1)?)?;
        let x = x.broadcast_add(&places)?;
        let none = Tensor::zeros((1, 1, 1, 1), DType::F32, x.device())?;
        Ok(vec![bert_layer(&x, &none, vb)?])
    });
    assert!(graph.to_string().contains("floor v2 2 : v1 + 1"), "{graph}");
}

#[test]
fn sides_that_are_multiples_go_down_and_up_again() {
    let ints = [("batch", 1, 2), ("n", 1, 6), ("m", 1, 5)];
    let calls: [&[i64]; 4] = [&[1, 1, 1], &[2, 5, 3], &[1, 6, 2], &[2, 4, 5]];
    let graph = holds(&ints, &calls, 1e-4, |call, vb| {
        let sides = (8 * call.int("n")?, 8 * call.int("m")?);
        let x = call.input(
            "latent",
            (call.int("batch")?, 4, sides.0, sides.1),
            DType::F32,
        )?;
        let down = conv(vb, 4, 6, 3, 2)?.forward(&x)?.silu()?;
        let low = conv(vb, 6, 6, 3, 2)?.forward(&down)?.silu()?;
        let (_, _, h, w) = down.dims4()?;
        let up = Tensor::cat(&[&low.upsample_nearest2d(h, w)?, &down], 1)?;
        let up = conv(vb, 12, 4, 3, 1)?
            .forward(&up)?
            .upsample_nearest2d(sides.0, sides.1)?;
        Ok(vec![(up + x)?.avg_pool2d(4)?])
    });
    assert!(graph.floors.is_empty(), "{graph}");
}

#[test]
fn parts_of_an_odd_length_are_its_halves() {
    let calls: [&[i64]; 4] = [&[3], &[4], &[17], &[40]];
    holds(&[("n", 3, 40)], &calls, 1e-6, |call, vb| {
        let n = call.int("n")?;
        let x = call.input("x", (n, 8), DType::F32)?;
        let half = x.narrow(0, n / 2, n - n / 2)?;
        let third = x.narrow(0, n.div_ceil(3), n / 3)?;
        let all = x.broadcast_add(&vb.get(8, "w8")?)?;
        Ok(vec![
            half.exp()?,
            third.sum_keepdim(0)?,
            all.narrow(0, n % 2, n / 2)?,
        ])
    });
}

/// What a size `f` of two integers, each from 8 to 64, is traced to.
fn sized(f: impl Fn(usize, usize) -> usize + Copy) -> std::result::Result<Graph, Error> {
    trace_step(&[("a", 8, 64), ("n", 8, 64)], |call, vb| {
        let size = f(call.int("a")?, call.int("n")?);
        Ok(vec![
            vb.get((5000, 2), "w5000x2")?.narrow(0, 1, size)?.exp()?,
        ])
    })
}

#[test]
fn sizes_that_only_look_like_others_at_some_samples_are_refused() {
    // At the ends of the ranges and next to the least, many of them are a sum, a product or a floor.
    let all: [fn(usize, usize) -> usize; 11] = [
        |a, n| (a + n) / 8,
        |a, n| (a + 3 * n) / 16,
        |a, n| a * n / 8,
        |a, n| a.div_ceil(8) * n / 4,
        |a, _| a.min(50),
        |a, n| a.max(n),
        |a, n| (a / 2).min(n),
        |a, _| a.next_power_of_two(),
        |a, _| a.isqrt() + 1,
        |a, _| a ^ 3,
        |a, _| if a < 60 { a / 8 } else { 8 },
    ];
    for (i, f) in all.into_iter().enumerate() {
        match sized(f) {
            Err(Error::Size { .. }) => {}
            Err(other) => panic!("{i}: {other}"),
            Ok(graph) => {
                // Not refused, so it must be right everywhere.
                let size = &graph.node(graph.outputs[0]).shape[0];
                for a in 8..=64 {
                    for n in 8..=64 {
                        let env = graph.env(&[a as i64, n as i64]);
                        assert_eq!(size.size(&env), f(a, n), "{i} at {a} {n}: {graph}");
                    }
                }
            }
        }
    }
    let text = sized(|a, _| a.min(50)).unwrap_err().to_string();
    let words = [
        "a size of node 1 (narrow",
        "floors of one of them",
        "a=8 n=8",
    ];
    assert!(words.iter().all(|w| text.contains(w)), "{text}");
}

#[test]
fn floors_and_ceilings_by_any_small_number_are_found() {
    for c in [2, 3, 5, 6, 7, 12, 25, 32] {
        let each: [&dyn Fn(usize, usize) -> usize; 3] = [
            &|a, n| a / c + n.div_ceil(c),
            &|a, n| a.div_ceil(c) * n,
            &|a, n| (a + c / 2) / c + 2 * n,
        ];
        for f in each {
            let graph = sized(f).unwrap_or_else(|e| panic!("{c}: {e}"));
            let size = &graph.node(graph.outputs[0]).shape[0];
            for (a, n) in (8..=64).flat_map(|a| (8..=64).map(move |n| (a, n))) {
                let env = graph.env(&[a as i64, n as i64]);
                assert_eq!(size.size(&env), f(a, n), "{c} at {a} {n}: {graph}");
            }
        }
    }
}
