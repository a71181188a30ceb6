//! GGUF files as weights: whatever a file says of itself, tensors lie in it, values are read or refused, and what is held
//! is in proportion to the file. Ten million of them: `TRT_FUZZ_CASES=10000000 cargo test --release -p candle-trt-fuzz
//! gguf_file`.

use crate::files::{folder, put};
use candle_trt::Weights;
use candle_trt_fuzz::Target;
use fastrand::Rng;
use std::path::Path;

/// The builder of the files of tests, wrong ones too.
#[path = "../../../crates/trt-stream/tests/support/gguf.rs"]
mod made;
use made::{Gguf, list, text};

/// Numbers that sizes, counts and offsets are changed to.
const NUMBERS: [u64; 14] = [
    0,
    1,
    2,
    31,
    32,
    33,
    255,
    1 << 20,
    1 << 31,
    u32::MAX as u64,
    1 << 40,
    1 << 62,
    1 << 63,
    u64::MAX,
];

fn number(rng: &mut Rng) -> u64 {
    match rng.u32(..3) {
        0 => rng.u64(..64),
        1 => rng.u64(..),
        _ => NUMBERS[rng.usize(..NUMBERS.len())],
    }
}

/// A llama of one layer, and a file with values and tensors of all sorts.
fn files() -> [Gguf; 2] {
    let llama = Gguf::new()
        .text("general.architecture", "llama")
        .u32("llama.block_count", 1)
        .u32("llama.context_length", 64)
        .u32("llama.embedding_length", 32)
        .u32("llama.feed_forward_length", 64)
        .u32("llama.attention.head_count", 2)
        .u32("llama.attention.head_count_kv", 1)
        .f32("llama.attention.layer_norm_rms_epsilon", 1e-5)
        .f32("llama.rope.freq_base", 10_000.0)
        .u32("tokenizer.ggml.eos_token_id", 1)
        .tensor("token_embd.weight", &[3, 32], 8, 3 * 34)
        .f32s("blk.0.attn_norm.weight", &[32])
        .tensor("blk.0.attn_q.weight", &[32, 32], 2, 32 * 18)
        .tensor("blk.0.attn_k.weight", &[16, 32], 3, 16 * 20)
        .f32s("rope_freqs.weight", &[8])
        .f32s("output_norm.weight", &[32]);
    let nested = list(9, &[list(4, &[vec![1, 0, 0, 0]]), list(8, &[text("x")])]);
    let sorts = Gguf::new()
        .u32("general.alignment", 32)
        .u16("split.count", 1)
        .value("words", 9, list(8, &[text("a"), text(""), text("größe")]))
        .value("bytes", 9, list(0, &[vec![7; 40]]))
        .value("flags", 9, list(7, &[vec![0], vec![1]]))
        .value("nested", 9, nested)
        .value("long", 12, vec![1; 8])
        .tensor("k", &[1, 256], 12, 144)
        .tensor("iq", &[1, 256], 16, 66)
        .f32s("s", &[])
        .f32s("four", &[1, 2, 3, 4]);
    [llama, sorts]
}

/// One change of what a file says.
fn change(file: &mut Gguf, rng: &mut Rng) {
    let (values, tensors) = (file.values.len(), file.tensors.len());
    match rng.u32(..13) {
        0 => file.version = number(rng) as u32,
        1 => file.tensor_count = Some(number(rng)),
        2 => file.value_count = Some(number(rng)),
        3 => file.data = Some(rng.usize(..2048)),
        4 if values > 0 => file.values[rng.usize(..values)].1 = rng.u32(..15),
        5 if values > 0 => {
            let bytes = &mut file.values[rng.usize(..values)].2;
            let at = rng.usize(..=bytes.len());
            let word = number(rng).to_le_bytes();
            let end = (at + 8).min(bytes.len());
            bytes[at..end].copy_from_slice(&word[..end - at]);
        }
        6 if values > 0 => {
            let again = file.values[rng.usize(..values)].clone();
            file.values.push(again);
        }
        7 => {
            let depth = rng.u32(..8);
            let deep = (0..depth).fold(list(0, &[]), |inner, _| list(9, &[inner]));
            file.values.push(("deep".into(), 9, deep));
        }
        8 => {
            let mut count = rng.u32(..14).to_le_bytes().to_vec();
            count.extend(number(rng).to_le_bytes());
            file.values.push(("counted".into(), 9, count));
        }
        9 if tensors > 0 => {
            let sizes = &mut file.tensors[rng.usize(..tensors)].sizes;
            match sizes.is_empty() || rng.bool() {
                true => sizes.push(number(rng)),
                false => {
                    let at = rng.usize(..sizes.len());
                    sizes[at] = number(rng);
                }
            }
        }
        10 if tensors > 0 => file.tensors[rng.usize(..tensors)].kind = rng.u32(..44),
        11 if tensors > 0 => {
            let offset = match rng.bool() {
                true => rng.u64(..64) * 32,
                false => number(rng),
            };
            file.tensors[rng.usize(..tensors)].offset = offset;
        }
        12 if tensors > 0 => {
            let mut again = file.tensors[rng.usize(..tensors)].clone();
            if rng.bool() {
                again.name.push('x');
            }
            file.tensors.push(again);
        }
        _ => {}
    }
}

/// Opens a file, and looks at all that it is said to hold.
fn look(path: &Path) {
    let weights = match Weights::open(path) {
        Ok(weights) => weights,
        Err(error) => return drop(error.to_string()),
    };
    for (id, info) in weights.iter() {
        let bytes = weights.bytes(id).expect("an id of these weights");
        let row = info.encoding.row_bytes(info.columns());
        let row = row.expect("rows are whole blocks");
        assert_eq!(bytes.len(), info.rows() * row, "{info:?}");
        assert_eq!(weights.find(&info.name).expect("its name"), id);
    }
    std::hint::black_box(weights.fingerprint());
    let metadata = weights.metadata().expect("values of a GGUF file");
    for (key, _) in metadata.iter() {
        drop((metadata.texts(key), metadata.integers(key)));
        drop((metadata.number(key), metadata.text(key)));
    }
    drop(weights.config_json().map_err(|e| e.to_string()));
    for (name, id) in weights.hugging_face().unwrap_or_default() {
        if let Ok(view) = weights.view(&name) {
            assert_eq!(view.id, id, "{name}");
        }
    }
}

fn target<'a>(name: &'a str, corpus: &'a [Vec<u8>]) -> Target<'a> {
    Target {
        words: &[
            "GGUF",
            "general.alignment",
            "split.count",
            "blk.0.attn_q.weight",
        ],
        // Ten times the file, and what paths, messages and a configuration take.
        bytes: 32 << 10,
        times: 10,
        ..Target::new(name, corpus)
    }
}

#[test]
fn a_gguf_file_whose_parts_are_changed_is_opened_or_refused() {
    let (dir, files) = (folder(), files());
    let path = dir.path().join("m.gguf");
    let corpus = files.each_ref().map(Gguf::bytes);
    // What a file has for data does not follow from what it says of it.
    let files = files.map(|file| {
        let ends = file.tensors.iter().map(|t| t.offset + t.bytes);
        let data = Some(ends.max().unwrap_or(0) as usize);
        Gguf { data, ..file }
    });
    let target = target("gguf-weights", &corpus);
    let input = |seed: u64, case: u64| {
        if let Some(valid) = usize::try_from(case).ok().and_then(|i| corpus.get(i)) {
            return valid.clone();
        }
        let mut rng = Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ case);
        let mut file = files[rng.usize(..files.len())].clone();
        for _ in 0..rng.u32(..4) {
            change(&mut file, &mut rng);
        }
        match rng.u32(..3) {
            0 => target.changed(file.bytes(), &mut rng),
            _ => file.bytes(),
        }
    };
    target.run_on(input, |bytes| look(&put(&path, bytes)));
}

#[test]
fn a_header_that_says_as_much_as_it_can_is_held_in_ten_times_its_bytes() {
    let name = |i: usize| {
        let letter = |n: usize| char::from(b'!' + (n % 90) as u8);
        [letter(i), letter(i / 90), letter(i / 8100)]
            .iter()
            .collect::<String>()
    };
    let mut tensors = Gguf::new().u32("general.alignment", 1);
    tensors.alignment = 1;
    let tensors = (0..100_000).fold(tensors, |file, i| file.tensor(&name(i), &[], 1, 2));
    let unknown = (0..100_000).fold(Gguf::new(), |file, i| file.tensor(&name(i), &[], 99, 0));
    let values = (0..100_000).fold(Gguf::new(), |file, i| file.value(&name(i), 0, vec![1]));
    let empty: Vec<Vec<u8>> = (0..100_000).map(|_| text("")).collect();
    let lists = Gguf::new().value("texts", 9, list(8, &empty)).value(
        "bytes",
        9,
        list(0, &vec![vec![1]; 100_000]),
    );
    let corpus = [tensors, unknown, values, lists].map(|file| file.bytes());
    let dir = folder();
    let path = dir.path().join("m.gguf");
    target("gguf-dense", &corpus).run_corpus(|bytes| {
        let weights = Weights::open(put(&path, bytes)).expect("a valid file");
        let metadata = weights.metadata().expect("values of a GGUF file");
        drop((metadata.texts("texts"), metadata.integers("bytes")));
    });
}
