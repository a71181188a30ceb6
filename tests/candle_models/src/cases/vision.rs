//! Models of images.

use super::*;
use candle::{Module, ModuleT};
use serde_json::json;
use std::sync::Arc;

/// The configuration of blip.
pub fn blip(layers: usize) -> Value {
    let vision = sized(
        layers,
        json!({
            "image_size": 32, "patch_size": 8, "projection_dim": HIDDEN, "hidden_act": "gelu",
        }),
    );
    json!({
        "text_config": encoders::blip_text(layers), "vision_config": vision, "projection_dim": HIDDEN,
        "image_text_hidden_size": HIDDEN,
    })
}

cases! {
    "models/vit" => images(32, |vb, layers| {
        let cfg: models::vit::Config = parsed(sized(layers, json!({
            "hidden_act": "gelu", "image_size": 32, "patch_size": 8, "num_channels": 3, "qkv_bias": true,
        })))?;
        let m = models::vit::Model::new(&cfg, 10, vb)?;
        model(move |a| m.forward(a.x()))
    }),
    "models/dinov2" => images(70, |vb, layers| {
        let m = models::dinov2::DinoVisionTransformer::new(vb, layers, 32, 2)?;
        model(move |a| m.forward(a.x()))
    }),
    "models/dinov2reg4" => images(518, |vb, layers| {
        let m = models::dinov2reg4::DinoVisionTransformer::new(vb, layers, 32, 2)?;
        model(move |a| m.forward(a.x()))
    }),
    "models/beit" => images(384, |vb, layers| {
        let m = models::beit::BeitVisionTransformer::new(vb, layers, 32, 2)?;
        model(move |a| m.forward(a.x()))
    }),
    "models/eva2" => images(448, |vb, layers| {
        let m = models::eva2::EVA2VisionTransformer::new(vb, layers, 128, 2)?;
        model(move |a| m.forward(a.x()))
    }),
    "models/convnext" => any_images(32, |vb, _| {
        let m = models::convnext::convnext(&models::convnext::Config::atto(), 10, vb)?;
        model(move |a| m.forward(a.x()))
    }),
    "models/efficientnet" => any_images(32, |vb, _| {
        let m = models::efficientnet::EfficientNet::new(vb, models::efficientnet::MBConvConfig::b0(), 10)?;
        model(move |a| m.forward(a.x()))
    }),
    "models/efficientvit" => images(224, |vb, _| {
        let m = models::efficientvit::efficientvit(&models::efficientvit::Config::m0(), 10, vb)?;
        model(move |a| m.forward(a.x()))
    }),
    "models/fastvit" => lacking(no_branch_of_fastvit, any_images(32, |vb, _| {
        let cfg = models::fastvit::Config { in_channels: 16, blocks: [1, 1, 1, 1], ..models::fastvit::Config::sa12() };
        let m = models::fastvit::fastvit(&cfg, 10, vb)?;
        model(move |a| m.forward(a.x()))
    })),
    // A block of as many channels as come in projects nothing.
    "models/hiera" => lacking(|name| name.starts_with("blocks.0.proj."), images(224, |vb, _| {
        let cfg: models::hiera::Config = parsed(json!({"channels": 16, "heads": 1, "stages": [1, 1, 1, 1]}))?;
        let m = models::hiera::hiera(&cfg, 10, vb)?;
        model(move |a| m.forward(a.x()))
    })),
    "models/mobilenetv4" => any_images(32, |vb, _| {
        let m = models::mobilenetv4::mobilenetv4(&models::mobilenetv4::Config::small(), 10, vb)?;
        model(move |a| m.forward(a.x()))
    }),
    "models/mobileone" => any_images(32, |vb, _| {
        let m = models::mobileone::mobileone(&models::mobileone::Config::s1(), 10, vb)?;
        model(move |a| m.forward(a.x()))
    }),
    "models/repvgg" => any_images(32, |vb, _| {
        let m = models::repvgg::repvgg(&models::repvgg::Config::a0(), 10, vb)?;
        model(move |a| m.forward(a.x()))
    }),
    "models/resnet" => any_images(32, |vb, _| {
        let m = models::resnet::resnet18(10, vb)?;
        model(move |a| m.forward(a.x()))
    }),
    "models/segformer" => any_images(32, |vb, _| {
        let cfg: models::segformer::Config = parsed(json!({
            "num_channels": 3, "num_encoder_blocks": 4, "depths": [1, 1, 1, 1], "sr_ratios": [8, 4, 2, 1],
            "hidden_sizes": [16, 32, 32, 64], "patch_sizes": [7, 3, 3, 3], "strides": [4, 2, 2, 2],
            "num_attention_heads": [1, 2, 2, 4], "mlp_ratios": [4, 4, 4, 4], "hidden_act": "gelu",
            "layer_norm_eps": 1e-6, "decoder_hidden_size": 32,
        }))?;
        let m = models::segformer::SemanticSegmentationModel::new(&cfg, 5, vb)?;
        model(move |a| m.forward(a.x()))
    }),
    "models/depth_anything_v2" => images(70, |vb, _| {
        let seen = models::dinov2::DinoVisionTransformer::new(vb.pp("pretrained"), 4, 32, 2)?;
        let cfg = models::depth_anything_v2::DepthAnythingV2Config::new(
            [16, 16, 32, 32], 32, 16, false, false, vec![0, 1, 2, 3], 70, 5,
        );
        let m = models::depth_anything_v2::DepthAnythingV2::new(Arc::new(seen), cfg, vb)?;
        model(move |a| m.forward(a.x()))
    }),
    "models/segment_anything/image_encoder" => images(64, |vb, layers| {
        let m = models::segment_anything::image_encoder::ImageEncoderViT::new(
            64, 16, 3, 32, layers, 2, 16, true, true, true, 2, &[1], vb,
        )?;
        model(move |a| m.forward(a.x()))
    }),
    "models/segment_anything/tiny_vit" => fixed(vec![noise("image", &[1, 3, 1024, 1024])], |vb, _| {
        let m = models::segment_anything::tiny_vit::TinyViT::new(
            &[16, 32, 32, 320], &[1, 1, 1, 1], &[1, 2, 2, 10], &[7, 7, 14, 7], 10, vb,
        )?;
        model(move |a| m.forward(a.x()))
    }),
    "models/segment_anything/mask_decoder" => fixed(
        vec![
            noise("image", &[1, 32, 8, 8]), noise("places", &[1, 32, 8, 8]), noise("points", &[1, 3, 32]),
            noise("dense", &[1, 32, 8, 8]),
        ],
        |vb, _| {
            let m = models::segment_anything::mask_decoder::MaskDecoder::new(32, 3, 3, 32, vb)?;
            model(move |a| m.forward(a.x(), &a.inputs[1], &a.inputs[2], &a.inputs[3], true))
        },
    ),
    "models/segment_anything/prompt_encoder" => fixed(
        vec![noise("points", &[1, 3, 2]), all_of("labels", &[1, 3], 1.0)],
        |vb, _| {
            let m = models::segment_anything::prompt_encoder::PromptEncoder::new(32, (8, 8), (128, 128), 16, vb)?;
            model(move |a| m.forward(Some((a.x(), &a.inputs[1])), None, None))
        },
    ),
    "models/segment_anything/transformer" => fixed(
        vec![noise("image", &[1, 32, 8, 8]), noise("places", &[1, 32, 8, 8]), noise("points", &[1, 3, 32])],
        |vb, layers| {
            let m = models::segment_anything::transformer::TwoWayTransformer::new(layers, 32, 4, 64, vb)?;
            model(move |a| m.forward(a.x(), &a.inputs[1], &a.inputs[2]))
        },
    ),
    // Its images are of 1024 x 1024 and its prompts of 256 numbers, whatever is said.
    "models/segment_anything/sam" => fixed(vec![noise("image", &[3, 96, 64])], |vb, layers| {
        let m = models::segment_anything::sam::Sam::new(32, layers, 2, &[1], vb)?;
        model(move |a| m.forward(a.x(), &[(0.3, 0.4, true), (0.6, 0.2, false)], true))
    }),
    "models/clip/vision_model" => images(32, |vb, layers| {
        let cfg = models::clip::vision_model::ClipVisionConfig {
            embed_dim: HIDDEN, intermediate_size: 128, num_hidden_layers: layers, num_attention_heads: 4,
            image_size: 32, patch_size: 8, ..models::clip::vision_model::ClipVisionConfig::vit_base_patch32()
        };
        let m = models::clip::vision_model::ClipVisionTransformer::new(vb, &cfg)?;
        model(move |a| m.forward(a.x()))
    }),
    "models/clip/mod" => with(images(32, |vb, layers| {
        let mut cfg = changed::clip::ClipConfig::vit_base_patch32();
        let (text, vision) = (&mut cfg.text_config, &mut cfg.vision_config);
        (text.vocab_size, text.embed_dim, text.intermediate_size) = (VOCAB, HIDDEN, 128);
        (text.max_position_embeddings, text.projection_dim) = (24, 32);
        (text.num_hidden_layers, text.num_attention_heads) = (layers, 4);
        (vision.embed_dim, vision.intermediate_size, vision.image_size, vision.patch_size) = (HIDDEN, 128, 32, 8);
        (vision.projection_dim, vision.num_hidden_layers, vision.num_attention_heads) = (32, layers, 4);
        let m = changed::clip::ClipModel::new(vb, &cfg)?;
        model(move |a| Ok(vec![m.get_image_features(a.x())?, m.get_text_features(&a.inputs[1])?]))
    }), vec![of_length("ids", 7)]),
    "models/chinese_clip/vision_model" => images(32, |vb, layers| {
        let cfg = models::chinese_clip::vision_model::ChineseClipVisionConfig {
            hidden_size: HIDDEN, intermediate_size: 128, num_hidden_layers: layers, num_attention_heads: 4,
            image_size: 32, patch_size: 8,
            ..models::chinese_clip::vision_model::ChineseClipVisionConfig::clip_vit_base_patch16()
        };
        let m = models::chinese_clip::vision_model::ChineseClipVisionTransformer::new(vb, &cfg)?;
        model(move |a| m.forward(a.x()))
    }),
    "models/siglip" => with(images(32, |vb, layers| {
        let cfg: models::siglip::Config = parsed(json!({
            "text_config": sized(layers, json!({"hidden_act": "gelu"})),
            "vision_config": sized(layers, json!({"hidden_act": "gelu", "image_size": 32, "patch_size": 8})),
        }))?;
        let m = models::siglip::Model::new(&cfg, vb)?;
        model(move |a| Ok(vec![m.get_image_features(a.x())?, m.get_text_features(&a.inputs[1])?]))
    }), vec![of_length("ids", 64)]),
    "models/blip" => images(32, |vb, layers| {
        let cfg: models::blip::Config = parsed(blip(layers))?;
        let m = models::blip::BlipForConditionalGeneration::new(&cfg, vb)?;
        model(move |a| m.vision_model().forward(a.x()))
    }),
    "models/pixtral/vision_model" => any_images(16, |vb, layers| {
        let cfg: models::pixtral::vision_model::Config = parsed(sized(layers, json!({
            "image_size": 128, "patch_size": 8, "num_channels": 3,
        })))?;
        let m = models::pixtral::vision_model::Model::new(&cfg, vb)?;
        model(move |a| m.forward(a.x()))
    }),
    "models/convmixer" => images(64, |vb, _| {
        let m = models::convmixer::c1024_20(10, vb)?;
        model(move |a| m.forward(a.x()))
    }),
    "models/vgg" => fixed(vec![noise("image", &[3, 224, 224])], |vb, _| {
        let m = models::vgg::Vgg::new(vb, models::vgg::Models::Vgg13)?;
        model(move |a| m.forward_t(a.x(), false))
    }),
}

/// Texts of one length.
pub fn of_length(name: &'static str, n: usize) -> Input {
    Input {
        name,
        shape: vec![Size::Named(BATCH), Size::Of(n)],
        values: Values::Tokens(VOCAB as u32),
    }
}

/// Branches that blocks of fastvit do not have: one of a single place beside one of a single place, one that skips a block
/// whose sizes change, what squeezes before the last block, and what makes images smaller before the first stage.
pub fn no_branch_of_fastvit(name: &str) -> bool {
    let single = name.contains("stem.2.") || name.contains(".proj.1.");
    let changes = ["stem.0.", "stem.1.", "final_conv."]
        .iter()
        .any(|part| name.contains(part));
    name.contains("conv_scale") && single
        || name.contains("identity") && changes
        || name.contains(".se.") && !name.contains("final_conv.")
        || name.contains("stages.0.downsample.")
        || name.contains(".pos_emb.") && !name.contains("stages.3.")
}
