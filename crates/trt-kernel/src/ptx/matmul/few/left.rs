//! The left operand of a few rows, computed by each block for itself.
//!
//! A block computes all of it into shared memory with the machinery of row kernels, after the
//! wait for the launch ahead and while its first pieces of `b` are on their way. Then it reads
//! from there what it would have read through the first-level cache.
//!
//! What this costs: each block reads what the body loads (16 KB for a norm of 4096 columns, in
//! bf16) from the second-level cache, beside its rows of `b`, and has a few barriers before its
//! first product. So blocks are larger than those of other products with few rows, where there
//! are enough of them. What it saves is a launch, and the operand's way through memory.

use super::super::MatmulFrame;
use crate::ptx::asm::{Asm, Class, R};
use crate::ptx::fold::Stands;
use crate::ptx::reduce;
use crate::{Inst, Matmul, Row, Ty};

/// Up to this many threads on a multiprocessor, each has 128 registers.
const CROWD: u32 = 512;

/// Bytes that one prefetch brings.
const LINE: usize = 128;

/// The bytes of a computed left operand in shared memory; 0 for another.
pub(super) fn bytes(kernel: &Matmul) -> usize {
    let sizes = [&kernel.batch, &kernel.m, &kernel.k].map(|d| d.constant_size().unwrap_or(0));
    match kernel.a.stored() {
        Some(_) => 0,
        None => sizes.into_iter().product::<usize>() * kernel.left_dtype().size(),
    }
}

/// In a chain: whether the block has computed the left operand already, in a part ahead.
pub(in crate::ptx) const STAGED: &str = "%staged";

/// A left operand to be computed.
pub(super) struct Prologue {
    row: Row,
    types: Vec<Option<Ty>>,
    /// The shared address of the operand, row-major (u32).
    pub base: R,
    threads: u32,
    /// Threads that fold in it, or would: those of the product by plain rows, whose bits it has.
    members: u32,
    /// Blocks that a multiprocessor should hold.
    crowd: u32,
    /// Whether it is a chain's.
    chain: bool,
}

impl Prologue {
    /// None for a product whose left operand is in memory.
    pub fn begin(
        asm: &mut Asm,
        kernel: &Matmul,
        (threads, crowd): (u32, u32),
        chain: bool,
    ) -> Option<Prologue> {
        Prologue::standing(asm, kernel, (threads, threads, crowd), chain)
    }

    /// As [`Prologue::begin`], folding as so many members do, whatever the threads of the block.
    pub fn standing(
        asm: &mut Asm,
        kernel: &Matmul,
        (members, threads, crowd): (u32, u32, u32),
        chain: bool,
    ) -> Option<Prologue> {
        let (row, _) = kernel.split()?;
        // The kernel was checked, so its bodies have types.
        let types = row.body.types(&row.args).ok()?;
        Some(Prologue {
            row,
            types,
            base: asm.op("mov.u32", Class::B32, &[&"dynamic"]),
            threads,
            members,
            crowd,
            chain,
        })
    }

    /// Sends for what is the same for all rows, such as the weight of a norm, before the wait for the
    /// launch ahead: it comes from memory, where the rest was just written.
    pub fn prefetch(&self, asm: &mut Asm, frame: &MatmulFrame<'_>) {
        let axes = self.row.space.len();
        for inst in &self.row.body.insts {
            let Inst::Load(arg, view) = inst else {
                continue;
            };
            let (outer, columns) = view.strides.split_at(axes - 1);
            let vector = outer.iter().all(|s| s.is(0)) && columns.iter().all(|s| s.is(1));
            let sizes = (self.row.space[axes - 1].constant(), view.offset.constant());
            let (true, (Some(count), Some(offset))) = (vector, sizes) else {
                continue;
            };
            let size = self.row.args[arg.0 as usize].size() as i64;
            let (bytes, start) = (count * size, offset * size);
            let at = asm.op(
                "mad.wide.s32",
                Class::B64,
                &[&frame.tid, &LINE, &frame.scope.arg(*arg)],
            );
            for first in (0..bytes).step_by(LINE * self.threads as usize) {
                let lines = (bytes - first + LINE as i64 - 1) / LINE as i64;
                let offset = start + first;
                let some = asm.op("setp.lt.s32", Class::Pred, &[&frame.tid, &lines]);
                asm.put(format_args!("@{some} prefetch.global.L2 [{at}+{offset}]"));
            }
        }
    }

    /// Computes it with all threads of the block; all may read it afterwards.
    pub fn run(&self, asm: &mut Asm, frame: &MatmulFrame<'_>) {
        let scope = frame.scope.with_shared(asm, self.base);
        // What a multiprocessor should hold may leave few registers.
        let carry = match self.crowd {
            1 => 64,
            crowd if crowd * self.threads <= CROWD => 48,
            _ => 16,
        };
        let stands = Stands {
            members: self.members,
            threads: self.threads,
        };
        let threads = (frame.tid, stands);
        self.once(asm, |asm| {
            reduce::rows(asm, &scope, &self.row, &self.types, threads, carry);
            asm.put("bar.sync 0");
        });
    }

    /// What only the first part of a chain does.
    pub fn once(&self, asm: &mut Asm, what: impl FnOnce(&mut Asm)) {
        let staged = self.chain.then(|| asm.label());
        if let Some(end) = &staged {
            asm.put(format_args!("@{STAGED} bra {end}"));
        }
        what(asm);
        if let Some(end) = &staged {
            asm.place(end);
        }
    }
}
