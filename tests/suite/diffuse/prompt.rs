//! Stable Diffusion of the example `diffuse` on a small folder with random weights, laid out as diffusers does: from the
//! prompt to the picture, against candle-transformers' own models, at every budget.

use super::noise;
use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use candle_transformers::models::clip::text_model as candle_clip;
use candle_transformers::models::stable_diffusion::{unet_2d, vae};
use candle_trt::device::{Host, HostMode};
use serde_json::{Value, json};
use stable::{Artist, FILES, Wanted};
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

#[path = "../../../examples/diffuse/stable/mod.rs"]
mod stable;

const CPU: Device = Device::Cpu;
const PLACES: usize = 12;
const TEXT: usize = 24;
const SIDE: usize = 8;
const TRAINED: usize = 1000;

/// Which of the kinds of Stable Diffusion a folder is.
#[derive(Clone, Copy)]
struct Kind {
    linear: bool,
    prediction: &'static str,
    spacing: &'static str,
    /// The names of the decoder's attention in newer files.
    new_names: bool,
}

const TURBO: Kind = Kind {
    linear: true,
    prediction: "epsilon",
    spacing: "trailing",
    new_names: true,
};

/// Merges of a small vocabulary, which begins with letters and letters at ends of words.
const MERGES: [&str; 4] = ["c a", "ca t</w>", "a t</w>", "o n</w>"];

fn vocabulary() -> Vec<String> {
    let letters = || ('a'..='z').map(String::from);
    let marks = ["!", "'", ","].map(String::from);
    let ends = |all: Vec<String>| all.into_iter().map(|l| l + "</w>").collect::<Vec<_>>();
    let mut all: Vec<String> = [letters().collect(), marks.to_vec()].concat();
    all.extend(ends(all.clone()));
    all.extend(MERGES.map(|merge| merge.replace(' ', "")));
    all.extend(["<|startoftext|>", "<|endoftext|>"].map(String::from));
    all
}

/// Weights as a map made them, but alike each time.
fn weights(map: &VarMap, seed: u64) -> HashMap<String, Tensor> {
    let data = map.data().lock().expect("nobody else has it");
    let mut named: Vec<_> = data.iter().collect();
    named.sort_by_key(|(name, _)| name.as_str());
    let mut tensors = HashMap::new();
    for (i, (name, var)) in named.into_iter().enumerate() {
        let norm = name.contains("norm") && name.ends_with("weight");
        let from = var.elem_count() / var.dims()[0];
        let (around, width) = match norm {
            true => (1.0, 0.2),
            false => (0.0, (from as f32).sqrt().recip()),
        };
        let values = noise::normal(seed * 1000 + i as u64, var.elem_count());
        let values: Vec<f32> = values.iter().map(|v| around + v * width).collect();
        let tensor = Tensor::from_vec(values, var.shape(), &CPU).expect("a tensor");
        tensors.insert(name.clone(), tensor);
    }
    tensors
}

/// candle's models.
struct Oracle {
    clip: candle_clip::ClipTextTransformer,
    unet: unet_2d::UNet2DConditionModel,
    vae: vae::AutoEncoderKL,
}

fn clip_config() -> candle_clip::ClipTextConfig {
    candle_clip::ClipTextConfig {
        vocab_size: vocabulary().len(),
        embed_dim: TEXT,
        activation: candle_clip::Activation::QuickGelu,
        intermediate_size: 48,
        max_position_embeddings: PLACES,
        pad_with: None,
        num_hidden_layers: 6,
        num_attention_heads: 2,
        projection_dim: TEXT,
    }
}

fn unet_config(kind: Kind) -> unet_2d::UNet2DConditionModelConfig {
    let block = |out_channels, use_cross_attn, attention_head_dim| unet_2d::BlockConfig {
        out_channels,
        use_cross_attn,
        attention_head_dim,
    };
    unet_2d::UNet2DConditionModelConfig {
        blocks: vec![block(32, Some(1), 2), block(64, None, 4)],
        layers_per_block: 1,
        norm_num_groups: 32,
        cross_attention_dim: TEXT,
        use_linear_projection: kind.linear,
        ..Default::default()
    }
}

fn vae_config() -> vae::AutoEncoderKLConfig {
    vae::AutoEncoderKLConfig {
        block_out_channels: vec![32, 64, 64],
        layers_per_block: 1,
        norm_num_groups: 32,
        ..Default::default()
    }
}

type Made<M> = candle_core::Result<(M, HashMap<String, Tensor>)>;

/// A model with random weights, and the weights.
fn made<M>(seed: u64, load: impl Fn(VarBuilder) -> candle_core::Result<M>) -> Made<M> {
    let map = VarMap::new();
    load(VarBuilder::from_varmap(&map, DType::F32, &CPU))?;
    let tensors = weights(&map, seed);
    let vb = VarBuilder::from_tensors(tensors.clone(), DType::F32, &CPU);
    Ok((load(vb)?, tensors))
}

fn write(folder: &Path, name: &str, value: &Value) {
    fs::write(folder.join(name), value.to_string()).expect("written");
}

/// Writes a folder, and gives candle's models of it.
fn folder(dir: &Path, kind: Kind) -> candle_core::Result<Oracle> {
    for name in ["tokenizer", "scheduler", "text_encoder", "unet", "vae"] {
        fs::create_dir(dir.join(name)).expect("a folder");
    }
    let words = vocabulary();
    let ids: HashMap<&str, usize> = words
        .iter()
        .enumerate()
        .map(|(i, w)| (w.as_str(), i))
        .collect();
    write(dir, "tokenizer/vocab.json", &json!(ids));
    let merges = format!("#version: 0.2\n{}\n", MERGES.join("\n"));
    fs::write(dir.join("tokenizer/merges.txt"), merges).expect("written");
    let special = json!({"pad_token": {"content": "!", "lstrip": false}});
    write(dir, "tokenizer/special_tokens_map.json", &special);
    let scheduler = json!({
        "_class_name": "EulerDiscreteScheduler", "num_train_timesteps": TRAINED, "beta_start": 0.00085,
        "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": kind.prediction,
        "timestep_spacing": kind.spacing, "steps_offset": 1, "trained_betas": null,
    });
    write(dir, "scheduler/scheduler_config.json", &scheduler);

    let (clip, mut tensors) = made(1, |vb| {
        candle_clip::ClipTextTransformer::new(vb.pp("text_model"), &clip_config())
    })?;
    tensors.insert(
        "text_model.embeddings.position_ids".into(),
        Tensor::zeros(1, DType::I64, &CPU)?,
    );
    candle_core::safetensors::save(&tensors, dir.join("text_encoder/model.safetensors"))?;
    let config = json!({
        "vocab_size": words.len(), "hidden_size": TEXT, "intermediate_size": 48, "num_hidden_layers": 6,
        "num_attention_heads": 2, "max_position_embeddings": PLACES, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
    });
    write(dir, "text_encoder/config.json", &config);

    let new =
        |vb: VarBuilder| unet_2d::UNet2DConditionModel::new(vb, 4, 4, false, unet_config(kind));
    let (unet, tensors) = made(2, new)?;
    candle_core::safetensors::save(
        &tensors,
        dir.join("unet/diffusion_pytorch_model.safetensors"),
    )?;
    let config = json!({
        "in_channels": 4, "out_channels": 4, "sample_size": SIDE, "block_out_channels": [32, 64],
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"], "layers_per_block": 1, "attention_head_dim": [2, 4],
        "cross_attention_dim": TEXT, "norm_num_groups": 32, "norm_eps": 1e-5, "use_linear_projection": kind.linear,
        "flip_sin_to_cos": true, "freq_shift": 0, "tanh_gelu": true,
    });
    write(dir, "unet/config.json", &config);

    let (vae, tensors) = made(3, |vb| vae::AutoEncoderKL::new(vb, 3, 3, vae_config()))?;
    let renamed = |name: String| match kind.new_names {
        true => [
            (".query.", ".to_q."),
            (".key.", ".to_k."),
            (".value.", ".to_v."),
            (".proj_attn.", ".to_out.0."),
        ]
        .iter()
        .fold(name, |name, (old, new)| name.replace(old, new)),
        false => name,
    };
    let tensors: HashMap<_, _> = tensors.into_iter().map(|(n, t)| (renamed(n), t)).collect();
    assert!(tensors.contains_key("decoder.mid_block.attentions.0.to_q.weight") == kind.new_names);
    candle_core::safetensors::save(
        &tensors,
        dir.join("vae/diffusion_pytorch_model.safetensors"),
    )?;
    let config = json!({
        "latent_channels": 4, "out_channels": 3, "block_out_channels": [32, 64, 64], "layers_per_block": 1,
        "norm_num_groups": 32, "scaling_factor": 0.5,
    });
    write(dir, "vae/config.json", &config);
    Ok(Oracle { clip, unet, vae })
}

/// Shares of the picture in what is left of it at a time of training.
fn shares() -> Vec<f64> {
    let root = |i: usize| {
        let (a, b) = (0.00085f64.sqrt(), 0.012f64.sqrt());
        a + (b - a) * i as f64 / (TRAINED - 1) as f64
    };
    let mut left = 1.0;
    (0..TRAINED)
        .map(|i| {
            left *= 1.0 - root(i).powi(2);
            left
        })
        .collect()
}

/// What candle's models make of tokens: DDIM's steps, which are Euler's in other words.
fn expected(
    oracle: &Oracle,
    (kind, wanted): (Kind, &Wanted),
    tokens: &[&[u32]],
    times: &[usize],
) -> candle_core::Result<Vec<f32>> {
    let meant = |ids: &&[u32]| {
        let ids = Tensor::new(*ids, &CPU)?.unsqueeze(0)?;
        oracle.clip.forward_with_mask(&ids, usize::MAX)
    };
    let texts = tokens
        .iter()
        .map(meant)
        .collect::<candle_core::Result<Vec<_>>>()?;
    let shares = shares();
    let noise = noise::normal(wanted.seed, 4 * SIDE * SIDE);
    let first = shares[times[0]];
    let start = match kind.spacing {
        "leading" => 1.0,
        _ => (1.0 - first).sqrt(),
    };
    let mut x = (Tensor::from_vec(noise, (1, 4, SIDE, SIDE), &CPU)? * start)?;
    for (i, time) in times.iter().enumerate() {
        let mut given = Vec::new();
        for text in &texts {
            given.push(oracle.unet.forward(&x, *time as f64, text)?);
        }
        let given = match given.as_slice() {
            [text, other] => (other + ((text - other)? * wanted.guidance)?)?,
            _ => given.swap_remove(0),
        };
        let (now, next) = (shares[*time], times.get(i + 1).map_or(1.0, |t| shares[*t]));
        let (kept, noisy) = (now.sqrt(), (1.0 - now).sqrt());
        let (picture, noise) = match kind.prediction {
            "epsilon" => (((&x - (&given * noisy)?)? / kept)?, given),
            _ => (
                ((&x * kept)? - (&given * noisy)?)?,
                ((&x * noisy)? + (&given * kept)?)?,
            ),
        };
        x = ((picture * next.sqrt())? + (noise * (1.0 - next).sqrt())?)?;
    }
    oracle.vae.decode(&(x / 0.5)?)?.flatten_all()?.to_vec1()
}

#[test]
fn a_prompt_becomes_the_picture_that_candle_makes_at_every_budget() {
    let first = Kind {
        linear: false,
        prediction: "epsilon",
        spacing: "leading",
        new_names: false,
    };
    let second = Kind {
        prediction: "v_prediction",
        spacing: "leading",
        ..TURBO
    };
    for (kind, steps, guidance, times) in [
        (TURBO, 1, 0.0, vec![999]),
        (first, 4, 7.5, vec![751, 501, 251, 1]),
        (second, 2, 3.0, vec![501, 1]),
    ] {
        let dir = tempfile::tempdir().expect("a folder");
        let oracle = folder(dir.path(), kind).expect("models");
        assert!(FILES.iter().all(|name| dir.path().join(name).is_file()));
        let wanted = Wanted {
            prompt: "A cat,  on it!".into(),
            negative: "cats".into(),
            steps,
            guidance,
            seed: 5,
        };
        let (prompt, negative) = (
            ids(&["a</w>", "cat</w>", ",</w>", "on</w>", "i", "t</w>", "!</w>"]),
            ids(&["ca", "t", "s</w>"]),
        );
        let both = [prompt.as_slice(), &negative];
        let tokens = if guidance > 1.0 {
            &both[..]
        } else {
            &both[..1]
        };
        let want = expected(&oracle, (kind, &wanted), tokens, &times).expect("candle draws");
        let largest = want.iter().fold(0f32, |most, v| most.max(v.abs()));
        assert!(largest > 0.1, "{largest}");
        let mut bits: Option<Vec<u32>> = None;
        for budget in ["full", "25%", "min"] {
            let artist = Artist {
                folder: dir.path(),
                device: Arc::new(Host::new(HostMode::Discrete)),
                budget: budget.parse().expect("a budget"),
            };
            let mut done = Vec::new();
            let mut tell =
                |name: &str, _: &candle_trt::Engine, part: f64| done.push((name.to_string(), part));
            let picture = artist.draw(&wanted, &mut tell).expect("it draws");
            assert_eq!((picture.width, picture.height), (4 * SIDE, 4 * SIDE));
            assert_eq!(done.len(), 3 + steps);
            let differ = picture.values.iter().zip(&want).map(|(a, b)| (a - b).abs());
            let worst = differ.fold(0.0, f32::max) / largest;
            assert!(worst < 1e-4, "{budget} {steps}: {worst:.1e}");
            let own: Vec<u32> = picture.values.iter().map(|v| v.to_bits()).collect();
            assert!(
                *bits.get_or_insert_with(|| own.clone()) == own,
                "{budget}: other bits"
            );
        }
    }
}

/// The tokens of these pieces, with a start, an end and what is behind it.
fn ids(pieces: &[&str]) -> Vec<u32> {
    let words = vocabulary();
    let id = |piece: &str| words.iter().position(|w| w == piece).expect("a token") as u32;
    let mut all = vec![id("<|startoftext|>")];
    all.extend(pieces.iter().map(|piece| id(piece)));
    all.push(id("<|endoftext|>"));
    all.resize(PLACES, id("!"));
    all
}

#[test]
fn what_is_not_computed_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a folder");
    folder(dir.path(), TURBO).expect("models");
    let change = |name: &str, key: &str, value: Value| {
        let path = dir.path().join(name);
        let before = fs::read(&path).expect("a config");
        let mut config: Value = serde_json::from_slice(&before).expect("JSON");
        config[key] = value;
        write(dir.path(), name, &config);
        let artist = Artist {
            folder: dir.path(),
            device: Arc::new(Host::new(HostMode::Unified)),
            budget: "full".parse().expect("a budget"),
        };
        let wanted = Wanted {
            prompt: "a".into(),
            negative: String::new(),
            steps: 1,
            guidance: 0.0,
            seed: 1,
        };
        let error = artist
            .draw(&wanted, &mut |_, _, _| ())
            .expect_err("refused");
        fs::write(path, before).expect("written");
        format!("{error:#}")
    };
    let blocks = json!(["AttnDownBlock2D", "DownBlock2D"]);
    let said = change("unet/config.json", "down_block_types", blocks);
    assert!(said.contains("AttnDownBlock2D"), "{said}");
    let said = change("unet/config.json", "attention_head_dim", json!([3, 4]));
    assert!(said.contains("3 heads"), "{said}");
    let said = change("unet/config.json", "cross_attention_dim", json!(7));
    assert!(said.contains("takes 7"), "{said}");
    let said = change("text_encoder/config.json", "hidden_act", json!("relu"));
    assert!(said.contains("relu"), "{said}");
    let said = change(
        "scheduler/scheduler_config.json",
        "prediction_type",
        json!("sample"),
    );
    assert!(said.contains("sample"), "{said}");
}
