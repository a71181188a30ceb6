//! The measuring: one engine, every budget, the same tokens.

use super::CurveArgs;
use super::starts::{How, Starts};
use anyhow::{Result, ensure};
use candle_trt::device::{AnonPeak, Device, ProcessMemory};
use candle_trt::graph::PAST;
use candle_trt::models::DecoderConfig;
use candle_trt::{Costs, Engine, Request, Session, Weights};
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;

/// The longest piece of a prompt that runs in one call.
const LONGEST_CALL: usize = 2048;

/// Everything that was measured; bytes, seconds, bytes a second.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct CurveReport {
    pub model: String,
    pub device: String,
    pub total_weight_bytes: u64,
    pub floor_bytes: u64,
    pub context: usize,
    pub link_rate: f64,
    pub memory_rate: f64,
    /// What predictions are made of, and how long it took to measure.
    pub costs: Costs,
    pub calibrate_seconds: f64,
    pub compile_seconds: f64,
    pub budgets: Vec<Point>,
    pub prefill: Vec<PromptTime>,
    pub switches: Vec<Switch>,
    /// The most anonymous memory of the process, compiling included, and how much that is above what
    /// it had with the device open.
    pub anonymous_peak_bytes: u64,
    pub anonymous_added_peak_bytes: u64,
    pub starts: Starts,
    pub same_bits: bool,
    /// The same with packed weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packed: Option<Box<CurveReport>>,
    /// What the last token gave, as bits.
    #[serde(skip)]
    pub logits: Vec<u32>,
}

/// One budget.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Point {
    pub requested: String,
    pub applied_bytes: u64,
    pub resident_bytes: u64,
    pub ring_bytes: u64,
    pub streamed_bytes: u64,
    pub median: f64,
    pub fastest: f64,
    pub slowest: f64,
    /// Of each token, in order.
    pub tokens: Vec<f64>,
    /// What `Engine::predict` says, and what was measured over it.
    pub predicted: f64,
    pub measured_over_predicted: f64,
    /// What the link and the memory of the device allow at best.
    pub floor: f64,
    /// What the pool holds.
    pub pool_bytes: u64,
    /// What the driver counts above a bare context, if the device tells.
    pub device_bytes: Option<u64>,
    /// The most anonymous memory of the process from the change of the budget to the last token.
    pub anonymous_peak_bytes: Option<u64>,
}

/// A prompt at the budget that was asked for.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct PromptTime {
    pub tokens: usize,
    pub seconds: f64,
    pub flops: f64,
}

/// A change of budget between two tokens.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Switch {
    pub from: String,
    pub to: String,
    pub set_seconds: f64,
    pub next_token: f64,
    pub settled_token: f64,
    pub loaded_bytes: u64,
}

/// How long the first token took, in seconds since the program started.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct First {
    pub opened: f64,
    pub compiled: f64,
    pub first_token: f64,
    pub second_token: f64,
    pub budget_bytes: u64,
    pub anonymous_peak_bytes: u64,
}

pub struct Bench {
    pub engine: Engine,
    model: String,
    weights_per_token: u64,
    multiplied: f64,
    compile_seconds: f64,
    bare_free: Option<u64>,
    bare_anonymous: u64,
    /// Watches anonymous memory, where the system tells.
    anonymous: Option<AnonPeak>,
    how: How,
}

impl Bench {
    pub fn new(
        device: Arc<dyn Device>,
        weights: Arc<Weights>,
        config: &DecoderConfig,
        args: &CurveArgs,
        first: Request,
    ) -> Result<Bench> {
        let bare_free = device.free_memory();
        let bare_anonymous = ProcessMemory::now().map_or(0, |m| m.anonymous);
        let anonymous = AnonPeak::start().ok();
        let start = Instant::now();
        let wanted = args.prefill.iter().copied().chain([args.context]);
        let longest = match args.first_token {
            Some(_) => args.context,
            None => wanted.max().unwrap_or(1),
        };
        let longest = longest.clamp(1, LONGEST_CALL);
        // Room for the tokens of every budget and of the switches.
        let decoded = (args.budgets.len() + 8) * (args.tokens as usize + 4);
        let positions = args.prefill.iter().copied().max().unwrap_or(0);
        let positions = positions.max(args.context + decoded).max(longest);
        let how = How {
            device,
            weights,
            config: config.clone(),
            positions,
            longest,
        };
        let engine = how.start(first, args.engine.as_deref())?;
        let kv = config.num_key_value_heads * config.head_dim;
        let q = config.num_attention_heads * config.head_dim;
        let per_layer = config.hidden_size * (2 * q + 2 * kv)
            + 3 * config.hidden_size * config.intermediate_size;
        Ok(Bench {
            model: args.model.display().to_string(),
            weights_per_token: engine.total_device_budget(),
            multiplied: (per_layer * config.num_hidden_layers) as f64,
            compile_seconds: start.elapsed().as_secs_f64(),
            bare_free,
            bare_anonymous,
            anonymous,
            how,
            engine,
        })
    }

    /// From the start of the program to the first token, at the budget that it was compiled with.
    pub fn first_token(&mut self, context: usize, start: Instant, opened: f64) -> Result<First> {
        let compiled = start.elapsed().as_secs_f64();
        let mut session = self.engine.session()?;
        session.prefill(&prompt(context))?;
        let first_token = start.elapsed().as_secs_f64();
        session.decode(1)?;
        Ok(First {
            opened,
            compiled,
            first_token,
            second_token: start.elapsed().as_secs_f64() - first_token,
            budget_bytes: self.engine.device_budget()?.applied,
            anonymous_peak_bytes: self.anonymous_peak(),
        })
    }

    pub fn run(&mut self, args: &CurveArgs) -> Result<CurveReport> {
        let rates = self.engine.measure_rates()?;
        let start = Instant::now();
        let costs = self.engine.calibrate(&[(PAST, args.context as i64)])?;
        let calibrate_seconds = start.elapsed().as_secs_f64();
        let mut budgets = Vec::new();
        let mut first_bits: Option<Vec<u32>> = None;
        let mut same_bits = true;
        for &request in &args.budgets {
            let (mut point, bits) = self.point(request, args)?;
            let all = first_bits.get_or_insert_with(|| bits.clone());
            same_bits &= *all == bits;
            // Streaming and reading overlap, so the slower of the two bounds a token.
            let link = point.streamed_bytes as f64 / rates.link;
            point.floor = link.max(self.weights_per_token as f64 / rates.memory);
            budgets.push(point);
        }
        let prefill = self.prefill(args)?;
        let switches = match args.switch.as_slice() {
            &[a, b] => self.switches(a, b, args)?,
            _ => Vec::new(),
        };
        ensure!(same_bits, "outputs differ between budgets");
        let anonymous = self.anonymous_peak();
        let starts = Starts::measure(&self.how, &self.engine)?;
        let applied = self.engine.device_budget()?;
        Ok(CurveReport {
            model: self.model.clone(),
            device: self.engine.device().info().name.clone(),
            total_weight_bytes: applied.total,
            floor_bytes: applied.floor,
            context: args.context,
            link_rate: rates.link,
            memory_rate: rates.memory,
            costs,
            calibrate_seconds,
            compile_seconds: self.compile_seconds,
            budgets,
            prefill,
            switches,
            anonymous_peak_bytes: anonymous,
            anonymous_added_peak_bytes: anonymous.saturating_sub(self.bare_anonymous),
            starts,
            same_bits,
            packed: None,
            logits: first_bits.unwrap_or_default(),
        })
    }

    fn anonymous_peak(&self) -> u64 {
        self.anonymous.as_ref().map_or(0, AnonPeak::peak)
    }

    /// A session with the context in its cache.
    fn session(&self, context: usize) -> Result<Session> {
        let mut session = self.engine.session()?;
        session.prefill(&prompt(context))?;
        Ok(session)
    }

    fn point(&self, request: Request, args: &CurveArgs) -> Result<(Point, Vec<u32>)> {
        let predicted = self.engine.predict(request)?.seconds;
        let anonymous = AnonPeak::start().ok();
        let applied = self.engine.set_device_budget(request)?;
        let mut session = self.session(args.context)?;
        // The first tokens load what is resident and record what is replayed.
        for token in 0..3 {
            session.decode(token)?;
        }
        let before = self.engine.traffic().bytes;
        let mut seconds = Vec::new();
        let mut logits = Vec::new();
        for token in 0..args.tokens {
            let start = Instant::now();
            logits = session.decode(token)?;
            seconds.push(start.elapsed().as_secs_f64());
        }
        let streamed = (self.engine.traffic().bytes - before) / u64::from(args.tokens);
        let tokens = seconds.clone();
        seconds.sort_by(f64::total_cmp);
        let free = self.engine.device().free_memory();
        let median = seconds[seconds.len() / 2];
        let point = Point {
            requested: request.to_string(),
            applied_bytes: applied.applied,
            resident_bytes: applied.resident,
            ring_bytes: applied.ring,
            streamed_bytes: streamed,
            median,
            fastest: seconds[0],
            slowest: seconds[seconds.len() - 1],
            tokens,
            predicted,
            measured_over_predicted: median / predicted,
            floor: 0.0,
            pool_bytes: self.engine.memory().in_use,
            device_bytes: self
                .bare_free
                .zip(free)
                .map(|(bare, now)| bare.saturating_sub(now)),
            anonymous_peak_bytes: anonymous.map(|watch| watch.peak()),
        };
        Ok((point, logits.iter().map(|v| v.to_bits()).collect()))
    }

    fn prefill(&self, args: &CurveArgs) -> Result<Vec<PromptTime>> {
        self.engine.set_device_budget(args.prefill_budget)?;
        let mut session = self.engine.session()?;
        let mut all = Vec::new();
        for &tokens in &args.prefill {
            let ids = prompt(tokens);
            let mut seconds = Vec::new();
            for round in 0..5 {
                session.reset();
                let start = Instant::now();
                session.prefill(&ids)?;
                if round > 0 {
                    seconds.push(start.elapsed().as_secs_f64());
                }
            }
            seconds.sort_by(f64::total_cmp);
            let median = seconds[seconds.len() / 2];
            all.push(PromptTime {
                tokens,
                seconds: median,
                flops: self.flops(tokens) / median,
            });
        }
        Ok(all)
    }

    /// Operations of the layers' products for so many tokens.
    pub fn flops(&self, tokens: usize) -> f64 {
        2.0 * self.multiplied * tokens as f64
    }

    /// There and back, twice.
    fn switches(&self, a: Request, b: Request, args: &CurveArgs) -> Result<Vec<Switch>> {
        self.engine.set_device_budget(a)?;
        let mut session = self.session(args.context)?;
        for token in 0..3 {
            session.decode(token)?;
        }
        let mut all = Vec::new();
        for (from, to) in [(a, b), (b, a), (a, b), (b, a)] {
            let start = Instant::now();
            self.engine.set_device_budget(to)?;
            let set_seconds = start.elapsed().as_secs_f64();
            let loaded = self.engine.traffic().loaded;
            let mut seconds = Vec::new();
            for token in 0..4 {
                let start = Instant::now();
                session.decode(token)?;
                seconds.push(start.elapsed().as_secs_f64());
            }
            all.push(Switch {
                from: from.to_string(),
                to: to.to_string(),
                set_seconds,
                next_token: seconds[0],
                settled_token: seconds[3],
                loaded_bytes: self.engine.traffic().loaded - loaded,
            });
        }
        Ok(all)
    }
}

/// Some tokens.
pub fn prompt(tokens: usize) -> Vec<u32> {
    (0..tokens as u32).map(|i| i * 37 % 1000).collect()
}
