//! Configurations that GGUF files hold are those of the `config.json` beside the same model.

#[path = "../../trt-stream/tests/support/gguf.rs"]
mod gguf;

use gguf::Gguf;
use std::path::PathBuf;
use trt_models::{DecoderConfig, Family, RopeScaling};
use trt_stream::Weights;

fn opened(file: &Gguf) -> Weights {
    let dir = tempfile::tempdir().unwrap();
    Weights::open(file.write(&dir.path().join("m.gguf"))).unwrap()
}

fn config(file: &Gguf) -> DecoderConfig {
    let text = opened(file).config_json().unwrap().unwrap();
    DecoderConfig::from_json(&text).unwrap()
}

#[track_caller]
fn refused(file: &Gguf, parts: &[&str]) {
    let text = opened(file).config_json().unwrap_err().to_string();
    for part in ["m.gguf"].iter().chain(parts) {
        assert!(text.contains(part), "'{part}' is not in: {text}");
    }
}

/// Sizes of a small model; its table has 40 rows.
fn small(name: &str) -> Gguf {
    let key = |rest: &str| format!("{name}.{rest}");
    Gguf::new()
        .text("general.architecture", name)
        .u32(&key("context_length"), 4096)
        .u32(&key("embedding_length"), 512)
        .u32(&key("block_count"), 2)
        .u32(&key("feed_forward_length"), 1024)
        .u32(&key("attention.head_count"), 4)
        .u32(&key("attention.head_count_kv"), 2)
        .f32(&key("attention.layer_norm_rms_epsilon"), 1e-5)
        .f32(&key("rope.freq_base"), 500_000.0)
        .u32("tokenizer.ggml.bos_token_id", 1)
        .u32("tokenizer.ggml.eos_token_id", 2)
        .f32s("token_embd.weight", &[40, 512])
}

#[test]
fn a_llama_has_what_its_values_say() {
    let found = config(&small("llama"));
    let stated = DecoderConfig::from_json(
        r#"{"model_type": "llama", "vocab_size": 40, "hidden_size": 512, "intermediate_size": 1024,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
            "tie_word_embeddings": true, "bos_token_id": 1, "eos_token_id": 2}"#,
    );
    assert_eq!(found, stated.unwrap());
    let untied = config(&small("llama").f32s("output.weight", &[40, 512]));
    assert_eq!(untied.tie_word_embeddings, Some(false));
}

#[test]
fn facts_follow_the_architecture_and_the_tensors() {
    let qwen2 = config(&small("qwen2"));
    assert_eq!(qwen2.family, Family::Qwen2);
    assert!(qwen2.qkv_bias && !qwen2.output_bias && !qwen2.qk_norm);
    let qwen3 = small("qwen3").u32("qwen3.attention.key_length", 64);
    let qwen3 = config(&qwen3);
    assert!(qwen3.qk_norm && qwen3.head_dim == 64 && !qwen3.qkv_bias);
    let mut narrow = small("qwen3");
    narrow.values[5].2 = 8u32.to_le_bytes().to_vec();
    assert_eq!(config(&narrow).head_dim, 64, "an eighth of 512");
    let biased = small("llama")
        .f32s("blk.0.attn_q.bias", &[512])
        .f32s("blk.0.attn_output.bias", &[512]);
    let biased = config(&biased);
    assert!(biased.qkv_bias && biased.output_bias && !biased.mlp_bias);
    let windowed = config(&small("llama").u32("llama.attention.sliding_window", 128));
    assert_eq!(windowed.layer_windows, [Some(128); 2]);
    let windowed = config(&small("qwen2").u32("qwen2.attention.sliding_window", 128));
    assert_eq!(windowed.layer_windows, [Some(128); 2]);
    let several = small("llama").u32("tokenizer.ggml.eot_token_id", 7);
    assert_eq!(config(&several).eos_token_ids, [2, 7]);
}

#[test]
fn stretched_rope_is_read() {
    let linear = small("llama")
        .text("llama.rope.scaling.type", "linear")
        .f32("llama.rope.scaling.factor", 4.0);
    let expected = RopeScaling::Linear { factor: 4.0 };
    assert_eq!(config(&linear).rope_scaling, expected);
    let yarn = small("qwen2")
        .text("qwen2.rope.scaling.type", "yarn")
        .f32("qwen2.rope.scaling.factor", 4.0)
        .u32("qwen2.rope.scaling.original_context_length", 1024);
    let found = config(&yarn).rope_scaling;
    assert!(
        matches!(
            found,
            RopeScaling::Yarn {
                factor: 4.0,
                original_max_positions: 1024,
                ..
            }
        ),
        "{found:?}"
    );
    let longrope = small("llama").text("llama.rope.scaling.type", "longrope");
    refused(&longrope, &["'llama.rope.scaling.type'", "longrope"]);
}

/// What converters store for Llama 3.1 and later: each frequency's divisor, in f32.
fn divisors(pairs: usize, theta: f32, factor: f32, low: f32) -> Vec<u8> {
    let divisor = |pair: usize| {
        let frequency = 1.0 / theta.powf(2.0 * pair as f32 / (2 * pairs) as f32);
        let length = 2.0 * std::f32::consts::PI / frequency;
        if length < 8192.0 / 4.0 {
            1.0
        } else if length > 8192.0 / low {
            factor
        } else {
            let smooth = (8192.0 / length - low) / (4.0 - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    (0..pairs).flat_map(|p| divisor(p).to_le_bytes()).collect()
}

/// The small llama with these bytes as its last tensor.
fn with_divisors(values: &[u8]) -> Weights {
    let file = small("llama").f32s("rope_freqs.weight", &[values.len() as u64 / 4]);
    let mut bytes = file.bytes();
    let begin = bytes.len() - values.len();
    bytes[begin..].copy_from_slice(values);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    std::fs::write(&path, bytes).unwrap();
    Weights::open(path).unwrap()
}

#[test]
fn stored_divisors_of_frequencies_are_those_of_llama_3() {
    for factor in [8.0, 32.0] {
        let weights = with_divisors(&divisors(64, 500_000.0, factor, 1.0));
        let text = weights.config_json().unwrap().unwrap();
        let expected = RopeScaling::Llama3 {
            factor,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_positions: 8192,
        };
        let found = DecoderConfig::from_json(&text).unwrap().rope_scaling;
        assert_eq!(found, expected);
    }
    let other = with_divisors(&divisors(64, 500_000.0, 8.0, 2.0));
    let error = other.config_json().unwrap_err().to_string();
    assert!(error.contains("rope_freqs.weight"), "{error}");
}

#[test]
fn what_would_change_a_result_is_refused_by_name() {
    refused(&Gguf::new(), &["'general.architecture'"]);
    refused(&small("gemma2"), &["'general.architecture'", "gemma2"]);
    for (name, value) in [
        ("llama.expert_count", 8u32),
        ("llama.rope.dimension_count", 64),
        ("llama.attention.value_length", 64),
    ] {
        let quoted = format!("'{name}'");
        refused(
            &small("llama").u32(name, value),
            &[&quoted, &value.to_string()],
        );
    }
    let clamped = small("llama").f32("llama.attention.clamp_kqv", 8.0);
    refused(&clamped, &["clamp_kqv", "8"]);
    let half = small("llama").f32s("blk.0.attn_q.bias", &[512]);
    refused(&half, &["biases"]);
    let mut without = small("llama");
    without
        .values
        .retain(|(key, ..)| key != "llama.block_count");
    refused(&without, &["'llama.block_count'", "no such value"]);
    let mut list = small("llama");
    list.values[5].1 = 9;
    list.values[5].2 = gguf::list(4, &[vec![4, 0, 0, 0]]);
    refused(&list, &["'llama.attention.head_count'", "a list of 1"]);
    let mut nan = small("llama");
    nan.values[7].2 = f32::NAN.to_le_bytes().to_vec();
    refused(&nan, &["layer_norm_rms_epsilon", "NaN"]);
}

/// The default model's file, where it is kept; none without it, unless it is required.
fn default_model() -> Option<(PathBuf, PathBuf)> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let home = || set("HOME").map(|home| home.join(".cache/candle-trt"));
    let cache = set("TRT_SMOLLM2")
        .or_else(|| set("CANDLE_TRT_CACHE"))
        .or_else(home)?;
    let file = cache.join("SmolLM2-135M-Instruct.Q4_1.gguf");
    let folder = cache.join("SmolLM2-135M-Instruct-bf16");
    let there = file.exists() && folder.exists();
    if !there {
        assert!(set("TRT_REQUIRE_MODEL").is_none(), "no {}", file.display());
        eprintln!("not run: no {}", file.display());
    }
    there.then_some((file, folder))
}

#[test]
fn the_default_model_has_the_configuration_of_its_folder() {
    let Some((file, folder)) = default_model() else {
        return;
    };
    let text = Weights::open(file).unwrap().config_json().unwrap().unwrap();
    let found = DecoderConfig::from_json(&text).unwrap();
    let stated = DecoderConfig::from_file(folder.join("config.json")).unwrap();
    assert_eq!(found, stated);
}
