//! Weights that are not stored as the model has them: in blocks, or with rows in another order.

use crate::support::{compare, middle, trace_step};
use trt_graph::candle::{D, DType, IndexOp, Module, Result, Tensor};
use trt_graph::candle_nn::{Embedding, Linear, rotary_emb::rope};
use trt_graph::program::Program;
use trt_graph::{Call, Graph, compile};
use trt_kernel::Role;

fn traced(
    step: impl Fn(&Call<'_>, &trt_graph::candle_nn::VarBuilder) -> Result<Vec<Tensor>>,
) -> Graph {
    trace_step(&[("n", 2, 9)], step).unwrap()
}

/// The program, which computes what the reference says.
fn program(graph: &Graph) -> Program {
    compare(graph, &middle(graph), 1e-4).unwrap();
    compile(graph.clone()).unwrap().0
}

/// What each weight of a program is read as, with its encoding.
fn read(program: &Program) -> Vec<String> {
    let weight = |w: &trt_graph::program::Weight| format!("{} {} {}", w.name, w.encoding, w.roles);
    let mut all: Vec<String> = program.weights.iter().map(weight).collect();
    all.sort();
    all
}

#[test]
fn products_and_gathers_read_blocks_and_the_rest_reads_values() {
    let graph = traced(|call, vb| {
        let ids = call.input("ids", call.int("n")?, DType::U32)?;
        let x = Embedding::new(vb.get((16, 64), "b16x64")?, 64).forward(&ids)?;
        let logits = Linear::new(vb.get((16, 64), "b16x64")?, None).forward(&x)?;
        let scaled = x.broadcast_mul(&vb.get(64, "b64")?)?;
        Ok(vec![logits, scaled.sum_keepdim(D::Minus1)?])
    });
    let program = program(&graph);
    assert_eq!(read(&program), ["b16x64 q8_0 rows+table", "b64 f32 whole"]);
}

#[test]
fn a_cast_of_a_weight_in_blocks_is_not_seen_by_a_product() {
    let graph = traced(|call, vb| {
        let x = call.input("x", (call.int("n")?, 64), DType::BF16)?;
        let weight = vb.get((24, 64), "b24x64")?.to_dtype(DType::BF16)?;
        Ok(vec![
            Linear::new(weight, None)
                .forward(&x)?
                .to_dtype(DType::F32)?,
        ])
    });
    let program = compile(graph).unwrap().0;
    assert_eq!(read(&program), ["b24x64 q8_0 rows"]);
}

#[test]
fn a_weight_in_blocks_that_is_used_both_ways_is_read_both_ways() {
    let graph = traced(|call, vb| {
        let x = call.input("x", (call.int("n")?, 64), DType::F32)?;
        let weight = vb.get((32, 64), "b32x64")?;
        let rows = Linear::new(weight.clone(), None).forward(&x)?;
        Ok(vec![rows, weight.i(3)?.unsqueeze(0)?.broadcast_add(&x)?])
    });
    let program = program(&graph);
    assert_eq!(read(&program), ["b32x64 f32 whole", "b32x64 q8_0 rows"]);
}

#[test]
fn interleaved_rows_are_a_view_of_the_result() {
    for (name, k) in [("i16x6", 6), ("j16x64", 64)] {
        let graph = traced(|call, vb| {
            let x = call.input("x", (call.int("n")?, k), DType::F32)?;
            Ok(vec![Linear::new(vb.get((16, k), name)?, None).forward(&x)?])
        });
        let program = program(&graph);
        let weight = &program.weights[0];
        assert!(
            weight.roles.has(Role::Rows) && !weight.roles.has(Role::Whole),
            "{weight:?}"
        );
        assert_eq!(program.weights.len(), 1);
    }
}

#[test]
fn interleaved_biases_follow_their_rows() {
    let graph = traced(|call, vb| {
        let x = call.input("x", (call.int("n")?, 64), DType::F32)?;
        let (weight, bias) = (vb.get((16, 64), "j16x64")?, vb.get(16, "i16")?);
        Ok(vec![Linear::new(weight, Some(bias)).forward(&x)?])
    });
    program(&graph);
}

#[test]
fn rotary_embedding_reads_interleaved_halves_where_they_are() {
    let graph = traced(|call, vb| {
        let n = call.int("n")?;
        let x = call.input("x", (1, n, 64), DType::F32)?;
        let (cos, sin) = (
            call.input("cos", (n, 8), DType::F32)?,
            call.input("sin", (n, 8), DType::F32)?,
        );
        let q = Linear::new(vb.get((32, 64), "j32x64")?, None).forward(&x)?;
        let q = q.reshape((1, n, 2, 16))?.transpose(1, 2)?.contiguous()?;
        Ok(vec![rope(&q, &cos, &sin)?])
    });
    let program = program(&graph);
    let labels: Vec<&str> = program.launches.iter().map(|l| l.label.as_str()).collect();
    assert_eq!(labels, ["matmul", "rope"]);
}

#[test]
fn printed_graphs_say_how_weights_are_stored() {
    let graph = traced(|call, vb| {
        let x = call.input("x", (call.int("n")?, 64), DType::F32)?;
        let q = Linear::new(vb.get((16, 64), "j16x64")?, None).forward(&x)?;
        Ok(vec![
            (q + Linear::new(vb.get((16, 64), "w16x64")?, None).forward(&x)?)?,
        ])
    });
    let text = graph.to_string();
    assert!(
        text.contains("encoding=q8_0") && !text.contains("encoding=f32"),
        "{text}"
    );
    assert_eq!(Graph::parse(&text, &|_| None).unwrap().to_string(), text);
}
