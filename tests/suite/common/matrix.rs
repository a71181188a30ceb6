//! Every ordered pair of the ways an engine can run: with and without replay, in each allocation,
//! at full budget and with a budget that shrinks mid-run, over calls whose batch changes.
//!
//! The outputs of every call must be those of candle, and the same bits in every state.

use candle_core::{DType, Device as Cpu, Module, Tensor};
use candle_trt::candle::Module as _;
use candle_trt::device::{Device, Residency};
use candle_trt::{Allocation, Call, Compiler, Engine, Profile, Request, Session, Shared};
use candle_trt::{TileTarget, Weights, candle, candle_nn as symbolic};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

const WIDTH: usize = 96;
const LAYERS: usize = 4;
const BATCHES: [usize; 5] = [8, 12, 12, 8, 8];
/// The call before which a changing budget shrinks.
const SHRINKS: usize = 3;

/// One way to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    replay: bool,
    memory: Memory,
    budget: Budget,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    Static,
    Dynamic,
    Shared,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Budget {
    Full,
    /// 80 % of the weights, then 60 %.
    Shrinks,
}

impl State {
    fn all() -> Vec<State> {
        let mut all = Vec::new();
        for replay in [false, true] {
            for memory in [Memory::Static, Memory::Dynamic, Memory::Shared] {
                for budget in [Budget::Full, Budget::Shrinks] {
                    all.push(State {
                        replay,
                        memory,
                        budget,
                    });
                }
            }
        }
        all
    }
}

/// A chain of wide layers whose activations outlive each other, over a batch that varies.
fn compile(
    dir: &Path,
    device: Arc<dyn Device>,
    (smallest, largest): (i64, i64),
    allocation: Allocation,
) -> Engine {
    Compiler::new(Weights::open(dir.join("model.safetensors")).expect("it opens"))
        .shared_device(device)
        .profile(Profile::single(&[("batch", smallest, largest)]).expect("a profile"))
        .weight_streaming(true)
        .tile_target(TileTarget::Bytes(8 << 10))
        .allocation(allocation)
        .compile(|vb: symbolic::VarBuilder| {
            let layers = (0..LAYERS).map(|i| symbolic::linear(WIDTH, WIDTH, vb.pp(i)));
            let layers: Vec<symbolic::Linear> = layers.collect::<candle::Result<_>>()?;
            Ok(move |call: &Call| {
                let mut x = call.input("x", (call.int("batch")?, WIDTH), DType::F32)?;
                for layer in &layers {
                    let y = layer.forward(&x)?;
                    x = ((symbolic::ops::softmax_last_dim(&y)? * 4.0)? + (y.silu()? + x)?)?;
                }
                Ok(vec![x])
            })
        })
        .expect("it compiles")
}

/// The same on candle.
fn reference(weights: &HashMap<String, Tensor>, x: &Tensor) -> candle_core::Result<Tensor> {
    let mut x = x.clone();
    for i in 0..LAYERS {
        let (weight, bias) = (
            &weights[&format!("{i}.weight")],
            &weights[&format!("{i}.bias")],
        );
        let y = candle_nn::Linear::new(weight.clone(), Some(bias.clone())).forward(&x)?;
        x = ((candle_nn::ops::softmax_last_dim(&y)? * 4.0)? + (y.silu()? + x)?)?;
    }
    Ok(x)
}

fn weights() -> HashMap<String, Tensor> {
    let random = |shape: &[usize], spread: f32| {
        Tensor::randn(0f32, spread, shape, &Cpu::Cpu).expect("a tensor")
    };
    let spread = 1.0 / (WIDTH as f32).sqrt();
    let layer = |i: usize| {
        [
            (format!("{i}.weight"), random(&[WIDTH, WIDTH], spread)),
            (format!("{i}.bias"), random(&[WIDTH], 0.5)),
        ]
    };
    (0..LAYERS).flat_map(layer).collect()
}

fn values(t: &Tensor) -> Vec<f32> {
    let flat = t.flatten_all().expect("it flattens");
    flat.to_vec1().expect("numbers")
}

/// What is the same for all states.
struct Setting {
    engine: Engine,
    session: Session,
    shared: Shared,
    /// Another engine that leaves its own numbers in the shared arena.
    neighbour: Session,
    inputs: Vec<Tensor>,
    /// What candle gives for each input.
    wanted: Vec<Vec<f32>>,
    /// The bits of the first run.
    bits: Vec<Option<Vec<u32>>>,
}

impl Setting {
    fn new(dir: &Path, device: Arc<dyn Device>) -> Setting {
        let weights = weights();
        candle_core::safetensors::save(&weights, dir.join("model.safetensors")).expect("a file");
        let inputs = BATCHES
            .map(|batch| Tensor::randn(0f32, 1.0, (batch, WIDTH), &Cpu::Cpu).expect("an input"));
        let wanted = inputs
            .each_ref()
            .map(|x| values(&reference(&weights, x).expect("candle runs")));
        let shared = Shared::new();
        let other = compile(dir, device.clone(), (2, 64), Allocation::from(&shared));
        let engine = compile(dir, device, (2, 16), Allocation::Static);
        Setting {
            session: engine.session().expect("a session"),
            neighbour: other.session().expect("a session"),
            bits: vec![None; inputs.len()],
            inputs: inputs.into(),
            wanted: wanted.into(),
            engine,
            shared,
        }
    }

    /// Enters a state, runs all calls in it, and checks each. Returns the number of replays.
    fn run(&mut self, state: State, context: &str) -> u64 {
        let allocation = match state.memory {
            Memory::Static => Allocation::Static,
            Memory::Dynamic => Allocation::Dynamic,
            Memory::Shared => Allocation::from(&self.shared),
        };
        self.engine.set_replay(state.replay);
        self.engine
            .set_allocation(allocation)
            .expect("there is memory");
        let before = self.engine.replayed_calls();
        for i in 0..BATCHES.len() {
            let budget = match state.budget {
                Budget::Full => Request::Full,
                Budget::Shrinks if i < SHRINKS => "80%".parse().expect("a budget"),
                Budget::Shrinks => "60%".parse().expect("a budget"),
            };
            self.engine
                .set_device_budget(budget)
                .expect("above the floor");
            if state.memory == Memory::Shared {
                let noise = Tensor::full(1e3f32, (64, WIDTH), &Cpu::Cpu).expect("an input");
                self.neighbour.run(&[noise]).expect("the neighbour runs");
            }
            self.call(i, &format!("{context}, {state:?}, call {i}"));
        }
        self.engine.replayed_calls() - before
    }

    fn call(&mut self, i: usize, context: &str) {
        let outputs = self.session.run(&self.inputs[i..=i]);
        let got = values(&outputs.unwrap_or_else(|e| panic!("{context}: {e}"))[0]);
        let pairs = got.iter().zip(&self.wanted[i]);
        let worst = pairs.map(|(g, w)| (g - w).abs()).fold(0f32, f32::max);
        assert!(
            got.len() == self.wanted[i].len() && worst < 1e-3,
            "{context}: off by {worst}"
        );
        let got: Vec<u32> = got.iter().map(|v| v.to_bits()).collect();
        let first = self.bits[i].get_or_insert_with(|| got.clone());
        assert!(*first == got, "{context}: other bits than the first time");
    }
}

/// Runs every ordered pair of states on a device.
pub fn every_pair_is_right_on(device: Arc<dyn Device>) {
    let copies = device.info().residency == Residency::Copied;
    let dir = tempfile::tempdir().expect("a folder");
    let mut setting = Setting::new(dir.path(), device);
    for first in State::all() {
        for second in State::all() {
            let context = format!("after {first:?}");
            setting.run(first, "first");
            let replays = setting.run(second, &context);
            let may = second.replay && second.memory != Memory::Dynamic;
            match may && copies && second.budget == Budget::Full {
                true => assert!(replays > 0, "{context}, {second:?}: nothing was replayed"),
                false if !may => assert_eq!(replays, 0, "{context}, {second:?}"),
                false => {}
            }
        }
    }
}

/// Up to 8 rows are summed alike however many they are: a batch gives the bits of its rows alone.
pub fn a_batch_gives_what_its_rows_give_alone_on(device: Arc<dyn Device>) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("model.safetensors");
    candle_core::safetensors::save(&weights(), path).expect("a file");
    let engine = compile(dir.path(), device, (1, 8), Allocation::Static);
    let mut session = engine.session().expect("a session");
    let mut run = |x: &Tensor| -> Vec<u32> {
        let outputs = session.run(std::slice::from_ref(x)).expect("it runs");
        values(&outputs[0]).iter().map(|v| v.to_bits()).collect()
    };
    let all = Tensor::randn(0f32, 1.0, (8, WIDTH), &Cpu::Cpu).expect("an input");
    let rows: Vec<Vec<u32>> = (0..8)
        .map(|i| run(&all.narrow(0, i, 1).expect("a row")))
        .collect();
    for batch in 2..=8 {
        let found = run(&all.narrow(0, 8 - batch, batch).expect("rows"));
        assert!(found == rows[8 - batch..].concat(), "a batch of {batch}");
    }
}
