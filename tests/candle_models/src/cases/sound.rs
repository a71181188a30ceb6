//! Models of sound: what hears it, what codes it, and decoders of its codes.

use super::*;
use candle::Module;
use serde_json::json;

/// The configuration of a small whisper.
pub fn whisper(layers: usize) -> Value {
    json!({
        "num_mel_bins": 16, "max_source_positions": 24, "d_model": HIDDEN, "encoder_attention_heads": 4,
        "encoder_layers": layers, "vocab_size": VOCAB, "max_target_positions": 32, "decoder_attention_heads": 4,
        "decoder_layers": layers,
    })
}

/// A model of sounds of any length and a text of five tokens.
fn heard(load: impl Fn(Builder, usize) -> Result<Model> + Send + Sync + 'static) -> (Spec, Load) {
    let mel = Input {
        name: "mel",
        shape: vec![Size::Named(BATCH), Size::Of(16), Size::Times(2, LENGTH)],
        values: Values::Noise,
    };
    let ids = Input {
        name: "ids",
        shape: vec![Size::Named(BATCH), Size::Of(5)],
        values: Values::Tokens(VOCAB as u32),
    };
    let ways = vec![
        once(
            "one call",
            vec![(BATCH, 1), (LENGTH, 20)],
            vec![],
            vec![vec![]],
        ),
        once(
            "batches",
            vec![(LENGTH, 20)],
            vec![(BATCH, 1, 4)],
            vec![vec![1], vec![3]],
        ),
        once(
            "lengths",
            vec![(BATCH, 1)],
            vec![(LENGTH, 4, 24)],
            vec![vec![9], vec![22]],
        ),
    ];
    (Spec::of(vec![mel, ids], ways), Box::new(load))
}

/// Rows of codes, one for each codebook.
fn codes(books: usize, n: usize, below: u32) -> Input {
    Input {
        values: Values::Tokens(below),
        ..noise("codes", &[1, books, n])
    }
}

/// The configuration of a small metavoice.
pub fn metavoice(layers: usize) -> Value {
    json!({
        "block_size": 64, "vocab_size": VOCAB, "n_layer": layers, "n_head": 4, "dim": HIDDEN, "speaker_emb_dim": 32,
        "intermediate_size": 128, "n_local_heads": 2, "norm_eps": 1e-5,
    })
}

/// A decoder that is told who speaks.
fn speaker(load: impl Fn(Builder, usize) -> Result<Model> + Send + Sync + 'static) -> (Spec, Load) {
    with(starter(load), vec![noise("speaker", &[1, 32])])
}

cases! {
    "models/voxtral/model" => fixed(vec![noise("mel", &[1, 16, 48])], |vb, layers| {
        let cfg = models::voxtral::model::VoxtralEncoderConfig {
            hidden_size: HIDDEN, intermediate_size: 128, num_hidden_layers: layers, num_attention_heads: 4,
            num_key_value_heads: 4, head_dim: 16, num_mel_bins: 16, max_source_positions: 24, ..Default::default()
        };
        let m = models::voxtral::model::VoxtralEncoder::new(&cfg, vb)?;
        model(move |a| m.forward(a.x()))
    }),
    "models/gemma4/multimodal_embedding" => fixed(vec![noise("heard", &[1, 5, 32])], |vb, _| {
        let m = models::gemma4::multimodal_embedding::MultimodalEmbedder::new(32, HIDDEN, 1e-6, vb)?;
        model(move |a| m.forward(a.x()))
    }),
    "models/whisper/model" => heard(|vb, layers| {
        let mut m = models::whisper::model::Whisper::load(&vb, parsed(whisper(layers))?)?;
        model(move |a| {
            let heard = m.encoder.forward(a.x(), true)?;
            let ys = m.decoder.forward(&a.inputs[1], &heard, true)?;
            m.decoder.final_linear(&ys)
        })
    }),
    "models/encodec" => fixed(vec![codes(2, 12, 16), noise("sound", &[1, 1, 64])], |vb, _| {
        let cfg = models::encodec::Config {
            hidden_size: 32, num_filters: 8, upsampling_ratios: vec![4, 2], codebook_size: 16, codebook_dim: Some(32),
            // Two codebooks: 20 bits for each of 100 frames a second.
            sampling_rate: 800, target_bandwidths: vec![2.0],
            ..Default::default()
        };
        let m = models::encodec::Model::new(&cfg, vb)?;
        model(move |a| Ok((m.decode(a.x())?, m.encode(&a.inputs[1])?)))
    }),
    "models/dac" => fixed(vec![codes(2, 6, 16)], |vb, _| {
        let cfg = models::dac::Config {
            num_codebooks: 2, model_bitrate: 8, codebook_size: 16, latent_dim: 32, frame_rate: 86, sampling_rate: 44100,
        };
        let m = models::dac::Model::new(&cfg, vb)?;
        model(move |a| m.decode_codes(a.x()))
    }),
    "models/snac" => fixed(vec![
        codes(1, 4, 16), Input { name: "fine codes", ..codes(1, 8, 16) }, noise("sound", &[1, 1, 64]),
    ], |vb, _| {
        let cfg: models::snac::Config = parsed(json!({
            "sampling_rate": 24000, "encoder_dim": 8, "encoder_rates": [2, 2], "decoder_dim": 32, "decoder_rates": [2, 2],
            "attn_window_size": null, "codebook_size": 16, "codebook_dim": 8, "vq_strides": [2, 1], "noise": false,
            "depthwise": true,
        }))?;
        // Its code takes the shape that a weight has for the groups that there are.
        let single = |name: &str, n: usize| vb.get((n, 1, 7), &format!("{name}.parametrizations.weight.original1"));
        for (i, n) in [(1, 8), (2, 16)] {
            for unit in 0..3 {
                single(&format!("encoder.block.{i}.block.{unit}.block.1"), n)?;
            }
        }
        for (i, n) in [(2, 16), (3, 8)] {
            for unit in 2..5 {
                single(&format!("decoder.model.{i}.block.{unit}.block.1"), n)?;
            }
        }
        single("encoder.block.3", 32)?;
        single("decoder.model.0", 32)?;
        let m = models::snac::Model::new(&cfg, vb)?;
        model(move |a| {
            let made = m.decode(&[&a.inputs[0].squeeze(1)?, &a.inputs[1].squeeze(1)?])?;
            Ok((made, m.encode(&a.inputs[2])?))
        })
    }),
    "models/mimi/seanet" => fixed(vec![noise("sound", &[1, 1, 64])], |vb, _| {
        let cfg = models::mimi::encodec::Config::v0_1(None);
        let cfg = models::mimi::seanet::Config { dimension: 32, n_filters: 4, ratios: vec![4, 2], ..cfg.seanet };
        let heard = models::mimi::seanet::SeaNetEncoder::new(&cfg, vb.pp("encoder"))?;
        let made = models::mimi::seanet::SeaNetDecoder::new(&cfg, vb.pp("decoder"))?;
        model(move |a| made.forward(&heard.forward(a.x())?))
    }),
    "models/mimi/transformer" => fixed(vec![noise("rows", &[1, 32, 10])], |vb, layers| {
        let cfg = models::mimi::encodec::Config::v0_1(None);
        let cfg = models::mimi::transformer::Config {
            d_model: 32, num_heads: 2, num_layers: layers, dim_feedforward: 64, ..cfg.transformer
        };
        let mut m = models::mimi::transformer::ProjectedTransformer::new(32, &[32], &cfg, vb)?;
        model(move |a| m.forward(a.x()))
    }),
    "models/mimi/quantization" => fixed(vec![codes(3, 8, 16), noise("rows", &[1, 32, 8])], |vb, _| {
        let m = models::mimi::quantization::SplitResidualVectorQuantizer::new(
            16, Some(32), Some(32), 3, 16, vb,
        )?;
        model(move |a| Ok((m.decode(a.x())?, m.encode(&a.inputs[1])?)))
    }),
    "models/mimi/conv" => fixed(vec![noise("rows", &[1, 16, 24])], |vb, _| {
        use models::mimi::conv::{ConvDownsample1d, ConvTrUpsample1d, Norm, PadMode, StreamableConv1d};
        let norm = Some(Norm::WeightNorm);
        let conv = StreamableConv1d::new(16, 16, 5, 1, 2, 1, true, true, norm, PadMode::Constant, vb.pp("conv"))?;
        let down = ConvDownsample1d::new(2, 16, true, true, vb.pp("down"))?;
        let up = ConvTrUpsample1d::new(2, 16, true, true, vb.pp("up"))?;
        model(move |a| up.forward(&down.forward(&conv.forward(a.x())?)?))
    }),
    "models/mimi/encodec" => fixed(vec![codes(3, 6, 16), noise("sound", &[1, 1, 64])], |vb, layers| {
        let mut cfg = models::mimi::encodec::Config::v0_1(Some(3));
        (cfg.sample_rate, cfg.frame_rate, cfg.quantizer_bins, cfg.quantizer_dim) = (800., 50., 16, 16);
        (cfg.seanet.dimension, cfg.seanet.n_filters, cfg.seanet.ratios) = (32, 4, vec![4, 2]);
        let coder = &mut cfg.transformer;
        (coder.d_model, coder.num_heads, coder.num_layers, coder.dim_feedforward) = (32, 2, layers, 64);
        let mut m = models::mimi::encodec::Encodec::new(cfg, vb)?;
        model(move |a| Ok((m.decode(a.x())?, vec![m.encode_pre_quantize(&a.inputs[1])?, m.encode(&a.inputs[1])?])))
    }),
    "models/metavoice" => speaker(|vb, layers| {
        let mut m = models::metavoice::transformer::Model::new(&parsed(metavoice(layers))?, vb)?;
        model(move |a| m.forward(a.x(), &a.inputs[1], a.past))
    }),
    "models/parler_tts" => {
        let books = Input {
            shape: vec![Size::Named(BATCH), Size::Of(3), Size::Named(SEQ)],
            ..of_tokens(Vec::new()).inputs[0].clone()
        };
        let (mut spec, load) = with(starter(|vb, layers| {
            let cfg: models::parler_tts::DecoderConfig = parsed(sized(layers, json!({
                "ffn_dim": 128, "num_cross_attention_key_value_heads": 4, "activation_function": "gelu",
                "scale_embedding": false, "num_codebooks": 3, "pad_token_id": 0, "rope_embeddings": false,
            })))?;
            let mut m = models::parler_tts::Decoder::new(&cfg, vb)?;
            model(move |a| {
                let (n, all) = (a.x().dim(2)?, a.past + a.x().dim(2)?);
                let at = |i: usize, j: usize| if j > i + a.past { f32::NEG_INFINITY } else { 0f32 };
                let mask: Vec<_> = (0..n).flat_map(|i| (0..all).map(move |j| at(i, j))).collect();
                let mask = Tensor::from_vec(mask, (n, all), &CPU)?;
                m.forward(a.x(), None, Some(&mask), &a.inputs[1], None, a.past)
            })
        }), vec![rows("described", 5, HIDDEN)]);
        spec.inputs[0] = books;
        (spec, load)
    },
    "models/gemma4/text" => decoder(|vb, layers| {
        let kinds: Vec<&str> = (0..layers).map(|i| ["sliding_attention", "full_attention"][i % 2]).collect();
        let cfg: models::gemma4::config::Gemma4TextConfig = parsed(sized(layers, json!({
            "hidden_activation": "gelu_pytorch_tanh", "sliding_window": 64, "final_logit_softcapping": 30.0,
            "sliding_window_pattern": 2, "layer_types": kinds, "global_head_dim": 16, "tie_word_embeddings": true,
        })))?;
        let mut m = models::gemma4::text::TextModel::new(&cfg, vb)?;
        model(move |a| m.forward(a.x(), a.past))
    }),
    "models/gemma4/audio" => fixed(vec![noise("mel", &[1, 48, 32]), all_of("mask", &[1, 48], 0.0)], |vb, layers| {
        let cfg: models::gemma4::config::Gemma4AudioConfig = parsed(json!({
            "input_feat_size": 32, "hidden_size": HIDDEN, "conf_num_attention_heads": 4, "conf_num_hidden_layers": layers,
            "output_proj_dims": 32, "sscp_conv_channel_size": [16, 8],
        }))?;
        let m = models::gemma4::audio::AudioModel::new(&cfg, vb)?;
        // Its second result is the mask.
        model(move |a| Ok(m.forward(a.x(), &a.inputs[1])?.0))
    }),
}
