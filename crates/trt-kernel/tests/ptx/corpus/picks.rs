//! Row kernels that read where values say, and folds of integers.

use super::{dims, rows, seq, view};
use trt_kernel::*;

pub fn kernels() -> Vec<(String, Kernel)> {
    let mut all = Vec::new();
    for d in DType::ALL {
        all.push((format!("pick_seqx64_of_96_{d}"), pick(d, DType::U32)));
        all.push((format!("largest_of_32000_{d}"), largest(32000, d)));
    }
    for ids in [DType::U8, DType::I64] {
        all.push((format!("pick_seqx64_by_{ids}"), pick(DType::F32, ids)));
    }
    all.push(("pick_row_of_seq".into(), pick_row()));
    all.push(("largest_of_64_f32".into(), largest(64, DType::F32)));
    all.push(("rank_of_128_f32".into(), rank(128)));
    all.push(("rank_of_256_f32".into(), rank(256)));
    all
}

/// `a2[i, j] = 2 a0[i, a1[i, j]]` with 96 columns to pick of.
fn pick(dtype: DType, ids: DType) -> Kernel {
    rows(vec![seq(), Dim::from(64)], &[dtype, ids, dtype], |b| {
        let id = b.load(Arg(1), view(0, &[64, 1]));
        let id = b.push(Inst::Within(id, Dim::from(96)));
        let x = b.push(Inst::Pick(Arg(0), view(0, &[96, 0]), Dim::from(1), id));
        let y = b.binary(Binary::Add, x, x);
        b.store(Arg(2), view(0, &[64, 1]), y);
    })
}

/// `a2[j] = a0[a1[0], j]` of ten rows, whose length is a runtime integer.
fn pick_row() -> Kernel {
    rows(vec![seq()], &[DType::BF16, DType::U32, DType::F32], |b| {
        let id = b.load(Arg(1), view(0, &[0]));
        let id = b.push(Inst::Within(id, &seq() + &Dim::from(9)));
        let x = b.push(Inst::Pick(Arg(0), view(0, &[1]), seq(), id));
        b.store(Arg(2), view(0, &[1]), x);
    })
}

/// The place of the largest of each of three rows: the first of several.
fn largest(columns: i64, dtype: DType) -> Kernel {
    rows(dims([3, columns]), &[dtype, DType::U32], |b| {
        let x = b.load(Arg(0), view(0, &[columns, 1]));
        let most = b.push(Inst::Reduce(Reduce::Max, x));
        let found = b.push(Inst::Compare(Compare::Eq, x, most));
        let (at, none) = (b.push(Inst::Iota(1)), b.push(Inst::I64(Dim::from(columns))));
        let place = b.push(Inst::Select(found, at, none));
        let place = b.push(Inst::Reduce(Reduce::Min, place));
        b.store(Arg(1), view(0, &[1, 0]), place);
    })
}

/// How many of a row's elements are before each: smaller, or equal and earlier.
fn rank(columns: i64) -> Kernel {
    let space = [seq(), Dim::from(columns), Dim::from(columns)];
    rows(space.to_vec(), &[DType::F32, DType::U32], |b| {
        let x = b.load(Arg(0), view(0, &[columns, 1, 0]));
        let y = b.load(Arg(0), view(0, &[columns, 0, 1]));
        let smaller = b.push(Inst::Compare(Compare::Lt, y, x));
        let equal = b.push(Inst::Compare(Compare::Eq, y, x));
        let (i, j) = (b.push(Inst::Iota(1)), b.push(Inst::Iota(2)));
        let earlier = b.push(Inst::Compare(Compare::Lt, j, i));
        let [smaller, equal, earlier] =
            [smaller, equal, earlier].map(|r| b.push(Inst::Cast(r, Ty::I64)));
        let tie = b.binary(Binary::Mul, equal, earlier);
        let before = b.binary(Binary::Add, smaller, tie);
        let rank = b.push(Inst::Reduce(Reduce::Sum, before));
        b.store(Arg(1), view(0, &[columns, 1, 0]), rank);
    })
}
