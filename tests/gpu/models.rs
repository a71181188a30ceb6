//! Models on the GPU: the same logits as on the host, and the same bits at every budget.

use crate::cases::Size;
use crate::on_candle;
use crate::tiny::{self, Tiny};
use crate::{cuda, cuda_alone, free};
use candle_core::{DType, Device as Cpu, Tensor};
use candle_trt::device::{Device, Host};
use candle_trt::models::{Llama, LoadOptions};
use candle_trt::{Compiler, Engine, Profile, Request, TileTarget, Weights};
use std::path::Path;
use std::sync::Arc;

pub const CONTEXT: usize = 640;

/// Sizes for which the kernels of tensor cores and vector loads are chosen.
pub fn wide(head_dim: usize) -> Tiny {
    let mut model = tiny::llama3();
    model.name = "wide";
    for (name, value) in [
        ("hidden_size", 4 * head_dim),
        ("intermediate_size", 640),
        ("num_attention_heads", 4),
        ("num_key_value_heads", 2),
        ("vocab_size", 1000),
    ] {
        model.json[name] = value.into();
    }
    model
}

/// Few weights and large arenas: a call of 512 tokens holds as many times `inner` elements.
pub fn tall(inner: usize) -> Tiny {
    let mut model = tiny::llama3();
    model.name = "tall";
    for (name, value) in [
        ("hidden_size", 128),
        ("intermediate_size", inner),
        ("num_hidden_layers", 1),
        ("num_attention_heads", 8),
    ] {
        model.json[name] = value.into();
    }
    model
}

/// 54 MB of weights in f32, and arenas of several MB.
pub fn heavy() -> Tiny {
    let mut model = tiny::llama3();
    model.name = "heavy";
    for (name, value) in [
        ("hidden_size", 512),
        ("intermediate_size", 1536),
        ("num_hidden_layers", 4),
        ("num_attention_heads", 8),
        ("num_key_value_heads", 4),
        ("vocab_size", 1000),
    ] {
        model.json[name] = value.into();
    }
    model
}

pub fn compile(
    dir: &Path,
    model: &Tiny,
    dtype: DType,
    device: Arc<dyn Device>,
    replay: bool,
) -> Engine {
    let config = model.config();
    let options = LoadOptions {
        max_positions: Some(CONTEXT),
    };
    Compiler::new(Weights::open(dir).expect("it opens"))
        .shared_device(device)
        .dtype(dtype)
        .profile(Profile::decoder(CONTEXT, 512).expect("a profile"))
        .weight_streaming(true)
        .tile_target(TileTarget::Bytes(64 << 10))
        .replay(replay)
        .compile(|vb| Llama::load_with(vb, &config, &options))
        .unwrap_or_else(|e| panic!("{} {dtype:?} compiles: {e}", model.name))
}

pub fn tokens(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| (i * 31 + 7) % 90).collect()
}

/// Logits of a prompt and some single tokens.
pub fn logits(engine: &Engine, prompt: usize) -> Vec<Vec<f32>> {
    let all = tokens(prompt + Size::wanted().pick(8, 3));
    let mut session = engine.session().expect("a session");
    let mut out = vec![session.prefill(&all[..prompt]).expect("a prompt")];
    for token in &all[prompt..] {
        out.push(session.decode(*token).expect("a token"));
    }
    out
}

pub fn bits(all: &[Vec<f32>]) -> Vec<Vec<u32>> {
    let each = |v: &Vec<f32>| v.iter().map(|x| x.to_bits()).collect();
    all.iter().map(each).collect()
}

pub fn largest_error(want: &[Vec<f32>], got: &[Vec<f32>]) -> f32 {
    let scale = want.iter().flatten().fold(0f32, |a, v| a.max(v.abs()));
    let pairs = want.iter().flatten().zip(got.iter().flatten());
    let worst = pairs.fold(0f32, |a, (w, g)| match (w - g).is_nan() {
        true => f32::INFINITY,
        false => a.max((w - g).abs()),
    });
    worst / scale
}

/// What candle computes on the CPU for [`logits`] of an engine of this checkpoint.
fn logits_on_candle(model: &Tiny, prompt: usize) -> candle_core::Result<Vec<Vec<f32>>> {
    let tensors = model.tensors(7).into_iter().collect();
    let vb = candle_nn::VarBuilder::from_tensors(tensors, DType::F32, &Cpu::Cpu);
    let mut llama = on_candle::Llama::load(vb, &model.config())?;
    let all = tokens(prompt + Size::wanted().pick(8, 3));
    let calls = std::iter::once(&all[..prompt]).chain(all[prompt..].chunks(1));
    let mut past = 0;
    let run = |call: &[u32]| {
        let ids = Tensor::new(call, &Cpu::Cpu)?.unsqueeze(0)?;
        let logits = llama.forward(&ids, past)?.flatten_all()?.to_vec1()?;
        past += call.len();
        Ok(logits)
    };
    calls.map(run).collect()
}

#[test]
fn a_model_in_f32_follows_candle_on_the_cpu() {
    let Some(gpu) = cuda() else { return };
    let model = tiny::llama3();
    let dir = tempfile::tempdir().expect("a folder");
    model
        .write(dir.path(), DType::F32, 7, 1)
        .expect("a checkpoint");
    let engine = compile(dir.path(), &model, DType::F32, gpu, true);
    let prompts: &[usize] = Size::wanted().pick(&[1, 7, 64, 513], &[7, 70]);
    for request in [Request::Full, Request::Minimum] {
        engine.set_device_budget(request).expect("a budget");
        for &prompt in prompts {
            let want = logits_on_candle(&model, prompt).expect("candle runs");
            let error = largest_error(&want, &logits(&engine, prompt));
            assert!(
                error <= 2e-4,
                "prompt {prompt} at {request}: error {error:.2e} of the largest logit"
            );
        }
    }
}

fn follows_the_host(model: &Tiny, dtype: DType, most: f32) {
    let Some(gpu) = cuda() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    model.write(dir.path(), dtype, 7, 2).expect("a checkpoint");
    let host = compile(dir.path(), model, dtype, Arc::new(Host::discrete()), true);
    let on_gpu = compile(dir.path(), model, dtype, gpu, true);
    for engine in [&host, &on_gpu] {
        engine.set_device_budget(Request::Full).expect("a budget");
    }
    let prompts: &[usize] = Size::wanted().pick(&[1, 7, 64, 200, 513], &[7, 70]);
    for &prompt in prompts {
        let (want, got) = (logits(&host, prompt), logits(&on_gpu, prompt));
        let error = largest_error(&want, &got);
        assert!(
            error <= most,
            "{} {dtype:?}, prompt {prompt}: error {error:.2e} of the largest logit",
            model.name
        );
        for request in ["min", "50%", "full"].map(|r| r.parse().expect("a budget")) {
            on_gpu.set_device_budget(request).expect("a budget");
            assert!(
                bits(&logits(&on_gpu, prompt)) == bits(&got),
                "{} {dtype:?}, prompt {prompt}: other bits at {request}",
                model.name
            );
        }
    }
}

#[test]
fn every_family_follows_the_host_in_f32() {
    for model in tiny::all() {
        follows_the_host(&model, DType::F32, 2e-4);
    }
}

#[test]
fn models_in_half_precision_follow_the_host() {
    for (dtype, most) in [(DType::BF16, 0.06), (DType::F16, 0.01)] {
        for family in tiny::all() {
            follows_the_host(&family, dtype, most);
        }
        follows_the_host(&wide(64), dtype, most);
        follows_the_host(&wide(128), dtype, most);
    }
}

#[test]
fn outputs_are_the_same_bits_at_every_budget_replayed_or_not() {
    let Some(gpu) = cuda() else { return };
    for (model, dtype) in [
        (tiny::llama(), DType::F32),
        (wide(64), DType::BF16),
        (wide(128), DType::F16),
    ] {
        let dir = tempfile::tempdir().expect("a folder");
        model.write(dir.path(), dtype, 7, 2).expect("a checkpoint");
        let mut want: Option<Vec<Vec<u32>>> = None;
        for replay in [true, false] {
            let engine = compile(dir.path(), &model, dtype, gpu.clone(), replay);
            let requests = ["full", "min", "20%", "50%", "full", "80%", "min", "full"];
            for request in &requests[Size::wanted().pick(0, 5)..] {
                let applied = engine
                    .set_device_budget(request.parse().expect("a budget"))
                    .unwrap_or_else(|e| panic!("{request}: {e}"));
                let got = bits(&logits(&engine, 40));
                let want = want.get_or_insert_with(|| got.clone());
                assert!(
                    *want == got,
                    "{} {dtype:?} has other bits at {request} ({applied:?}), replay {replay}",
                    model.name
                );
            }
        }
    }
}

#[test]
fn a_budget_may_change_between_any_two_tokens() {
    let Some(gpu) = cuda() else { return };
    let model = wide(64);
    let dir = tempfile::tempdir().expect("a folder");
    model
        .write(dir.path(), DType::BF16, 3, 1)
        .expect("a checkpoint");
    let engine = compile(dir.path(), &model, DType::BF16, gpu, true);
    engine.set_device_budget(Request::Full).expect("a budget");
    let want = bits(&logits(&engine, 20));
    let all = tokens(20 + want.len() - 1);
    let mut session = engine.session().expect("a session");
    let mut got = vec![session.prefill(&all[..20]).expect("a prompt")];
    for (i, token) in all[20..].iter().enumerate() {
        let request = ["min", "50%", "full", "10%", "full", "full", "90%", "min"][i];
        let request = request.parse().expect("a budget");
        engine
            .set_device_budget(request)
            .or_else(|_| engine.set_device_budget(Request::Minimum))
            .expect("a budget");
        got.push(session.decode(*token).expect("a token"));
    }
    assert!(want == bits(&got), "other bits after changes of the budget");
}

#[test]
fn a_full_budget_copies_nothing_and_shrinking_gives_memory_back() {
    let Some(gpu) = cuda_alone() else { return };
    let mut model = wide(128);
    model.json["vocab_size"] = 60_000.into();
    let dir = tempfile::tempdir().expect("a folder");
    model
        .write(dir.path(), DType::BF16, 3, 1)
        .expect("a checkpoint");
    let engine = compile(dir.path(), &model, DType::BF16, gpu.clone(), true);
    engine.set_device_budget(Request::Full).expect("a budget");
    let mut session = engine.session().expect("a session");
    session.prefill(&tokens(16)).expect("a prompt");
    for token in 0..4 {
        session.decode(token).expect("a token");
        assert_eq!(engine.last_traffic().bytes, 0, "nothing streams");
    }
    let full = free(&gpu);
    let total = engine.total_device_budget();
    engine
        .set_device_budget(Request::Minimum)
        .expect("a budget");
    session.decode(1).expect("a token");
    let least = free(&gpu);
    let floor = engine.minimum_device_budget();
    let slack = 8 << 20;
    assert!(
        least + slack >= full + (total - floor),
        "{} bytes came back of {}",
        least.saturating_sub(full),
        total - floor
    );
}
