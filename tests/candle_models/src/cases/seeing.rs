//! Models that take an image and a text.

use super::*;
use candle::{DType, Module};
use serde_json::json;

/// What the configurations of encoders of images have.
fn vision(layers: usize) -> Value {
    sized(
        layers,
        json!({
            "hidden_act": "gelu", "image_size": 32, "patch_size": 8, "num_channels": 3, "num_key_value_heads": 4,
        }),
    )
}

/// An image of 32 x 32 for each text.
fn image() -> Input {
    Input {
        name: "image",
        shape: vec![Size::Named(BATCH), Size::Of(3), Size::Of(32), Size::Of(32)],
        values: Values::Noise,
    }
}

/// A decoder that sees an image ahead of the first of its tokens. Each call has the image, only the first looks at it.
fn teller(load: impl Fn(Builder, usize) -> Result<Model> + Send + Sync + 'static) -> (Spec, Load) {
    split_by_position(1, with(starter(load), vec![image()]))
}

/// Tokens of one length for each image.
fn ids(n: usize) -> Vec<Input> {
    vec![vision::of_length("ids", n)]
}

/// The configuration of a small gemma that sees.
fn paligemma(layers: usize) -> Value {
    json!({
        "vision_config": vision(layers), "projection_dim": HIDDEN,
        "text_config": sized(layers, json!({"hidden_act": "gelu_pytorch_tanh", "hidden_activation": null})),
    })
}

/// The configurations of a small moondream.
pub fn moondream(layers: usize) -> Value {
    json!({
        // Its patches are of 14 x 14 and become 1152 numbers, whatever is said.
        "vision_config": {
            "image_embedding_dim": 1152, "model_dim": HIDDEN, "hidden_dim": 128, "hidden_features": 64, "embed_len": 4,
            "embed_dim": 1152, "num_blocks": layers, "num_heads": 16, "act": "gelu_pytorch_tanh",
        },
        "phi_config": sized(layers, json!({
            "n_positions": 64, "n_embd": HIDDEN, "n_layer": layers, "n_inner": 128, "n_head": 4, "rotary_dim": 8,
            "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "pad_vocab_size_multiple": 64,
        })),
    })
}

/// The inputs of a moondream.
pub fn moondream_sees(
    load: impl Fn(Builder, usize) -> Result<Model> + Send + Sync + 'static,
) -> (Spec, Load) {
    fixed(
        vec![
            noise("image", &[1, 3, 28, 28]),
            Input {
                values: Values::Tokens(VOCAB as u32),
                ..noise("ids", &[1, 5])
            },
        ],
        load,
    )
}

cases! {
    "models/chinese_clip/mod" => lacking(|name| name.contains("pooler"), with(images(32, |vb, layers| {
        let mut cfg = models::chinese_clip::ChineseClipConfig::clip_vit_base_patch16();
        let (text, vision) = (&mut cfg.text_config, &mut cfg.vision_config);
        (text.vocab_size, text.hidden_size, text.intermediate_size) = (VOCAB, HIDDEN, 128);
        (text.max_position_embeddings, text.num_hidden_layers, text.num_attention_heads) = (24, layers, 4);
        (vision.hidden_size, vision.intermediate_size, vision.image_size, vision.patch_size) = (HIDDEN, 128, 32, 8);
        (vision.num_hidden_layers, vision.num_attention_heads, cfg.projection_dim) = (layers, 4, 32);
        let m = models::chinese_clip::ChineseClipModel::new(vb, &cfg)?;
        model(move |a| Ok((m.get_image_features(a.x())?, m.get_text_features(&a.inputs[1], None, None)?)))
    }), ids(7))),
    "models/mobileclip" => lacking(vision::no_branch_of_fastvit, with(images(64, |vb, layers| {
        let mut cfg = models::mobileclip::MobileClipConfig::s1();
        let text = &mut cfg.text_config;
        (text.vocab_size, text.embed_dim, text.intermediate_size, text.projection_dim) = (VOCAB, HIDDEN, 128, 512);
        (text.max_position_embeddings, text.num_hidden_layers, text.num_attention_heads) = (24, layers, 4);
        (cfg.vision_config.in_channels, cfg.vision_config.blocks) = (16, [1, 1, 1, 1]);
        let m = models::mobileclip::MobileClipModel::new(vb, &cfg)?;
        model(move |a| Ok((m.get_image_features(a.x())?, m.get_text_features(&a.inputs[1])?)))
    }), ids(7))),
    "models/colpali" => with(images(32, |vb, layers| {
        let mut m = models::colpali::Model::new(&parsed(paligemma(layers))?, vb)?;
        model(move |a| Ok((m.forward_images(a.x(), &a.inputs[1])?, m.forward_text(&a.inputs[1])?)))
    }), ids(7)),
    "models/paligemma" => teller(|vb, layers| {
        let mut m = models::paligemma::Model::new(&parsed(paligemma(layers))?, vb)?;
        model(move |a| match a.past {
            0 => m.setup(&a.inputs[1], a.x()),
            _ => m.forward(a.x()),
        })
    }),
    "models/pixtral/llava" => teller(|vb, layers| {
        let cfg: models::pixtral::llava::Config = parsed(json!({
            "projector_hidden_act": "gelu", "vision_config": vision(layers), "image_token_index": 10,
            "text_config": sized(layers, json!({"sliding_window": null, "use_flash_attn": false})), "image_seq_length": 16,
        }))?;
        let mut m = models::pixtral::llava::Model::new(&cfg, vb)?;
        model(move |a| match a.past {
            0 => {
                let text = m.language_model.embed_tokens().forward(a.x())?;
                m.lm_forward_embeds(&Tensor::cat(&[m.encode_image(&a.inputs[1])?, text], 1)?)
            }
            _ => m.lm_forward(a.x()),
        })
    }),
    // What puts images where a text has a token for them reads the tokens, so the image is ahead of the text.
    "models/llava/mod" => teller(|vb, layers| {
        let seen = models::clip::vision_model::ClipVisionConfig {
            embed_dim: HIDDEN, intermediate_size: 128, num_hidden_layers: layers, num_attention_heads: 4,
            image_size: 32, patch_size: 8, ..models::clip::vision_model::ClipVisionConfig::vit_base_patch32()
        };
        let cfg: models::llava::config::LLaVAConfig = parsed(sized(layers, json!({
            "architectures": [], "image_crop_resolution": 32, "image_grid_pinpoints": [], "image_split_resolution": 32,
            "mm_hidden_size": HIDDEN, "mm_projector_type": "mlp2x_gelu", "mm_use_im_start_end": false,
            "mm_vision_select_feature": "patch", "mm_vision_select_layer": -2, "mm_vision_tower": null,
            "model_type": "llava", "pad_token_id": 0, "tokenizer_model_max_length": null, "torch_dtype": "float32",
        })))?;
        let m = models::llava::LLaVA::load(vb, &cfg, Some(seen))?;
        let mut cache = models::llama::Cache::new(true, DType::F32, &cfg.to_llama_config(), &CPU)?;
        model(move |a| {
            let text = m.llama.embed(a.x())?;
            match a.past {
                0 => m.forward(&Tensor::cat(&[m.encode_images(&a.inputs[1])?, text], 1)?, 0, &mut cache),
                // 16 patches are ahead of the text.
                past => m.forward(&text, past + 16, &mut cache),
            }
        })
    }),
    "models/gemma4/vision" => fixed(
        vec![noise("image", &[1, 3, 32, 32]), noise("other", &[1, 3, 16, 32])],
        |vb, layers| {
            let m = models::gemma4::vision::VisionTower::new(&parsed(gemma4_vision(layers))?, vb)?;
            model(move |a| m.forward(&a.inputs))
        },
    ),
    // What puts images where a text has a token for them counts these tokens, so the image is ahead of the text.
    "models/gemma4/mod" => teller(|vb, layers| {
        let kinds: Vec<&str> = (0..layers).map(|i| ["sliding_attention", "full_attention"][i % 2]).collect();
        let cfg: models::gemma4::config::Gemma4Config = parsed(json!({
            "vision_config": gemma4_vision(layers), "audio_config": null,
            "text_config": sized(layers, json!({
                "hidden_activation": "gelu_pytorch_tanh", "sliding_window": 64, "final_logit_softcapping": 30.0,
                "sliding_window_pattern": 2, "layer_types": kinds, "global_head_dim": 16, "tie_word_embeddings": true,
            })),
        }))?;
        let mut m = models::gemma4::Model::new(&cfg, vb)?;
        model(move |a| match a.past {
            0 => {
                let seen = m.vision_tower.forward(&[a.inputs[1].clone()])?;
                let text = m.language_model.embed_tokens(a.x())?;
                let all = Tensor::cat(&[m.embed_vision.forward(&seen)?, text], 1)?;
                let (b, n, _) = all.dims3()?;
                m.language_model.forward_embeds(&all, 0, b, n)
            }
            // Four places of the image are ahead of the text.
            past => m.forward(a.x(), past + 4),
        })
    }),
    "models/moondream" => moondream_sees(|vb, layers| {
        let mut m = models::moondream::Model::new(&parsed(moondream(layers))?, vb)?;
        model(move |a| {
            m.text_model().clear_kv_cache();
            let seen = a.x().apply(m.vision_encoder())?;
            let (first, rest) = (a.inputs[1].narrow(1, 0, 1)?, a.inputs[1].narrow(1, 1, 4)?);
            m.text_model().forward_with_img(&first, &rest, &seen)
        })
    }),
    "models/qwen3_vl/mod" => fixed(
        vec![
            Input { values: Values::Tokens(VOCAB as u32), ..noise("ids", &[1, 9]) },
            noise("patches", &[16, 96]),
        ],
        |vb, layers| {
            let cfg: models::qwen3_vl::Config = parsed(json!({
                "text_config": sized(layers, json!({"sliding_window": null})),
                "vision_config": {
                    "depth": layers, "hidden_size": HIDDEN, "out_hidden_size": HIDDEN, "intermediate_size": 128,
                    "num_heads": 4, "patch_size": 4, "num_position_embeddings": 16, "deepstack_visual_indexes": [0],
                },
                "image_token_id": 60, "video_token_id": 61, "vision_start_token_id": 62, "vision_end_token_id": 63,
            }))?;
            let m = models::qwen3_vl::Qwen3VLModel::new(&cfg, vb)?;
            model(move |a| {
                let grid = Tensor::new(&[[1u32, 4, 4]], &CPU)?;
                let (patches, places) = (a.inputs[1].clone(), vec![vec![(2, 6)]]);
                m.forward(a.x(), Some(patches), None, Some(grid), None, vec![9], places, vec![vec![]], &[0])
            })
        },
    ),
    "models/paddleocr_vl/mod" => fixed(
        vec![
            Input { values: Values::Tokens(60), ..noise("ids", &[1, 9]) },
            noise("image", &[1, 3, 16, 16]),
        ],
        |vb, layers| {
            let mut all = sized(layers, json!({
                "vision_config": {
                    "hidden_size": HIDDEN, "intermediate_size": 128, "num_hidden_layers": layers,
                    "num_attention_heads": 4, "image_size": 16, "patch_size": 4,
                },
                "rope_scaling": {"mrope_section": [2, 3, 3]}, "image_token_id": 60,
            }));
            // It goes by either name.
            all.as_object_mut().expect("an object").remove("layer_norm_eps");
            let cfg: models::paddleocr_vl::Config = parsed(all)?;
            let mut m = models::paddleocr_vl::PaddleOCRVLModel::new(&cfg, vb)?;
            model(move |a| {
                let grid = Tensor::new(&[[1u32, 4, 4]], &CPU)?;
                let seen = m.encode_image(&a.inputs[1], &grid)?;
                m.clear_kv_cache();
                Ok((seen, m.forward(a.x(), None, None, 0)?))
            })
        },
    ),
}

/// The configuration of what sees for a small gemma4: four places for an image of 32 x 32.
fn gemma4_vision(layers: usize) -> Value {
    json!({
        "hidden_size": HIDDEN, "intermediate_size": 128, "num_hidden_layers": layers, "num_attention_heads": 4,
        "num_key_value_heads": 4, "head_dim": 16, "patch_size": 8, "position_embedding_size": 16,
        "pooling_kernel_size": 2, "default_output_length": 4, "standardize": true,
    })
}
