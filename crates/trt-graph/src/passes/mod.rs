//! From the traced graph to the graph that is lowered, one pass a file.
//!
//! Each pass takes a graph and returns one that means the same; [`crate::verify`] runs between
//! any two. Goldens show what each does.

mod append;
mod attention;
mod canonical;
mod channels;
mod clean;
mod derive;
mod expand;
mod fold;
mod matching;
mod rewrite;
mod rope;
mod softmax;
mod sort;
mod trim;
mod weight_rows;

pub use derive::{Derived, derive};

use crate::graph::Graph;
use crate::report::PassNote;
use crate::{Error, verify};

/// A pass by name.
pub type Pass = (&'static str, fn(Graph) -> Graph);

/// All passes in order.
pub const PASSES: &[Pass] = &[
    ("append", append::run),
    ("canonical", canonical::run),
    ("clean", clean::run),
    ("rope", rope::run),
    ("softmax", softmax::run),
    ("attention", attention::run),
    ("trim", trim::run),
    ("fold", fold::run),
    ("expand", expand::run),
    ("trim", trim::run),
    ("canonical", canonical::run),
    ("channels", channels::run),
    ("canonical", canonical::run),
    ("clean", clean::run),
];

/// Runs every pass with `verify` in between.
///
/// # Errors
///
/// [`Error::Verify`] or [`Error::State`], which name the pass whose graph breaks the invariants.
pub fn optimise(mut graph: Graph) -> Result<(Graph, Vec<PassNote>), Error> {
    let mut notes = Vec::with_capacity(PASSES.len());
    for (pass, run) in PASSES {
        let before = graph.nodes.len();
        graph = run(graph);
        verify(&graph, pass)?;
        notes.push(PassNote {
            pass,
            before,
            after: graph.nodes.len(),
        });
    }
    Ok((graph, notes))
}
