//! A constant of the samples as what generates it: [`super::literal`] says which family it is of.

use super::generalise::Generaliser;
use super::literal::{self, Family, Instance};
use crate::Error;
use crate::graph::{Graph, Node, NodeId, Op};
use trt_kernel::{DType, Dim};

impl Generaliser<'_> {
    /// Replaces a constant by what generates it at every sample.
    pub(super) fn constant(
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
        let sizes = self.sizes.borrow();
        let unknown = || Error::Constant {
            node: i,
            dtype: dtype.to_string(),
            shape: format!("{:?}", instances[0].shape),
            line: self.samples[0].line(i),
        };
        let family = literal::recognise(sizes.points(), &instances, dtype).ok_or_else(unknown)?;
        Ok(match family {
            Family::Relative(f) => f.spell(out, shape, dtype).ok_or_else(unknown)?,
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
