//! What is computed inside of the product that reads it.

use crate::support::{compare, trace_step};
use trt_graph::candle::{DType, Result, Tensor};
use trt_graph::candle_nn::{Linear, Module, VarBuilder, ops};
use trt_graph::compile;
use trt_graph::program::Program;
use trt_kernel::{Kernel, Left, Order};

type Step = dyn Fn(&Tensor, &VarBuilder) -> Result<Vec<Tensor>>;

/// Compiles a step on `x` of shape `[m, 64]` with `m` in a range, and compares it with the
/// reference.
fn compiled(rows: [i64; 2], step: &Step) -> Program {
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
}

/// The kinds of its kernels.
fn kinds(
    rows: [i64; 2],
    step: impl Fn(&Tensor, &VarBuilder) -> Result<Vec<Tensor>> + 'static,
) -> Vec<&'static str> {
    let program = compiled(rows, &step);
    let kernels = program.launches.iter().flat_map(|l| l.kernel.parts());
    kernels.map(kind).collect()
}

/// Its launches.
fn launches(
    rows: [i64; 2],
    step: impl Fn(&Tensor, &VarBuilder) -> Result<Vec<Tensor>> + 'static,
) -> Vec<String> {
    let program = compiled(rows, &step);
    let name = |kernel: &Kernel| match kernel {
        Kernel::Group(g) => {
            let order = match g.order {
                Order::Side => "group",
                Order::Chain => "chain",
            };
            format!("{order} of {} {}", g.parts.len(), kind(&g.parts[0]))
        }
        other => kind(other).into(),
    };
    program.launches.iter().map(|l| name(&l.kernel)).collect()
}

fn kind(kernel: &Kernel) -> &'static str {
    match kernel {
        Kernel::Matmul(k) if k.a.stored().is_none() => "computing",
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
        assert_eq!(found, ["computing"; 2], "{m}");
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
    assert_eq!(found, ["computing", "matmul", "matmul"]);
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
        let is = |l: &&trt_graph::program::Launch| kind(&l.kernel) == "computing";
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

#[test]
fn a_gate_and_what_it_is_multiplied_with_are_one_launch() {
    let mlp = |x: &Tensor, vb: &VarBuilder| {
        let y = norm(x, vb)?;
        let gate = linear(&y, vb, 128, "gate")?.silu()?;
        Ok(vec![((gate * linear(&y, vb, 128, "up")?)? * 0.01)?])
    };
    for m in [1, 8] {
        assert_eq!(launches([m, m], mlp), ["chain of 2 computing"], "{m}");
    }
    // The result of many rows takes the place of the gate.
    assert_eq!(launches([2, 9], mlp), ["row", "matmul", "matmul"]);
}

#[test]
fn products_of_the_same_rows_stand_side_by_side_however_many_there_are() {
    for rows in [[2, 2], [9, 9], [2, 9]] {
        let found = launches(rows, |x, vb| {
            let heads = [(64, "q"), (16, "k"), (8, "v")];
            heads
                .map(|(n, name)| linear(x, vb, n, name))
                .into_iter()
                .collect()
        });
        assert_eq!(found, ["group of 3 matmul"], "{rows:?}");
    }
}

#[test]
fn what_follows_a_fold_is_done_in_its_kernel_and_a_count_wherever_it_is_used() {
    let graph = trace_step(&[("n", 1, 9)], |call, _| {
        let x = call.input("x", (8, call.int("n")?), DType::F32)?;
        let mean = x.mean_keepdim(1)?;
        Ok(vec![x.broadcast_sub(&mean)?.exp()?, mean])
    })
    .unwrap();
    compare(&graph, &[7], 1e-5).unwrap();
    let (program, _) = compile(graph).unwrap();
    let found: Vec<&str> = program.launches.iter().map(|l| kind(&l.kernel)).collect();
    assert_eq!(found, ["row", "row"], "{program}");
}

#[test]
fn products_of_different_operands_or_shapes_are_no_chain() {
    let found = launches([1, 1], |x, vb| {
        let gate = linear(&norm(x, vb)?, vb, 128, "gate")?.silu()?;
        Ok(vec![(gate * linear(x, vb, 128, "up")?)?])
    });
    assert_eq!(found, ["computing", "matmul"]);
    // Row 0 of the first is added to all rows: other points than those it was stored at.
    let found = launches([4, 4], |x, vb| {
        let one = linear(x, vb, 128, "one")?;
        let other = linear(x, vb, 128, "other")?;
        Ok(vec![other.broadcast_add(&one.narrow(0, 0, 1)?)?])
    });
    assert_eq!(found, ["matmul", "matmul"]);
}
