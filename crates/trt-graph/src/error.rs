//! What can go wrong between model code and a program.

use crate::graph::NodeId;
use crate::line::Line;

/// An error of tracing, generalising, a pass or lowering.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model could not be made: a weight is missing or has another shape, say.
    #[error("the model does not load: {source}{}", after(*line))]
    Load {
        /// The last line of model code that called candle's API.
        line: Line,
        /// candle's error; it is part of the message.
        r#source: candle_core::Error,
    },
    /// The model's own code returned an error in a call.
    #[error("the model failed at {point}: {source}{}", after(*line))]
    Model {
        /// The last line of model code that called candle's API.
        line: Line,
        /// The sample point, e.g. `past=5 seq=2`.
        point: String,
        /// candle's error; it is part of the message.
        r#source: candle_core::Error,
    },
    /// The model counts positions itself, so its cache's length cannot be set, and calls up to a
    /// sample point record too much.
    #[error(
        "{point} cannot be traced: the model keeps a count of positions beside its cache, so each position \
         up to there takes calls, which recorded {bytes} bytes for the first {reached} positions, more \
         than {most}; take the position from the call or from the cache's length, or use a smaller profile"
    )]
    TooFar {
        /// The sample point.
        point: String,
        /// The positions that were reached.
        reached: i64,
        /// Bytes of constants and records up to there.
        bytes: u64,
        /// The most that they may be.
        most: u64,
    },
    /// A corner of the profile whose call would make too large constants.
    #[error(
        "{point} cannot be traced: the model's own code would make {bytes} bytes of constants there (masks or \
         tables), more than {most}; make them from ranges and comparisons, or use a smaller profile"
    )]
    TooLarge {
        /// The sample point.
        point: String,
        /// Bytes of constants of one call, as they grow between the smallest sample points.
        bytes: u128,
        /// The most that they may be.
        most: u128,
    },
    /// Two traces of one class of calls differ in structure.
    #[error(
        "the model's control flow differs between {a} and {b} at node {node}: '{left}' against \
         '{right}'; split the profile where it changes (Profile::split)"
    )]
    ControlFlow {
        /// First sample point.
        a: String,
        /// Second sample point.
        b: String,
        /// The node.
        node: usize,
        /// What the first trace has.
        left: String,
        /// What the second trace has.
        right: String,
    },
    /// An integer that is no such function of the runtime integers as is looked for.
    #[error(
        "{what} is no polynomial in the runtime integers and floors of one of them by at most 64: it is \
         {values:?} at {points}"
    )]
    Size {
        /// Which number of which node.
        what: String,
        /// The first values found.
        values: Vec<i64>,
        /// The sample points that have them.
        points: String,
    },
    /// A constant tensor or number that changes between calls and fits no known family.
    #[error(
        "constant {dtype}{shape} (node {node}{line}) changes between calls and is no causal mask, range, \
         fill or function of the distance of two positions; pass it as an input"
    )]
    Constant {
        /// The node's index in the trace.
        node: usize,
        /// Its dtype.
        dtype: String,
        /// Its shape at the first sample point.
        shape: String,
        /// The line of model code that made it.
        line: Line,
    },
    /// A state that this version cannot carry.
    #[error("state {state}: {what}")]
    State {
        /// The state's index.
        state: usize,
        /// Why.
        what: String,
    },
    /// A profile that cannot be traced.
    #[error("profile: {0}")]
    Profile(String),
    /// A graph that breaks its invariants; `pass` produced it.
    #[error("after {pass}: node %{} ({op}): {what}", node.0)]
    Verify {
        /// The pass that ran last.
        pass: &'static str,
        /// The node.
        node: NodeId,
        /// Its op.
        op: String,
        /// What is wrong.
        what: String,
    },
    /// A runtime integer that cannot be computed of the earlier ones.
    #[error(
        "after {pass}: computed integer {integer} divides by less than 2, needs a later one, or is too many"
    )]
    Integers {
        /// The pass that ran last.
        pass: &'static str,
        /// Which of the computed ones.
        integer: usize,
    },
    /// Text that is no graph.
    #[error("line {line}: {what}")]
    Parse {
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// A node that no kernel computes.
    #[error("node %{} ({op}): {what}", node.0)]
    Lower {
        /// The node.
        node: NodeId,
        /// Its op.
        op: String,
        /// Why.
        what: String,
    },
    /// A program that breaks its invariants, such as one that was read from a damaged file.
    #[error("the program is broken: {0}")]
    Program(String),
    /// A program that breaks its invariants once launches were fused; `fusion` made it.
    #[error("after {fusion}: the program is broken: {what}")]
    Fusion {
        /// The fusion that ran last.
        fusion: &'static str,
        /// What is wrong.
        what: String,
    },
    /// The reference evaluator was given something it cannot run.
    #[error("reference: {0}")]
    Reference(String),
}

/// What is said of the line that ran before an error of the model's own code.
fn after(line: Line) -> String {
    match line.0 {
        Some(_) => format!("; the last operation was{line}"),
        None => String::new(),
    }
}
