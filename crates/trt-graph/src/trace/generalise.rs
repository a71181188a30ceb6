//! Many samples, one graph: anti-unification.
//!
//! Samples of a class have the same nodes with the same operands; only integers (sizes, starts)
//! and constants differ. Each differing integer must be one function of the runtime integers at all
//! samples ([`super::sizes`]), each differing constant one of the families in [`super::literal`].

use super::profile::Class;
use super::sample::Sample;
use super::sizes::Sizes;
use crate::Error;
use crate::graph::{Graph, InputDecl, Node, NodeId, Op, StateDecl};
use std::cell::RefCell;
use trt_kernel::Dim;

pub(super) fn generalise(class: &Class, samples: &[Sample]) -> Result<Graph, Error> {
    let points = samples.iter().map(|s| s.values.clone()).collect();
    let g = Generaliser {
        class,
        sizes: RefCell::new(Sizes::new(class, points)),
        samples,
    };
    for other in samples.iter().skip(1) {
        same_structure(class, &samples[0], other)?;
    }
    g.run()
}

/// Two samples have the same nodes, up to integers and constants.
pub(super) fn same_structure(class: &Class, first: &Sample, other: &Sample) -> Result<(), Error> {
    let (a, b) = (&first.graph, &other.graph);
    let differs = |node: usize, left: String, right: String| Error::ControlFlow {
        a: class.describe(&first.values),
        b: class.describe(&other.values),
        node,
        left,
        right,
    };
    for (i, (x, y)) in a.nodes.iter().zip(&b.nodes).enumerate() {
        let same = shape_free(&x.op) == shape_free(&y.op)
            && x.inputs == y.inputs
            && x.dtype == y.dtype
            && x.shape.len() == y.shape.len();
        if !same {
            let lined = |node: &Node, s: &Sample| format!("{}{}", describe_node(node), s.line(i));
            return Err(differs(i, lined(x, first), lined(y, other)));
        }
    }
    if a.nodes.len() != b.nodes.len() {
        return Err(differs(
            a.nodes.len().min(b.nodes.len()),
            format!("{} nodes", a.nodes.len()),
            format!("{} nodes", b.nodes.len()),
        ));
    }
    if a.outputs != b.outputs || a.states.len() != b.states.len() {
        return Err(differs(
            0,
            format!("{} states", a.states.len()),
            format!("{} states", b.states.len()),
        ));
    }
    Ok(())
}

/// Samples that an error shows.
const SHOWN: usize = 16;

/// Where a number stands, for errors.
struct At {
    what: String,
    node: Option<usize>,
}

impl At {
    fn node(node: usize) -> At {
        At::number(node, "a size")
    }

    fn number(node: usize, what: &str) -> At {
        let (what, node) = (what.into(), Some(node));
        At { what, node }
    }

    fn declared(what: String) -> At {
        At { what, node: None }
    }
}

/// What a size of an op's result may be where it is no polynomial: elements that are joined or
/// regrouped, or the sum of what is joined.
fn likely(op: &Op, operands: &[&[Dim]]) -> Vec<Dim> {
    match (op, operands) {
        (Op::Reshape, [from]) => {
            let starts = 0..from.len();
            let runs = starts.flat_map(|a| (a + 2..=from.len()).map(move |b| &from[a..b]));
            runs.map(Dim::product).collect()
        }
        (Op::Cat(axis), all) => {
            let sizes = all.iter().filter_map(|shape| shape.get(*axis));
            vec![sizes.fold(Dim::from(0), |sum, size| &sum + size)]
        }
        _ => Vec::new(),
    }
}

pub(super) struct Generaliser<'a> {
    class: &'a Class,
    pub sizes: RefCell<Sizes<'a>>,
    pub samples: &'a [Sample],
}

impl Generaliser<'_> {
    fn run(&self) -> Result<Graph, Error> {
        let first = &self.samples[0].graph;
        let mut out = Graph {
            ints: self.class.ints.clone(),
            max_context: self.class.max_context,
            ..Graph::default()
        };
        let mut ids: Vec<NodeId> = Vec::with_capacity(first.nodes.len());
        for (i, node) in first.nodes.iter().enumerate() {
            let inputs: Vec<NodeId> = node.inputs.iter().map(|x| ids[x.index()]).collect();
            let operands = inputs.iter().map(|x| out.node(*x).shape.as_slice());
            let likely = likely(&node.op, &operands.collect::<Vec<_>>());
            let shape = self.shape(&At::node(i), &likely, |g| &g.nodes[i].shape)?;
            let id = match &node.op {
                Op::Const(_) => self.constant(&mut out, i, shape, node.dtype)?,
                op => {
                    let op = self.op(i, op)?;
                    out.push(Node {
                        op,
                        inputs,
                        shape,
                        dtype: node.dtype,
                    })
                }
            };
            ids.push(id);
        }
        for (i, d) in first.inputs.iter().enumerate() {
            let at = At::declared(format!("a size of input '{}'", d.name));
            let shape = self.shape(&at, &[], |g| &g.inputs[i].shape)?;
            out.inputs.push(InputDecl {
                name: d.name.clone(),
                shape,
                dtype: d.dtype,
            });
        }
        for (i, s) in first.states.iter().enumerate() {
            let at = At::declared(format!("a size of state {i}"));
            let shape = self.shape(&at, &[], |g| &g.states[i].shape)?;
            out.states.push(StateDecl {
                shape,
                dtype: s.dtype,
                update: ids[s.update.index()],
                initial: None,
                least: Vec::new(),
            });
        }
        out.outputs = first.outputs.iter().map(|o| ids[o.index()]).collect();
        out.floors = self.sizes.borrow().floors().to_vec();
        Ok(out)
    }

    /// A number that each sample has; it may be one of the likely ones.
    fn size(&self, at: &At, likely: &[Dim], value: impl Fn(&Graph) -> i64) -> Result<Dim, Error> {
        let values: Vec<i64> = self.samples.iter().map(|s| value(&s.graph)).collect();
        let mut sizes = self.sizes.borrow_mut();
        let found = sizes.find(&values, || likely.to_vec());
        found.ok_or_else(|| {
            let describe = |p: &Vec<i64>| self.class.describe(p);
            let node = at.node.map(|i| (i, &self.samples[0].graph.nodes[i]));
            let line = |i: usize| self.samples[0].line(i);
            let of = node.map(|(i, n)| format!(" of node {i} ({}{})", describe_node(n), line(i)));
            let shown = values.len().min(SHOWN);
            Error::Size {
                what: format!("{}{}", at.what, of.unwrap_or_default()),
                values: values[..shown].to_vec(),
                points: sizes.points()[..shown]
                    .iter()
                    .map(describe)
                    .collect::<Vec<_>>()
                    .join(", "),
            }
        })
    }

    fn shape(
        &self,
        at: &At,
        likely: &[Dim],
        of: impl Fn(&Graph) -> &Vec<Dim>,
    ) -> Result<Vec<Dim>, Error> {
        let axis = |axis: usize| {
            let size = |g: &Graph| of(g)[axis].constant().unwrap_or(0);
            self.size(at, likely, size)
        };
        (0..of(&self.samples[0].graph).len()).map(axis).collect()
    }

    /// The op with its integers generalised.
    fn op(&self, i: usize, op: &Op) -> Result<Op, Error> {
        let start = || {
            self.number(i, "the start", |op| match op {
                Op::Narrow { start, .. } | Op::Arange { start, .. } => Some(start),
                _ => None,
            })
        };
        let offset = || {
            self.number(i, "the offset", |op| match op {
                Op::Causal { offset, .. } => Some(offset),
                _ => None,
            })
        };
        let value = || {
            self.number(i, "the value", |op| match op {
                Op::Int(value) => Some(value),
                _ => None,
            })
        };
        let size = || {
            self.number(i, "the size", |op| match op {
                Op::Within(size) => Some(size),
                _ => None,
            })
        };
        Ok(match op {
            Op::Narrow { axis, .. } => Op::Narrow {
                axis: *axis,
                start: start()?,
            },
            Op::Arange { step, .. } => Op::Arange {
                start: start()?,
                step: *step,
            },
            Op::Causal { window, .. } => Op::Causal {
                offset: offset()?,
                window: *window,
            },
            Op::Int(_) => Op::Int(value()?),
            Op::Within(_) => Op::Within(size()?),
            other => other.clone(),
        })
    }

    /// An integer of an op.
    fn number(
        &self,
        node: usize,
        what: &str,
        of: impl Fn(&Op) -> Option<&Dim>,
    ) -> Result<Dim, Error> {
        let value = |g: &Graph| of(&g.nodes[node].op).and_then(Dim::constant).unwrap_or(0);
        self.size(&At::number(node, what), &[], value)
    }
}

/// The op without the integers and data that may differ between samples.
pub(super) fn shape_free(op: &Op) -> Op {
    match op {
        Op::Narrow { axis, .. } => Op::Narrow {
            axis: *axis,
            start: Dim::default(),
        },
        Op::Arange { step, .. } => Op::Arange {
            start: Dim::default(),
            step: *step,
        },
        Op::Causal { window, .. } => Op::Causal {
            offset: Dim::default(),
            window: *window,
        },
        Op::Int(_) => Op::Int(Dim::default()),
        Op::Within(_) => Op::Within(Dim::default()),
        Op::Const(_) => Op::Const(crate::graph::Literal::new(vec![])),
        other => other.clone(),
    }
}

fn describe_node(node: &Node) -> String {
    let dims: Vec<String> = node.shape.iter().map(Dim::to_string).collect();
    let inputs: Vec<String> = node.inputs.iter().map(|i| format!(" %{}", i.0)).collect();
    let value = match &node.op {
        Op::Float(v) => format!(" {v:?}"),
        _ => String::new(),
    };
    format!(
        "{}{value}{} : {}[{}]",
        node.op.name(),
        inputs.concat(),
        node.dtype,
        dims.join(", ")
    )
}
