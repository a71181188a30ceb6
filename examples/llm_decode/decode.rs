//! The model behind the text: compiled once, then a prompt and one token at a time.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use candle_core::{Device, Tensor};
use candle_nn::VarBuilder;
use trt_models::Config;
use trt_stream::Weights;

#[path = "../../tests/suite/common/on_candle.rs"]
mod on_candle;

/// What the user asked of the machine.
#[derive(Debug)]
pub struct Wish<'a> {
    /// `--device`.
    pub device: &'a str,
    /// `--budget`, as written.
    pub budget: &'a str,
    /// `--limit`, as written.
    pub limit: Option<&'a str>,
    /// The longest context of this run.
    pub max_positions: usize,
}

/// What the machine did; bytes and seconds.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub device: String,
    pub dtype: String,
    pub budget_applied: u64,
    pub budget_floor: u64,
    pub total_weight_bytes: u64,
    pub resident_bytes: u64,
    pub streamed_bytes_per_token: u64,
    pub device_peak_bytes: u64,
    pub compile_seconds: f64,
}

/// A compiled model with one session.
pub struct Decoder {
    model: on_candle::Llama,
    position: usize,
    facts: Facts,
}

impl Decoder {
    /// Compiles the model in `folder`.
    pub fn open(folder: &Path, config: &Config, wish: &Wish) -> Result<Self> {
        let start = Instant::now();
        let weights = Weights::open(folder)?;
        let dtype = weights
            .info(weights.find("model.embed_tokens.weight")?)
            .dtype
            .name();
        let mut tensors = BTreeMap::new();
        for id in weights.ids() {
            let info = weights.info(id);
            let stored = info.dtype.name().parse()?;
            let tensor =
                Tensor::from_raw_buffer(weights.bytes(id), stored, &info.shape, &Device::Cpu)?;
            tensors.insert(info.name.clone(), tensor);
        }
        let vb =
            VarBuilder::from_tensors(tensors.into_iter().collect(), dtype.parse()?, &Device::Cpu);
        let options = on_candle::LoadOptions {
            max_positions: Some(wish.max_positions),
        };
        let model = on_candle::Llama::load_with(vb, config, &options)?;
        let facts = Facts {
            device: wish.device.to_string(),
            dtype: dtype.into(),
            total_weight_bytes: weights.total_bytes(),
            compile_seconds: start.elapsed().as_secs_f64(),
            ..Facts::default()
        };
        Ok(Self {
            model,
            position: 0,
            facts,
        })
    }

    /// Runs tokens after those so far; the logits that follow the last one.
    pub fn step(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        let input = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
        let logits = self.model.forward(&input, self.position)?;
        self.position += tokens.len();
        Ok(logits.squeeze(0)?.to_vec1()?)
    }

    /// What has been done so far.
    pub fn facts(&self) -> Facts {
        self.facts.clone()
    }
}
