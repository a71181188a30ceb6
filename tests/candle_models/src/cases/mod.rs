//! How small models are loaded and called. This text is compiled over candle-trt and over candle: what it takes of either
//! comes from the module above.
//!
//! A case says the file that it is of, which is how it is left out where that file does not compile. Over candle all do.

use super::{candle, models, when_compiled};
use crate::spec::{BATCH, Input, SEQ, Size, Values, Varies, Way};
use candle::{Device, Result, Tensor};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub use super::Builder;

mod decoders;
mod diffusion;
mod encoders;
mod sound;
mod vision;

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

/// What is said of a case beside its code.
pub struct Spec {
    pub inputs: Vec<Input>,
    pub ways: Vec<Way>,
    /// How far off a result may be, of the largest in its tensor.
    pub tolerance: f32,
}

/// A small model of a file.
pub struct Case {
    /// As the trial names it.
    pub file: &'static str,
    pub spec: Spec,
    pub load: Load,
}

/// All cases of files that compile.
pub fn all() -> Vec<Case> {
    [
        decoders::cases(),
        encoders::cases(),
        vision::cases(),
        diffusion::cases(),
        sound::cases(),
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
                    let (spec, load): (Spec, Load) = $case;
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

impl Args {
    /// The first input: tokens, an image.
    fn x(&self) -> &Tensor {
        &self.inputs[0]
    }
}

const CPU: Device = Device::Cpu;

/// A decoder of tokens, in prompts behind others and token by token, one text and three at once.
fn decoder(load: impl Fn(Builder, usize) -> Result<Model> + Send + Sync + 'static) -> (Spec, Load) {
    let prompts = vec![
        [vec![6], vec![1; 8]].concat(),
        [vec![9, 3], vec![1; 8]].concat(),
    ];
    let ways = vec![
        positions("prompts", 1, 12, prompts.clone()),
        positions("batch of 3", 3, 12, prompts),
    ];
    (of_tokens(ways), Box::new(load))
}

/// A decoder that has masks for prompts at the start only, so that others run token by token.
fn starter(load: impl Fn(Builder, usize) -> Result<Model> + Send + Sync + 'static) -> (Spec, Load) {
    let prompts = [6, 9].map(|n| [vec![n], vec![1; 8]].concat()).to_vec();
    let ways = vec![
        positions("prompts at the start", 1, 12, prompts),
        positions("tokens", 1, 1, vec![vec![1; 14], vec![1; 9]]),
    ];
    (of_tokens(ways), Box::new(load))
}

/// A decoder that takes tokens one by one.
fn stepper(load: impl Fn(Builder, usize) -> Result<Model> + Send + Sync + 'static) -> (Spec, Load) {
    let steps = || vec![vec![1; 14], vec![1; 9]];
    let ways = vec![
        positions("tokens", 1, 1, steps()),
        positions("batch of 3", 3, 1, steps()),
    ];
    (of_tokens(ways), Box::new(load))
}

fn positions(name: &'static str, batch: usize, longest: usize, sessions: Vec<Vec<usize>>) -> Way {
    let varies = Varies::Positions {
        context: 40,
        longest,
        sessions,
    };
    Way {
        name,
        varies,
        fixed: vec![(BATCH, batch)],
    }
}

/// A model of texts in one call: its inputs are of `[batch, length]`, where they are not something else.
fn texts(
    more: Vec<Input>,
    load: impl Fn(Builder, usize) -> Result<Model> + Send + Sync + 'static,
) -> (Spec, Load) {
    let ways = vec![
        once(
            "lengths",
            vec![(BATCH, 1)],
            vec![(LENGTH, 2, 24)],
            vec![vec![5], vec![17]],
        ),
        once(
            "batches",
            vec![(LENGTH, 6)],
            vec![(BATCH, 1, 4)],
            vec![vec![1], vec![3]],
        ),
        once(
            "batches of lengths",
            vec![],
            vec![(BATCH, 1, 4), (LENGTH, 2, 24)],
            vec![vec![1, 5], vec![3, 17]],
        ),
    ];
    let ids = Input {
        name: "ids",
        shape: text(),
        values: Values::Tokens(VOCAB as u32),
    };
    let spec = Spec {
        inputs: [vec![ids], more].concat(),
        ways,
        tolerance: CLOSE,
    };
    (spec, Box::new(load))
}

/// A model of square images of one size, one image and a range of them.
fn images(
    side: usize,
    load: impl Fn(Builder, usize) -> Result<Model> + Send + Sync + 'static,
) -> (Spec, Load) {
    let ways = vec![
        once("one image", vec![(BATCH, 1)], vec![], vec![vec![]]),
        once(
            "batches",
            vec![],
            vec![(BATCH, 1, 4)],
            vec![vec![1], vec![3]],
        ),
    ];
    (of_images(Size::Of(side), ways), Box::new(load))
}

/// A model of images of any size: their sides are so many times a number that varies.
fn any_images(
    step: usize,
    load: impl Fn(Builder, usize) -> Result<Model> + Send + Sync + 'static,
) -> (Spec, Load) {
    let sides = || vec![(SIDE, 2, 5)];
    let ways = vec![
        once(
            "batches",
            vec![(SIDE, 2)],
            vec![(BATCH, 1, 4)],
            vec![vec![1], vec![3]],
        ),
        once("sizes", vec![(BATCH, 1)], sides(), vec![vec![2], vec![3]]),
    ];
    (of_images(Size::Times(step, SIDE), ways), Box::new(load))
}

fn of_images(side: Size, ways: Vec<Way>) -> Spec {
    let image = Input {
        name: "image",
        shape: vec![Size::Named(BATCH), Size::Of(3), side, side],
        values: Values::Noise,
    };
    Spec {
        inputs: vec![image],
        ways,
        tolerance: CLOSE,
    }
}

/// A model that is called with these inputs of one size.
fn fixed(
    inputs: Vec<Input>,
    load: impl Fn(Builder, usize) -> Result<Model> + Send + Sync + 'static,
) -> (Spec, Load) {
    let spec = Spec {
        inputs,
        ways: vec![once("one call", vec![], vec![], vec![vec![]])],
        tolerance: CLOSE,
    };
    (spec, Box::new(load))
}

/// Numbers of one shape.
fn noise(name: &'static str, shape: &[usize]) -> Input {
    Input {
        name,
        shape: shape.iter().map(|n| Size::Of(*n)).collect(),
        values: Values::Noise,
    }
}

/// The same number everywhere in one shape.
fn all_of(name: &'static str, shape: &[usize], value: f32) -> Input {
    Input {
        values: Values::All(value),
        ..noise(name, shape)
    }
}

/// The name of the number that the side of an image is a multiple of.
const SIDE: &str = "side";

fn once(
    name: &'static str,
    fixed: Vec<(&'static str, usize)>,
    ranges: Vec<(&'static str, i64, i64)>,
    calls: Vec<Vec<usize>>,
) -> Way {
    let varies = Varies::Sizes { ranges, calls };
    Way {
        name,
        varies,
        fixed,
    }
}

/// The name of the number of tokens in a text.
const LENGTH: &str = "length";

fn text() -> Vec<Size> {
    vec![Size::Named(BATCH), Size::Named(LENGTH)]
}

/// Which tokens of a text are no padding.
fn kept() -> Input {
    Input {
        name: "mask",
        shape: text(),
        values: Values::Kept,
    }
}

/// What kind each token of a text is: all are of one.
fn kinds() -> Input {
    Input {
        name: "kinds",
        shape: text(),
        values: Values::Same(0),
    }
}

/// So many rows of another model for each text.
fn rows(name: &'static str, n: usize, width: usize) -> Input {
    Input {
        name,
        shape: vec![Size::Named(BATCH), Size::Of(n), Size::Of(width)],
        values: Values::Noise,
    }
}

/// The same case with further inputs.
fn with((mut spec, load): (Spec, Load), more: Vec<Input>) -> (Spec, Load) {
    spec.inputs.extend(more);
    (spec, load)
}

/// The same case, whose results may be further off.
#[allow(dead_code, reason = "no case may need it")]
fn within((mut spec, load): (Spec, Load), tolerance: f32) -> (Spec, Load) {
    spec.tolerance = tolerance;
    (spec, load)
}

fn of_tokens(ways: Vec<Way>) -> Spec {
    let ids = Input {
        name: "ids",
        shape: vec![Size::Named(BATCH), Size::Named(SEQ)],
        values: Values::Tokens(VOCAB as u32),
    };
    Spec {
        inputs: vec![ids],
        ways,
        tolerance: CLOSE,
    }
}
