//! Models that make pictures: U-nets, transformers of patches, and the autoencoders around them.

use super::*;
use candle::{DType, Module};
use serde_json::json;

/// The configuration of a small U-net.
fn unet(layers: usize) -> models::stable_diffusion::unet_2d::UNet2DConditionModelConfig {
    use models::stable_diffusion::unet_2d::{BlockConfig, UNet2DConditionModelConfig};
    let block = |out_channels, use_cross_attn| BlockConfig {
        out_channels,
        use_cross_attn,
        attention_head_dim: 4,
    };
    UNet2DConditionModelConfig {
        blocks: vec![block(32, Some(1)), block(64, Some(1)), block(64, None)],
        layers_per_block: layers,
        norm_num_groups: 8,
        cross_attention_dim: 32,
        ..Default::default()
    }
}

/// The configuration of a small FLUX.
pub fn flux(layers: usize) -> models::flux::model::Config {
    models::flux::model::Config {
        in_channels: 16,
        vec_in_dim: 24,
        context_in_dim: 32,
        hidden_size: 64,
        mlp_ratio: 2.0,
        num_heads: 2,
        depth: layers,
        depth_single_blocks: layers,
        axes_dim: vec![8, 12, 12],
        theta: 10_000,
        qkv_bias: true,
        guidance_embed: true,
    }
}

/// One step of FLUX.
pub fn flux_call(m: &impl models::flux::WithForward, a: &Args) -> Result<Tensor> {
    match a.inputs.as_slice() {
        [image, places, text, text_places, time, pooled, guidance] => m.forward(
            image,
            places,
            text,
            text_places,
            time,
            pooled,
            Some(guidance),
        ),
        _ => candle::bail!("FLUX has seven inputs"),
    }
}

/// Results in f16 are off by so much of the largest at most.
const IN_HALVES: f32 = 5e-3;

/// Latents of a picture.
fn latents(
    channels: usize,
    ways: Vec<Way>,
    load: impl Fn(Builder, usize) -> Result<Model> + Send + Sync + 'static,
) -> (Spec, Load) {
    let side = Size::Times(8, SIDE);
    let latents = Input {
        name: "latents",
        shape: vec![Size::Named(BATCH), Size::Of(channels), side, side],
        values: Values::Noise,
    };
    (Spec::of(vec![latents], ways), Box::new(load))
}

/// One picture, some of them, and pictures of any size.
fn pictures() -> Vec<Way> {
    vec![
        once(
            "one picture",
            vec![(BATCH, 1), (SIDE, 2)],
            vec![],
            vec![vec![]],
        ),
        once(
            "batches",
            vec![(SIDE, 2)],
            vec![(BATCH, 1, 4)],
            vec![vec![1], vec![3]],
        ),
        once(
            "sizes",
            vec![(BATCH, 1)],
            vec![(SIDE, 1, 4)],
            vec![vec![2], vec![3]],
        ),
    ]
}

cases! {
    "models/stable_diffusion/unet_2d" => with(latents(4, pictures(), |vb, layers| {
        let m = models::stable_diffusion::unet_2d::UNet2DConditionModel::new(vb, 4, 4, false, unet(layers))?;
        model(move |a| m.forward(a.x(), 37.0, &a.inputs[1]))
    }), vec![rows("text", 7, 32)]),
    "models/stable_diffusion/unet_2d_blocks" => latents(32, pictures(), |vb, layers| {
        let cfg = models::stable_diffusion::unet_2d_blocks::DownEncoderBlock2DConfig {
            num_layers: layers, resnet_groups: 8, ..Default::default()
        };
        let m = models::stable_diffusion::unet_2d_blocks::DownEncoderBlock2D::new(vb, 32, 64, cfg)?;
        model(move |a| m.forward(a.x()))
    }),
    "models/stable_diffusion/resnet" => latents(32, pictures(), |vb, _| {
        let cfg = models::stable_diffusion::resnet::ResnetBlock2DConfig {
            out_channels: Some(64), temb_channels: None, groups: 8, ..Default::default()
        };
        let m = models::stable_diffusion::resnet::ResnetBlock2D::new(vb, 32, cfg)?;
        model(move |a| m.forward(a.x(), None))
    }),
    "models/stable_diffusion/attention" => latents(32, pictures(), |vb, layers| {
        let cfg = models::stable_diffusion::attention::SpatialTransformerConfig {
            depth: layers, num_groups: 8, ..Default::default()
        };
        let m = models::stable_diffusion::attention::SpatialTransformer::new(vb, 32, 4, 8, false, cfg)?;
        model(move |a| m.forward(a.x(), None))
    }),
    "models/stable_diffusion/embeddings" => fixed(vec![noise("step", &[3])], |vb, _| {
        let wave = models::stable_diffusion::embeddings::Timesteps::new(32, true, 0.0);
        let m = models::stable_diffusion::embeddings::TimestepEmbedding::new(vb, 32, 64)?;
        model(move |a| m.forward(&wave.forward(a.x())?))
    }),
    "models/stable_diffusion/vae" => latents(4, pictures(), |vb, layers| {
        let cfg = models::stable_diffusion::vae::AutoEncoderKLConfig {
            block_out_channels: vec![16, 32], layers_per_block: layers, norm_num_groups: 8, ..Default::default()
        };
        let m = models::stable_diffusion::vae::AutoEncoderKL::new(vb, 3, 3, cfg)?;
        model(move |a| m.decode(a.x()))
    }),
    "models/flux/model" => fixed(
        vec![
            noise("image", &[1, 16, 16]), noise("places", &[1, 16, 3]), noise("text", &[1, 7, 32]),
            all_of("text places", &[1, 7, 3], 0.0), all_of("time", &[1], 0.7), noise("pooled", &[1, 24]),
            all_of("guidance", &[1], 3.5),
        ],
        |vb, layers| {
            let m = models::flux::model::Flux::new(&flux(layers), vb)?;
            model(move |a| flux_call(&m, a))
        },
    ),
    "models/flux/autoencoder" => latents(16, pictures(), |vb, layers| {
        let cfg = models::flux::autoencoder::Config {
            resolution: 32, ch: 32, ch_mult: vec![1, 2], num_res_blocks: layers, ..models::flux::autoencoder::Config::dev()
        };
        let m = models::flux::autoencoder::AutoEncoder::new(&cfg, vb)?;
        model(move |a| m.decode(a.x()))
    }),
    "models/flux/sampling" => fixed(
        vec![noise("latents", &[1, 4, 8, 8]), noise("text", &[1, 7, 32]), noise("pooled", &[1, 24])],
        |vb, layers| {
            use models::flux::sampling::{State, denoise, get_schedule, unpack};
            let m = models::flux::model::Flux::new(&flux(layers), vb)?;
            model(move |a| {
                let s = State::new(&a.inputs[1], &a.inputs[2], a.x())?;
                let steps = get_schedule(2, Some((16, 0.5, 1.15)));
                let img = denoise(&m, &s.img, &s.img_ids, &s.txt, &s.txt_ids, &s.vec, &steps, 3.5)?;
                unpack(&img, 64, 64)
            })
        },
    ),
    // candle's code embeds times in f16, so all of it is in f16.
    "models/mmdit/model" => within(IN_HALVES, fixed(
        vec![
            noise("latents", &[1, 4, 8, 8]), all_of("time", &[1], 37.0), noise("pooled", &[1, 24]),
            noise("text", &[1, 7, 32]),
        ],
        |vb, layers| {
            let cfg = models::mmdit::model::Config {
                patch_size: 2, in_channels: 4, out_channels: 4, depth: layers + 1, head_size: 16, adm_in_channels: 24,
                pos_embed_max_size: 8, context_embed_size: 32, frequency_embedding_size: 32,
            };
            let m = models::mmdit::model::MMDiT::new(&cfg, false, vb.to_dtype(DType::F16))?;
            model(move |a| {
                let half = |i: usize| a.inputs[i].to_dtype(DType::F16);
                m.forward(&half(0)?, &a.inputs[1], &half(2)?, &half(3)?, None)
            })
        },
    )),
    "models/mmdit/blocks" => fixed(
        vec![noise("text", &[1, 7, 64]), noise("image", &[1, 16, 64]), noise("said", &[1, 64])],
        |vb, _| {
            use models::mmdit::blocks::JointBlock;
            let m = models::mmdit::blocks::MMDiTJointBlock::new(64, 4, false, vb)?;
            model(move |a| m.forward(a.x(), &a.inputs[1], &a.inputs[2]))
        },
    ),
    "models/mmdit/embedding" => within(IN_HALVES, fixed(vec![noise("image", &[1, 4, 8, 8]), all_of("time", &[1], 37.0)], |vb, _| {
        let patches = models::mmdit::embedding::PatchEmbedder::new(2, 4, 64, vb.pp("patches"))?;
        let time = models::mmdit::embedding::TimestepEmbedder::new(64, 32, vb.pp("time").to_dtype(DType::F16))?;
        model(move |a| Ok((patches.forward(a.x())?, time.forward(&a.inputs[1])?)))
    })),
    "models/mmdit/projections" => fixed(vec![noise("rows", &[1, 7, 64])], |vb, _| {
        let m = models::mmdit::projections::AttnProjections::new(64, 4, vb)?;
        model(move |a| {
            let qkv = m.pre_attention(a.x())?;
            m.post_attention(&((qkv.q * qkv.k)? + qkv.v.flatten_from(2)?)?)
        })
    }),
    "models/wuerstchen/attention_processor" => fixed(
        vec![noise("image", &[1, 32, 4, 4]), noise("text", &[1, 7, 32])],
        |vb, _| {
            let m = models::wuerstchen::attention_processor::Attention::new(32, 4, 8, false, vb)?;
            model(move |a| m.forward(a.x(), &a.inputs[1]))
        },
    ),
    "models/wuerstchen/common" => fixed(
        vec![noise("image", &[1, 32, 4, 4]), noise("time", &[1, 16]), noise("text", &[1, 7, 24])],
        |vb, _| {
            let block = models::wuerstchen::common::ResBlock::new(32, 0, 3, vb.pp("block"))?;
            let time = models::wuerstchen::common::TimestepBlock::new(32, 16, vb.pp("time"))?;
            let seen = models::wuerstchen::common::AttnBlock::new(32, 24, 4, true, false, vb.pp("seen"))?;
            model(move |a| {
                let xs = block.forward(a.x(), None)?;
                seen.forward(&time.forward(&xs, &a.inputs[1])?, &a.inputs[2])
            })
        },
    ),
    // Its times are angles of up to 10 000, where a unit of the last place is 1e-3.
    "models/wuerstchen/prior" => within(2e-4, fixed(
        vec![noise("image", &[1, 8, 6, 6]), all_of("time", &[1], 0.4), noise("text", &[1, 7, 24])],
        |vb, layers| {
            let m = models::wuerstchen::prior::WPrior::new(8, 32, 24, 16, layers, 4, false, vb)?;
            model(move |a| m.forward(a.x(), &a.inputs[1], &a.inputs[2]))
        },
    )),
    // Its U-net has the sizes of a large model; a block of it has what it is given.
    "models/wuerstchen/diffnext" => fixed(
        vec![noise("image", &[1, 32, 6, 6]), noise("skipped", &[1, 16, 6, 6])],
        |vb, _| {
            let m = models::wuerstchen::diffnext::ResBlockStageB::new(32, 16, 3, vb)?;
            model(move |a| m.forward(a.x(), Some(&a.inputs[1])))
        },
    ),
    "models/wuerstchen/paella_vq" => fixed(vec![noise("latents", &[1, 4, 8, 8])], |vb, _| {
        let m = models::wuerstchen::paella_vq::PaellaVQ::new(vb)?;
        model(move |a| m.decode(a.x()))
    }),
    "models/z_image/transformer" => fixed(
        vec![
            noise("latents", &[1, 16, 1, 8, 8]), all_of("time", &[1], 0.4), noise("text", &[1, 7, 32]),
            Input { values: Values::Same(1), ..noise("mask", &[1, 7]) },
        ],
        |vb, layers| {
            let cfg: models::z_image::transformer::Config = parsed(json!({
                "dim": HIDDEN, "n_layers": layers, "n_refiner_layers": 1, "n_heads": 4, "n_kv_heads": 4,
                "cap_feat_dim": 32, "axes_dims": [4, 6, 6], "axes_lens": [64, 32, 32],
            }))?;
            let m = models::z_image::transformer::ZImageTransformer2DModel::new(&cfg, vb)?;
            model(move |a| m.forward(a.x(), &a.inputs[1], &a.inputs[2], &a.inputs[3]))
        },
    ),
    "models/z_image/vae" => latents(16, pictures(), |vb, layers| {
        let cfg: models::z_image::vae::VaeConfig = parsed(json!({
            "block_out_channels": [32, 64], "layers_per_block": layers, "norm_num_groups": 8,
        }))?;
        let m = models::z_image::vae::AutoEncoderKL::new(&cfg, vb)?;
        model(move |a| m.decode(a.x()))
    }),
}
