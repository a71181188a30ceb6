//! The invariants of a graph, checked between any two passes.
//!
//! Here is what holds of every node and of the graph around them; [`ops`] says what holds of each op's
//! operands, shape and dtype.

mod layouts;
mod leaves;
mod ops;
mod picks;
mod site;

use crate::Error;
use crate::graph::Graph;
use trt_kernel::Var;

/// Checks order, arity, shapes and dtypes of every node; `pass` is named in the error.
///
/// # Errors
///
/// [`Error::Integers`] for an integer that cannot be computed, [`Error::Verify`] with the first node that is wrong, [`Error::State`] for a state whose next value
/// does not exist.
pub fn verify(graph: &Graph, pass: &'static str) -> Result<(), Error> {
    let all = graph.ints.len() + graph.floors.len();
    for (i, floor) in graph.floors.iter().enumerate() {
        let own = Var((graph.ints.len() + i).min(Var::MAX) as u8);
        if all > Var::MAX || floor.by < 2 || floor.of.vars().any(|v| v >= own) {
            return Err(Error::Integers { pass, integer: i });
        }
    }
    for id in graph.ids() {
        let node = graph.node(id);
        let fail = |what: String| Error::Verify {
            pass,
            node: id,
            op: node.op.name(),
            what,
        };
        if let Some(late) = node.inputs.iter().find(|i| **i >= id) {
            return Err(fail(format!("uses %{}, which is not earlier", late.0)));
        }
        ops::check(graph, node).map_err(fail)?;
    }
    let len = graph.nodes.len() as u32;
    for (state, s) in graph.states.iter().enumerate() {
        if s.update.0 >= len || graph.node(s.update).dtype != s.dtype {
            return Err(Error::State {
                state,
                what: format!("its update %{} does not exist as {}", s.update.0, s.dtype),
            });
        }
    }
    match graph.outputs.iter().find(|o| o.0 >= len) {
        Some(o) => Err(Error::Verify {
            pass,
            node: *o,
            op: "return".into(),
            what: "no such node".into(),
        }),
        None => Ok(()),
    }
}
