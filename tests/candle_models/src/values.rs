//! Numbers that depend on a name and an index only, for weights and inputs.

use crate::spec::{Called, Input, Values};
use candle_core::{DType, Device, Result, Tensor};
use std::convert::Infallible;

/// Numbers from -1 to 1.
pub fn noise(name: &str, n: usize) -> Vec<f32> {
    let seed = name.bytes().fold(11u64, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    });
    let value = |i: u64| {
        let x = (seed ^ i.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 31)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (x >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n as u64).map(value).collect()
}

/// All inputs of a call, with those that are not integers in `floats`.
pub fn inputs(inputs: &[Input], call: &Called, floats: DType) -> Result<Vec<Tensor>> {
    let given = |i| {
        let input = input(i, call)?;
        match input.dtype().is_float() {
            true => input.to_dtype(floats),
            false => Ok(input),
        }
    };
    inputs.iter().map(given).collect()
}

/// An input of a call, the same whenever it is asked for.
pub fn input(input: &Input, call: &Called) -> Result<Tensor> {
    let size = |name: &str| Ok::<_, Infallible>(call.size(name));
    let sizes = input
        .shape
        .iter()
        .map(|s| s.of(size).unwrap_or_else(|e| match e {}));
    let shape: Vec<usize> = sizes.collect();
    let n = shape.iter().product();
    // Tokens that follow a position differ from those before it.
    let drawn = noise(&format!("{} {}", input.name, call.past), n);
    match input.values {
        Values::Noise => Tensor::from_vec(noise(input.name, n), shape, &Device::Cpu),
        Values::Kept => {
            let row = shape.last().copied().unwrap_or(1).max(1);
            let kept = |(i, v): (usize, &f32)| u32::from(i % row == 0 || *v > -0.5);
            let kept: Vec<u32> = drawn.iter().enumerate().map(kept).collect();
            Tensor::from_vec(kept, shape, &Device::Cpu)
        }
        Values::All(value) => Tensor::full(value, shape, &Device::Cpu),
        Values::Same(value) => Tensor::full(value, shape, &Device::Cpu),
        Values::Tokens(below) => {
            let token = |v: &f32| (((v + 1.0) / 2.0 * below as f32) as u32).min(below - 1);
            let tokens: Vec<u32> = drawn.iter().map(token).collect();
            Tensor::from_vec(tokens, shape, &Device::Cpu)
        }
    }
}
