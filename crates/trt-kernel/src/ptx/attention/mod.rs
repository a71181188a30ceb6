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

/// PTX for an attention.
pub(super) fn emit(k: &Attention, target: Target) -> Result<Emitted, PtxError> {
    let plan = Plan::new(k, target)?;
    let (mut text, mut launches) = (scope::head(target), Vec::new());
    let mut scratch = Dim::from(0);
    let known = k.queries.constant();
    if known.is_none_or(|q| q <= i64::from(FEW)) {
        let when = known.is_none().then(|| plan.when(1, FEW));
        let (entry, grid, threads) = match plan.tensor {
            true => {
                let entry = decode::entry(&plan, "few");
                (entry, decode::grid(&plan), decode::THREADS)
            }
            false => {
                let entry = plain::entry(&plan, "few", plan.splits);
                (entry, plain::grid(&plan, plan.splits), plain::THREADS)
            }
        };
        text += &entry;
        launches.push(plan.launch("few", grid, threads, &when));
        if plan.splits > 1 {
            text += &combine::entry(&plan, "combine");
            let grid = combine::grid(&plan);
            launches.push(plan.launch("combine", grid, combine::THREADS, &when));
            scratch = combine::scratch(&plan);
        }
    }
    if known.is_none_or(|q| q > i64::from(FEW)) {
        let when = known.is_none().then(|| plan.when(FEW + 1, u32::MAX));
        if plan.tensor && flash::fits(&plan) {
            text += ".extern .shared .align 16 .b8 dynamic[];\n\n";
            text += &flash::entry(&plan, "many");
            let launch = plan.launch("many", flash::grid(&plan), flash::THREADS, &when);
            launches.push(Launch {
                shared: flash::shared(&plan),
                ..launch
            });
        } else {
            text += &plain::entry(&plan, "many", 1);
            launches.push(plan.launch("many", plain::grid(&plan, 1), plain::THREADS, &when));
        }
    }
    Ok(Emitted {
        text,
        target,
        params: scope::params(k.args.len(), false),
        launches,
        scratch,
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

    fn launch(&self, entry: &str, grid: [Extent; 3], block: u32, when: &Option<When>) -> Launch {
        Launch {
            entry: entry.into(),
            when: when.iter().cloned().collect(),
            grid,
            block,
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
