//! Runs cases and writes the table.
//!
//! `cargo run -p candle-models -- run [PART] [--device NAME]` runs the cases whose file a text is part of, on the host or another
//! device; `-- table [--check]` runs all and writes `MODELS.md`, or says whether it is what would be written.

use candle_models::HOST;
use candle_models::table;
use std::process::ExitCode;

fn main() -> std::io::Result<ExitCode> {
    // A case that panics is told as its fault.
    std::panic::set_hook(Box::new(|_| {}));
    let args: Vec<String> = std::env::args().skip(1).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let told = |file: &str, tried: &table::Tried| match &tried.held {
        Ok(held) => println!(
            "{file} [{}] matches, off by {:.1e}, launches {:?} per layer {:?}",
            tried.way, held.off, held.launches, tried.launches
        ),
        Err(fault) => println!("{file} [{}] {fault}", tried.way),
    };
    match args.first().map(String::as_str) {
        Some("run") => {
            let mut rest = args[1..].iter();
            let (mut part, mut device) = ("", HOST);
            while let Some(word) = rest.next() {
                match (word.as_str(), rest.as_slice().first()) {
                    ("--device", Some(name)) => {
                        device = name;
                        rest.next();
                    }
                    (word, _) => part = word,
                }
            }
            table::run(part, (device, threads), told);
            Ok(ExitCode::SUCCESS)
        }
        Some("table") => {
            let text = table::text(&table::rows(table::run("", (HOST, threads), told))?);
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
        _ => {
            println!("run [PART] [--device NAME] | table [--check]");
            Ok(ExitCode::FAILURE)
        }
    }
}
