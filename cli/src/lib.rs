//! The command `candle-trt`: decode text with a model that does not fit, measure what budgets cost, look at a model.
//!
//! `get` finds or makes a model's folder, `run` answers a prompt, `curve` measures, `info` tells what fits. A command's answer goes to standard
//! output, everything else to standard error.

mod curve;
mod get;
mod info;
mod model;
mod precision;
mod progress;
mod run;

use clap::{Parser, Subcommand};
use std::process::ExitCode;
use std::time::Instant;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

pub use get::wheel::{Member, Wheel, wheel};
pub use get::{Wanted, files, gguf::check as check_gguf, obtain, packed};
pub use precision::Precision;

/// Run language models in less device memory than their weights take.
#[derive(Debug, Parser)]
#[command(name = "candle-trt", version)]
struct Command {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Decode text with a language model whose weights do not have to fit the device.
    Run(run::RunArgs),
    /// Measure the time of a token at several budgets.
    Curve(curve::CurveArgs),
    /// Tell what a model is, and what of it fits on this machine.
    Info(info::InfoArgs),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let start = Instant::now();
    let command = Command::parse();
    logs();
    let ended = match &command.what {
        What::Run(args) => run::run(args),
        What::Curve(args) => curve::run(args, start),
        What::Info(args) => info::run(args),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", message(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes, each said once: many a cause is part of what it caused already.
fn message(error: &anyhow::Error) -> String {
    let mut said = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if said.is_empty() {
            said = cause;
        } else if !said.contains(&cause) {
            said += ": ";
            said += &cause;
        }
    }
    said
}

/// What the library logs, to standard error, where `RUST_LOG` asks for it: a level, or `crate=level` with commas.
fn logs() {
    let Ok(wanted) = std::env::var("RUST_LOG") else {
        return;
    };
    match wanted.parse::<Targets>() {
        Ok(targets) => tracing_subscriber::registry()
            .with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr))
            .with(targets)
            .init(),
        Err(why) => eprintln!("note: RUST_LOG={wanted} is not obeyed: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    #[test]
    fn a_message_says_each_cause_once() {
        let io = || std::io::Error::other("no disk");
        let twice = anyhow!(io())
            .context("cannot read a: no disk")
            .context("cannot start");
        assert_eq!(message(&twice), "cannot start: cannot read a: no disk");
        let failed: Result<(), _> = Err(io());
        assert_eq!(
            message(&failed.context("cannot read a").unwrap_err()),
            "cannot read a: no disk"
        );
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Command::command().debug_assert();
    }
}
