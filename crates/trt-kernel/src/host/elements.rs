//! Elements that move by address, without any alignment assumed.
//!
//! Who calls these has checked that all of a run is inside of its span ([`super::span`]).

/// Bits of the nearest bfloat16, ties to even; a NaN stays a (quiet) NaN.
#[inline(always)]
pub(super) fn bf16_bits(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16;
    let nan = (bits >> 16) as u16 | 0x40;
    if bits & 0x7fff_ffff > 0x7f80_0000 {
        nan
    } else {
        rounded
    }
}

/// Reads elements `stride` apart.
///
/// # Safety
/// `out.len()` elements of `T`, `stride` apart, must be readable from `p`.
#[inline(always)]
pub(super) unsafe fn strided<T: Copy, U: Copy>(
    p: *const u8,
    stride: i64,
    out: &mut [U],
    f: impl Fn(T) -> U,
) {
    let p = p as *const T;
    // SAFETY: the caller's promise.
    unsafe {
        match stride {
            1 => {
                for (i, o) in out.iter_mut().enumerate() {
                    *o = f(p.add(i).read_unaligned());
                }
            }
            0 if !out.is_empty() => out.fill(f(p.read_unaligned())),
            _ => {
                for (i, o) in out.iter_mut().enumerate() {
                    *o = f(p.offset(i as isize * stride as isize).read_unaligned());
                }
            }
        }
    }
}

/// Writes elements `stride` apart.
///
/// # Safety
/// `from.len()` elements of `T`, `stride` apart, must be writable from `p`.
#[inline(always)]
pub(super) unsafe fn scatter<T: Copy, U: Copy>(
    p: *mut u8,
    stride: i64,
    from: &[U],
    f: impl Fn(U) -> T,
) {
    let p = p as *mut T;
    // SAFETY: the caller's promise.
    unsafe {
        if stride == 1 {
            for (i, x) in from.iter().enumerate() {
                p.add(i).write_unaligned(f(*x));
            }
        } else {
            for (i, x) in from.iter().enumerate() {
                p.offset(i as isize * stride as isize)
                    .write_unaligned(f(*x));
            }
        }
    }
}

/// Copies elements, `s` apart, to places `d` apart.
///
/// # Safety
/// Both runs of `count` elements of `T` must be accessible.
pub(super) unsafe fn hop<T: Copy>(from: *const u8, to: *mut u8, count: usize, s: isize, d: isize) {
    let (from, to) = (from as *const T, to as *mut T);
    for i in 0..count as isize {
        // SAFETY: the caller's promise.
        unsafe {
            to.offset(i * d)
                .write_unaligned(from.offset(i * s).read_unaligned())
        };
    }
}
