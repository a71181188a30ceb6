//! Integers as polynomials in the runtime integers.
//!
//! A polynomial is taken only if the samples determine it and more of them agree than that takes, or
//! if there are no other calls. The fewest kinds of terms come first: sums, then products of
//! different integers, then squares.

use trt_kernel::{Dim, Env, Var};

/// The exponents of one term.
type Powers = [u8; Var::MAX];
/// What stands before a term of a polynomial that has none.
const NONE: Powers = [0; Var::MAX];
/// The most different integers in one term.
const FACTORS: usize = 3;

/// The affine function `c + Σ k_i v_i` with integer coefficients that takes `values[j]` at
/// `points[j]` for every `j`, if there is one. Runtime integers that do not vary over the points
/// get coefficient 0.
pub(super) fn affine(points: &[Vec<i64>], values: &[i64]) -> Option<Dim> {
    let first = *values.first()?;
    if values.iter().all(|v| *v == first) {
        return Some(Dim::from(first));
    }
    let terms: Vec<Powers> = [NONE]
        .into_iter()
        .chain(varying(points).into_iter().map(|(v, _)| unit(v)))
        .collect();
    with_terms(points, values, &terms)
}

/// The polynomial with integer coefficients that takes `values[j]` at `points[j]` for every `j`, if
/// there is one of few terms. `all` tells that there are no other points.
pub(super) fn polynomial(points: &[Vec<i64>], values: &[i64], all: bool) -> Option<Dim> {
    affine(points, values).or_else(|| {
        let mut kinds = kinds(&varying(points)).into_iter();
        kinds.find_map(|terms| {
            let confirmed = all || points.len() > terms.len();
            with_terms(points, values, &terms).filter(|_| confirmed)
        })
    })
}

/// The runtime integers that vary, each with the number of its values.
fn varying(points: &[Vec<i64>]) -> Vec<(usize, usize)> {
    let ints = points.first().map_or(0, Vec::len);
    let count = |v: usize| {
        let mut values: Vec<i64> = points.iter().map(|p| p[v]).collect();
        values.sort_unstable();
        values.dedup();
        (v, values.len())
    };
    (0..ints).map(count).filter(|(_, n)| *n > 1).collect()
}

fn unit(v: usize) -> Powers {
    let mut powers = NONE;
    powers[v] = 1;
    powers
}

fn times(a: &Powers, b: &Powers) -> Powers {
    std::array::from_fn(|v| a[v] + b[v])
}

/// The terms of the polynomials that are tried, fewest first.
fn kinds(ints: &[(usize, usize)]) -> Vec<Vec<Powers>> {
    // Products of different integers.
    let products = |ints: &[(usize, usize)], most: u8| {
        ints.iter().fold(vec![NONE], |terms, (v, _)| {
            let few = |t: &Powers| t.iter().sum::<u8>() < most;
            let more = terms.iter().filter(|t| few(t)).map(|t| times(t, &unit(*v)));
            let more: Vec<Powers> = more.collect();
            [terms, more].concat()
        })
    };
    let squared = |v: usize| times(&unit(v), &unit(v));
    // Two values do not tell a square from a multiple.
    let square = |(v, values): &(usize, usize)| (*values > 2).then_some(*v);
    let mut kinds = vec![products(ints, FACTORS as u8)];
    kinds.extend(ints.iter().filter_map(square).map(|v| {
        let others: Vec<_> = ints.iter().copied().filter(|i| i.0 != v).collect();
        let each = products(&others, FACTORS as u8 - 1);
        let with = |by: Powers| each.iter().map(move |t| times(t, &by)).collect::<Vec<_>>();
        [with(NONE), with(unit(v)), with(squared(v))].concat()
    }));
    let mut second = products(ints, 2);
    second.extend(ints.iter().filter_map(square).map(squared));
    kinds.push(second);
    kinds
}

/// The polynomial of these terms that takes the values at the points.
fn with_terms(points: &[Vec<i64>], values: &[i64], terms: &[Powers]) -> Option<Dim> {
    let row = |(p, value): (&Vec<i64>, &i64)| {
        let term = |t: &Powers| {
            let mut powers = p.iter().zip(t);
            powers.try_fold(1i128, |n, (x, power)| {
                n.checked_mul(i128::from(*x).checked_pow(u32::from(*power))?)
            })
        };
        let mut row = terms.iter().map(term).collect::<Option<Vec<i128>>>()?;
        row.push(i128::from(*value));
        Some(row)
    };
    // The first points are the smallest, so what they determine is found among small numbers.
    let rows = points.iter().zip(values).filter_map(row).collect();
    let solution = solve(rows, terms.len())?;
    let dim = Dim::from_terms(terms.iter().copied().zip(solution).collect());
    let mut all = points.iter().zip(values);
    all.all(|(p, v)| dim.checked_eval(&Env::new(p)) == Some(*v))
        .then_some(dim)
}

/// Fraction-free elimination with the first rows that determine a solution; `None` if there is no
/// unique integer one. Rows are `[coefficients.., right side]`.
fn solve(rows: Vec<Vec<i128>>, unknowns: usize) -> Option<Vec<i64>> {
    let mut solved: Vec<(usize, Vec<i128>)> = Vec::new();
    for mut row in rows {
        if solved.len() == unknowns {
            break;
        }
        for (pivot, by) in &solved {
            cancel(&mut row, by, *pivot)?;
        }
        let Some(pivot) = row[..unknowns].iter().position(|c| *c != 0) else {
            continue;
        };
        for (_, other) in &mut solved {
            cancel(other, &row, pivot)?;
        }
        solved.push((pivot, row));
    }
    let mut values = vec![0; unknowns];
    for (pivot, row) in &solved {
        let exact = row[unknowns].checked_rem(row[*pivot])? == 0;
        values[*pivot] = i64::try_from(row[unknowns] / row[*pivot])
            .ok()
            .filter(|_| exact)?;
    }
    (solved.len() == unknowns).then_some(values)
}

/// Takes the unknown `pivot` out of a row by another one.
fn cancel(row: &mut [i128], by: &[i128], pivot: usize) -> Option<()> {
    let (factor, lead) = (row[pivot], by[pivot]);
    if factor != 0 {
        for (x, l) in row.iter_mut().zip(by) {
            *x = x.checked_mul(lead)?.checked_sub(factor.checked_mul(*l)?)?;
        }
        reduce(row);
    }
    Some(())
}

/// Divides a row by the greatest common divisor of its entries, so that numbers stay small.
fn reduce(row: &mut [i128]) {
    let gcd = row.iter().fold(0i128, |a, b| {
        let (mut a, mut b) = (a.abs(), b.abs());
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    });
    if gcd > 1 {
        row.iter_mut().for_each(|x| *x /= gcd);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points() -> Vec<Vec<i64>> {
        vec![vec![3, 2], vec![4, 2], vec![3, 3], vec![9, 7]]
    }

    /// The points at which a class of two integers is traced.
    fn many() -> Vec<Vec<i64>> {
        let near = [
            [1, 1],
            [2, 1],
            [4, 1],
            [1, 2],
            [1, 4],
            [3, 3],
            [2, 3],
            [4, 2],
        ];
        let far = [[8, 1], [1, 128], [8, 128]];
        near.iter().chain(&far).map(|p| p.to_vec()).collect()
    }

    fn found(points: &[Vec<i64>], f: impl Fn(i64, i64) -> i64) -> Option<String> {
        let values: Vec<i64> = points.iter().map(|p| f(p[0], p[1])).collect();
        polynomial(points, &values, false).map(|d| d.to_string())
    }

    #[test]
    fn affine_values_are_found() {
        let values: Vec<i64> = points().iter().map(|p| 5 + 2 * p[0] - 3 * p[1]).collect();
        assert_eq!(
            affine(&points(), &values).unwrap().to_string(),
            "2*v0 - 3*v1 + 5"
        );
    }

    #[test]
    fn products_and_squares_are_found_where_more_points_agree_than_determine_them() {
        let found = |f: fn(i64, i64) -> i64| found(&many(), f).unwrap();
        assert_eq!(found(|b, l| 3 * b * l + l - 2), "3*v0*v1 + v1 - 2");
        assert_eq!(found(|_, h| h * h + 1), "v1*v1 + 1");
        assert_eq!(found(|b, h| b * h * h + b), "v0*v1*v1 + v0");
        assert_eq!(found(|b, h| b * b + h * h + b * h), "v0*v0 + v0*v1 + v1*v1");
    }

    #[test]
    fn a_product_that_nothing_confirms_is_refused() {
        let square = |n: &[i64]| n.iter().map(|p| p * p).collect::<Vec<i64>>();
        let line = |n: &[i64]| n.iter().map(|p| vec![*p]).collect::<Vec<_>>();
        assert_eq!(
            polynomial(&line(&[2, 3, 5]), &square(&[2, 3, 5]), false),
            None
        );
        assert!(polynomial(&line(&[2, 3, 5]), &square(&[2, 3, 5]), true).is_some());
        let four = [2, 3, 4, 5];
        assert!(polynomial(&line(&four), &square(&four), false).is_some());
        assert_eq!(found(&points(), |a, b| a * b), None);
    }

    #[test]
    fn what_is_no_polynomial_is_refused() {
        let refused = |f: fn(i64, i64) -> i64| assert_eq!(found(&many(), f), None);
        refused(|_, l| l.min(64));
        refused(|b, l| b * l.min(100));
        refused(|b, l| (b * l + 1) / 2);
        refused(|_, l| l * (l + 1) / 2);
        refused(|b, l| (b * l).max(8));
        refused(|b, l| b * b * b * l);
    }

    #[test]
    fn ends_of_large_ranges_overflow_nothing() {
        let ends = [1, 2, 3, 4, 1i64 << 48].map(|n| vec![n, 1]).to_vec();
        assert_eq!(found(&ends, |n, _| 5 * n).unwrap(), "5*v0");
        let ends = [vec![2, 2], vec![1 << 48, 1 << 48], vec![3, 2], vec![2, 3]];
        assert_eq!(polynomial(&ends, &[4, i64::MAX, 6, 6], false), None);
    }

    #[test]
    fn fractions_are_refused() {
        let points = vec![vec![2], vec![4], vec![6]];
        assert_eq!(affine(&points, &[1, 2, 3]), None);
    }

    #[test]
    fn a_constant_needs_no_system() {
        assert_eq!(affine(&[vec![1]], &[7]).unwrap(), Dim::from(7));
    }
}
