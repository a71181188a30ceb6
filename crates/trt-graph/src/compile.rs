//! All stages behind the trace.

use crate::graph::Graph;
use crate::program::Program;
use crate::report::Report;
use crate::{Error, lower, passes};

/// Optimises and lowers a traced graph. What follows from weights alone is computed in every call: whoever can keep
/// weights takes the stages one by one, with [`passes::derive`] before the last.
///
/// # Errors
///
/// What [`passes::optimise`] and [`lower`](lower::lower) return.
pub fn compile(graph: Graph) -> Result<(Program, Report), Error> {
    let (graph, pass_notes) = passes::optimise(graph)?;
    let (program, mut report) = lower::lower(&graph)?;
    report.passes = pass_notes;
    Ok((program, report))
}
