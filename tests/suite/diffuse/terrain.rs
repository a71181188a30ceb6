//! The network of the example `diffuse` against onnxruntime (`tests/references/terrain.py`, which wrote the values), at every
//! budget.
//!
//! The weights come from the example, which leaves them in the cache folder. Without them the test says that it did not
//! run, unless `TRT_REQUIRE_MODEL=1`.

use super::noise;
use candle_core::{DType, Device, Tensor};
use candle_trt::device::{Host, HostMode};
use candle_trt::{Call, Compiler, Engine, Profile, Request, Weights};
use std::path::PathBuf;
use unet::{SIDE, UNet};

#[path = "../../../examples/diffuse/unet.rs"]
mod unet;

const VALUES: &str = include_str!("../../references/terrain.txt");
/// One of so many values is written down.
const EVERY: usize = 61;

fn weights() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).map(PathBuf::from);
    let cache = set("CANDLE_TRT_CACHE")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("candle-trt")))
        .or_else(|| Some(set("HOME")?.join(".cache/candle-trt")))?;
    let file = cache.join("terrain-diffusion-0.4.2/model.safetensors");
    if file.exists() {
        return Some(file);
    }
    let required = std::env::var_os("TRT_REQUIRE_MODEL").is_some();
    assert!(!required, "no {}", file.display());
    println!(
        "did not run: no {}; run the example diffuse first",
        file.display()
    );
    None
}

fn compile(weights: Weights, mode: HostMode) -> Engine {
    Compiler::new(weights)
        .device(Host::new(mode))
        .weight_streaming(true)
        .profile(Profile::single(&[]).expect("a profile"))
        .compile(|vb| {
            let unet = UNet::new(vb)?;
            Ok(move |call: &Call| {
                let noisy = call.input("noisy", (1, 1, SIDE, SIDE), DType::F32)?;
                let sigma = call.input("sigma", 1, DType::F32)?;
                let label = call.input("label", 1, DType::F32)?;
                Ok(vec![unet.forward(&noisy, &sigma, &label)?])
            })
        })
        .expect("it compiles")
}

/// The inputs of a line, and the values that onnxruntime gave.
fn case(line: &str) -> ([Tensor; 3], Vec<f32>) {
    let mut words = line.split(' ');
    let mut word = || words.next().expect("a word");
    let seed = word().parse().expect("a seed");
    let [sigma, label] = [(); 2].map(|()| word().parse::<f64>().expect("a number") as f32);
    let value = |hex: &str| f32::from_bits(u32::from_str_radix(hex, 16).expect("bits"));
    let noise = noise::normal(seed, SIDE * SIDE);
    let noisy: Vec<f32> = noise.iter().map(|n| n * sigma).collect();
    let tensor = |values: Vec<f32>| Tensor::from_vec(values, 1, &Device::Cpu).expect("a tensor");
    let noisy = Tensor::from_vec(noisy, (1, 1, SIDE, SIDE), &Device::Cpu).expect("an image");
    let inputs = [noisy, tensor(vec![sigma]), tensor(vec![label])];
    (inputs, words.map(value).collect())
}

#[test]
fn the_network_of_diffuse_gives_what_onnxruntime_gives_at_every_budget() {
    let Some(path) = weights() else { return };
    let lines = VALUES.lines().filter(|l| !l.starts_with('#'));
    let cases: Vec<_> = lines.map(case).collect();
    assert_eq!(cases.len(), 3);
    let mut bits: Option<Vec<Vec<u32>>> = None;
    for mode in [HostMode::Unified, HostMode::Discrete] {
        let engine = compile(Weights::open(&path).expect("they open"), mode);
        for budget in ["full", "25%", "min"] {
            let request: Request = budget.parse().expect("a budget");
            engine.set_device_budget(request).expect("it is set");
            let mut session = engine.session().expect("a session");
            let mut own = Vec::new();
            for (inputs, expected) in &cases {
                let out = session.run(inputs).expect("it runs");
                let out = out[0].flatten_all().and_then(|t| t.to_vec1::<f32>());
                let out = out.expect("values");
                let there: Vec<f32> = out.iter().copied().step_by(EVERY).collect();
                assert_eq!(there.len(), expected.len());
                let differ = there.iter().zip(expected).map(|(a, b)| (a - b).abs());
                let worst = differ.fold(0.0, f32::max);
                assert!(worst <= 1e-4, "{mode:?} {budget}: {worst:.1e}");
                own.push(out.iter().map(|v| v.to_bits()).collect());
            }
            let first = bits.get_or_insert_with(|| own.clone());
            assert!(*first == own, "{mode:?} {budget}: other bits");
        }
    }
}
