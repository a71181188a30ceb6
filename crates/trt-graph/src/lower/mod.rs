//! From a graph to a program: which nodes share a kernel, and where results live.
//!
//! [`group`] decides which nodes are *roots*, whose results are stored, and which are computed
//! inside a root's kernel. [`emit`] writes a root's body by walking back to what is stored.
//! [`place`] says how a stored tensor is addressed; layout ops on stored tensors cost nothing
//! where strides can express them. A body that cannot be written (a reshape that no linear index
//! expresses, say) names the node that must be stored, and grouping is done again with it.
//! [`side`] then puts small kernels that do not depend on each other into one launch; before that,
//! [`prologue`] and [`chain`] make fewer launches of products of few rows and what they follow, and
//! [`before`] of attention and the rows ahead of it.

mod access;
mod before;
mod chain;
mod emit;
mod group;
mod kernels;
mod place;
mod prologue;
mod side;
mod storage;
mod writer;

use crate::graph::{Graph, NodeId, Op};
use crate::passes::PassNote;
use crate::program::Program;
use crate::{Error, passes, verify};
use std::collections::BTreeMap;

/// What the compiler did with one class of calls.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Node counts around each pass.
    pub passes: Vec<PassNote>,
    /// For each launch: its label and the ops fused into it.
    pub kernels: Vec<KernelNote>,
    /// Elementwise results that were stored although a consumer could have computed them: the
    /// op and why.
    pub stored: Vec<(String, String)>,
    /// Things a user may want to know.
    pub notes: Vec<String>,
}

/// One launch in the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelNote {
    /// The kernel kind.
    pub kind: &'static str,
    /// The ops it computes, in order.
    pub ops: Vec<String>,
}

/// Optimises and lowers a traced graph.
pub fn compile(graph: Graph) -> Result<(Program, Report), Error> {
    let (graph, pass_notes) = passes::optimise(graph)?;
    let (program, mut report) = lower(&graph)?;
    report.passes = pass_notes;
    Ok((program, report))
}

/// Lowers an optimised graph.
pub fn lower(graph: &Graph) -> Result<(Program, Report), Error> {
    // A graph may come from anywhere, such as text; what follows relies on its invariants.
    verify(graph, "lower")?;
    let mut forced: BTreeMap<NodeId, &'static str> = BTreeMap::new();
    loop {
        let groups = group::Groups::new(graph, &forced);
        match writer::write(graph, &groups)? {
            writer::Outcome::Done(mut program, mut report) => {
                side::arrange(&mut program, &mut report.kernels);
                program.verify()?;
                report.stored = groups.stored(graph, &forced);
                return Ok((*program, report));
            }
            writer::Outcome::Store(node, why) => {
                if forced.insert(node, why).is_some() {
                    let op = graph.node(node).op.name();
                    return Err(Error::Lower {
                        node,
                        op,
                        what: why.into(),
                    });
                }
            }
        }
    }
}

/// Whether an op only rearranges elements.
fn is_view(op: &Op) -> bool {
    matches!(
        op,
        Op::Reshape | Op::Permute(_) | Op::Broadcast | Op::Narrow { .. } | Op::Unfold { .. }
    )
}

/// Whether an op can be computed element by element inside another kernel.
pub(crate) fn is_scalar(op: &Op) -> bool {
    matches!(
        op,
        Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Where | Op::Cast
    )
}

/// Whether kernels generate the value from indices alone.
fn is_generated(op: &Op) -> bool {
    matches!(
        op,
        Op::Float(_) | Op::Int(_) | Op::Arange { .. } | Op::Causal { .. }
    )
}
