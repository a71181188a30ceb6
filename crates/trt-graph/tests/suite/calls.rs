//! One graph for all calls of a class: at sizes that were never sampled it computes what a trace of
//! just that call computes.

use crate::support::{compare, difference, reference, trace_step};
use trt_graph::candle::{D, DType, Result, Tensor};
use trt_graph::candle_nn::{LayerNorm, Linear, Module, VarBuilder, ops};
use trt_graph::{Call, Graph};
use trt_kernel::Env;

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
        let env = Env::new(call);
        let (found, expected) = (reference(&graph, &env).0, reference(&alone, &env).0);
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
