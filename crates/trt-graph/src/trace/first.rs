//! The first call: one program serves it too, or tracing fails.
//!
//! Before the first call there is no state; model code then takes the new part alone where later
//! it joins the old part to it. A state of length 0 means the same, so the generalised graph at
//! `past = 0` must compute what the first call's own trace computes. It is compared node by
//! node, reading `cat(empty, x)` as `x`, passing over layout ops without effect, and constants by value.

use super::profile::Class;
use crate::Error;
use crate::graph::{Graph, Node, NodeId, Op};
use crate::reference;
use std::collections::HashSet;
use trt_kernel::{Dim, Env};

/// Checks a general graph against the first call's trace at the integers of `env`.
pub(super) fn check(general: &Graph, first: &Graph, env: &Env, class: &Class) -> Result<(), Error> {
    let mut seen = HashSet::new();
    let mut stack: Vec<(NodeId, NodeId)> = general
        .outputs
        .iter()
        .copied()
        .zip(first.outputs.iter().copied())
        .collect();
    while let Some((a, b)) = stack.pop() {
        let (a, b) = (effective(general, a, env), effective(first, b, env));
        if !seen.insert((a, b)) {
            continue;
        }
        let (x, y) = (general.node(a), first.node(b));
        let shape = |n: &Node| n.shape.iter().map(|d| d.eval(env)).collect::<Vec<_>>();
        let same_kind = shape(x) == shape(y) && x.dtype == y.dtype;
        if same_kind && matches!(y.op, Op::Const(_)) && by_value(general, a, first, b, env) {
            continue;
        }
        if !same_kind || at(&x.op, env) != at(&y.op, env) || x.inputs.len() != y.inputs.len() {
            return Err(Error::ControlFlow {
                a: format!("the first call of {}", class.name),
                b: "later calls".into(),
                node: b.index(),
                left: format!("{} {:?}", y.op.name(), shape(y)),
                right: format!("{} {:?}", x.op.name(), shape(x)),
            });
        }
        stack.extend(x.inputs.iter().copied().zip(y.inputs.iter().copied()));
    }
    Ok(())
}

/// The node whose value this one merely repeats: behind a join with empty parts, and behind a
/// reshape or broadcast to the shape that its operand already has (which the first call's trace
/// does not contain).
fn effective(g: &Graph, mut id: NodeId, env: &Env) -> NodeId {
    loop {
        let node = g.node(id);
        let sizes = |n: &Node| n.shape.iter().map(|d| d.eval(env)).collect::<Vec<_>>();
        match node.op {
            Op::Cat(axis) => {
                let filled = |i: &&NodeId| g.node(**i).shape[axis].eval(env) != 0;
                let mut parts = node.inputs.iter().filter(filled);
                match (parts.next(), parts.next()) {
                    (Some(only), None) => id = *only,
                    _ => return id,
                }
            }
            Op::Reshape | Op::Broadcast if sizes(node) == sizes(g.node(node.inputs[0])) => {
                id = node.inputs[0];
            }
            _ => return id,
        }
    }
}

/// The op with its integers at one call.
fn at(op: &Op, env: &Env) -> Op {
    let fix = |d: &Dim| Dim::from(d.eval(env));
    match op {
        Op::Narrow { axis, start } => Op::Narrow {
            axis: *axis,
            start: fix(start),
        },
        Op::Arange { start, step } => Op::Arange {
            start: fix(start),
            step: *step,
        },
        Op::Causal { offset, window } => Op::Causal {
            offset: fix(offset),
            window: *window,
        },
        Op::Int(d) => Op::Int(fix(d)),
        Op::Within(d) => Op::Within(fix(d)),
        other => other.clone(),
    }
}

/// Whether two constants have the same elements. Masks of long calls have many, so elements are
/// made one at a time where that can be.
fn by_value(general: &Graph, a: NodeId, first: &Graph, b: NodeId, env: &Env) -> bool {
    let Op::Const(literal) = &first.node(b).op else {
        return false;
    };
    let dtype = first.node(b).dtype;
    let given = |i: usize| reference::element(&literal.bytes, i, dtype);
    let n = literal.bytes.len() / dtype.size();
    if let Some(of) = Elements::of(general, a, env) {
        let same = |i: usize| {
            let (x, y) = (reference::round(of.at(i), dtype), given(i));
            y.is_some_and(|y| x.to_bits() == y.to_bits())
        };
        return (0..n).all(same);
    }
    let computed = reference::constant(general, a, env);
    computed.is_some_and(|x| {
        let same = |(i, x): (usize, &f64)| given(i).is_some_and(|y| x.to_bits() == y.to_bits());
        x.data.len() == n && x.data.iter().enumerate().all(same)
    })
}

/// The elements of what recognised constants are made of.
enum Elements {
    Fill(f64),
    Range {
        start: i64,
        step: i64,
    },
    Hidden {
        keys: usize,
        offset: i64,
        window: Option<usize>,
    },
    Choice(Box<[Elements; 3]>),
}

impl Elements {
    fn of(g: &Graph, id: NodeId, env: &Env) -> Option<Elements> {
        let node = g.node(id);
        let input = |i: usize| Elements::of(g, *node.inputs.get(i)?, env);
        Some(match &node.op {
            Op::Float(v) => Elements::Fill(f64::from(*v)),
            Op::Int(d) => Elements::Fill(d.checked_eval(env)? as f64),
            Op::Arange { start, step } => Elements::Range {
                start: start.checked_eval(env)?,
                step: *step,
            },
            Op::Causal { offset, window } => Elements::Hidden {
                keys: node.shape.get(1)?.size(env).max(1),
                offset: offset.checked_eval(env)?,
                window: *window,
            },
            Op::Where => Elements::Choice(Box::new([input(0)?, input(1)?, input(2)?])),
            Op::Reshape => input(0)?,
            Op::Broadcast => match input(0)? {
                Elements::Fill(v) => Elements::Fill(v),
                Elements::Range { .. } | Elements::Hidden { .. } | Elements::Choice(_) => {
                    return None;
                }
            },
            _ => return None,
        })
    }

    fn at(&self, i: usize) -> f64 {
        match self {
            Elements::Fill(v) => *v,
            Elements::Range { start, step } => (start + step * i as i64) as f64,
            Elements::Hidden {
                keys,
                offset,
                window,
            } => f64::from(u8::from(reference::hidden(
                i / keys,
                i % keys,
                *offset,
                *window,
            ))),
            Elements::Choice(parts) => match parts[0].at(i) != 0.0 {
                true => parts[1].at(i),
                false => parts[2].at(i),
            },
        }
    }
}
