//! Models with convolutions against candle, at every budget.

use candle_core::{DType, Device as Cpu, Tensor};
use candle_trt::device::{Host, HostMode};
use candle_trt::{Call, Compiler, Engine, Profile, Request, TileTarget, Weights};
use std::collections::HashMap;

#[path = "."]
mod ours {
    pub mod backend {
        pub use candle_trt::{candle, candle_nn};
    }
    #[path = "models.rs"]
    pub mod models;
}

#[path = "."]
mod theirs {
    pub mod backend {
        pub use candle_core as candle;
        pub use candle_nn;
    }
    #[path = "models.rs"]
    pub mod models;
}

type Names = &'static [(&'static str, &'static [usize])];

const RESNET: Names = &[
    ("conv1.weight", &[16, 3, 7, 7]),
    ("bn1", &[16]),
    ("layer1.0.conv1.weight", &[16, 16, 3, 3]),
    ("layer1.0.bn1", &[16]),
    ("layer1.0.conv2.weight", &[16, 16, 3, 3]),
    ("layer1.0.bn2", &[16]),
    ("layer2.0.conv1.weight", &[256, 16, 3, 3]),
    ("layer2.0.bn1", &[256]),
    ("layer2.0.conv2.weight", &[256, 256, 3, 3]),
    ("layer2.0.bn2", &[256]),
    ("layer2.0.downsample.0.weight", &[256, 16, 1, 1]),
    ("layer2.0.downsample.1", &[256]),
    ("layer2.1.conv1.weight", &[256, 256, 3, 3]),
    ("layer2.1.bn1", &[256]),
    ("layer2.1.conv2.weight", &[256, 256, 3, 3]),
    ("layer2.1.bn2", &[256]),
    ("fc.weight", &[10, 256]),
    ("fc.bias", &[10]),
];
const PATCHES: Names = &[
    ("projection.weight", &[256, 3, 4, 4]),
    ("projection.bias", &[256]),
    ("position_embeddings", &[1, 36, 256]),
    ("fc.weight", &[256, 256]),
    ("fc.bias", &[256]),
];
const UNET: Names = &[
    ("conv_in.weight", &[64, 4, 3, 3]),
    ("conv_in.bias", &[64]),
    ("norm.weight", &[64]),
    ("norm.bias", &[64]),
    ("conv1.weight", &[64, 64, 3, 3]),
    ("conv1.bias", &[64]),
    ("temb.weight", &[64, 16]),
    ("temb.bias", &[64]),
    ("down.weight", &[192, 64, 3, 3]),
    ("down.bias", &[192]),
    ("depthwise.weight", &[192, 1, 3, 3]),
    ("depthwise.bias", &[192]),
    ("grouped.weight", &[192, 48, 3, 3]),
    ("grouped.bias", &[192]),
    ("up.weight", &[64, 192, 3, 3]),
    ("up.bias", &[64]),
    ("conv_out.weight", &[64, 4, 3, 3]),
    ("conv_out.bias", &[4]),
];
const AUDIO: Names = &[
    ("conv1.weight", &[256, 20, 3]),
    ("conv1.bias", &[256]),
    ("conv2.weight", &[256, 256, 3]),
    ("conv2.bias", &[256]),
    ("ln.weight", &[256]),
    ("ln.bias", &[256]),
];

/// Numbers around `mean` that are the same in every run, exact in `dtype`.
fn noise(seed: usize, shape: &[usize], mean: f32, spread: f32, dtype: DType) -> Tensor {
    let n: usize = shape.iter().product();
    let value = |i: usize| {
        let x = (i + 1).wrapping_mul(seed * 2 + 2_654_435_761) as u32;
        let x = (x ^ (x >> 15)).wrapping_mul(0x2c1b_3c6d);
        mean + spread * ((x >> 8) as f32 / (1 << 23) as f32 - 1.0)
    };
    let t = Tensor::from_vec((0..n).map(value).collect::<Vec<_>>(), shape, &Cpu::Cpu);
    t.and_then(|t| t.to_dtype(dtype)).expect("numbers")
}

fn tensors(names: Names, dtype: DType) -> HashMap<String, Tensor> {
    let mut all = HashMap::new();
    for (seed, (name, shape)) in names.iter().enumerate() {
        let mut add = |name: String, mean: f32, spread: f32| {
            let t = noise(seed * 7 + name.len(), shape, mean, spread, dtype);
            all.insert(name, t);
        };
        if name.contains("bn") || name.contains("downsample.1") {
            add(format!("{name}.weight"), 1.0, 0.3);
            add(format!("{name}.bias"), 0.0, 0.3);
            add(format!("{name}.running_mean"), 0.0, 0.3);
            add(format!("{name}.running_var"), 1.0, 0.5);
            continue;
        }
        let inner: usize = shape[1..].iter().product();
        add(name.to_string(), 0.0, (3.0 / inner as f32).sqrt());
    }
    all
}

/// A model on both sides, and its inputs.
struct Side {
    names: Names,
    inputs: fn(usize, DType) -> Vec<Tensor>,
    ours: fn(&candle_trt::candle_nn::VarBuilder, &Call<'_>, DType) -> Built,
    theirs: fn(candle_nn::VarBuilder, &[Tensor]) -> candle_core::Result<Tensor>,
}

type Built = candle_trt::candle::Result<Vec<candle_trt::candle::Tensor>>;

fn image(batch: usize, shape: [usize; 3], dtype: DType) -> Tensor {
    noise(
        99 + batch,
        &[&[batch], &shape[..]].concat(),
        0.0,
        1.0,
        dtype,
    )
}

/// One tensor in and out.
macro_rules! plain {
    ($model:ident, $names:ident, [$($size:literal),*]) => {
        Side {
            names: $names,
            inputs: |b, dtype| {
                vec![noise(99 + b, &[b, $($size),*], 0.0, 1.0, dtype)]
            },
            ours: |vb, call, dtype| {
                use candle_trt::candle::Module;
                let x = call.input("x", (call.int("batch")?, $($size),*), dtype)?;
                Ok(vec![ours::models::$model::load(vb.clone())?.forward(&x)?])
            },
            theirs: |vb, x| {
                use candle_core::Module;
                theirs::models::$model::load(vb)?.forward(&x[0])
            },
        }
    };
}

fn models() -> Vec<(&'static str, Side)> {
    let unet = Side {
        names: UNET,
        inputs: |b, dtype| {
            let t = noise(7 + b, &[b, 16], 0.0, 1.0, dtype);
            vec![image(b, [4, 12, 10], dtype), t]
        },
        ours: |vb, call, dtype| {
            let b = call.int("batch")?;
            let x = call.input("x", (b, 4, 12, 10), dtype)?;
            let t = call.input("t", (b, 16), dtype)?;
            Ok(vec![ours::models::Unet::load(vb.clone())?.forward(&x, &t)?])
        },
        theirs: |vb, x| theirs::models::Unet::load(vb)?.forward(&x[0], &x[1]),
    };
    vec![
        ("resnet", plain!(ResNet, RESNET, [3, 37, 30])),
        ("patches", plain!(Patches, PATCHES, [3, 24, 24])),
        ("unet", unet),
        ("audio", plain!(Audio, AUDIO, [20, 50])),
    ]
}

fn compile(side: &Side, dtype: DType, batches: (i64, i64), mode: HostMode) -> Engine {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("model.safetensors");
    candle_core::safetensors::save(&tensors(side.names, dtype), &file).expect("a file");
    let step = side.ours;
    Compiler::new(Weights::open(&file).expect("it opens"))
        .device(Host::new(mode))
        .dtype(dtype)
        .profile(Profile::single(&[("batch", batches.0, batches.1)]).expect("a profile"))
        .weight_streaming(true)
        .tile_target(TileTarget::Bytes(4 << 10))
        .compile(|vb| Ok(move |call: &Call<'_>| step(&vb, call, dtype)))
        .expect("it compiles")
}

fn flat(t: &Tensor) -> Vec<f32> {
    let t = t.to_dtype(DType::F32).and_then(|t| t.flatten_all());
    t.and_then(|t| t.to_vec1()).expect("numbers")
}

/// What candle gives in f32 for weights and inputs of a dtype.
fn oracle(side: &Side, dtype: DType, inputs: &[Tensor]) -> Vec<f32> {
    let wide = |t: &Tensor| t.to_dtype(DType::F32).expect("f32");
    let weights = tensors(side.names, dtype);
    let weights = weights.iter().map(|(n, t)| (n.clone(), wide(t))).collect();
    let vb = candle_nn::VarBuilder::from_tensors(weights, DType::F32, &Cpu::Cpu);
    let inputs: Vec<Tensor> = inputs.iter().map(wide).collect();
    flat(&(side.theirs)(vb, &inputs).expect("candle runs"))
}

fn follows(name: &str, side: &Side, dtype: DType, batches: (i64, i64), most: f32) {
    let engine = compile(side, dtype, batches, HostMode::Unified);
    let mut session = engine.session().expect("a session");
    for batch in batches.0..=batches.1 {
        let inputs = (side.inputs)(batch as usize, dtype);
        let want = oracle(side, dtype, &inputs);
        let got = flat(&session.run(&inputs).expect("it runs")[0]);
        assert_eq!(got.len(), want.len(), "{name} {dtype:?} batch {batch}");
        let scale = want.iter().fold(1f32, |a, v| a.max(v.abs()));
        let worst = got
            .iter()
            .zip(&want)
            .map(|(g, w)| (g - w).abs())
            .fold(0.0, f32::max);
        assert!(
            worst <= most * scale,
            "{name} {dtype:?} batch {batch}: off by {worst} of {scale}"
        );
    }
}

#[test]
fn models_with_convolutions_follow_candle_at_any_batch() {
    for (name, side) in models() {
        follows(name, &side, DType::F32, (1, 1), 1e-4);
        follows(name, &side, DType::F32, (2, 4), 1e-4);
    }
}

#[test]
fn convolutions_in_half_precision_follow_candle() {
    for (name, side) in models() {
        follows(name, &side, DType::F16, (2, 2), 0.01);
        follows(name, &side, DType::BF16, (2, 3), 0.06);
    }
}

#[test]
fn weights_of_convolutions_stream_and_change_no_bit() {
    for (name, side) in models() {
        for mode in [HostMode::Unified, HostMode::Discrete] {
            let engine = compile(&side, DType::F32, (2, 3), mode);
            let inputs = (side.inputs)(2, DType::F32);
            let mut first: Option<Vec<u32>> = None;
            for share in [0u64, 2, 1] {
                let request = match share {
                    0 => Request::Minimum,
                    n => Request::Bytes(
                        (engine.total_device_budget() / n).max(engine.minimum_device_budget()),
                    ),
                };
                let applied = engine.set_device_budget(request).expect("a budget");
                let mut session = engine.session().expect("a session");
                // The first call after a change also moves what becomes resident.
                session.run(&inputs).expect("it runs");
                let out = session.run(&inputs).expect("it runs again");
                let bits: Vec<u32> = flat(&out[0]).iter().map(|v| v.to_bits()).collect();
                let want = first.get_or_insert_with(|| bits.clone());
                assert!(*want == bits, "{name} {mode:?}: other bits at {request}");
                assert_eq!(
                    engine.last_traffic().bytes,
                    applied.streamed,
                    "{name} {request}"
                );
                assert!(
                    engine.memory().weights <= applied.applied,
                    "{name} {request}"
                );
                assert_eq!(
                    applied.streamed == 0,
                    share == 1,
                    "{name} {request}: {applied:?}"
                );
            }
        }
    }
}

/// All but biases and norms of a residual network streams: its floor is far below its weights.
#[test]
fn a_residual_network_runs_in_a_fraction_of_its_weights() {
    let (_, side) = models().swap_remove(0);
    let engine = compile(&side, DType::F32, (1, 1), HostMode::Discrete);
    let (floor, total) = (engine.minimum_device_budget(), engine.total_device_budget());
    assert!(floor * 3 < total, "{floor} of {total} bytes");
    let pinned = &engine.report().notes;
    assert!(!pinned.iter().any(|n| n.contains("conv")), "{pinned:?}");
}
