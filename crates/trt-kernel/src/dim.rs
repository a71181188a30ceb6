//! Sizes that depend on the runtime integers of a call.
//!
//! A [`Dim`] is a polynomial with integer coefficients in a few runtime integers, of which some may
//! be computed from others before a kernel sees them (floors of quotients). It is
//! kept in normal form (monomials sorted, no zero coefficients), so equality of values is
//! equality of `Dim`s, which is what lets passes compare symbolic shapes with `==`. Coefficients and
//! values saturate at 64 bits: sizes near there are no real ones, and checks of programs refuse them.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::{Add, Mul, Sub};

/// A runtime integer, by its index in the call's [`Env`]. At most [`Var::MAX`] exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Var(pub u8);

impl Var {
    /// The number of runtime integers a program can have, those included that are computed of others:
    /// a batch, two sides and five halvings of each.
    pub const MAX: usize = 16;
}

/// Exponents of the runtime integers in one product, e.g. `v0 * v1` is `[1, 1, 0, …]`.
type Monomial = [u8; Var::MAX];
const ONE: Monomial = [0; Var::MAX];

/// An integer polynomial in the runtime integers, in normal form.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<(Monomial, i64)>", into = "Vec<(Monomial, i64)>")]
pub struct Dim {
    terms: Vec<(Monomial, i64)>,
}

/// Inclusive bounds of a runtime integer or of a [`Dim`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Interval {
    /// Smallest value.
    pub min: i64,
    /// Largest value.
    pub max: i64,
}

/// The values of the runtime integers in one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Env {
    values: [i64; Var::MAX],
}

impl Env {
    /// Values for `Var(0)`, `Var(1)`, …; the rest are 0. Only the first [`Var::MAX`] are kept.
    pub fn new(values: &[i64]) -> Self {
        let mut env = Env::default();
        for (slot, value) in env.values.iter_mut().zip(values) {
            *slot = *value;
        }
        env
    }

    /// The value of one runtime integer.
    pub fn get(&self, var: Var) -> i64 {
        self.values[var.0 as usize % Var::MAX]
    }
}

impl Dim {
    /// The runtime integer itself.
    pub fn var(var: Var) -> Self {
        let mut m = ONE;
        m[var.0 as usize % Var::MAX] = 1;
        Dim {
            terms: vec![(m, 1)],
        }
    }

    /// The value if it depends on no runtime integer.
    pub fn constant(&self) -> Option<i64> {
        match self.terms.as_slice() {
            [] => Some(0),
            [(ONE, c)] => Some(*c),
            _ => None,
        }
    }

    /// The value as a size, if constant and not negative.
    pub fn constant_size(&self) -> Option<usize> {
        self.constant().and_then(|c| usize::try_from(c).ok())
    }

    /// Whether this is exactly `value`.
    pub fn is(&self, value: i64) -> bool {
        self.constant() == Some(value)
    }

    /// Whether it is a multiple of `n` in every call, as far as its terms tell.
    pub fn is_multiple_of(&self, n: usize) -> bool {
        self.terms.iter().all(|(_, c)| c % n as i64 == 0)
    }

    /// The value in a call.
    pub fn eval(&self, env: &Env) -> i64 {
        let mut sum = 0;
        for (m, c) in &self.terms {
            let mut product = *c;
            for (value, &power) in env.values.iter().zip(m) {
                for _ in 0..power {
                    product = i64::saturating_mul(product, *value);
                }
            }
            sum = i64::saturating_add(sum, product);
        }
        sum
    }

    /// The value in a call, however large the runtime integers are; none if it, or a step to it,
    /// does not fit 64 bits.
    pub fn checked_eval(&self, env: &Env) -> Option<i64> {
        self.terms.iter().try_fold(0i64, |sum, (m, c)| {
            let mut powers = env.values.iter().zip(m);
            let term = powers.try_fold(*c, |product, (value, &power)| {
                product.checked_mul(value.checked_pow(u32::from(power))?)
            });
            sum.checked_add(term?)
        })
    }

    /// The value in a call as a size; negative values become 0.
    pub fn size(&self, env: &Env) -> usize {
        usize::try_from(self.eval(env)).unwrap_or(0)
    }

    /// Bounds of the value when each runtime integer stays within its range (`ranges[v]`).
    /// Exact when every monomial moves in the same direction, else an outer bound.
    pub fn bounds(&self, ranges: &[Interval]) -> Interval {
        let mut total = Interval { min: 0, max: 0 };
        for (m, c) in &self.terms {
            let (mut lo, mut hi) = (1i64, 1i64);
            for (v, &power) in m.iter().enumerate() {
                let r = ranges
                    .get(v)
                    .copied()
                    .unwrap_or(Interval { min: 0, max: 0 });
                for _ in 0..power {
                    let corners = [(lo, r.min), (lo, r.max), (hi, r.min), (hi, r.max)];
                    let corners = corners.map(|(a, b)| a.saturating_mul(b));
                    lo = corners.into_iter().min().unwrap_or(0);
                    hi = corners.into_iter().max().unwrap_or(0);
                }
            }
            let (a, b) = (lo.saturating_mul(*c), hi.saturating_mul(*c));
            total.min = total.min.saturating_add(a.min(b));
            total.max = total.max.saturating_add(a.max(b));
        }
        total
    }

    /// Which runtime integers occur.
    pub fn vars(&self) -> impl Iterator<Item = Var> + '_ {
        (0..Var::MAX as u8)
            .map(Var)
            .filter(|v| self.terms.iter().any(|(m, _)| m[v.0 as usize] > 0))
    }

    /// Exact quotient by a non-zero polynomial, if there is one.
    pub fn divide(&self, by: &Dim) -> Option<Dim> {
        if self == by {
            return Some(Dim::from(1));
        }
        let (lead, factor) = by.terms.last()?;
        // Long division: the highest monomial of the rest falls in every step.
        let (mut rest, mut quotient) = (self.clone(), Vec::new());
        while let Some((m, c)) = rest.terms.last() {
            let mut q = ONE;
            for v in 0..Var::MAX {
                q[v] = m[v].checked_sub(lead[v])?;
            }
            if c.checked_rem(*factor)? != 0 {
                return None;
            }
            let (top, term) = (*m, (q, c / factor));
            quotient.push(term);
            rest = &rest - &(by * &Dim { terms: vec![term] });
            // Where a coefficient saturated, it does not fall.
            if rest.terms.last().is_some_and(|t| t.0 >= top) {
                return None;
            }
        }
        Some(Dim::normal(quotient))
    }

    /// As it is displayed, with names for the runtime integers: `past + seq`, `2*n + 1`. Those without
    /// one are `v0`, `v1`, …
    pub fn named(&self, names: &[&str]) -> String {
        if self.terms.is_empty() {
            return "0".into();
        }
        let mut text = String::new();
        for (i, (m, c)) in self.terms.iter().rev().enumerate() {
            text.push_str(match (i, *c < 0) {
                (0, true) => "-",
                (0, false) => "",
                (_, true) => " - ",
                (_, false) => " + ",
            });
            let mut factors: Vec<String> = Vec::new();
            if c.unsigned_abs() != 1 || *m == ONE {
                factors.push(c.unsigned_abs().to_string());
            }
            for (v, &power) in m.iter().enumerate() {
                let name = names
                    .get(v)
                    .map_or_else(|| format!("v{v}"), |n| (*n).into());
                factors.extend((0..power).map(|_| name.clone()));
            }
            text.push_str(&factors.join("*"));
        }
        text
    }

    /// The terms as `(exponents of each runtime integer, coefficient)`.
    pub fn terms(&self) -> &[([u8; Var::MAX], i64)] {
        &self.terms
    }

    /// A polynomial from terms in any order.
    pub fn from_terms(terms: Vec<([u8; Var::MAX], i64)>) -> Dim {
        Dim::normal(terms)
    }

    /// The product of many, e.g. the element count of a shape.
    pub fn product<'a>(dims: impl IntoIterator<Item = &'a Dim>) -> Dim {
        dims.into_iter().fold(Dim::from(1), |acc, d| &acc * d)
    }

    fn normal(mut terms: Vec<(Monomial, i64)>) -> Dim {
        terms.sort_by_key(|t| t.0);
        let mut out: Vec<(Monomial, i64)> = Vec::with_capacity(terms.len());
        for (m, c) in terms {
            match out.last_mut() {
                Some(last) if last.0 == m => last.1 = last.1.saturating_add(c),
                _ => out.push((m, c)),
            }
        }
        out.retain(|t| t.1 != 0);
        Dim { terms: out }
    }
}

impl From<i64> for Dim {
    fn from(c: i64) -> Self {
        Dim::normal(vec![(ONE, c)])
    }
}

impl From<i32> for Dim {
    fn from(c: i32) -> Self {
        Dim::from(i64::from(c))
    }
}

impl From<usize> for Dim {
    /// Sizes above `i64::MAX` do not occur on any machine; they saturate.
    fn from(c: usize) -> Self {
        Dim::from(i64::try_from(c).unwrap_or(i64::MAX))
    }
}

impl Add for &Dim {
    type Output = Dim;
    fn add(self, rhs: &Dim) -> Dim {
        Dim::normal(self.terms.iter().chain(&rhs.terms).copied().collect())
    }
}

impl Sub for &Dim {
    type Output = Dim;
    fn sub(self, rhs: &Dim) -> Dim {
        self + &(rhs * &Dim::from(-1))
    }
}

impl Mul for &Dim {
    type Output = Dim;
    fn mul(self, rhs: &Dim) -> Dim {
        let mut terms = Vec::with_capacity(self.terms.len() * rhs.terms.len());
        for (am, ac) in &self.terms {
            for (bm, bc) in &rhs.terms {
                let mut m = *am;
                for (x, y) in m.iter_mut().zip(bm) {
                    *x = x.saturating_add(*y);
                }
                terms.push((m, ac.saturating_mul(*bc)));
            }
        }
        Dim::normal(terms)
    }
}

impl fmt::Display for Dim {
    /// `64`, `v0`, `v0 + v1`, `2*v0*v1 - 3`: highest powers first, constant last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.named(&[]))
    }
}

impl std::str::FromStr for Dim {
    type Err = String;
    /// Parses what `Display` prints.
    fn from_str(text: &str) -> Result<Dim, String> {
        let spaced = text.replace(" - ", " + -").replace(' ', "");
        let mut total = Dim::default();
        for term in spaced.split('+') {
            let (sign, term) = match term.strip_prefix('-') {
                Some(rest) => (-1, rest),
                None => (1, term),
            };
            let mut product = Dim::from(sign);
            for factor in term.split('*') {
                let d = match factor.strip_prefix('v') {
                    Some(v) => match v.parse::<u8>() {
                        Ok(v) if (v as usize) < Var::MAX => Dim::var(Var(v)),
                        _ => return Err(format!("bad runtime integer '{factor}' in '{text}'")),
                    },
                    None => Dim::from(
                        factor
                            .parse::<i64>()
                            .map_err(|_| format!("bad factor '{factor}' in '{text}'"))?,
                    ),
                };
                product = &product * &d;
            }
            total = &total + &product;
        }
        Ok(total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past() -> Dim {
        Dim::var(Var(0))
    }
    fn seq() -> Dim {
        Dim::var(Var(1))
    }

    #[test]
    fn equal_values_are_equal_dims() {
        let a = &(&past() + &seq()) - &past();
        assert_eq!(a, seq());
        assert_eq!(&past() * &Dim::from(0), Dim::from(0));
    }

    #[test]
    fn display_round_trips() {
        for d in [
            Dim::from(0),
            Dim::from(-7),
            &(&past() * &seq()) - &Dim::from(3),
            &(&past() * &Dim::from(-2)) + &seq(),
        ] {
            assert_eq!(d.to_string().parse::<Dim>().unwrap(), d, "{d}");
        }
    }

    #[test]
    fn division_is_exact_or_refused() {
        let d = &(&seq() * &Dim::from(6)) + &(&past() * &Dim::from(4));
        assert_eq!(d.divide(&Dim::from(2)).unwrap().to_string(), "2*v0 + 3*v1");
        assert_eq!(d.divide(&Dim::from(4)), None);
        assert_eq!((&past() * &seq()).divide(&seq()), Some(past()));
        let sum = &past() + &seq();
        assert_eq!(
            (&sum * &Dim::from(6)).divide(&(&sum * &Dim::from(2))),
            Some(Dim::from(3))
        );
        assert_eq!((&sum * &past()).divide(&sum), Some(past()));
        assert_eq!((&sum * &past()).divide(&(&sum + &Dim::from(1))), None);
    }

    #[test]
    fn bounds_cover_the_profile() {
        let ranges = [Interval { min: 0, max: 9 }, Interval { min: 1, max: 5 }];
        assert_eq!(
            (&past() + &seq()).bounds(&ranges),
            Interval { min: 1, max: 14 }
        );
        assert_eq!(
            (&seq() - &past()).bounds(&ranges),
            Interval { min: -8, max: 5 }
        );
    }
}
