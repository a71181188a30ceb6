//! Rope's frequencies against transformers, against formulas in f64, and what calls turn by them.

use serde_json::{Value, json};
use trt_graph::candle::{DType, Device, Tensor};
use trt_models::frequencies::Frequencies;
use trt_models::rope::RotaryEmbedding;
use trt_models::{DecoderConfig, RopeScaling};

/// A file with heads of `dim` elements and `extra` fields.
fn config(dim: usize, extra: Value) -> DecoderConfig {
    let mut json = json!({
        "model_type": "llama", "vocab_size": 64, "hidden_size": 4 * dim, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": dim,
    });
    let object = json.as_object_mut().expect("an object");
    object.extend(extra.as_object().expect("an object").clone());
    DecoderConfig::from_json(&json.to_string()).expect("a valid config")
}

fn assert_near(what: &str, got: &[f32], want: &[f64], relative: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (pair, (got, want)) in got.iter().zip(want).enumerate() {
        let off = (f64::from(*got) - want).abs() / want.abs();
        assert!(off <= relative, "{what}, pair {pair}: {got} for {want}");
    }
}

/// `references/rope.json` is made by `scripts/rope_reference.py`.
#[test]
fn frequencies_are_those_of_transformers() {
    let file: Value =
        serde_json::from_str(include_str!("references/rope.json")).expect("the references");
    let cases = file["cases"].as_array().expect("cases");
    assert!(cases.len() >= 18, "{} cases", cases.len());
    for case in cases {
        let said = case["config"].to_string();
        let config = DecoderConfig::from_json(&said).expect("a file that transformers reads");
        let length = case["length"].as_u64().expect("a length") as usize;
        let inverse: Vec<f64> = (case["inverse"].as_array().expect("frequencies").iter())
            .map(|v| v.as_f64().expect("a number"))
            .collect();
        let ours = Frequencies::at(&config, length).expect("valid");
        assert_near(
            &format!("{said} at {length}"),
            &ours.inverse,
            &inverse,
            4e-7,
        );
        let factor = case["attention_factor"].as_f64().expect("a number");
        assert_eq!(ours.attention_factor, factor as f32, "{said}");
    }
}

/// The plain frequency of pair `i`, in f64.
fn plain(theta: f64, dim: usize, i: usize) -> f64 {
    theta.powf(-2.0 * i as f64 / dim as f64)
}

#[test]
fn yarn_keeps_fast_pairs_divides_slow_ones_and_ramps_between() {
    let config = config(
        128,
        json!({"rope_theta": 1e6, "max_position_embeddings": 32768, "rope_scaling": {
            "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768,
        }}),
    );
    // The pair that turns r times within 32768 positions: 128 ln(32768 / 2 pi r) / (2 ln 10^6).
    let pair = |turns: f64| {
        64.0 * (32768.0 / (2.0 * std::f64::consts::PI * turns)).ln() / 1_000_000f64.ln()
    };
    let (low, high) = (pair(32.0).floor(), pair(1.0).ceil());
    assert_eq!((low, high), (23.0, 40.0));
    let want: Vec<f64> = (0..64)
        .map(|i| {
            let divided = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
            plain(1e6, 128, i) * (divided / 4.0 + (1.0 - divided))
        })
        .collect();
    let ours = Frequencies::new(&config).expect("valid");
    assert_near("yarn", &ours.inverse, &want, 2e-6);
    let factor = 0.1 * 4f64.ln() + 1.0;
    assert!((f64::from(ours.attention_factor) - factor).abs() < 1e-6);
    assert_eq!(config.max_positions(), 131_072);
}

#[test]
fn linear_divides_every_frequency() {
    let config = config(
        16,
        json!({"max_position_embeddings": 100, "rope_scaling": {"type": "linear", "factor": 8}}),
    );
    let want: Vec<f64> = (0..8).map(|i| plain(1e4, 16, i) / 8.0).collect();
    let ours = Frequencies::new(&config).expect("valid");
    assert_near("linear", &ours.inverse, &want, 1e-6);
    assert_eq!(config.max_positions(), 800);
}

fn dynamic() -> DecoderConfig {
    config(
        16,
        json!({"max_position_embeddings": 64, "rope_scaling": {"type": "dynamic", "factor": 2.0}}),
    )
}

/// The base grows once a text is longer than `max_position_embeddings`.
fn dynamic_at(length: usize) -> Vec<f64> {
    let grown = (2.0 * length.max(64) as f64 / 64.0 - 1.0).powf(16.0 / 14.0);
    (0..8).map(|i| plain(1e4 * grown, 16, i)).collect()
}

#[test]
fn dynamic_frequencies_depend_on_the_length_beyond_the_original_context_only() {
    for length in [0, 1, 64, 65, 100, 128, 1000] {
        let ours = Frequencies::at(&dynamic(), length).expect("valid");
        assert_near(
            &format!("at {length}"),
            &ours.inverse,
            &dynamic_at(length),
            1e-6,
        );
    }
    let at = |length| Frequencies::at(&dynamic(), length).expect("valid");
    assert_eq!(at(64), at(0));
}

/// `[cos - sin.., cos + sin..]` of each position: what ones are turned into.
fn turned(rotary: &RotaryEmbedding, start: usize, count: usize, dim: usize) -> Vec<Vec<f32>> {
    let ones = Tensor::ones((1, 1, count, dim), DType::F32, &Device::Cpu).expect("ones");
    let rows = rotary.rows(start, count).expect("rows");
    let x = rows.apply(&ones).expect("turned");
    x.reshape((count, dim))
        .and_then(|x| x.to_vec2())
        .expect("constants")
}

fn assert_turned(what: &str, got: &[Vec<f32>], start: usize, frequencies: &[f64], factor: f64) {
    let half = frequencies.len();
    for (i, row) in got.iter().enumerate() {
        for (pair, frequency) in frequencies.iter().enumerate() {
            let angle = (start + i) as f64 * frequency;
            let want = [
                (angle.cos() - angle.sin()) * factor,
                (angle.cos() + angle.sin()) * factor,
            ];
            let tolerance = 2e-6 + 2e-6 * angle;
            for (got, want) in [row[pair], row[half + pair]].iter().zip(want) {
                let off = (f64::from(*got) - want).abs();
                assert!(
                    off <= tolerance,
                    "{what}, position {}, pair {pair}: {got} for {want}",
                    start + i
                );
            }
        }
    }
}

#[test]
fn a_call_beyond_the_original_context_is_turned_by_the_frequencies_of_its_end() {
    let config = dynamic();
    let rotary = RotaryEmbedding::new(&config, 300, DType::F32, &Device::Cpu).expect("rope");
    for (start, count) in [
        (0, 5),
        (60, 4),
        (60, 5),
        (0, 100),
        (99, 1),
        (200, 1),
        (150, 150),
    ] {
        let got = turned(&rotary, start, count, 16);
        let want = dynamic_at(start + count);
        assert_turned(&format!("{start} + {count}"), &got, start, &want, 1.0);
    }
}

#[test]
fn yarn_scales_what_it_turns() {
    let config = config(
        16,
        json!({"max_position_embeddings": 256, "rope_scaling": {
            "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64,
        }}),
    );
    let frequencies = Frequencies::new(&config).expect("valid");
    let exact: Vec<f64> = frequencies.inverse.iter().map(|f| f64::from(*f)).collect();
    let rotary = RotaryEmbedding::new(&config, 256, DType::F32, &Device::Cpu).expect("rope");
    let factor = 0.1 * 4f64.ln() + 1.0;
    assert_turned("yarn", &turned(&rotary, 250, 6, 16), 250, &exact, factor);
}

#[test]
fn positions_beyond_what_was_made_are_an_error_with_both_numbers() {
    for config in [
        dynamic(),
        config(16, json!({"max_position_embeddings": 64})),
    ] {
        let rotary = RotaryEmbedding::new(&config, 64, DType::F32, &Device::Cpu).expect("rope");
        for (start, count) in [(60, 5), (64, 1), (usize::MAX, 2)] {
            let said = rotary.rows(start, count).expect_err("beyond").to_string();
            assert!(said.contains("64 positions"), "{said}");
        }
        assert!(rotary.rows(60, 4).is_ok());
    }
    let too_many = RotaryEmbedding::new(&dynamic(), usize::MAX, DType::F32, &Device::Cpu);
    let said = too_many.expect_err("too many").to_string();
    assert!(said.contains("16777216"), "{said}");
}

#[test]
fn configurations_that_were_made_rather_than_read_are_checked_too() {
    let mut zero = dynamic();
    zero.num_key_value_heads = 0;
    assert_eq!(zero.heads_per_kv_head(), 0);
    let mut odd = dynamic();
    odd.head_dim = 7;
    let mut endless = dynamic();
    endless.rope_scaling = RopeScaling::Linear { factor: 0.0 };
    for (config, name) in [
        (zero, "num_key_value_heads"),
        (odd, "head_dim"),
        (endless, "factor"),
    ] {
        let made = RotaryEmbedding::new(&config, 8, DType::F32, &Device::Cpu);
        let said = made.expect_err("refused").to_string();
        assert!(said.contains(name), "{said}");
    }
}
