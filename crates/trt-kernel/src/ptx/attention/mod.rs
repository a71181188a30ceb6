//! Attention: variants by the number of queries, and what their entries share.
//!
//! A *row* is a query of a head. The rows of all query heads that share a key head are numbered
//! `query * group + head within the group`, so a tile of rows reads keys and values once for the
//! whole group. Every variant keeps a running softmax: a maximum, a sum and weighted values, with
//! scores multiplied by log2(e) so that a weight is a power of two.
//!
//! With few queries the keys are split between blocks, and the last one to finish merges what all
//! found ([`combine`]). The number of splits is fixed and each takes an equal part of the keys of
//! the call (the first one all of them, where they are few), so what is launched does not depend
//! on how many keys there are.

mod combine;
mod decode;
mod flash;
mod fragment;
mod frame;
mod int;
mod mem;
mod plain;

use super::emitted::{Emitted, Target};
use super::{PtxError, row, scope, space};
use crate::fusible::HeadRows;
use crate::launch::{COUNTERS, EntryLaunch, Extent, Param, When};
use crate::{Attention, Binary, Body, DType, Dim, Inst, Operand, Reg, Row, Var};

/// Up to this many queries, keys are split between blocks.
const FEW: u32 = 8;
/// As many warps as keep a large device busy with eight for each multiprocessor.
const CROWD: usize = 8 * 132;
/// More splits cost more to merge than they gain.
pub(super) const MAX_SPLITS: usize = 64;

/// A kernel, and what follows from it for every entry.
struct AttentionPlan<'a> {
    k: &'a Attention,
    target: Target,
    vars: Vec<Var>,
    /// The factor of a score that only scales.
    factor: Option<f32>,
    /// Whether tensor cores do it.
    tensor: bool,
    /// Into how many parts few queries' keys are split.
    splits: usize,
    /// Up to this many batches: each block that merges has a counter.
    split_batches: usize,
    /// Pointers that a launch gives.
    given: usize,
    /// Row kernels that blocks run for themselves.
    before: Option<HeadRows<'a>>,
    /// Bytes at the start of working memory that hold the queries.
    own: usize,
}

/// An entry, and how it is launched.
struct AttentionEntry {
    name: String,
    text: String,
    when: Vec<When>,
    grid: [Extent; 3],
    threads: u32,
    /// Bytes of dynamic shared memory.
    shared: u32,
}

/// PTX for an attention.
pub(super) fn emit(k: &Attention, target: Target) -> Result<Emitted, PtxError> {
    let Some((rows, inner)) = k.split() else {
        return Ok(AttentionPlan::new(k, target)?.module(Vec::new()));
    };
    let mut plan = AttentionPlan::new(&inner, target)?;
    plan.given = k.args.len();
    plan.before = (plan.tensor.then(|| HeadRows::of(&inner, rows))).flatten();
    if plan.before.is_some() {
        plan.vars.extend(rows.iter().flat_map(space::row_vars));
        plan.vars.sort();
        plan.vars.dedup();
        return Ok(plan.module(Vec::new()));
    }
    let size = plan.dtype(&inner.q).size();
    plan.own = (k.own_elements().unwrap_or(0) * size).next_multiple_of(256);
    let rows = rows.iter().enumerate();
    let first = rows.map(|(i, row)| plan.rows_first(i, row));
    let first = first.collect::<Result<Vec<AttentionEntry>, _>>()?;
    Ok(plan.module(first))
}

impl<'a> AttentionPlan<'a> {
    fn new(k: &'a Attention, target: Target) -> Result<AttentionPlan<'a>, PtxError> {
        for o in [&k.q, &k.k, &k.v, &k.out] {
            let dtype = k.args[o.arg.0 as usize];
            if !dtype.is_float() {
                return unsupported(format!("argument a{} of dtype {dtype}", o.arg.0));
            }
        }
        if !k.score.stores().is_empty() {
            return unsupported("a score that stores".into());
        }
        let mut plan = AttentionPlan {
            k,
            target,
            vars: vars(k),
            factor: factor(&k.score),
            tensor: false,
            splits: 1,
            split_batches: 0,
            given: k.args.len(),
            before: None,
            own: 0,
        };
        plan.tensor = fragment::fits(&plan);
        (plan.splits, plan.split_batches) = plan.splits();
        Ok(plan)
    }

    /// All entries, behind those that come first.
    fn module(&self, first: Vec<AttentionEntry>) -> Emitted {
        let known = self.k.queries.constant();
        let (few, many) = (
            known.is_none_or(|q| q <= i64::from(FEW)),
            known.is_none_or(|q| q > i64::from(FEW)),
        );
        let mut entries = first;
        if few {
            entries.extend(self.few());
        }
        if many {
            entries.push(self.many());
        }
        let mut text = scope::head(self.target);
        if entries.iter().any(|e| e.shared > 0) {
            text += ".extern .shared .align 1024 .b8 dynamic[];\n\n";
        }
        let mut launches = Vec::new();
        for e in entries {
            text += &e.text;
            launches.push(EntryLaunch {
                entry: e.name,
                when: e.when,
                grid: e.grid,
                block: e.threads,
                shared: e.shared,
                mapped: false,
                sums: Vec::new(),
            });
        }
        let records = match few && self.splits > 1 {
            true => combine::scratch(self, self.share_width()),
            false => Dim::from(0),
        };
        Emitted {
            text,
            target: self.target,
            params: self.params(),
            launches,
            maps: Vec::new(),
            scratch: &records + &Dim::from(self.own),
            limits: Vec::new(),
        }
    }

    /// A row kernel as a launch of its own.
    fn rows_first(&self, i: usize, row: &Row) -> Result<AttentionEntry, PtxError> {
        let block = row::block(row, self.target)?;
        let (name, threads, crowd) = (format!("before{i}"), block.threads, block.crowd);
        let (grid, shared) = (block.grid, block.shared);
        Ok(AttentionEntry {
            text: scope::crowded_entry(&name, &self.params(), threads, crowd, block.asm),
            name,
            when: vec![],
            grid,
            threads,
            shared,
        })
    }

    /// Enough splits to keep a large device busy, and for how many batches there are counters.
    fn splits(&self) -> (usize, usize) {
        let tiles = |rows: usize| match self.tensor {
            true => rows.div_ceil(8 * decode::tiles(self)),
            false => rows.div_ceil(plain::ROWS) * plain::slices(self),
        };
        let (least, most) = match self.rows().constant_size() {
            Some(rows) => (rows, rows),
            None => (1, self.group() * FEW as usize),
        };
        let known = self.k.batch.constant_size();
        let blocks = (known.unwrap_or(1) * self.k.kv_heads * tiles(least)).max(1);
        let warps = match self.tensor {
            true => decode::warps(self),
            false => plain::WARPS,
        };
        let splits = (CROWD / warps / blocks).clamp(1, MAX_SPLITS);
        let batches = COUNTERS / (self.k.kv_heads * tiles(most)).max(1);
        match batches {
            0 => (1, 0),
            n if known.is_some_and(|b| b > n) => (1, 0),
            n => (splits, n),
        }
    }

    /// Columns of the values that a block of few queries takes at most.
    fn share_width(&self) -> usize {
        match self.tensor {
            true => self.k.value_dim,
            false => plain::share_width(self),
        }
    }

    /// The parameters of every entry.
    fn params(&self) -> Vec<Param> {
        let mut params = scope::params(self.given, 0);
        params.extend((self.splits > 1).then_some(Param::Counters));
        params
    }

    /// Query heads that share a key head.
    fn group(&self) -> usize {
        self.k.heads / self.k.kv_heads
    }

    /// Rows that share a key head.
    fn rows(&self) -> Dim {
        &self.k.queries * &Dim::from(self.group())
    }

    fn dtype(&self, operand: &Operand) -> DType {
        self.k.args[operand.arg.0 as usize]
    }

    /// The condition that the number of queries asks for.
    fn when(&self, min: u32, max: u32) -> Vec<When> {
        let dim = self.k.queries.clone();
        let known = dim.constant().is_some();
        (!known)
            .then_some(When { dim, min, max })
            .into_iter()
            .collect()
    }

    /// Entries for few queries: with splits, and without where a batch has no counters.
    fn few(&self) -> Vec<AttentionEntry> {
        let batch = &self.k.batch;
        if self.splits == 1 || batch.constant().is_some() {
            return vec![self.few_in("decode", "plain_few", self.splits, vec![])];
        }
        let batches = |min: u32, max: u32| {
            let dim = batch.clone();
            vec![When { dim, min, max }]
        };
        let most = self.split_batches as u32;
        vec![
            self.few_in("decode", "plain_few", self.splits, batches(0, most)),
            self.few_in(
                "decode_whole",
                "plain_whole",
                1,
                batches(most + 1, u32::MAX),
            ),
        ]
    }

    fn few_in(
        &self,
        tensor: &'static str,
        plain: &'static str,
        splits: usize,
        batches: Vec<When>,
    ) -> AttentionEntry {
        let entry = match self.tensor {
            true => AttentionEntry {
                name: tensor.into(),
                text: decode::entry(self, tensor, splits),
                when: self.when(1, FEW),
                grid: decode::grid(self, splits),
                threads: decode::threads(self),
                shared: 0,
            },
            false => self.plain(plain, splits, self.when(1, FEW)),
        };
        let when = [entry.when, batches].concat();
        AttentionEntry { when, ..entry }
    }

    /// The entry for many queries.
    fn many(&self) -> AttentionEntry {
        let when = self.when(FEW + 1, u32::MAX);
        match self.tensor {
            true => AttentionEntry {
                name: "flash".into(),
                text: flash::entry(self, "flash"),
                when,
                grid: flash::grid(self),
                threads: flash::THREADS,
                shared: flash::shared(self),
            },
            false => self.plain("plain", 1, when),
        }
    }

    fn plain(&self, name: &'static str, splits: usize, when: Vec<When>) -> AttentionEntry {
        AttentionEntry {
            name: name.into(),
            text: plain::entry(self, name, splits),
            when,
            grid: plain::grid(self, splits),
            threads: plain::THREADS,
            shared: 0,
        }
    }
}

fn unsupported<T>(what: String) -> Result<T, PtxError> {
    Err(PtxError::Unsupported {
        kernel: "attention",
        what,
    })
}

/// As many blocks as a size over `per`.
fn extent(dim: Dim, per: u32) -> Extent {
    match dim.constant_size() {
        Some(n) => Extent::Fixed((n as u32).div_ceil(per)),
        None => Extent::Of { dim, per },
    }
}

/// The runtime integers that anything depends on.
fn vars(k: &Attention) -> Vec<Var> {
    let views = [&k.q, &k.k, &k.v, &k.out].map(|o| &o.view);
    let mut dims: Vec<&Dim> = vec![&k.queries, &k.keys];
    dims.extend(
        views
            .iter()
            .flat_map(|v| v.strides.iter().chain([&v.offset])),
    );
    dims.extend(k.causal.iter().map(|c| &c.offset));
    let mut vars: Vec<Var> = dims.iter().flat_map(|d| d.vars()).collect();
    vars.extend(k.score.vars());
    vars.sort();
    vars.dedup();
    vars
}

/// The factor of a score that is `input` or `input * constant`.
fn factor(score: &Body) -> Option<f32> {
    let inst = |r: Reg| &score.insts[r.0 as usize];
    let constant = |r: Reg| match inst(r) {
        Inst::F32(c) => Some(*c),
        _ => None,
    };
    match inst(score.yielded()?) {
        Inst::Input => Some(1.0),
        Inst::Binary(Binary::Mul, x, c) if *inst(*x) == Inst::Input => constant(*c),
        Inst::Binary(Binary::Mul, c, x) if *inst(*x) == Inst::Input => constant(*c),
        _ => None,
    }
}
