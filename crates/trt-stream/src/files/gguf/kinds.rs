//! How GGUF files number the types of tensors.
//!
//! Types that no kernel reads have a name here all the same, so that whoever asks for such a tensor is told it.

use super::super::header::{Other, Stored};
use trt_kernel::{BlockType, DType, Encoding};

/// Types whose values are read, by number.
const READ: [(u32, Encoding); 16] = [
    (0, Encoding::Plain(DType::F32)),
    (1, Encoding::Plain(DType::F16)),
    (2, Encoding::Blocks(BlockType::Q4_0)),
    (3, Encoding::Blocks(BlockType::Q4_1)),
    (6, Encoding::Blocks(BlockType::Q5_0)),
    (7, Encoding::Blocks(BlockType::Q5_1)),
    (8, Encoding::Blocks(BlockType::Q8_0)),
    (10, Encoding::Blocks(BlockType::Q2K)),
    (11, Encoding::Blocks(BlockType::Q3K)),
    (12, Encoding::Blocks(BlockType::Q4K)),
    (13, Encoding::Blocks(BlockType::Q5K)),
    (14, Encoding::Blocks(BlockType::Q6K)),
    (20, Encoding::Blocks(BlockType::Iq4Nl)),
    (23, Encoding::Blocks(BlockType::Iq4Xs)),
    (30, Encoding::Plain(DType::BF16)),
    (39, Encoding::Blocks(BlockType::Mxfp4)),
];

/// Types that are only named.
const NAMED: [(u32, &str); 17] = [
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (40, "NVFP4"),
];

/// How the values of a tensor of this type are stored.
pub(crate) fn stored(number: u32) -> Stored {
    if let Some((_, encoding)) = READ.iter().find(|(n, _)| *n == number) {
        return Stored::As(*encoding);
    }
    Stored::Otherwise(match NAMED.iter().find(|(n, _)| *n == number) {
        Some((_, name)) => Other::Known(name),
        None => Other::Number(number),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_type_has_one_number() {
        for block in BlockType::ALL {
            let numbers = READ.iter().filter(|(_, e)| *e == Encoding::Blocks(block));
            assert_eq!(numbers.count(), 1, "{block:?}");
        }
        let mut all: Vec<u32> = READ.iter().map(|(n, _)| *n).collect();
        all.extend(NAMED.iter().map(|(n, _)| *n));
        all.sort_unstable();
        assert!(all.windows(2).all(|w| w[0] < w[1]), "{all:?}");
    }
}
