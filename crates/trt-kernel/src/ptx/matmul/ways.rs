//! The ways to compute a product, each under a condition on `m`: which variant, and whether the weight is
//! written out ahead of it.
//!
//! A module of a product has them all. One of several products has them beside each other's: where
//! conditions are the same, their texts share an entry, which is why a way gives blocks and not entries.

use super::few;
use super::mma;
use super::slab::Slab;
use super::tile;
use super::tma;
use super::unpack;
use super::wgmma;
use crate::launch::{Extent, When};
use crate::ptx::asm::Asm;
use crate::ptx::block::Block;
use crate::ptx::emitted::{Target, TensorMap};
use crate::{Dim, Encoding, Matmul, SumOrder};

/// One way to compute the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variant {
    /// At most so many rows.
    Few(SumOrder, usize),
    /// Tensor cores.
    Mma(mma::MmaShape),
    /// Tensor cores, with `k` cut between blocks.
    Cut(mma::Cut),
    /// Tensor cores by groups of warps.
    Wgmma(wgmma::WgmmaShape),
    /// The same, fed by the copy engine.
    Tma(wgmma::WgmmaShape),
    /// Any operands.
    Tile,
}

/// What a product shares its launch with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ptx) enum Among {
    /// Nothing.
    Alone,
    /// Other products.
    Parts {
        /// Rows of all their right operands.
        rows: usize,
        /// Elements of all their right operands.
        elements: usize,
    },
}

/// A variant with its condition.
#[derive(Clone, Debug)]
pub(in crate::ptx) struct Way {
    pub(super) variant: Variant,
    /// Runs only if all hold.
    pub when: Vec<When>,
    /// The product by the weight written out ahead, if it is, and how.
    unpacked: Option<(Matmul, Slab)>,
    among: Among,
}

/// An entry of a way with its grid, and whether it reads tensor maps.
pub(in crate::ptx) struct Step {
    pub block: Block,
    pub grid: [Extent; 3],
    pub mapped: bool,
    /// Whether it writes out what the product reads.
    pub ahead: bool,
}

/// All ways of a product that has been found [`super::supported`]; a weight in blocks is written out in `room` bytes at a
/// time.
pub(in crate::ptx) fn all(kernel: &Matmul, target: Target, room: usize, among: Among) -> Vec<Way> {
    let unpacked = unpack::plain(kernel, room);
    let chosen = choose(kernel, target, among).into_iter();
    let ways = chosen.map(|(variant, when)| Way {
        variant,
        when,
        unpacked: unpacked.clone().filter(|_| !variant.reads(kernel, target)),
        among,
    });
    ways.collect()
}

/// The tensor maps that a product's ways read: of `a`, then of `b`.
pub(in crate::ptx) fn maps(kernel: &Matmul, ways: &[Way]) -> Vec<TensorMap> {
    let mapped = ways.iter().find(|w| w.mapped());
    match mapped.map(|w| &w.unpacked) {
        Some(None) => tma::maps(kernel, None),
        Some(Some((plain, slab))) => tma::maps(plain, Some(*slab)),
        None => Vec::new(),
    }
}

/// Bytes of working memory that a product's ways take.
pub(in crate::ptx) fn scratch(kernel: &Matmul, ways: &[Way]) -> Dim {
    let slab = ways.iter().find_map(|w| w.unpacked.as_ref());
    let cuts = ways.iter().filter_map(|w| match w.variant {
        Variant::Cut(cut) => Some(cut.scratch()),
        Variant::Few(..)
        | Variant::Mma(_)
        | Variant::Wgmma(_)
        | Variant::Tma(_)
        | Variant::Tile => None,
    });
    let slab = slab.map_or(0, |(_, slab)| slab.size(kernel));
    Dim::from(slab + cuts.max().unwrap_or(0))
}

/// Whether blocks of one of a product's ways count themselves.
pub(in crate::ptx) fn counts(ways: &[Way]) -> bool {
    ways.iter().any(|w| matches!(w.variant, Variant::Cut(_)))
}

impl Way {
    /// Whether it reads tensor maps.
    pub fn mapped(&self) -> bool {
        matches!(self.variant, Variant::Tma(_))
    }

    /// Whether another product's way may share an entry with this one, as far as both decide that: blocks
    /// are alike, and nothing is launched ahead of them.
    pub fn joins(&self, other: &Way) -> bool {
        let alike = match (self.variant, other.variant) {
            (Variant::Few(..), Variant::Few(..)) => true,
            (one, other) => one == other,
        };
        alike && self.when == other.when && self.unpacked.is_none() && other.unpacked.is_none()
    }

    /// The entry of the product itself.
    pub fn block(&self, kernel: &Matmul, target: Target) -> Block {
        let (kernel, slab) = match &self.unpacked {
            Some((plain, slab)) => (plain, Some(*slab)),
            None => (kernel, None),
        };
        match (self.variant, self.among) {
            (Variant::Few(order, m), Among::Parts { elements, .. }) => {
                few::part(kernel, target, (order, m), slab, elements)
            }
            (Variant::Few(order, m), Among::Alone) => few::emit(kernel, target, (order, m), slab),
            (Variant::Mma(shape), _) => mma::emit(kernel, target, shape, slab),
            (Variant::Cut(cut), _) => mma::emit_cut(kernel, target, cut, slab),
            (Variant::Wgmma(shape), _) => wgmma::emit(kernel, target, shape, slab),
            (Variant::Tma(shape), _) => tma::emit(kernel, target, shape, slab),
            (Variant::Tile, _) => tile::emit(kernel, target, slab),
        }
    }

    /// The entry of the product as a part of a chain, whose left operand may be there already; only of few rows.
    pub fn link(&self, kernel: &Matmul, target: Target) -> Option<Block> {
        match self.variant {
            Variant::Few(order, m) => Some(few::link(kernel, target, order, m)),
            Variant::Mma(_)
            | Variant::Cut(_)
            | Variant::Wgmma(_)
            | Variant::Tma(_)
            | Variant::Tile => None,
        }
    }

    /// Sends for the first pieces of a later part of a chain: see [`few::prefetch`]. Nothing for what
    /// [`Way::link`] refuses.
    pub fn prefetch(&self, kernel: &Matmul, target: Target) -> Option<Asm> {
        match self.variant {
            Variant::Few(order, m) => few::prefetch(kernel, target, order, m),
            Variant::Mma(_)
            | Variant::Cut(_)
            | Variant::Wgmma(_)
            | Variant::Tma(_)
            | Variant::Tile => None,
        }
    }

    /// All that is launched, in order: the product, or each slab of its weight and the product by that.
    pub fn steps(&self, kernel: &Matmul, target: Target) -> Vec<Step> {
        let mapped = self.mapped();
        let Some((_, slab)) = &self.unpacked else {
            let block = self.block(kernel, target);
            let grid = block.grid.clone();
            return vec![Step {
                block,
                grid,
                mapped,
                ahead: false,
            }];
        };
        let each = (0..slab.count).flat_map(|i| {
            let writes = unpack::emit(kernel, target, *slab, i).map(|block| Step {
                grid: block.grid.clone(),
                block,
                mapped: false,
                ahead: true,
            });
            let block = self.block(kernel, target);
            let grid = block.grid.each_ref().map(|e| slab.extent(i, e));
            let product = Step {
                block,
                grid,
                mapped,
                ahead: false,
            };
            writes.into_iter().chain([product])
        });
        each.collect()
    }
}

impl Variant {
    /// Whether it reads a right operand as it is, rather than written out.
    fn reads(&self, kernel: &Matmul, target: Target) -> bool {
        match kernel.right() {
            Encoding::Plain(_) | Encoding::Code => true,
            Encoding::Packed(_) => match self {
                Variant::Few(order, m) => few::reads_packed(kernel, target, *order, *m),
                _ => false,
            },
            Encoding::Blocks(_) => match self {
                Variant::Mma(_) | Variant::Cut(_) | Variant::Wgmma(_) | Variant::Tma(_) => false,
                Variant::Few(..) | Variant::Tile => true,
            },
        }
    }
}

/// The variants for a kernel, with the condition under which each runs.
fn choose(kernel: &Matmul, target: Target, among: Among) -> Vec<(Variant, Vec<When>)> {
    let mut list: Vec<(Variant, u32)> = Vec::new();
    if let Some(order) = few::order(kernel) {
        list.extend([1, 2, 4, 8].map(|most| (Variant::Few(order, most), most as u32)));
    }
    let unpacked = unpack::plain(kernel, super::ROOM);
    let kernel = unpacked.as_ref().map_or(kernel, |(plain, _)| plain);
    match mma::fits(kernel, target) {
        true => {
            if among == Among::Alone {
                list.extend(cut(kernel));
            }
            list.extend(on_tensor_cores(kernel, target, among));
        }
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

/// The cuts of a product, each with the largest `m` it is for.
fn cut(kernel: &Matmul) -> Vec<(Variant, u32)> {
    let (Some(n), Some(k)) = (kernel.n.constant_size(), kernel.k.constant_size()) else {
        return Vec::new();
    };
    if !kernel.batch.is(1) {
        return Vec::new();
    }
    let cuts = mma::cuts(k).map(|cut| (Variant::Cut(cut), cut.rows(n) as u32));
    let mut list: Vec<(Variant, u32)> = Vec::new();
    // Each is for more rows than those before it.
    for (variant, most) in cuts {
        if most > list.last().map_or(0, |(_, most)| *most) {
            list.push((variant, most));
        }
    }
    list
}

/// The shapes of blocks on tensor cores, each with the largest `m` it is for: small ones where
/// large ones would leave much of a device idle.
fn on_tensor_cores(kernel: &Matmul, target: Target, among: Among) -> Vec<(Variant, u32)> {
    let n = match among {
        Among::Alone => kernel.n.constant_size().unwrap_or(1024),
        Among::Parts { rows, .. } => rows,
    };
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
