//! Starting the binary with nothing of the test's own environment but what finds programs.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// What a run of the binary left.
pub struct Ended {
    /// Its exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
    /// How long it took.
    pub took: Duration,
}

impl Ended {
    fn new(output: Output, start: Instant) -> Self {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Ended {
            code: output.status.code(),
            out: text(&output.stdout),
            err: text(&output.stderr),
            took: start.elapsed(),
        }
    }

    /// The JSON object on the last line of standard output, of a run that must have succeeded.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        assert_eq!(self.code, Some(0), "{}", self.err);
        let last = self.out.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}: {last}"))
    }

    /// The error of a run that must have failed with one, soon, and in words.
    #[track_caller]
    pub fn error(&self) -> &str {
        assert_eq!(self.code, Some(1), "{}\n{}", self.out, self.err);
        // Machines are shared; what is without bound takes for ever.
        assert!(
            self.took < Duration::from_secs(60),
            "{:?}: {}",
            self.took,
            self.err
        );
        let at = self
            .err
            .rfind("error: ")
            .unwrap_or_else(|| panic!("no error: {}", self.err));
        &self.err[at..]
    }
}

/// The binary with a home of its own in `home`, and no standard input.
pub fn candle_trt(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_candle-trt"));
    command.args(arguments).stdin(Stdio::null()).env_clear();
    for name in ["PATH", "LD_LIBRARY_PATH"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.env("HOME", home);
    command
}

/// Runs it to its end.
pub fn run(mut command: Command) -> Ended {
    let start = Instant::now();
    Ended::new(command.output().expect("the binary starts"), start)
}

/// Starts it; the answer waits for its end.
pub fn start(mut command: Command) -> impl FnOnce() -> Ended {
    let start = Instant::now();
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let child = child.expect("the binary starts");
    move || Ended::new(child.wait_with_output().expect("it ends"), start)
}
