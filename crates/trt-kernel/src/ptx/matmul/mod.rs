//! Matrix products, in the variants that shapes call for.
//!
//! | variant | for | bound by |
//! |---|---|---|
//! | [`few`] | m up to 8, rows of both operands readable 16 bytes at a time, or `a` computed | bytes of `b` |
//! | [`mma`] | more rows, bf16 or f16, from `sm_80` | tensor cores, or bytes of `b` |
//! | [`wgmma`] | still more, on `sm_90a` | tensor cores |
//! | [`tma`] | the same, where everything is whole | tensor cores |
//! | [`tile`] | everything else | f32 lanes |
//! | [`routed`] | rows that integers choose | bytes of `b` |
//!
//! A weight in blocks is read as it is by the first and the last of them; for the others a launch ahead writes its values
//! out as halves ([`unpack`]). A packed weight is read as it is by [`few`], where its rows are long; for all else its rows are written
//! out ahead as they were.
//!
//! Which one runs depends on whole sizes, dtypes and views, and never on the range of a launch:
//! a runtime `m` gives several entries, each launched under a condition on `m`. In all of them
//! a block reads `b` row by row through [`MatmulFrame::b_row`], accumulates in f32 in an order that
//! only `k` decides, and hands its sums to [`out`], which runs the epilogue. So an output has
//! the same bits wherever its row lies.

mod few;
mod frame;
mod mma;
mod out;
mod parts;
mod ring;
mod routed;
mod slab;
mod tile;
mod tma;
mod unpack;
pub(super) mod ways;
mod wgmma;

pub(super) use few::STAGED;

use super::PtxError;
use super::access::multiple;
use super::block::Block;
use super::emitted::{Emitted, Target};
use super::scope;
use crate::launch::{EntryLaunch, Extent, Param, When};
use crate::{Body, DType, Dim, Matmul, Operand, Routed, Var, fusible};
use frame::MatmulFrame;
use ways::{Among, Step};

/// Bytes of working memory in which a weight in blocks is written out, if nobody says another number: what the largest
/// matrix of a layer of 8e9 weights takes, so that a product by 512 rows has blocks for all of a large device at once.
pub(super) const ROOM: usize = 128 << 20;

/// The text and launches of a product.
pub(super) fn emit(kernel: &Matmul, target: Target, room: usize) -> Result<Emitted, PtxError> {
    supported(kernel)?;
    let ways = ways::all(kernel, target, room, Among::Alone);
    let maps = ways::maps(kernel, &ways);
    let mut params: Vec<Param> = (0..maps.len()).map(|i| Param::Map(i as u8)).collect();
    params.extend(scope::params(kernel.args.len(), usize::from(kernel.ranged)));
    params.extend(ways::counts(&ways).then_some(Param::Counters));
    let mut entries = Entries::default();
    for way in &ways {
        let mut steps = way.steps(kernel, target);
        for Step {
            block,
            grid,
            mapped,
            ..
        } in &steps
        {
            entries.launch(block, &way.when, grid.clone(), *mapped);
        }
        // What is launched first stands first.
        steps.sort_by_key(|step| !step.ahead);
        steps.into_iter().for_each(|step| entries.add(step.block));
    }
    let mut text = scope::head(target);
    if entries.blocks.iter().any(|b| b.shared > 0) {
        text += ".extern .shared .align 1024 .b8 dynamic[];\n\n";
    }
    for b in entries.blocks {
        text += &scope::crowded_entry(&b.name, &params, b.threads, b.crowd, b.asm);
    }
    Ok(Emitted {
        text,
        target,
        params,
        launches: entries.launches,
        maps,
        scratch: ways::scratch(kernel, &ways),
        limits: Vec::new(),
    })
}

/// Entries of a module, and what is launched of them.
#[derive(Default)]
struct Entries {
    blocks: Vec<Block>,
    launches: Vec<EntryLaunch>,
}

impl Entries {
    /// One more entry, unless it is there already.
    fn add(&mut self, block: Block) {
        if !self.blocks.iter().any(|b| b.name == block.name) {
            self.blocks.push(block);
        }
    }

    fn launch(&mut self, block: &Block, when: &[When], grid: [Extent; 3], mapped: bool) {
        self.launches.push(EntryLaunch {
            entry: block.name.clone(),
            when: when.to_vec(),
            grid,
            block: block.threads,
            shared: block.shared,
            mapped,
            sums: vec![block.order],
        });
    }
}

/// The text and the launch of a product at the rows that integers choose.
pub(super) fn routed(kernel: &Routed, target: Target) -> Result<Emitted, PtxError> {
    let product = &kernel.product;
    supported(product)?;
    let block = routed::emit(kernel, target);
    let params = scope::params(product.args.len(), usize::from(product.ranged));
    let mut entries = Entries::default();
    entries.launch(&block, &[], block.grid.clone(), false);
    let text = scope::crowded_entry(&block.name, &params, block.threads, None, block.asm);
    Ok(Emitted {
        text: scope::head(target) + &text,
        target,
        params,
        launches: entries.launches,
        maps: Vec::new(),
        scratch: Dim::from(0),
        limits: Vec::new(),
    })
}

/// Whether both operands are floats, and the left one is in memory or may be computed.
pub(super) fn supported(kernel: &Matmul) -> Result<(), PtxError> {
    let unsupported = |what: String| PtxError::Unsupported {
        kernel: "matmul",
        what,
    };
    for (name, dtype) in [("a", kernel.left_dtype()), ("b", right_dtype(kernel))] {
        if !dtype.is_float() {
            return Err(unsupported(format!(
                "operand {name} is {dtype}, not a float"
            )));
        }
    }
    match kernel.a.stored().is_some() || fusible::computes_left(kernel) {
        true => Ok(()),
        false => {
            let (m, k, dtype) = (&kernel.m, &kernel.k, kernel.left_dtype());
            Err(unsupported(format!(
                "a computed left operand [{m}, {k}] of {dtype}"
            )))
        }
    }
}

/// A grid axis over the rows of `b`.
fn over_rows(kernel: &Matmul, per: usize) -> Extent {
    let per = per as u32;
    match kernel.ranged {
        true => Extent::Rows { weight: 0, per },
        false => over(&kernel.n, per as usize),
    }
}

/// A grid axis over a size.
fn over(dim: &Dim, per: usize) -> Extent {
    let (dim, per) = (dim.clone(), per as u32);
    match dim.is(1) {
        true => Extent::Fixed(1),
        false => Extent::Of { dim, per },
    }
}

fn right_dtype(kernel: &Matmul) -> DType {
    kernel.right().dtype()
}

/// The left operand of a product that does not compute it.
fn in_memory(kernel: &Matmul) -> &Operand {
    let stored = kernel.a.stored();
    stored.expect("`supported` leaves computed operands to `few`, which has them in shared memory")
}

/// The runtime integers that the kernel reads.
fn vars(kernel: &Matmul) -> Vec<Var> {
    let sizes = [&kernel.batch, &kernel.m, &kernel.n, &kernel.k];
    let operands = kernel.a.stored().into_iter().chain([&kernel.b]);
    let places = operands
        .map(|o| &o.view)
        .flat_map(|v| v.strides.iter().chain([&v.offset]));
    let mut vars: Vec<Var> = sizes
        .into_iter()
        .chain(places)
        .flat_map(Dim::vars)
        .collect();
    vars.extend(kernel.bodies().flat_map(Body::vars));
    vars.sort();
    vars.dedup();
    vars
}

/// Whether `k` is contiguous, and all rows start on multiples of `bytes`.
fn aligned_rows(kernel: &Matmul, operand: &Operand, bytes: usize) -> bool {
    let elements = bytes / kernel.args[operand.arg.0 as usize].bytes();
    let view = &operand.view;
    let starts = [&view.offset, &view.strides[0], &view.strides[1]];
    view.strides[2].is(1) && starts.iter().all(|d| multiple(d, elements))
}
