//! Models of texts: encoders in one call, and decoders that look at what an encoder gave.

use super::*;
use candle::{DType, Module};
use serde_json::json;

/// What the configurations of the BERT family have.
/// What configurations of the BERT family have.
pub fn bert(layers: usize, more: Value) -> Value {
    let mut all = sized(
        layers,
        json!({
            "hidden_act": "gelu", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "type_vocab_size": 2,
            "initializer_range": 0.02, "pad_token_id": 0, "position_embedding_type": "absolute", "model_type": "bert",
            "classifier_dropout": null,
        }),
    );
    if let (Value::Object(all), Value::Object(more)) = (&mut all, more) {
        all.extend(more);
    }
    all
}

/// The configuration of blip's decoder of texts.
pub fn blip_text(layers: usize) -> Value {
    sized(
        layers,
        json!({
            "encoder_hidden_size": HIDDEN, "projection_dim": HIDDEN, "hidden_act": "gelu", "is_decoder": true,
        }),
    )
}

cases! {
    "models/with_tracing" => texts(vec![], |vb, _| {
        let table = with_tracing::Embedding::new(VOCAB, HIDDEN, vb.pp("table"))?;
        let norm = with_tracing::layer_norm(HIDDEN, 1e-5, vb.pp("norm"))?;
        let inner = with_tracing::linear(HIDDEN, 32, vb.pp("inner"))?;
        let last = with_tracing::RmsNorm::new(32, 1e-5, vb.pp("last"))?;
        model(move |a| last.forward(&inner.forward(&norm.forward(&table.forward(a.x())?)?)?))
    }),
    "models/bert" => texts(vec![kinds(), kept()], |vb, layers| {
        let cfg: models::bert::Config = parsed(bert(layers, json!({})))?;
        let m = models::bert::BertModel::load(vb, &cfg)?;
        model(move |a| m.forward(a.x(), &a.inputs[1], Some(&a.inputs[2])))
    }),
    "models/distilbert" => texts(vec![], |vb, layers| {
        let cfg: models::distilbert::Config = parsed(json!({
            "vocab_size": VOCAB, "dim": HIDDEN, "n_layers": layers, "n_heads": 4, "hidden_dim": 128, "activation": "gelu",
            "max_position_embeddings": 64, "initializer_range": 0.02, "pad_token_id": 0, "model_type": "distilbert",
        }))?;
        let m = models::distilbert::DistilBertModel::load(vb, &cfg)?;
        model(move |a| {
            let hidden = a.x().zeros_like()?.to_dtype(DType::U8)?;
            m.forward(a.x(), &hidden.unsqueeze(1)?.unsqueeze(1)?)
        })
    }),
    "models/debertav2" => texts(vec![], |vb, layers| {
        let cfg: models::debertav2::Config = parsed(bert(layers, json!({
            "relative_attention": true, "max_relative_positions": -1, "position_biased_input": false,
            "pos_att_type": "p2c|c2p", "position_buckets": 16, "share_att_key": true, "norm_rel_ebd": "layer_norm",
        })))?;
        let m = models::debertav2::DebertaV2Model::load(vb, &cfg)?;
        model(move |a| m.forward(a.x(), None, None))
    }),
    "models/jina_bert" => texts(vec![], |vb, layers| {
        let cfg = models::jina_bert::Config {
            vocab_size: VOCAB, hidden_size: HIDDEN, num_hidden_layers: layers, num_attention_heads: 4,
            intermediate_size: 128, max_position_embeddings: 64, ..models::jina_bert::Config::v2_base()
        };
        let m = models::jina_bert::BertModel::new(vb, &cfg)?;
        model(move |a| m.forward(a.x()))
    }),
    "models/modernbert" => texts(vec![kept()], |vb, layers| {
        let cfg: models::modernbert::Config = parsed(bert(layers, json!({
            "global_attn_every_n_layers": 2, "global_rope_theta": 160000.0, "local_attention": 8,
            "local_rope_theta": 10000.0,
        })))?;
        let m = models::modernbert::ModernBert::load(vb, &cfg)?;
        model(move |a| m.forward(a.x(), &a.inputs[1]))
    }),
    "models/nomic_bert" => texts(vec![kept()], |vb, layers| {
        let cfg: models::nomic_bert::Config = parsed(json!({
            "vocab_size": VOCAB, "n_embd": HIDDEN, "n_head": 4, "n_layer": layers, "n_inner": 128, "n_positions": 64,
            "type_vocab_size": 2, "layer_norm_epsilon": 1e-5, "rotary_emb_fraction": 1.0, "rotary_emb_base": 1000.0,
            "rotary_emb_interleaved": false, "qkv_proj_bias": false, "mlp_fc1_bias": false, "mlp_fc2_bias": false,
            "activation_function": "swiglu", "prenorm": false, "model_type": "nomic_bert",
        }))?;
        let m = models::nomic_bert::NomicBertModel::load(vb, &cfg)?;
        model(move |a| m.forward(a.x(), None, Some(&a.inputs[1])))
    }),
    "models/xlm_roberta" => texts(vec![kept(), kinds()], |vb, layers| {
        let cfg: models::xlm_roberta::Config = parsed(bert(layers, json!({"pad_token_id": 1})))?;
        let m = models::xlm_roberta::XLMRobertaModel::new(&cfg, vb)?;
        model(move |a| m.forward(a.x(), &a.inputs[1], &a.inputs[2], None, None, None))
    }),
    "models/nvembed_v2/embedding" => texts(vec![kept()], |vb, layers| {
        let cfg: models::mistral::Config = parsed(sized(layers, json!({"sliding_window": null})))?;
        let dtype = vb.dtype();
        let mut m = models::nvembed_v2::embedding::Model::new(&cfg, vb)?;
        model(move |a| m.forward(&a.inputs[1], a.x(), dtype))
    }),
    "models/z_image/text_encoder" => texts(vec![], |vb, layers| {
        // It stops before its last layer.
        let cfg: models::z_image::text_encoder::TextEncoderConfig = parsed(sized(layers + 1, json!({})))?;
        let m = models::z_image::text_encoder::ZImageTextEncoder::new(&cfg, vb)?;
        model(move |a| m.forward(a.x()))
    }),
    "models/stella_en_v5" => texts(vec![kept()], |vb, layers| {
        use models::stella_en_v5::{Config, EmbedHead, EmbeddingModel};
        let cfg = Config {
            vocab_size: VOCAB, hidden_size: HIDDEN, intermediate_size: 128, num_hidden_layers: layers,
            num_attention_heads: 4, num_key_value_heads: 2, max_position_embeddings: 64, rope_theta: 10000.0,
            norm_eps: 1e-6, embed_head: EmbedHead { in_features: HIDDEN, out_features: 32 },
            activation_fn: candle_nn::Activation::Silu, ..Default::default()
        };
        let mut m = EmbeddingModel::new(&cfg, vb.pp("base"), vb.pp("embed"))?;
        model(move |a| m.forward_norm(a.x(), &a.inputs[1]))
    }),
    "models/t5" => texts(vec![tokens("started")], |vb, layers| {
        let cfg: models::t5::Config = parsed(json!({
            "vocab_size": VOCAB, "d_model": HIDDEN, "d_kv": 16, "d_ff": 128, "num_layers": layers, "num_heads": 4,
            "relative_attention_num_buckets": 8, "dropout_rate": 0.0, "layer_norm_epsilon": 1e-6,
            "initializer_factor": 1.0, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false,
            "is_encoder_decoder": true, "use_cache": false, "pad_token_id": 0, "eos_token_id": 1,
        }))?;
        let mut m = models::t5::T5ForConditionalGeneration::load(vb, &cfg)?;
        model(move |a| m.forward(a.x(), &a.inputs[1]))
    }),
    "models/openclip/text_model" => texts(vec![], |vb, layers| {
        let cfg = models::openclip::text_model::Config {
            vocab_size: VOCAB, embed_dim: HIDDEN, intermediate_size: 128, max_position_embeddings: 24, pad_with: None,
            num_hidden_layers: layers, num_attention_heads: 4, projection_dim: HIDDEN,
        };
        let m = models::openclip::text_model::OpenClipTextTransformer::new(vb, &cfg)?;
        model(move |a| models::openclip::text_model::OpenClipTextTransformer::forward(&m, a.x()))
    }),
    "models/clip/text_model" => texts(vec![], |vb, layers| {
        let cfg = changed::clip::text_model::ClipTextConfig {
            vocab_size: VOCAB, embed_dim: HIDDEN, intermediate_size: 128, max_position_embeddings: 24, pad_with: None,
            num_hidden_layers: layers, num_attention_heads: 4, projection_dim: HIDDEN,
            activation: changed::clip::text_model::Activation::QuickGelu,
        };
        let m = changed::clip::text_model::ClipTextTransformer::new(vb, &cfg)?;
        model(move |a| m.forward(a.x()))
    }),
    "models/chinese_clip/text_model" => lacking(|name| name.contains("pooler"), texts(vec![], |vb, layers| {
        let cfg = models::chinese_clip::text_model::ChineseClipTextConfig {
            vocab_size: VOCAB, hidden_size: HIDDEN, num_hidden_layers: layers, num_attention_heads: 4,
            intermediate_size: 128, max_position_embeddings: 64,
            ..models::chinese_clip::text_model::ChineseClipTextConfig::clip_vit_base_patch16()
        };
        let m = models::chinese_clip::text_model::ChineseClipTextTransformer::new(vb, &cfg)?;
        model(move |a| m.forward(a.x(), None, None))
    })),
    "models/blip_text" => with(starter(|vb, layers| {
        let cfg: models::blip_text::Config = parsed(blip_text(layers))?;
        let mut m = models::blip_text::TextLMHeadModel::new(&cfg, vb)?;
        model(move |a| m.forward(a.x(), &a.inputs[1]))
    }), vec![rows("image", 5, HIDDEN)]),
    "models/marian" => with(starter(|vb, layers| {
        let cfg: models::marian::Config = parsed(json!({
            "vocab_size": VOCAB, "decoder_vocab_size": VOCAB, "max_position_embeddings": 64, "encoder_layers": layers,
            "encoder_ffn_dim": 128, "encoder_attention_heads": 4, "decoder_layers": layers, "decoder_ffn_dim": 128,
            "decoder_attention_heads": 4, "use_cache": true, "is_encoder_decoder": true, "activation_function": "swish",
            "d_model": HIDDEN, "decoder_start_token_id": 1, "scale_embedding": true, "pad_token_id": 1,
            "eos_token_id": 2, "forced_eos_token_id": 2, "share_encoder_decoder_embeddings": true,
        }))?;
        let mut m = models::marian::MTModel::new(&cfg, vb)?;
        model(move |a| m.decode(a.x(), &a.inputs[1], a.past))
    }), vec![rows("encoded", 5, HIDDEN)]),
    "models/trocr" => with(stepper(|vb, layers| {
        let cfg: models::trocr::TrOCRConfig = parsed(json!({
            "vocab_size": VOCAB, "d_model": HIDDEN, "cross_attention_hidden_size": 32, "decoder_layers": layers,
            "decoder_attention_heads": 4, "decoder_ffn_dim": 128, "activation_function": "gelu",
            "max_position_embeddings": 64, "dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0,
            "decoder_start_token_id": 2, "init_std": 0.02, "decoder_layerdrop": 0.0, "use_cache": true,
            "scale_embedding": true, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
            "decoder_vocab_size": VOCAB,
        }))?;
        let mut m = models::trocr::TrOCRForCausalLM::new(&cfg, vb)?;
        model(move |a| {
            let n = a.x().dim(1)?;
            let at = |i: usize, j: usize| if j > i { f32::NEG_INFINITY } else { 0f32 };
            let mask: Vec<_> = (0..n).flat_map(|i| (0..n).map(move |j| at(i, j))).collect();
            let mask = Tensor::from_vec(mask, (n, n), &CPU)?;
            m.forward(a.x(), Some(&a.inputs[1]), a.past, &mask)
        })
    }), vec![rows("image", 5, 32)]),
}

/// Tokens of a second text.
fn tokens(name: &'static str) -> Input {
    Input {
        name,
        values: Values::Tokens(VOCAB as u32),
        ..kept()
    }
}
