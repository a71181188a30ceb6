//! Normal noise that a seed decides, the same everywhere.

/// `count` values of mean 0 and variance 1.
pub fn normal(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed;
    // SplitMix64, and of each two numbers one by Box and Muller.
    let mut uniform = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    };
    let mut one = || {
        let (radius, angle) = (1.0 - uniform(), uniform());
        ((-2.0 * radius.ln()).sqrt() * (2.0 * std::f64::consts::PI * angle).cos()) as f32
    };
    (0..count).map(|_| one()).collect()
}
