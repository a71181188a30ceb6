//! A node with its operands, and what is asked of most of them.

use crate::graph::{Graph, Node};
use trt_kernel::Dim;

pub(super) type Checked = Result<(), String>;

pub(super) fn ensure(ok: bool, what: impl FnOnce() -> String) -> Checked {
    if ok { Ok(()) } else { Err(what()) }
}

/// A shape as text.
pub(super) fn list(shape: &[Dim]) -> String {
    let sizes: Vec<String> = shape.iter().map(Dim::to_string).collect();
    format!("[{}]", sizes.join(", "))
}

/// The operand must have this many axes.
pub(super) fn rank(operand: &Node, axes: usize) -> Checked {
    ensure(operand.shape.len() == axes, || {
        format!("operand {} must have rank {axes}", list(&operand.shape))
    })
}

/// A node where it stands.
pub(super) struct Site<'a> {
    pub graph: &'a Graph,
    pub node: &'a Node,
    pub inputs: Vec<&'a Node>,
}

impl<'a> Site<'a> {
    pub fn new(graph: &'a Graph, node: &'a Node) -> Site<'a> {
        let inputs = node.inputs.iter().map(|i| graph.node(*i)).collect();
        Site {
            graph,
            node,
            inputs,
        }
    }

    /// There are `n` operands.
    pub fn arity(&self, n: usize) -> Checked {
        ensure(self.inputs.len() == n, || {
            format!("{} inputs, expected {n}", self.inputs.len())
        })
    }

    /// The only operand.
    pub fn operand(&self) -> Result<&'a Node, String> {
        self.arity(1)?;
        Ok(self.inputs[0])
    }

    /// An operand has the shape of the result.
    pub fn same_shape(&self, operand: &Node) -> Checked {
        ensure(operand.shape == self.node.shape, || {
            let (from, to) = (list(&operand.shape), list(&self.node.shape));
            format!("operand {from} for result {to}")
        })
    }

    /// An operand has the dtype of the result.
    pub fn same_dtype(&self, operand: &Node) -> Checked {
        ensure(operand.dtype == self.node.dtype, || {
            format!("operand {} for result {}", operand.dtype, self.node.dtype)
        })
    }

    /// The result has such an axis.
    pub fn axis(&self, axis: usize) -> Checked {
        ensure(axis < self.node.shape.len(), || {
            format!("axis {axis} of {}", list(&self.node.shape))
        })
    }
}
