//! Constant tables keep only the rows that the profile can reach.
//!
//! Rotary tables are made for the model's longest context; a profile that ends earlier narrows
//! them only within its own bound. That holds for stored tables and for those that are spelled in
//! ops: the cosine of `arange(0, 1 000 000) x frequencies` needs the leading rows of its operands
//! only, so the whole expression shrinks, before anything of it is computed.

use super::rewrite::{push, rebuild};
use crate::graph::{Graph, Literal, Node, NodeId, Op};
use trt_kernel::Dim;

pub(super) fn run(graph: Graph) -> Graph {
    let cut = cut(&graph);
    rebuild(&graph, |out, id, node| match cut[id.index()] {
        Some(rows) => shortened(out, &graph, id, node, rows),
        None => out.push(node),
    })
}

/// For each node that is made with fewer rows than it has: how many.
fn cut(graph: &Graph) -> Vec<Option<i64>> {
    let divisible = divisible(graph);
    let users = graph.users();
    let mut kept = vec![false; graph.nodes.len()];
    graph.roots().for_each(|root| kept[root.index()] = true);
    // Rows that are read of each node, users first.
    let mut needed = vec![0; graph.nodes.len()];
    for id in graph.ids().collect::<Vec<_>>().into_iter().rev() {
        let Some(all) = rows(graph.node(id)).filter(|_| !kept[id.index()]) else {
            needed[id.index()] = i64::MAX;
            continue;
        };
        let read = |user: &NodeId| {
            let node = graph.node(*user);
            match &node.op {
                Op::Narrow { axis: 0, start } => graph.bound(&(start + &node.shape[0])),
                _ if divisible[user.index()] => {
                    let mut places = node.inputs.iter().enumerate().filter(|(_, i)| **i == id);
                    let whole = |(place, _)| !by_rows(graph, node, place);
                    match places.any(whole) {
                        true => all,
                        false => needed[user.index()],
                    }
                }
                _ => all,
            }
        };
        needed[id.index()] = users[id.index()].iter().map(read).max().unwrap_or(all);
    }
    let fewer = |id: NodeId| {
        let all = rows(graph.node(id))?;
        let rows = needed[id.index()];
        (divisible[id.index()] && 0 < rows && rows < all).then_some(rows)
    };
    graph.ids().map(fewer).collect()
}

fn rows(node: &Node) -> Option<i64> {
    node.shape.first()?.constant()
}

/// Constant nodes whose leading rows can be made from the leading rows of their operands.
fn divisible(graph: &Graph) -> Vec<bool> {
    let mut constant = Vec::with_capacity(graph.nodes.len());
    let mut divisible = Vec::with_capacity(graph.nodes.len());
    for id in graph.ids() {
        let node = graph.node(id);
        let fixed = node.shape.iter().all(|d| d.constant().is_some())
            && node.inputs.iter().all(|i| constant[i.index()]);
        let (by_rows, leaf) = match &node.op {
            Op::Input(_) | Op::Weight(..) | Op::State(_) => (false, false),
            Op::Const(_) | Op::Arange { .. } => (true, true),
            Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Where => (true, true),
            Op::Cast | Op::Within(_) => (true, true),
            Op::Broadcast => (true, true),
            Op::Reshape => (rows(node) == rows(graph.node(node.inputs[0])), true),
            Op::Permute(perm) => (perm.first() == Some(&0), true),
            Op::Narrow { axis, .. } | Op::Cat(axis) | Op::Reduce(_, axis) => (*axis != 0, true),
            Op::Softmax => (node.shape.len() > 1, true),
            Op::Matmul => (node.shape.len() == 2, true),
            Op::Float(_) | Op::Int(_) | Op::Causal { .. } | Op::IndexSelect => (false, true),
            Op::Gather(_) | Op::ArgSort { .. } | Op::Experts => (false, true),
            Op::Unfold { .. } | Op::Pad(_) | Op::Append(_) => (false, true),
            Op::Rope | Op::Attention(_) => (false, true),
        };
        constant.push(fixed && leaf);
        divisible.push(fixed && by_rows && rows(node).is_some());
    }
    divisible
}

/// Whether row `i` of a node comes from row `i` of the operand at a place: not where one row serves
/// all, and not for the right side of a product.
fn by_rows(graph: &Graph, node: &Node, place: usize) -> bool {
    match &node.op {
        Op::Matmul => place == 0,
        Op::Broadcast => rows(node) == rows(graph.node(node.inputs[place])),
        _ => true,
    }
}

/// The first rows of a node, from the first rows of its operands.
fn shortened(out: &mut Graph, before: &Graph, id: NodeId, node: Node, rows: i64) -> NodeId {
    let mut shape = node.shape.clone();
    shape[0] = Dim::from(rows);
    let op = match &node.op {
        Op::Const(literal) => {
            let row: usize = shape[1..].iter().filter_map(Dim::constant_size).product();
            let bytes = rows as usize * row * node.dtype.size();
            Op::Const(Literal::new(literal.bytes[..bytes].to_vec()))
        }
        op => op.clone(),
    };
    let inputs: Vec<NodeId> = (node.inputs.iter().enumerate())
        .map(|(place, new)| {
            let operand = out.node(*new).clone();
            if !by_rows(before, before.node(id), place) || operand.shape[0].is(rows) {
                return *new;
            }
            let mut first = operand.shape;
            first[0] = Dim::from(rows);
            let op = Op::Narrow {
                axis: 0,
                start: Dim::from(0),
            };
            push(out, op, &[*new], &first, operand.dtype)
        })
        .collect();
    push(out, op, &inputs, &shape, node.dtype)
}
