//! Which function of the runtime integers a number of the samples is.
//!
//! Numbers that are equal at all samples are one function, so sizes that must agree do. What is no
//! polynomial is a sum of floors, `floor((v + b)/c)`, found where one integer goes through consecutive
//! values: its differences repeat there with period `c`, seen twice at least, so every remainder is,
//! and a ceiling or another `c` is not taken for it. Products come last: of what is known and a rest.
//! Whatever is found takes the values of all samples, or it is not found.

use super::fit;
use super::profile::Class;
use crate::ints::{Floor, Integers};
use std::collections::HashMap;
use trt_kernel::{Dim, Env, Var};

/// The largest denominator that is looked for.
pub(super) const LARGEST: usize = 64;
/// The most floors of one integer in a size.
const SUMMANDS: usize = 3;
/// The most factors that are divided off a size.
const FACTORS: usize = 3;

/// What the numbers of a class's samples are.
pub(super) struct Sizes<'a> {
    class: &'a Class,
    points: Vec<Vec<i64>>,
    /// All runtime integers at each point.
    envs: Vec<Env>,
    /// Whether the class has no other calls than the points.
    all: bool,
    floors: Vec<Floor>,
    known: HashMap<Vec<i64>, Dim>,
    /// Those of the known that products are divided by.
    factors: Vec<(Vec<i64>, Dim)>,
}

/// A function of one integer at consecutive values.
struct Line {
    int: usize,
    first: i64,
    values: Vec<i64>,
    /// Whether the integer has no other values.
    whole: bool,
}

/// `slope * v + Σ factor * floor`, up to a constant.
struct Stairs {
    slope: i64,
    floors: Vec<(i64, Floor)>,
}

impl<'a> Sizes<'a> {
    pub fn new(class: &'a Class, points: Vec<Vec<i64>>) -> Sizes<'a> {
        let ints = (0..class.ints.len()).map(|v| {
            let values: Vec<i64> = points.iter().map(|p| p[v]).collect();
            (values, Dim::var(Var(v as u8)))
        });
        let factors = ints.collect();
        let distinct: std::collections::HashSet<&Vec<i64>> = points.iter().collect();
        Sizes {
            class,
            envs: points.iter().map(|p| Env::new(p)).collect(),
            all: class.calls() == Some(distinct.len() as u64),
            floors: Vec::new(),
            known: HashMap::new(),
            factors,
            points,
        }
    }

    pub fn points(&self) -> &[Vec<i64>] {
        &self.points
    }

    /// The integers that the functions found so far compute.
    pub fn floors(&self) -> &[Floor] {
        &self.floors
    }

    /// All runtime integers in a call.
    pub fn env(&self, point: &[i64]) -> Env {
        Integers {
            ints: &self.class.ints,
            floors: &self.floors,
            max_context: None,
        }
        .env(point)
    }

    /// The function that takes these values at the points, if there is one that is looked for. Of
    /// several that do, a polynomial comes first, then the first of the candidates.
    pub fn find(&mut self, values: &[i64], candidates: impl FnOnce() -> Vec<Dim>) -> Option<Dim> {
        if let Some(known) = self.known.get(values) {
            return Some(known.clone());
        }
        let found = match fit::polynomial(&self.points, values, self.all) {
            Some(found) => found,
            None => {
                let fits = candidates().into_iter().find(|d| self.takes(d, values));
                fits.or_else(|| self.stairs(values))
                    .or_else(|| self.product(values, FACTORS))?
            }
        };
        self.known.insert(values.to_vec(), found.clone());
        let halved = |v: Var| v.0 as usize >= self.class.ints.len();
        let linear = |d: &Dim| d.terms().iter().all(|(p, _)| p.iter().sum::<u8>() <= 1);
        if found.vars().any(halved) && linear(&found) {
            self.factors.push((values.to_vec(), found.clone()));
        }
        Some(found)
    }

    fn takes(&self, dim: &Dim, values: &[i64]) -> bool {
        let mut all = self.envs.iter().zip(values);
        all.all(|(env, value)| dim.checked_eval(env) == Some(*value))
    }

    /// A sum of multiples of integers and of floors of them.
    fn stairs(&mut self, values: &[i64]) -> Option<Dim> {
        let before = self.floors.len();
        let mut sum = Dim::from(0);
        for line in self.lines(values) {
            let Stairs { slope, floors } = line.stairs()?;
            sum = &sum + &(&Dim::var(Var(line.int as u8)) * &Dim::from(slope));
            for (factor, floor) in floors {
                sum = &sum + &(&self.floor(floor)? * &Dim::from(factor));
            }
        }
        let constant = values
            .first()?
            .checked_sub(sum.checked_eval(self.envs.first()?)?)?;
        sum = &sum + &Dim::from(constant);
        let found = self.takes(&sum, values);
        if !found {
            self.floors.truncate(before);
        }
        found.then_some(sum)
    }

    /// The integer that is this floor; none if there are too many already.
    fn floor(&mut self, floor: Floor) -> Option<Dim> {
        let at = match self.floors.iter().position(|f| *f == floor) {
            Some(at) => at,
            None if self.class.ints.len() + self.floors.len() >= Var::MAX => return None,
            None => {
                self.floors.push(floor);
                let each = self.points.iter().map(|p| self.env(p));
                self.envs = each.collect();
                self.floors.len() - 1
            }
        };
        Some(Dim::var(Var((self.class.ints.len() + at) as u8)))
    }

    /// The values along each integer, where all others are at their least.
    fn lines(&self, values: &[i64]) -> Vec<Line> {
        let ints = 0..self.class.ints.len();
        let least = |v: usize| self.points.iter().map(|p| p[v]).min().unwrap_or(0);
        let base: Vec<i64> = ints.clone().map(least).collect();
        let line = |int: usize| {
            let on = |p: &Vec<i64>| (0..base.len()).all(|v| v == int || p[v] == base[v]);
            let each = self.points.iter().zip(values);
            let mut on: Vec<(i64, i64)> = each
                .filter(|(p, _)| on(p))
                .map(|(p, value)| (p[int], *value))
                .collect();
            on.sort_unstable();
            on.dedup();
            let follows = |(i, (x, _)): &(usize, (i64, i64))| *x == base[int] + *i as i64;
            let near = on.into_iter().enumerate().take_while(follows);
            let values: Vec<i64> = near.map(|(_, (_, value))| value).collect();
            let range = self.class.ints[int].range;
            Line {
                int,
                first: base[int],
                whole: range.min == base[int] && range.max - range.min + 1 == values.len() as i64,
                values,
            }
        };
        ints.map(line).collect()
    }

    /// A product of known sizes and a rest.
    fn product(&mut self, values: &[i64], factors: usize) -> Option<Dim> {
        for i in 0..self.factors.len() {
            let (by, dim) = &self.factors[i];
            let quotient = |(a, b): (&i64, &i64)| (*b != 0 && a % b == 0).then(|| a / b);
            let rest: Option<Vec<i64>> = values.iter().zip(by).map(quotient).collect();
            let (Some(rest), dim) = (rest, dim.clone()) else {
                continue;
            };
            let known = self.known.get(&rest).cloned();
            let known = known.or_else(|| fit::polynomial(&self.points, &rest, self.all));
            let known = known.or_else(|| self.stairs(&rest));
            let rest = match known {
                None if factors > 1 => self.product(&rest, factors - 1),
                other => other,
            };
            if let Some(rest) = rest {
                return Some(&dim * &rest);
            }
        }
        None
    }
}

impl Line {
    fn stairs(&self) -> Option<Stairs> {
        let steps: Vec<i64> = self.values.windows(2).map(|w| w[1] - w[0]).collect();
        let n = steps.len();
        let repeats = |c: &usize| (*c..n).all(|i| steps[i] == steps[i - c]);
        let Some(period) = (1..=n).find(repeats) else {
            let (slope, floors) = (0, Vec::new());
            return Some(Stairs { slope, floors });
        };
        if !self.whole && (2 * period > n || period > LARGEST) {
            return None;
        }
        let count = |s: i64| steps[..period].iter().filter(|x| **x == s).count();
        let common = |s: &&i64| (count(**s), std::cmp::Reverse(s.abs()));
        let slope = *steps[..period].iter().max_by_key(common)?;
        let by = period as i64;
        let mut floors = Vec::new();
        for (i, step) in steps[..period].iter().enumerate() {
            if *step != slope {
                // It rises from `first + i` to the next.
                let rest = (-(self.first + i as i64 + 1)).rem_euclid(by);
                let of = &Dim::var(Var(self.int as u8)) + &Dim::from(rest);
                floors.push((step - slope, Floor { of, by }));
            }
        }
        (floors.len() <= SUMMANDS).then_some(Stairs { slope, floors })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ints::IntVar;
    use trt_kernel::Interval;

    const CLASS: [(&str, i64, i64); 2] = [("n", 2, 500), ("m", 3, 300)];

    fn class() -> Class {
        let int = |(name, min, max): (&str, i64, i64)| IntVar {
            name: name.into(),
            range: Interval { min, max },
        };
        Class {
            name: "call".into(),
            ints: CLASS.map(int).to_vec(),
            max_context: None,
        }
    }

    fn points(length: i64) -> Vec<Vec<i64>> {
        let (n, m) = (CLASS[0], CLASS[1]);
        let run = (0..=length).flat_map(|i| [vec![n.1 + i, m.1], vec![n.1, m.1 + i]]);
        let others = [[n.1 + 2, m.1 + 2], [n.1 + 3, m.1 + 1], [n.1 + 1, m.1 + 3]];
        let ends = [[n.2, m.1], [n.1, m.2], [n.2, m.2], [n.1 + 4, m.1 + 5]];
        let others = others.into_iter().chain(ends).map(|p| p.to_vec());
        let mut points: Vec<Vec<i64>> = run.chain(others).collect();
        points.sort();
        points.dedup();
        points
    }

    /// What a function is found to be from runs of some length, with its integers named.
    fn found(length: i64, f: impl Fn(i64, i64) -> i64) -> Option<String> {
        let class = class();
        let mut sizes = Sizes::new(&class, points(length));
        // Factors of products are sizes themselves.
        for known in [|n: i64, _: i64| (n + 1) / 2, |_: i64, m: i64| m / 3 + 1] {
            let values: Vec<i64> = sizes.points.iter().map(|p| known(p[0], p[1])).collect();
            sizes.find(&values, Vec::new);
        }
        let values: Vec<i64> = sizes.points.iter().map(|p| f(p[0], p[1])).collect();
        let dim = sizes.find(&values, Vec::new)?;
        let (ints, floors) = (&class.ints, sizes.floors());
        for p in (2..=40).flat_map(|n| (3..=40).map(move |m| [n, m])) {
            assert_eq!(dim.eval(&sizes.env(&p)), f(p[0], p[1]), "{p:?}");
        }
        let max_context = None;
        let names = Integers {
            ints,
            floors,
            max_context,
        }
        .names();
        Some(dim.named(&names.iter().map(String::as_str).collect::<Vec<_>>()))
    }

    #[test]
    fn floors_and_ceilings_are_told_apart() {
        let found = |f: fn(i64, i64) -> i64| found(16, f).unwrap();
        assert_eq!(found(|n, _| n / 2), "floor(n/2)");
        assert_eq!(found(|n, _| (n + 1) / 2), "floor((n + 1)/2)");
        assert_eq!(
            found(|n, _| 3 * ((n - 1) / 8) + n + 7),
            "n + 3*floor((n + 7)/8) + 4"
        );
        assert_eq!(
            found(|n, m| n / 4 + (m + 2) / 3),
            "floor(n/4) + floor((m + 2)/3)"
        );
        assert_eq!(found(|n, _| n - n / 2), "floor((n + 1)/2)");
        assert_eq!(found(|n, _| 3 * n / 4), "n - floor((n + 3)/4)");
    }

    #[test]
    fn floors_of_floors_are_one() {
        let found = |f: fn(i64, i64) -> i64| found(16, f).unwrap();
        assert_eq!(found(|n, _| ((n + 1) / 2 + 1) / 2), "floor((n + 3)/4)");
        assert_eq!(
            found(|n, _| (((n - 1) / 2 + 1 - 1) / 2 + 1 + 1) / 2),
            "floor((n + 7)/8)"
        );
    }

    #[test]
    fn products_of_floors_are_divided_by_what_is_known() {
        let found = |f: fn(i64, i64) -> i64| found(16, f).unwrap();
        let product = "floor((n + 1)/2)*floor(m/3) + floor((n + 1)/2)";
        let swapped = "floor(m/3)*floor((n + 1)/2) + floor((n + 1)/2)";
        let text = found(|n, m| (n + 1) / 2 * (m / 3 + 1));
        assert!(text == product || text == swapped, "{text}");
        assert_eq!(found(|n, m| 4 * n * m * (n / 4)), "4*n*m*floor(n/4)");
    }

    #[test]
    fn a_denominator_is_found_once_its_period_is_seen_twice() {
        for c in [2, 3, 5, 7, 8, 12, 16, 31, 32, 50, 64] {
            let f = move |n: i64, _: i64| (n + 5) / c;
            assert!(found(2 * c + 1, f).is_some(), "{c}");
            assert_eq!(found(2 * c - 1, f), None, "{c}");
        }
    }

    #[test]
    fn what_is_no_sum_of_floors_is_refused() {
        let refused = |f: fn(i64, i64) -> i64| assert_eq!(found(129, f), None);
        refused(|n, _| n.min(64));
        refused(|n, _| n.max(64) / 2);
        refused(|n, _| (n / 2).min(100));
        refused(|n, _| n / 65);
        refused(|n, m| (n + m) / 2);
        refused(|n, m| n * m / 2);
        refused(|n, _| n & 5);
        refused(|n, m| if m > 299 { n / 2 } else { n.div_euclid(3) });
        refused(|n, _| n.isqrt());
        refused(|n, _| i64::from(n.count_ones()));
    }
}
