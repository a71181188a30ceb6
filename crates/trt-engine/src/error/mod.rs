//! What compiling and running can fail with.

mod saved;

pub use saved::SavedError;

use std::path::{Path, PathBuf};
use std::time::Duration;
use trt_graph::NodeId;
use trt_stream::Request;

/// An error of an engine. After any of them the engine is as it was before the call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model could not be traced or lowered.
    #[error(transparent)]
    Graph(#[from] trt_graph::Error),
    /// The weights could not be opened or do not fit.
    #[error(transparent)]
    Weights(#[from] trt_stream::WeightsError),
    /// Weights that are made of others could not be made or kept.
    #[error(transparent)]
    Store(#[from] trt_stream::StoreError),
    /// Streaming or a budget failed.
    #[error(transparent)]
    Stream(#[from] trt_stream::Error),
    /// The pool refused memory.
    #[error(transparent)]
    Memory(#[from] trt_alloc::Error),
    /// The device failed.
    #[error(transparent)]
    Device(#[from] trt_device::Error),
    /// candle refused a tensor.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// Costs to predict from that no calls can have.
    #[error("costs of a call: {field} cannot be {value}")]
    Costs {
        /// The field.
        field: &'static str,
        /// What it was.
        value: f64,
    },
    /// Budgets need an engine that was compiled for them.
    #[error(
        "this engine was compiled without weight streaming: use Compiler::weight_streaming(true)"
    )]
    NoStreaming,
    /// A first budget for an engine whose weights may not stream.
    #[error(
        "a budget of {budget} was asked for together with weight_streaming(false), which keeps all weights on the \
         device: leave one of them out"
    )]
    BudgetWithoutStreaming {
        /// The budget.
        budget: Request,
    },
    /// A limit for everything on the device leaves too little for the weights.
    #[error(
        "a device limit of {limit} bytes leaves {left} bytes for weights beside {other} bytes of \
         activations, constants and states; the floor of the weights is {floor} bytes"
    )]
    LimitTooSmall {
        /// The limit asked for.
        limit: u64,
        /// What is left for weights.
        left: u64,
        /// What everything else takes.
        other: u64,
        /// The least that weights need.
        floor: u64,
    },
    /// The budget that an engine is made with does not fit the limit that it is made with.
    #[error(
        "a budget of {budget} bytes for weights and {other} bytes of activations, constants and \
         states are {short} bytes more than the device limit of {limit} bytes"
    )]
    LimitBelowBudget {
        /// The limit.
        limit: u64,
        /// What weights take.
        budget: u64,
        /// What everything else takes.
        other: u64,
        /// The shortfall.
        short: u64,
    },
    /// A device budget below the floors of its engines, in the order in which they joined.
    #[error("device budget: {0}")]
    BelowFloors(trt_stream::BelowFloors),
    /// An engine of a device budget refused its share; all have the budgets they had before.
    #[error("engine {engine} of {engines} of the device budget: {source}")]
    Member {
        /// The engine, counted from 0 in the order of joining.
        engine: usize,
        /// How many there are.
        engines: usize,
        /// Why it refused; it is part of the message.
        r#source: Box<Error>,
    },
    /// An engine on another device than the device budget that it is to join.
    #[error("the device budget is one of {budget}, but the engine runs on {engine}")]
    OtherDevice {
        /// The device of the budget.
        budget: String,
        /// The device of the engine.
        engine: String,
    },
    /// No budget makes calls fast enough.
    #[error(
        "no budget up to {budget} bytes makes a call take {latency:?}: the best predicted is {best:?}"
    )]
    LatencyOutOfReach {
        /// The time asked for.
        latency: Duration,
        /// The best there is.
        best: Duration,
        /// The budget of the best: the largest that fits.
        budget: u64,
    },
    /// No class of the profile fits a call.
    #[error("no class of the profile serves {call}; the profile has {profile}")]
    OutsideProfile {
        /// The call's integers.
        call: String,
        /// The classes.
        profile: String,
    },
    /// The session's context is full.
    #[error("{past} positions are cached and {new} are new, but the context ends at {max}")]
    ContextFull {
        /// Cached positions.
        past: usize,
        /// New positions.
        new: usize,
        /// The context.
        max: usize,
    },
    /// The session was taken back to a position at which a state cannot be had again.
    #[error(
        "the session is at position {position}, but state {state} of shape {shape:?} is not a cache that parts can be \
         taken of, and holds what {} left: reset the session and give it all tokens again",
        held.map_or_else(|| "a call that failed".to_string(), |n| format!("{n} positions"))
    )]
    NoWayBack {
        /// Where the session is.
        position: usize,
        /// The state.
        state: usize,
        /// Its shape.
        shape: Vec<usize>,
        /// The positions after which the state is as it is; none after a failed call.
        held: Option<usize>,
    },
    /// A call without tokens.
    #[error("a call needs at least one token")]
    NoTokens,
    /// A decoder's logits from which no token can be chosen: some are NaN or +infinite, or all are
    /// -infinite.
    #[error(
        "{} of {count} logits at position {position} are not finite ({nan} NaN, {positive} +inf, {negative} -inf): \
         weights or activations beyond what their dtype holds, such as f16 above 65504, do this",
        nan + positive + negative
    )]
    NotFinite {
        /// The position of the token that they follow, counted from 0.
        position: usize,
        /// How many logits there are.
        count: usize,
        /// How many are NaN.
        nan: usize,
        /// How many are +infinite.
        positive: usize,
        /// How many are -infinite, which by itself is how models exclude tokens.
        negative: usize,
    },
    /// Each class of the profile refuses a call, for reasons of its own.
    #[error("no class of the profile serves the call: {reasons}")]
    NoClass {
        /// Each class with its ranges, and why it does not serve the call.
        reasons: String,
    },
    /// An input does not fit its declaration.
    #[error("input '{name}': expected {expected}, got {got}, in class {class}")]
    Input {
        /// The input.
        name: String,
        /// What was declared.
        expected: String,
        /// What was given.
        got: String,
        /// The class with the ranges of its integers.
        class: String,
    },
    /// No input shows a runtime integer, and it may have several values.
    #[error(
        "no input shows the runtime integer '{name}' ({min}..={max}): give it with the call, \
         run_with(inputs, &[(\"{name}\", value)])"
    )]
    Integer {
        /// Its name.
        name: String,
        /// The least value that it may have.
        min: i64,
        /// The largest.
        max: i64,
    },
    /// A value was given for a runtime integer that there is not.
    #[error("no runtime integer '{name}' in the profile (it has {known})")]
    NoInteger {
        /// The name that was given.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// Two values of one runtime integer: given twice, or against the session's position.
    #[error("the runtime integer '{name}' cannot be both {a} and {b}")]
    Contradiction {
        /// Its name.
        name: String,
        /// One value.
        a: i64,
        /// The other.
        b: i64,
    },
    /// A method for decoders on another kind of model.
    #[error("this model is no decoder: {0}")]
    NotADecoder(String),
    /// Programs of one model disagree.
    #[error("classes {a} and {b} of the profile disagree on {what}")]
    Classes {
        /// First class.
        a: String,
        /// Second class.
        b: String,
        /// On what.
        what: String,
    },
    /// Compiling or loading would take, or has taken, more memory than it may.
    #[error(
        "compiling or loading needs {needed} bytes of {memory} memory ({parts}): {short} more than the limit \
         of {limit} bytes"
    )]
    CompileLimit {
        /// Which memory: `host` or `device`.
        memory: &'static str,
        /// What is needed.
        needed: u64,
        /// The limit.
        limit: u64,
        /// The shortfall.
        short: u64,
        /// What it is needed for.
        parts: String,
    },
    /// A saved engine could not be written or read.
    #[error("{}: {source}", path.display())]
    Saved {
        /// The file.
        path: PathBuf,
        /// What is wrong; it is part of the message.
        r#source: SavedError,
    },
    /// A weight was given as a tensor on another device than the CPU.
    #[error("tensor '{name}' is on {device}; weights are taken from the CPU and never moved")]
    NotOnHost {
        /// The tensor.
        name: String,
        /// Where it is.
        device: String,
    },
    /// The memory plan failed its check: a defect of the planner.
    #[error("the memory plan of class {class} is wrong: {what}")]
    Plan {
        /// The class.
        class: String,
        /// What the checker found.
        what: String,
    },
}

impl From<trt_stream::BelowFloors> for Error {
    fn from(floors: trt_stream::BelowFloors) -> Error {
        Error::BelowFloors(floors)
    }
}

impl Error {
    /// The bytes that were asked for, if the device had no memory for them.
    pub fn out_of_memory(&self) -> Option<u64> {
        match self {
            Error::Stream(e) => e.out_of_memory(),
            Error::Memory(e) => e.out_of_memory(),
            Error::Device(e) => e.out_of_memory(),
            Error::Member { source, .. } => source.out_of_memory(),
            _ => None,
        }
    }

    pub(crate) fn outside(call: String, profile: &trt_graph::Profile) -> Error {
        let profile = classes(profile);
        Error::OutsideProfile { call, profile }
    }

    pub(crate) fn saved(path: &Path, source: SavedError) -> Error {
        Error::Saved {
            path: path.to_path_buf(),
            source,
        }
    }

    pub(crate) fn lower(what: String) -> Error {
        trt_graph::Error::Lower {
            node: NodeId(0),
            op: "program".into(),
            what,
        }
        .into()
    }
}

/// The classes of a profile with the ranges of their integers.
pub(crate) fn classes(profile: &trt_graph::Profile) -> String {
    let all: Vec<String> = profile.classes.iter().map(class).collect();
    all.join("; ")
}

/// A class with the ranges of its integers.
pub(crate) fn class(c: &trt_graph::Class) -> String {
    let range = |i: &trt_graph::IntVar| format!("{} in {}..={}", i.name, i.range.min, i.range.max);
    let ints: Vec<String> = c.ints.iter().map(range).collect();
    format!("{} ({})", c.name, ints.join(", "))
}
