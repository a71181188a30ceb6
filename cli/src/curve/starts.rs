//! How an engine is made, and how long that takes: compiled, and loaded from what was saved.
//!
//! Both are timed while an engine of the same program lives, so its kernels are on the device and
//! known to the process: what is left is tracing, lowering and planning, or reading these.

use crate::model;
use anyhow::{Result, ensure};
use candle_trt::device::Device;
use candle_trt::models::{DecoderConfig, Llama, LoadOptions};
use candle_trt::{Compiler, Engine, Profile, Request, Weights};
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Times of each; the median counts.
const ROUNDS: usize = 5;

/// What an engine is made of.
pub struct How {
    pub device: Arc<dyn Device>,
    pub weights: Arc<Weights>,
    pub config: DecoderConfig,
    /// Of a session.
    pub positions: usize,
    /// Tokens of the longest call.
    pub longest: usize,
}

impl How {
    fn compiler(&self, budget: Request) -> Result<Compiler> {
        let compiler = Compiler::new(self.weights.clone());
        let compiler = match model::compute_dtype(&self.weights, &*self.device) {
            Some(dtype) => compiler.dtype(dtype),
            None => compiler,
        };
        Ok(compiler
            .shared_device(self.device.clone())
            .profile(Profile::decoder(self.positions, self.longest)?)
            .weight_streaming(true)
            .budget(budget))
    }

    pub fn compile(&self, budget: Request) -> Result<Engine> {
        let options = LoadOptions {
            max_positions: Some(self.positions),
        };
        let compiler = self.compiler(budget)?;
        Ok(compiler.compile(|vb| Llama::load_with(vb, &self.config, &options))?)
    }

    /// Loads what was saved; compiles where there is no file, and saves to it.
    pub fn start(&self, budget: Request, saved: Option<&Path>) -> Result<Engine> {
        match saved {
            Some(file) if file.exists() => Ok(self.compiler(budget)?.load(file)?),
            Some(file) => {
                let engine = self.compile(budget)?;
                engine.save(file)?;
                Ok(engine)
            }
            None => self.compile(budget),
        }
    }
}

/// An engine at the least budget, ready for its first call, in seconds.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Starts {
    pub compile_seconds: f64,
    pub load_seconds: f64,
    pub saved_bytes: u64,
}

impl Starts {
    /// Takes turns, so that what else the machine does falls on both; `engine` is of the same
    /// program.
    pub fn measure(how: &How, engine: &Engine) -> Result<Starts> {
        let file = tempfile::NamedTempFile::new()?;
        engine.save(file.path())?;
        let (mut compile, mut load) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let start = Instant::now();
            let compiled = how.compile(Request::Minimum)?;
            compile.push(start.elapsed().as_secs_f64());
            drop(compiled);
            let start = Instant::now();
            let loaded = how.compiler(Request::Minimum)?.load(file.path())?;
            load.push(start.elapsed().as_secs_f64());
            ensure!(loaded.report().loaded);
        }
        let median = |mut seconds: Vec<f64>| {
            seconds.sort_by(f64::total_cmp);
            seconds[seconds.len() / 2]
        };
        Ok(Starts {
            compile_seconds: median(compile),
            load_seconds: median(load),
            saved_bytes: file.path().metadata()?.len(),
        })
    }
}
