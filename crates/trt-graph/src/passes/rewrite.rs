//! Rebuilding a graph node by node.

use crate::graph::{Graph, Node, NodeId, Op};
use trt_kernel::{DType, Dim};

/// Rebuilds a graph in order. `rule` gets the graph built so far and the next node with its
/// inputs already renamed, and returns the id that stands for it, having pushed what it needs.
pub(super) fn rebuild(
    graph: &Graph,
    mut rule: impl FnMut(&mut Graph, NodeId, Node) -> NodeId,
) -> Graph {
    let mut out = Graph {
        nodes: Vec::with_capacity(graph.nodes.len()),
        states: graph.states.clone(),
        inputs: graph.inputs.clone(),
        ints: graph.ints.clone(),
        floors: graph.floors.clone(),
        outputs: Vec::new(),
        max_context: graph.max_context,
    };
    let mut ids: Vec<NodeId> = Vec::with_capacity(graph.nodes.len());
    for id in graph.ids() {
        let mut node = graph.node(id).clone();
        node.inputs.iter_mut().for_each(|i| *i = ids[i.index()]);
        let new = rule(&mut out, id, node);
        ids.push(new);
    }
    out.outputs = graph.outputs.iter().map(|o| ids[o.index()]).collect();
    out.states
        .iter_mut()
        .for_each(|s| s.update = ids[s.update.index()]);
    out
}

/// Pushes a node from parts.
pub(super) fn push(
    g: &mut Graph,
    op: Op,
    inputs: &[NodeId],
    shape: &[Dim],
    dtype: DType,
) -> NodeId {
    g.push(Node {
        op,
        inputs: inputs.to_vec(),
        shape: shape.to_vec(),
        dtype,
    })
}
