//! Random arguments, and how far results are apart.

use candle_trt::kernel::{BlockType, DType, Encoding};
use half::{bf16, f16};

/// Values that are made one by one; longer arguments repeat them. No size in use divides it.
const PERIOD: usize = (1 << 18) - 5;

fn random(n: usize, seed: u64) -> impl Iterator<Item = f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..n).map(move |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    })
}

/// Random bytes of an argument; integers stay below `below`.
pub fn fill(dtype: DType, n: usize, seed: u64, below: usize) -> Vec<u8> {
    let values = random(n.min(PERIOD), seed);
    let int = |v: f32| ((v.abs() * below as f32) as i64).min(below as i64 - 1);
    let mut bytes: Vec<u8> = match dtype {
        DType::F32 => values.flat_map(f32::to_le_bytes).collect(),
        DType::BF16 => values
            .flat_map(|v| bf16::from_f32(v).to_le_bytes())
            .collect(),
        DType::F16 => values
            .flat_map(|v| f16::from_f32(v).to_le_bytes())
            .collect(),
        DType::U8 => values.map(|v| int(v) as u8).collect(),
        DType::U32 => values.flat_map(|v| (int(v) as u32).to_le_bytes()).collect(),
        DType::I64 => values.flat_map(|v| int(v).to_le_bytes()).collect(),
    };
    let (period, len) = (bytes.len(), n * dtype.size());
    bytes.reserve_exact(len - period);
    while bytes.len() < len {
        bytes.extend_from_within(..period.min(len - bytes.len()));
    }
    bytes
}

/// As [`fill`], however the values are written down.
pub fn fill_encoded(encoding: Encoding, n: usize, seed: u64, below: usize) -> Vec<u8> {
    match encoding {
        Encoding::Plain(dtype) => fill(dtype, n, seed, below),
        Encoding::Blocks(block) => blocks(block, n, seed),
        // What `units::pack` packs, and puts in its place.
        Encoding::Packed(packed) => fill(packed.dtype(), n, seed, below),
        Encoding::Code => Vec::new(),
    }
}

/// Blocks of any quants whose values are between about -1 and 1.
pub fn blocks(block: BlockType, n: usize, seed: u64) -> Vec<u8> {
    let bytes = n / block.values() * block.bytes();
    let mut all = fill(DType::U8, bytes, seed, 256);
    // Where scales are, and what the numbers that they meet are below.
    let (scales, below): (&[usize], f32) = match block {
        BlockType::Q4_0 | BlockType::Q4_1 | BlockType::Q5_0 | BlockType::Q5_1 => (&[0], 16.0),
        BlockType::Q8_0 | BlockType::Iq4Nl => (&[0], 128.0),
        BlockType::Q2K => (&[80, 82], 64.0),
        BlockType::Q3K => (&[108], 128.0),
        BlockType::Q4K | BlockType::Q5K => (&[0, 2], 1024.0),
        BlockType::Q6K => (&[208], 4096.0),
        BlockType::Iq4Xs => (&[0], 4096.0),
        BlockType::Mxfp4 => (&[], 1.0),
    };
    let scale = |b: u8| f16::from_f32((f32::from(b) + 1.0) / (256.0 * below));
    for block_bytes in all.chunks_exact_mut(block.bytes()) {
        for at in scales {
            let scale = scale(block_bytes[*at]);
            block_bytes[*at..at + 2].copy_from_slice(&scale.to_le_bytes());
        }
        match block {
            BlockType::Q4_1 | BlockType::Q5_1 => {
                let least = f16::from_f32(-f32::from(block_bytes[2]) / 256.0);
                block_bytes[2..4].copy_from_slice(&least.to_le_bytes());
            }
            BlockType::Mxfp4 => block_bytes[0] = 120 + block_bytes[0] % 5,
            _ => {}
        }
    }
    all
}

fn floats(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    let float = |c: &[u8; 4]| f64::from(f32::from_le_bytes(*c));
    match dtype {
        DType::F32 => bytes.as_chunks().0.iter().map(float).collect(),
        DType::BF16 => {
            let all = bytes.as_chunks().0.iter();
            all.map(|c| bf16::from_le_bytes(*c).to_f64()).collect()
        }
        DType::F16 => {
            let all = bytes.as_chunks().0.iter();
            all.map(|c| f16::from_le_bytes(*c).to_f64()).collect()
        }
        DType::U8 | DType::U32 | DType::I64 => bytes.iter().map(|b| f64::from(*b)).collect(),
    }
}

/// How far results may be apart, relative to their norm.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 2e-5,
        DType::F16 => 1e-3,
        DType::BF16 => 6e-3,
        DType::U8 | DType::U32 | DType::I64 => 0.0,
    }
}

/// An error if results are further apart than their type explains.
pub fn close(dtype: DType, want: &[u8], got: &[u8]) -> Result<(), String> {
    if want == got {
        return Ok(());
    }
    let (want, got) = (floats(dtype, want), floats(dtype, got));
    let mut norm = 0.0;
    let mut error = 0.0;
    for (i, (w, g)) in want.iter().zip(&got).enumerate() {
        let same = w == g || (w.is_nan() && g.is_nan());
        if !(same || w.is_finite() && g.is_finite()) {
            return Err(format!("element {i} is {g}, not {w}"));
        }
        if w.is_finite() {
            norm += w * w;
            error += if same { 0.0 } else { (w - g) * (w - g) };
        }
    }
    let error = (error / norm.max(f64::MIN_POSITIVE)).sqrt();
    match error <= tolerance(dtype) {
        true => Ok(()),
        false => Err(format!("relative error {error:.2e}")),
    }
}
