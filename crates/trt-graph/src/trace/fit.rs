//! Integers as affine functions of the runtime integers.

use trt_kernel::{Dim, Var};

/// The affine function `c + Σ k_i v_i` with integer coefficients that takes `values[j]` at
/// `points[j]` for every `j`, if there is one. Runtime integers that do not vary over the points
/// get coefficient 0.
pub(super) fn affine(points: &[Vec<i64>], values: &[i64]) -> Option<Dim> {
    let first = *values.first()?;
    if values.iter().all(|v| *v == first) {
        return Some(Dim::from(first));
    }
    let vars = points[0].len();
    let varying: Vec<usize> = (0..vars)
        .filter(|v| points.iter().any(|p| p[*v] != points[0][*v]))
        .collect();
    let rows = points.iter().zip(values).map(|(p, v)| {
        let mut row: Vec<i128> = vec![1];
        row.extend(varying.iter().map(|i| i128::from(p[*i])));
        row.push(i128::from(*v));
        row
    });
    let solution = solve(rows.collect(), varying.len() + 1)?;
    let mut dim = Dim::from(solution[0]);
    for (i, k) in varying.iter().zip(&solution[1..]) {
        dim = &dim + &(&Dim::var(Var(*i as u8)) * &Dim::from(*k));
    }
    let env = |p: &Vec<i64>| trt_kernel::Env::new(p);
    points
        .iter()
        .zip(values)
        .all(|(p, v)| dim.eval(&env(p)) == *v)
        .then_some(dim)
}

/// Fraction-free elimination of an overdetermined system; `None` if it has no unique integer
/// solution. Rows are `[coefficients.., right side]`.
fn solve(mut rows: Vec<Vec<i128>>, unknowns: usize) -> Option<Vec<i64>> {
    for col in 0..unknowns {
        let pivot = (col..rows.len()).find(|r| rows[*r][col] != 0)?;
        rows.swap(col, pivot);
        let lead = rows[col].clone();
        for (r, row) in rows.iter_mut().enumerate() {
            if r != col && row[col] != 0 {
                let factor = row[col];
                row.iter_mut()
                    .zip(&lead)
                    .for_each(|(x, l)| *x = *x * lead[col] - factor * l);
                reduce(row);
            }
        }
    }
    let exact = |(i, row): (usize, &Vec<i128>)| {
        (row[unknowns] % row[i] == 0)
            .then(|| i64::try_from(row[unknowns] / row[i]).ok())
            .flatten()
    };
    rows.iter().take(unknowns).enumerate().map(exact).collect()
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

    #[test]
    fn affine_values_are_found() {
        let values: Vec<i64> = points().iter().map(|p| 5 + 2 * p[0] - 3 * p[1]).collect();
        assert_eq!(
            affine(&points(), &values).unwrap().to_string(),
            "2*v0 - 3*v1 + 5"
        );
    }

    #[test]
    fn products_are_refused() {
        let values: Vec<i64> = points().iter().map(|p| p[0] * p[1]).collect();
        assert_eq!(affine(&points(), &values), None);
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
