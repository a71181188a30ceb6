//! Every instruction set against the definition, bit for bit.

use super::dot::{BlockRows, Dots};
use super::panel::{Pack, sub_block};
use super::unpack::Values;
use crate::BlockType;
use crate::host::coded::middle;
use crate::host::dot::{dot_unpacked_on, padded};
use crate::host::simd::{Isa, run_on};
use crate::host::tile::PANEL;

/// Blocks of random bytes, with scales of f16 that are finite.
fn blocks(block: BlockType, count: usize) -> Vec<u8> {
    let mut state = 7u64 + block as u64;
    let mut random = move || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(99);
        (state >> 40) as u32
    };
    let mut bytes: Vec<u8> = (0..count * block.bytes()).map(|_| random() as u8).collect();
    let halves: &[usize] = match block {
        BlockType::Q4_1 | BlockType::Q5_1 | BlockType::Q4K | BlockType::Q5K => &[0, 2],
        BlockType::Q2K => &[80, 82],
        BlockType::Q3K => &[108],
        BlockType::Q6K => &[208],
        BlockType::Mxfp4 => &[],
        _ => &[0],
    };
    for (b, bytes) in bytes.chunks_exact_mut(block.bytes()).enumerate() {
        for at in halves {
            let half = match b % 4 {
                // Subnormal, and of either sign.
                0 => random() as u16 & 0x83ff,
                // About 1/64, so that sums over several blocks round.
                _ => 0x2400 | random() as u16 & 0x83ff,
            };
            bytes[*at..at + 2].copy_from_slice(&half.to_le_bytes());
        }
        if block == BlockType::Mxfp4 {
            bytes[0] = [0, 1, 127, 120, 130][b % 5];
        }
    }
    bytes
}

fn decoded(block: BlockType, bytes: &[u8]) -> Vec<f32> {
    let mut values = vec![0f32; bytes.len() / block.bytes() * block.values()];
    let blocks = bytes.chunks_exact(block.bytes());
    for (bytes, values) in blocks.zip(values.chunks_exact_mut(block.values())) {
        block.decode(bytes, values);
    }
    values
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn every_instruction_set_unpacks_what_decoding_defines() {
    for block in BlockType::ALL {
        let bytes = blocks(block, 9);
        let expected = decoded(block, &bytes);
        for isa in Isa::available() {
            // From any value on, to any value.
            for (skip, rest) in [(0, 0), (1, 0), (16, 5), (block.values() + 3, 17)] {
                let mut out = vec![f32::NAN; expected.len() - skip - rest];
                let job = Values {
                    block,
                    bytes: &bytes,
                    skip,
                    out: &mut out,
                };
                run_on(isa, job);
                let expected = &expected[skip..expected.len() - rest];
                assert!(
                    bits(&out) == bits(expected),
                    "{isa:?} {} from {skip}",
                    block.name()
                );
            }
        }
    }
}

#[test]
fn every_instruction_set_sums_products_as_over_unpacked_rows() {
    for block in BlockType::ALL {
        for (count, m) in [(1, 1), (2, 1), (5, 1), (3, 2), (2, 3), (1, 5), (3, 8)] {
            let (rows, k) = (7, count * block.values());
            let bytes = blocks(block, rows * count);
            let w = decoded(block, &bytes);
            let x: Vec<f32> = (0..m * padded(k))
                .map(|i| ((i * 37) as f32).sin())
                .collect();
            for isa in Isa::available() {
                let mut expected = vec![0f32; m * rows];
                dot_unpacked_on(isa, &w, k, &x, (&mut expected, rows));
                let mut out = vec![f32::NAN; m * rows];
                let stride = (count * block.bytes()) as isize;
                // SAFETY: the buffer holds all rows.
                let rows = unsafe { BlockRows::new(block, bytes.as_ptr(), stride, count) };
                let job = Dots {
                    rows,
                    x: &x,
                    out: &mut out,
                };
                run_on(isa, job);
                assert!(
                    bits(&out) == bits(&expected),
                    "{isa:?} {} {m} rows, k={k}: {out:?}, not {expected:?}",
                    block.name()
                );
            }
        }
    }
}

#[test]
fn every_instruction_set_packs_codes_and_scales_of_the_values() {
    for block in BlockType::ALL {
        // More than what is read at once, and columns that are not there.
        let (len, cols, sub) = (2 * 256 + block.values(), 13, sub_block(block));
        let bytes = blocks(block, cols * len / block.values());
        let values = decoded(block, &bytes);
        let mut first = None;
        for isa in Isa::available() {
            let mut words = vec![f32::NAN; len / 2 * PANEL];
            let mut scales = vec![f32::NAN; len / sub * PANEL];
            let mut least = scales.clone();
            let mut columns = [[].as_slice(); 16];
            for (column, bytes) in columns.iter_mut().zip(bytes.chunks(bytes.len() / cols)) {
                *column = bytes;
            }
            let pack = Pack {
                block,
                columns,
                first: 16,
                len,
                words: &mut words,
                scales: &mut scales,
                least: &mut least,
            };
            let (has_least, fits) = run_on(isa, pack);
            assert!(fits, "{isa:?} {}", block.name());
            assert_eq!(has_least, middle(block) > 0, "{isa:?} {}", block.name());
            let words: &[[i16; 2]] = bytemuck::cast_slice(&words);
            for j in 0..16 {
                for k in 0..len {
                    let code = f32::from(words[k / 2 * PANEL + 16 + j][k % 2]);
                    let at = k / sub * PANEL + 16 + j;
                    let least = if has_least { least[at] } else { 0.0 };
                    let (found, size) = (code * scales[at] + least, (code * scales[at]).abs());
                    let expected = if j < cols { values[j * len + k] } else { 0.0 };
                    let off = (found - expected).abs();
                    let name = block.name();
                    assert!(
                        off <= size * 2e-7,
                        "{isa:?} {name} {j} {k}: {found:e}, {expected:e}"
                    );
                }
            }
            let all = (words.to_vec(), bits(&scales), bits(&least));
            assert!(
                *first.get_or_insert(all.clone()) == all,
                "{isa:?} {}",
                block.name()
            );
        }
    }
}
