//! The network of the example `embed` against candle-transformers' BERT: batches of any size and length are one class of
//! calls, and what is padded is not seen.

use bert::{Bert, Config};
use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use candle_transformers::models::bert as candle_bert;
use candle_trt::device::{Host, HostMode};
use candle_trt::{Call, Compiler, Engine, FromTensors, Profile, Request, Weights};
use std::collections::HashMap;

#[path = "../../examples/embed/bert.rs"]
mod bert;

const CPU: Device = Device::Cpu;
const BATCHES: i64 = 5;
const LONGEST: i64 = 24;

const CONFIG: &str = r#"{
    "vocab_size": 96, "hidden_size": 48, "intermediate_size": 80, "num_attention_heads": 3, "num_hidden_layers": 2,
    "max_position_embeddings": 32, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1, "initializer_range": 0.02, "pad_token_id": 0
}"#;

/// candle's model with random weights, and the weights.
fn oracle() -> (candle_bert::BertModel, HashMap<String, Tensor>) {
    let (map, config) = (
        VarMap::new(),
        serde_json::from_str(CONFIG).expect("a config"),
    );
    let vb = VarBuilder::from_varmap(&map, DType::F32, &CPU);
    candle_bert::BertModel::load(vb, &config).expect("all are made");
    let data = map.data().lock().expect("nobody else has it");
    let mut named: Vec<_> = data.iter().collect();
    named.sort_by_key(|(name, _)| name.as_str());
    let mut seed = 1u32;
    let mut tensors = HashMap::new();
    for (name, var) in named {
        // Norms are near 1, the rest is so large that rows differ.
        let around = if name.ends_with("LayerNorm.weight") {
            1.0
        } else {
            0.0
        };
        let mut one = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            around + ((seed >> 8) as f32 / (1 << 24) as f32 - 0.5) * 0.4
        };
        let values: Vec<f32> = (0..var.elem_count()).map(|_| one()).collect();
        let tensor = Tensor::from_vec(values, var.shape(), &CPU).expect("a tensor");
        tensors.insert(name.clone(), tensor);
    }
    let vb = VarBuilder::from_tensors(tensors.clone(), DType::F32, &CPU);
    let model = candle_bert::BertModel::load(vb, &config).expect("it loads");
    (model, tensors)
}

fn compile(tensors: HashMap<String, Tensor>, mode: HostMode) -> Engine {
    let config: Config = serde_json::from_str(CONFIG).expect("a config");
    config.check().expect("it is computed");
    let ranges = [("batch", 1, BATCHES), ("length", 1, LONGEST)];
    Compiler::new(Weights::from_tensors(tensors).expect("they are copied"))
        .device(Host::new(mode))
        .weight_streaming(true)
        .profile(Profile::single(&ranges).expect("a profile"))
        .compile(|vb| {
            let bert = Bert::new(&config, vb)?;
            Ok(move |call: &Call| {
                let shape = (call.int("batch")?, call.int("length")?);
                let ids = call.input("ids", shape, DType::U32)?;
                let mask = call.input("mask", shape, DType::F32)?;
                Ok(vec![bert.forward(&ids, &mask)?])
            })
        })
        .expect("it compiles")
}

/// Ids and a mask of sentences of different lengths, the first as long as all.
fn batch(batch: usize, length: usize) -> [Tensor; 2] {
    let own = |row: usize| (length - row * 3 % length).max(1);
    let each = (0..batch).flat_map(|row| (0..length).map(move |i| (row, i)));
    let one = |(row, i): (usize, usize)| match i < own(row) {
        true => ((1 + row * 31 + i * 7) as u32 % 96, 1.0),
        false => (0, 0.0),
    };
    let (ids, mask): (Vec<u32>, Vec<f32>) = each.map(one).unzip();
    [
        Tensor::from_vec(ids, (batch, length), &CPU).expect("ids"),
        Tensor::from_vec(mask, (batch, length), &CPU).expect("a mask"),
    ]
}

fn expected(
    model: &candle_bert::BertModel,
    [ids, mask]: &[Tensor; 2],
) -> candle_core::Result<Tensor> {
    let hidden = model.forward(ids, &ids.zeros_like()?, Some(mask))?;
    let own = mask.unsqueeze(2)?;
    let mean = hidden
        .broadcast_mul(&own)?
        .sum(1)?
        .broadcast_div(&own.sum(1)?)?;
    mean.broadcast_div(&mean.sqr()?.sum_keepdim(1)?.sqrt()?)
}

#[test]
fn the_network_of_embed_follows_candle_in_batches_of_any_size_and_length() {
    let (model, tensors) = oracle();
    for mode in [HostMode::Unified, HostMode::Discrete] {
        let engine = compile(tensors.clone(), mode);
        let mut session = engine.session().expect("a session");
        for size in 1..=BATCHES as usize {
            for length in [1, 2, 3, 7, 16, 23, LONGEST as usize] {
                let inputs = batch(size, length);
                let want = expected(&model, &inputs).expect("candle runs");
                let want = want.to_vec2::<f32>().expect("values");
                let mut bits = Vec::new();
                for request in [Request::Full, Request::Minimum] {
                    engine.set_device_budget(request).expect("a budget");
                    let got = session.run(&inputs).expect("it runs");
                    let got = got[0].to_vec2::<f32>().expect("values");
                    let both = got.iter().flatten().zip(want.iter().flatten());
                    let worst = both.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    assert!(worst < 2e-6, "{mode:?} {size} x {length}: {worst:.1e}");
                    bits.push(got.concat().iter().map(|v| v.to_bits()).collect::<Vec<_>>());
                }
                assert!(bits[0] == bits[1], "{mode:?} {size} x {length}: other bits");
            }
        }
    }
}

#[test]
fn a_batch_beyond_the_profile_is_an_error_that_names_it() {
    let engine = compile(oracle().1, HostMode::Unified);
    let mut session = engine.session().expect("a session");
    for (size, length) in [(BATCHES as usize + 1, 3), (2, LONGEST as usize + 1)] {
        let error = session.run(&batch(size, length)).expect_err("too large");
        let error = error.to_string();
        let named = match length {
            3 => "batch",
            _ => "length",
        };
        assert!(error.contains(named), "{error}");
    }
}
