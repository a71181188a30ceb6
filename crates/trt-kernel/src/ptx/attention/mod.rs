//! Attention: variants by the number of queries, and what their entries share.
//!
//! A *row* is a query of a head. The rows of all query heads that share a key head are numbered
//! `query * group + head within the group`, so a tile of rows reads keys and values once for the
//! whole group. Every variant keeps a running softmax: a maximum, a sum and weighted values, with
//! scores multiplied by log2(e) so that a weight is a power of two.
//!
//! With few queries the keys are split between blocks ([`combine`] merges them). The number of
//! splits is fixed and each takes an equal part of the keys of the call, so what is launched does
//! not depend on how many keys there are.

mod combine;
mod decode;
mod flash;
mod fragment;
mod frame;
mod int;
mod mem;
mod plain;

use super::emitted::{Emitted, Extent, Launch, Target, When};
use super::{PtxError, scope};
use crate::{Attention, Binary, Body, DType, Dim, Inst, Operand, Reg, Var};

/// Up to this many queries, keys are split between blocks.
const FEW: u32 = 8;
/// As many blocks as keep every known device busy with two each.
const BLOCKS: usize = 264;
/// More splits cost more to merge than they gain.
const MAX_SPLITS: usize = 64;

/// A kernel, and what follows from it for every entry.
struct Plan<'a> {
    k: &'a Attention,
    target: Target,
    vars: Vec<Var>,
    /// The factor of a score that only scales.
    factor: Option<f32>,
    /// Whether tensor cores do it.
    tensor: bool,
    /// Into how many parts few queries' keys are split.
    splits: usize,
}

/// An entry, and how it is launched.
struct Entry {
    name: &'static str,
    text: String,
    grid: [Extent; 3],
    threads: u32,
    /// Bytes of dynamic shared memory.
    shared: u32,
}

/// PTX for an attention.
pub(super) fn emit(k: &Attention, target: Target) -> Result<Emitted, PtxError> {
    let plan = Plan::new(k, target)?;
    let known = k.queries.constant();
    let (few, many) = (
        known.is_none_or(|q| q <= i64::from(FEW)),
        known.is_none_or(|q| q > i64::from(FEW)),
    );
    let mut entries = Vec::new();
    if few {
        let all = plan.few().into_iter();
        entries.extend(all.map(|e| (e, plan.when(1, FEW))));
    }
    if many {
        entries.push((plan.many(), plan.when(FEW + 1, u32::MAX)));
    }
    let mut text = scope::head(target);
    if entries.iter().any(|(e, _)| e.shared > 0) {
        text += ".extern .shared .align 1024 .b8 dynamic[];\n\n";
    }
    let mut launches = Vec::new();
    for (e, when) in entries {
        text += &e.text;
        launches.push(Launch {
            entry: e.name.into(),
            when: known.is_none().then_some(when).into_iter().collect(),
            grid: e.grid,
            block: e.threads,
            shared: e.shared,
        });
    }
    Ok(Emitted {
        text,
        target,
        params: scope::params(k.args.len(), 0),
        launches,
        scratch: match few && plan.splits > 1 {
            true => combine::scratch(&plan),
            false => Dim::from(0),
        },
    })
}

impl<'a> Plan<'a> {
    fn new(k: &'a Attention, target: Target) -> Result<Plan<'a>, PtxError> {
        for o in [&k.q, &k.k, &k.v, &k.out] {
            let dtype = k.args[o.arg.0 as usize];
            if !dtype.is_float() {
                return unsupported(format!("argument a{} of dtype {dtype}", o.arg.0));
            }
        }
        if !k.score.stores().is_empty() {
            return unsupported("a score that stores".into());
        }
        let mut plan = Plan {
            k,
            target,
            vars: vars(k),
            factor: factor(&k.score),
            tensor: false,
            splits: 1,
        };
        plan.tensor = fragment::fits(&plan);
        plan.splits = plan.splits();
        Ok(plan)
    }

    /// Enough splits to keep a large device busy.
    fn splits(&self) -> usize {
        let rows = self.rows().constant_size().unwrap_or(1);
        let tiles = match self.tensor {
            true => rows.div_ceil(8 * decode::tiles(self)),
            false => rows.div_ceil(plain::ROWS) * self.k.value_dim.div_ceil(plain::COLUMNS),
        };
        let batch = self.k.batch.constant_size().unwrap_or(1);
        let blocks = (batch * self.k.kv_heads * tiles).max(1);
        (BLOCKS / blocks).clamp(1, MAX_SPLITS)
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

    fn when(&self, min: u32, max: u32) -> When {
        When {
            dim: self.k.queries.clone(),
            min,
            max,
        }
    }

    /// Entries for few queries: the splits, then what merges them.
    fn few(&self) -> Vec<Entry> {
        let first = match self.tensor {
            true => Entry {
                name: "decode",
                text: decode::entry(self, "decode"),
                grid: decode::grid(self),
                threads: decode::THREADS,
                shared: 0,
            },
            false => self.plain("plain_few", self.splits),
        };
        let merge = (self.splits > 1).then(|| Entry {
            name: "combine",
            text: combine::entry(self, "combine"),
            grid: combine::grid(self),
            threads: combine::THREADS,
            shared: 0,
        });
        [first].into_iter().chain(merge).collect()
    }

    /// The entry for many queries.
    fn many(&self) -> Entry {
        match self.tensor {
            true => Entry {
                name: "flash",
                text: flash::entry(self, "flash"),
                grid: flash::grid(self),
                threads: flash::THREADS,
                shared: flash::shared(self),
            },
            false => self.plain("plain", 1),
        }
    }

    fn plain(&self, name: &'static str, splits: usize) -> Entry {
        Entry {
            name,
            text: plain::entry(self, name, splits),
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
