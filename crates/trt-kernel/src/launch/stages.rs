//! A body with reductions, cut into passes over the columns.
//!
//! Pass `s` folds the reductions whose operand depends on `s - 1` others; the last one stores.
//! What is the same in all columns runs once a row, before the pass that needs it. A pass over
//! kept registers runs what no earlier pass ran (`fresh`), one that kept nothing runs all that
//! its folds or stores need (`again`).

use super::widths::fixed_along_lanes;
use crate::{Body, Inst, Reduce, Reg, Ty};

/// One pass.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stage {
    /// Runs once a row, before the pass.
    pub row: Vec<usize>,
    /// Runs in each column whose registers were kept.
    pub fresh: Vec<usize>,
    /// Runs in each column, nothing of which was kept.
    pub again: Vec<usize>,
    /// What is folded: instruction, kind, operand.
    pub folds: Vec<(usize, Reduce, Reg)>,
}

/// When kept registers are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loads {
    /// All in the first pass, so that no fold waits for one after another.
    First,
    /// In the pass that needs them.
    Late,
}

/// All passes and what follows the last.
#[derive(Clone, Debug)]
pub(crate) struct Stages {
    pub list: Vec<Stage>,
    /// Stores to an element for each column.
    pub stores: Vec<usize>,
    /// Stores to an element for each row.
    pub row_stores: Vec<usize>,
    /// The most 32-bit registers for one column that must be kept between two passes.
    pub carried: usize,
    /// A store of values that differ between columns to one element.
    pub ambiguous: Option<usize>,
}

/// What is known of each instruction.
struct Facts {
    /// How many reductions it depends on, one after the other.
    level: Vec<usize>,
    /// Whether it is the same in all columns.
    uniform: Vec<bool>,
}

impl Facts {
    fn new(body: &Body, axes: usize) -> Facts {
        let n = body.insts.len();
        let (mut level, mut uniform) = (vec![0; n], vec![false; n]);
        for (i, inst) in body.insts.iter().enumerate() {
            let below = inst.operands().map(|r| level[r.0 as usize]).max();
            level[i] = below.unwrap_or(0) + usize::from(matches!(inst, Inst::Reduce(..)));
            uniform[i] = match inst {
                Inst::F32(_) | Inst::I64(_) | Inst::Reduce(..) => true,
                Inst::Load(_, v) => fixed_along_lanes(v),
                Inst::Pick(_, v, _, r) => fixed_along_lanes(v) && uniform[r.0 as usize],
                Inst::Iota(axis) => *axis as usize + 1 != axes,
                Inst::Input | Inst::Store(..) | Inst::Yield(_) => false,
                Inst::Unary(..)
                | Inst::Binary(..)
                | Inst::Compare(..)
                | Inst::Select(..)
                | Inst::Within(..)
                | Inst::Cast(..) => inst.operands().all(|r| uniform[r.0 as usize]),
            };
        }
        Facts { level, uniform }
    }
}

impl Stages {
    /// Cuts a body over `axes` axes; `types` are those of its registers.
    pub fn new(body: &Body, axes: usize, types: &[Option<Ty>], loads: Loads) -> Stages {
        let facts = Facts::new(body, axes);
        let last = facts.level.iter().copied().max().unwrap_or(0);
        let mut stages = Stages {
            list: Vec::new(),
            stores: Vec::new(),
            row_stores: Vec::new(),
            carried: 0,
            ambiguous: None,
        };
        for (i, inst) in body.insts.iter().enumerate() {
            let Inst::Store(_, view, value) = inst else {
                continue;
            };
            match (fixed_along_lanes(view), facts.uniform[value.0 as usize]) {
                (true, true) => stages.row_stores.push(i),
                (true, false) => stages.ambiguous = Some(i),
                (false, _) => stages.stores.push(i),
            }
        }
        let mut done = vec![false; body.insts.len()];
        for s in 0..=last {
            let mut stage = stages.stage(body, &facts, s, s == last, &mut done);
            if s == 0 && loads == Loads::First {
                for (i, inst) in body.insts.iter().enumerate() {
                    if matches!(inst, Inst::Load(..)) && !facts.uniform[i] && !done[i] {
                        stage.fresh.push(i);
                        done[i] = true;
                    }
                }
                stage.fresh.sort();
            }
            stages.list.push(stage);
        }
        stages.carried = stages.carried(body, &facts, types);
        stages
    }

    fn stage(&self, body: &Body, facts: &Facts, s: usize, last: bool, done: &mut [bool]) -> Stage {
        let mut stage = Stage::default();
        let mut wanted = vec![false; body.insts.len()];
        for (i, inst) in body.insts.iter().enumerate() {
            match inst {
                Inst::Reduce(kind, r) if facts.level[i] == s + 1 => {
                    stage.folds.push((i, *kind, *r));
                    wanted[r.0 as usize] = true;
                }
                _ => {}
            }
        }
        if last {
            self.stores.iter().for_each(|i| wanted[*i] = true);
        }
        for (i, inst) in body.insts.iter().enumerate().rev() {
            if wanted[i] && !matches!(inst, Inst::Reduce(..)) {
                inst.operands().for_each(|r| wanted[r.0 as usize] = true);
            }
        }
        for (i, inst) in body.insts.iter().enumerate() {
            if matches!(inst, Inst::Reduce(..) | Inst::Store(..) | Inst::Yield(_)) {
                continue;
            }
            if facts.uniform[i] {
                if facts.level[i] == s {
                    stage.row.push(i);
                }
            } else if wanted[i] {
                stage.again.push(i);
                if !done[i] {
                    stage.fresh.push(i);
                    done[i] = true;
                }
            }
        }
        stage
    }

    fn carried(&self, body: &Body, facts: &Facts, types: &[Option<Ty>]) -> usize {
        // The pass that gives a register its value, and the last that reads it.
        let n = body.insts.len();
        let (mut born, mut dies) = (vec![usize::MAX; n], vec![0; n]);
        for (s, stage) in self.list.iter().enumerate() {
            let last = s + 1 == self.list.len();
            let stores = self.stores.iter().filter(|_| last);
            for i in stage.fresh.iter().chain(stores) {
                born[*i] = s;
                let operands = body.insts[*i].operands();
                operands.for_each(|r| dies[r.0 as usize] = s);
            }
            stage.folds.iter().for_each(|f| dies[f.2.0 as usize] = s);
        }
        let across = |boundary: usize| {
            let kept = (0..n)
                .filter(|i| !facts.uniform[*i] && born[*i] <= boundary && dies[*i] > boundary);
            kept.map(|i| match types[i] {
                Some(Ty::I64) => 2,
                Some(Ty::F32 | Ty::Bool) => 1,
                None => 0,
            })
            .sum::<usize>()
        };
        (0..self.list.len()).map(across).max().unwrap_or(0)
    }
}
