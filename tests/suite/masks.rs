//! Attention without a causal mask, as encoders spell it, against candle: one kernel whatever the spelling. A query from
//! which every key is hidden by minus infinity gives zeros, where candle divides 0 by 0.

use candle_core::{DType, Device, Tensor};
use candle_trt::device::{Host, HostMode};
use candle_trt::{Call, Compiler, Engine, FromTensors, Profile, Weights};
use std::collections::HashMap;
use trt_graph::{candle, candle_nn};

const CPU: Device = Device::Cpu;
const HEADS: usize = 3;
const SIZE: usize = 24;
const BATCHES: i64 = 3;
const LONGEST: i64 = 40;

/// How a model hides keys.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Hides {
    /// Adds this to their scores.
    Adds(f32),
    /// Puts this in place of their scores.
    Puts(f32),
}

/// The same code over candle's tensors and over symbolic ones.
macro_rules! spelled {
    ($name:ident, $($krate:ident)::+, $nn:ident) => {
        fn $name(
            x: [&$($krate)::+::Tensor; 3],
            hidden: &$($krate)::+::Tensor,
            hides: Hides,
            joined: bool,
        ) -> candle_core::Result<$($krate)::+::Tensor> {
            use $($krate)::+::{D, DType, Tensor};
            let (batch, length, _) = x[0].dims3()?;
            let heads = |x: &Tensor| {
                let x = x.reshape((batch, length, HEADS, SIZE / HEADS))?.transpose(1, 2)?;
                match joined {
                    true => x.contiguous()?.reshape((batch * HEADS, length, SIZE / HEADS)),
                    false => x.contiguous(),
                }
            };
            let (q, k, v) = (heads(x[0])?, heads(x[1])?, heads(x[2])?);
            let scores = (q.matmul(&k.transpose(D::Minus2, D::Minus1)?)? * 0.25)?;
            let mask = hidden.reshape((batch, 1, 1, length))?;
            let mask = mask.broadcast_as((batch, HEADS, length, length))?;
            let mask = match joined {
                true => mask.contiguous()?.reshape((batch * HEADS, length, length))?,
                false => mask,
            };
            let scores = match hides {
                Hides::Adds(value) => {
                    let none = Tensor::zeros(mask.shape(), DType::F32, mask.device())?;
                    let much = Tensor::new(value, mask.device())?.broadcast_as(mask.shape())?;
                    (scores + mask.where_cond(&much, &none)?)?
                }
                Hides::Puts(value) => {
                    let much = Tensor::new(value, mask.device())?.broadcast_as(mask.shape())?;
                    mask.where_cond(&much, &scores)?
                }
            };
            let mixed = $nn::ops::softmax(&scores, D::Minus1)?.matmul(&v)?;
            let mixed = mixed.reshape((batch, HEADS, length, SIZE / HEADS))?;
            mixed.transpose(1, 2)?.contiguous()?.reshape((batch, length, SIZE))
        }
    };
}

use ::candle_nn as their_nn;
spelled!(by_candle, candle_core, their_nn);
spelled!(symbolic, candle, candle_nn);

fn compile(hides: Hides, joined: bool, mode: HostMode) -> Engine {
    let none = HashMap::from([(
        "w".to_string(),
        Tensor::zeros(1, DType::F32, &CPU).expect("one"),
    )]);
    let ranges = [("batch", 1, BATCHES), ("length", 1, LONGEST)];
    Compiler::new(Weights::from_tensors(none).expect("it is copied"))
        .device(Host::new(mode))
        .profile(Profile::single(&ranges).expect("a profile"))
        .compile(|_| {
            Ok(move |call: &Call| {
                let (batch, length) = (call.int("batch")?, call.int("length")?);
                let input = |name| call.input(name, (batch, length, SIZE), DType::F32);
                let (q, k, v) = (input("q")?, input("k")?, input("v")?);
                let hidden = call.input("hidden", (batch, length), DType::U8)?;
                Ok(vec![symbolic([&q, &k, &v], &hidden, hides, joined)?])
            })
        })
        .expect("it compiles")
}

fn values(seed: usize, batch: usize, length: usize) -> Tensor {
    let value = |i: usize| ((i * 7919 + seed * 104_729) % 1000) as f32 / 250.0 - 2.0;
    let all = (0..batch * length * SIZE).map(value).collect::<Vec<_>>();
    Tensor::from_vec(all, (batch, length, SIZE), &CPU).expect("a tensor")
}

/// The last keys of each sentence but the first are hidden, and all of the last sentence if so wanted.
fn hidden(batch: usize, length: usize, whole: bool) -> Tensor {
    let one = |i: usize| {
        let (row, key) = (i / length, i % length);
        let all = whole && row + 1 == batch;
        u8::from(all || key + row * 3 >= length && key > 0 && row > 0)
    };
    let all = (0..batch * length).map(one).collect::<Vec<_>>();
    Tensor::from_vec(all, (batch, length), &CPU).expect("a mask")
}

#[test]
fn attention_of_encoders_is_one_kernel_and_follows_candle() {
    let ways = [
        Hides::Adds(f32::MIN),
        Hides::Adds(f32::NEG_INFINITY),
        Hides::Adds(-10_000.0),
        Hides::Puts(f32::MIN),
        Hides::Puts(f32::NEG_INFINITY),
    ];
    for hides in ways {
        for joined in [false, true] {
            let engine = compile(hides, joined, HostMode::Unified);
            let launches = &engine.report().classes[0].launches;
            let kinds = |kind: &str| launches.iter().filter(|l| l.0 == kind).count();
            assert_eq!(
                (kinds("attention"), kinds("matmul")),
                (1, 0),
                "{hides:?} joined {joined}: {launches:?}"
            );
            follows(&engine, hides, joined);
        }
    }
}

fn follows(engine: &Engine, hides: Hides, joined: bool) {
    let mut session = engine.session().expect("a session");
    for (batch, length) in [
        (1, 1),
        (1, 9),
        (2, 1),
        (2, 17),
        (3, 33),
        (3, LONGEST as usize),
    ] {
        for whole in [false, true] {
            let x = [0, 1, 2].map(|i| values(i, batch, length));
            let mask = hidden(batch, length, whole);
            let want = by_candle([&x[0], &x[1], &x[2]], &mask, hides, joined).expect("candle");
            let [q, k, v] = x;
            let got = session.run(&[q, k, v, mask]).expect("it runs");
            let flat = |t: &Tensor| t.flatten_all().and_then(|t| t.to_vec1::<f32>());
            let (want, got) = (flat(&want).expect("values"), flat(&got[0]).expect("values"));
            let same = |(a, b): (&f32, &f32)| match a.is_nan() {
                true => *b == 0.0,
                false => (a - b).abs() < 2e-6,
            };
            let first = want.iter().zip(&got).position(|pair| !same(pair));
            assert_eq!(
                first.map(|i| (i, want[i], got[i])),
                None,
                "{hides:?} joined {joined} {batch} x {length}, a whole one {whole}"
            );
        }
    }
}

/// bf16 rounds the mask of a BERT (`f32::MIN` times what is hidden) to minus infinity, and 0 times that is NaN.
#[test]
fn a_score_that_is_not_a_number_is_not_taken_for_a_hidden_key() {
    for mode in [HostMode::Unified, HostMode::Discrete] {
        let engine = compile(Hides::Adds(f32::NAN), false, mode);
        let mut session = engine.session().expect("a session");
        for (length, whole) in [(9, true), (9, false), (40, true), (40, false)] {
            let x = [0, 1, 2].map(|i| values(i, 2, length));
            let mask = hidden(2, length, whole);
            let want = by_candle([&x[0], &x[1], &x[2]], &mask, Hides::Adds(f32::NAN), false);
            let [q, k, v] = x;
            let got = session.run(&[q, k, v, mask]).expect("it runs");
            let numbers = |t: &Tensor| {
                let all = t.flatten_all().and_then(|t| t.to_vec1::<f32>());
                let all = all.expect("values").into_iter();
                all.map(|v| !v.is_nan()).collect::<Vec<_>>()
            };
            let want = numbers(&want.expect("candle"));
            assert!(want.contains(&true) && want.contains(&false));
            assert_eq!(numbers(&got[0]), want, "{length} keys, a whole one {whole}");
        }
    }
}
