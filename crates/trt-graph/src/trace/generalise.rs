//! Many samples, one graph: anti-unification.
//!
//! Samples of a class have the same nodes with the same operands; only integers (sizes, starts)
//! and constants differ. Each differing integer must be one polynomial in the runtime
//! integers at all samples, each differing constant one of the families in [`super::literal`].

use super::fit;
use super::literal::{self, Family, Instance};
use super::profile::Class;
use super::sample::Sample;
use crate::Error;
use crate::graph::{Graph, InputDecl, Node, NodeId, Op, StateDecl};
use trt_kernel::{DType, Dim};

pub(super) fn generalise(class: &Class, samples: &[Sample]) -> Result<Graph, Error> {
    let g = Generaliser {
        class,
        points: samples.iter().map(|s| s.values.clone()).collect(),
        samples,
        all: class.calls() == Some(samples.len() as u64),
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
            return Err(differs(i, describe(x), describe(y)));
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

struct Generaliser<'a> {
    class: &'a Class,
    points: Vec<Vec<i64>>,
    samples: &'a [Sample],
    /// Whether the class has no other calls than the samples.
    all: bool,
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
            let shape = self.shape(i, "a size", |g| &g.nodes[i].shape)?;
            let inputs: Vec<NodeId> = node.inputs.iter().map(|x| ids[x.index()]).collect();
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
            let shape = self.shape(i, "a size of an input", |g| &g.inputs[i].shape)?;
            out.inputs.push(InputDecl {
                name: d.name.clone(),
                shape,
                dtype: d.dtype,
            });
        }
        for (i, s) in first.states.iter().enumerate() {
            let shape = self.shape(i, "a size of a state", |g| &g.states[i].shape)?;
            out.states.push(StateDecl {
                shape,
                dtype: s.dtype,
                update: ids[s.update.index()],
            });
        }
        out.outputs = first.outputs.iter().map(|o| ids[o.index()]).collect();
        Ok(out)
    }

    fn size(&self, node: usize, what: &str, value: impl Fn(&Graph) -> i64) -> Result<Dim, Error> {
        let values: Vec<i64> = self.samples.iter().map(|s| value(&s.graph)).collect();
        fit::polynomial(&self.points, &values, self.all).ok_or_else(|| Error::Size {
            node,
            op: self.samples[0]
                .graph
                .nodes
                .get(node)
                .map_or_else(String::new, describe),
            what: what.into(),
            values,
            points: self
                .points
                .iter()
                .map(|p| self.class.describe(p))
                .collect::<Vec<_>>()
                .join(", "),
        })
    }

    fn shape<'a>(
        &'a self,
        node: usize,
        what: &str,
        of: impl Fn(&'a Graph) -> &'a Vec<Dim>,
    ) -> Result<Vec<Dim>, Error> {
        let at = |g: &'a Graph, axis: usize| of(g)[axis].constant().unwrap_or(0);
        // The closure gets graphs of `self.samples`, so the lifetimes of both agree.
        (0..of(&self.samples[0].graph).len())
            .map(|axis| {
                let values: Vec<i64> = self.samples.iter().map(|s| at(&s.graph, axis)).collect();
                let index = std::cell::Cell::new(0);
                self.size(node, what, |_| {
                    let v = values[index.get()];
                    index.set(index.get() + 1);
                    v
                })
            })
            .collect()
    }

    /// The op with its integers generalised.
    fn op(&self, i: usize, op: &Op) -> Result<Op, Error> {
        let constant = |d: &Dim| d.constant().unwrap_or(0);
        Ok(match op {
            Op::Narrow { axis, .. } => {
                let start = self.size(i, "the start", |g| match &g.nodes[i].op {
                    Op::Narrow { start, .. } => constant(start),
                    _ => 0,
                })?;
                Op::Narrow { axis: *axis, start }
            }
            Op::Arange { step, .. } => {
                let start = self.size(i, "the start", |g| match &g.nodes[i].op {
                    Op::Arange { start, .. } => constant(start),
                    _ => 0,
                })?;
                Op::Arange { start, step: *step }
            }
            Op::Causal { window, .. } => {
                let offset = self.size(i, "the offset", |g| match &g.nodes[i].op {
                    Op::Causal { offset, .. } => constant(offset),
                    _ => 0,
                })?;
                let window = *window;
                Op::Causal { offset, window }
            }
            Op::Int(_) => Op::Int(self.size(i, "the value", |g| match &g.nodes[i].op {
                Op::Int(v) => constant(v),
                _ => 0,
            })?),
            Op::Within(_) => Op::Within(self.size(i, "the size", |g| match &g.nodes[i].op {
                Op::Within(v) => constant(v),
                _ => 0,
            })?),
            other => other.clone(),
        })
    }

    /// Replaces a constant by what generates it at every sample.
    fn constant(
        &self,
        out: &mut Graph,
        i: usize,
        shape: Vec<Dim>,
        dtype: DType,
    ) -> Result<NodeId, Error> {
        let instances: Vec<Instance<'_>> = self
            .samples
            .iter()
            .filter_map(|s| match &s.graph.nodes[i].op {
                Op::Const(literal) => {
                    let shape = s.graph.nodes[i]
                        .shape
                        .iter()
                        .filter_map(Dim::constant_size)
                        .collect();
                    Some(Instance { shape, literal })
                }
                _ => None,
            })
            .collect();
        let family =
            literal::recognise(&self.points, &instances, dtype).ok_or_else(|| Error::Constant {
                node: i,
                dtype: dtype.to_string(),
                shape: format!("{:?}", instances[0].shape),
            })?;
        Ok(match family {
            Family::Same(literal) => out.push(Node {
                op: Op::Const(literal),
                inputs: vec![],
                shape,
                dtype,
            }),
            Family::Fill(value) => fill(out, value, shape, dtype),
            Family::Arange { start, step } => {
                let len = Dim::product(&shape);
                let line = out.push(Node {
                    op: Op::Arange { start, step },
                    inputs: vec![],
                    shape: vec![len],
                    dtype,
                });
                out.push(Node {
                    op: Op::Reshape,
                    inputs: vec![line],
                    shape,
                    dtype,
                })
            }
            Family::Causal {
                op,
                hidden,
                visible,
            } => {
                let matrix = shape[shape.len() - 2..].to_vec();
                let mask = out.push(Node {
                    op,
                    inputs: vec![],
                    shape: matrix.clone(),
                    dtype: DType::U8,
                });
                let last = if dtype == DType::U8 && hidden == 1.0 && visible == 0.0 {
                    mask
                } else {
                    let a = fill(out, hidden, matrix.clone(), dtype);
                    let b = fill(out, visible, matrix.clone(), dtype);
                    out.push(Node {
                        op: Op::Where,
                        inputs: vec![mask, a, b],
                        shape: matrix,
                        dtype,
                    })
                };
                out.push(Node {
                    op: Op::Reshape,
                    inputs: vec![last],
                    shape,
                    dtype,
                })
            }
        })
    }
}

/// A value repeated over a shape.
fn fill(out: &mut Graph, value: f64, shape: Vec<Dim>, dtype: DType) -> NodeId {
    let op = match dtype.is_float() {
        true => Op::Float(value as f32),
        false => Op::Int(Dim::from(value as i64)),
    };
    let scalar = out.push(Node {
        op,
        inputs: vec![],
        shape: vec![],
        dtype,
    });
    let ones = vec![Dim::from(1); shape.len()];
    let point = out.push(Node {
        op: Op::Reshape,
        inputs: vec![scalar],
        shape: ones,
        dtype,
    });
    out.push(Node {
        op: Op::Broadcast,
        inputs: vec![point],
        shape,
        dtype,
    })
}

/// The op without the integers and data that may differ between samples.
fn shape_free(op: &Op) -> Op {
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

fn describe(node: &Node) -> String {
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
