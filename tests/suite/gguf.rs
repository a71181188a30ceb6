//! GGUF models as they are, against the same models with every weight written out in f32.

use crate::families::tokens;
use candle_core::{DType, Device, Tensor};
use candle_trt::device::{Host, HostMode};
use candle_trt::kernel::{BlockType, Encoding};
use candle_trt::models::{DecoderConfig, Llama, LoadOptions};
use candle_trt::{Call, Compiler, Engine, Profile, Request, TileTarget, Weights};
use std::collections::HashMap;
use std::path::Path;

#[path = "../../examples/random_llama/blocks.rs"]
mod blocks;
use blocks::Quant;

/// What the writer of random models takes.
pub struct Sizes {
    hidden: usize,
    ffn: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    vocab: usize,
}

/// Rows of whole blocks of 256 and of 32 values.
const LARGE: Sizes = Sizes {
    hidden: 256,
    ffn: 512,
    layers: 2,
    heads: 4,
    kv_heads: 2,
    vocab: 160,
};
/// Rows of no whole blocks of 256.
const SMALL: Sizes = Sizes {
    hidden: 96,
    ffn: 160,
    layers: 3,
    heads: 6,
    kv_heads: 2,
    vocab: 100,
};
const CONTEXT: usize = 64;

fn engine(path: &Path, dtype: DType, mode: HostMode) -> Engine {
    let weights = Weights::open(path).expect("it opens");
    let json = match path.is_dir() {
        true => std::fs::read_to_string(path.join("config.json")).expect("a file"),
        false => weights.config_json().expect("a GGUF").expect("a config"),
    };
    let config = DecoderConfig::from_json(&json).expect("a config");
    let options = LoadOptions {
        max_positions: Some(CONTEXT),
    };
    Compiler::new(weights)
        .device(Host::new(mode))
        .dtype(dtype)
        .profile(Profile::decoder(CONTEXT, 32).expect("a profile"))
        .weight_streaming(true)
        .tile_target(TileTarget::Bytes(8 << 10))
        .compile(|vb| Llama::load_with(vb, &config, &options))
        .expect("it compiles")
}

/// The logits of a prompt and of some tokens after it.
fn logits(engine: &Engine) -> Vec<Vec<f32>> {
    let all = tokens(20);
    let mut session = engine.session().expect("a session");
    let first = session.prefill(&all[..12]).expect("a prompt");
    let more = all[12..]
        .iter()
        .map(|t| session.decode(*t).expect("a token"));
    std::iter::once(first).chain(more).collect()
}

/// Writes the same model as a folder of f32 weights under Hugging Face's names, as the definition of each type and of
/// the converter says.
fn write_out(gguf: &Path, sizes: &Sizes, folder: &Path) {
    let weights = Weights::open(gguf).expect("it opens");
    let mut all = HashMap::new();
    for (id, info) in weights.iter() {
        let bytes = weights.bytes(id).expect("bytes");
        let values: Vec<f32> = match info.encoding {
            Encoding::Plain(_) => bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
            Encoding::Packed(_) | Encoding::Code => unreachable!("no tensor of a file is packed"),
            Encoding::Blocks(block) => {
                let mut values = vec![0.0; bytes.len() / block.bytes() * block.values()];
                let places = values.chunks_mut(block.values());
                bytes
                    .chunks(block.bytes())
                    .zip(places)
                    .for_each(|(b, v)| block.decode(b, v));
                values
            }
        };
        let heads = match info.name.rsplit('.').nth(1) {
            Some("attn_q") => Some(sizes.heads),
            Some("attn_k") => Some(sizes.kv_heads),
            _ => None,
        };
        let values = match heads {
            Some(heads) => halves_apart(&values, info.shape[0], heads),
            None => values,
        };
        let tensor = Tensor::from_vec(values, info.shape.clone(), &Device::Cpu).expect("a tensor");
        all.insert(hugging_face(&info.name), tensor);
    }
    candle_core::safetensors::save(&all, folder.join("model.safetensors")).expect("a file");
    let config = weights.config_json().expect("a GGUF").expect("a config");
    std::fs::write(folder.join("config.json"), config).expect("a file");
}

/// Row `2 i + s` of a head becomes its row `s * half + i`.
fn halves_apart(values: &[f32], rows: usize, heads: usize) -> Vec<f32> {
    let (columns, each) = (values.len() / rows, rows / heads);
    let mut out = vec![0.0; values.len()];
    for (row, from) in values.chunks(columns).enumerate() {
        let (head, i) = (row / each, row % each);
        let to = head * each + i % 2 * (each / 2) + i / 2;
        out[to * columns..][..columns].copy_from_slice(from);
    }
    out
}

fn hugging_face(name: &str) -> String {
    let parts = [
        ("attn_norm", "input_layernorm"),
        ("attn_q", "self_attn.q_proj"),
        ("attn_k", "self_attn.k_proj"),
        ("attn_v", "self_attn.v_proj"),
        ("attn_output", "self_attn.o_proj"),
        ("ffn_norm", "post_attention_layernorm"),
        ("ffn_gate", "mlp.gate_proj"),
        ("ffn_up", "mlp.up_proj"),
        ("ffn_down", "mlp.down_proj"),
    ];
    match name.split('.').collect::<Vec<_>>()[..] {
        ["token_embd", kind] => format!("model.embed_tokens.{kind}"),
        ["output_norm", kind] => format!("model.norm.{kind}"),
        ["output", kind] => format!("lm_head.{kind}"),
        ["blk", layer, part, kind] => {
            let (_, name) = parts.iter().find(|p| p.0 == part).expect("a part");
            format!("model.layers.{layer}.{name}.{kind}")
        }
        _ => panic!("{name}"),
    }
}

/// The largest distance of two runs, as a part of the largest logit.
fn distance(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    let values = |x: &[Vec<f32>]| x.concat();
    let (a, b) = (values(a), values(b));
    let largest = b.iter().fold(0f32, |m, x| m.max(x.abs()));
    let far = a
        .iter()
        .zip(&b)
        .fold(0f32, |m, (x, y)| m.max((x - y).abs()));
    assert!(largest.is_finite() && largest > 0.0, "logits of {largest}");
    far / largest
}

fn follows_its_values(sizes: &Sizes, quant: Quant) {
    let dir = tempfile::tempdir().expect("a folder");
    let gguf = dir.path().join("m.gguf");
    blocks::write(&gguf, sizes, quant, 3).expect("a file");
    write_out(&gguf, sizes, dir.path());
    let want = logits(&engine(dir.path(), DType::F32, HostMode::Unified));
    let quantised = engine(&gguf, DType::F32, HostMode::Unified);
    let got = logits(&quantised);
    // By many rows activations are numbers of 16 bits: each product is off by some 1e-6 of Σ|w·x|, which cancels.
    assert!(
        distance(&got, &want) < 8e-5,
        "{quant:?}: {}",
        distance(&got, &want)
    );
    for mode in [HostMode::Unified, HostMode::Discrete] {
        let engine = engine(&gguf, DType::F32, mode);
        for request in [
            Request::Minimum,
            "50%".parse().expect("a budget"),
            Request::Full,
        ] {
            engine.set_device_budget(request).expect("a budget");
            assert!(
                logits(&engine) == got,
                "{quant:?}: other bits at {request} on {mode:?}"
            );
        }
    }
}

#[test]
fn a_model_of_each_type_is_the_model_of_its_values_at_every_budget() {
    for block in BlockType::ALL {
        follows_its_values(&LARGE, Quant::One(block));
    }
}

#[test]
fn a_model_of_mixed_types_is_the_model_of_its_values() {
    follows_its_values(&LARGE, Quant::Q4KM);
    // All of it falls back to types of 32 values.
    follows_its_values(&SMALL, Quant::Q4KM);
}

#[test]
fn activations_in_halves_are_near() {
    let dir = tempfile::tempdir().expect("a folder");
    let gguf = dir.path().join("m.gguf");
    blocks::write(&gguf, &LARGE, Quant::Q4KM, 3).expect("a file");
    let want = logits(&engine(&gguf, DType::F32, HostMode::Unified));
    for (dtype, most) in [(DType::F16, 0.01), (DType::BF16, 0.06)] {
        let got = logits(&engine(&gguf, dtype, HostMode::Discrete));
        assert!(
            distance(&got, &want) < most,
            "{dtype:?}: {}",
            distance(&got, &want)
        );
    }
}

#[test]
fn what_is_used_in_one_piece_is_read_as_its_values_and_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let gguf = dir.path().join("m.gguf");
    blocks::write(&gguf, &LARGE, Quant::Q4KM, 3).expect("a file");
    let weights = Weights::open(&gguf).expect("it opens");
    let id = weights.find("blk.0.attn_k.weight").expect("a weight");
    let mut want = vec![0f32; 256];
    let bytes = weights.bytes(id).expect("bytes");
    BlockType::Q4K.decode(&bytes[..BlockType::Q4K.bytes()], &mut want);
    let engine = Compiler::new(weights)
        .device(Host::unified())
        .profile(Profile::single(&[("n", 2, 4)]).expect("a profile"))
        .compile(|vb| {
            let row = vb.get((128, 256), "blk.0.attn_k.weight")?.narrow(0, 0, 1)?;
            Ok(move |call: &Call| {
                let x = call.input("x", (call.int("n")?, 256), DType::F32)?;
                Ok(vec![x.broadcast_add(&row)?])
            })
        })
        .expect("it compiles");
    // 128 rows of 256 values of f32.
    let notes = &engine.report().notes;
    assert!(
        notes.iter().any(|n| n.contains(" 131072 bytes")),
        "{notes:?}"
    );
    let x = Tensor::zeros((2, 256), DType::F32, &Device::Cpu).expect("a tensor");
    let mut session = engine.session().expect("a session");
    let out = session.run(&[x]).expect("it runs").remove(0);
    let rows = out.to_vec2::<f32>().expect("two rows");
    assert_eq!(rows, [want.clone(), want]);
}
