//! Folds that need each other share a kernel; what walks over other rows does not.

use crate::support::{compare, trace_step};
use trt_graph::candle::{D, DType, Result, Tensor};
use trt_graph::{Call, compile};

/// The ops of each launch of what is computed from `x` of shape `[m, 4, 6]`, which is what the reference says.
fn launches(step: impl Fn(&Tensor) -> Result<Vec<Tensor>>) -> Vec<String> {
    let graph = trace_step(&[("m", 1, 5)], |call: &Call<'_>, _| {
        step(&call.input("x", (call.int("m")?, 4, 6), DType::F32)?)
    })
    .unwrap();
    for m in [1, 2, 5] {
        compare(&graph, &[m], 1e-5).unwrap();
    }
    let (_, report) = compile(graph).unwrap();
    report.kernels.iter().map(|k| k.ops.join(" ")).collect()
}

fn spread(x: &Tensor, mean: &Tensor) -> Result<Tensor> {
    x.broadcast_sub(mean)?.sqr()?.mean_keepdim(D::Minus1)
}

#[test]
fn a_mean_that_others_need_too_is_stored_by_the_kernel_of_the_variance() {
    let found = launches(|x| {
        let mean = x.mean_keepdim(D::Minus1)?;
        let variance = spread(x, &mean)?;
        Ok(vec![mean, variance])
    });
    assert_eq!(found, ["reduce_sum mul sub sqr reduce_sum mul"]);
}

#[test]
fn three_folds_in_a_row_are_one_kernel() {
    let found = launches(|x| {
        let most = x.max_keepdim(D::Minus1)?;
        let sum = x.broadcast_sub(&most)?.exp()?.sum_keepdim(D::Minus1)?;
        let rest = x.broadcast_mul(&most)?.broadcast_div(&sum)?.sqr()?;
        Ok(vec![most, sum, rest.sum_keepdim(D::Minus1)?])
    });
    assert_eq!(
        found,
        ["reduce_max mul sub exp reduce_sum div sqr reduce_sum"]
    );
}

#[test]
fn what_is_read_before_the_second_fold_is_stored_before_it() {
    let found = launches(|x| {
        let mean = x.mean_keepdim(D::Minus1)?;
        let wide = x.broadcast_mul(&mean)?;
        let variance = spread(x, &mean)?;
        Ok(vec![wide, variance, mean])
    });
    // The product and the variance, which do not need each other, are one launch.
    assert_eq!(found, ["reduce_sum mul", "mul sub sqr reduce_sum mul"]);
}

#[test]
fn a_fold_over_other_rows_has_its_own_kernel() {
    let found = launches(|x| {
        let mean = x.mean_keepdim(D::Minus1)?;
        // Column `i` of the first four is held against the mean of row `i`.
        let turned = x.narrow(2, 0, 4)?.broadcast_sub(&mean.transpose(1, 2)?)?;
        Ok(vec![turned.sqr()?.sum_keepdim(D::Minus1)?, mean])
    });
    assert_eq!(found.len(), 2, "{found:?}");
    let found = launches(|x| {
        let mean = x.mean_keepdim(D::Minus1)?;
        let flipped = x.narrow(2, 0, 4)?.transpose(1, 2)?;
        let turned = flipped.broadcast_sub(&mean)?.sqr()?.transpose(1, 2)?;
        Ok(vec![turned.sum_keepdim(D::Minus1)?, mean])
    });
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn a_fold_of_one_size_whose_rows_are_read_turned_is_stored_apart() {
    // Both are over four columns of four rows, so only the body shows that rows differ.
    let found = launches(|x| {
        let square = x.narrow(2, 0, 4)?;
        let mean = square.mean_keepdim(D::Minus1)?;
        let turned = square.broadcast_sub(&mean)?.sqr()?.transpose(1, 2)?;
        Ok(vec![turned.sum_keepdim(D::Minus1)?, mean])
    });
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn a_reshape_that_splits_an_axis_does_not_end_a_kernel() {
    let found = launches(|x| {
        let m = x.dims()[0];
        let pairs = x.reshape((m, 2, 2, 6))?.exp()?;
        let sums = pairs.sum_keepdim(2)?;
        Ok(vec![
            pairs.broadcast_div(&sums)?.reshape((m, 4, 6))?.silu()?,
        ])
    });
    assert_eq!(found.last().unwrap(), "div silu", "{found:?}");
}
