//! The engine behind the text: the model compiled once, then a prompt and one token at a time.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use candle_trt::device;
use candle_trt::models::{Config, Llama, LoadOptions};
use candle_trt::{Applied, Compiler, Engine, Percent, Profile, Request, Session, Weights};

/// The budget where none is asked for: a quarter of the weights.
const QUARTER: Percent = Percent::from_millionths(250_000);

/// The longest piece of a prompt that runs in one call; activations grow with it.
const LONGEST_CALL: usize = 512;

/// What the user asked of the machine.
#[derive(Debug)]
pub struct Wish<'a> {
    /// `--device`.
    pub device: &'a str,
    /// `--budget`.
    pub budget: Option<Request>,
    /// `--limit`, in bytes.
    pub limit: Option<u64>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// The longest context of this run: prompt and answer.
    pub max_positions: usize,
}

/// What the machine did; bytes and seconds.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "the report has the same names")]
pub struct Facts {
    pub device: String,
    pub dtype: &'static str,
    pub budget_requested: String,
    pub budget_applied: u64,
    pub budget_floor: u64,
    pub total_weight_bytes: u64,
    pub resident_bytes: u64,
    pub ring_bytes: u64,
    pub streamed_bytes_per_token: u64,
    pub activation_bytes: u64,
    pub state_bytes: u64,
    pub device_peak_bytes: u64,
    pub compile_seconds: f64,
}

/// A compiled model with one session.
pub struct Decoder {
    engine: Engine,
    session: Session,
    applied: Applied,
    requested: String,
    dtype: &'static str,
    weight_bytes: u64,
    compile_seconds: f64,
    /// Bytes streamed before the first single token, and single tokens since.
    decoding: Option<(u64, u64)>,
}

impl Decoder {
    /// Compiles the model in `folder`.
    pub fn open(folder: &Path, config: &Config, wish: &Wish) -> Result<Self> {
        let start = Instant::now();
        let weights = Weights::open(folder)?;
        let weight_bytes = weights.total_bytes();
        let table = weights.find("model.embed_tokens.weight")?;
        let dtype = weights.get(table).map_or("unknown", |t| t.dtype.name());

        let longest = wish.prompt_tokens.clamp(1, LONGEST_CALL);
        let positions = wish.max_positions.max(1);
        let options = LoadOptions {
            max_positions: Some(positions),
        };
        let compiler = Compiler::new(weights)
            .shared_device(device::open(wish.device)?)
            .profile(Profile::decoder(positions, longest)?)
            .weight_streaming(true)
            .budget(Request::Minimum);
        let compiler = match wish.limit {
            Some(bytes) => compiler.device_limit(bytes),
            None => compiler,
        };
        let engine = compiler.compile(|vb| Llama::load_with(vb, config, &options))?;
        let (applied, requested) = set_budget(&engine, wish)?;
        let session = engine.session()?;
        Ok(Self {
            engine,
            session,
            applied,
            requested,
            dtype,
            weight_bytes,
            compile_seconds: start.elapsed().as_secs_f64(),
            decoding: None,
        })
    }

    /// Runs the prompt; the logits that follow its last token.
    pub fn prefill(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        Ok(self.session.prefill(tokens)?)
    }

    /// Runs one more token; the logits that follow it.
    pub fn decode(&mut self, token: u32) -> Result<Vec<f32>> {
        let streamed = self.engine.traffic().bytes;
        let (_, tokens) = self.decoding.get_or_insert((streamed, 0));
        *tokens += 1;
        Ok(self.session.decode(token)?)
    }

    /// What has been done so far.
    pub fn facts(&self) -> Facts {
        let memory = self.engine.memory();
        Facts {
            device: self.engine.device().info().name.to_string(),
            dtype: self.dtype,
            budget_requested: self.requested.clone(),
            budget_applied: self.applied.applied,
            budget_floor: self.applied.floor,
            total_weight_bytes: self.weight_bytes,
            resident_bytes: self.applied.pinned + self.applied.resident,
            ring_bytes: self.applied.ring,
            streamed_bytes_per_token: match self.decoding {
                Some((before, tokens)) => (self.engine.traffic().bytes - before) / tokens,
                None => self.applied.streamed,
            },
            activation_bytes: memory.activations,
            state_bytes: memory.states,
            device_peak_bytes: memory.high_water,
            compile_seconds: self.compile_seconds,
        }
    }
}

/// Sets what was asked for. A limit has set the budget already. The default is never an error: where a quarter is
/// less than the floor, it is the floor.
fn set_budget(engine: &Engine, wish: &Wish) -> Result<(Applied, String)> {
    match (wish.limit, wish.budget) {
        (Some(limit), _) => {
            let limit = Request::Bytes(limit);
            Ok((
                engine.device_budget()?,
                format!("what fits a limit of {limit}"),
            ))
        }
        (None, Some(request)) => Ok((engine.set_device_budget(request)?, request.to_string())),
        (None, None) => {
            let quarter = QUARTER.of(engine.total_device_budget());
            let request = match quarter < engine.minimum_device_budget() {
                true => Request::Minimum,
                false => Request::Percent(QUARTER),
            };
            let applied = engine.set_device_budget(request)?;
            Ok((applied, Request::Percent(QUARTER).to_string()))
        }
    }
}
