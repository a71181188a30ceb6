//! Row kernels before an attention that its blocks can run for themselves.
//!
//! That is so where a call has one query: then each row kernel stores, in a space whose axes are
//! batches, heads and columns, nothing but the queries, or the last key, or the last value of each
//! head. So a block computes what belongs to its own key head and waits for no other.
//!
//! A row kernel that this does not describe, or an attention without tensor cores, is launched by
//! itself.

use super::Plan;
use crate::ptx::{access, space};
use crate::{Dim, Inst, Operand, Row, View};

/// What a block computes first.
pub(super) struct Before<'a> {
    pub queries: Stored<'a>,
    /// If they store the last key.
    pub key: Option<Stored<'a>>,
    /// If they store the last value.
    pub value: Option<Stored<'a>>,
}

/// A row kernel that stores one row of each head.
pub(super) struct Stored<'a> {
    pub row: &'a Row,
    /// The axis of heads, and that of batches; none for one with one point.
    pub head: Option<usize>,
    pub batch: Option<usize>,
    /// Where the row starts.
    start: Dim,
    /// Points of a row.
    pub columns: usize,
    /// How many of them a thread may take at once.
    pub widest: usize,
}

impl<'a> Before<'a> {
    /// None if the blocks cannot run these rows.
    pub fn of(plan: &Plan, rows: &'a [Row]) -> Option<Before<'a>> {
        let k = plan.k;
        let last = &k.keys - &Dim::from(1);
        let seen = k
            .causal
            .as_ref()
            .is_none_or(|c| c.offset == last && c.window != Some(0));
        if !(plan.tensor && k.queries.is(1) && seen && k.k.arg != k.v.arg && alone(plan, rows)) {
            return None;
        }
        let (mut queries, mut key, mut value) = (None, None, None);
        for row in rows {
            let [arg] = row.body.stores()[..] else {
                return None;
            };
            let first = Dim::from(0);
            let (slot, operand, at, heads, width) = match arg {
                a if a == k.q.arg => (&mut queries, &k.q, &first, k.heads, k.head_dim),
                a if a == k.k.arg => (&mut key, &k.k, &last, k.kv_heads, k.head_dim),
                a if a == k.v.arg => (&mut value, &k.v, &last, k.kv_heads, k.value_dim),
                _ => return None,
            };
            let stored = Stored::of(row, operand, at, (&k.batch, heads, width))?;
            if slot.replace(stored).is_some() {
                return None;
            }
        }
        Some(Before {
            queries: queries?,
            key,
            value,
        })
    }
}

/// Whether nothing that the rows store is loaded otherwise than as an operand, and nobody touches
/// the result.
fn alone(plan: &Plan, rows: &[Row]) -> bool {
    let k = plan.k;
    let bodies = || rows.iter().map(|row| &row.body);
    let stored: Vec<_> = bodies().flat_map(|b| b.stores()).collect();
    let loads = |inst: &Inst| matches!(inst, Inst::Load(a, _) if stored.contains(a));
    let folds = |inst: &Inst| matches!(inst, Inst::Reduce(..));
    bodies().all(|b| !b.touches(k.out.arg) && !b.insts.iter().any(|i| loads(i) || folds(i)))
        && !k.score.insts.iter().any(loads)
        && !stored.contains(&k.out.arg)
}

impl<'a> Stored<'a> {
    /// A kernel that stores row `at` of an operand for all batches and heads, each element once.
    fn of(
        row: &'a Row,
        operand: &Operand,
        at: &Dim,
        (batches, heads, width): (&Dim, usize, usize),
    ) -> Option<Stored<'a>> {
        let views = row.body.insts.iter().filter_map(|inst| match inst {
            Inst::Store(_, view, _) => Some(view),
            _ => None,
        });
        let views: Vec<&View> = views.collect();
        let (columns, outer) = row.space.split_last()?;
        let columns = columns.constant_size()?;
        let strides = &operand.view.strides;
        let walks = |axis: usize, stride: &Dim| views.iter().all(|v| v.strides[axis] == *stride);
        let (mut head, mut batch) = (None, None);
        for (axis, size) in outer.iter().enumerate().filter(|(_, size)| !size.is(1)) {
            match size {
                s if head.is_none() && *s == Dim::from(heads) && walks(axis, &strides[1]) => {
                    head = Some(axis);
                }
                s if batch.is_none() && s == batches && walks(axis, &strides[0]) => {
                    batch = Some(axis);
                }
                _ => return None,
            }
        }
        let all = (heads == 1 || head.is_some()) && (batches.is(1) || batch.is_some());
        let start = &operand.view.offset + &(at * &strides[2]);
        let parts = views
            .iter()
            .map(|v| (&v.offset - &start).constant_size())
            .collect::<Option<Vec<usize>>>();
        let mut parts = parts?;
        parts.sort_unstable();
        // One behind the other, they are the whole row.
        let mut next = (0..).step_by(columns.max(1));
        let whole = parts.len() * columns == width && parts.iter().all(|p| next.next() == Some(*p));
        let last = row.space.len() - 1;
        let widest = access::lanes(&Dim::from(columns), space::accesses(&row.body, &row.args));
        (all && whole && walks(last, &Dim::from(1))).then_some(Stored {
            row,
            start,
            head,
            batch,
            columns,
            widest,
        })
    }

    /// The column that a store's first point has in the row.
    pub fn part(&self, view: &View) -> usize {
        (&view.offset - &self.start).constant_size().unwrap_or(0)
    }
}
