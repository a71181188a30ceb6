//! Row kernels: a body over rows and columns.
//!
//! A body without reductions has no rows: axes are merged, and each thread takes a few
//! neighbouring points wherever they lie. Rows with reductions are in `reduce/`.

use super::PtxError;
use super::access;
use super::asm::{Asm, Class, Int};
use super::block::Block;
use super::emitted::{Emitted, Target};
use super::lanes::{self, Point};
use super::reduce;
use super::scope::Scope;
use super::space::{self, Columns};
use crate::launch::Extent;
use crate::{Dim, Env, Inst, Row, Var};

/// Threads of a block of independent points.
const BLOCK: u32 = 128;
/// Threads that a small kernel should have, so that many processors share it.
const MANY: usize = 8192;

pub(super) fn emit(kernel: &Row, target: Target) -> Result<Emitted, PtxError> {
    Ok(block(kernel, target)?.module(target, kernel.args.len()))
}

pub(super) fn block(kernel: &Row, target: Target) -> Result<Block, PtxError> {
    let insts = &kernel.body.insts;
    match insts.iter().any(|i| matches!(i, Inst::Reduce(..))) {
        true => reduce::block(kernel, target),
        false => Ok(points(kernel, target)),
    }
}

/// The sizes that the text of a row kernel counts with 32 bits.
pub(super) fn counted(kernel: &Row) -> Vec<Dim> {
    let insts = &kernel.body.insts;
    let (row, total) = match insts.iter().any(|i| matches!(i, Inst::Reduce(..))) {
        true => {
            let row = space::merge_row(kernel, Columns::Keep);
            let outer = row.space.len().saturating_sub(1);
            let rows = Dim::product(&row.space[..outer]);
            (row, rows)
        }
        false => {
            let (row, _, sizes) = cut(kernel);
            (row, Dim::product(&sizes))
        }
    };
    row.space.into_iter().chain([total]).collect()
}

/// The merged kernel, the columns that a thread takes, and the space in chunks of them.
fn cut(kernel: &Row) -> (Row, usize, Vec<Dim>) {
    let row = space::merge_row(kernel, Columns::Merge);
    let widest = access::lanes(
        row.space.last().unwrap_or(&Dim::from(1)),
        space::accesses(&row.body, &row.args),
    );
    let (lanes, sizes) = chunks(&row.space, widest);
    (row, lanes, sizes)
}

fn points(kernel: &Row, target: Target) -> Block {
    let (row, lanes, sizes) = cut(kernel);
    let total = Dim::product(&sizes);

    let mut asm = Asm::default();
    let scope = Scope::begin(&mut asm, target, row.args.len(), &space::row_vars(&row));
    let number = space::thread(&mut asm, BLOCK);
    let end = scope.size(&mut asm, &total);
    let inside = asm.op("setp.lt.u32", Class::Pred, &[&number, &end]);
    asm.when(inside, true, |asm| {
        let mut at = space::index(asm, &scope, &sizes, number);
        first_column(asm, &mut at, lanes);
        let point = Point {
            at: &at,
            lanes,
            input: &[],
        };
        lanes::run(asm, &scope, &row.body, &row.args, point);
    });
    let grid = Extent::Of {
        dim: total,
        per: BLOCK,
    };
    Block::new("row", asm, BLOCK, grid)
}

/// Turns the last index from chunks of `lanes` columns into columns.
pub(super) fn first_column(asm: &mut Asm, at: &mut [Int], lanes: usize) {
    if let Some(Int::Reg(chunk)) = at.last_mut() {
        *chunk = asm.op("mul.lo.s32", Class::B32, &[chunk, &lanes]);
    }
}

/// How many columns a thread takes, up to `widest`, and the space with its last axis in chunks of
/// them. A space that may be small is spread over more threads.
pub(super) fn chunks(space: &[Dim], widest: usize) -> (usize, Vec<Dim>) {
    let total = Dim::product(space);
    // Runtime integers are at least 1 where anything is computed at all.
    let least = total.size(&Env::new(&[1; Var::MAX]));
    let narrowest = if total.constant().is_some() { 2 } else { 4 };
    let mut lanes = widest;
    while lanes > narrowest && least / lanes < MANY {
        lanes /= 2;
    }
    let mut sizes = space.to_vec();
    if let Some(last) = sizes.last_mut() {
        // The last axis is a multiple of `widest`, a power of two.
        match last.divide(&Dim::from(lanes)) {
            Some(chunks) => *last = chunks,
            None => lanes = 1,
        }
    }
    (lanes, sizes)
}
