//! What models keep between calls beside caches that grow: rings, recurrences, tables made once, and states that
//! prompts write in another way than single tokens do. The same code runs on candle.

use crate::families::{assert_close, tokens};
use candle_core::{DType, Device, Tensor};
use candle_trt::device::{Host, HostMode};
use candle_trt::stream::Request;
use candle_trt::{Compiler, Engine, Error, Profile, TileTarget, Weights};
use std::collections::HashMap;
use std::path::Path;

const HIDDEN: usize = 16;
const VOCAB: usize = 128;
const CONTEXT: usize = 48;

/// Models over one of the two crates.
macro_rules! models {
    ($name:ident, $candle:path, $nn:path) => {
        mod $name {
            use super::{CONTEXT, HIDDEN, VOCAB};
            use $candle::{DType, Device, IndexOp, Module, Result, Tensor};
            use $nn::{Embedding, Linear, VarBuilder, embedding, linear_no_bias};

            /// Keeps a ring of what came in, a recurrent sum, and a table that the first call makes; it counts
            /// its calls itself and takes one token in each.
            pub struct Recurrent {
                embed: Embedding,
                mix: Linear,
                decay: Tensor,
                head: Linear,
                ring: [Tensor; 3],
                sum: Tensor,
                table: Option<Tensor>,
                keys: Option<Tensor>,
                calls: usize,
            }

            impl Recurrent {
                pub fn new(vb: VarBuilder) -> Result<Recurrent> {
                    let zeros = Tensor::zeros((1, HIDDEN), DType::F32, &Device::Cpu)?;
                    let start = Tensor::arange(0f32, HIDDEN as f32, &Device::Cpu)?;
                    Ok(Recurrent {
                        embed: embedding(VOCAB, HIDDEN, vb.pp("embed"))?,
                        mix: linear_no_bias(HIDDEN, HIDDEN, vb.pp("mix"))?,
                        decay: vb.get(HIDDEN, "decay")?,
                        head: linear_no_bias(HIDDEN, VOCAB, vb.pp("head"))?,
                        ring: [zeros.clone(), zeros.clone(), zeros],
                        sum: (start.reshape((1, HIDDEN))? * 0.125)?,
                        table: None,
                        keys: None,
                        calls: 0,
                    })
                }

                pub fn forward(&mut self, ids: &Tensor, past: usize) -> Result<Tensor> {
                    let x = self.embed.forward(&ids.reshape(1)?)?;
                    let x = self.mix.forward(&x)?;
                    self.ring[self.calls % 3] = x.clone();
                    let ago = |n: usize| &self.ring[(self.calls + 3 - n) % 3];
                    let x = ((&x + (ago(1) * 0.5)?)? + (ago(2) * 0.25)?)?;
                    self.calls += 1;
                    self.sum = (self.sum.broadcast_mul(&self.decay)? + &x)?;
                    let table = match &self.table {
                        Some(table) => table.clone(),
                        None => {
                            let rows = Tensor::arange(0f32, CONTEXT as f32, &Device::Cpu)?;
                            let rows = rows.reshape((CONTEXT, 1))?;
                            (rows.broadcast_as((CONTEXT, HIDDEN))? * 0.1)?.sin()?
                        }
                    };
                    let key = (&x + table.narrow(0, past, 1)?)?;
                    self.table = Some(table);
                    let keys = match &self.keys {
                        None => key,
                        Some(old) => Tensor::cat(&[old, &key], 0)?,
                    };
                    self.keys = Some(keys.clone());
                    let all = keys.sum_keepdim(0)?;
                    self.head.forward(&((all + &self.sum)? * 0.25)?)
                }
            }

            /// A short convolution, as LFM2 has it: many tokens begin with nothing before them, a single one
            /// goes on from what is kept, which begins as zeros.
            pub struct Starts {
                embed: Embedding,
                mix: Linear,
                head: Linear,
                kept: Option<Tensor>,
                keys: Option<Tensor>,
            }

            impl Starts {
                pub fn new(vb: VarBuilder) -> Result<Starts> {
                    Ok(Starts {
                        embed: embedding(VOCAB, HIDDEN, vb.pp("embed"))?,
                        mix: linear_no_bias(HIDDEN, HIDDEN, vb.pp("mix"))?,
                        head: linear_no_bias(HIDDEN, VOCAB, vb.pp("head"))?,
                        kept: None,
                        keys: None,
                    })
                }

                pub fn forward(&mut self, ids: &Tensor, past: usize) -> Result<Tensor> {
                    let (_, seq) = ids.dims2()?;
                    let x = self.mix.forward(&self.embed.forward(ids)?)?.squeeze(0)?;
                    let all = match &self.keys {
                        Some(old) if past > 0 => Tensor::cat(&[old, &x], 0)?,
                        _ => x.clone(),
                    };
                    self.keys = Some(all.clone());
                    let y = if seq == 1 {
                        let kept = match &self.kept {
                            Some(kept) => kept.clone(),
                            None => Tensor::zeros((2, HIDDEN), DType::F32, &Device::Cpu)?,
                        };
                        let kept = Tensor::cat(&[&kept.narrow(0, 1, 1)?, &x], 0)?;
                        self.kept = Some(kept.clone());
                        (kept.i(0..1)? * 0.5)? + kept.i(1..2)?
                    } else {
                        let before = x.pad_with_zeros(0, 1, 0)?.narrow(0, 0, seq)?;
                        self.kept = Some(x.narrow(0, seq - 2, 2)?);
                        (before * 0.5)? + &x
                    }?;
                    let y = y.broadcast_add(&all.sum_keepdim(0)?)?;
                    self.head.forward(&y.narrow(0, seq - 1, 1)?)
                }
            }
        }
    };
}
models!(ours, candle_trt::candle, candle_trt::candle_nn);
models!(theirs, candle_core, candle_nn);

/// Weights of both models, and the same for candle.
fn weights(folder: &Path) -> candle_nn::VarBuilder<'static> {
    let make = |seed: usize, shape: &[usize], scale: f32| {
        let count: usize = shape.iter().product();
        let value = |i: usize| ((i * 31 + seed * 17 + i * i * 7) % 97) as f32 / 97.0 - 0.5;
        let data: Vec<f32> = (0..count).map(|i| value(i) * scale).collect();
        Tensor::from_vec(data, shape, &Device::Cpu).expect("a tensor")
    };
    let tensors: HashMap<String, Tensor> = [
        ("embed.weight", make(1, &[VOCAB, HIDDEN], 2.0)),
        ("mix.weight", make(2, &[HIDDEN, HIDDEN], 0.8)),
        ("decay", make(3, &[HIDDEN], 1.0)),
        ("head.weight", make(4, &[VOCAB, HIDDEN], 1.0)),
    ]
    .into_iter()
    .map(|(name, t)| (name.to_string(), t))
    .collect();
    let path = folder.join("model.safetensors");
    candle_core::safetensors::save(&tensors, path).expect("a file");
    candle_nn::VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu)
}

type Load<M> = fn(candle_trt::candle_nn::VarBuilder) -> candle_core::Result<M>;
type Forward<M> = fn(
    &mut M,
    &candle_trt::candle::Tensor,
    usize,
) -> candle_core::Result<candle_trt::candle::Tensor>;

fn try_engine<M: 'static>(
    folder: &Path,
    profile: Profile,
    load: Load<M>,
    forward: Forward<M>,
    budget: Request,
) -> Result<Engine, Error> {
    Compiler::new(Weights::open(folder).expect("it opens"))
        .device(Host::new(HostMode::Unified))
        .profile(profile)
        .budget(budget)
        .tile_target(TileTarget::Bytes(1 << 10))
        .compile(|vb| {
            let mut model = load(vb)?;
            Ok(move |call: &candle_trt::Call<'_>| {
                let (past, seq) = call.positions()?;
                let ids = call.input("ids", (1, seq), candle_trt::candle::DType::U32)?;
                Ok(vec![forward(&mut model, &ids, past)?])
            })
        })
}

fn row(tokens: &[u32]) -> Tensor {
    Tensor::new(tokens, &Device::Cpu)
        .and_then(|t| t.unsqueeze(0))
        .expect("tokens")
}

fn flat(logits: candle_core::Result<Tensor>) -> Vec<f32> {
    let logits = logits
        .and_then(|t| t.flatten_all())
        .and_then(|t| t.to_vec1());
    logits.expect("candle runs")
}

#[test]
fn rings_recurrences_and_tables_made_once_are_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let vb = weights(folder.path());
    let profile = || Profile::decoder(CONTEXT, 1).expect("a profile");
    for budget in [Request::Full, Request::Minimum] {
        let engine = try_engine(
            folder.path(),
            profile(),
            ours::Recurrent::new,
            ours::Recurrent::forward,
            budget,
        )
        .expect("it compiles");
        let mut session = engine.session().expect("a session");
        let mut other = engine.session().expect("another");
        for length in [1, 2, 5, 30] {
            let all = tokens(length + 8);
            let mut oracle = theirs::Recurrent::new(vb.clone()).expect("candle loads");
            session.reset();
            for (past, token) in all.iter().enumerate() {
                let want = flat(oracle.forward(&row(&[*token]), past));
                let got = session.decode(*token).expect("a token");
                assert_close(&format!("prompt {length} position {past}"), &got, &want);
                // Another session goes its own way in between.
                if other.position() < CONTEXT {
                    other.decode(token / 2).expect("a token");
                }
            }
        }
    }
}

#[test]
fn prompts_that_only_begin_and_single_tokens_share_states() {
    let folder = tempfile::tempdir().expect("a folder");
    let vb = weights(folder.path());
    for budget in [Request::Full, Request::Minimum] {
        let profile = Profile::prompts_first(CONTEXT, 16).expect("a profile");
        let engine = try_engine(
            folder.path(),
            profile,
            ours::Starts::new,
            ours::Starts::forward,
            budget,
        )
        .expect("it compiles");
        let mut session = engine.session().expect("a session");
        for length in [1, 2, 3, 9, 16] {
            let all = tokens(length + 8);
            let mut oracle = theirs::Starts::new(vb.clone()).expect("candle loads");
            session.reset();
            let want = flat(oracle.forward(&row(&all[..length]), 0));
            let got = session.prefill(&all[..length]).expect("a prompt");
            assert_close(&format!("prompt {length}"), &got, &want);
            for (past, token) in all.iter().enumerate().skip(length) {
                let want = flat(oracle.forward(&row(&[*token]), past));
                let got = session.decode(*token).expect("a token");
                assert_close(&format!("prompt {length} position {past}"), &got, &want);
            }
        }
        // What is longer than the longest call goes on token by token.
        let all = tokens(20);
        let mut oracle = theirs::Starts::new(vb.clone()).expect("candle loads");
        let mut want = flat(oracle.forward(&row(&all[..16]), 0));
        for (past, token) in all.iter().enumerate().skip(16) {
            want = flat(oracle.forward(&row(&[*token]), past));
        }
        session.reset();
        assert_close(
            "a long prompt",
            &session.prefill(&all).expect("a prompt"),
            &want,
        );
    }
}

/// A recurrent state is that of one position: there is no way back but to the start.
#[test]
fn a_session_cannot_go_back_to_a_recurrent_state() {
    let folder = tempfile::tempdir().expect("a folder");
    weights(folder.path());
    let engine = try_engine(
        folder.path(),
        Profile::decoder(CONTEXT, 1).expect("a profile"),
        ours::Recurrent::new,
        ours::Recurrent::forward,
        Request::Full,
    )
    .expect("it compiles");
    let mut session = engine.session().expect("a session");
    let first = session.prefill(&[3, 4, 5]).expect("a prompt");
    session.truncate(2);
    let error = session.decode(5).expect_err("the state is gone");
    let told = matches!(
        error,
        Error::NoWayBack {
            position: 2,
            held: Some(3),
            ..
        }
    );
    assert!(told, "{error}");
    assert!(error.to_string().contains("reset the session"), "{error}");
    session.truncate(0);
    assert_eq!(session.prefill(&[3, 4, 5]).expect("a prompt"), first);
    session.reset();
    assert_eq!(session.prefill(&[3, 4, 5]).expect("a prompt"), first);
}
