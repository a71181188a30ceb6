//! A small whisper with random weights: hearing once and writing token by token gives what candle's model gives of the whole
//! text at once.

use super::listen;
use super::whisper::Config;
use candle_core::{D, DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use candle_transformers::models::whisper as candle_whisper;
use candle_trt::device::{Host, HostMode};
use candle_trt::{Compiler, Engine, Error, FromTensors, Request, Weights};
use std::collections::HashMap;

const CPU: Device = Device::Cpu;
const PLACES: usize = 24;
const BANDS: usize = 16;
const SIZE: usize = 32;

/// candle has the GELU by the hyperbolic tangent, real models by the error function.
const CONFIG: &str = r#"{
    "vocab_size": 96, "num_mel_bins": 16, "d_model": 32, "max_source_positions": 24, "max_target_positions": 20,
    "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_layers": 2,
    "decoder_attention_heads": 4, "decoder_ffn_dim": 128, "activation_function": "gelu_new"
}"#;

/// Numbers that are alike each time.
fn noise(seed: u32, around: f32, count: usize) -> Vec<f32> {
    let mut state = seed;
    let mut one = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        around + ((state >> 8) as f32 / (1 << 24) as f32 - 0.5) * 0.4
    };
    (0..count).map(|_| one()).collect()
}

/// The waves that candle makes itself and files hold.
fn waves() -> Tensor {
    let half = SIZE / 2;
    let rate = |i: usize| (-(10_000f32.ln()) * i as f32 / (half - 1) as f32).exp();
    let row = |place: usize| {
        let angle = move |i: usize| place as f32 * rate(i);
        let sines = (0..half).map(move |i| angle(i).sin());
        sines.chain((0..half).map(move |i| angle(i).cos()))
    };
    let values: Vec<f32> = (0..PLACES).flat_map(row).collect();
    Tensor::from_vec(values, (PLACES, SIZE), &CPU).expect("a table")
}

fn oracle() -> (candle_whisper::model::Whisper, HashMap<String, Tensor>) {
    let config: candle_whisper::Config = serde_json::from_str(CONFIG).expect("a config");
    let map = VarMap::new();
    let vb = VarBuilder::from_varmap(&map, DType::F32, &CPU);
    candle_whisper::model::Whisper::load(&vb, config.clone()).expect("all are made");
    let data = map.data().lock().expect("nobody else has it");
    let mut named: Vec<_> = data.iter().collect();
    named.sort_by_key(|(name, _)| name.as_str());
    let mut tensors = HashMap::new();
    for (seed, (name, var)) in named.into_iter().enumerate() {
        let norm = name.ends_with("norm.weight");
        let values = noise(seed as u32, if norm { 1.0 } else { 0.0 }, var.elem_count());
        let tensor = Tensor::from_vec(values, var.shape(), &CPU).expect("a tensor");
        tensors.insert(name.clone(), tensor);
    }
    let vb = VarBuilder::from_tensors(tensors.clone(), DType::F32, &CPU);
    let model = candle_whisper::model::Whisper::load(&vb, config).expect("it loads");
    tensors.insert("model.encoder.embed_positions.weight".into(), waves());
    (model, tensors)
}

fn compile(tensors: HashMap<String, Tensor>, mode: HostMode) -> Engine {
    let config: Config = serde_json::from_str(CONFIG).expect("a config");
    let compiler = Compiler::new(Weights::from_tensors(tensors).expect("they are copied"))
        .device(Host::new(mode))
        .weight_streaming(true);
    listen::compile(compiler, &config).expect("it compiles")
}

fn mel(seed: u32) -> Tensor {
    let values = noise(seed, 0.0, BANDS * 2 * PLACES);
    Tensor::from_vec(values, (1, BANDS, 2 * PLACES), &CPU).expect("bands")
}

fn ids(ids: &[u32]) -> Tensor {
    Tensor::from_vec(ids.to_vec(), (1, ids.len()), &CPU).expect("ids")
}

/// candle's logits after a text.
fn expected(
    model: &mut candle_whisper::model::Whisper,
    mel: &Tensor,
    text: &[u32],
) -> candle_core::Result<Vec<f32>> {
    let heard = model.encoder.forward(mel, true)?;
    let hidden = model.decoder.forward(&ids(text), &heard, true)?;
    let last = hidden.narrow(D::Minus2, text.len() - 1, 1)?;
    model.decoder.final_linear(&last)?.flatten_all()?.to_vec1()
}

#[test]
fn the_network_of_transcribe_follows_candle_from_token_to_token() {
    let (mut model, tensors) = oracle();
    for mode in [HostMode::Unified, HostMode::Discrete] {
        let engine = compile(tensors.clone(), mode);
        let mut session = engine.session().expect("a session");
        let mut bits: Option<Vec<u32>> = None;
        for budget in ["full", "25%", "min"] {
            let request: Request = budget.parse().expect("a budget");
            engine.set_device_budget(request).expect("it is set");
            let mut own = Vec::new();
            // Another sound is another text; each is also written again from its first token on, otherwise.
            for seed in [100, 200] {
                let mel = mel(seed);
                session.reset();
                let mut text = Vec::new();
                let calls: [&[u32]; 9] = [
                    &[1],
                    &[2, 3],
                    &[4],
                    &[5],
                    &[6, 7, 8],
                    &[],
                    &[9, 8, 7],
                    &[6],
                    &[5],
                ];
                for call in calls {
                    if call.is_empty() {
                        session.truncate(1);
                        text.truncate(1);
                        continue;
                    }
                    let mut inputs = vec![ids(call)];
                    if text.is_empty() {
                        inputs.push(mel.clone());
                    }
                    text.extend_from_slice(call);
                    let out = session.run(&inputs).expect("it runs");
                    let out = out[0].flatten_all().and_then(|t| t.to_vec1::<f32>());
                    let out = out.expect("logits");
                    let want = expected(&mut model, &mel, &text).expect("candle runs");
                    let largest = want.iter().fold(0f32, |most, v| most.max(v.abs()));
                    let differ = out.iter().zip(&want).map(|(a, b)| (a - b).abs());
                    let worst = differ.fold(0.0, f32::max) / largest;
                    assert!(worst < 5e-6, "{mode:?} {budget} {text:?}: {worst:.1e}");
                    own.extend(out.iter().map(|v| v.to_bits()));
                }
            }
            let first = bits.get_or_insert_with(|| own.clone());
            assert!(*first == own, "{mode:?} {budget}: other bits");
        }
    }
}

#[test]
fn classes_may_take_different_inputs_and_each_call_is_of_one() {
    let engine = compile(oracle().1, HostMode::Unified);
    let mut session = engine.session().expect("a session");
    // Nothing can be written before something is heard, and nothing is heard in between.
    let error = session.run(&[ids(&[1])]).expect_err("nothing is heard");
    assert!(error.to_string().contains("expected 2 tensors"), "{error}");
    session.run(&[ids(&[1]), mel(1)]).expect("it hears");
    let error = session
        .run(&[ids(&[2]), mel(1)])
        .expect_err("it heard already");
    assert!(error.to_string().contains("expected 1 tensors"), "{error}");
    session.run(&[ids(&[2])]).expect("it writes");
    let error = session
        .decode(3)
        .expect_err("its first call takes more than tokens");
    assert!(matches!(error, Error::NotADecoder(_)), "{error}");
}
