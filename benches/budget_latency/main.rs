//! Time of a token against the budget, in each allocation: static, dynamic, shared.
//!
//! `cargo bench --bench budget_latency [-- MODEL] [--devices host,cuda:0]`. Without a model a random small
//! llama is made. Runs on the host in both modes, and on a CUDA device if there is one; prints a
//! table, and writes JSON and a plot for each device beside it. Allocations take turns at each
//! budget, so that what else the machine does falls on all of them. `--within 0.15` checks predictions.

#[allow(dead_code, reason = "the tests use all of it")]
#[path = "../../tests/suite/common/random.rs"]
mod random;
#[allow(dead_code, reason = "the tests use all of it")]
#[path = "../../tests/suite/common/tiny.rs"]
mod tiny;

#[path = "../../cli/src/curve/plot.rs"]
mod plot;

use anyhow::{Context, Result};
use candle_trt::device::{self, Cuda};
use candle_trt::graph::PAST;
use candle_trt::models::{DecoderConfig, Llama, LoadOptions};
use candle_trt::{Allocation, Compiler, Costs, Engine, Profile, Request, Session, Shared, Weights};
use clap::Parser;
use plot::{Chart, Line, Style};
use random::{Random, Stored};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Cached positions before each call.
const CONTEXT: usize = 128;
/// Calls after a change that are not counted: they load tiles and record what is replayed.
const FIRST: usize = 3;
/// Calls that are counted each time.
const COUNTED: usize = 5;
const COLOURS: [&str; 3] = ["#136", "#393", "#939"];

/// Measure the time of a token against the budget in each allocation.
#[derive(Debug, Parser)]
struct Args {
    /// A folder with config.json and safetensors of a Llama-family model.
    model: Option<PathBuf>,
    /// host, host-discrete, cuda:N; by default both hosts, and a CUDA device if there is one.
    #[arg(long, value_delimiter = ',')]
    devices: Vec<String>,
    /// Budgets.
    #[arg(long, value_delimiter = ',', default_value = "full,75%,50%,25%,min")]
    budgets: Vec<Request>,
    /// Rounds; each calibrates, and times five tokens at each budget in each allocation.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// End with status 1 if a prediction is further than this part from what was measured with the
    /// static allocation, after naming each such budget.
    #[arg(long, value_name = "PART", value_parser = part)]
    within: Option<f64>,
    /// Where to write JSON and plots.
    #[arg(long)]
    out: Option<PathBuf>,
    /// What cargo passes.
    #[arg(long, hide = true)]
    bench: bool,
}

fn part(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(part) if part.is_finite() && part >= 0.0 => Ok(part),
        _ => Err("must be a number, 0 or above, such as 0.15".into()),
    }
}

/// One device.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    device: String,
    total_weight_bytes: u64,
    floor_bytes: u64,
    context: usize,
    /// Of each round.
    costs: Vec<Costs>,
    budgets: Vec<Point>,
}

/// One budget; seconds and bytes.
#[derive(Debug, Serialize)]
struct Point {
    requested: String,
    applied_bytes: u64,
    streamed_bytes: u64,
    predicted: f64,
    /// Of the static allocation: the median of the rounds' ratios.
    measured_over_predicted: f64,
    allocations: Vec<Times>,
}

#[derive(Debug, Serialize)]
struct Times {
    allocation: String,
    median: f64,
    fastest: f64,
    slowest: f64,
}

/// Several times the last cache of most processors, so that streaming reads memory, and made in a
/// few seconds.
fn model() -> Random {
    Random {
        name: "330 MB",
        json: random::llama(768, 2048, 24, (12, 4), 16384, false),
        stored: Stored::Bf16,
        shards: 1,
    }
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let made = tempfile::tempdir()?;
    let (name, dir) = match &args.model {
        Some(dir) => (dir.display().to_string(), dir.clone()),
        None => {
            let bytes = model().write(made.path())?;
            let name = format!("a random llama of {:.0} MB", bytes as f64 / 1e6);
            (name, made.path().to_path_buf())
        }
    };
    let out = args.out.clone().unwrap_or_else(|| {
        let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
        Path::new(&target).join("budget_latency")
    });
    std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let mut devices = args.devices.clone();
    if devices.is_empty() {
        devices = vec!["host".into(), "host-discrete".into()];
        match Cuda::new(0) {
            Ok(_) => devices.push("cuda:0".into()),
            Err(why) => println!("only on the host: {why}"),
        }
    }
    let mut beyond = Vec::new();
    for device in &devices {
        let report = measure(&name, &dir, device, &args)?;
        print(&report);
        if let Some(within) = args.within {
            beyond.extend(
                report
                    .beyond(within)
                    .map(|line| format!("{device}, {line}")),
            );
        }
        let file = out.join(device.replace(':', "-"));
        std::fs::write(
            file.with_extension("json"),
            serde_json::to_string_pretty(&report)?,
        )?;
        std::fs::write(file.with_extension("svg"), plot::svg(&chart(&report)))?;
        println!("written: {0}.json, {0}.svg\n", file.display());
    }
    for line in &beyond {
        println!("beyond {}: {line}", args.within.unwrap_or_default());
    }
    Ok(match beyond.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

impl Report {
    /// The budgets whose prediction is further than a part from what was measured.
    fn beyond(&self, within: f64) -> impl Iterator<Item = String> {
        let off = |p: &Point| (1.0 / p.measured_over_predicted - 1.0).abs();
        let far = self.budgets.iter();
        let far = far.filter(move |p| off(p).is_nan() || off(p) > within);
        far.map(|p| {
            format!(
                "budget {}: predicted {:.3} ms, measured {:.3} times that",
                p.requested,
                p.predicted * 1e3,
                p.measured_over_predicted
            )
        })
    }
}

fn engine(dir: &Path, device: &str) -> Result<Engine> {
    let config = DecoderConfig::from_file(dir.join("config.json"))?;
    let positions = CONTEXT + 64;
    let options = LoadOptions {
        max_positions: Some(positions),
    };
    Ok(Compiler::new(Weights::open(dir)?)
        .shared_device(device::open(device)?)
        .profile(Profile::decoder(positions, CONTEXT)?)
        .weight_streaming(true)
        .budget(Request::Minimum)
        .compile(|vb| Llama::load_with(vb, &config, &options))?)
}

fn measure(name: &str, dir: &Path, device: &str, args: &Args) -> Result<Report> {
    let engine = engine(dir, device)?;
    let mut session = engine.session()?;
    let prompt: Vec<u32> = (0..CONTEXT as u32).map(|i| i * 37 % 90).collect();
    session.prefill(&prompt)?;
    let shared = Shared::new();
    let allocations = [
        Allocation::Static,
        Allocation::Dynamic,
        Allocation::from(&shared),
    ];
    let mut seen: Vec<Seen> = args.budgets.iter().map(|_| Seen::default()).collect();
    let mut costs = Vec::new();
    for _ in 0..args.rounds {
        // As often as what it is compared with, so that it sees the same machine.
        costs.push(engine.calibrate(&[(PAST, CONTEXT as i64)])?);
        for (&request, seen) in args.budgets.iter().zip(&mut seen) {
            let predicted = engine.predict(request)?.seconds;
            engine.set_device_budget(request)?;
            let mut times = Vec::new();
            for allocation in &allocations {
                engine.set_allocation(allocation.clone())?;
                times.push(tokens(&mut session)?);
            }
            engine.set_allocation(Allocation::Static)?;
            seen.ratios.push(median(&times[0]) / predicted);
            seen.predicted.push(predicted);
            seen.seconds.resize(times.len(), Vec::new());
            for (all, new) in seen.seconds.iter_mut().zip(times) {
                all.extend(new);
            }
        }
    }
    let point = |(&request, seen): (&Request, &Seen)| -> Result<Point> {
        let applied = engine.set_device_budget(request)?;
        let named = allocations.iter().zip(&seen.seconds);
        Ok(Point {
            requested: request.to_string(),
            applied_bytes: applied.applied,
            streamed_bytes: applied.streamed,
            predicted: median(&seen.predicted),
            measured_over_predicted: median(&seen.ratios),
            allocations: named.map(|(a, seconds)| Times::of(a, seconds)).collect(),
        })
    };
    let budgets = args.budgets.iter().zip(&seen).map(point);
    Ok(Report {
        model: name.into(),
        device: engine.device().info().name.clone(),
        total_weight_bytes: engine.total_device_budget(),
        floor_bytes: engine.minimum_device_budget(),
        context: CONTEXT,
        costs,
        budgets: budgets.collect::<Result<_>>()?,
    })
}

/// What was measured at a budget, all rounds together.
#[derive(Clone, Debug, Default)]
struct Seen {
    predicted: Vec<f64>,
    ratios: Vec<f64>,
    /// For each allocation.
    seconds: Vec<Vec<f64>>,
}

impl Times {
    fn of(allocation: &Allocation, seconds: &[f64]) -> Times {
        Times {
            allocation: allocation.to_string(),
            median: median(seconds),
            fastest: seconds.iter().copied().fold(f64::MAX, f64::min),
            slowest: seconds.iter().copied().fold(0.0, f64::max),
        }
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Seconds of some tokens after what loads tiles and records.
fn tokens(session: &mut Session) -> Result<Vec<f64>> {
    let mut seconds = Vec::new();
    for i in 0..FIRST + COUNTED {
        let start = Instant::now();
        session.decode(1)?;
        seconds.extend((i >= FIRST).then(|| start.elapsed().as_secs_f64()));
        session.truncate(CONTEXT);
    }
    Ok(seconds)
}

fn print(report: &Report) {
    println!(
        "{} on {}: {:.1} MB of weights, floor {:.2} MB, context {}, ms per token (medians)",
        report.model,
        report.device,
        report.total_weight_bytes as f64 / 1e6,
        report.floor_bytes as f64 / 1e6,
        report.context
    );
    let names = report.budgets.first().map_or(&[][..], |p| &p.allocations);
    print!("{:>8} {:>11} {:>11}", "budget", "applied MB", "streamed MB");
    for times in names {
        print!(" {:>9}", times.allocation);
    }
    println!(" {:>9} {:>15}", "predicted", "static/predicted");
    for p in &report.budgets {
        print!(
            "{:>8} {:>11.2} {:>11.2}",
            p.requested,
            p.applied_bytes as f64 / 1e6,
            p.streamed_bytes as f64 / 1e6
        );
        for times in &p.allocations {
            print!(" {:>9.3}", times.median * 1e3);
        }
        println!(
            " {:>9.3} {:>15.3}",
            p.predicted * 1e3,
            p.measured_over_predicted
        );
    }
}

fn chart(report: &Report) -> Chart {
    let mut points: Vec<&Point> = report.budgets.iter().collect();
    points.sort_by_key(|p| p.applied_bytes);
    let of = |time: &dyn Fn(&Point) -> f64| {
        let at = points.iter().map(|p| (p.applied_bytes as f64, time(p)));
        at.collect::<Vec<_>>()
    };
    let mut lines = vec![Line {
        name: "predicted".into(),
        style: Style::Dashed("#e80"),
        points: of(&|p| p.predicted),
    }];
    let names = points.first().map_or(&[][..], |p| &p.allocations);
    for (i, times) in names.iter().enumerate().rev() {
        let colour = COLOURS[i % COLOURS.len()];
        lines.push(Line {
            name: times.allocation.clone(),
            // The numbers of one are enough.
            style: match i {
                0 => Style::Marked(colour),
                _ => Style::Plain(colour),
            },
            points: of(&|p| p.allocations[i].median),
        });
    }
    Chart {
        title: format!("{}: ms per token against the budget", report.device),
        most_bytes: report.total_weight_bytes as f64,
        lines,
    }
}
