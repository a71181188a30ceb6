//! Models with convolutions, compiled and on candle, with weights and inputs that are the same in
//! every run.

use candle_core::{DType, Device as Cpu, Tensor};
use candle_trt::device::Device;
use candle_trt::{Call, Compiler, Engine, Profile, Session, TileTarget, Weights};
use std::collections::HashMap;
use std::sync::Arc;

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

/// A model on both sides, and its inputs for a batch.
pub struct Side {
    names: Names,
    pub inputs: fn(usize, DType) -> Vec<Tensor>,
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

pub fn models() -> Vec<(&'static str, Side)> {
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

/// Compiles a model for batches from one size to another.
pub fn compile(side: &Side, dtype: DType, batches: (i64, i64), device: Arc<dyn Device>) -> Engine {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("model.safetensors");
    candle_core::safetensors::save(&tensors(side.names, dtype), &file).expect("a file");
    let step = side.ours;
    Compiler::new(Weights::open(&file).expect("it opens"))
        .shared_device(device)
        .dtype(dtype)
        .profile(Profile::single(&[("batch", batches.0, batches.1)]).expect("a profile"))
        .weight_streaming(true)
        .tile_target(TileTarget::Bytes(4 << 10))
        .compile(|vb| Ok(move |call: &Call<'_>| step(&vb, call, dtype)))
        .expect("it compiles")
}

/// All elements in f32.
pub fn flat(t: &Tensor) -> Vec<f32> {
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

/// The most by which a session differs from candle, as a part of the largest element or of 1.
pub fn error(session: &mut Session, side: &Side, dtype: DType, batch: usize) -> f32 {
    let inputs = (side.inputs)(batch, dtype);
    let want = oracle(side, dtype, &inputs);
    let got = flat(&session.run(&inputs).expect("it runs")[0]);
    assert_eq!(got.len(), want.len());
    let scale = want.iter().fold(1f32, |a, v| a.max(v.abs()));
    let pairs = got.iter().zip(&want);
    let worst = pairs.fold(0f32, |a, (g, w)| match g.is_nan() {
        true => f32::INFINITY,
        false => a.max((g - w).abs()),
    });
    worst / scale
}
