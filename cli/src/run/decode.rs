//! The engine behind the text: the model compiled once, and a session that counts what its calls take.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model;
use anyhow::Result;
use candle_trt::device;
use candle_trt::models::{DecoderConfig, Llama, LoadOptions};
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
    /// Tokens of the longest prompt.
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
    pub weight_types: Vec<(&'static str, u64)>,
    pub budget_requested: String,
    pub budget_applied: u64,
    pub budget_floor: u64,
    pub total_weight_bytes: u64,
    pub resident_bytes: u64,
    pub packed_bytes: u64,
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
    /// Bytes of the weights by type, most first.
    types: Vec<(&'static str, u64)>,
    weight_bytes: u64,
    compile_seconds: f64,
    /// When the first call began, and how long it took.
    prompt: Option<(Instant, Duration)>,
    decoding: Option<Decoding>,
}

/// The calls after the first.
struct Decoding {
    /// When they began: the first token was chosen then.
    begin: Instant,
    /// Bytes that had been streamed by then.
    streamed: u64,
    tokens: u64,
}

impl Decoder {
    /// Compiles the model of these weights.
    pub fn open(weights: Arc<Weights>, config: &DecoderConfig, wish: &Wish) -> Result<Self> {
        let start = Instant::now();
        let weight_bytes = weights.total_bytes();
        let types = model::types(&weights)
            .into_iter()
            .map(|(name, _, bytes)| (name, bytes))
            .collect();
        let engine = compile(weights, config, wish)?;
        let (applied, requested) = set_budget(&engine, wish)?;
        let session = engine.session()?;
        Ok(Self {
            engine,
            session,
            applied,
            requested,
            types,
            weight_bytes,
            compile_seconds: start.elapsed().as_secs_f64(),
            prompt: None,
            decoding: None,
        })
    }

    /// How long the prompt's call took.
    pub fn prefill(&self) -> Duration {
        self.prompt.map_or(Duration::ZERO, |(_, took)| took)
    }

    /// From the beginning of the prompt's call to the first token chosen, and from there to `end`.
    pub fn times(&self, end: Instant) -> (Duration, Duration) {
        let (begin, prefill) = self.prompt.unwrap_or((end, Duration::ZERO));
        let first = self.decoding.as_ref().map_or(begin + prefill, |d| d.begin);
        (first - begin, end.saturating_duration_since(first))
    }

    /// What has been done so far.
    pub fn facts(&self) -> Facts {
        let memory = self.engine.memory();
        Facts {
            device: self.engine.device().info().name.to_string(),
            dtype: self.types.first().map_or("unknown", |(name, _)| name),
            weight_types: self.types.clone(),
            budget_requested: self.requested.clone(),
            budget_applied: self.applied.applied,
            budget_floor: self.applied.floor,
            total_weight_bytes: self.weight_bytes,
            resident_bytes: self.applied.pinned + self.applied.resident,
            packed_bytes: self.applied.packed,
            ring_bytes: self.applied.ring,
            streamed_bytes_per_token: match &self.decoding {
                Some(d) => (self.engine.traffic().bytes - d.streamed) / d.tokens,
                None => self.applied.streamed,
            },
            activation_bytes: memory.activations,
            state_bytes: memory.states,
            device_peak_bytes: memory.high_water,
            compile_seconds: self.compile_seconds,
        }
    }
}

impl trt_text::Decoder for Decoder {
    type Error = candle_trt::Error;

    fn prefill(&mut self, tokens: &[u32]) -> Result<Vec<f32>, candle_trt::Error> {
        let begin = Instant::now();
        if self.prompt.is_none() {
            let logits = self.session.prefill(tokens)?;
            self.prompt = Some((begin, begin.elapsed()));
            return Ok(logits);
        }
        let streamed = self.engine.traffic().bytes;
        let decoding = self.decoding.get_or_insert(Decoding {
            begin,
            streamed,
            tokens: 0,
        });
        decoding.tokens += tokens.len() as u64;
        self.session.prefill(tokens)
    }

    fn position(&self) -> usize {
        self.session.position()
    }

    fn truncate(&mut self, position: usize) {
        self.session.truncate(position);
    }

    fn max_context(&self) -> Option<usize> {
        self.session.max_context()
    }
}

fn compile(weights: Arc<Weights>, config: &DecoderConfig, wish: &Wish) -> Result<Engine> {
    let longest = wish.prompt_tokens.clamp(1, LONGEST_CALL);
    let positions = wish.max_positions.max(longest);
    let options = LoadOptions {
        max_positions: Some(positions),
    };
    let device = device::open(wish.device)?;
    let dtype = model::compute_dtype(&weights, &*device);
    let compiler = Compiler::new(weights)
        .shared_device(device)
        .profile(Profile::decoder(positions, longest)?);
    let compiler = match dtype {
        Some(dtype) => compiler.dtype(dtype),
        None => compiler,
    };
    let compiler = match wish.limit {
        Some(bytes) => compiler.device_limit(bytes),
        // What is asked for is set once the floor is known.
        None => compiler.budget(Request::Minimum),
    };
    Ok(compiler.compile(|vb| Llama::load_with(vb, config, &options))?)
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
