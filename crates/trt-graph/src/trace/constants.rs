//! Constants that calls make: how large they may be, and what generates them: [`super::literal`] says which family one is
//! of.

use super::generalise::Generaliser;
use super::literal::{self, Family, Instance};
use super::profile::Class;
use super::sample::Sample;
use super::sizes::Sizes;
use crate::Error;
use crate::graph::{Graph, Node, NodeId, Op};
use trt_kernel::{DType, Dim};

/// Bytes of constants that one traced call may make.
pub(super) const CONSTANTS: u128 = 1 << 30;

/// Whether the constants that a call makes itself are not too large at a point, as they grow
/// between the near samples.
pub(super) fn affordable(class: &Class, near: &[Sample], point: &[i64]) -> Result<(), Error> {
    let points: Vec<Vec<i64>> = near.iter().map(|s| s.values.clone()).collect();
    let Some(first) = near.first() else {
        return Ok(());
    };
    let alike = |s: &Sample| {
        let ranks = |s: &Sample| s.constants.iter().map(|c| c.0.len()).collect::<Vec<_>>();
        ranks(s) == ranks(first)
    };
    if !near.iter().all(alike) {
        return Ok(());
    }
    let mut sizes = Sizes::new(class, points);
    let mut size = |i: usize, axis: usize| {
        let values = near.iter().map(|s| s.constants[i].0[axis] as i64);
        let size = sizes.find(&values.collect::<Vec<_>>(), Vec::new)?;
        u128::try_from(size.checked_eval(&sizes.env(point))?).ok()
    };
    let mut bytes: u128 = 0;
    for (i, (dims, width)) in first.constants.iter().enumerate() {
        let mut sizes = (0..dims.len()).map(|axis| size(i, axis));
        let elements = sizes.try_fold(1u128, |n, size| Some(n.saturating_mul(size?)));
        // Only constants that nothing uses can have sizes that do not grow evenly.
        bytes = bytes.saturating_add(elements.unwrap_or(0).saturating_mul(*width as u128));
    }
    match bytes > CONSTANTS {
        true => Err(Error::TooLarge {
            point: class.describe(point),
            bytes,
            most: CONSTANTS,
        }),
        false => Ok(()),
    }
}

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
