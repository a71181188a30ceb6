//! Row kernels with reductions: a team of threads for each row, a pass for each stage.
//!
//! A thread takes chunks of neighbouring columns, every team's size apart. Where a row is known
//! to be short enough its registers are kept from pass to pass; else each pass computes again
//! what it needs. Threads beyond the rows or the columns stay until the last fold: they read
//! nothing, fold neutral elements and store nothing.
//!
//! A block of another kernel may compute a few rows for itself ([`rows`]): then each pass takes all
//! of them, so that their loads and folds overlap.

mod passes;

use super::PtxError;
use super::asm::{Asm, Class, Int, R};
use super::block::Block;
use super::divide;
use super::emitted::Target;
use super::fold::Stands;
use super::scope::Scope;
use super::space::{self, Columns};
use crate::launch::Extent;
use crate::launch::row_plan::{Passes, RowPlan};
use crate::launch::stages::{Loads, Stages};
use crate::{Dim, Row, Ty};
use passes::RowJob;

pub(super) fn block(kernel: &Row, target: Target) -> Result<Block, PtxError> {
    let row = space::merge_row(kernel, Columns::Keep);
    let types = (row.body.types(&row.args)).map_err(|source| crate::KernelError::Body {
        kernel: "row",
        source,
    })?;
    let [early, late] =
        [Loads::First, Loads::Late].map(|l| Stages::new(&row.body, row.space.len(), &types, l));
    let [first, plan] = [&early, &late].map(|s| RowPlan::new(&row, s));
    let stages = if first == plan { early } else { late };
    if let Some(i) = stages.ambiguous {
        return Err(PtxError::Unsupported {
            kernel: "row",
            what: format!("instruction {i} stores all columns of a row to one element"),
        });
    }
    let mut asm = Asm::default();
    let scope = Scope::begin(&mut asm, target, row.args.len(), &space::row_vars(&row));
    let rows = Dim::product(&row.space[..row.space.len() - 1]);
    let places = vec![InRow::begin(&mut asm, &scope, &row, &plan, &rows)];
    let job = RowJob {
        scope: &scope,
        row: &row,
        types: &types,
        stages: &stages,
        plan,
        places,
        stands: None,
    };
    job.run(&mut asm);
    let grid = Extent::Of {
        dim: rows,
        per: plan.rows,
    };
    Ok(Block::new("row", asm, plan.block(), grid))
}

/// Computes all rows of a kernel in each block, in the order in which a team of so many members folds, `tid` being the thread's
/// number in the block. The outer axes have known sizes, and so have the columns; `carry` is how many
/// registers of a thread may carry values from pass to pass.
pub(super) fn rows(
    asm: &mut Asm,
    scope: &Scope,
    row: &Row,
    types: &[Option<Ty>],
    (tid, stands): (R, Stands),
    carry: usize,
) {
    let Stands { members, threads } = stands;
    let row = space::merge_row(row, Columns::Keep);
    let stages = |l| Stages::new(&row.body, row.space.len(), types, l);
    let carry = carry / stands.shares() as usize;
    let plan = |s: &Stages| RowPlan::within(&row, s, members, carry);
    let [early, late] = [Loads::First, Loads::Late].map(stages);
    let (stages, plan) = match plan(&early) {
        plan if matches!(plan.passes, Passes::Keep { .. }) => (early, plan),
        _ => {
            let plan = plan(&late);
            (late, plan)
        }
    };
    let outer = row.space[..row.space.len() - 1].iter();
    let mut places = vec![Vec::new()];
    for size in outer {
        let all = 0..size.constant().unwrap_or(0);
        let each = all.flat_map(|i| {
            let inner = places.iter().cloned();
            inner.map(move |mut at: Vec<Int>| {
                at.push(Int::Imm(i));
                at
            })
        });
        places = each.collect();
    }
    let columns = row.space[row.space.len() - 1].constant().unwrap_or(0);
    let each: Vec<(R, Option<R>)> = (0..stands.shares())
        .map(|share| {
            let mut member = tid;
            if share > 0 {
                member = asm.op("add.s32", Class::B32, &[&tid, &(share * threads)]);
            }
            let all = (share + 1) * threads <= members;
            let some = |asm: &mut Asm| asm.op("setp.lt.s32", Class::Pred, &[&member, &members]);
            (member, (!all).then(|| some(asm)))
        })
        .collect();
    let place = |outer: Vec<Int>| {
        let chunks = Int::Imm(columns / plan.lanes as i64);
        let each = each.clone().into_iter();
        each.map(move |(member, inside)| InRow {
            outer: outer.clone(),
            inside,
            member,
            chunks,
        })
    };
    let job = RowJob {
        scope,
        row: &row,
        types,
        stages: &stages,
        plan,
        places: places.into_iter().flat_map(place).collect(),
        stands: (members != threads).then_some(stands),
    };
    job.run(asm);
}

/// Where a thread is in a row.
struct InRow {
    /// The index along the outer axes.
    outer: Vec<Int>,
    /// Whether the thread's row is one; none if all are.
    inside: Option<R>,
    /// The thread's number in its team (s32).
    member: R,
    /// Chunks of a row.
    chunks: Int,
}

impl InRow {
    fn begin(asm: &mut Asm, scope: &Scope, row: &Row, plan: &RowPlan, rows: &Dim) -> InRow {
        let (threads, outer) = (plan.threads, &row.space[..row.space.len() - 1]);
        let tid = asm.op("mov.u32", Class::B32, &[&"%tid.x"]);
        let mut number = asm.op("mov.u32", Class::B32, &[&"%ctaid.x"]);
        let (mut member, mut inside) = (tid, None);
        if plan.rows > 1 {
            let (team, within) = divide::div_rem(asm, tid, threads);
            member = within;
            number = asm.op("mad.lo.u32", Class::B32, &[&number, &plan.rows, &team]);
            let full = rows
                .constant()
                .is_some_and(|r| r % i64::from(plan.rows) == 0);
            if !full {
                let rows = scope.size(asm, rows);
                inside = Some(asm.op("setp.lt.u32", Class::Pred, &[&number, &rows]));
            }
        }
        let outer = space::index(asm, scope, outer, number);
        let columns = &row.space[row.space.len() - 1];
        // Columns are a multiple of the lanes.
        let chunks = columns.divide(&Dim::from(plan.lanes)).unwrap_or_default();
        InRow {
            outer,
            inside,
            member,
            chunks: scope.size(asm, &chunks),
        }
    }
}
