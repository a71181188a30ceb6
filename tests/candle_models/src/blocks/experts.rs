//! Experts of a GGUF file, one tensor for a matrix of all. candle multiplies those on CUDA only, so the measure is its model
//! of plain weights, by the names that it has for them.

use super::by_content::{ATTENTION, DIM, GROUPS, HEAD_NORMS, HEADS, HIDDEN, LAYERS, NORMS, VOCAB};
use super::by_content::{count, ends, layers, said};
use super::file::File;
use super::follow::{Prompts, follows};
use crate::values::noise;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Content;
use candle_core::{DType, Device, Result, Tensor};
use candle_models_ported::models as ported;
use candle_nn::VarBuilder;
use candle_transformers::models as theirs;
use candle_trt::candle;
use serde_json::json;
use std::collections::HashMap;
use std::io::{Cursor, empty};

const EXPERTS: usize = 4;
const EACH: usize = 2;
const INNER: usize = 64;

/// The matrices of experts, by their names in both.
const MATRICES: [(&str, &str, usize, usize); 3] = [
    ("ffn_gate_exps", "gate_proj", INNER, HIDDEN),
    ("ffn_up_exps", "up_proj", INNER, HIDDEN),
    ("ffn_down_exps", "down_proj", HIDDEN, INNER),
];
/// The names of what else there is.
const NAMES: [(&str, &str); 9] = [
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("attn_norm", "input_layernorm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate_inp", "mlp.gate"),
];

fn file() -> File {
    let key = |rest: &str| format!("qwen3moe.{rest}");
    let mut parts = said("qwen3moe")
        .say(&key("expert_feed_forward_length"), count(INNER))
        .say(&key("expert_count"), count(EXPERTS))
        .say(&key("expert_used_count"), count(EACH));
    ends(&mut parts, true);
    let vectors = [NORMS.as_slice(), &HEAD_NORMS].concat();
    layers(&mut parts, &ATTENTION, &vectors);
    for layer in 0..LAYERS {
        let name = |rest: &str| format!("blk.{layer}.{rest}.weight");
        parts.matrix(&name("ffn_gate_inp"), (EXPERTS, HIDDEN), GgmlDType::F32);
        for (rest, _, n, k) in MATRICES {
            let scale = (3.0 / k as f32).sqrt();
            let data = noise(&name(rest), EXPERTS * n * k);
            let data = data.iter().map(|v| v * scale).collect();
            let data = Tensor::from_vec(data, (EXPERTS, n, k), &Device::Cpu);
            parts.tensor(&name(rest), &data.expect("a tensor"), GgmlDType::Q8_0);
        }
    }
    parts.write()
}

/// The values of the file by the names of the model of plain weights.
fn plain(file: &File) -> Result<HashMap<String, Tensor>> {
    let mut reader = Cursor::new(&file.values);
    let content = Content::read(&mut reader)?;
    let mut value = |name: &str| {
        let stored = content.tensor(&mut reader, &format!("{name}.weight"), &Device::Cpu)?;
        stored.dequantize(&Device::Cpu)
    };
    let mut all = HashMap::new();
    for (name, named) in [
        ("token_embd", "model.embed_tokens"),
        ("output_norm", "model.norm"),
        ("output", "lm_head"),
    ] {
        all.insert(format!("{named}.weight"), value(name)?);
    }
    for layer in 0..LAYERS {
        let at = format!("model.layers.{layer}");
        for (name, named) in NAMES {
            let value = value(&format!("blk.{layer}.{name}"))?;
            all.insert(format!("{at}.{named}.weight"), value);
        }
        for (name, named, ..) in MATRICES {
            let each = value(&format!("blk.{layer}.{name}"))?;
            for expert in 0..EXPERTS {
                let name = format!("{at}.mlp.experts.{expert}.{named}.weight");
                all.insert(name, each.get(expert)?);
            }
        }
    }
    Ok(all)
}

pub fn qwen3_with_experts() -> f32 {
    let file = file();
    let cfg = json!({
        "vocab_size": VOCAB, "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": GROUPS, "head_dim": DIM, "attention_bias": false,
        "max_position_embeddings": 128, "sliding_window": null, "max_window_layers": 0, "tie_word_embeddings": false,
        "rope_theta": 10_000.0, "rms_norm_eps": 1e-5, "use_sliding_window": false, "hidden_act": "silu",
        "decoder_sparse_step": 1, "moe_intermediate_size": INNER, "num_experts_per_tok": EACH, "num_experts": EXPERTS,
        "norm_topk_prob": true,
    });
    let cfg = serde_json::from_value(cfg).expect("a configuration");
    let values = plain(&file).expect("candle reads its file");
    let vb = VarBuilder::from_tensors(values, DType::F32, &Device::Cpu);
    let oracle = theirs::qwen3_moe::ModelForCausalLM::new(&cfg, vb);
    let mut oracle = oracle.expect("candle loads");
    let load = |vb: candle_trt::candle_nn::VarBuilder| {
        type Model = ported::quantized_qwen3_moe::GGUFQWenMoE;
        let (content, device) = (vb.gguf()?, candle::Device::Cpu);
        let mut model = Model::from_gguf(content, &mut empty(), &device, candle::DType::F32)?;
        Ok(move |ids: &candle::Tensor, past: usize| model.forward(ids, past))
    };
    follows(&file, Prompts::Anywhere, load, &mut |ids, past| {
        oracle.forward(ids, past)
    })
}
