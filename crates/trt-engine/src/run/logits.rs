//! Whether a decoder's logits are numbers to choose a token by.
//!
//! One that is NaN makes any choice of a token arbitrary, and so does one that is +infinite; a
//! sampler would return some token all the same. A model may give tokens that it excludes
//! -infinity, as long as it leaves one.

use crate::error::Error;

const INFINITE: u32 = 0x7f80_0000;
const SIGN: u32 = 0x8000_0000;

/// An error if logits of the token at `position` are NaN or +infinite, or all of them -infinite.
pub(crate) fn check(logits: &[f32], position: usize) -> Result<(), Error> {
    // Without branches, so that it is a few instructions for each vector of logits.
    let (bad, finite) = logits.iter().fold((0u32, 0u32), |(bad, finite), v| {
        let bits = v.to_bits();
        let not_finite = u32::from(bits & !SIGN >= INFINITE);
        let excluded = u32::from(bits == INFINITE | SIGN);
        (
            bad | (not_finite & !excluded & 1),
            finite | (1 - not_finite),
        )
    });
    match bad == 0 && (finite == 1 || logits.is_empty()) {
        true => Ok(()),
        false => Err(describe(logits, position)),
    }
}

#[cold]
fn describe(logits: &[f32], position: usize) -> Error {
    let count = |is: fn(&f32) -> bool| logits.iter().filter(|v| is(v)).count();
    Error::NotFinite {
        position,
        count: logits.len(),
        nan: count(|v| v.is_nan()),
        positive: count(|v| *v == f32::INFINITY),
        negative: count(|v| *v == f32::NEG_INFINITY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_excluded_tokens_pass_and_all_else_is_counted() {
        const INF: f32 = f32::INFINITY;
        for fine in [
            &[][..],
            &[0., -1.5, f32::MAX],
            &[-INF, f32::MIN, -INF],
            &[1e-45],
        ] {
            check(fine, 3).unwrap();
        }
        for (bad, counts) in [
            (&[1., f32::NAN, -INF, -f32::NAN][..], (2, 0, 1)),
            (&[INF, 0.], (0, 1, 0)),
            (&[-INF, -INF], (0, 0, 2)),
            (&[f32::NAN], (1, 0, 0)),
        ] {
            match check(bad, 3).unwrap_err() {
                Error::NotFinite {
                    position: 3,
                    count,
                    nan,
                    positive,
                    negative,
                } => assert_eq!((count, (nan, positive, negative)), (bad.len(), counts)),
                other => panic!("{other}"),
            }
        }
        let text = check(&[f32::NAN, INF, 1.], 41).unwrap_err().to_string();
        assert!(
            text.starts_with("2 of 3 logits at position 41 are not finite"),
            "{text}"
        );
    }
}
