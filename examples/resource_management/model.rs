//! The model that the calls are shown on.

#[allow(dead_code, reason = "the tests use all of it")]
#[path = "../../tests/suite/common/random.rs"]
mod random;
#[allow(dead_code, reason = "the tests use all of it")]
#[path = "../../tests/suite/common/tiny.rs"]
mod tiny;

use anyhow::Result;
use candle_trt::device::Device;
use candle_trt::models::{DecoderConfig, Llama, LoadOptions};
use candle_trt::{Compiler, Engine, Error, Profile, Weights};
use random::{Random, Stored};
use std::path::PathBuf;
use std::sync::Arc;

/// The longest sequence.
pub const CONTEXT: usize = 256;

/// The model and where it runs.
pub struct Model {
    pub dir: PathBuf,
    pub config: DecoderConfig,
    pub device: Arc<dyn Device>,
}

/// 71 MB: large enough that streaming costs something, small enough to be made in a second.
pub fn small() -> Random {
    Random {
        name: "71 MB",
        json: random::llama(512, 1536, 8, (8, 4), 8192, false),
        stored: Stored::Bf16,
        shards: 1,
    }
}

impl Model {
    pub fn compiler(&self, weights: impl Into<Arc<Weights>>) -> Result<Compiler> {
        Ok(Compiler::new(weights)
            .shared_device(self.device.clone())
            .profile(Profile::decoder(CONTEXT, 32)?))
    }

    pub fn compile(&self, compiler: Compiler) -> Result<Engine, Error> {
        let options = LoadOptions {
            max_positions: Some(CONTEXT),
        };
        compiler.compile(|vb| Llama::load_with(vb, &self.config, &options))
    }

    pub fn opened(&self) -> Result<Compiler> {
        self.compiler(Weights::open(&self.dir)?)
    }
}
