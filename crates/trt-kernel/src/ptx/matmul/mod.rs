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
//! out as halves ([`unpack`]).
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
mod ring;
mod routed;
mod tile;
mod tma;
mod unpack;
mod wgmma;

pub(super) use few::STAGED;

use super::PtxError;
use super::access::multiple;
use super::asm::Asm;
use super::block::Block;
use super::emitted::{Emitted, Target};
use super::scope;
use crate::launch::{EntryLaunch, Extent, Param, When};
use crate::{Body, DType, Dim, Matmul, Operand, Routed, SumOrder, Var, fusible};
use frame::MatmulFrame;
use unpack::Slab;

/// Bytes of working memory in which a weight in blocks is written out, if nobody says another number: what the largest
/// matrix of a layer of 8e9 weights takes, so that a product by 512 rows has blocks for all of a large device at once.
pub(super) const ROOM: usize = 128 << 20;

/// One way to compute the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    /// At most so many rows.
    Few(SumOrder, usize),
    /// Tensor cores.
    Mma(mma::MmaShape),
    /// Tensor cores by groups of warps.
    Wgmma(wgmma::WgmmaShape),
    /// The same, fed by the copy engine.
    Tma(wgmma::WgmmaShape),
    /// Any operands.
    Tile,
}

/// The text and launches of a product.
pub(super) fn emit(kernel: &Matmul, target: Target, room: usize) -> Result<Emitted, PtxError> {
    supported(kernel)?;
    let chosen = choose(kernel, target);
    // What tensor cores multiply, if that is not what is given.
    let unpacked = unpack::plain(kernel, room);
    let unpacked = unpacked.filter(|_| chosen.iter().any(|(v, _)| v.on_tensor_cores()));
    let mapped = |(variant, _): &(Variant, _)| matches!(variant, Variant::Tma(_));
    let maps = match (chosen.iter().any(mapped), &unpacked) {
        (true, None) => tma::maps(kernel, None),
        (true, Some((plain, slab))) => tma::maps(plain, Some(*slab)),
        (false, _) => Vec::new(),
    };
    let mut params: Vec<Param> = (0..maps.len()).map(|i| Param::Map(i as u8)).collect();
    params.extend(scope::params(kernel.args.len(), usize::from(kernel.ranged)));
    let slab = unpacked.as_ref().map(|(_, slab)| *slab);
    let mut entries = Entries::default();
    for (variant, when) in chosen {
        match &unpacked {
            Some((plain, slab)) if variant.on_tensor_cores() => {
                let product = variant.block(plain, target, Some(*slab));
                for i in 0..slab.count {
                    if let Some(writes) = unpack::emit(kernel, target, *slab, i) {
                        entries.launch(&writes, &when, writes.grid.clone(), false);
                        entries.add(writes);
                    }
                    let grid = product.grid.each_ref().map(|e| slab.extent(i, e));
                    entries.launch(&product, &when, grid, matches!(variant, Variant::Tma(_)));
                }
                entries.add(product);
            }
            _ => {
                let block = variant.block(kernel, target, None);
                let mapped = matches!(variant, Variant::Tma(_));
                entries.launch(&block, &when, block.grid.clone(), mapped);
                entries.add(block);
            }
        }
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
        scratch: slab.map_or(Dim::from(0), |slab| slab.bytes(kernel)),
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

/// A part of a chain: the product by few rows, whose left operand may be there already.
pub(super) fn link(kernel: &Matmul, target: Target) -> Result<Block, PtxError> {
    supported(kernel)?;
    match choose(kernel, target).as_slice() {
        [(Variant::Few(order, m), when)] if when.is_empty() => {
            Ok(few::link(kernel, target, *order, *m))
        }
        _ => Err(PtxError::Unsupported {
            kernel: "matmul",
            what: format!("a chain of {} rows", kernel.m),
        }),
    }
}

/// Sends for the first pieces of a later part of a chain: see [`few::prefetch`]. Nothing for what
/// [`link`] refuses.
pub(super) fn prefetch(kernel: &Matmul, target: Target) -> Option<Asm> {
    match choose(kernel, target).as_slice() {
        [(Variant::Few(order, m), _)] => few::prefetch(kernel, target, *order, *m),
        _ => None,
    }
}

/// As [`block`], for a part of a launch with so many weights.
pub(super) fn part(kernel: &Matmul, target: Target, among: usize) -> Result<Block, PtxError> {
    supported(kernel)?;
    match choose(kernel, target).as_slice() {
        [(Variant::Few(order, m), when)] if when.is_empty() => {
            Ok(few::part(kernel, target, (*order, *m), among))
        }
        _ => block(kernel, target),
    }
}

/// The one entry of a product whose `m` is a constant.
fn block(kernel: &Matmul, target: Target) -> Result<Block, PtxError> {
    supported(kernel)?;
    // Such a weight is written out ahead of the product.
    let in_blocks = kernel.right().as_plain().is_none();
    match choose(kernel, target).as_slice() {
        // The maps are parameters of a module, not of a part.
        [(Variant::Tma(shape), when)] if when.is_empty() && !in_blocks => {
            Ok(Variant::Wgmma(*shape).block(kernel, target, None))
        }
        [(variant, when)] if when.is_empty() && !(variant.on_tensor_cores() && in_blocks) => {
            Ok(variant.block(kernel, target, None))
        }
        several => Err(PtxError::Unsupported {
            kernel: "matmul",
            what: format!("{} entries where one is asked for", several.len()),
        }),
    }
}

/// Whether both operands are floats, and the left one is in memory or may be computed.
fn supported(kernel: &Matmul) -> Result<(), PtxError> {
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

impl Variant {
    /// Its entry; the weight may be in working memory, a slab of its rows.
    fn block(self, kernel: &Matmul, target: Target, slab: Option<Slab>) -> Block {
        match self {
            Variant::Few(order, most) => few::emit(kernel, target, order, most),
            Variant::Mma(shape) => mma::emit(kernel, target, shape, slab),
            Variant::Wgmma(shape) => wgmma::emit(kernel, target, shape, slab),
            Variant::Tma(shape) => tma::emit(kernel, target, shape, slab),
            Variant::Tile => tile::emit(kernel, target),
        }
    }

    /// Whether it reads both operands as plain halves.
    fn on_tensor_cores(&self) -> bool {
        match self {
            Variant::Mma(_) | Variant::Wgmma(_) | Variant::Tma(_) => true,
            Variant::Few(..) | Variant::Tile => false,
        }
    }
}

/// The variants for a kernel, with the condition under which each runs.
fn choose(kernel: &Matmul, target: Target) -> Vec<(Variant, Vec<When>)> {
    let mut list: Vec<(Variant, u32)> = Vec::new();
    if let Some(order) = few::order(kernel) {
        list.extend([1, 2, 4, 8].map(|most| (Variant::Few(order, most), most as u32)));
    }
    let unpacked = unpack::plain(kernel, ROOM);
    let kernel = unpacked.as_ref().map_or(kernel, |(plain, _)| plain);
    match mma::fits(kernel, target) {
        true => list.extend(on_tensor_cores(kernel, target)),
        false => list.push((Variant::Tile, u32::MAX)),
    }
    if let Some(m) = kernel.m.constant_size() {
        let holds = |(_, most): &&(Variant, u32)| m as u64 <= u64::from(*most);
        let variant = match list.iter().find(holds) {
            Some((Variant::Few(order, _), _)) => Variant::Few(*order, m.max(1)),
            Some((variant, _)) => *variant,
            None => Variant::Tile,
        };
        return vec![(variant, Vec::new())];
    }
    let mut min = 1;
    let mut out = Vec::new();
    for (variant, max) in list {
        let dim = kernel.m.clone();
        let always = min == 1 && max == u32::MAX;
        let when = (!always).then_some(When { dim, min, max });
        out.push((variant, when.into_iter().collect()));
        min = max.saturating_add(1);
    }
    out
}

/// The shapes of blocks on tensor cores, each with the largest `m` it is for: small ones where
/// large ones would leave much of a device idle.
fn on_tensor_cores(kernel: &Matmul, target: Target) -> Vec<(Variant, u32)> {
    let n = kernel.n.constant_size().unwrap_or(1024);
    let batch = kernel.batch.constant_size().unwrap_or(1);
    // The largest m that gives fewer than `blocks` blocks of 128 rows and so many columns.
    let below = |blocks: usize, cols: usize| {
        let across = (batch * n.div_ceil(cols)).max(1);
        ((blocks.div_ceil(across) - 1) * 128) as u32
    };
    let mma = |shape| Variant::Mma(shape);
    let wgmma = |shape: wgmma::WgmmaShape| match tma::fits(kernel, target) {
        true => Variant::Tma(shape),
        false => Variant::Wgmma(shape),
    };
    if target < Target::Sm90a {
        let small = below(100, 128).max(64);
        return vec![(mma(mma::SMALL), small), (mma(mma::LARGE), u32::MAX)];
    }
    let small = below(64, 128).max(64);
    let narrow = below(100, 256);
    let mut list = vec![(mma(mma::SMALL), small)];
    if narrow > small {
        list.push((wgmma(wgmma::WgmmaShape::Narrow), narrow));
    }
    list.push((wgmma(wgmma::WgmmaShape::Wide), u32::MAX));
    list
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
