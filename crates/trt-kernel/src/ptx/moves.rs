//! Strided copies: bits go from one place to another, up to 16 bytes at a time.

use super::access;
use super::asm::{Asm, Class};
use super::block::Block;
use super::emitted::{Emitted, Target};
use super::row::{chunks, first_column};
use super::scope::Scope;
use super::space;
use crate::launch::Extent;
use crate::{Arg, Dim, Move};

/// Threads of a block.
const BLOCK: u32 = 128;

pub(super) fn emit(kernel: &Move, target: Target) -> Emitted {
    block(kernel, target).module(target, 2)
}

/// The sizes that the text of a move counts with 32 bits.
pub(super) fn counted(kernel: &Move) -> Vec<Dim> {
    let (copy, _, sizes) = cut(kernel);
    let total = Dim::product(&sizes);
    copy.space.into_iter().chain([total]).collect()
}

/// The merged copy, the elements that a thread takes, and the space in chunks of them.
fn cut(kernel: &Move) -> (Move, usize, Vec<Dim>) {
    let copy = space::merge_move(kernel);
    let size = copy.dtype.size();
    let views = [&copy.src, &copy.dst];
    let mut widest = access::WIDEST / size;
    for view in views {
        widest = access::width(view, None, widest, size);
    }
    let columns = copy.space.last().cloned().unwrap_or_default();
    while !access::multiple(&columns, widest) {
        widest /= 2;
    }
    let (together, sizes) = chunks(&copy.space, widest);
    (copy, together, sizes)
}

pub(super) fn block(kernel: &Move, target: Target) -> Block {
    let (copy, together, sizes) = cut(kernel);
    let (size, views) = (copy.dtype.size(), [&copy.src, &copy.dst]);
    let total = Dim::product(&sizes);

    let mut asm = Asm::default();
    let vars = space::vars(&copy.space, views);
    let scope = Scope::begin(&mut asm, target, 2, &vars);
    let number = space::thread(&mut asm, BLOCK);
    let end = scope.size(&mut asm, &total);
    let inside = asm.op("setp.lt.u32", Class::Pred, &[&number, &end]);
    asm.when(inside, true, |asm| {
        let mut at = space::index(asm, &scope, &sizes, number);
        first_column(asm, &mut at, together);
        let from = scope.address(asm, Arg(0), &copy.src, &at, size);
        let to = scope.address(asm, Arg(1), &copy.dst, &at, size);
        let bits = access::load(asm, from, 0, together * size, size);
        access::store(asm, to, 0, together * size, size, &bits);
    });
    let grid = Extent::Of {
        dim: total,
        per: BLOCK,
    };
    Block::new("move", asm, BLOCK, grid)
}
