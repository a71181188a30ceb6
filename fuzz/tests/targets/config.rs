//! `config.json`: real ones of every family and rope type, mutated.

use candle_trt::candle::DType;
use candle_trt::candle_nn::{Stored, VarBuilder, WeightSource};
use candle_trt::graph::{Profile, compile, trace};
use candle_trt::models::frequencies::Frequencies;
use candle_trt::models::{DecoderConfig, Llama};
use candle_trt_fuzz::Target;
use std::sync::Arc;

/// What each file adds to a small model's sizes.
const FILES: [&str; 10] = [
    // SmolLM2.
    r#""model_type": "llama", "architectures": ["LlamaForCausalLM"], "attention_bias": false,
       "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
       "initializer_range": 0.041666666666666664, "is_llama_config": true, "max_position_embeddings": 8192,
       "mlp_bias": false, "pad_token_id": 2, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_interleaved": false,
       "rope_scaling": null, "rope_theta": 100000, "tie_word_embeddings": true, "torch_dtype": "bfloat16""#,
    // Llama 3.1.
    r#""model_type": "llama", "eos_token_id": [128001, 128008, 128009], "max_position_embeddings": 131072,
       "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
       "original_max_position_embeddings": 8192, "rope_type": "llama3"}, "rope_theta": 500000.0"#,
    // Mistral, Qwen2.5, Qwen3.
    r#""model_type": "mistral", "sliding_window": 4096, "max_position_embeddings": 32768, "head_dim": null,
       "rope_theta": 10000.0, "tie_word_embeddings": false, "use_cache": true"#,
    r#""model_type": "qwen2", "use_sliding_window": false, "sliding_window": 131072, "max_window_layers": 28,
       "max_position_embeddings": 131072, "rope_theta": 1000000.0, "use_mrope": false"#,
    r#""model_type": "qwen3", "head_dim": 8, "attention_bias": false, "use_sliding_window": true,
       "sliding_window": 8, "max_window_layers": 1, "layer_types": ["full_attention", "sliding_attention"]"#,
    // Rope types, in the old spelling and the new.
    r#""model_type": "qwen2", "max_position_embeddings": 32768, "rope_scaling": {"type": "yarn", "factor": 4.0,
       "original_max_position_embeddings": 32768}"#,
    r#""model_type": "llama", "max_position_embeddings": 16, "rope_scaling": {"type": "dynamic", "factor": 2.0}"#,
    r#""model_type": "mistral", "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e9, "factor": 16.0,
       "beta_fast": 4.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0, "truncate": false,
       "attention_factor": 1.1, "original_max_position_embeddings": 16384, "type": "yarn"}"#,
    r#""architectures": ["LlamaForCausalLM"], "rope_scaling": {"type": "linear", "factor": 4}, "dtype": "float16""#,
    // A model with vision.
    r#""model_type": "llava", "text_config": {"model_type": "llama", "vocab_size": 48, "hidden_size": 32,
       "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2},
       "vision_config": {"model_type": "clip_vision_model", "hidden_size": 1024}"#,
];

const WORDS: [&str; 24] = [
    "\"num_hidden_layers\":",
    "\"head_dim\":",
    "\"max_position_embeddings\":",
    "\"sliding_window\":",
    "\"layer_types\":",
    "\"rope_scaling\":",
    "\"rope_parameters\":",
    "\"partial_rotary_factor\":",
    "\"mrope_section\":",
    "\"text_config\":",
    "\"quantization_config\":",
    "\"dynamic\"",
    "\"yarn\"",
    "\"longrope\"",
    "\"qwen3\"",
    "null",
    "true",
    "-1",
    "64.0",
    "1e308",
    "1000000000000",
    "9223372036854775816",
    "18446744073709551616",
    "\u{feff}",
];

fn corpus() -> Vec<Vec<u8>> {
    let sizes = r#""vocab_size": 48, "hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2"#;
    let file = |extra: &&str| format!("{{{sizes}, {extra}}}").into_bytes();
    FILES.iter().map(file).collect()
}

#[test]
fn a_config_of_any_text_is_read_or_refused() {
    let corpus = corpus();
    for file in &corpus {
        let text = std::str::from_utf8(file).expect("text");
        DecoderConfig::from_json(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    }
    let target = Target {
        words: &WORDS,
        ..Target::new("config", &corpus)
    };
    target.run(|bytes| {
        let Ok(config) = DecoderConfig::from_json(&String::from_utf8_lossy(bytes)) else {
            return;
        };
        config.validate().expect("what is read is checked");
        assert!(config.heads_per_kv_head() > 0 && config.max_positions() > 0);
        for length in [0, config.max_positions()] {
            let frequencies = Frequencies::at(&config, length).expect("what is read is checked");
            assert_eq!(frequencies.inverse.len(), config.head_dim / 2);
            assert!(frequencies.inverse.iter().all(|f| f.is_finite()));
            assert!(frequencies.attention_factor.is_finite());
        }
    });
}

/// The weights that a configuration asks for, and no others.
struct Shapes(DecoderConfig);

impl WeightSource for Shapes {
    fn find(&self, name: &str) -> Option<Stored> {
        let stored = |shape| Stored::new(name, shape, candle_trt::kernel::DType::F32);
        let c = &self.0;
        let q = c.num_attention_heads * c.head_dim;
        let kv = c.num_key_value_heads * c.head_dim;
        let short = name.strip_prefix("model.")?;
        let mut parts = short.rsplit('.');
        let bias = parts.next()? == "bias";
        let (rows, columns) = match parts.next()? {
            "embed_tokens" => (c.vocab_size, c.hidden_size),
            "q_proj" => (q, c.hidden_size),
            "k_proj" | "v_proj" => (kv, c.hidden_size),
            "o_proj" => (c.hidden_size, q),
            "gate_proj" | "up_proj" => (c.intermediate_size, c.hidden_size),
            "down_proj" => (c.hidden_size, c.intermediate_size),
            "q_norm" | "k_norm" => return Some(stored(vec![c.head_dim])),
            _ => return Some(stored(vec![c.hidden_size])),
        };
        let shape = match bias {
            true => vec![rows],
            false => vec![rows, columns],
        };
        Some(stored(shape))
    }

    fn similar(&self, _: &str) -> Vec<String> {
        vec![]
    }
}

#[test]
fn a_model_of_any_config_is_compiled_or_refused() {
    let corpus = corpus();
    let target = Target {
        words: &WORDS,
        // Most are refused; compiling one takes milliseconds.
        cases: 5_000,
        bytes: 256 << 20,
        ..Target::new("config-model", &corpus)
    };
    target.run(|bytes| {
        let Ok(config) = DecoderConfig::from_json(&String::from_utf8_lossy(bytes)) else {
            return;
        };
        // Layers are many times the same.
        if config.num_hidden_layers > 4 {
            return;
        }
        let vb = VarBuilder::new(Arc::new(Shapes(config.clone())), DType::F32);
        let mut load = |vb| Llama::load(vb, &config);
        let profile = Profile::decoder(24, 8).expect("a profile");
        for class in &profile.classes {
            if let Ok(graph) = trace(&mut load, &vb, class) {
                let _ = compile(graph);
            }
        }
    });
}
