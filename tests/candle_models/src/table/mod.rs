//! What comes of all files: cases are run, and there is a row for each file, in the order of their names.

mod left_out;
mod text;

use crate::blocks;
use crate::hold::{Held, Target, guarded, hold, launches};
use crate::spec::Way;
use crate::{Fault, ours, theirs};
use candle_models_trial::Outcome;
use std::collections::BTreeMap;
use std::io::Result;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

pub use text::text;

/// What comes of a file.
#[derive(Clone, Debug)]
pub struct Row {
    /// As the trial names it.
    pub file: String,
    /// What the compiler says against it.
    pub refused: Vec<String>,
    /// The ways that its model is called in.
    pub ways: Vec<Tried>,
}

/// What comes of a way of calling a model.
#[derive(Clone, Debug)]
pub struct Tried {
    /// Its name.
    pub way: &'static str,
    /// What an engine gives.
    pub held: std::result::Result<Held, Fault>,
    /// Launches that a layer adds, by class; empty if that is not known.
    pub launches: Vec<usize>,
}

/// What was run of each file.
pub type Ran = Vec<(&'static str, Tried)>;

/// One thing to run.
#[allow(clippy::large_enum_variant, reason = "nearly all are cases")]
enum Job {
    Case(ours::cases::Case, theirs::cases::Case, Way),
    Blocks(&'static str, &'static str, fn() -> f32),
}

impl Job {
    fn file(&self) -> &'static str {
        match self {
            Job::Case(ours, ..) => ours.file,
            Job::Blocks(file, ..) => file,
        }
    }

    fn run(&self, target: Target<'_>) -> Tried {
        match self {
            Job::Case(ours, theirs, way) => {
                let held = hold(ours, theirs, way, target);
                let launches = match held.is_ok() && target.is_table() {
                    true => launches(ours, theirs, way).unwrap_or_default(),
                    false => Vec::new(),
                };
                Tried {
                    way: way.name,
                    held,
                    launches,
                }
            }
            Job::Blocks(_, name, held) => Tried {
                way: name,
                held: guarded(Fault::Run, || {
                    Ok(Held {
                        off: held(),
                        ..Held::default()
                    })
                }),
                launches: Vec::new(),
            },
        }
    }
}

/// All that can be run of files that a text is part of.
fn jobs(part: &str) -> Vec<Job> {
    let ways = ours::cases::all();
    let ways = ways
        .iter()
        .flat_map(|c| c.spec.ways.iter().map(|w| (c.file, w.clone())));
    // The code of a case is not cloned: each way has its own.
    let case = |(file, way): (&'static str, Way)| {
        let ours = ours::cases::all().into_iter().find(|c| c.file == file);
        let theirs = theirs::cases::all().into_iter().find(|c| c.file == file);
        Some(Job::Case(ours?, theirs?, way))
    };
    let blocks = blocks::CASES.iter();
    let blocks = blocks.map(|(file, name, held)| Job::Blocks(file, name, *held));
    let jobs = ways.filter_map(case).chain(blocks);
    jobs.filter(|j| j.file().contains(part)).collect()
}

/// Runs what there is of files that a text is part of on a target, `threads` at once; `told` hears of each when it is
/// done.
pub fn run(
    part: &str,
    (target, threads): (Target<'_>, usize),
    told: impl Fn(&str, &Tried) + Sync,
) -> Ran {
    let jobs = jobs(part);
    let left = Mutex::new(jobs.iter().enumerate());
    let done = Mutex::new(BTreeMap::new());
    let work = || {
        loop {
            let next = left.lock().unwrap_or_else(|e| e.into_inner()).next();
            let Some((i, job)) = next else { return };
            let tried = job.run(target);
            told(job.file(), &tried);
            let mut done = done.lock().unwrap_or_else(|e| e.into_inner());
            done.insert(i, (job.file(), tried));
        }
    };
    std::thread::scope(|s| (0..threads.max(1)).for_each(|_| drop(s.spawn(work))));
    let done = done.into_inner().unwrap_or_else(|e| e.into_inner());
    done.into_values().collect()
}

/// The text of the last trial.
fn outcome() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("trial/outcome.txt")
}

/// Where the table is.
pub fn place() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../MODELS.md")
}

/// A row for every model file, of the last trial and of what was run.
///
/// # Errors
///
/// If the text of the last trial cannot be read.
pub fn rows(ran: Ran) -> Result<Vec<Row>> {
    let mut by_file: BTreeMap<&str, Vec<Tried>> = BTreeMap::new();
    for (file, tried) in ran {
        by_file.entry(file).or_default().push(tried);
    }
    let files = Outcome::read(&outcome())?.files.into_iter();
    let models = files.filter(|(file, _)| file.starts_with(MODELS));
    let row = |(file, refused): (String, Vec<String>)| Row {
        ways: by_file.remove(file.as_str()).unwrap_or_default(),
        file,
        refused,
    };
    Ok(models.map(row).collect())
}

/// The folder of the model files among the sources.
const MODELS: &str = "models/";
