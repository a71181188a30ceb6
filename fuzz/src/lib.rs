//! Hostile inputs for parsers: valid ones, mutated, by a seed and a count.
//!
//! A target is a function from bytes; [`Target::run`] gives it mutations of its corpus and holds every case to the
//! same contract: it returns (an error is fine), it does not panic, it holds no more memory than a bound at any time,
//! and it ends within a time. A case is a function of the seed and its number alone, so a failure names both and is
//! repeated by itself.
//!
//! | variable | meaning |
//! |---|---|
//! | `TRT_FUZZ_CASES` | cases of each target, instead of the target's own number |
//! | `TRT_FUZZ_SEED` | another seed than 0 |
//! | `TRT_FUZZ_CASE` | only this case |
//!
//! Ten million cases of every target, for a night:
//! `TRT_FUZZ_CASES=10000000 cargo test --release -p candle-trt-fuzz`.

mod memory;
mod mutate;
mod watch;

pub use memory::Counting;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// A parser, what it is given, and what it may take.
#[derive(Debug, Clone)]
pub struct Target<'a> {
    /// Its name in reports.
    pub name: &'a str,
    /// Valid inputs to start from.
    pub corpus: &'a [Vec<u8>],
    /// Pieces of the format, such as keys, that mutations put in.
    pub words: &'a [&'a str],
    /// Cases where `TRT_FUZZ_CASES` says nothing else: 100 000 unless one case is slow.
    pub cases: u64,
    /// Bytes that one case may hold at once.
    pub bytes: usize,
    /// Bytes that it may hold besides, for each of its input.
    pub times: usize,
    /// How long one case may take. Machines are shared: leave room.
    pub time: Duration,
}

impl<'a> Target<'a> {
    /// A target with the usual bounds: 100 000 cases of at most 64 MiB and 5 s each.
    pub fn new(name: &'a str, corpus: &'a [Vec<u8>]) -> Self {
        Target {
            name,
            corpus,
            words: &[],
            cases: 100_000,
            bytes: 64 << 20,
            times: 0,
            time: Duration::from_secs(5),
        }
    }

    /// Runs all cases, the corpus itself first.
    ///
    /// # Panics
    ///
    /// At the first case that breaks the contract, with what repeats it.
    pub fn run(&self, parse: impl Fn(&[u8])) {
        self.run_on(|seed, case| self.input(seed, case), parse);
    }

    /// The same for inputs that `input` makes of a seed and the number of a case.
    ///
    /// # Panics
    ///
    /// As [`run`](Self::run).
    pub fn run_on(&self, input: impl Fn(u64, u64) -> Vec<u8>, parse: impl Fn(&[u8])) {
        let cases = match variable("TRT_FUZZ_CASE") {
            Some(only) => only..only.saturating_add(1),
            None => 0..variable("TRT_FUZZ_CASES").unwrap_or(self.cases),
        };
        self.run_cases(cases, input, parse);
    }

    /// The corpus alone, whatever is asked for.
    ///
    /// # Panics
    ///
    /// As [`run`](Self::run).
    pub fn run_corpus(&self, parse: impl Fn(&[u8])) {
        let cases = 0..self.corpus.len() as u64;
        self.run_cases(cases, |seed, case| self.input(seed, case), parse);
    }

    fn run_cases(
        &self,
        cases: std::ops::Range<u64>,
        input: impl Fn(u64, u64) -> Vec<u8>,
        parse: impl Fn(&[u8]),
    ) {
        assert!(
            !self.corpus.is_empty(),
            "{}: a target needs a corpus",
            self.name
        );
        let seed = variable("TRT_FUZZ_SEED").unwrap_or(0);
        let watch = watch::Watch::new(self.name, seed);
        for case in cases {
            let input = input(seed, case);
            watch.begins(case);
            if let Err(why) = self.one(&input, &parse) {
                let shown: String = String::from_utf8_lossy(&input).chars().take(600).collect();
                panic!(
                    "{}: {why}; repeat with TRT_FUZZ_SEED={seed} TRT_FUZZ_CASE={case}; {} bytes: {shown:?}",
                    self.name,
                    input.len(),
                );
            }
        }
    }

    /// An input with a few changes, as those of [`input`](Self::input) have.
    pub fn changed(&self, input: Vec<u8>, rng: &mut fastrand::Rng) -> Vec<u8> {
        mutate::changed(input, self.corpus, self.words, rng)
    }

    /// The input of a case; the first cases are the corpus as it is.
    pub fn input(&self, seed: u64, case: u64) -> Vec<u8> {
        match usize::try_from(case).ok().and_then(|i| self.corpus.get(i)) {
            Some(valid) => valid.clone(),
            None => mutate::mutated(self.corpus, self.words, seed, case),
        }
    }

    fn one(&self, input: &[u8], parse: impl Fn(&[u8])) -> Result<(), String> {
        let start = Instant::now();
        let (ended, peak) = memory::peak_of(|| catch_unwind(AssertUnwindSafe(|| parse(input))));
        let took = start.elapsed();
        if let Err(payload) = ended {
            return Err(format!("it panicked: {}", message(payload.as_ref())));
        }
        let most = self.bytes + self.times * input.len();
        if peak > most {
            return Err(format!("it held {peak} bytes, and {most} are allowed"));
        }
        match took > self.time {
            true => Err(format!("it took {took:?}, and {:?} are allowed", self.time)),
            false => Ok(()),
        }
    }
}

fn message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    text.unwrap_or("(no message)").to_string()
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}
