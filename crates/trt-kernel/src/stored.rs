//! Kernels that were stored and come back, from a file that may be damaged.
//!
//! What types cannot say is checked here: a [`Dim`] comes back only in normal form, and
//! [`Dim::magnitude`] tells whether its value fits 64 bits in every call of a profile, however
//! it is computed. Everything else about a kernel is [`Kernel::check`]'s.

use crate::{
    Body, Dim, Group, Inst, Interval, Kernel, Left, Matmul, Move, Operand, Order, Row, Var, View,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};

type Terms = Vec<([u8; Var::MAX], i64)>;

/// The highest power of a runtime integer that a stored size may have; far above any real one,
/// and low enough that products of a shape cannot overflow theirs.
const HIGHEST: u8 = 8;

/// The most terms of a stored size. The product of four affine sizes in four runtime integers has 70.
const TERMS: usize = 256;

impl From<Dim> for Terms {
    fn from(dim: Dim) -> Terms {
        dim.terms().to_vec()
    }
}

impl TryFrom<Terms> for Dim {
    type Error = &'static str;

    fn try_from(terms: Terms) -> Result<Dim, &'static str> {
        let sorted = terms.windows(2).all(|pair| pair[0].0 < pair[1].0);
        if terms.len() > TERMS {
            return Err("a size has too many terms");
        }
        let low = |powers: &[u8; Var::MAX]| powers.iter().all(|p| *p <= HIGHEST);
        match sorted && terms.iter().all(|(powers, c)| *c != 0 && low(powers)) {
            // In normal form already, so this adds nothing up.
            true => Ok(Dim::from_terms(terms)),
            false => Err("a size is not in normal form"),
        }
    }
}

/// What a group may hold. Groups hold no groups, so reading one ends however it was damaged.
#[derive(Serialize, Deserialize)]
enum Part {
    Row(Row),
    Matmul(Matmul),
    Move(Move),
}

impl Serialize for Group {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let part = |kernel: &Kernel| match kernel {
            Kernel::Row(k) => Ok(Part::Row(k.clone())),
            Kernel::Matmul(k) => Ok(Part::Matmul(k.clone())),
            Kernel::Move(k) => Ok(Part::Move(k.clone())),
            Kernel::Attention(_) | Kernel::Gather(_) | Kernel::Routed(_) | Kernel::Group(_) => {
                let what = format!("a part of a group is a {}", kernel.kind());
                Err(ser::Error::custom(what))
            }
        };
        let parts = self.parts.iter().map(part);
        let parts = parts.collect::<Result<Vec<Part>, _>>()?;
        (self.order, parts).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Group {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Group, D::Error> {
        let kernel = |part| match part {
            Part::Row(k) => Kernel::Row(k),
            Part::Matmul(k) => Kernel::Matmul(k),
            Part::Move(k) => Kernel::Move(k),
        };
        let (order, parts) = <(Order, Vec<Part>)>::deserialize(deserializer)?;
        Ok(Group {
            order,
            parts: parts.into_iter().map(kernel).collect(),
        })
    }
}

impl Dim {
    /// A bound of the absolute value of the size, and of everything that computing it goes
    /// through, while each runtime integer stays within its range (`ranges[v]`, or 0). None if
    /// the bound does not fit, or if the size depends on a runtime integer that has no range.
    pub fn magnitude(&self, ranges: &[Interval]) -> Option<i64> {
        let mut total: i64 = 0;
        for (powers, factor) in self.terms() {
            let mut term = factor.checked_abs()?;
            for (v, &power) in powers.iter().enumerate() {
                let most = match ranges.get(v) {
                    Some(r) => r.min.checked_abs()?.max(r.max.checked_abs()?).max(1),
                    None if power > 0 => return None,
                    None => 1,
                };
                term = term.checked_mul(most.checked_pow(u32::from(power))?)?;
            }
            total = total.checked_add(term)?;
        }
        Some(total)
    }
}

impl Kernel {
    /// Every size, stride, offset and constant that may depend on runtime integers.
    pub fn dims(&self) -> Vec<&Dim> {
        let mut dims = Vec::new();
        match self {
            Kernel::Row(k) => {
                dims.extend(&k.space);
                of_body(&k.body, &mut dims);
            }
            Kernel::Matmul(k) => of_product(k, &mut dims),
            Kernel::Routed(k) => {
                of_product(&k.product, &mut dims);
                of_operands(&[&k.ids], &mut dims);
            }
            Kernel::Attention(k) => {
                dims.extend([&k.batch, &k.queries, &k.keys]);
                dims.extend(k.causal.iter().map(|c| &c.offset));
                of_operands(&[&k.q, &k.k, &k.v, &k.out], &mut dims);
                of_body(&k.score, &mut dims);
                for row in &k.before {
                    dims.extend(&row.space);
                    of_body(&row.body, &mut dims);
                }
            }
            Kernel::Gather(k) => {
                dims.push(&k.rows);
                of_operands(&[&k.ids], &mut dims);
                of_body(&k.body, &mut dims);
            }
            Kernel::Move(k) => {
                dims.extend(&k.space);
                of_view(&k.src, &mut dims);
                of_view(&k.dst, &mut dims);
            }
            Kernel::Group(k) => dims.extend(k.parts.iter().flat_map(Kernel::dims)),
        }
        dims
    }
}

fn of_product<'a>(k: &'a Matmul, dims: &mut Vec<&'a Dim>) {
    dims.extend([&k.batch, &k.m, &k.n, &k.k]);
    match &k.a {
        Left::Stored(a) => of_operands(&[a], dims),
        Left::Computed { body, .. } => of_body(body, dims),
    }
    of_operands(&[&k.b], dims);
    of_body(&k.epilogue, dims);
}

fn of_operands<'a>(operands: &[&'a Operand], dims: &mut Vec<&'a Dim>) {
    operands.iter().for_each(|o| of_view(&o.view, dims));
}

fn of_view<'a>(view: &'a View, dims: &mut Vec<&'a Dim>) {
    dims.push(&view.offset);
    dims.extend(&view.strides);
}

fn of_body<'a>(body: &'a Body, dims: &mut Vec<&'a Dim>) {
    dims.extend(body.insts.iter().flat_map(Inst::dims));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(min: i64, max: i64) -> Interval {
        Interval { min, max }
    }

    #[test]
    fn a_magnitude_covers_every_value_and_every_step_to_it() {
        let past = Dim::var(Var(0));
        let square = &past * &past;
        let dim = &(&square * &Dim::from(-3)) + &Dim::from(7);
        assert_eq!(dim.magnitude(&[range(0, 10)]), Some(307));
        // The value is always 0, but half-way there is 2^62 * 4.
        let other = Dim::var(Var(1));
        let huge = &(&past * &other) * &Dim::from(1i64 << 62);
        assert_eq!(huge.magnitude(&[range(0, 4), range(0, 0)]), None);
    }

    #[test]
    fn a_size_in_an_integer_without_range_has_no_magnitude() {
        let dim = Dim::var(Var(1));
        assert_eq!(dim.magnitude(&[range(0, 10)]), None);
        assert_eq!(Dim::from(5).magnitude(&[]), Some(5));
    }

    #[test]
    fn sizes_come_back_only_in_normal_form() {
        let sum = &Dim::var(Var(0)) + &Dim::from(3);
        let terms: Terms = sum.clone().into();
        assert_eq!(Dim::try_from(terms.clone()), Ok(sum));
        let reversed: Terms = terms.into_iter().rev().collect();
        assert!(Dim::try_from(reversed).is_err());
        assert!(Dim::try_from(vec![([0; Var::MAX], 0)]).is_err());
    }
}
