//! Random arguments, and how far results are apart.

use candle_trt::kernel::DType;
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
