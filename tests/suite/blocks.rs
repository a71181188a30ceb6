//! Blocks of values against candle: what their bytes mean, and how near values are kept in them.

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{Device, Tensor};
use std::borrow::Cow;
use trt_kernel::BlockType;

/// candle's name of a type; it has not all of them.
fn candle(block: BlockType) -> Option<GgmlDType> {
    match block {
        BlockType::Q4_0 => Some(GgmlDType::Q4_0),
        BlockType::Q4_1 => Some(GgmlDType::Q4_1),
        BlockType::Q5_0 => Some(GgmlDType::Q5_0),
        BlockType::Q5_1 => Some(GgmlDType::Q5_1),
        BlockType::Q8_0 => Some(GgmlDType::Q8_0),
        BlockType::Q2K => Some(GgmlDType::Q2K),
        BlockType::Q3K => Some(GgmlDType::Q3K),
        BlockType::Q4K => Some(GgmlDType::Q4K),
        BlockType::Q5K => Some(GgmlDType::Q5K),
        BlockType::Q6K => Some(GgmlDType::Q6K),
        BlockType::Iq4Nl | BlockType::Iq4Xs | BlockType::Mxfp4 => None,
    }
}

/// Where blocks hold numbers of f16.
fn halves(block: BlockType) -> &'static [usize] {
    match block {
        BlockType::Q4_1 | BlockType::Q5_1 | BlockType::Q4K | BlockType::Q5K => &[0, 2],
        BlockType::Q2K => &[80, 82],
        BlockType::Q3K => &[108],
        BlockType::Q6K => &[208],
        BlockType::Mxfp4 => &[],
        _ => &[0],
    }
}

/// The values that candle reads in blocks.
fn dequantised(blocks: &[u8], dtype: GgmlDType, count: usize) -> Vec<f32> {
    let storage = QStorage::from_data(Cow::Borrowed(blocks), &Device::Cpu, dtype).unwrap();
    let tensor = QTensor::new(storage, count).unwrap();
    let tensor: Tensor = tensor.dequantize(&Device::Cpu).unwrap();
    tensor.to_vec1().unwrap()
}

/// Numbers of 32 bits, the same ones for each seed.
fn numbers(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        state >> 32
    }
}

#[test]
fn blocks_have_the_values_that_candle_reads_in_them_bit_for_bit() {
    const BLOCKS: usize = 500;
    let mut random = numbers(15);
    for block in BlockType::ALL {
        let Some(dtype) = candle(block) else { continue };
        let mut bytes: Vec<u8> = (0..BLOCKS * block.bytes())
            .map(|_| random() as u8)
            .collect();
        for bytes in bytes.chunks_exact_mut(block.bytes()) {
            for at in halves(block) {
                // Any finite number: of either sign, zero, subnormal, or the largest.
                let half = match random() % 8 {
                    0 => 0x7bff,
                    1 => random() % 0x400,
                    2 => 0x8000,
                    _ => (random() % 0x7c00) | ((random() % 2) << 15),
                } as u16;
                bytes[*at..at + 2].copy_from_slice(&half.to_le_bytes());
            }
        }
        let expected = dequantised(&bytes, dtype, BLOCKS * block.values());
        let mut values = vec![f32::NAN; block.values()];
        for (b, bytes) in bytes.chunks_exact(block.bytes()).enumerate() {
            block.decode(bytes, &mut values);
            for (i, value) in values.iter().enumerate() {
                let expected = expected[b * block.values() + i];
                let equal = value.to_bits() == expected.to_bits();
                assert!(
                    equal,
                    "{} block {b} value {i}: {value} is not {expected}",
                    block.name()
                );
            }
        }
    }
}

/// The root of the mean squared distance.
fn rms(a: &[f32], b: &[f32]) -> f64 {
    let squares = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2));
    (squares.sum::<f64>() / a.len() as f64).sqrt()
}

#[test]
fn values_are_kept_as_near_as_candle_keeps_them() {
    let mut random = numbers(7);
    let mut normal = || {
        (0..12)
            .map(|_| random() as f32 / 2f32.powi(32))
            .sum::<f32>()
            - 6.0
    };
    let values: Vec<f32> = (0..64 * 1024).map(|_| normal()).collect();
    let tensor = Tensor::from_slice(&values, (64, 1024), &Device::Cpu).unwrap();
    for block in BlockType::ALL.into_iter().filter(|b| b.encodes()) {
        let dtype = candle(block).unwrap();
        let theirs = QTensor::quantize(&tensor, dtype).unwrap();
        let theirs = dequantised(&theirs.data().unwrap(), dtype, values.len());
        let mut bytes = vec![0; values.len() / block.values() * block.bytes()];
        block.encode(&values, &mut bytes).unwrap();
        let ours = dequantised(&bytes, dtype, values.len());
        let (ours, theirs) = (rms(&values, &ours), rms(&values, &theirs));
        println!("{}: {ours:.5}, candle {theirs:.5}", block.name());
        assert!(
            ours <= 1.02 * theirs,
            "{}: {ours}, candle {theirs}",
            block.name()
        );
    }
}
