//! What an entry of an attention knows: sizes, the mask's limits, rows, scores.

use super::{AttentionPlan, int};
use crate::launch::LARGEST_INDEX;
use crate::ptx::asm::{Asm, Class, Int, R, imm};
use crate::ptx::lanes::{self, Point};
use crate::ptx::scope::Scope;
use crate::{Inst, Operand, View};
use std::f32::consts::LOG2_E;

/// Registers at the start of an entry.
pub(super) struct AttentionFrame<'a> {
    pub plan: &'a AttentionPlan<'a>,
    pub scope: Scope,
    pub queries: Int,
    pub keys: Int,
    /// Rows that share a key head.
    pub rows: Int,
    pub batch: R,
    pub tid: R,
    /// A query `i` sees keys below `i + high` …
    high: Option<Int>,
    /// … from `i + low`.
    low: Option<Int>,
}

/// A range of keys.
#[derive(Clone, Copy)]
pub(super) struct Keys {
    pub start: Int,
    pub end: Int,
}

/// One split of the keys of a call.
pub(super) struct Split {
    /// May be empty.
    pub keys: Keys,
    /// How many splits have keys; at least one.
    pub used: Int,
    /// Whether that is one.
    pub alone: R,
}

/// Keys of a tile; splits are whole tiles.
const ALIGN: i64 = 64;

/// A query of a head; inside of the space.
#[derive(Clone, Copy)]
pub(super) struct QueryRow {
    pub head: Int,
    pub query: Int,
    /// The keys that it sees start here …
    pub low: Option<Int>,
    /// … and end here.
    high: Option<Int>,
}

impl<'a> AttentionFrame<'a> {
    /// Starts an entry, and waits for the launch ahead.
    pub fn begin(asm: &mut Asm, plan: &'a AttentionPlan<'a>) -> AttentionFrame<'a> {
        let frame = AttentionFrame::begin_early(asm, plan);
        frame.scope.wait(asm);
        frame
    }

    /// As [`AttentionFrame::begin`], but without the wait: the entry touches no argument, working memory
    /// or counter until it waits itself.
    pub fn begin_early(asm: &mut Asm, plan: &'a AttentionPlan<'a>) -> AttentionFrame<'a> {
        let k = plan.k;
        let mut scope = Scope::begin_early(asm, plan.target, k.args.len(), &plan.vars);
        if plan.own > 0 {
            // Records come behind the queries.
            scope.scratch = asm.op("add.s64", Class::B64, &[&scope.scratch, &plan.own]);
        }
        let (queries, keys) = (scope.size(asm, &k.queries), scope.size(asm, &k.keys));
        let high = (k.causal.as_ref()).map(|c| scope.size(asm, &c.offset));
        let window = (k.causal.as_ref()).and_then(|c| i64::try_from(c.window?).ok());
        // No call has keys that a larger one would hide.
        let window = window.filter(|w| *w <= LARGEST_INDEX);
        let low = high
            .zip(window)
            .map(|(h, w)| int::add(asm, h, Int::Imm(1 - w)));
        AttentionFrame {
            plan,
            queries,
            keys,
            rows: int::mul(asm, queries, Int::Imm(plan.group() as i64)),
            batch: asm.op("mov.u32", Class::B32, &[&"%ctaid.z"]),
            tid: asm.op("mov.u32", Class::B32, &[&"%tid.x"]),
            high: high.map(|h| int::add(asm, h, Int::Imm(1))),
            low,
            scope,
        }
    }

    /// The keys that queries `first..=last` see, from a multiple of `align` (a power of two) on.
    /// Empty if the end is not above the start.
    pub fn seen(&self, asm: &mut Asm, first: Int, last: Int, align: i64) -> Keys {
        let start = match self.low {
            None => Int::Imm(0),
            Some(low) => {
                let start = int::add(asm, first, low);
                let start = int::max(asm, start, Int::Imm(0));
                int::floor(asm, start, align)
            }
        };
        let end = match self.high {
            None => self.keys,
            Some(high) => {
                let end = int::add(asm, last, high);
                int::min(asm, end, self.keys)
            }
        };
        Keys { start, end }
    }

    /// One split of the keys, which go by tiles of 64: all of them are the first one's where there
    /// are at most `whole`, each has one tile where there are no more tiles than splits, else it
    /// has an equal part of them. Depends on nothing but the keys.
    pub fn split(&self, asm: &mut Asm, split: Int, whole: i64) -> Split {
        let splits = self.plan.splits as i64;
        let last = int::sub(asm, self.queries, Int::Imm(1));
        let all = self.seen(asm, Int::Imm(0), last, ALIGN);
        let count = int::sub(asm, all.end, all.start);
        let count = int::max(asm, count, Int::Imm(1));
        let tiles = int::add(asm, count, Int::Imm(ALIGN - 1));
        let tiles = int::div(asm, tiles, Int::Imm(ALIGN));
        let [count, tiles] = [count, tiles].map(|i| asm.op("mov.b32", Class::B32, &[&i]));
        let alone = asm.op("setp.le.s32", Class::Pred, &[&count, &whole.max(ALIGN)]);
        let few = asm.op("setp.le.s32", Class::Pred, &[&tiles, &splits]);
        let pick = |asm: &mut Asm, a: &Int, b: &Int, p: R| {
            Int::Reg(asm.op("selp.b32", Class::B32, &[a, b, &p]))
        };
        let next = int::add(asm, split, Int::Imm(1));
        let [start, end] = [split, next].map(|i| {
            let part = int::mul(asm, i, tiles);
            let part = int::div(asm, part, Int::Imm(splits));
            let tile = pick(asm, &i, &part, few);
            let key = int::mul(asm, tile, Int::Imm(ALIGN));
            let first = int::mul(asm, i, Int::Imm(whole.max(ALIGN)));
            let key = pick(asm, &first, &key, alone);
            int::add(asm, all.start, key)
        });
        let used = int::min(asm, tiles, Int::Imm(splits));
        Split {
            keys: Keys {
                start,
                end: int::min(asm, end, all.end),
            },
            used: pick(asm, &Int::Imm(1), &used, alone),
            alone,
        }
    }

    /// A row of a key head; an index beyond the last gives the last.
    pub fn row(&self, asm: &mut Asm, kv_head: Int, index: impl Into<Int>) -> QueryRow {
        let group = Int::Imm(self.plan.group() as i64);
        let last = int::sub(asm, self.rows, Int::Imm(1));
        let index = int::min(asm, index, last);
        let query = int::div(asm, index, group);
        let within = int::rem(asm, index, group);
        let first = int::mul(asm, kv_head, group);
        let head = int::add(asm, first, within);
        self.query(asm, head, query)
    }

    /// A query of a head.
    pub fn query(&self, asm: &mut Asm, head: Int, query: Int) -> QueryRow {
        QueryRow {
            head,
            query,
            low: self.low.map(|low| int::add(asm, query, low)),
            high: self.high.map(|high| int::add(asm, query, high)),
        }
    }

    /// The address of an element of an operand of `size` bytes.
    pub fn at(&self, asm: &mut Asm, o: &Operand, head: Int, row: Int, column: Int) -> R {
        let size = self.plan.dtype(o).size();
        let index = [self.batch.into(), head, row, column];
        self.scope.address(asm, o.arg, &o.view, &index, size)
    }

    /// As `address`, moved along axis `axis` of an operand by `by`.
    pub fn step(&self, asm: &mut Asm, o: &Operand, address: R, axis: usize, by: Int) -> R {
        let size = self.plan.dtype(o).size();
        let view = View {
            offset: 0.into(),
            strides: vec![o.view.strides[axis].clone()],
        };
        self.scope.address_from(asm, address, &view, &[by], size)
    }

    /// Whether scores run for pairs of keys: only if a pair cannot straddle the last key, or if
    /// nothing is read there.
    pub fn pairs(&self) -> bool {
        let reads = |i: &Inst| i.access().is_some();
        let even = self.plan.k.keys.terms().iter().all(|t| t.1 % 2 == 0);
        even || !self.plan.k.score.insts.iter().any(reads)
    }

    /// The scores, times log2(e), of a row and some neighbouring keys from `key` on, a multiple
    /// of their number. Keys beyond the last have some score.
    pub fn scores(&self, asm: &mut Asm, row: &QueryRow, key: R, dots: &[R]) -> Vec<R> {
        if let Some(factor) = self.plan.factor {
            let factor = imm(factor * LOG2_E);
            return (dots.iter())
                .map(|d| asm.op("mul.f32", Class::F32, &[d, &factor]))
                .collect();
        }
        let step = if self.pairs() { dots.len() } else { 1 };
        let last = int::sub(asm, self.keys, Int::Imm(step as i64));
        let mut out = Vec::new();
        for (i, dots) in dots.chunks(step).enumerate() {
            let key = int::add(asm, key, Int::Imm((i * step) as i64));
            let key = int::min(asm, key, last);
            let point = Point {
                at: &[self.batch.into(), row.head, row.query, key],
                lanes: step,
                input: dots,
            };
            let k = self.plan.k;
            for score in lanes::run(asm, &self.scope, &k.score, &k.args, point) {
                out.push(asm.op("mul.f32", Class::F32, &[&score, &imm(LOG2_E)]));
            }
        }
        out
    }

    /// The first key that the row does not see any more, of keys that end at `end`.
    pub fn horizon(&self, asm: &mut Asm, row: &QueryRow, end: Int) -> Int {
        match row.high {
            None => end,
            Some(high) => int::min(asm, high, end),
        }
    }

    /// The score, or minus infinity if the row does not see the key: it is not below `horizon`,
    /// or too old.
    pub fn mask(
        &self,
        asm: &mut Asm,
        row: &QueryRow,
        horizon: Int,
        key: impl Into<Int>,
        score: R,
    ) -> R {
        let key = key.into();
        let mut seen = asm.op("setp.lt.s32", Class::Pred, &[&key, &horizon]);
        if let Some(low) = row.low {
            seen = asm.op("setp.ge.and.s32", Class::Pred, &[&key, &low, &seen]);
        }
        let low = imm(f32::NEG_INFINITY);
        asm.op("selp.f32", Class::F32, &[&score, &low, &seen])
    }
}
