//! Models of the sizes that people run, to be timed: nothing of them is compared.

use super::*;
use serde_json::json;

/// Texts of BERT-base, images of ViT-L/16, a step of Stable Diffusion 1.5 at 512 x 512 and one of FLUX at 1024 x 1024.
pub fn all() -> Vec<Case> {
    cases()
}

cases! {
    "models/bert" => {
        let calls = vec![vec![1, 128], vec![8, 128]];
        let ids = Input { name: "ids", shape: text(), values: Values::Tokens(30_522) };
        let ways = vec![once("texts", vec![], vec![(BATCH, 1, 8), (LENGTH, 1, 128)], calls)];
        sizes(vec![ids, kinds(), kept()], ways, |vb| {
            let cfg: models::bert::Config = parsed(encoders::bert(12, json!({
                "vocab_size": 30_522, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12,
                "max_position_embeddings": 512,
            })))?;
            let m = models::bert::BertModel::load(vb, &cfg)?;
            model(move |a| m.forward(a.x(), &a.inputs[1], Some(&a.inputs[2])))
        })
    },
    "models/vit" => {
        let ways = vec![once("images", vec![], vec![(BATCH, 1, 8)], vec![vec![1], vec![8]])];
        let inputs = of_images(Size::Of(224), vec![]).inputs;
        sizes(inputs, ways, |vb| {
            let cfg: models::vit::Config = parsed(sized(24, json!({
                "hidden_act": "gelu", "image_size": 224, "patch_size": 16, "num_channels": 3, "qkv_bias": true,
                "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16,
            })))?;
            let m = models::vit::Model::new(&cfg, 1000, vb)?;
            model(move |a| m.forward(a.x()))
        })
    },
    "models/stable_diffusion/unet_2d" => {
        let ways = vec![once("step", vec![], vec![(BATCH, 1, 2)], vec![vec![1], vec![2]])];
        let side = Size::Of(64);
        let latents = Input {
            name: "latents", shape: vec![Size::Named(BATCH), Size::Of(4), side, side], values: Values::Noise,
        };
        sizes(vec![latents, rows("text", 77, 768)], ways, |vb| {
            use models::stable_diffusion::unet_2d::{UNet2DConditionModel, UNet2DConditionModelConfig};
            let cfg = UNet2DConditionModelConfig { cross_attention_dim: 768, ..Default::default() };
            let m = UNet2DConditionModel::new(vb, 4, 4, false, cfg)?;
            model(move |a| m.forward(a.x(), 37.0, &a.inputs[1]))
        })
    },
    "models/flux/model" => {
        let inputs = vec![
            noise("image", &[1, 4096, 64]), noise("places", &[1, 4096, 3]), noise("text", &[1, 512, 4096]),
            all_of("text places", &[1, 512, 3], 0.0), all_of("time", &[1], 0.7), noise("pooled", &[1, 768]),
            all_of("guidance", &[1], 3.5),
        ];
        sizes(inputs, vec![once("step", vec![], vec![], vec![vec![]])], |vb| {
            let m = models::flux::model::Flux::new(&models::flux::model::Config::dev(), vb)?;
            model(move |a| diffusion::flux_call(&m, a))
        })
    },
}

fn sizes(
    inputs: Vec<Input>,
    ways: Vec<Way>,
    load: impl Fn(Builder) -> Result<Model> + Send + Sync + 'static,
) -> (Spec, Load) {
    let spec = Spec {
        inputs,
        ways,
        tolerance: CLOSE,
        lacks: |_| false,
    };
    (spec, Box::new(move |vb, _| load(vb)))
}
