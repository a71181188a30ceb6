//! The runtime integers of calls, and the two of them that have a meaning of their own.
//!
//! Further ones are computed of them ([`Floor`]). A decoder's calls have [`PAST`] positions cached and [`SEQ`] new ones. Nobody else knows these names:
//! who needs the integers asks [`Positions`], or an integer for its [`Meaning`].

use serde::{Deserialize, Serialize};
use trt_kernel::{Dim, Env, Interval, Var};

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

/// A runtime integer that each call computes from earlier ones: `floor(of / by)`.
///
/// What a model halves (a convolution's places, the length after a pool) is such an integer, so every
/// size stays a polynomial in normal form and kernels divide nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floor {
    /// The numerator.
    pub of: Dim,
    /// The denominator, at least 2.
    pub by: i64,
}

impl Floor {
    /// The value in a call whose earlier integers are in `env`; none if it does not fit 64 bits.
    pub fn checked_eval(&self, env: &Env) -> Option<i64> {
        self.of.checked_eval(env)?.checked_div_euclid(self.by)
    }

    /// As it is displayed, with names for the integers: `floor((side + 1)/2)`.
    pub fn named(&self, names: &[&str]) -> String {
        let of = self.of.named(names);
        match self.of.terms().len() {
            1 => format!("floor({of}/{})", self.by),
            _ => format!("floor(({of})/{})", self.by),
        }
    }
}

/// The runtime integers of a program: those of its calls, then those that are computed of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Integers<'a> {
    pub ints: &'a [IntVar],
    pub floors: &'a [Floor],
    pub max_context: Option<i64>,
}

impl Integers<'_> {
    /// The values of all integers in a call with these.
    pub fn env(self, values: &[i64]) -> Env {
        let mut all: Vec<i64> = values.iter().copied().take(self.ints.len()).collect();
        all.resize(self.ints.len(), 0);
        for floor in self.floors {
            // Programs are checked to have values that fit.
            let value = floor.checked_eval(&Env::new(&all));
            all.push(value.unwrap_or(i64::MAX));
        }
        Env::new(&all)
    }

    /// The range of each.
    pub fn ranges(self) -> Vec<Interval> {
        let mut ranges: Vec<Interval> = self.ints.iter().map(|i| i.range).collect();
        for floor in self.floors {
            let Interval { min, max } = floor.of.bounds(&ranges);
            ranges.push(Interval {
                min: min.div_euclid(floor.by.max(1)),
                max: max.div_euclid(floor.by.max(1)),
            });
        }
        ranges
    }

    /// What each is called in messages.
    pub fn names(self) -> Vec<String> {
        let mut names: Vec<String> = self.ints.iter().map(|i| i.name.clone()).collect();
        for floor in self.floors {
            let known: Vec<&str> = names.iter().map(String::as_str).collect();
            names.push(floor.named(&known));
        }
        names
    }

    /// The largest value of a dim in any call.
    pub fn bound(self, dim: &Dim) -> i64 {
        let ranges = self.ranges();
        let free = dim.bounds(&ranges).max;
        let (Some(limit), Some(Positions { past, seq })) =
            (self.max_context, Positions::of(self.ints))
        else {
            return free;
        };
        // Where both occur with one coefficient, their sum is what is bounded.
        let linear = |v: usize| factor(dim, Var(v as u8));
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

    /// Whether a dim is negative in no call, as far as its terms tell. A floor is not taken for a number
    /// of its own there: `side - 2*floor(side/2)` is not negative.
    pub fn never_negative(self, dim: &Dim) -> bool {
        let ranges = self.ranges();
        if dim.bounds(&ranges).min >= 0 {
            return true;
        }
        // With s = floor(n/c): n - c + 1 <= c*s <= n. So c*dim is no less than with one of these in the
        // place of c*s.
        let (mut scaled, mut scale) = (dim.clone(), 1i64);
        for (i, Floor { of, by }) in self.floors.iter().enumerate().rev() {
            let var = Var((self.ints.len() + i) as u8);
            let k = factor(&scaled, var);
            if k == 0 {
                continue;
            }
            let rest = &scaled - &(&Dim::var(var) * &Dim::from(k));
            let least = match k > 0 {
                true => of - &Dim::from(by - 1),
                false => of.clone(),
            };
            scaled = &(&rest * &Dim::from(*by)) + &(&least * &Dim::from(k));
            scale = scale.saturating_mul(*by);
        }
        // The dim is an integer: more than -1 is not negative.
        scaled.bounds(&ranges).min > -scale
    }
}

/// The coefficient of an integer where it stands alone.
fn factor(dim: &Dim, var: Var) -> i64 {
    let only = Dim::var(var);
    let unit = only.terms()[0].0;
    dim.terms().iter().find(|t| t.0 == unit).map_or(0, |t| t.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `floor((side + 3)/4)` for a side of 1 to 10, after `floor(side/2)`.
    fn quarter() -> (Vec<IntVar>, Vec<Floor>) {
        let range = Interval { min: 1, max: 10 };
        let side = Dim::var(Var(0));
        let name = "side".to_string();
        let floors = [(side.clone(), 2), (&side + &Dim::from(3), 4)];
        let floors = floors.map(|(of, by)| Floor { of, by }).to_vec();
        (vec![IntVar { name, range }], floors)
    }

    fn with<T>(check: impl FnOnce(Integers<'_>) -> T) -> T {
        let (ints, floors) = quarter();
        check(Integers {
            ints: &ints,
            floors: &floors,
            max_context: None,
        })
    }

    #[test]
    fn floors_have_values_ranges_and_names() {
        with(|all| {
            let env = all.env(&[6]);
            assert_eq!([env.get(Var(1)), env.get(Var(2))], [3, 2]);
            let ranges: Vec<(i64, i64)> = all.ranges().iter().map(|r| (r.min, r.max)).collect();
            assert_eq!(ranges, [(1, 10), (0, 5), (1, 3)]);
            assert_eq!(
                all.names(),
                ["side", "floor(side/2)", "floor((side + 3)/4)"]
            );
        });
    }

    #[test]
    fn what_a_floor_leaves_is_known_not_to_be_negative() {
        let (side, half, quarter) = (Dim::var(Var(0)), Dim::var(Var(1)), Dim::var(Var(2)));
        let times = |d: &Dim, k: i64| d * &Dim::from(k);
        with(|all| {
            assert!(all.never_negative(&(&side - &times(&half, 2))));
            assert!(!all.never_negative(&(&side - &times(&half, 3))));
            assert!(!all.never_negative(&(&(&side - &times(&half, 2)) - &Dim::from(1))));
            assert!(all.never_negative(&(&(&side + &Dim::from(3)) - &times(&quarter, 4))));
            assert!(all.never_negative(&(&times(&quarter, 4) - &side)));
            assert!(!all.never_negative(&(&times(&quarter, 4) - &(&side + &Dim::from(1)))));
            // The last of the places that a second halving has.
            assert!(all.never_negative(&(&(&half + &Dim::from(2)) - &times(&quarter, 2))));
            assert!(!all.never_negative(&(&half - &times(&quarter, 2))));
        });
    }
}
