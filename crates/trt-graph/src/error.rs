//! What can go wrong between model code and a program.

use crate::NodeId;

/// An error of tracing, generalising, a pass or lowering.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model's own code returned an error.
    #[error("the model failed at {point}: {source}")]
    Model {
        /// The sample point, e.g. `past=5 seq=2`.
        point: String,
        /// candle's error.
        source: candle_core::Error,
    },
    /// Two traces of one class of calls differ in structure.
    #[error(
        "the model's control flow differs between {a} and {b} at node {node}: '{left}' against \
         '{right}'; split the profile where it changes"
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
    /// An integer that is not affine in the runtime integers.
    #[error(
        "{what} of node {node} ({op}) is not affine in the runtime integers: it is {values:?} at {points}"
    )]
    NotAffine {
        /// The node's index in the trace.
        node: usize,
        /// Its op.
        op: String,
        /// Which number.
        what: String,
        /// The values found.
        values: Vec<i64>,
        /// The sample points.
        points: String,
    },
    /// A constant tensor or number that changes between calls and fits no known family.
    #[error(
        "constant {dtype}{shape} (node {node}) changes between calls and is no causal mask, range \
         or fill; pass it as an input"
    )]
    Constant {
        /// The node's index in the trace.
        node: usize,
        /// Its dtype.
        dtype: String,
        /// Its shape at the first sample point.
        shape: String,
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
    /// The reference evaluator was given something it cannot run.
    #[error("reference: {0}")]
    Reference(String),
}
