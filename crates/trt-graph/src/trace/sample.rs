//! One sample point: run the model up to it and take the last call as a graph.
//!
//! With a cache, a point `(past, seq)` is reached by calls that end at `past`, the last of them of
//! the same class, then the call itself. What that takes from the call before it is a state; the
//! tensor at the same place in its own list is the state's next value.

use super::profile::{Call, Class, Step};
use super::reach::{Stage, Way};
use crate::Error;
use crate::graph::{Graph, InputDecl, Node, NodeId, Op, StateDecl};
use crate::mirror::Tensor;
use crate::mirror::candle_nn::VarBuilder;
use crate::mirror::recorder::{Recording, Scope};
use std::collections::HashMap;
use trt_kernel::Dim;

/// The graph of a call at one point; all its dims are constant.
pub(super) struct Sample {
    pub values: Vec<i64>,
    pub graph: Graph,
    /// Shape and bytes of an element of each constant that the call made.
    pub constants: Vec<(Vec<usize>, usize)>,
}

impl Sample {
    /// Bytes of the constants that the call made.
    pub fn constant_bytes(&self) -> u128 {
        let bytes = |(shape, width): &(Vec<usize>, usize)| {
            let sizes = shape.iter().map(|n| *n as u128);
            sizes.fold(*width as u128, u128::saturating_mul)
        };
        self.constants
            .iter()
            .map(bytes)
            .fold(0, u128::saturating_add)
    }
}

pub(super) fn sample<S: Step>(
    load: &mut dyn FnMut(VarBuilder<'static>) -> candle_core::Result<S>,
    vb: &VarBuilder<'_>,
    class: &Class,
    point: &[i64],
    way: Way,
) -> Result<Sample, Error> {
    let scope = Scope::start();
    let mut model = load(vb.clone().owned()).map_err(|source| Error::Load { source })?;
    let mut journey = way.to(class, point);
    let mut last = None;
    while let Some(stage) = journey.next(&scope.made())? {
        // What a call returned is not what the model keeps.
        drop(last.take());
        match stage {
            Stage::Call(values) => {
                scope.next_call();
                let call = Call::new(class, values.clone());
                let outputs = model.step(&call).map_err(|source| Error::Model {
                    point: class.describe(&values),
                    source,
                })?;
                last = Some((outputs, call.inputs.into_inner()));
            }
            Stage::Resize { by, seq } => scope.resize_kept(by, seq),
        }
    }
    drop(model);
    let recording = scope.finish();
    let (outputs, inputs) = last.unwrap_or_default();
    let graph = extract(&recording, &outputs, &inputs, &class.describe(point))?;
    let constant = |t: &Tensor| match t.op() {
        Op::Const(_) => Some((t.dims().to_vec(), t.kernel_dtype().size())),
        _ => None,
    };
    let call = recording.calls.last();
    Ok(Sample {
        values: point.to_vec(),
        graph,
        constants: call.map_or_else(Vec::new, |c| c.iter().filter_map(constant).collect()),
    })
}

/// Tensors that the last call took from the one before it.
struct Found {
    /// Place in a call's list, in order of first use.
    places: Vec<usize>,
}

fn extract(
    rec: &Recording,
    outputs: &[Tensor],
    inputs: &[(String, Tensor)],
    point: &str,
) -> Result<Graph, Error> {
    let epoch = rec.calls.len().saturating_sub(1);
    let empty = Vec::new();
    let (call, before) = match epoch {
        0 => (&empty, &empty),
        1 => (&rec.calls[1], &empty),
        _ => (&rec.calls[epoch], &rec.calls[epoch - 1]),
    };
    let places: HashMap<u64, usize> = before
        .iter()
        .enumerate()
        .map(|(i, t)| (t.id(), i))
        .collect();
    let mut builder = Builder {
        epoch: epoch as u32,
        places: &places,
        ids: HashMap::new(),
        graph: Graph::default(),
        found: Found { places: Vec::new() },
    };
    for (name, t) in inputs {
        let (shape, dtype) = (dims(t), t.kernel_dtype());
        builder.graph.inputs.push(InputDecl {
            name: name.clone(),
            shape,
            dtype,
        });
    }
    for output in outputs {
        let id = builder.visit(output)?;
        builder.graph.outputs.push(id);
    }
    // A state's next value may need further states; the list grows while it is walked.
    let mut state = 0;
    while state < builder.found.places.len() {
        let place = builder.found.places[state];
        let missing = || Error::State {
            state,
            what: format!(
                "the call before {point} makes {} tensors and that call {}, so what one keeps is not \
                 found in the other: the model's control flow differs between them; split the profile \
                 where it changes",
                before.len(),
                call.len()
            ),
        };
        let next = call
            .get(place)
            .filter(|_| call.len() == before.len())
            .ok_or_else(missing)?;
        let old = &before[place];
        let update = builder.visit(next)?;
        let decl = StateDecl {
            shape: dims(old),
            dtype: old.kernel_dtype(),
            update,
        };
        builder.graph.states.push(decl);
        state += 1;
    }
    Ok(builder.graph)
}

fn dims(t: &Tensor) -> Vec<Dim> {
    t.dims().iter().map(|d| Dim::from(*d)).collect()
}

struct Builder<'a> {
    epoch: u32,
    places: &'a HashMap<u64, usize>,
    ids: HashMap<u64, NodeId>,
    graph: Graph,
    found: Found,
}

impl Builder<'_> {
    /// Adds a tensor and what it is made of, operands first.
    fn visit(&mut self, root: &Tensor) -> Result<NodeId, Error> {
        let mut stack = vec![(root.clone(), false)];
        while let Some((tensor, ready)) = stack.pop() {
            if self.ids.contains_key(&tensor.id()) {
                continue;
            }
            let state = tensor.epoch() != 0 && tensor.epoch() != self.epoch;
            if !ready && !state {
                stack.push((tensor.clone(), true));
                stack.extend(tensor.operands().iter().rev().map(|t| (t.clone(), false)));
                continue;
            }
            let (op, inputs) = match state {
                true => (Op::State(self.state(&tensor)?), vec![]),
                false => (
                    tensor.op().clone(),
                    tensor
                        .operands()
                        .iter()
                        .map(|t| self.ids[&t.id()])
                        .collect(),
                ),
            };
            let node = Node {
                op,
                inputs,
                shape: dims(&tensor),
                dtype: tensor.kernel_dtype(),
            };
            let id = self.graph.push(node);
            self.ids.insert(tensor.id(), id);
        }
        Ok(self.ids[&root.id()])
    }

    fn state(&mut self, tensor: &Tensor) -> Result<u32, Error> {
        let place = self.places.get(&tensor.id()).copied().ok_or_else(|| Error::State {
            state: self.found.places.len(),
            what: format!(
                "a tensor of shape {:?} was made {} calls ago; only what the previous call made can be kept",
                tensor.dims(),
                self.epoch.saturating_sub(tensor.epoch())
            ),
        })?;
        let found = &mut self.found.places;
        let index = found.iter().position(|p| *p == place).unwrap_or_else(|| {
            found.push(place);
            found.len() - 1
        });
        Ok(index as u32)
    }
}
