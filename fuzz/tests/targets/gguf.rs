//! GGUF files: the header, the configuration and the tokenizer made of it, and the tensors' values.

use crate::files::{folder, put};
use candle_trt_cli::check_gguf;
use candle_trt_fuzz::Target;

/// A file with one layer, as small as it can be.
struct File(Vec<u8>);

impl File {
    fn u32(&mut self, n: u32) -> &mut Self {
        self.0.extend(n.to_le_bytes());
        self
    }

    fn u64(&mut self, n: u64) -> &mut Self {
        self.0.extend(n.to_le_bytes());
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.u64(text.len() as u64).0.extend(text.bytes());
        self
    }

    fn number(&mut self, key: &str, n: u32) {
        self.text(key).u32(4).u32(n);
    }

    fn word(&mut self, key: &str, word: &str) {
        self.text(key).u32(8).text(word);
    }

    fn words(&mut self, key: &str, words: &[&str]) {
        self.text(key).u32(9).u32(8).u64(words.len() as u64);
        for word in words {
            self.text(word);
        }
    }
}

const TENSORS: [(&str, &[u64], u32); 11] = [
    ("token_embd", &[32, 3], 3),
    ("blk.0.attn_norm", &[32], 0),
    ("blk.0.attn_q", &[32, 4], 8),
    ("blk.0.attn_k", &[32, 2], 1),
    ("blk.0.attn_v", &[32, 2], 30),
    ("blk.0.attn_output", &[32, 2], 2),
    ("blk.0.ffn_norm", &[32], 0),
    ("blk.0.ffn_gate", &[32, 2], 6),
    ("blk.0.ffn_up", &[32, 2], 7),
    ("blk.0.ffn_down", &[32, 1], 3),
    ("output_norm", &[32], 0),
];

/// Type, values of a block, bytes of a block.
const TYPES: [(u32, u64, u64); 8] = [
    (0, 1, 4),
    (1, 1, 2),
    (2, 32, 18),
    (3, 32, 20),
    (6, 32, 22),
    (7, 32, 24),
    (8, 32, 34),
    (30, 1, 2),
];

fn file() -> Vec<u8> {
    let mut file = File(b"GGUF".to_vec());
    file.u32(3).u64(TENSORS.len() as u64).u64(18);
    file.word("general.architecture", "llama");
    for (key, n) in [
        ("block_count", 1),
        ("embedding_length", 32),
        ("feed_forward_length", 2),
        ("attention.head_count", 2),
        ("attention.head_count_kv", 1),
        ("context_length", 64),
    ] {
        file.number(&format!("llama.{key}"), n);
    }
    for key in ["attention.layer_norm_rms_epsilon", "rope.freq_base"] {
        file.text(&format!("llama.{key}"))
            .u32(6)
            .u32(1e-5f32.to_bits());
    }
    file.word("tokenizer.ggml.model", "gpt2");
    file.word("tokenizer.ggml.pre", "smollm");
    file.words("tokenizer.ggml.tokens", &["a", "b", "ab"]);
    file.words("tokenizer.ggml.merges", &["a b"]);
    file.text("tokenizer.ggml.token_type")
        .u32(9)
        .u32(5)
        .u64(3)
        .u32(3)
        .u32(1)
        .u32(1);
    file.number("tokenizer.ggml.bos_token_id", 0);
    file.number("tokenizer.ggml.eos_token_id", 0);
    file.word("tokenizer.chat_template", "{{ messages }}");
    // A list of lists, which nothing reads.
    file.text("other")
        .u32(9)
        .u32(9)
        .u64(1)
        .u32(0)
        .u64(2)
        .0
        .extend([1, 2]);
    let mut offset = 0;
    for (name, dims, kind) in TENSORS {
        file.text(&format!("{name}.weight")).u32(dims.len() as u32);
        for dim in dims {
            file.u64(*dim);
        }
        file.u32(kind).u64(offset);
        let (_, block, bytes) = TYPES
            .into_iter()
            .find(|t| t.0 == kind)
            .expect("a type of the table");
        offset += dims.iter().product::<u64>() / block * bytes;
        offset = offset.next_multiple_of(32);
    }
    let data = file.0.len().next_multiple_of(32) + offset as usize;
    file.0.resize(data, 1);
    file.0
}

#[test]
fn the_file_that_mutations_begin_with_is_valid() {
    let dir = folder();
    let path = put(&dir.path().join("model.gguf"), &file());
    check_gguf(&path).expect("a valid file");
}

#[test]
fn a_gguf_file_of_any_bytes_is_read_or_refused() {
    let corpus = [file()];
    let mut target = Target::new("gguf", &corpus);
    target.words = &[
        "GGUF",
        "llama.block_count",
        "general.alignment",
        "tokenizer.ggml.tokens",
        "blk.0.attn_q.weight",
        "output.weight",
    ];
    let dir = folder();
    let path = dir.path().join("model.gguf");
    target.run(|bytes| drop(check_gguf(&put(&path, bytes))));
}
