//! Ops whose values decide what is read: what is compiled computes what the reference says, over sizes
//! that vary.

use crate::support::{compare, trace_step};
use trt_graph::candle::{D, DType, Device::Cpu, Result, Tensor};
use trt_graph::{Call, Graph};
use trt_kernel::Kernel;

fn traced(step: impl Fn(&Call<'_>) -> Result<Tensor>) -> Graph {
    trace_step(&[("n", 5, 9)], |call, _| Ok(vec![step(call)?])).unwrap()
}

/// Compiles a step over `n` in 5..9 and compares it at its ends.
fn agrees(step: impl Fn(&Call<'_>) -> Result<Tensor>) -> Vec<Kernel> {
    let graph = traced(step);
    for n in [5, 7, 9] {
        compare(&graph, &[n], 1e-5).unwrap_or_else(|e| panic!("{e}"));
    }
    let (program, _) = trt_graph::compile(graph).unwrap();
    program.launches.into_iter().map(|l| l.kernel).collect()
}

fn input(call: &Call<'_>, columns: usize, dtype: DType) -> Result<Tensor> {
    call.input("x", (call.int("n")?, columns), dtype)
}

const DTYPES: [DType; 6] = [
    DType::F32,
    DType::BF16,
    DType::F16,
    DType::U8,
    DType::U32,
    DType::I64,
];

#[test]
fn elements_are_picked_along_any_axis_in_any_dtype() {
    for dtype in DTYPES {
        for ids in [DType::U8, DType::U32, DType::I64] {
            let kernels = agrees(|call| {
                let ids = call.input("ids", (call.int("n")?, 3), ids)?;
                input(call, 4, dtype)?.gather(&ids, 1)
            });
            assert_eq!(kernels.len(), 1, "{kernels:?}");
            agrees(|call| {
                let ids = call.input("ids", (2, 4), ids)?;
                input(call, 4, dtype)?.gather(&ids, 0)
            });
        }
    }
}

#[test]
fn what_is_picked_joins_the_kernel_that_uses_it() {
    let kernels = agrees(|call| {
        let ids = call.input("ids", (call.int("n")?, 4), DType::U32)?;
        let picked = (input(call, 4, DType::F32)?.gather(&ids, 1)? * 2.0)?;
        picked.broadcast_sub(&picked.max_keepdim(1)?)?.exp()
    });
    assert_eq!(kernels.len(), 1, "{kernels:?}");
}

#[test]
fn a_computed_table_is_stored_before_it_is_picked_from() {
    let kernels = agrees(|call| {
        let ids = call.input("ids", (call.int("n")?, 4), DType::U32)?;
        input(call, 4, DType::F32)?.exp()?.t()?.gather(&ids.t()?, 0)
    });
    assert_eq!(kernels.len(), 2, "{kernels:?}");
}

#[test]
fn rows_of_any_table_are_picked() {
    for dtype in DTYPES {
        agrees(|call| {
            let ids = call.input("ids", call.int("n")?, DType::U32)?;
            input(call, 4, dtype)?.index_select(&ids, 0)
        });
    }
}

#[test]
fn the_place_of_the_largest_is_one_kernel() {
    for dtype in DTYPES {
        let kernels = agrees(|call| input(call, 40, dtype)?.argmax(1));
        assert_eq!(kernels.len(), 1, "{kernels:?}");
        agrees(|call| input(call, 40, dtype)?.argmin_keepdim(D::Minus1));
        agrees(|call| input(call, 40, dtype)?.argmax(0));
    }
}

#[test]
fn integers_are_folded() {
    for dtype in [DType::U8, DType::U32, DType::I64] {
        agrees(|call| input(call, 70, dtype)?.sum(1));
        agrees(|call| input(call, 70, dtype)?.max(0));
        agrees(|call| input(call, 70, dtype)?.min(1));
    }
}

#[test]
fn elements_are_placed() {
    for dtype in DTYPES {
        agrees(|call| {
            let n = call.int("n")?;
            let ids = call.input("ids", (n, 6), DType::U32)?;
            let source = call.input("y", (n, 6), dtype)?;
            input(call, 4, dtype)?.scatter(&ids, &source, 1)
        });
        agrees(|call| {
            let n = call.int("n")?;
            let ids = call.input("ids", (n, 4), DType::I64)?;
            let source = call.input("y", (n, 4), dtype)?;
            Tensor::zeros((5, 4), dtype, &Cpu)?.scatter_add(&ids, &source, 0)
        });
        agrees(|call| {
            let ids = call.input("ids", 7, DType::U8)?;
            let source = call.input("y", (7, 3), dtype)?;
            input(call, 3, dtype)?.index_add(&ids, &source, 0)
        });
    }
}

#[test]
fn sums_run() {
    for dtype in DTYPES {
        agrees(|call| input(call, 6, dtype)?.cumsum(0));
        agrees(|call| input(call, 6, dtype)?.cumsum(1));
    }
}

#[test]
fn rows_are_sorted() {
    for (asc, dtype) in DTYPES.into_iter().flat_map(|d| [(true, d), (false, d)]) {
        agrees(|call| input(call, 33, dtype)?.arg_sort_last_dim(asc));
        agrees(|call| Ok(input(call, 1, dtype)?.t()?.sort_last_dim(asc)?.0));
    }
}

#[test]
fn long_rows_are_merged() {
    let sort = |from: i64, to: i64, asc: bool| {
        let graph = trace_step(&[("n", from, to)], |call, _| {
            let x = call.input("x", (2, call.int("n")?), DType::F32)?;
            // Many are equal.
            let x = (x * 20.0)?.floor()?;
            Ok(vec![x.arg_sort_last_dim(asc)?])
        });
        let graph = graph.unwrap();
        for n in [from, (from + to) / 2, to] {
            compare(&graph, &[n], 0.0).unwrap_or_else(|e| panic!("{e}"));
        }
    };
    sort(250, 270, true);
    sort(500, 1100, false);
    sort(1700, 1701, true);
}

#[test]
fn the_first_of_a_sorted_row_are_the_largest() {
    agrees(|call| {
        let x = input(call, 16, DType::F32)?;
        let best = x.arg_sort_last_dim(false)?.narrow(D::Minus1, 0, 4)?;
        x.gather(&best.contiguous()?, D::Minus1)
    });
}
