//! One class of calls for whatever sizes a model takes: held to candle at sizes that tracing never saw,
//! with all weights resident and with next to none.

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use candle_trt::candle::Result;
use candle_trt::device::Host;
use candle_trt::{Call, Compiler, Engine, Error, Profile, Request, Session, TileTarget, Weights};
use std::ops::RangeInclusive;

#[path = "."]
mod ours {
    pub mod backend {
        pub use candle_trt::{candle, candle_nn};
    }
    #[path = "models.rs"]
    #[allow(clippy::duplicate_mod, reason = "one text, symbolic and on candle")]
    pub mod models;
}

#[path = "."]
mod theirs {
    pub mod backend {
        pub use candle_core as candle;
        pub use candle_nn;
    }
    #[path = "models.rs"]
    #[allow(clippy::duplicate_mod, reason = "one text, symbolic and on candle")]
    pub mod models;
}

const CPU: Device = Device::Cpu;

/// A model on both sides.
struct Side {
    ranges: &'static [(&'static str, RangeInclusive<usize>)],
    /// Inputs of a call with these integers.
    inputs: fn(&[usize]) -> Vec<Tensor>,
    ours: fn(&candle_trt::candle_nn::VarBuilder, &Call<'_>) -> Result<candle_trt::candle::Tensor>,
    theirs: fn(VarBuilder, &[Tensor]) -> candle_core::Result<Tensor>,
}

/// Numbers in -1..1 that are the same in every run.
fn noise(seed: usize, n: usize) -> Vec<f32> {
    let value = |i: usize| {
        let x = (i + 1).wrapping_mul(seed * 2 + 2_654_435_761) as u32;
        let x = (x ^ (x >> 15)).wrapping_mul(0x2c1b_3c6d);
        (x >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(value).collect()
}

fn tensor(seed: usize, dims: &[usize]) -> Tensor {
    let n = dims.iter().product();
    Tensor::from_vec(noise(seed, n), dims, &CPU).expect("numbers")
}

/// The weights that candle's side asks for, as they are in every run.
fn weights(side: &Side) -> VarMap {
    let map = VarMap::new();
    let vb = VarBuilder::from_varmap(&map, DType::F32, &CPU);
    let call: Vec<usize> = side.ranges.iter().map(|r| *r.1.start()).collect();
    (side.theirs)(vb, &(side.inputs)(&call)).expect("candle runs");
    let data = map.data().lock().expect("no other thread").clone();
    for (name, var) in data {
        let dims = var.dims();
        let inner: usize = dims.iter().skip(1).product();
        let spread = match dims.len() {
            1 => 0.3,
            _ => (3.0 / inner as f64).sqrt(),
        };
        let mean = f64::from(u8::from(name.contains("norm") && name.ends_with("weight")));
        let seed = name.bytes().map(usize::from).sum();
        let values = tensor(seed, dims).affine(spread, mean).expect("numbers");
        var.set(&values).expect("the same shape");
    }
    map
}

fn compile(side: &Side, map: &VarMap) -> Engine {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("model.safetensors");
    map.save(&file).expect("a file");
    let ranges = side.ranges.iter().cloned();
    let profile = ranges.fold(Profile::builder(), |p, (name, range)| p.range(name, range));
    let step = side.ours;
    Compiler::new(Weights::open(&file).expect("it opens"))
        .device(Host::discrete())
        .profile(profile.build().expect("a profile"))
        .weight_streaming(true)
        .tile_target(TileTarget::Bytes(4 << 10))
        .compile(|vb| Ok(move |call: &Call<'_>| Ok(vec![step(&vb, call)?])))
        .unwrap_or_else(|e| panic!("{e}"))
}

fn flat(t: &Tensor) -> Vec<f32> {
    t.flatten_all().and_then(|t| t.to_vec1()).expect("f32")
}

/// Compares a model with candle at each of the calls, at two budgets with one result.
fn serves(side: &Side, calls: &[Vec<usize>]) -> Engine {
    let map = weights(side);
    let engine = compile(side, &map);
    let mut session = engine.session().expect("a session");
    let mut first: Vec<Vec<f32>> = Vec::new();
    for budget in [Request::Full, Request::Minimum] {
        engine.set_device_budget(budget).expect("a budget");
        for (i, call) in calls.iter().enumerate() {
            let inputs = (side.inputs)(call);
            let out = session
                .run(&inputs)
                .unwrap_or_else(|e| panic!("{call:?}: {e}"));
            let got = flat(&out[0]);
            match first.get(i) {
                Some(before) => assert!(*before == got, "{call:?}: other bits at {budget}"),
                None => {
                    let vb = VarBuilder::from_varmap(&map, DType::F32, &CPU);
                    let want = (side.theirs)(vb, &inputs).expect("candle runs");
                    assert_eq!(out[0].dims(), want.dims(), "{call:?}");
                    close(call, &got, &flat(&want));
                    first.push(got);
                }
            }
        }
    }
    engine
}

fn close(call: &[usize], got: &[f32], want: &[f32]) {
    let scale = want.iter().fold(1f32, |a, v| a.max(v.abs()));
    for (g, w) in got.iter().zip(want) {
        assert!((g - w).abs() <= 1e-4 * scale, "{call:?}: {g} is not {w}");
    }
}

fn encoder() -> Side {
    Side {
        ranges: &[("batch", 1..=8), ("length", 1..=128)],
        inputs: |call| {
            let n = call[0] * call[1];
            let ids: Vec<u32> = (0..n as u32).map(|i| (i * 37 + 11) % 64).collect();
            // Each sentence is shorter than the one before it.
            let word = |i: usize| i % call[1] + i / call[1] < call[1] || i.is_multiple_of(call[1]);
            let mask: Vec<f32> = (0..n).map(|i| f32::from(u8::from(word(i)))).collect();
            let shape = (call[0], call[1]);
            vec![
                Tensor::from_vec(ids, shape, &CPU).expect("ids"),
                Tensor::from_vec(mask, shape, &CPU).expect("a mask"),
            ]
        },
        ours: |vb, call| {
            let shape = (call.int("batch")?, call.int("length")?);
            let ids = call.input("ids", shape, DType::U32)?;
            let mask = call.input("mask", shape, DType::F32)?;
            ours::models::Encoder::load(vb.clone())?.forward(&ids, &mask)
        },
        theirs: |vb, x| theirs::models::Encoder::load(vb)?.forward(&x[0], &x[1]),
    }
}

fn network() -> Side {
    Side {
        ranges: &[("batch", 1..=3), ("height", 24..=120), ("width", 20..=90)],
        inputs: |call| vec![tensor(5, &[call[0], 3, call[1], call[2]])],
        ours: |vb, call| {
            let sides = (call.int("height")?, call.int("width")?);
            let shape = (call.int("batch")?, 3, sides.0, sides.1);
            let x = call.input("image", shape, DType::F32)?;
            ours::models::Network::load(vb.clone())?.forward(&x)
        },
        theirs: |vb, x| theirs::models::Network::load(vb)?.forward(&x[0]),
    }
}

fn speech() -> Side {
    Side {
        ranges: &[("batch", 1..=4), ("frames", 1..=300)],
        inputs: |call| vec![tensor(9, &[call[0], 20, call[1]])],
        ours: |vb, call| {
            let shape = (call.int("batch")?, 20, call.int("frames")?);
            let x = call.input("mel", shape, DType::F32)?;
            ours::models::Speech::load(vb.clone())?.forward(&x)
        },
        theirs: |vb, x| theirs::models::Speech::load(vb)?.forward(&x[0]),
    }
}

#[test]
fn an_encoder_takes_any_batch_of_any_length_with_padding() {
    let calls = [
        [1, 1],
        [1, 128],
        [8, 128],
        [8, 1],
        [3, 17],
        [5, 64],
        [7, 99],
        [2, 5],
    ];
    serves(&encoder(), &calls.map(|c| c.to_vec()));
}

#[test]
fn a_residual_network_takes_images_of_all_sides() {
    // All remainders by 32, of either side.
    let sides = (0..32).map(|i| vec![1 + i % 3, 41 + 2 * i, 90 - (5 * i) % 64]);
    let ends = [[1, 24, 20], [3, 120, 90], [2, 24, 90]].map(|c| c.to_vec());
    serves(&network(), &sides.chain(ends).collect::<Vec<_>>());
}

#[test]
fn a_speech_encoder_takes_audio_of_any_length() {
    let calls = (0..10).map(|i| vec![1 + i % 4, 1 + 33 * i + i % 2]);
    serves(&speech(), &calls.collect::<Vec<_>>());
}

fn refused(session: &mut Session, inputs: &[Tensor], words: &[&str]) {
    let error = session.run(inputs).expect_err("refused").to_string();
    assert!(words.iter().all(|w| error.contains(w)), "{error}");
}

#[test]
fn a_call_that_is_refused_is_told_the_input_the_class_and_its_range() {
    let side = encoder();
    let engine = compile(&side, &weights(&side));
    let mut session = engine.session().expect("a session");
    let class = "call (batch in 1..=8, length in 1..=128)";
    let long = (side.inputs)(&[2, 129]);
    let words = ["batch=2 length=129", "input 'ids' is U32[2, 129]", class];
    refused(&mut session, &long, &words);
    let mut other = (side.inputs)(&[2, 5]);
    other[1] = (side.inputs)(&[2, 6]).swap_remove(1);
    let words = [
        "input 'mask'",
        "f32[batch, length]",
        "[2, 5] with batch=2 length=5",
        class,
    ];
    refused(&mut session, &other, &words);
}

#[test]
fn where_no_class_serves_a_call_each_says_why() -> std::result::Result<(), Error> {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("model.safetensors");
    let ones = Tensor::ones(8, DType::F32, &CPU)?;
    candle_core::safetensors::save(&[("ones", ones)].into(), &file)?;
    let profile = Profile::builder()
        .class("short")
        .range("rows", 1..=8)
        .class("images")
        .range("n", 2..=9)
        .build()?;
    let engine = Compiler::new(Weights::open(&file)?)
        .device(Host::unified())
        .profile(profile)
        .compile(|vb| {
            let ones = vb.get(8, "ones")?;
            Ok(move |call: &Call<'_>| {
                // Rows of one class are multiples of 8 in the other.
                let rows = call.int("rows").or_else(|_| call.int("n").map(|n| 8 * n))?;
                let x = call.input("x", (rows, 8), DType::F32)?;
                Ok(vec![x.broadcast_add(&ones)?])
            })
        })?;
    let mut session = engine.session()?;
    for rows in [1, 8, 16, 72] {
        let out = session.run(&[tensor(3, &[rows, 8])])?;
        assert_eq!(out[0].dims(), [rows, 8]);
    }
    let words = [
        "input 'x' is F32[80, 8]",
        "rows=80",
        "short (rows in 1..=8)",
        "n=10",
        "images (n in 2..=9)",
    ];
    refused(&mut session, &[tensor(3, &[80, 8])], &words);
    let words = [
        "short (rows in 1..=8)",
        "f32[8*n, 8]",
        "images (n in 2..=9)",
    ];
    refused(&mut session, &[tensor(3, &[12, 8])], &words);
    Ok(())
}
