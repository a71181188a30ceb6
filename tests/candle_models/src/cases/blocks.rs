//! Models of GGUF files that have the names of another file's model: what that asks for is in blocks.

use super::*;
use candle::Module;

/// What a case of another file says of itself.
fn spec_of(cases: Vec<Case>, file: &str) -> (Spec, Load) {
    let found = cases.into_iter().find(|c| c.file == file);
    let spec = found.map(|c| c.spec);
    let none = Box::new(|_, _| candle::bail!("the model is loaded from a GGUF file"));
    (spec.unwrap_or_else(|| of_tokens(Vec::new())), none)
}

cases! {
    "models/quantized_blip_text" => in_blocks(
        "models/blip_text", spec_of(encoders::cases(), "models/blip_text"),
        |vb, layers| {
            let cfg = parsed(encoders::blip_text(layers))?;
            let mut m = models::quantized_blip_text::TextLMHeadModel::new(&cfg, vb)?;
            model(move |a| m.forward(a.x(), &a.inputs[1]))
        },
    ),
    "models/quantized_blip" => in_blocks("models/blip", spec_of(vision::cases(), "models/blip"), |vb, layers| {
        let cfg = parsed(vision::blip(layers))?;
        let m = models::quantized_blip::BlipForConditionalGeneration::new(&cfg, vb)?;
        model(move |a| m.vision_model().forward(a.x()))
    }),
    "models/quantized_recurrent_gemma" => in_blocks(
        "models/recurrent_gemma", spec_of(decoders::cases(), "models/recurrent_gemma"),
        |vb, layers| {
            let cfg = parsed(decoders::recurrent_gemma(layers))?;
            let mut m = models::quantized_recurrent_gemma::Model::new(&cfg, vb)?;
            model(move |a| m.forward(a.x(), a.past))
        },
    ),
    "models/quantized_llama2_c" => in_blocks("models/llama2_c", spec_of(decoders::cases(), "models/llama2_c"), |vb, layers| {
        let cfg = decoders::llama2_c(layers);
        let turned = |name: &str| {
            let known = vb.get((64, 8), &format!("rot.{name}"))?;
            Ok::<_, candle::Error>((name.to_string(), known.dequantize(&CPU)?))
        };
        let turned = [turned("freq_cis_real")?, turned("freq_cis_imag")?].into_iter().collect();
        let turned = candle_nn::VarBuilder::from_tensors(turned, candle::DType::F32, &CPU);
        let mut cache = models::llama2_c::Cache::new(true, &cfg, turned)?;
        let m = models::quantized_llama2_c::QLlama::load(vb, cfg)?;
        model(move |a| m.forward(a.x(), a.past, &mut cache))
    }),
    "models/quantized_metavoice" => in_blocks("models/metavoice", spec_of(sound::cases(), "models/metavoice"), |vb, layers| {
        let mut m = models::quantized_metavoice::transformer::Model::new(&parsed(sound::metavoice(layers))?, vb)?;
        model(move |a| m.forward(a.x(), &a.inputs[1], a.past))
    }),
    "models/quantized_moondream" => in_blocks("models/moondream", spec_of(seeing::cases(), "models/moondream"), |vb, layers| {
        let mut m = models::quantized_moondream::Model::new(&parsed(seeing::moondream(layers))?, vb)?;
        model(move |a| {
            m.text_model().clear_kv_cache();
            let seen = a.x().apply(m.vision_encoder())?;
            let (first, rest) = (a.inputs[1].narrow(1, 0, 1)?, a.inputs[1].narrow(1, 1, 4)?);
            m.text_model().forward_with_img(&first, &rest, &seen)
        })
    }),
    "models/quantized_rwkv_v5" => in_blocks("models/rwkv_v5", spec_of(decoders::cases(), "models/rwkv_v5"), |vb, layers| {
        let cfg: models::rwkv_v5::Config = parsed(decoders::rwkv(layers))?;
        let m = models::quantized_rwkv_v5::Model::new(&cfg, vb)?;
        let mut state = models::rwkv_v5::State::new(1, &cfg, &CPU)?;
        model(move |a| m.forward(a.x(), &mut state))
    }),
    "models/quantized_rwkv_v6" => in_blocks("models/rwkv_v6", spec_of(decoders::cases(), "models/rwkv_v6"), |vb, layers| {
        let cfg: models::rwkv_v5::Config = parsed(decoders::rwkv(layers))?;
        let m = models::quantized_rwkv_v6::Model::new(&cfg, vb)?;
        let mut state = models::rwkv_v5::State::new(1, &cfg, &CPU)?;
        model(move |a| m.forward(a.x(), &mut state))
    }),
    "models/whisper/quantized_model" => in_blocks(
        "models/whisper/model", spec_of(sound::cases(), "models/whisper/model"),
        |vb, layers| {
            let mut m = models::whisper::quantized_model::Whisper::load(&vb, parsed(sound::whisper(layers))?)?;
            model(move |a| {
                let heard = m.encoder.forward(a.x(), true)?;
                let ys = m.decoder.forward(&a.inputs[1], &heard, true)?;
                m.decoder.final_linear(&ys)
            })
        },
    ),
    "models/flux/quantized_model" => in_blocks("models/flux/model", spec_of(diffusion::cases(), "models/flux/model"), |vb, layers| {
        let m = models::flux::quantized_model::Flux::new(&diffusion::flux(layers), vb)?;
        model(move |a| diffusion::flux_call(&m, a))
    }),
}
