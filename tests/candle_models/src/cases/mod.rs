//! How small models are loaded and called. This text is compiled over candle-trt and over candle: what it takes of either
//! comes from the module above.
//!
//! A case says the file that it is of, which is how it is left out where that file does not compile. Over candle all do.

use super::{candle, candle_nn, changed, models, when_compiled, with_tracing};
use crate::spec::{BATCH, Input, SEQ, Size, Values, Varies, Way};
use crate::values::noise as noise_of;
use candle::{Device, Result, Tensor};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub use super::{BlocksBuilder, Builder};
use ways::*;

mod blocks;
mod decoders;
mod diffusion;
mod encoders;
pub mod large;
mod seeing;
mod sound;
mod vision;
mod ways;

/// What a call gives a model.
pub struct Args {
    pub inputs: Vec<Tensor>,
    /// The position of a decoder's first new token.
    pub past: usize,
}

/// A loaded model.
pub type Model = Box<dyn FnMut(&Args) -> Result<Vec<Tensor>>>;
/// Loads a model of so many layers.
pub type Load = Box<dyn Fn(Builder, usize) -> Result<Model> + Send + Sync>;

/// The same from a GGUF file.
pub type LoadBlocks = Box<dyn Fn(BlocksBuilder, usize) -> Result<Model> + Send + Sync>;

/// How a case loads its model.
pub enum Loader {
    /// From weights of any kind.
    Plain(Load),
    /// From a GGUF file, whose weights are those that the case of another file asks for.
    Blocks(&'static str, LoadBlocks),
}

impl From<Load> for Loader {
    fn from(load: Load) -> Loader {
        Loader::Plain(load)
    }
}

/// What is said of a case beside its code.
pub struct Spec {
    pub inputs: Vec<Input>,
    pub ways: Vec<Way>,
    /// How far off a result may be, of the largest in its tensor.
    pub tolerance: f32,
    /// Which weights a file of the model has not, by their names: its code asks whether they are there.
    pub lacks: fn(&str) -> bool,
}

impl Spec {
    /// A model that has all that it asks for.
    fn of(inputs: Vec<Input>, ways: Vec<Way>) -> Spec {
        Spec {
            inputs,
            ways,
            tolerance: CLOSE,
            lacks: |_| false,
        }
    }
}

/// A small model of a file.
pub struct Case {
    /// As the trial names it.
    pub file: &'static str,
    pub spec: Spec,
    pub load: Loader,
}

/// All cases of files that compile.
pub fn all() -> Vec<Case> {
    [
        decoders::cases(),
        encoders::cases(),
        vision::cases(),
        diffusion::cases(),
        seeing::cases(),
        sound::cases(),
        blocks::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Cases by their files, each left out where its file does not compile.
macro_rules! cases {
    ($($file:tt => $case:expr),* $(,)?) => {
        pub fn cases() -> Vec<Case> {
            let mut all = Vec::new();
            $(
                when_compiled! { $file, {
                    let (spec, load) = $case;
                    let load = Loader::from(load);
                    all.push(Case { file: $file, spec, load });
                } }
            )*
            all
        }
    };
}
pub(crate) use cases;

/// What models give: one tensor, or some.
trait Outputs {
    fn list(self) -> Vec<Tensor>;
}

impl Outputs for Tensor {
    fn list(self) -> Vec<Tensor> {
        vec![self]
    }
}

impl Outputs for Vec<Tensor> {
    fn list(self) -> Vec<Tensor> {
        self
    }
}

impl Outputs for (Tensor, Vec<Tensor>) {
    fn list(self) -> Vec<Tensor> {
        [vec![self.0], self.1].concat()
    }
}

impl Outputs for (Tensor, Tensor) {
    fn list(self) -> Vec<Tensor> {
        vec![self.0, self.1]
    }
}

/// A model that is called so.
fn model<O: Outputs>(mut call: impl FnMut(&Args) -> Result<O> + 'static) -> Result<Model> {
    Ok(Box::new(move |args| Ok(call(args)?.list())))
}

/// A configuration as its file would say it.
fn parsed<C: DeserializeOwned>(config: Value) -> Result<C> {
    serde_json::from_value(config).map_err(|e| candle::Error::Msg(e.to_string()))
}

/// What most configurations of decoders and encoders have, changed by `more`.
fn sized(layers: usize, more: Value) -> Value {
    let mut all = json!({
        "vocab_size": VOCAB, "hidden_size": HIDDEN, "intermediate_size": 128, "num_hidden_layers": layers,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "hidden_act": "silu",
        "max_position_embeddings": 64, "rope_theta": 10000.0, "rms_norm_eps": 1e-5, "layer_norm_eps": 1e-5,
        "tie_word_embeddings": false, "use_cache": true, "attention_bias": false, "bos_token_id": 1, "eos_token_id": 2,
    });
    if let (Value::Object(all), Value::Object(more)) = (&mut all, more) {
        all.extend(more);
    }
    all
}

const VOCAB: usize = 64;
const HIDDEN: usize = 64;
/// Results are off by so much of the largest at most.
const CLOSE: f32 = 2e-5;
/// The same of products with weights in blocks, for which the host takes 16 bits of many rows.
pub const CLOSE_IN_BLOCKS: f32 = 2e-4;

/// A case whose results may be further off than others.
fn within(tolerance: f32, (spec, load): (Spec, Load)) -> (Spec, Load) {
    (Spec { tolerance, ..spec }, load)
}

/// A case whose files have no weights of some names.
fn lacking(lacks: fn(&str) -> bool, (spec, load): (Spec, Load)) -> (Spec, Load) {
    (Spec { lacks, ..spec }, load)
}

impl Args {
    /// The first input: tokens, an image.
    fn x(&self) -> &Tensor {
        &self.inputs[0]
    }
}

const CPU: Device = Device::Cpu;

/// A case of a GGUF file: as that of the file which it is like, whose weights it has in blocks.
fn in_blocks(
    like: &'static str,
    (spec, _): (Spec, Load),
    load: impl Fn(BlocksBuilder, usize) -> Result<Model> + Send + Sync + 'static,
) -> (Spec, Loader) {
    (spec, Loader::Blocks(like, Box::new(load)))
}
