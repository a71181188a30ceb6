//! Tiny random checkpoints: a `config.json` and safetensors as Hugging Face lays them out, for each family.
//!
//! The numbers depend on the seed and the tensor's name only, so a checkpoint is the same wherever it is
//! made, and an f16 or bf16 one is the rounded f32 one.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};
use trt_models::DecoderConfig;

/// A model small enough to make in a test.
#[derive(Debug, Clone)]
pub struct Tiny {
    /// For messages.
    pub name: &'static str,
    /// The `config.json`; change it freely before writing.
    pub json: Value,
}

/// Every family and every fact that changes the computation, each at least once.
pub fn all() -> Vec<Tiny> {
    vec![
        llama(),
        llama3(),
        linear_rope(),
        yarn(),
        dynamic(),
        mistral(),
        qwen2(),
        qwen3(),
    ]
}

fn with(name: &'static str, model_type: &str, extra: Value) -> Tiny {
    let mut json = json!({
        "model_type": model_type, "vocab_size": 96, "hidden_size": 48, "intermediate_size": 80,
        "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2,
        "max_position_embeddings": 640, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": false, "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2,
    });
    let object = json.as_object_mut().expect("an object literal");
    object.extend(extra.as_object().expect("an object literal").clone());
    Tiny { name, json }
}

/// As SmolLM2: tied head, grouped queries.
pub fn llama() -> Tiny {
    with(
        "llama",
        "llama",
        json!({"tie_word_embeddings": true, "rope_theta": 100000.0}),
    )
}

/// As Llama 3.1: untied head, stretched rope.
pub fn llama3() -> Tiny {
    with(
        "llama3",
        "llama",
        json!({"rope_theta": 500.0, "rope_scaling": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }}),
    )
}

/// As a Llama 2 with linearly stretched rope; no grouping, biases everywhere.
pub fn linear_rope() -> Tiny {
    with(
        "llama-linear",
        "llama",
        json!({"num_key_value_heads": 6, "rope_scaling": {"type": "linear", "factor": 4.0},
               "attention_bias": true, "mlp_bias": true}),
    )
}

/// As a Llama stretched by YaRN from 64 positions.
pub fn yarn() -> Tiny {
    with(
        "llama-yarn",
        "llama",
        json!({"head_dim": 16, "rope_scaling": {
            "type": "yarn", "rope_type": "yarn", "factor": 10.0, "original_max_position_embeddings": 64,
        }}),
    )
}

/// As a Llama whose rope is stretched once a text is longer than 640 positions.
pub fn dynamic() -> Tiny {
    with(
        "llama-dynamic",
        "llama",
        json!({"head_dim": 16, "rope_scaling": {"type": "dynamic", "factor": 2.0}}),
    )
}

/// As Mistral: a window, a head width that is not `hidden / heads`.
pub fn mistral() -> Tiny {
    with(
        "mistral",
        "mistral",
        json!({"sliding_window": 40, "head_dim": 12}),
    )
}

/// As Qwen2: biases on q, k, v.
pub fn qwen2() -> Tiny {
    with(
        "qwen2",
        "qwen2",
        json!({"tie_word_embeddings": true, "sliding_window": 32, "use_sliding_window": false,
               "max_window_layers": 3}),
    )
}

/// As Qwen3: norms over q and k heads, an explicit head width.
pub fn qwen3() -> Tiny {
    with(
        "qwen3",
        "qwen3",
        json!({"head_dim": 16, "attention_bias": false, "sliding_window": null,
               "use_sliding_window": false, "max_window_layers": 3}),
    )
}

/// Some tokens.
pub fn tokens(count: usize) -> Vec<u32> {
    (0..count as u32).map(|i| (i * 37 + 11) % 96).collect()
}

impl Tiny {
    /// The checked configuration.
    pub fn config(&self) -> DecoderConfig {
        DecoderConfig::from_json(&self.json.to_string()).expect("a tiny config is valid")
    }

    /// The f32 tensors, by name.
    pub fn tensors(&self, seed: u64) -> BTreeMap<String, Tensor> {
        shapes(&self.config())
            .into_iter()
            .map(|(name, shape)| {
                let values = random(seed, &name, &shape);
                let tensor = Tensor::from_vec(values, shape, &Device::Cpu)
                    .expect("as many values as the shape");
                (name, tensor)
            })
            .collect()
    }

    /// Writes `config.json` and the tensors in `shards` files (with an index where there are several).
    pub fn write(
        &self,
        dir: &Path,
        dtype: DType,
        seed: u64,
        shards: usize,
    ) -> candle_core::Result<()> {
        std::fs::create_dir_all(dir)?;
        std::fs::write(dir.join("config.json"), self.json.to_string())?;
        let mut files = vec![std::collections::HashMap::new(); shards];
        let mut weight_map = serde_json::Map::new();
        let file_name = |i: usize| match shards {
            1 => "model.safetensors".to_string(),
            _ => format!("model-{:05}-of-{shards:05}.safetensors", i + 1),
        };
        for (i, (name, tensor)) in self.tensors(seed).into_iter().enumerate() {
            weight_map.insert(name.clone(), file_name(i % shards).into());
            files[i % shards].insert(name, tensor.to_dtype(dtype)?);
        }
        for (i, tensors) in files.iter().enumerate() {
            candle_core::safetensors::save(tensors, dir.join(file_name(i)))?;
        }
        if shards > 1 {
            let index = json!({"metadata": {}, "weight_map": weight_map});
            std::fs::write(dir.join("model.safetensors.index.json"), index.to_string())?;
        }
        Ok(())
    }
}

/// Every tensor a checkpoint of this configuration holds.
pub fn shapes(config: &DecoderConfig) -> Vec<(String, Vec<usize>)> {
    let (hidden, inner, dim) = (
        config.hidden_size,
        config.intermediate_size,
        config.head_dim,
    );
    let (q, kv) = (
        config.num_attention_heads * dim,
        config.num_key_value_heads * dim,
    );
    let mut shapes = vec![
        (
            "model.embed_tokens.weight".to_string(),
            vec![config.vocab_size, hidden],
        ),
        ("model.norm.weight".to_string(), vec![hidden]),
    ];
    if config.tie_word_embeddings != Some(true) {
        shapes.push((
            "lm_head.weight".to_string(),
            vec![config.vocab_size, hidden],
        ));
    }
    for layer in 0..config.num_hidden_layers {
        let mut push = |name: &str, shape: Vec<usize>| {
            shapes.push((format!("model.layers.{layer}.{name}"), shape))
        };
        push("input_layernorm.weight", vec![hidden]);
        push("post_attention_layernorm.weight", vec![hidden]);
        if config.qk_norm {
            push("self_attn.q_norm.weight", vec![dim]);
            push("self_attn.k_norm.weight", vec![dim]);
        }
        let linears = [
            ("self_attn.q_proj", q, hidden, config.qkv_bias),
            ("self_attn.k_proj", kv, hidden, config.qkv_bias),
            ("self_attn.v_proj", kv, hidden, config.qkv_bias),
            ("self_attn.o_proj", hidden, q, config.output_bias),
            ("mlp.gate_proj", inner, hidden, config.mlp_bias),
            ("mlp.up_proj", inner, hidden, config.mlp_bias),
            ("mlp.down_proj", hidden, inner, config.mlp_bias),
        ];
        for (name, output, input, bias) in linears {
            push(&format!("{name}.weight"), vec![output, input]);
            if bias {
                push(&format!("{name}.bias"), vec![output]);
            }
        }
    }
    shapes
}

/// Values whose spread keeps activations near one: `1/sqrt(inputs)` for matrices, around 1 for norms.
fn random(seed: u64, name: &str, shape: &[usize]) -> Vec<f32> {
    let count = shape.iter().product();
    let (centre, spread) = match (shape, name) {
        (_, "model.embed_tokens.weight") => (0.0, 1.0),
        ([_, input], _) => (0.0, 1.7 / (*input as f32).sqrt()),
        _ if name.ends_with(".bias") => (0.0, 0.3),
        _ => (1.0, 0.2),
    };
    let mut state = name
        .bytes()
        .fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    let mut unit = || {
        // splitmix64: every step is independent of how many values were drawn for other tensors.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32 * 2.0 - 1.0
    };
    (0..count).map(|_| centre + spread * unit()).collect()
}
