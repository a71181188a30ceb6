//! What a left operand is made of.

use super::{Left, Operand};
use crate::{Arg, Body, View};

impl From<Operand> for Left {
    fn from(operand: Operand) -> Left {
        Left::Stored(operand)
    }
}

impl Left {
    /// The arguments that it is made of, in order of first use.
    pub fn args(&self) -> Vec<Arg> {
        let body = match self {
            Left::Stored(a) => return vec![a.arg],
            Left::Computed { body, .. } => body,
        };
        body.loads()
    }

    /// Whether another one is the same, given the same arguments in order of first use.
    pub fn same(&self, other: &Left) -> bool {
        self.numbered() == other.numbered()
    }

    /// With its arguments numbered in order of first use.
    fn numbered(&self) -> Left {
        let args = self.args();
        let number = |arg: &Arg| args.iter().position(|a| a == arg).unwrap_or(0);
        match self {
            Left::Stored(a) => Left::Stored(Operand {
                arg: Arg(0),
                view: a.view.clone(),
            }),
            Left::Computed { dtype, body } => {
                let insts = body.insts.iter();
                let insts = insts.map(|i| i.moved(|a| Arg(number(&a) as u16), View::clone));
                Left::Computed {
                    dtype: *dtype,
                    body: Body {
                        insts: insts.collect(),
                    },
                }
            }
        }
    }

    /// Where it is, if it is in memory.
    pub fn stored(&self) -> Option<&Operand> {
        match self {
            Left::Stored(operand) => Some(operand),
            Left::Computed { .. } => None,
        }
    }
}
