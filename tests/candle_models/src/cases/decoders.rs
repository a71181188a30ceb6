//! Decoders of tokens, with their caches.

use super::*;
use candle::DType;
use serde_json::json;

/// A model with `new(&Config, vb)` and `forward(ids, position)`.
macro_rules! plain {
    ($($path:ident)::+, $model:ident, $more:tt) => {
        decoder(|vb, layers| {
            let cfg: models::$($path)::+::Config = parsed(sized(layers, json!($more)))?;
            let mut m = models::$($path)::+::$model::new(&cfg, vb)?;
            model(move |a| m.forward(a.x(), a.past))
        })
    };
}

/// The same, of a model that is told whether to use flash attention.
macro_rules! told_of_flash {
    ($($path:ident)::+, $more:tt) => {
        decoder(|vb, layers| {
            let cfg: models::$($path)::+::Config = parsed(sized(layers, json!($more)))?;
            let mut m = models::$($path)::+::Model::new(false, &cfg, vb)?;
            model(move |a| m.forward(a.x(), a.past))
        })
    };
}

/// A model whose code counts positions by its cache.
macro_rules! counting {
    ($kind:ident, $path:ident, $model:ident, $new:ident, |$layers:ident| $more:tt) => {
        $kind(|vb, $layers| {
            let cfg: models::$path::Config = parsed(sized($layers, json!($more)))?;
            let mut m = models::$path::$model::$new(&cfg, vb)?;
            model(move |a| m.forward(a.x()))
        })
    };
}

/// A model whose cache is beside it.
macro_rules! cached {
    ($($path:ident)::+, $model:ident, $new:ident, $config:ident, $cache:ident, $more:tt $(, $into:ident)?) => {
        decoder(|vb, layers| {
            let cfg: models::$($path)::+::$config = parsed(sized(layers, json!($more)))?;
            $(let cfg = cfg.$into(false);)?
            let dtype = vb.dtype();
            let m = models::$($path)::+::$model::$new(vb, &cfg)?;
            let mut cache = models::$($path)::+::$cache::new(true, dtype, &cfg, &CPU)?;
            model(move |a| m.forward(a.x(), a.past, &mut cache))
        })
    };
}

/// The configuration of a small recurrent gemma.
pub fn recurrent_gemma(layers: usize) -> Value {
    sized(
        layers,
        json!({
            "attention_window_size": 64, "conv1d_width": 4, "logits_soft_cap": 30.0,
            "hidden_activation": "gelu_pytorch_tanh", "partial_rotary_factor": 0.5,
            "block_types": ["recurrent", "attention"], "max_seq_len": 64,
        }),
    )
}

/// The configuration of a small llama2.c.
pub fn llama2_c(layers: usize) -> models::llama2_c::Config {
    models::llama2_c::Config {
        dim: HIDDEN,
        hidden_dim: 128,
        n_layers: layers,
        n_heads: 4,
        n_kv_heads: 2,
        vocab_size: VOCAB,
        seq_len: 64,
        norm_eps: 1e-5,
    }
}

/// The configuration of a small RWKV of the fifth and the sixth version.
pub fn rwkv(layers: usize) -> Value {
    sized(
        layers,
        json!({
            "attention_hidden_size": HIDDEN, "head_size": 16, "num_attention_heads": 16, "layer_norm_epsilon": 1e-5,
            "rescale_every": 6,
        }),
    )
}

cases! {
    // A layer of each kind: what convolves, what attends linearly, what attends in a window.
    "models/based" => split_by_tokens(3, split_by_position(1, starter(|vb, layers| {
        let cfg: models::based::Config = parsed(sized(layers, json!({
            "n_embd": 64, "n_inner": 128, "n_layer": layers + 1, "n_head": 4, "layer_norm_epsilon": 1e-5,
            "alt_mixer_layers": [1], "alt_mixer_2_layers": [2],
            "alt_mixer": {"num_heads": 4, "feature_dim": 16, "feature_map": {"input_dim": 16}},
            "alt_mixer_2": {"num_heads": 4, "window_size": 64},
        })))?;
        let mut m = models::based::Model::new(&cfg, vb)?;
        model(move |a| m.forward(a.x(), a.past))
    }))),
    "models/deepseek2" => decoder(|vb, layers| {
        let cfg: models::deepseek2::DeepSeekV2Config = parsed(sized(layers, json!({
            "moe_intermediate_size": 32, "n_shared_experts": 1, "n_routed_experts": 4, "num_experts_per_tok": 2,
            "first_k_dense_replace": 1, "q_lora_rank": 24, "kv_lora_rank": 16, "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8, "v_head_dim": 16, "n_group": 1, "topk_group": 1, "rope_scaling": null,
        })))?;
        let mut m = models::deepseek2::DeepSeekV2::new(&cfg, vb)?;
        model(move |a| m.forward(a.x(), a.past))
    }),
    "models/llama2_c" => decoder(|vb, layers| {
        let cfg = llama2_c(layers);
        let mut cache = models::llama2_c::Cache::new(true, &cfg, vb.pp("rot"))?;
        let m = models::llama2_c::Llama::load(vb, cfg)?;
        model(move |a| m.forward(a.x(), a.past, &mut cache))
    }),
    "models/llama2_c_weights" => decoder(|_, layers| {
        use models::llama2_c_weights::TransformerWeights;
        let cfg = models::llama2_c::Config { n_kv_heads: 4, ..llama2_c(layers) };
        // It reads a file by itself: the table, norms and matrices of all layers, the last norm, angles.
        let layer = 2 * HIDDEN + 4 * HIDDEN * HIDDEN + 3 * HIDDEN * cfg.hidden_dim;
        let numbers = VOCAB * HIDDEN + layers * layer + HIDDEN + cfg.seq_len * cfg.head_size();
        let bytes: Vec<u8> = noise_of("file", numbers).iter().flat_map(|v| (0.2 * v).to_le_bytes()).collect();
        let weights = TransformerWeights::from_reader(&mut bytes.as_slice(), &cfg, &CPU)?;
        let vb = weights.var_builder(&cfg, &CPU)?;
        let mut cache = models::llama2_c::Cache::new(true, &cfg, vb.pp("rot"))?;
        let m = models::llama2_c::Llama::load(vb, cfg)?;
        model(move |a| m.forward(a.x(), a.past, &mut cache))
    }),
    "models/rwkv_v7" => stepper(|vb, layers| {
        // Its code reads these sizes off the weights.
        for name in ["w1", "a1", "v1", "g1"] {
            vb.get((HIDDEN, 8), &format!("blocks.0.att.{name}"))?;
        }
        let cfg: models::rwkv_v7::Config = parsed(sized(layers, json!({"version": "V7", "head_size": 16})))?;
        let m = models::rwkv_v7::Model::new(&cfg, vb)?;
        let mut state = models::rwkv_v7::State::new(&cfg, &CPU)?;
        model(move |a| m.forward(a.x(), &mut state, &[]))
    }),
    "models/bigcode" => decoder(|vb, layers| {
        let cfg = models::bigcode::Config {
            vocab_size: VOCAB, max_position_embeddings: 64, num_hidden_layers: layers, hidden_size: HIDDEN,
            layer_norm_epsilon: 1e-5, n_inner: Some(128), num_attention_heads: 4, multi_query: true, use_cache: true,
        };
        let mut m = models::bigcode::GPTBigCode::load(vb, cfg)?;
        model(move |a| m.forward(a.x(), a.past))
    }),
    "models/chatglm" => starter(|vb, layers| {
        let cfg = models::chatglm::Config {
            num_layers: layers, padded_vocab_size: VOCAB, hidden_size: HIDDEN, ffn_hidden_size: 96, kv_channels: 16,
            num_attention_heads: 4, seq_length: 64, multi_query_group_num: 2, ..models::chatglm::Config::glm3_6b()
        };
        let mut m = models::chatglm::Model::new(&cfg, vb)?;
        model(move |a| m.forward(a.x()))
    }),
    "models/codegeex4_9b" => starter(|vb, layers| {
        let cfg = models::codegeex4_9b::Config {
            num_layers: layers, padded_vocab_size: VOCAB, hidden_size: HIDDEN, ffn_hidden_size: 96, kv_channels: 16,
            num_attention_heads: 4, seq_length: 64, multi_query_group_num: 2,
            ..models::codegeex4_9b::Config::codegeex4()
        };
        let mut m = models::codegeex4_9b::Model::new(&cfg, vb)?;
        model(move |a| m.forward(a.x()))
    }),
    "models/glm4" => counting!(starter, glm4, Model, new, |layers| {
        "num_layers": layers, "padded_vocab_size": 64, "ffn_hidden_size": 96, "kv_channels": 16, "seq_length": 64,
        "layernorm_epsilon": 1e-5, "rmsnorm": true, "apply_residual_connection_post_layernorm": false,
        "post_layer_norm": true, "add_bias_linear": false, "add_qkv_bias": true, "bias_dropout_fusion": true,
        "multi_query_attention": true, "multi_query_group_num": 2, "apply_query_key_layer_scaling": true,
        "attention_softmax_in_fp32": true, "fp32_residual_connection": false, "rope_ratio": 1, "eos_token_id": null,
    }),
    "models/glm4_new" => plain!(glm4_new, ModelForCausalLM, {"partial_rotary_factor": 0.5, "eos_token_id": null}),
    "models/falcon" => starter(|vb, layers| {
        let cfg: models::falcon::Config = parsed(sized(layers, json!({
            "layer_norm_epsilon": 1e-5, "initializer_range": 0.02, "hidden_dropout": 0.0, "attention_dropout": 0.0,
            "n_head_kv": null, "alibi": false, "new_decoder_architecture": false, "multi_query": true,
            "parallel_attn": true, "bias": false,
        })))?;
        let mut m = models::falcon::Falcon::load(vb, cfg)?;
        model(move |a| m.forward(a.x()))
    }),
    "models/gemma" => told_of_flash!(gemma, {"hidden_act": null, "hidden_activation": "gelu_pytorch_tanh"}),
    "models/gemma2" => told_of_flash!(gemma2, {
        "hidden_activation": "gelu_pytorch_tanh", "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0,
        "query_pre_attn_scalar": 16, "sliding_window": 4096,
    }),
    // With more than one head of keys candle's cache refuses values that are transposed.
    "models/gemma3" => told_of_flash!(gemma3, {
        "num_key_value_heads": 1,
        "hidden_activation": "gelu_pytorch_tanh", "final_logit_softcapping": null, "attn_logit_softcapping": null,
        "query_pre_attn_scalar": 16, "sliding_window": 64, "sliding_window_pattern": 2, "rope_local_base_freq": 10000.0,
    }),
    "models/granite" => cached!(granite, Granite, load, GraniteConfig, Cache, {}, into_config),
    "models/granitemoehybrid" => cached!(granitemoehybrid, GraniteMoeHybrid, load, GraniteMoeHybridConfig,
        GraniteMoeHybridCache, {"embedding_multiplier": 2.0, "logits_scaling": 4.0}, into_config),
    "models/helium" => plain!(helium, Model, {"mlp_bias": false}),
    "models/llama" => cached!(llama, Llama, load, LlamaConfig, Cache, {}, into_config),
    "models/lfm2" => decoder(|vb, layers| {
        let kinds: Vec<&str> = (0..layers).map(|i| ["conv", "full_attention"][i % 2]).collect();
        let cfg: models::lfm2::Lfm2Config = parsed(sized(layers, json!({"layer_types": kinds, "block_multiple_of": 32})))?;
        let cfg = cfg.into_config(false);
        let dtype = vb.dtype();
        let m = models::lfm2::Model::new(&cfg, vb)?;
        let mut cache = models::lfm2::Cache::new(true, dtype, &cfg, &CPU)?;
        model(move |a| m.forward(a.x(), a.past, &mut cache))
    }),
    "models/mamba" => stepper(|vb, layers| {
        let cfg: models::mamba::Config = parsed(json!({
            "d_model": HIDDEN, "n_layer": layers, "vocab_size": VOCAB, "pad_vocab_size_multiple": 8,
        }))?;
        let dtype = vb.dtype();
        let m = models::mamba::Model::new(&cfg, vb)?;
        let mut state = None;
        model(move |a| {
            let ids = a.x().squeeze(1)?;
            if state.is_none() {
                state = Some(models::mamba::State::new(ids.dim(0)?, &cfg, dtype, &CPU)?);
            }
            m.forward(&ids, state.as_mut().expect("it was made"))
        })
    }),
    "models/mamba2" => stepper(|vb, layers| {
        let cfg: models::mamba2::Config = parsed(json!({
            "d_model": HIDDEN, "n_layer": layers, "vocab_size": VOCAB, "d_state": 16, "headdim": 16, "ngroups": 1,
        }))?;
        let dtype = vb.dtype();
        let m = models::mamba2::Model::new(&cfg, vb)?;
        let mut state = None;
        model(move |a| {
            let ids = a.x().squeeze(1)?;
            if state.is_none() {
                state = Some(models::mamba2::State::new(ids.dim(0)?, &cfg, dtype, &CPU)?);
            }
            m.forward(&ids, state.as_mut().expect("it was made"))
        })
    }),
    "models/mistral" => plain!(mistral, Model, {"sliding_window": null, "use_flash_attn": false}),
    "models/mixformer" => counting!(starter, mixformer, MixFormerSequentialForCausalLM, new_v2, |layers| {
        "n_positions": 64, "n_embd": 64, "n_layer": layers, "n_inner": 128, "n_head": 4, "rotary_dim": 8,
        "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "pad_vocab_size_multiple": 64,
    }),
    "models/mixtral" => plain!(mixtral, Model, {
        "sliding_window": 64, "num_experts_per_tok": 2, "num_local_experts": 4, "use_flash_attn": false,
    }),
    "models/olmo" => plain!(olmo, Model, {"clip_qkv": 8.0}),
    "models/olmo2" => plain!(olmo2, Model, {"clip_qkv": null}),
    "models/phi" => counting!(starter, phi, Model, new, |layers| {
        "hidden_act": "gelu_new", "partial_rotary_factor": 0.5, "qk_layernorm": false,
    }),
    "models/phi3" => plain!(phi3, Model, {}),
    "models/qwen2" => plain!(qwen2, ModelForCausalLM, {
        "sliding_window": 64, "max_window_layers": 0, "use_sliding_window": false,
    }),
    "models/qwen2_moe" => plain!(qwen2_moe, Model, {
        "sliding_window": 64, "max_window_layers": 0, "use_sliding_window": false, "decoder_sparse_step": 1,
        "moe_intermediate_size": 32, "shared_expert_intermediate_size": 64, "num_experts_per_tok": 2, "num_experts": 4,
        "norm_topk_prob": true,
    }),
    "models/qwen3" => plain!(qwen3, ModelForCausalLM, {"max_window_layers": 0, "use_sliding_window": false}),
    "models/qwen3_moe" => plain!(qwen3_moe, ModelForCausalLM, {
        "max_window_layers": 0, "use_sliding_window": false, "decoder_sparse_step": 1, "moe_intermediate_size": 32,
        "num_experts_per_tok": 2, "num_experts": 4, "norm_topk_prob": true,
    }),
    "models/recurrent_gemma" => split_by_position(1, stepper(|vb, layers| {
        let cfg: models::recurrent_gemma::Config = parsed(recurrent_gemma(layers))?;
        let mut m = models::recurrent_gemma::Model::new(&cfg, vb)?;
        model(move |a| m.forward(a.x(), a.past))
    })),
    "models/rwkv_v5" => stepper(|vb, layers| {
        let cfg: models::rwkv_v5::Config = parsed(rwkv(layers))?;
        let m = models::rwkv_v5::Model::new(&cfg, vb)?;
        let mut state = None;
        model(move |a| {
            if state.is_none() {
                state = Some(models::rwkv_v5::State::new(a.x().dim(0)?, &cfg, &CPU)?);
            }
            m.forward(a.x(), state.as_mut().expect("it was made"))
        })
    }),
    "models/rwkv_v6" => stepper(|vb, layers| {
        let cfg: models::rwkv_v5::Config = parsed(rwkv(layers))?;
        let m = models::rwkv_v6::Model::new(&cfg, vb)?;
        let mut state = None;
        model(move |a| {
            if state.is_none() {
                state = Some(models::rwkv_v5::State::new(a.x().dim(0)?, &cfg, &CPU)?);
            }
            m.forward(a.x(), state.as_mut().expect("it was made"))
        })
    }),
    "models/smol/smollm3" => plain!(smol::smollm3, ModelForCausalLM, {"no_rope_layer_interval": 2}),
    "models/stable_lm" => plain!(stable_lm, Model, {"partial_rotary_factor": 0.25, "use_qkv_bias": true}),
    "models/starcoder2" => plain!(starcoder2, Model, {
        "hidden_act": "gelu_pytorch_tanh", "norm_epsilon": 1e-5, "use_bias": true, "sliding_window": null,
    }),
    "models/voxtral/voxtral_llama" => decoder(|vb, layers| {
        let cfg = models::voxtral::voxtral_llama::VoxtralLlamaConfig {
            hidden_size: HIDDEN, intermediate_size: 128, vocab_size: VOCAB, num_hidden_layers: layers,
            num_attention_heads: 4, num_key_value_heads: 2, head_dim: Some(16), use_flash_attn: false, rms_norm_eps: 1e-5,
            rope_theta: 10000.0, max_position_embeddings: 64, tie_word_embeddings: false,
        };
        let dtype = vb.dtype();
        let m = models::voxtral::voxtral_llama::VoxtralLlama::load(vb, &cfg)?;
        let mut cache = models::voxtral::voxtral_llama::VoxtralLlamaCache::new(true, dtype, &cfg, &CPU)?;
        model(move |a| m.forward(a.x(), a.past, &mut cache))
    }),
}
