//! What compiling and running can fail with.

use trt_graph::NodeId;

/// An error of an engine. After any of them the engine is as it was before the call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model could not be traced or lowered.
    #[error(transparent)]
    Graph(#[from] trt_graph::Error),
    /// The weights could not be opened or do not fit.
    #[error(transparent)]
    Weights(#[from] trt_stream::WeightsError),
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
    /// Budgets need an engine that was compiled for them.
    #[error(
        "this engine was compiled without weight streaming: use Compiler::weight_streaming(true)"
    )]
    NoStreaming,
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
    /// A call without tokens.
    #[error("a call needs at least one token")]
    NoTokens,
    /// An input does not fit its declaration.
    #[error("input '{name}': expected {expected}, got {got}")]
    Input {
        /// The input.
        name: String,
        /// What was declared.
        expected: String,
        /// What was given.
        got: String,
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
    /// The memory plan failed its check: a defect of the planner.
    #[error("the memory plan of class {class} is wrong: {what}")]
    Plan {
        /// The class.
        class: String,
        /// What the checker found.
        what: String,
    },
}

impl Error {
    pub(crate) fn outside(call: String, profile: &trt_graph::Profile) -> Error {
        let class = |c: &trt_graph::Class| {
            let ints: Vec<String> = c
                .ints
                .iter()
                .map(|i| format!("{} in {}..={}", i.name, i.range.min, i.range.max))
                .collect();
            format!("{} ({})", c.name, ints.join(", "))
        };
        let profile = profile
            .classes
            .iter()
            .map(class)
            .collect::<Vec<_>>()
            .join("; ");
        Error::OutsideProfile { call, profile }
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
