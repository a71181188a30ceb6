//! Scales with which a few values are near whole numbers, by least squares.
//!
//! Of fixed codes the best scale is a quotient of sums; of a fixed scale the best codes are the nearest ones. The search
//! tries scales around the one that just covers the values, and takes for each the codes, and for these the best scale.
//! Values are brought to a magnitude of 1 first, so no square overflows.

/// Scales that are tried on each side of the first.
const TRIES: i32 = 10;
/// The step between them, in codes of the largest value.
const STEP: f32 = 0.1;
/// Values below this are as good as zero: no f16 is that small.
const TINY: f32 = 1e-20;
/// Values of the largest sub-block.
const MOST: usize = 32;

/// The nearest code: of a scale of 0 all values have code 0.
pub(super) fn code(value: f64, scale: f64, least: i32, most: i32) -> i32 {
    match scale == 0.0 {
        true => 0.clamp(least, most),
        // A cast of what no i32 holds takes the nearest one.
        false => ((value / scale).round() as i32).clamp(least, most),
    }
}

/// Values brought to a magnitude of at most 1.
fn scaled(values: &[f32], add: f64, by: f64) -> [f32; MOST] {
    let mut out = [0f32; MOST];
    for (o, v) in out.iter_mut().zip(values) {
        *o = ((f64::from(*v) + add) * by) as f32;
    }
    out
}

/// The scale for codes from `least` (negative) to `most`, which may be negative itself: the greatest value takes the
/// end that has more codes.
pub(super) fn symmetric(values: &[f32], least: i32, most: i32) -> f64 {
    let top = (values.iter().copied()).fold(0f32, |a, b| if b.abs() > a.abs() { b } else { a });
    if top.abs() < TINY {
        return 0.0;
    }
    let y = scaled(values, 0.0, 1.0 / f64::from(top));
    let y = &y[..values.len()];
    let (low, high) = (least as f32, most as f32);
    let fit = |inverse: f32| {
        let (mut product, mut square) = (0f32, 0f32);
        for y in y {
            let q = (y * inverse).round_ties_even().clamp(low, high);
            product += y * q;
            square += q * q;
        }
        (product, square)
    };
    // What a scale leaves of the squares is less the more this is.
    let (mut best, mut scale) = (0f32, 0f32);
    for i in -TRIES..=TRIES {
        let (product, square) = fit(low - STEP * i as f32);
        if square > 0.0 && product * product > best * square {
            (best, scale) = (product * product / square, product / square);
        }
    }
    f64::from(top) * f64::from(scale)
}

/// The scale and the least value for codes from 0 to `most`; `sinks` if the least must not be positive.
pub(super) fn line(values: &[f32], most: i32, sinks: bool) -> (f64, f64) {
    let least = values.iter().copied().fold(f32::INFINITY, f32::min);
    let least = f64::from(if sinks { least.min(0.0) } else { least });
    let greatest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let range = f64::from(greatest) - least;
    if range < f64::from(TINY) {
        return (0.0, least);
    }
    let y = scaled(values, -least, 1.0 / range);
    let y = &y[..values.len()];
    // The most that the least value may be, in units of the range.
    let ceiling = if sinks {
        (-least / range) as f32
    } else {
        f32::INFINITY
    };
    let (mut best, mut found) = (f32::INFINITY, (1.0 / most as f32, 0f32));
    for i in -TRIES..=TRIES {
        let mut line = (1.0 / (most as f32 + STEP * i as f32), 0f32);
        for _ in 0..3 {
            let (error, better) = better_line(y, line, most as f32, ceiling);
            if error < best {
                (best, found) = (error, line);
            }
            match better {
                Some(better) => line = better,
                None => break,
            }
        }
    }
    let (scale, shift) = (f64::from(found.0), f64::from(found.1));
    (scale * range, least + shift * range)
}

/// The squared error of a line with the nearest codes, and the line that fits these codes best, if there is one.
fn better_line(
    y: &[f32],
    (scale, shift): (f32, f32),
    most: f32,
    ceiling: f32,
) -> (f32, Option<(f32, f32)>) {
    let inverse = 1.0 / scale;
    let (mut error, mut ys, mut codes, mut products, mut squares) = (0f32, 0f32, 0f32, 0f32, 0f32);
    for y in y {
        let q = ((y - shift) * inverse).round_ties_even().clamp(0.0, most);
        let off = y - scale * q - shift;
        error += off * off;
        ys += y;
        codes += q;
        products += y * q;
        squares += q * q;
    }
    let n = y.len() as f32;
    let determinant = n * squares - codes * codes;
    if determinant <= 0.0 || squares <= 0.0 {
        return (error, None);
    }
    let mut scale = (n * products - ys * codes) / determinant;
    let mut shift = (ys - scale * codes) / n;
    if shift > ceiling {
        shift = ceiling;
        scale = (products - shift * codes) / squares;
    }
    (error, (scale > 1e-6).then_some((scale, shift)))
}
