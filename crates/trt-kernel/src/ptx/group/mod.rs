//! Several kernels in one launch, each in a scope of its own with the parameters that are its own.
//!
//! Independent parts stand side by side along the grid's z axis, or follow each other along one where
//! launching blocks that end at once would cost something: products over blocks take a multiprocessor for
//! each of theirs, and parts whose sizes are those of a call may have many. A block of a part that is smaller
//! than the largest ends at once where the part has no block, and so do threads that a part does
//! not have.
//!
//! Parts of a chain follow each other in every block. They are cut alike, so the thread that
//! stores a point in one epilogue is the one that loads it in the next: its own program order is
//! all that this takes. Before the first part, the second's first pieces are sent for; and the
//! left operand, where it is computed, is left in shared memory by whichever part comes first.
//!
//! Products whose rows are those of a call have several ways, each under a condition on their number. Where all
//! parts have a way under the same condition whose blocks are alike, these share an entry; elsewhere
//! each part has entries of its own, launched in the order of the parts.

mod guard;
mod module;

use super::PtxError;
use super::block::Block;
use super::emitted::{Emitted, Target};
use super::matmul::supported;
use super::matmul::ways::{self, Among, Way};
use super::{moves, row};
use crate::{Dim, Group, Kernel, Matmul, Order};
use module::{Chain, Module};

pub(super) fn emit(kernel: &Group, target: Target, room: usize) -> Result<Emitted, PtxError> {
    let product = |part: &'_ Kernel| match part {
        Kernel::Matmul(k) => Some(k.clone()),
        _ => None,
    };
    let products: Option<Vec<Matmul>> = kernel.parts.iter().map(product).collect();
    match products {
        Some(products) => of_products(kernel, &products, target, room),
        None => of_points(kernel, target),
    }
}

/// Row kernels and moves.
fn of_points(kernel: &Group, target: Target) -> Result<Emitted, PtxError> {
    let block = |part: &Kernel| match part {
        Kernel::Row(k) => row::block(k, target),
        Kernel::Move(k) => Ok(moves::block(k, target)),
        Kernel::Matmul(_)
        | Kernel::Attention(_)
        | Kernel::Gather(_)
        | Kernel::Group(_)
        | Kernel::Routed(_) => Err(unsupported(format!("a part of kind {}", part.kind()))),
    };
    let blocks = kernel.parts.iter().map(block);
    let blocks = blocks.collect::<Result<Vec<Block>, _>>()?;
    let grids: Vec<String> = blocks.iter().map(|b| format!("{:?}", b.grid)).collect();
    let mut module = Module::new(kernel, target, &[]);
    match module.side("group", &[], blocks, false)? {
        true => Ok(module.finish(Dim::from(0))),
        false => Err(unsupported(format!("parts with grids of {grids:?}"))),
    }
}

fn of_products(
    kernel: &Group,
    products: &[Matmul],
    target: Target,
    room: usize,
) -> Result<Emitted, PtxError> {
    products.iter().try_for_each(supported)?;
    let count = |k: &Matmul| {
        let (n, depth) = (k.n.constant_size(), k.k.constant_size());
        (n.unwrap_or(1024), depth.unwrap_or(0))
    };
    let add = |sum: usize, more: usize| sum.saturating_add(more);
    let among = Among::Parts {
        rows: products.iter().map(|k| count(k).0).fold(0, add),
        elements: (products.iter().map(count))
            .map(|(n, depth)| n.saturating_mul(depth))
            .fold(0, add),
    };
    let all = |target: Target| -> Vec<Vec<Way>> {
        let each = products.iter();
        each.map(|k| ways::all(k, target, room, among)).collect()
    };
    let maps = |ways: &[Vec<Way>]| -> Vec<_> {
        let each = products.iter().zip(ways);
        each.map(|(k, ways)| ways::maps(k, ways)).collect()
    };
    let mut each = all(target);
    let mut module = Module::new(kernel, target, &maps(&each));
    if !module.fits() {
        // Without maps the same products have the same bits.
        each = all(target.without_maps());
        module = Module::new(kernel, target, &[]);
    }
    let steps = each.iter().map(Vec::len).max().unwrap_or(0);
    let alike = each.iter().all(|ways| {
        ways.len() == steps && ways.iter().zip(&each[0]).all(|(a, b)| a.when == b.when)
    });
    match alike {
        true => {
            for step in 0..steps {
                let at: Vec<&Way> = each.iter().map(|ways| &ways[step]).collect();
                let name = match steps {
                    1 => "group".to_string(),
                    _ => format!("group{step}"),
                };
                if !together(&mut module, (kernel.order, products), &name, &at)? {
                    for (i, (product, way)) in products.iter().zip(at).enumerate() {
                        module.alone(i, product, way);
                    }
                }
            }
        }
        false => {
            for (i, (product, ways)) in products.iter().zip(&each).enumerate() {
                ways.iter().for_each(|way| module.alone(i, product, way));
            }
        }
    }
    let scratch = products.iter().zip(&each);
    let scratch = scratch.map(|(k, ways)| ways::scratch(k, ways).constant_size());
    let scratch = scratch.map(|bytes| bytes.unwrap_or(0)).max().unwrap_or(0);
    Ok(module.finish(Dim::from(scratch)))
}

/// Puts ways of all parts in one entry, if that can be.
fn together(
    module: &mut Module<'_>,
    (order, products): (Order, &[Matmul]),
    name: &str,
    at: &[&Way],
) -> Result<bool, PtxError> {
    if !at.windows(2).all(|pair| pair[0].joins(pair[1])) {
        return Ok(false);
    }
    let (target, when) = (module.target(), at[0].when.as_slice());
    let mapped = at.iter().any(|way| way.mapped());
    let each = || products.iter().zip(at);
    match order {
        Order::Side => {
            let blocks = each().map(|(k, way)| way.block(k, target)).collect();
            module.side(name, when, blocks, mapped)
        }
        Order::Chain => {
            let blocks = each().map(|(k, way)| way.link(k, target));
            let Some(blocks) = blocks.collect::<Option<Vec<Block>>>() else {
                return Ok(false);
            };
            if !cut_alike(products, &blocks) {
                return Ok(false);
            }
            let ahead = each().map(|(k, way)| way.prefetch(k, target)).collect();
            module.chain(name, when, Chain { blocks, ahead })?;
            Ok(true)
        }
    }
}

/// Whether each point is one thread's in all parts of a chain.
fn cut_alike(products: &[Matmul], blocks: &[Block]) -> bool {
    let cut = |b: &Block| (b.threads, b.grid.clone());
    let same = blocks.windows(2).all(|pair| cut(&pair[0]) == cut(&pair[1]));
    same && (products.windows(2)).all(|pair| pair[0].right() == pair[1].right())
}

fn unsupported(what: String) -> PtxError {
    PtxError::Unsupported {
        kernel: "group",
        what,
    }
}
