//! Dead nodes go, equal nodes become one.

use super::rewrite::rebuild;
use crate::graph::{Graph, NodeId};
use std::collections::HashMap;

pub(super) fn run(graph: Graph) -> Graph {
    let mut live = vec![false; graph.nodes.len()];
    graph.roots().for_each(|r| live[r.index()] = true);
    for id in graph.ids().collect::<Vec<_>>().into_iter().rev() {
        if live[id.index()] {
            graph
                .node(id)
                .inputs
                .iter()
                .for_each(|i| live[i.index()] = true);
        }
    }
    let mut seen: HashMap<String, Vec<NodeId>> = HashMap::new();
    rebuild(&graph, |out, id, node| {
        if !live[id.index()] {
            // Nothing refers to it: any id will do.
            return NodeId(0);
        }
        let key = format!("{}{:?}", node.op.name(), node.inputs);
        let candidates = seen.entry(key).or_default();
        if let Some(same) = candidates.iter().find(|c| *out.node(**c) == node) {
            return *same;
        }
        let new = out.push(node);
        candidates.push(new);
        new
    })
}
