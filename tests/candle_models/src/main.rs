//! Runs cases and writes the table.
//!
//! `cargo run -p candle-models -- run [PART] [--device NAME] [--dtype bf16]` runs the cases whose file a text is part of, on the
//! host or another device; `-- time [PART] [--device NAME] [--dtype bf16] [--folder DIR]` times large models, whose random
//! weights it writes below a folder for that long; `-- layer FILE WAY` says what a layer
//! launches; `-- table [--check]` runs all and writes `MODELS.md`, or says whether it is what would be written.

use candle_core::DType;
use candle_models::{Target, table, time};
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> std::io::Result<ExitCode> {
    // A case that panics is told as its fault.
    std::panic::set_hook(Box::new(|_| {}));
    let args: Vec<String> = std::env::args().skip(1).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let told = |file: &str, tried: &table::Tried| match &tried.held {
        Ok(held) => println!(
            "{file} [{}] matches, off by {:.1e}, launches {:?} per layer {:?}, floor {} of {} bytes",
            tried.way, held.off, held.launches, tried.launches, held.floor.0, held.floor.1
        ),
        Err(fault) => println!("{file} [{}] {fault}", tried.way),
    };
    match args.first().map(String::as_str) {
        Some("run") => {
            let Some(asked) = Asked::parse(&args[1..]) else {
                return Ok(usage());
            };
            table::run(&asked.part, (asked.target(), threads), told);
            Ok(ExitCode::SUCCESS)
        }
        Some("time") => match Asked::parse(&args[1..]) {
            Some(asked) => timed(&asked),
            None => Ok(usage()),
        },
        Some("table") => {
            let text = table::text(&table::rows(table::run(
                "",
                (Target::TABLE, threads),
                told,
            ))?);
            if args.iter().any(|a| a == "--check") {
                let same = std::fs::read_to_string(table::place())? == text;
                println!("MODELS.md is what was found: {same}");
                return Ok(if same {
                    ExitCode::SUCCESS
                } else {
                    ExitCode::FAILURE
                });
            }
            std::fs::write(table::place(), text)?;
            Ok(ExitCode::SUCCESS)
        }
        Some("layer") => {
            let [_, file, way] = args.as_slice() else {
                return Ok(usage());
            };
            match candle_models::layer::text(file, way) {
                Ok(text) => print!("{text}"),
                Err(fault) => println!("{fault}"),
            }
            Ok(ExitCode::SUCCESS)
        }
        _ => Ok(usage()),
    }
}

/// What a command was given.
struct Asked {
    part: String,
    device: String,
    dtype: DType,
    folder: PathBuf,
}

impl Asked {
    fn parse(words: &[String]) -> Option<Asked> {
        let mut asked = Asked {
            part: String::new(),
            device: Target::TABLE.device.into(),
            dtype: DType::F32,
            folder: std::env::temp_dir(),
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--device" => asked.device = words.next()?.clone(),
                "--folder" => asked.folder = words.next()?.into(),
                "--dtype" => {
                    let name = words.next()?;
                    let mut known = [DType::F32, DType::BF16, DType::F16].into_iter();
                    asked.dtype = known.find(|d| d.as_str() == name)?;
                }
                option if option.starts_with('-') => return None,
                part => asked.part = part.into(),
            }
        }
        Some(asked)
    }

    fn target(&self) -> Target<'_> {
        Target {
            device: &self.device,
            dtype: self.dtype,
        }
    }
}

fn usage() -> ExitCode {
    println!("run [PART] [--device NAME] [--dtype f32|bf16|f16]");
    println!("time [PART] [--device NAME] [--dtype f32|bf16|f16] [--folder DIR]");
    println!("layer FILE WAY");
    println!("table [--check]");
    ExitCode::FAILURE
}

fn timed(asked: &Asked) -> std::io::Result<ExitCode> {
    for case in time::cases(&asked.part) {
        let folder = tempfile::tempdir_in(&asked.folder)?;
        match time::time(&case, asked.target(), folder.path()) {
            Ok(all) => all.iter().for_each(|t| {
                println!(
                    "{} {:?} at {}: {:.3} ms, {} launches, streams {} of {} bytes",
                    case.file, t.sizes, t.budget, t.milliseconds, t.launches, t.streamed, t.weights
                );
            }),
            Err(fault) => println!("{} {fault}", case.file),
        }
    }
    Ok(ExitCode::SUCCESS)
}
