//! Models that load by a builder, by the names of Hugging Face's files.

use super::file::{File, Parts};
use super::follow::{Prompts, follows, gives};
use candle_core::quantized::GgmlDType::{self, Q4_0, Q4K, Q6K, Q8_0};
use candle_core::{Device, Tensor};
use candle_models_ported::models as ported;
use candle_transformers::models as theirs;
use candle_transformers::quantized_var_builder::VarBuilder as TheirBuilder;
use candle_trt::Call;
use candle_trt::candle::{DType, Result};
use candle_trt::candle_nn::VarBuilder;
use candle_trt::graph::Profile;
use serde_json::{Value, json};

const HIDDEN: usize = 256;
const GROUPS: usize = 128;
const MIDDLE: usize = 512;
const VOCAB: usize = 64;
const LAYERS: usize = 2;

fn parsed<C: serde::de::DeserializeOwned>(config: &Value) -> C {
    serde_json::from_value(config.clone()).expect("a configuration")
}

fn their_builder(file: &File) -> TheirBuilder {
    TheirBuilder::from_gguf_buffer(&file.values, &Device::Cpu).expect("candle opens its file")
}

/// A layer with a bias and a norm with one.
fn biased(parts: &mut Parts, name: &str, shape: (usize, usize), dtype: GgmlDType) {
    parts.matrix(&format!("{name}.weight"), shape, dtype);
    parts.vector(&format!("{name}.bias"), shape.0, 0.0);
}

fn norm(parts: &mut Parts, name: &str, bias: bool) {
    parts.vector(&format!("{name}.weight"), HIDDEN, 1.0);
    if bias {
        parts.vector(&format!("{name}.bias"), HIDDEN, 0.0);
    }
}

/// Layers as mistral and stable-lm name them.
fn decoder(bias: bool) -> File {
    let mut parts = Parts::default();
    parts.matrix("model.embed_tokens.weight", (VOCAB, HIDDEN), Q8_0);
    parts.matrix("lm_head.weight", (VOCAB, HIDDEN), Q6K);
    norm(&mut parts, "model.norm", bias);
    let matrices = [
        ("self_attn.q_proj", HIDDEN, HIDDEN, Q4K),
        ("self_attn.k_proj", GROUPS, HIDDEN, Q8_0),
        ("self_attn.v_proj", GROUPS, HIDDEN, Q4_0),
        ("self_attn.o_proj", HIDDEN, HIDDEN, Q6K),
        ("mlp.gate_proj", MIDDLE, HIDDEN, Q4K),
        ("mlp.up_proj", MIDDLE, HIDDEN, Q4K),
        ("mlp.down_proj", HIDDEN, MIDDLE, Q6K),
    ];
    for layer in 0..LAYERS {
        let name = |rest: &str| format!("model.layers.{layer}.{rest}");
        for (rest, n, k, dtype) in matrices {
            parts.matrix(&name(&format!("{rest}.weight")), (n, k), dtype);
        }
        norm(&mut parts, &name("input_layernorm"), bias);
        norm(&mut parts, &name("post_attention_layernorm"), bias);
    }
    parts.write()
}

/// What the configurations of both have in common.
fn config() -> Value {
    json!({
        "vocab_size": VOCAB, "hidden_size": HIDDEN, "intermediate_size": MIDDLE, "num_hidden_layers": LAYERS,
        "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_act": "silu",
        "max_position_embeddings": 64, "rope_theta": 10000.0, "rms_norm_eps": 1e-5,
        "layer_norm_eps": 1e-5, "partial_rotary_factor": 0.25, "use_cache": true,
    })
}

pub fn mistral_by_names_of_hugging_face() -> f32 {
    let (file, config) = (decoder(false), config());
    let cfg = parsed(&config);
    let oracle = theirs::quantized_mistral::Model::new(&cfg, their_builder(&file));
    let mut oracle = oracle.expect("candle loads");
    let load = |vb: VarBuilder| {
        let mut model = ported::quantized_mistral::Model::new(&parsed(&config), vb.into())?;
        Ok(move |ids: &candle_trt::candle::Tensor, past: usize| model.forward(ids, past))
    };
    follows(&file, Prompts::Anywhere, load, &mut |ids, past| {
        oracle.forward(ids, past)
    })
}

pub fn stable_lm_with_a_quarter_of_a_head_turned() -> f32 {
    let (file, config) = (decoder(true), config());
    let cfg = parsed(&config);
    let oracle = theirs::quantized_stable_lm::Model::new(&cfg, their_builder(&file));
    let mut oracle = oracle.expect("candle loads");
    let load = |vb: VarBuilder| {
        let mut model = ported::quantized_stable_lm::Model::new(&parsed(&config), vb.into())?;
        Ok(move |ids: &candle_trt::candle::Tensor, past: usize| model.forward(ids, past))
    };
    follows(&file, Prompts::Anywhere, load, &mut |ids, past| {
        oracle.forward(ids, past)
    })
}

/// Phi as candle first had it, whose code counts positions by its cache.
pub fn mixformer_with_layers_beside_each_other() -> f32 {
    let mut parts = Parts::default();
    parts.matrix("transformer.embd.wte.weight", (VOCAB, HIDDEN), Q8_0);
    norm(&mut parts, "lm_head.ln", true);
    biased(&mut parts, "lm_head.linear", (VOCAB, HIDDEN), Q6K);
    for layer in 0..LAYERS {
        let name = |rest: &str| format!("transformer.h.{layer}.{rest}");
        norm(&mut parts, &name("ln"), true);
        biased(&mut parts, &name("mixer.Wqkv"), (3 * HIDDEN, HIDDEN), Q4K);
        biased(&mut parts, &name("mixer.out_proj"), (HIDDEN, HIDDEN), Q8_0);
        biased(&mut parts, &name("mlp.fc1"), (MIDDLE, HIDDEN), Q4_0);
        biased(&mut parts, &name("mlp.fc2"), (HIDDEN, MIDDLE), Q6K);
    }
    let (file, config) = (
        parts.write(),
        json!({
            "vocab_size": VOCAB, "n_positions": 64, "n_embd": HIDDEN, "n_layer": LAYERS, "n_inner": MIDDLE,
            "n_head": 4, "rotary_dim": 32, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
            "tie_word_embeddings": false, "pad_vocab_size_multiple": 64,
        }),
    );
    let cfg = parsed(&config);
    let vb = their_builder(&file);
    let oracle = theirs::quantized_mixformer::MixFormerSequentialForCausalLM::new_v2(&cfg, vb);
    let mut oracle = oracle.expect("candle loads");
    let load = |vb: VarBuilder| {
        let cfg = parsed(&config);
        let mut model =
            ported::quantized_mixformer::MixFormerSequentialForCausalLM::new_v2(&cfg, vb.into())?;
        Ok(move |ids: &candle_trt::candle::Tensor, _: usize| model.forward(ids))
    };
    follows(&file, Prompts::Never, load, &mut |ids, _| {
        oracle.forward(ids)
    })
}

/// T5's places in buckets are constants that change with sizes, so its sizes are fixed here.
pub fn t5_of_fixed_sizes() -> f32 {
    let mut parts = Parts::default();
    parts.matrix("shared.weight", (VOCAB, HIDDEN), Q8_0);
    parts.matrix("lm_head.weight", (VOCAB, HIDDEN), Q6K);
    let attention = |parts: &mut Parts, name: String, biased: bool| {
        for part in ["q", "k", "v"] {
            parts.matrix(&format!("{name}.{part}.weight"), (GROUPS, HIDDEN), Q4K);
        }
        parts.matrix(&format!("{name}.o.weight"), (HIDDEN, GROUPS), Q8_0);
        if biased {
            let name = format!("{name}.relative_attention_bias.weight");
            parts.matrix(&name, (8, 4), GgmlDType::F32);
        }
    };
    for (stack, cross) in [("encoder", false), ("decoder", true)] {
        norm(&mut parts, &format!("{stack}.final_layer_norm"), false);
        for layer in 0..LAYERS {
            let name = |rest: &str| format!("{stack}.block.{layer}.layer.{rest}");
            attention(&mut parts, name("0.SelfAttention"), layer == 0);
            norm(&mut parts, &name("0.layer_norm"), false);
            if cross {
                attention(&mut parts, name("1.EncDecAttention"), false);
                norm(&mut parts, &name("1.layer_norm"), false);
            }
            let last = 1 + usize::from(cross);
            norm(&mut parts, &name(&format!("{last}.layer_norm")), false);
            let dense = name(&format!("{last}.DenseReluDense"));
            for (part, n, k) in [
                ("wi_0", MIDDLE, HIDDEN),
                ("wi_1", MIDDLE, HIDDEN),
                ("wo", HIDDEN, MIDDLE),
            ] {
                parts.matrix(&format!("{dense}.{part}.weight"), (n, k), Q4K);
            }
        }
    }
    let (file, config) = (
        parts.write(),
        json!({
            "vocab_size": VOCAB, "d_model": HIDDEN, "d_kv": 32, "d_ff": MIDDLE, "num_layers": LAYERS, "num_heads": 4,
            "relative_attention_num_buckets": 8, "dropout_rate": 0.0, "layer_norm_epsilon": 1e-6,
            "initializer_factor": 1.0, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false,
            "is_encoder_decoder": true, "pad_token_id": 0, "eos_token_id": 1,
        }),
    );
    let row = |tokens: &[u32]| Tensor::new(tokens, &Device::Cpu).and_then(|t| t.unsqueeze(0));
    let text = row(&[5, 9, 60, 2, 33, 1]).expect("tokens");
    let start = row(&[0, 17, 40]).expect("tokens");
    type Theirs = theirs::quantized_t5::T5ForConditionalGeneration;
    let oracle = Theirs::load(their_builder(&file), &parsed(&config));
    let want = oracle.and_then(|mut m| m.forward(&text, &start));
    let load = |vb: VarBuilder| {
        type Ours = ported::quantized_t5::T5ForConditionalGeneration;
        let mut model = Ours::load(vb.into(), &parsed(&config))?;
        Ok(move |call: &Call<'_>| -> Result<Vec<_>> {
            let text = call.input("text", (1, call.int("text")?), DType::U32)?;
            let start = call.input("start", (1, call.int("start")?), DType::U32)?;
            Ok(vec![model.forward(&text, &start)?])
        })
    };
    let profile = Profile::single(&[("text", 6, 6), ("start", 3, 3)]).expect("a profile");
    let want = want.expect("candle runs");
    gives(&file, &profile, vec![text, start], load, &want)
}
