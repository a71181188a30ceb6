//! How a derived weight is made: a graph over weights, and the name that it gives.

use super::super::rewrite::push;
use super::cost::Work;
use crate::graph::{Graph, Node, NodeId, Op};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use trt_kernel::{Dim, Encoding};

/// A weight that is made of others, once.
#[derive(Clone, Debug, PartialEq)]
pub struct Derived {
    name: Arc<str>,
    recipe: Recipe,
}

impl Derived {
    /// The largest of its sources, and a hash of all that decides its values.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// How it is made: a graph without inputs, states and runtime integers, with one result.
    pub fn graph(&self) -> &Graph {
        &self.recipe.graph
    }

    /// The node that is the weight: its shape is constant and its dtype a float.
    pub fn result(&self) -> &Node {
        self.graph().node(self.recipe.result())
    }
}

/// A part of a graph that depends on weights only, and has one output.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Recipe {
    graph: Graph,
}

impl Recipe {
    /// What a node of a graph is computed of.
    pub fn of(graph: &Graph, result: NodeId) -> Recipe {
        let mut needed = BTreeSet::from([result]);
        let mut stack = vec![result];
        while let Some(id) = stack.pop() {
            let inputs = graph.node(id).inputs.iter();
            stack.extend(inputs.filter(|i| needed.insert(**i)));
        }
        let mut ids = BTreeMap::new();
        let mut out = Graph::default();
        for id in needed {
            let mut node = graph.node(id).clone();
            // Operands come before what reads them.
            node.inputs.iter_mut().for_each(|i| *i = ids[i]);
            ids.insert(id, out.push(node));
        }
        out.outputs = vec![ids[&result]];
        Recipe { graph: out }
    }

    fn result(&self) -> NodeId {
        self.graph.outputs[0]
    }

    /// The same in the dtype of the weight where it only is read: a product reads a weight as it is stored.
    pub fn stored(mut self, work: Work) -> Recipe {
        if work != Work::Read {
            return self;
        }
        let mut ids: Vec<NodeId> = Vec::with_capacity(self.graph.nodes.len());
        let mut out = Graph::default();
        for mut node in std::mem::take(&mut self.graph.nodes) {
            node.inputs.iter_mut().for_each(|i| *i = ids[i.index()]);
            let read = node.inputs.first().copied();
            let id = match (&node.op, read) {
                (Op::Cast, Some(read)) if out.node(read).dtype.is_float() => read,
                (op, Some(read)) if op.is_view() || *op == Op::IndexSelect => {
                    node.dtype = out.node(read).dtype;
                    out.push(node)
                }
                _ => out.push(node),
            };
            ids.push(id);
        }
        out.outputs = vec![ids[self.result().index()]];
        Recipe { graph: out }
    }

    /// The rows of a matrix `[k, n]` as a matrix `[n, k]`.
    pub fn turned(mut self) -> Recipe {
        let result = self.result();
        let Node {
            op,
            inputs,
            shape,
            dtype,
        } = self.graph.node(result).clone();
        let columns = [shape[1].clone(), shape[0].clone()];
        let turn = Op::Permute(vec![1, 0]);
        self.graph.outputs = vec![match op == turn {
            true => inputs[0],
            false => push(&mut self.graph, turn, &[result], &columns, dtype),
        }];
        self
    }

    /// Bytes of the result.
    pub fn bytes(&self) -> usize {
        let Node { shape, dtype, .. } = self.graph.node(self.result());
        bytes(shape, (*dtype).into())
    }

    /// Bytes of the weights that it is made of.
    pub fn sources(&self) -> usize {
        let all = self.weights().map(|(_, bytes)| bytes);
        all.fold(0, usize::saturating_add)
    }

    /// The weights that it is made of, each once, with their bytes.
    fn weights(&self) -> impl Iterator<Item = (&str, usize)> {
        let mut seen = BTreeSet::new();
        self.graph.nodes.iter().filter_map(move |node| {
            let Op::Weight(name, encoding) = &node.op else {
                return None;
            };
            let first = seen.insert(name);
            first.then(|| (&**name, bytes(&node.shape, *encoding)))
        })
    }

    pub fn is_float(&self) -> bool {
        self.graph.node(self.result()).dtype.is_float()
    }

    /// The weight, by its name. What comes after the result is no part of it.
    pub fn finish(mut self) -> Derived {
        self.graph.nodes.truncate(self.result().index() + 1);
        let largest = self.weights().max_by_key(|(_, bytes)| *bytes);
        let largest = largest.map_or("weight", |(name, _)| name);
        let name = format!("{largest}.derived.{:032x}", hash(&self.graph)).into();
        Derived { name, recipe: self }
    }
}

fn bytes(shape: &[Dim], encoding: Encoding) -> usize {
    let sizes: Option<Vec<usize>> = shape.iter().map(Dim::constant_size).collect();
    let count = |sizes: Vec<usize>| {
        let (columns, lead) = sizes.split_last().map_or((1, &[][..]), |(c, l)| (*c, l));
        let row = encoding.row_bytes(columns)?;
        lead.iter().try_fold(row, |n, d| n.checked_mul(*d))
    };
    sizes.and_then(count).unwrap_or(usize::MAX)
}

/// A hash of all that decides the values: the text, and constants that it does not spell out. FNV-1a of 128 bits:
/// stable across runs, platforms and versions.
fn hash(graph: &Graph) -> u128 {
    let mix = |hash: u128, bytes: &[u8]| {
        let step = |h: u128, b: &u8| (h ^ u128::from(*b)).wrapping_mul((1 << 88) + 0x13b);
        bytes.iter().fold(hash, step)
    };
    let text = mix(
        0x6c62_272e_07bb_0142_62b8_2175_6295_c58d,
        graph.to_string().as_bytes(),
    );
    graph.nodes.iter().fold(text, |hash, node| match &node.op {
        Op::Const(literal) => mix(hash, &literal.bytes),
        _ => hash,
    })
}
