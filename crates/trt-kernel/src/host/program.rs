//! A body made ready for block execution: registers have slots, instructions have stages.
//!
//! A body is cut at its reductions. Stage `s` runs over the columns of a row and folds the
//! reductions whose operand depends on `s - 1` others; the last stage runs the stores and the
//! yield. A stage runs the backward slice of what it needs (`again`), so nothing of a long row
//! is kept but its folds; when a row fits into one block, registers survive from stage to stage
//! and only what no earlier stage ran is run (`fresh`). Values that are the same in all columns
//! by construction (constants, folds and functions of them) are `uniform`: computed once for a
//! row, or once for all rows if no fold is involved.

use crate::{Body, BodyError, DType, Inst, Reg, Ty};

/// Where a register lives: an index among the registers of its type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Slot {
    F32(usize),
    I64(usize),
    Bool(usize),
    None,
}

/// One pass over the columns.
#[derive(Clone, Debug, Default)]
pub(super) struct BodyStage {
    /// Uniform instructions that became computable; they run before the blocks.
    pub uniform: Vec<usize>,
    /// What runs on each block when earlier stages' registers are gone.
    pub again: Vec<usize>,
    /// What runs on each block when they are still there.
    pub fresh: Vec<usize>,
    /// The reductions that this stage folds.
    pub folds: Vec<usize>,
}

/// A prepared body.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub insts: Vec<Inst>,
    pub slots: Vec<Slot>,
    /// Registers of each type: f32, i64, bool.
    pub counts: [usize; 3],
    pub stages: Vec<BodyStage>,
    /// The slot of [`Inst::Input`], if the body uses it.
    pub input: Option<usize>,
    /// The slot of the yielded value, if there is one.
    pub yielded: Option<usize>,
    /// Axes that an [`Inst::Iota`] reads.
    pub iotas: Vec<u8>,
}

impl Program {
    pub fn new(body: &Body, args: &[DType]) -> Result<Program, BodyError> {
        let types = body.types(args)?;
        let mut counts = [0; 3];
        let mut next = |class: usize| {
            counts[class] += 1;
            counts[class] - 1
        };
        let slots: Vec<Slot> = types
            .iter()
            .map(|ty| match ty {
                Some(Ty::F32) => Slot::F32(next(0)),
                Some(Ty::I64) => Slot::I64(next(1)),
                Some(Ty::Bool) => Slot::Bool(next(2)),
                None => Slot::None,
            })
            .collect();
        let float = |r: Reg| match slots[r.0 as usize] {
            Slot::F32(i) => Some(i),
            _ => None,
        };
        let inputs = body.insts.iter().position(|i| *i == Inst::Input);
        Ok(Program {
            input: inputs.and_then(|i| float(Reg(i as u16))),
            yielded: body.yielded().and_then(float),
            iotas: (body.insts.iter())
                .filter_map(|i| match i {
                    Inst::Iota(a) => Some(*a),
                    _ => None,
                })
                .collect(),
            stages: stages(&body.insts),
            insts: body.insts.clone(),
            slots,
            counts,
        })
    }

    /// Whether rows are more than independent points.
    pub fn reduces(&self) -> bool {
        self.stages.len() > 1
    }
}

fn stages(insts: &[Inst]) -> Vec<BodyStage> {
    let mut level = vec![0usize; insts.len()];
    let mut uniform = vec![false; insts.len()];
    for (i, inst) in insts.iter().enumerate() {
        let below = inst.operands().map(|r| level[r.0 as usize]).max();
        let all = inst.operands().all(|r| uniform[r.0 as usize]);
        level[i] = below.unwrap_or(0) + usize::from(matches!(inst, Inst::Reduce(..)));
        uniform[i] = match inst {
            Inst::F32(_) | Inst::I64(_) | Inst::Reduce(..) => true,
            Inst::Load(..)
            | Inst::Pick(..)
            | Inst::Input
            | Inst::Iota(_)
            | Inst::Store(..)
            | Inst::Yield(_) => false,
            Inst::Unary(..)
            | Inst::Binary(..)
            | Inst::Compare(..)
            | Inst::Select(..)
            | Inst::Within(..)
            | Inst::Cast(..) => all,
        };
    }
    let last = level.iter().copied().max().unwrap_or(0);
    let mut done = vec![false; insts.len()];
    (0..=last)
        .map(|s| {
            let mut stage = BodyStage::default();
            let mut wanted = vec![false; insts.len()];
            for (i, inst) in insts.iter().enumerate() {
                match inst {
                    Inst::Reduce(_, r) if level[i] == s + 1 => {
                        stage.folds.push(i);
                        wanted[r.0 as usize] = true;
                    }
                    Inst::Store(..) | Inst::Yield(_) if s == last => wanted[i] = true,
                    _ => {}
                }
            }
            for i in (0..insts.len()).rev() {
                if wanted[i] && !matches!(insts[i], Inst::Reduce(..)) {
                    insts[i]
                        .operands()
                        .for_each(|r| wanted[r.0 as usize] = true);
                }
            }
            for i in 0..insts.len() {
                let fold = matches!(insts[i], Inst::Reduce(..));
                if uniform[i] && !fold && level[i] == s {
                    stage.uniform.push(i);
                } else if wanted[i] && !uniform[i] {
                    stage.again.push(i);
                    if !done[i] {
                        stage.fresh.push(i);
                        done[i] = true;
                    }
                }
            }
            stage
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Arg, Binary, BodyBuilder, Dim, Reduce, Unary, View};

    #[test]
    fn a_softmax_has_three_stages_and_recomputes_only_what_it_needs() {
        let view = View::contiguous(&[Dim::from(2), Dim::from(8)]);
        let mut b = BodyBuilder::new();
        let x = b.load(Arg(0), view.clone());
        let max = b.push(Inst::Reduce(Reduce::Max, x));
        let d = b.binary(Binary::Sub, x, max);
        let e = b.unary(Unary::Exp, d);
        let sum = b.push(Inst::Reduce(Reduce::Sum, e));
        let y = b.binary(Binary::Div, e, sum);
        b.store(Arg(1), view, y);
        let p = Program::new(&b.finish(), &[DType::F32; 2]).unwrap();
        assert_eq!(p.stages.len(), 3);
        assert_eq!(p.stages[0].again, [0]);
        assert_eq!(p.stages[1].again, [0, 2, 3]);
        assert_eq!(p.stages[1].fresh, [2, 3]);
        assert_eq!(p.stages[2].again, [0, 2, 3, 5, 6]);
        assert_eq!(p.stages[2].fresh, [5, 6]);
    }

    #[test]
    fn functions_of_folds_run_once_a_row() {
        let view = View::contiguous(&[Dim::from(8)]);
        let mut b = BodyBuilder::new();
        let x = b.load(Arg(0), view.clone());
        let sum = b.push(Inst::Reduce(Reduce::Sum, x));
        let n = b.push(Inst::F32(8.0));
        let mean = b.binary(Binary::Div, sum, n);
        let y = b.binary(Binary::Sub, x, mean);
        b.store(Arg(1), view, y);
        let p = Program::new(&b.finish(), &[DType::F32; 2]).unwrap();
        assert_eq!(p.stages[0].uniform, [2]);
        assert_eq!(p.stages[1].uniform, [3]);
        assert_eq!(p.stages[1].fresh, [4, 5]);
    }
}
