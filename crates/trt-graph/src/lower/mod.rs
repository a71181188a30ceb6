//! From a graph to a program: which nodes share a kernel, and where results live.
//!
//! [`group`] decides which nodes are *roots*, whose results are stored, and which are computed
//! inside a root's kernel; folds over the same rows share one ([`beside`]). [`walk`] makes a launch of every root on a program in the making
//! ([`writer`]), and [`emit`] writes a root's body by walking back to what is stored.
//! [`place`] says how a stored tensor is addressed; layout ops on stored tensors cost nothing
//! where strides can express them. A body that cannot be written (a reshape that no linear index
//! expresses, say) names the node that must be stored, and grouping is done again with it.
//! What comes out is then fused to fewer launches ([`launches`](crate::launches)).

mod access;
mod arranged;
mod beside;
mod copies;
mod emit;
mod experts;
mod group;
mod kernels;
mod pick;
mod place;
mod storage;
mod walk;
mod writer;

use crate::graph::{Graph, NodeId};
use crate::launches::Draft;
use crate::program::Program;
use crate::report::Report;
use crate::{Error, verify};
use std::collections::BTreeMap;

/// Lowers an optimised graph.
///
/// # Errors
///
/// [`Error::Verify`] for a graph that breaks its invariants, [`Error::Lower`] and [`Error::State`]
/// for what no kernel computes, [`Error::Program`] and [`Error::Fusion`] for sizes that a program
/// cannot have.
pub fn lower(graph: &Graph) -> Result<(Program, Report), Error> {
    let (mut draft, mut report) = written(graph)?;
    report.fusions = draft.fuse()?;
    let (program, kernels) = draft.finish();
    report.kernels = kernels;
    Ok((program, report))
}

/// Lowers an optimised graph to launches that no fusion has seen.
///
/// # Errors
///
/// As [`lower`].
pub fn unfused(graph: &Graph) -> Result<Draft, Error> {
    written(graph).map(|(draft, _)| draft)
}

/// The launches, and why results are stored.
fn written(graph: &Graph) -> Result<(Draft, Report), Error> {
    // A graph may come from anywhere, such as text; what follows relies on its invariants.
    verify(graph, "lower")?;
    let mut forced: BTreeMap<NodeId, &'static str> = BTreeMap::new();
    loop {
        let groups = group::Groups::new(graph, &forced);
        match walk::write(graph, &groups)? {
            walk::Outcome::Done(program, ops) => {
                let report = Report {
                    stored: groups.stored(graph, &forced),
                    ..Report::default()
                };
                return Ok((Draft::new(*program, ops)?, report));
            }
            walk::Outcome::Store(nodes) => {
                let before = forced.len();
                let first = nodes.first().copied();
                for (node, why) in nodes {
                    forced.entry(node).or_insert(why);
                }
                // What is stored already cannot be helped by storing it.
                if let (Some((node, why)), true) = (first, forced.len() == before) {
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
