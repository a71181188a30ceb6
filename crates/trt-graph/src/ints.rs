//! The runtime integers of calls, and the two of them that have a meaning of their own.
//!
//! A decoder's calls have [`PAST`] positions cached and [`SEQ`] new ones. Nobody else knows these names:
//! who needs the integers asks [`Positions`], or an integer for its [`Meaning`].

use serde::{Deserialize, Serialize};
use trt_kernel::{Dim, Interval, Var};

/// The name of the integer that is the number of cached positions.
pub const PAST: &str = "past";
/// The name of the integer that is the number of new positions.
pub const SEQ: &str = "seq";

/// A runtime integer of the profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntVar {
    /// Its name, e.g. `past`.
    pub name: String,
    /// The values it may take.
    pub range: Interval,
}

/// What a runtime integer is to a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The number of cached positions, which go on where the last call ended.
    Past,
    /// The number of new positions.
    Seq,
    /// What the model's own code takes it for.
    Own,
}

impl IntVar {
    /// What it is to a decoder.
    pub fn meaning(&self) -> Meaning {
        match self.name.as_str() {
            PAST => Meaning::Past,
            SEQ => Meaning::Seq,
            _ => Meaning::Own,
        }
    }
}

/// Where the numbers of cached and of new positions are among the runtime integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Positions {
    /// The index of the number of cached positions.
    pub past: usize,
    /// The index of the number of new positions.
    pub seq: usize,
}

impl Positions {
    /// None unless there are both: then calls do not go on where the last one ended.
    pub fn of(ints: &[IntVar]) -> Option<Positions> {
        let find = |meaning| ints.iter().position(|i| i.meaning() == meaning);
        let (past, seq) = (find(Meaning::Past)?, find(Meaning::Seq)?);
        Some(Positions { past, seq })
    }

    /// The numbers of cached and of new positions in a call with these integers.
    pub fn in_call(self, values: &[i64]) -> Option<(i64, i64)> {
        let (past, seq) = (values.get(self.past)?, values.get(self.seq)?);
        Some((*past, *seq))
    }
}

/// The largest value of a dim in any call with these integers.
pub(crate) fn bound(ints: &[IntVar], max_context: Option<i64>, dim: &Dim) -> i64 {
    let ranges: Vec<Interval> = ints.iter().map(|i| i.range).collect();
    let free = dim.bounds(&ranges).max;
    let (Some(limit), Some(Positions { past, seq })) = (max_context, Positions::of(ints)) else {
        return free;
    };
    // Where both occur with one coefficient, their sum is what is bounded.
    let linear = |v: usize| {
        let only = Dim::var(Var(v as u8));
        let unit = only.terms()[0].0;
        dim.terms().iter().find(|t| t.0 == unit).map_or(0, |t| t.1)
    };
    let k = linear(past);
    if k <= 0 || linear(seq) != k {
        return free;
    }
    let pair = &Dim::var(Var(past as u8)) + &Dim::var(Var(seq as u8));
    let rest = dim - &(&pair * &Dim::from(k));
    let joint = rest
        .bounds(&ranges)
        .max
        .saturating_add(k.saturating_mul(limit));
    free.min(joint)
}
