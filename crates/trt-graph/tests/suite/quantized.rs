//! candle's quantised tensors over weights in blocks: what is computed with them, and how it is read.

use crate::support::{compare, middle, trace_step, weights};
use std::sync::Arc;
use trt_graph::candle::quantized::{GgmlDType, QMatMul, QTensor};
use trt_graph::candle::{DType, Device, Module, Result, Tensor};
use trt_graph::candle_nn::VarBuilder;
use trt_graph::candle_transformers::quantized_nn::{Embedding, linear};
use trt_graph::candle_transformers::quantized_var_builder;
use trt_graph::{Call, Graph, compile};

/// A weight whose name says what it is; see [`weights`].
fn tensor(vb: &VarBuilder, name: &str) -> Result<Arc<QTensor>> {
    quantized_var_builder::VarBuilder::from(vb.clone()).get_no_shape(name)
}

/// The graph of a step over `x [n, 64]` of a dtype.
fn over(dtype: DType, step: impl Fn(&Tensor, &VarBuilder) -> Result<Tensor>) -> Graph {
    let traced = trace_step(&[("n", 2, 9)], |call: &Call<'_>, vb: &VarBuilder| {
        let x = call.input("x", (call.int("n")?, 64), dtype)?;
        Ok(vec![step(&x, vb)?])
    });
    traced.unwrap()
}

/// What each weight of the program is read as, with its encoding.
fn read(graph: &Graph) -> Vec<String> {
    let program = compile(graph.clone()).unwrap().0;
    let weight = |w: &trt_graph::program::Weight| format!("{} {} {}", w.name, w.encoding, w.roles);
    program.weights.iter().map(weight).collect()
}

fn output(graph: &Graph) -> String {
    graph.node(graph.outputs[0]).dtype.to_string()
}

#[test]
fn a_product_by_blocks_has_the_dtype_of_what_it_is_of() {
    for (dtype, name) in [
        (DType::F32, "f32"),
        (DType::F16, "f16"),
        (DType::BF16, "bf16"),
    ] {
        let graph = over(dtype, |x, vb| {
            QMatMul::from_arc(tensor(vb, "b24x64")?)?.forward(x)
        });
        assert_eq!(output(&graph), name);
        assert_eq!(read(&graph), ["b24x64 q8_0 rows"]);
    }
    let graph = over(DType::F32, |x, vb| {
        QMatMul::from_arc(tensor(vb, "b24x64")?)?.forward(&x.unsqueeze(0)?)
    });
    compare(&graph, &middle(&graph), 1e-4).unwrap();
}

#[test]
fn a_weight_in_floats_is_a_tensor_of_f32_as_in_candle() {
    let graph = over(DType::F32, |x, vb| {
        let product = QMatMul::from_arc(tensor(vb, "h24x64")?)?;
        assert!(matches!(&product, QMatMul::Tensor(w) if w.dtype() == DType::F32));
        product.forward(x)
    });
    compare(&graph, &middle(&graph), 1e-4).unwrap();
    assert_eq!(read(&graph), ["h24x64 bf16 rows"]);
    over(DType::BF16, |x, vb| {
        let product = QMatMul::from_arc(tensor(vb, "h24x64")?)?;
        assert!(product.forward(x).is_err());
        Ok(x.clone())
    });
}

#[test]
fn by_way_of_f16_the_result_has_its_dtype_again() {
    let graph = over(DType::F32, |x, vb| {
        let product = QMatMul::from_arc(tensor(vb, "b24x64")?)?;
        assert_eq!(product.dequantize_f16()?.dtype(), DType::F16);
        product.forward_via_f16(x)
    });
    assert_eq!(output(&graph), "f32");
    assert_eq!(read(&graph), ["b24x64 q8_0 rows"]);
    let graph = over(DType::F32, |x, vb| {
        let half = tensor(vb, "b24x64")?.dequantize_f16(x.device())?;
        QMatMul::TensorF16(half).forward(x)
    });
    assert_eq!((output(&graph).as_str(), read(&graph).len()), ("f32", 1));
}

#[test]
fn rows_are_picked_by_ids_of_any_shape() {
    let traced = trace_step(&[("n", 2, 9)], |call: &Call<'_>, vb: &VarBuilder| {
        let ids = call.input("ids", (2, call.int("n")?), DType::U32)?;
        let table = quantized_var_builder::VarBuilder::from(vb.clone());
        let (blocks, floats) = (tensor(vb, "b16x64")?, tensor(vb, "h16x64")?);
        let all = [
            blocks.embedding(&ids)?,
            QMatMul::from_arc(blocks)?.embedding(&ids)?,
            QMatMul::from_arc(floats)?.embedding(&ids)?,
        ];
        assert!(
            Embedding::new(16, 64, table).is_err(),
            "there is no 'weight'"
        );
        Tensor::stack(&all, 0).map(|t| vec![t])
    });
    let graph = traced.unwrap();
    compare(&graph, &middle(&graph), 1e-6).unwrap();
    let mut found = read(&graph);
    found.sort();
    assert_eq!(found, ["b16x64 q8_0 table", "h16x64 bf16 table"]);
}

#[test]
fn rows_that_lie_interleaved_are_in_the_order_of_the_model() {
    let graph = over(DType::F32, |x, vb| {
        QMatMul::from_arc(tensor(vb, "j16x64")?)?.forward(x)
    });
    compare(&graph, &middle(&graph), 1e-4).unwrap();
    assert_eq!(read(&graph), ["j16x64 q8_0 rows"]);
}

#[test]
fn what_does_not_fit_is_an_error() {
    over(DType::F32, |x, vb| {
        let product = QMatMul::from_arc(tensor(vb, "b24x64")?)?;
        for wrong in [x.t()?, x.narrow(1, 0, 32)?, x.get(0)?] {
            let said = product.forward(&wrong).unwrap_err().to_string();
            assert!(said.contains("for a weight of shape (24, 64)"), "{said}");
        }
        let blocks = tensor(vb, "b24x64")?;
        let moe = product.indexed_moe_forward(x, x).unwrap_err().to_string();
        assert!(moe.contains("picked by values"), "{moe}");
        assert!(blocks.data().is_err() && QTensor::quantize(x, GgmlDType::Q4K).is_err());
        assert!(
            tensor(vb, "b64")?
                .embedding(&x.to_dtype(DType::U32)?)
                .is_err()
        );
        assert!(linear(64, 24, quantized_var_builder::VarBuilder::from(vb.clone())).is_err());
        Ok(x.clone())
    });
    let none = weights().gguf().unwrap_err().to_string();
    assert!(
        none.starts_with("the weights are from no GGUF file"),
        "{none}"
    );
}

#[test]
fn types_have_the_sizes_that_candle_gives_them() {
    use candle_core::quantized::GgmlDType as Theirs;
    let all = [
        (GgmlDType::F32, Theirs::F32),
        (GgmlDType::F16, Theirs::F16),
        (GgmlDType::BF16, Theirs::BF16),
        (GgmlDType::Q4_0, Theirs::Q4_0),
        (GgmlDType::Q4_1, Theirs::Q4_1),
        (GgmlDType::Q5_0, Theirs::Q5_0),
        (GgmlDType::Q5_1, Theirs::Q5_1),
        (GgmlDType::Q8_0, Theirs::Q8_0),
        (GgmlDType::Q8_1, Theirs::Q8_1),
        (GgmlDType::Q2K, Theirs::Q2K),
        (GgmlDType::Q3K, Theirs::Q3K),
        (GgmlDType::Q4K, Theirs::Q4K),
        (GgmlDType::Q5K, Theirs::Q5K),
        (GgmlDType::Q6K, Theirs::Q6K),
        (GgmlDType::Q8K, Theirs::Q8K),
    ];
    for (ours, theirs) in all {
        let sizes = (theirs.type_size(), theirs.block_size());
        assert_eq!((ours.type_size(), ours.block_size()), sizes, "{ours:?}");
        assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
    }
    let blocks = tensor(&weights(), "b24x64").unwrap();
    assert_eq!(blocks.storage_size_in_bytes(), 24 * 2 * 34);
    assert_eq!(format!("{blocks:?}"), "QTensor[[24, 64]; Q8_0]");
    assert_eq!(blocks.dequantize(&Device::Cpu).unwrap().dtype(), DType::F32);
}
