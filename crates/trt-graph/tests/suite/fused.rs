//! What is computed inside of the product that reads it.

use crate::support::{compare, trace_step};
use trt_graph::candle::{DType, Result, Tensor};
use trt_graph::candle_nn::{Linear, Module, VarBuilder, ops};
use trt_graph::compile;
use trt_graph::program::Program;
use trt_kernel::{Kernel, Left};

/// Compiles a step on `x` of shape `[m, 64]` with `m` in a range, compares it with the reference,
/// and gives the kinds of its launches.
fn kinds(
    rows: [i64; 2],
    step: impl Fn(&Tensor, &VarBuilder) -> Result<Vec<Tensor>>,
) -> Vec<&'static str> {
    let graph = trace_step(&[("m", rows[0], rows[1])], |call, vb| {
        step(&call.input("x", (call.int("m")?, 64), DType::F32)?, vb)
    })
    .unwrap();
    for m in rows {
        if let Err(e) = compare(&graph, &[m], 1e-5) {
            panic!("{e}");
        }
    }
    let (program, report) = compile(graph).unwrap();
    assert_eq!(report.kernels.len(), program.launches.len());
    program
        .launches
        .iter()
        .flat_map(|l| l.kernel.parts())
        .map(kind)
        .collect()
}

fn kind(kernel: &Kernel) -> &'static str {
    match kernel {
        Kernel::Matmul(k) if k.a.stored().is_none() => "computing matmul",
        other => other.kind(),
    }
}

fn linear(x: &Tensor, vb: &VarBuilder, n: usize, name: &str) -> Result<Tensor> {
    let w = vb.pp(name).get((n, 64), &format!("w{n}x64"))?;
    Linear::new(w, None).forward(x)
}

fn norm(x: &Tensor, vb: &VarBuilder) -> Result<Tensor> {
    ops::rms_norm(x, &vb.get(64, "w64")?, 1e-5)
}

#[test]
fn products_of_few_rows_compute_the_norm_that_they_read() {
    for m in [1, 4, 8] {
        let found = kinds([m, m], |x, vb| {
            let y = norm(x, vb)?;
            Ok(vec![linear(&y, vb, 8, "q")?, linear(&y, vb, 16, "k")?])
        });
        assert_eq!(found, ["computing matmul"; 2], "{m}");
    }
}

#[test]
fn a_layer_norm_and_a_chain_of_functions_are_computed_too() {
    let found = kinds([2, 2], |x, vb| {
        let y = ops::layer_norm(x, &vb.get(64, "w64")?, &vb.pp("b").get(64, "w64")?, 1e-5)?;
        // Two products need it, so it is no epilogue and is computed in each.
        let z = (linear(&y, vb, 64, "up")? * 0.5)?.silu()?;
        Ok(vec![linear(&z, vb, 8, "p")?, linear(&z, vb, 8, "q")?])
    });
    assert_eq!(found, ["computing matmul", "matmul", "matmul"]);
}

#[test]
fn rows_that_are_many_or_unknown_are_stored_once() {
    for rows in [[9, 9], [2, 9]] {
        let found = kinds(rows, |x, vb| Ok(vec![linear(&norm(x, vb)?, vb, 8, "q")?]));
        assert_eq!(found, ["row", "matmul"], "{rows:?}");
    }
}

#[test]
fn what_others_read_stays_stored() {
    let as_output = kinds([1, 1], |x, vb| {
        let y = norm(x, vb)?;
        Ok(vec![linear(&y, vb, 8, "q")?, y])
    });
    assert_eq!(as_output, ["row", "matmul"]);
    let as_addend = kinds([1, 1], |x, vb| {
        let y = norm(x, vb)?;
        Ok(vec![(linear(&y, vb, 64, "q")? + &y)?])
    });
    assert_eq!(as_addend, ["row", "matmul"]);
}

#[test]
fn a_residual_that_a_product_reads_to_its_end_is_not_replaced_by_the_result() {
    // The sum may not take the memory of `h`: later blocks of the product compute their norm from it.
    let graph = trace_step(&[("m", 1, 1)], |call, vb| {
        let x = call.input("x", (call.int("m")?, 64), DType::F32)?;
        let h = x.exp()?;
        let y = (linear(&norm(&h, vb)?, vb, 64, "o")? + &h)?;
        Ok(vec![linear(&y.sin()?, vb, 8, "q")?])
    })
    .unwrap();
    compare(&graph, &[1], 1e-5).unwrap();
    let (program, _) = compile(graph).unwrap();
    let computing = |p: &Program| {
        let is = |l: &&trt_graph::program::Launch| kind(&l.kernel) == "computing matmul";
        p.launches.iter().filter(is).cloned().collect::<Vec<_>>()
    };
    let first = &computing(&program)[0];
    let Kernel::Matmul(product) = &first.kernel else {
        unreachable!()
    };
    let Left::Computed { body, .. } = &product.a else {
        unreachable!()
    };
    assert!(
        !body.insts.is_empty() && first.in_place.is_empty(),
        "{program}"
    );
}
