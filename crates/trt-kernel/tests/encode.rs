//! Values written as blocks and read back.

use proptest::prelude::*;
use trt_kernel::{BlockType, EncodeError};

fn encoded(block: BlockType, values: &[f32]) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = vec![0xaa; values.len() / block.values() * block.bytes()];
    block.encode(values, &mut bytes).map(|()| bytes)
}

fn decoded(block: BlockType, bytes: &[u8]) -> Vec<f32> {
    let mut values = vec![0f32; bytes.len() / block.bytes() * block.values()];
    let blocks = bytes.chunks_exact(block.bytes());
    for (bytes, values) in blocks.zip(values.chunks_exact_mut(block.values())) {
        block.decode(bytes, values);
    }
    values
}

fn written() -> impl Iterator<Item = BlockType> {
    BlockType::ALL.into_iter().filter(|b| b.encodes())
}

/// Values that are about normally distributed: sums of twelve.
fn normal(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = move || {
        state = state
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..count)
        .map(|_| (0..12).map(|_| next()).sum::<f32>() - 6.0)
        .collect()
}

fn rms(a: &[f32], b: &[f32]) -> f64 {
    let squares = a
        .iter()
        .zip(b)
        .map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
    (squares.sum::<f64>() / a.len() as f64).sqrt()
}

#[test]
fn what_is_read_back_is_near_by_the_bits_of_the_type() {
    let values = normal(256 * 64, 1);
    for block in written() {
        let error = rms(&values, &decoded(block, &encoded(block, &values).unwrap()));
        let most = match block {
            BlockType::Q2K => 0.29,
            BlockType::Q3K => 0.16,
            BlockType::Q4_0 => 0.09,
            BlockType::Q4_1 | BlockType::Q4K => 0.078,
            BlockType::Q5_0 => 0.045,
            BlockType::Q5_1 | BlockType::Q5K => 0.039,
            BlockType::Q6K => 0.021,
            BlockType::Q8_0 => 0.006,
            BlockType::Iq4Nl | BlockType::Iq4Xs | BlockType::Mxfp4 => 0.0,
        };
        assert!(error <= most, "{}: {error}", block.name());
    }
}

#[test]
fn values_that_a_block_can_hold_are_kept() {
    // Whole numbers with a scale of 1, with an end of the range in each 16.
    let ends = |least: i32, most: i32| {
        move |i: usize| match i % 16 {
            0 => least as f32,
            1 => most as f32,
            _ => (least + (i as i32 * 7) % (most - least + 1)) as f32,
        }
    };
    for block in written() {
        let values: Vec<f32> = match block {
            BlockType::Q4_0 => (0..256).map(ends(-8, 7)).collect(),
            BlockType::Q5_0 => (0..256).map(ends(-16, 15)).collect(),
            BlockType::Q8_0 => (0..256).map(ends(-127, 127)).collect(),
            BlockType::Q4_1 => (0..256).map(ends(3, 18)).collect(),
            BlockType::Q5_1 => (0..256).map(ends(-40, -9)).collect(),
            _ => continue,
        };
        let read = decoded(block, &encoded(block, &values).unwrap());
        assert_eq!(read, values, "{}", block.name());
    }
}

#[test]
fn blocks_of_zeros_are_read_as_zeros() {
    for block in written() {
        for zero in [0.0, -0.0, 1e-30] {
            let read = decoded(block, &encoded(block, &[zero; 512]).unwrap());
            assert!(read.iter().all(|v| *v == 0.0), "{} {zero}", block.name());
        }
    }
}

#[test]
fn what_no_block_holds_is_an_error_that_says_where() {
    for block in written() {
        let mut values = normal(512, 2);
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            values[300] = wrong;
            let error = encoded(block, &values).unwrap_err();
            let named = matches!(error, EncodeError::NotFinite { index: 300, .. });
            assert!(named, "{error}");
        }
        values[300] = f32::MAX;
        let error = encoded(block, &values).unwrap_err();
        let start = 300 / block.values() * block.values();
        let named = matches!(error, EncodeError::TooLarge { index, .. } if index == start);
        assert!(named, "{error}");

        let error = block.encode(&values[..255], &mut [0; 600]).unwrap_err();
        assert!(
            matches!(error, EncodeError::Length { values: 255, .. }),
            "{error}"
        );
        let error = block.encode(&values, &mut [0; 7]).unwrap_err();
        assert!(
            matches!(error, EncodeError::Length { bytes: 7, .. }),
            "{error}"
        );
    }
    for block in BlockType::ALL.into_iter().filter(|b| !b.encodes()) {
        assert_eq!(
            encoded(block, &[0.0; 256]),
            Err(EncodeError::ReadOnly(block))
        );
    }
}

proptest! {
    #[test]
    fn finite_values_are_read_back_finite_or_refused(
        bits in prop::collection::vec(any::<u32>(), 256),
        magnitude in -140i32..128,
    ) {
        // Of all magnitudes, and of one.
        let any: Vec<f32> = (bits.iter().map(|b| f32::from_bits(*b)))
            .map(|v| if v.is_finite() { v } else { 0.0 })
            .collect();
        let scale = 2f64.powi(magnitude);
        let near: Vec<f32> = (bits.iter())
            .map(|b| (f64::from(*b as i32) / f64::from(i32::MAX) * scale) as f32)
            .collect();
        for block in written() {
            for values in [&any, &near] {
                let Ok(bytes) = encoded(block, values) else { continue };
                let read = decoded(block, &bytes);
                prop_assert!(read.iter().all(|v| v.is_finite()), "{}", block.name());
                // No value is further off than the greatest is from zero, where scales are no subnormal f16.
                let most = values.iter().fold(0f32, |a, b| a.max(b.abs()));
                for (v, r) in values.iter().zip(&read) {
                    let off = (f64::from(*v) - f64::from(*r)).abs();
                    prop_assert!(off <= 1.01 * f64::from(most) + 1e-4, "{}: {v} {r}", block.name());
                }
            }
        }
    }
}
