//! Words that threads copy: all of them, and nothing beside them.

use super::*;
use emulator::raw;

/// Copies the first `words` of a buffer with one word more in so many blocks.
fn pulled(target: Target, words: usize, blocks: u32) -> [Buffer; 2] {
    let pull = ptx::pull(target);
    let mut args = [
        Buffer::zeros(DType::I64, words + 1),
        Buffer::random(DType::I64, words + 1, 3),
    ];
    args[0].bytes.fill(0xa5);
    let call = Call {
        written: vec![Arg(0)],
        seed: u64::from(blocks),
        ..Call::default()
    };
    let params = |at: &[u64]| vec![at[0], at[1], words as u64];
    let (text, entry) = ((&*pull.text, target), (pull.entry, pull.block, blocks));
    raw::run(text, entry, &call, &mut args, params).unwrap_or_else(|e| panic!("{target}: {e}"));
    args
}

#[test]
fn every_word_arrives_and_nothing_behind_the_end_is_touched() {
    for target in Target::ALL {
        // Less than a round, whole rounds, and rounds that end in the middle.
        for words in [0, 1, 255, 256, 257, 1024, 1500, 2048, 5000] {
            for blocks in [1, 2, 5] {
                let [to, from] = pulled(target, words, blocks);
                let end = 8 * words;
                assert_eq!(to.bytes[..end], from.bytes[..end], "{words} in {blocks}");
                assert_eq!(to.bytes[end..], [0xa5; 8], "{words} in {blocks}");
            }
        }
    }
}
