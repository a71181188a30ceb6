//! What a budget costs: time per token of a model at several budgets, beside what the link and
//! the memory of the device allow.
//!
//! One run measures everything: the rates of the device, each budget on one engine, prefill, and
//! a change of budget between two tokens. It prints a table, and writes JSON and an SVG plot.

mod device_memory;
mod measure;
mod open;
mod plot;
mod starts;
mod table;
mod tensor_maps;

use crate::{get, model};
use anyhow::{Context, Result, bail, ensure};
use candle_trt::{Request, Weights};
use clap::Args;
use plot::Style;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// The flags of `candle-trt curve`.
#[derive(Debug, Args)]
pub struct CurveArgs {
    /// A folder with config.json and safetensors of a Llama-family model, or a GGUF file of one.
    model: PathBuf,
    /// auto, host, host-discrete or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Budgets, largest first: full, min, auto, 50%, 4GiB ...
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "full,75%,50%,25%,10%,min",
        allow_hyphen_values = true
    )]
    budgets: Vec<Request>,
    /// Tokens in the cache when measuring starts.
    #[arg(long, default_value_t = 128, allow_hyphen_values = true)]
    context: usize,
    /// Tokens timed at each budget.
    #[arg(long, default_value_t = 15, allow_hyphen_values = true, value_parser = clap::value_parser!(u32).range(1..=1000))]
    tokens: u32,
    /// Prompt lengths to time.
    #[arg(long, value_delimiter = ',', default_value = "512,2048")]
    prefill: Vec<usize>,
    /// The budget at which prompts are timed.
    #[arg(long, default_value = "full", allow_hyphen_values = true)]
    prefill_budget: Request,
    /// Measure a second time with packed weights, and draw both curves. The packed copy is made once, beside the model or in the cache.
    #[arg(long, conflicts_with_all = ["memory", "tensor_maps"])]
    pack: bool,
    /// Two budgets to change between while decoding.
    #[arg(long, value_delimiter = ',', num_args = 0..=2, default_value = "50%,10%")]
    switch: Vec<Request>,
    /// Only start at this budget, run a prompt of `--context` tokens, and say how long that took since the
    /// process started.
    #[arg(long, value_name = "BUDGET", allow_hyphen_values = true)]
    first_token: Option<Request>,
    /// Start from this saved engine instead of compiling; it is made where there is none.
    #[arg(long, value_name = "FILE")]
    engine: Option<PathBuf>,
    /// With CUDA: bytes of mapped files that may be locked in host memory, as a size or as a share
    /// of the checkpoint's files. Half of the host's memory if not given.
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    host_budget: Option<Request>,
    /// Only say what each step of a run takes of the device's memory by the driver's count. Nothing
    /// else may use the device meanwhile.
    #[arg(long)]
    memory: bool,
    /// Only compare prompts of the `--prefill` lengths at the full budget without and with products
    /// that are fed by tensor maps: two engines side by side, which take turns.
    #[arg(long)]
    tensor_maps: bool,
    /// Write what was measured as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a plot of the time of a token against the budget.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// Measures what the flags ask for; `start` is when the process began.
pub fn run(args: &CurveArgs, start: Instant) -> Result<()> {
    if args.context == 0 || args.budgets.is_empty() {
        bail!("--context must be above 0 and --budgets not empty");
    }
    let weights = Arc::new(Weights::open(&args.model)?);
    let config = model::config(&args.model, &weights)?;
    let opened_device = open::device(args, &weights)?;
    if args.memory {
        return device_memory::print(&opened_device, weights, &config, args);
    }
    if args.tensor_maps {
        return tensor_maps::print(&opened_device, weights, &config, args);
    }
    if let Some(budget) = args.first_token {
        let weights = match args.pack {
            true => get::packed(&weights)?,
            false => weights,
        };
        let opened = start.elapsed().as_secs_f64();
        let mut bench =
            measure::Bench::new(opened_device.device.clone(), weights, &config, args, budget)?;
        let first = bench.first_token(args.context, start, opened)?;
        println!("{}", serde_json::to_string_pretty(&first)?);
        return Ok(());
    }
    let measure = |weights: Arc<Weights>| {
        let device = opened_device.device.clone();
        measure::Bench::new(device, weights, &config, args, Request::Minimum)?.run(args)
    };
    let mut report = measure(weights.clone())?;
    if args.pack {
        let packed = measure(get::packed(&weights)?)?;
        ensure!(
            packed.logits == report.logits,
            "outputs differ between plain and packed weights"
        );
        report.packed = Some(Box::new(packed));
    }
    print!("{}", table::text(&report));
    if let Some(t) = opened_device.transfers() {
        println!(
            "files: {:.3} GB copied in place, {:.3} GB through the pinned ring, {:.3} GB locked",
            t.direct as f64 / 1e9,
            t.ring as f64 / 1e9,
            (t.registered + t.copied) as f64 / 1e9
        );
    }
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_string_pretty(&report)?)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    if let Some(path) = &args.svg {
        std::fs::write(path, plot::svg(&chart(&report)))
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// The time of a token against the budget, measured and predicted, with the floors of the link and
/// of the memory.
fn chart(report: &measure::CurveReport) -> plot::Chart {
    let mut points: Vec<&measure::Point> = report.budgets.iter().collect();
    points.sort_by_key(|p| p.applied_bytes);
    let total = report.total_weight_bytes as f64;
    let memory = total / report.memory_rate;
    let link = (0..=100).map(|i| {
        let budget = total * f64::from(i) / 100.0;
        (budget, ((total - budget) / report.link_rate).max(memory))
    });
    let of = |time: fn(&measure::Point) -> f64| {
        let at = points.iter().map(|p| (p.applied_bytes as f64, time(p)));
        at.collect::<Vec<_>>()
    };
    let mut packed: Vec<&measure::Point> = report.packed.iter().flat_map(|r| &r.budgets).collect();
    packed.sort_by_key(|p| p.applied_bytes);
    let packed = packed.iter().map(|p| (p.applied_bytes as f64, p.median));
    let packed: Vec<(f64, f64)> = packed.collect();
    let line = |name: &str, style, points| plot::Line {
        name: name.into(),
        style,
        points,
    };
    let mut lines = vec![
        line("floor of the link", Style::Dashed("#c33"), link.collect()),
        line(
            "floor of memory",
            Style::Dashed("#393"),
            vec![(0.0, memory), (total, memory)],
        ),
        line("predicted", Style::Plain("#e80"), of(|p| p.predicted)),
        line("measured", Style::Marked("#136"), of(|p| p.median)),
    ];
    if !packed.is_empty() {
        lines.push(line("packed", Style::Marked("#717"), packed));
    }
    plot::Chart {
        title: format!("{}: ms per token against the budget", report.device),
        most_bytes: total,
        lines,
    }
}
