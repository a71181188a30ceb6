//! Compiling costs what the profile uses, whatever the model's longest context is.
//!
//! One test alone in its process: it reads what the process holds.

use std::sync::Arc;
use std::time::{Duration, Instant};
use trt_device::{AnonPeak, ProcessMemory};
use trt_graph::candle::{DType, Device, Result, Tensor};
use trt_graph::candle_nn::{Stored, VarBuilder, WeightSource, rotary_emb};
use trt_graph::{Call, Profile, Step, compile, trace};
use trt_models::{DecoderConfig, Llama};

/// Weights of a model with two heads of 128 elements.
struct Shapes;

impl WeightSource for Shapes {
    fn find(&self, name: &str) -> Option<Stored> {
        let shape = match name.rsplit('.').nth(1)? {
            "embed_tokens" | "lm_head" => vec![96, 256],
            "q_proj" | "k_proj" | "v_proj" | "o_proj" => vec![256, 256],
            "gate_proj" | "up_proj" => vec![64, 256],
            "down_proj" => vec![256, 64],
            _ => vec![256],
        };
        Some(Stored::new(name, shape, trt_kernel::DType::BF16))
    }

    fn similar(&self, _: &str) -> Vec<String> {
        vec![]
    }
}

/// What compiling for 2048 positions makes and takes.
struct Cost {
    programs: Vec<String>,
    bytes: u64,
    time: Duration,
}

fn cost<S: Step>(mut load: impl FnMut(VarBuilder) -> Result<S>) -> Cost {
    let held = ProcessMemory::now().expect("the system tells").anonymous;
    let peak = AnonPeak::start().expect("the system tells");
    let start = Instant::now();
    let vb = VarBuilder::new(Arc::new(Shapes), DType::BF16);
    let profile = Profile::decoder(2048, 512).expect("a profile");
    let programs = (profile.classes.iter())
        .map(|class| {
            let graph = trace(&mut load, &vb, class).expect("it is traced");
            compile(graph).expect("it compiles").0.to_string()
        })
        .collect();
    Cost {
        programs,
        bytes: peak.peak().saturating_sub(held),
        time: start.elapsed(),
    }
}

fn ready_model(positions: usize) -> Cost {
    let config = DecoderConfig::from_json(&format!(
        r#"{{"model_type": "llama", "vocab_size": 96, "hidden_size": 256, "intermediate_size": 64,
            "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 128, "num_key_value_heads": 2,
            "max_position_embeddings": {positions}}}"#
    ))
    .expect("a valid config");
    cost(|vb| Llama::load(vb, &config))
}

/// Rope as candle-transformers' Llama spells it: tables of the whole context, when the model loads.
fn candles_tables(positions: usize) -> Cost {
    cost(|_: VarBuilder| {
        let theta: Vec<f32> = (0..64)
            .map(|i| 1f32 / 10000f32.powf(i as f32 / 64.0))
            .collect();
        let theta = Tensor::new(theta.as_slice(), &Device::Cpu)?;
        let angles = Tensor::arange(0, positions as u32, &Device::Cpu)?
            .to_dtype(DType::F32)?
            .reshape((positions, 1))?
            .matmul(&theta.reshape((1, theta.elem_count()))?)?;
        let (cos, sin) = (angles.cos()?, angles.sin()?);
        Ok(move |call: &Call<'_>| {
            let (past, seq) = (call.int("past")?, call.int("seq")?);
            let x = call.input("x", (1, 2, seq, 128), DType::F32)?;
            let (cos, sin) = (cos.narrow(0, past, seq)?, sin.narrow(0, past, seq)?);
            Ok(vec![rotary_emb::rope(&x, &cos, &sin)?])
        })
    })
}

#[test]
fn a_million_positions_cost_what_two_thousand_do() {
    for model in [ready_model, candles_tables] {
        let first = model(2048);
        let short = model(2048);
        let long = model(1_010_000);
        assert_eq!(long.programs, first.programs);
        assert!(
            long.bytes <= short.bytes.max(first.bytes) + (16 << 20),
            "{} bytes, and {} for 2048",
            long.bytes,
            short.bytes
        );
        // Timings are noisy; computing every row took a hundred times as long.
        assert!(
            long.time <= short.time.max(first.time) * 5 + Duration::from_secs(2),
            "{:?}, and {:?} for 2048",
            long.time,
            short.time
        );
    }
}
