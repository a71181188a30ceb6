//! What blocks mean, against values that an independent reader gave them.
//!
//! The files are made by `tests/references/blocks.py`. The candle package is the other witness:
//! `tests/suite/blocks.rs` of the root package.

use std::path::PathBuf;
use trt_kernel::BlockType;

/// The blocks of a reference file, and their values.
fn reference(block: BlockType) -> (Vec<u8>, Vec<f32>) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/references/blocks");
    let bytes = std::fs::read(folder.join(format!("{}.bin", block.name()))).unwrap();
    let count = bytes.len() / (block.bytes() + 4 * block.values());
    let (blocks, values) = bytes.split_at(count * block.bytes());
    assert!(count >= 3 && values.len() == 4 * count * block.values());
    let values = values.as_chunks::<4>().0;
    let values = values.iter().map(|b| f32::from_le_bytes(*b)).collect();
    (blocks.to_vec(), values)
}

#[test]
fn blocks_of_every_type_have_the_values_of_the_reference_files_bit_for_bit() {
    for block in BlockType::ALL {
        let (blocks, expected) = reference(block);
        let mut values = vec![f32::NAN; block.values()];
        let blocks = blocks.chunks_exact(block.bytes());
        for (b, (bytes, expected)) in blocks
            .zip(expected.chunks_exact(block.values()))
            .enumerate()
        {
            block.decode(bytes, &mut values);
            for (i, (value, expected)) in values.iter().zip(expected).enumerate() {
                assert_eq!(
                    value.to_bits(),
                    expected.to_bits(),
                    "{} block {b} value {i}: {value} is not {expected}",
                    block.name()
                );
            }
        }
    }
}

#[test]
fn what_is_no_whole_block_leaves_the_values_alone() {
    for block in BlockType::ALL {
        let bytes = vec![0x11; block.bytes()];
        let mut values = vec![7f32; block.values()];
        block.decode(&bytes[1..], &mut values);
        assert!(values.iter().all(|v| *v == 7.0));
        let fewer = block.values() - 1;
        block.decode(&bytes, &mut values[..fewer]);
        assert!(values.iter().all(|v| *v == 7.0));
    }
}
