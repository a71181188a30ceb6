//! What follows from weights alone is a weight that is made once.

use crate::execute::execute;
use crate::support::{
    Made, compare, derived, golden_folder, inputs, made, middle, reference, trace_step,
    updates_golden,
};
use trt_graph::candle::{D, DType, Module, Result, Tensor};
use trt_graph::candle_nn::{Linear, VarBuilder};
use trt_graph::passes::{self, Derived};
use trt_graph::program::Program;
use trt_graph::{Call, Graph};
use trt_kernel::{Role, Roles};

type Step = fn(&Call<'_>, &VarBuilder) -> Result<Vec<Tensor>>;

/// A graph of `x` with some rows of so many columns.
fn graph(step: Step) -> Graph {
    trace_step(&[("rows", 2, 9)], step).unwrap()
}

fn x(call: &Call<'_>, columns: usize) -> Result<Tensor> {
    call.input("x", (call.int("rows")?, columns), DType::F32)
}

fn picture(call: &Call<'_>, channels: usize) -> Result<Tensor> {
    call.input("x", (call.int("rows")?, channels, 7, 7), DType::F32)
}

/// The program with derived weights, once it gives what the graph means, and the bits that it gives if everything is
/// computed in the call.
fn program(step: Step) -> (Program, Vec<Derived>) {
    let graph = graph(step);
    let (program, derived) = close(step);
    let (whole, _) = trt_graph::compile(graph.clone()).unwrap();
    let made = made_by_kernels(&derived);
    for rows in [2, 5] {
        let env = graph.env(&[rows]);
        let given = inputs(&graph, &env);
        let run = |program, made| execute(program, made, &env, [&given, &[]], &[], true).0;
        assert_eq!(run(&program, &made), run(&whole, &Made::new()), "{program}");
    }
    (program, derived)
}

/// The program with derived weights, once it gives what the graph means.
fn close(step: Step) -> (Program, Vec<Derived>) {
    let graph = graph(step);
    for rows in [2, 5] {
        compare(&graph, &[rows], 1e-4).unwrap();
    }
    derived(&graph).unwrap()
}

/// Derived weights as kernels make them.
fn made_by_kernels(derived: &[Derived]) -> Made {
    let one = |d: &Derived| {
        let (program, _) = trt_graph::lower(d.graph()).unwrap();
        let env = d.graph().env(&[]);
        let mut made = execute(&program, &Made::new(), &env, [&[], &[]], &[], true).0;
        (d.name().clone(), made.remove(0))
    };
    derived.iter().map(one).collect()
}

/// Every weight of the program with its roles; the name of a derived one without its hash.
fn weights(program: &Program) -> Vec<(String, Roles)> {
    let short = |name: &str| match name.split_once(".derived.") {
        Some((source, _)) => format!("{source}*"),
        None => name.to_string(),
    };
    let mut all: Vec<_> = (program.weights.iter())
        .map(|w| (short(&w.name), w.roles))
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// A program whose weights are these, read only by rows of products.
fn streams(step: Step, expected: &[&str]) {
    all_rows(&program(step).0, expected);
}

fn all_rows(program: &Program, expected: &[&str]) {
    let found = weights(program);
    let names: Vec<&str> = found.iter().map(|w| w.0.as_str()).collect();
    assert_eq!(names, expected, "{program}");
    for (name, roles) in &found {
        assert_eq!(*roles, Role::Rows.into(), "{name} in {program}");
    }
}

#[test]
fn arithmetic_on_a_matrix_is_a_matrix_that_streams() {
    streams(
        |call, vb| {
            let w = (vb.get((8, 6), "w8x6")? * 0.5)?.broadcast_mul(&vb.get((8, 1), "w8x1")?)?;
            Ok(vec![x(call, 6)?.matmul(&w.t()?)?])
        },
        &["w8x6*"],
    );
}

#[test]
fn joined_matrices_are_one_and_its_sources_are_gone() {
    streams(
        |call, vb| {
            let parts = [vb.get((8, 6), "w8x6")?, vb.get((4, 6), "w4x6")?];
            let joined = Linear::new(Tensor::cat(&parts, 0)?, None);
            Ok(vec![joined.forward(&x(call, 6)?)?])
        },
        &["w8x6*"],
    );
}

#[test]
fn a_matrix_that_lies_by_columns_is_turned() {
    // A product sums by rows in another order than by columns.
    let (program, _) = close(|call, vb| Ok(vec![x(call, 6)?.matmul(&vb.get((6, 8), "w6x8")?)?]));
    all_rows(&program, &["w6x8*"]);
    // As it lies: a product reads bf16.
    let (program, derived) = close(|call, vb| {
        let w = vb.get((6, 8), "h6x8")?;
        Ok(vec![x(call, 6)?.matmul(&w)?])
    });
    assert_eq!(derived[0].result().dtype, trt_kernel::DType::BF16);
    assert_eq!(program.weights[0].encoding, trt_kernel::DType::BF16.into());
}

#[test]
fn some_rows_of_a_matrix_are_a_matrix() {
    streams(
        |call, vb| {
            let (w, x) = (vb.get((9, 6), "w9x6")?, x(call, 6)?);
            let part = |at| x.matmul(&w.narrow(0, at, 3)?.t()?);
            Ok(vec![part(0)?, part(3)?])
        },
        &["w9x6*", "w9x6*"],
    );
}

#[test]
fn a_batch_norm_in_a_convolution_is_one_weight() {
    let (program, derived) = program(|call, vb| {
        let w = vb.get((5, 3, 3, 3), "w5x3x3x3")?;
        let spread = (vb.get(5, "v.w5")? + 1.5)?.sqrt()?;
        let scale = (vb.get(5, "g.w5")? / spread)?;
        let w = w.broadcast_mul(&scale.reshape((5, 1, 1, 1))?)?;
        let bias = (vb.get(5, "b.w5")? - (vb.get(5, "m.w5")? * scale)?)?;
        let y = picture(call, 3)?.conv2d(&w, 1, 1, 1, 1)?;
        Ok(vec![y.broadcast_add(&bias.reshape((1, 5, 1, 1))?)?])
    });
    let rows: Vec<bool> = (weights(&program).iter())
        .map(|w| w.1.has(Role::Rows))
        .collect();
    // The kernel and the bias; of the six sources none is left.
    assert_eq!(rows.len(), 2, "{program}");
    assert_eq!(rows.iter().filter(|r| **r).count(), 1);
    assert_eq!(derived.len(), 2);
}

#[test]
fn a_kernel_within_a_larger_one_is_one_weight() {
    streams(
        |call, vb| {
            let small = vb.get((5, 3, 1, 1), "w5x3x1x1")?;
            let padded = small.pad_with_zeros(D::Minus1, 1, 1)?;
            let padded = padded.pad_with_zeros(D::Minus2, 1, 1)?;
            let w = (vb.get((5, 3, 3, 3), "w5x3x3x3")? + padded)?;
            Ok(vec![picture(call, 3)?.conv2d(&w, 1, 1, 1, 1)?])
        },
        &["w5x3x3x3*"],
    );
}

#[test]
fn a_transposed_convolution_reads_its_weight_turned_around() {
    streams(
        |call, vb| {
            let w = vb.get((3, 5, 3, 3), "w3x5x3x3")?;
            let y = picture(call, 3)?.conv_transpose2d(&w, 1, 1, 2, 1)?;
            Ok(vec![y])
        },
        &["w3x5x3x3*"],
    );
}

#[test]
fn a_table_that_is_scaled_is_a_table() {
    let (program, _) = program(|call, vb| {
        let ids = call.input("ids", call.int("rows")?, DType::U32)?;
        let table = (vb.get((6, 4), "w6x4")? * 3.0)?;
        Ok(vec![table.index_select(&ids, 0)?])
    });
    assert_eq!(
        weights(&program),
        [("w6x4*".to_string(), Role::Table.into())]
    );
}

#[test]
fn what_a_kernel_reads_as_it_goes_stays() {
    let steps: [Step; 5] = [
        // Rows and tables as they lie, in any dtype and shape.
        |call, vb| Ok(vec![x(call, 6)?.matmul(&vb.get((8, 6), "h8x6")?.t()?)?]),
        |call, vb| {
            let w = vb.get((5, 3, 3, 3), "w5x3x3x3")?;
            Ok(vec![picture(call, 3)?.conv2d(&w, 1, 1, 1, 1)?])
        },
        |call, vb| {
            let ids = call.input("ids", call.int("rows")?, DType::U32)?;
            Ok(vec![vb.get((6, 4), "h6x4")?.index_select(&ids, 0)?])
        },
        // An element of a few.
        |call, vb| {
            let w = (vb.get(6, "w6")? + 1.0)?;
            Ok(vec![x(call, 6)?.broadcast_mul(&w)?])
        },
        // Blocks of values are a seventh of them.
        |call, vb| {
            let w = (vb.get((640, 64), "b640x64")? * 0.5)?;
            Ok(vec![x(call, 64)?.matmul(&w.t()?)?])
        },
    ];
    for (number, step) in steps.into_iter().enumerate() {
        let (optimised, _) = passes::optimise(graph(step)).unwrap();
        let (rest, derived) = passes::derive(optimised.clone()).unwrap();
        assert!(derived.is_empty(), "{number}: {derived:?}");
        assert_eq!(rest, optimised);
    }
}

#[test]
fn what_would_be_much_larger_than_its_sources_stays() {
    let of = |step: Step| {
        let (optimised, _) = passes::optimise(graph(step)).unwrap();
        passes::derive(optimised).unwrap().1
    };
    let small = of(|call, vb| {
        let w = vb.get((1, 6), "w1x6")?.broadcast_as((64, 6))?.exp()?;
        Ok(vec![x(call, 6)?.matmul(&w.t()?)?])
    });
    assert_eq!(small.len(), 1);
    let large = of(|call, vb| {
        let w = vb.get((1, 6), "w1x6")?.broadcast_as((4096, 6))?.exp()?;
        Ok(vec![x(call, 6)?.matmul(&w.t()?)?])
    });
    assert!(large.is_empty());
}

#[test]
fn equal_recipes_have_one_name_and_others_have_others() {
    let names = |step: Step| -> Vec<String> {
        let (_, derived) = derived(&graph(step)).unwrap();
        derived.iter().map(|d| d.name().to_string()).collect()
    };
    let twice = names(|call, vb| {
        let w = || vb.get((8, 6), "w8x6")? * 0.5;
        let x = x(call, 6)?;
        Ok(vec![x.matmul(&w()?.t()?)?, x.exp()?.matmul(&w()?.t()?)?])
    });
    assert_eq!(twice.len(), 1);
    let other = names(|call, vb| {
        let w = (vb.get((8, 6), "w8x6")? * 0.25)?;
        Ok(vec![x(call, 6)?.matmul(&w.t()?)?])
    });
    assert_ne!(twice, other);
    // A constant that is too long for the text of a graph.
    let first = names(|call, vb| {
        let by: Vec<f32> = (0..48).map(|i| i as f32).collect();
        let by = Tensor::from_vec(by, (8, 6), &trt_graph::candle::Device::Cpu)?;
        let w = (vb.get((8, 6), "w8x6")? * by)?;
        Ok(vec![x(call, 6)?.matmul(&w.t()?)?])
    });
    let second = names(|call, vb| {
        let by: Vec<f32> = (0..48).map(|i| (i * i) as f32).collect();
        let by = Tensor::from_vec(by, (8, 6), &trt_graph::candle::Device::Cpu)?;
        let w = (vb.get((8, 6), "w8x6")? * by)?;
        Ok(vec![x(call, 6)?.matmul(&w.t()?)?])
    });
    assert_ne!(first, second);
}

#[test]
fn a_graph_and_its_derived_weights_are_the_golden_and_mean_what_it_meant() {
    let graph = graph(|call, vb| {
        let scale = (vb.get(8, "g.w8")? / (vb.get(8, "v.w8")? + 1.5)?.sqrt()?)?;
        let w = vb
            .get((8, 6), "w8x6")?
            .broadcast_mul(&scale.reshape((8, 1))?)?;
        let turned = vb.get((8, 5), "w8x5")?;
        let x = x(call, 6)?.matmul(&w.t()?)?;
        Ok(vec![x.broadcast_add(&vb.get(8, "b.w8")?)?.matmul(&turned)?])
    });
    let (optimised, _) = passes::optimise(graph.clone()).unwrap();
    let (rest, derived) = passes::derive(optimised.clone()).unwrap();
    let env = graph.env(&middle(&graph));
    let values = made(&derived);
    let found = crate::support::reference_made(&rest, &values, &env);
    assert_eq!(found, reference(&optimised, &env));
    let recipes = derived
        .iter()
        .map(|d| format!("{}\n{}", d.name(), d.graph()));
    let text = [optimised.to_string(), rest.to_string()].into_iter();
    let text = text.chain(recipes).collect::<Vec<_>>().join("---\n");
    let path = golden_folder().join("derive/linear.txt");
    if updates_golden() {
        std::fs::create_dir_all(golden_folder().join("derive")).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap());
}
