//! Entries in the making: what a template assembles, before it is known what it stands in.

use super::asm::Asm;
use super::emitted::{Emitted, Target};
use super::scope::{crowded_entry, head, params};
use crate::launch::{EntryLaunch, Extent};
use crate::{Dim, SumOrder};

/// One entry and how it is launched.
pub(super) struct Block {
    pub name: String,
    pub asm: Asm,
    pub threads: u32,
    /// Blocks that a multiprocessor should hold at a time, if that matters.
    pub crowd: Option<u32>,
    pub grid: [Extent; 3],
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// The order in which a product sums, if it is one of few rows.
    pub order: Option<SumOrder>,
}

impl Block {
    /// An entry over a grid along x.
    pub fn new(name: &str, asm: Asm, threads: u32, grid: Extent) -> Block {
        Block {
            name: name.into(),
            asm,
            threads,
            crowd: None,
            grid: [grid, Extent::Fixed(1), Extent::Fixed(1)],
            shared: 0,
            order: None,
        }
    }

    /// A module of this entry alone, for a kernel without ranged weights.
    pub fn module(self, target: Target, args: usize) -> Emitted {
        let params = params(args, 0);
        let text = crowded_entry(&self.name, &params, self.threads, self.crowd, self.asm);
        Emitted {
            text: head(target) + &text,
            target,
            params,
            launches: vec![EntryLaunch {
                entry: self.name,
                when: vec![],
                grid: self.grid,
                block: self.threads,
                shared: self.shared,
                mapped: false,
                sums: Vec::new(),
            }],
            maps: Vec::new(),
            scratch: Dim::from(0),
            limits: Vec::new(),
        }
    }
}
