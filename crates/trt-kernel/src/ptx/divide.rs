//! Division by a known number, without dividing: the assembler does not do this by itself, and a
//! division is about thirty instructions that wait for each other.
//!
//! Exact for every unsigned 32-bit dividend.

use super::asm::{Asm, Class, Int, R};

/// How to divide by a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The dividend itself.
    Same,
    /// `n >> shift`
    Shift { shift: u32 },
    /// `high(n * factor) >> shift`, where `high` is the upper 32 bits of the product.
    Multiply { factor: u32, shift: u32 },
    /// With `h = high(n * factor)`: `((n - h) / 2 + h) >> shift`, as if the factor had 33 bits.
    Long { factor: u32, shift: u32 },
}

impl Way {
    /// The way to divide by a number that is not zero.
    fn by(n: u32) -> Way {
        if n.is_power_of_two() {
            return match n.trailing_zeros() {
                0 => Way::Same,
                shift => Way::Shift { shift },
            };
        }
        // `2^(32 + shift) / n`, rounded up, is exact if what was added is at most `2^shift`.
        let bits = n.ilog2() + 1;
        for shift in 0..bits {
            let factor = (1u128 << (32 + shift)).div_ceil(u128::from(n));
            let added = factor * u128::from(n) - (1u128 << (32 + shift));
            if let (Ok(factor), true) = (u32::try_from(factor), added <= 1 << shift) {
                return Way::Multiply { factor, shift };
            }
        }
        // The factor has 33 bits for this shift, of which the first is not written.
        let factor = (1u128 << (32 + bits)).div_ceil(u128::from(n));
        Way::Long {
            factor: factor as u32,
            shift: bits - 1,
        }
    }
}

/// `a / by`, unsigned; `by` is not zero.
pub(super) fn div(asm: &mut Asm, a: R, by: u32) -> R {
    let high = |asm: &mut Asm, factor: u32| asm.op("mul.hi.u32", Class::B32, &[&a, &factor]);
    let shifted = |asm: &mut Asm, x: R, shift: u32| match shift {
        0 => x,
        _ => asm.op("shr.u32", Class::B32, &[&x, &shift]),
    };
    match Way::by(by) {
        Way::Same => a,
        Way::Shift { shift } => shifted(asm, a, shift),
        Way::Multiply { factor, shift } => {
            let high = high(asm, factor);
            shifted(asm, high, shift)
        }
        Way::Long { factor, shift } => {
            let high = high(asm, factor);
            let rest = asm.op("sub.u32", Class::B32, &[&a, &high]);
            let half = shifted(asm, rest, 1);
            let sum = asm.op("add.u32", Class::B32, &[&half, &high]);
            shifted(asm, sum, shift)
        }
    }
}

/// `a / by` and `a % by`, unsigned; `by` is not zero.
pub(super) fn div_rem(asm: &mut Asm, a: R, by: u32) -> (R, R) {
    let above = div(asm, a, by);
    let rest = match by.is_power_of_two() {
        true => asm.op("and.b32", Class::B32, &[&a, &(by - 1)]),
        false => {
            let skipped = asm.op("mul.lo.u32", Class::B32, &[&above, &by]);
            asm.op("sub.u32", Class::B32, &[&a, &skipped])
        }
    };
    (above, rest)
}

/// As [`div_rem`], by a number that may be known.
pub(super) fn div_rem_by(asm: &mut Asm, a: R, by: Int) -> (R, R) {
    if let Int::Imm(by) = by
        && let Ok(by @ 1..) = u32::try_from(by)
    {
        return div_rem(asm, a, by);
    }
    let above = asm.op("div.u32", Class::B32, &[&a, &by]);
    let skipped = asm.op("mul.lo.u32", Class::B32, &[&above, &by]);
    (above, asm.op("sub.u32", Class::B32, &[&a, &skipped]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the instructions of a way give.
    fn divided(a: u32, way: Way) -> u32 {
        let high = |factor: u32| ((u64::from(a) * u64::from(factor)) >> 32) as u32;
        match way {
            Way::Same => a,
            Way::Shift { shift } => a >> shift,
            Way::Multiply { factor, shift } => high(factor) >> shift,
            Way::Long { factor, shift } => {
                let h = high(factor);
                ((a - h) / 2).wrapping_add(h) >> shift
            }
        }
    }

    #[test]
    fn every_way_divides_every_number_exactly() {
        let edges = [
            1, 2, 3, 5, 7, 9, 64, 96, 641, 1000, 4096, 49_152, 65_535, 65_537,
        ];
        let large = [
            u32::MAX,
            u32::MAX - 1,
            1 << 31,
            (1 << 31) - 1,
            (1 << 31) + 1,
        ];
        let mut long = 0;
        for by in (1..3000).chain(edges).chain(large) {
            let way = Way::by(by);
            long += u32::from(matches!(way, Way::Long { .. }));
            let near = (0..50).flat_map(|i| {
                let multiple = (u32::MAX / by / 50 * i).saturating_mul(by);
                [
                    multiple.saturating_sub(1),
                    multiple,
                    multiple.saturating_add(by - 1),
                ]
            });
            let last = u32::MAX / by * by;
            let all = near.chain([0, 1, by - 1, by, last - 1, last, u32::MAX - 1, u32::MAX]);
            for a in all {
                assert_eq!(divided(a, way), a / by, "{a} / {by} by {way:?}");
            }
        }
        // Seven is the smallest that needs the long way.
        assert!(matches!(Way::by(7), Way::Long { .. }) && long > 100);
    }
}
