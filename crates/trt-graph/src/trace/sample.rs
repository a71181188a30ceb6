//! One sample point: run the model up to it and take the last call as a graph.
//!
//! With a cache, a point `(past, seq)` is reached by calls that end at `past`, the last of them of
//! the same class, then the call itself. What that takes of earlier calls is a state of the plan, and so is
//! what it leaves; that the plan names the very tensor which earlier calls left is looked at in each sample.

use super::calls::{Calls, Port};
use super::profile::{Call, Class, Step};
use super::reach::{Stage, Way};
use super::states::{Rule, States};
use crate::Error;
use crate::graph::{Graph, InputDecl, Node, NodeId, Op, StateDecl};
use crate::line::{self, Line};
use crate::mirror::Tensor;
use crate::mirror::candle_nn::VarBuilder;
use crate::mirror::recorder::{Recording, Scope};
use std::collections::HashMap;
use trt_kernel::Dim;

/// A class of a profile and what it does to the profile's states.
#[derive(Clone, Copy)]
pub(super) struct Of<'a> {
    pub class: &'a Class,
    pub index: usize,
    pub states: &'a States,
}

/// The graph of a call at one point; all its dims are constant.
pub(super) struct Sample {
    pub values: Vec<i64>,
    pub graph: Graph,
    /// The lines of model code that made nodes.
    lines: HashMap<NodeId, Line>,
    /// Shape and bytes of an element of each constant that the call made.
    pub constants: Vec<(Vec<usize>, usize)>,
}

impl Sample {
    /// The line of model code that made a node, where it is known.
    pub fn line(&self, node: usize) -> Line {
        let id = u32::try_from(node).ok().map(NodeId);
        id.and_then(|id| self.lines.get(&id).copied())
            .unwrap_or_default()
    }

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
    of: Of<'_>,
    point: &[i64],
    way: Way,
) -> Result<Sample, Error> {
    let class = of.class;
    let scope = Scope::start();
    line::forget();
    let mut model = load(vb.clone().owned()).map_err(|source| Error::Load {
        line: line::last(),
        source,
    })?;
    let mut journey = way.to(class, point);
    let mut last = None;
    while let Some(stage) = journey.next(&scope.made())? {
        // What a call returned is not what the model keeps.
        drop(last.take());
        match stage {
            Stage::Call(values) => {
                scope.next_call();
                let call = Call::new(class, values.clone());
                line::forget();
                let outputs = model.step(&call).map_err(|source| Error::Model {
                    line: line::last(),
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
    let (graph, lines) = {
        let calls = Calls::of(&recording);
        let given = inputs.iter().map(|(name, t)| InputDecl {
            name: name.clone(),
            shape: dims(t),
            dtype: t.kernel_dtype(),
        });
        let mut graph = Graph {
            inputs: given.collect(),
            ..Graph::default()
        };
        let builder = Builder::new(&recording, &calls, of, &mut graph);
        let lines = builder.run(&outputs, &class.describe(point))?;
        (graph, lines)
    };
    let constant = |t: &Tensor| match t.op() {
        Op::Const(_) => Some((t.dims().to_vec(), t.kernel_dtype().size())),
        _ => None,
    };
    let call = recording.calls.last();
    Ok(Sample {
        values: point.to_vec(),
        graph,
        lines,
        constants: call.map_or_else(Vec::new, |c| c.iter().filter_map(constant).collect()),
    })
}

fn dims(t: &Tensor) -> Vec<Dim> {
    t.dims().iter().map(|d| Dim::from(*d)).collect()
}

/// What is in a state before a call, where all calls before it are of its class.
enum Before {
    /// What a call made.
    Made(Tensor),
    /// It was handed on from the start: if it was made, then by the first of all calls.
    Nothing,
    /// The calls are too different to tell.
    Lost,
}

/// Makes a graph of the last call of a recording.
struct Builder<'a> {
    calls: &'a Calls,
    /// The last call.
    call: usize,
    of: Of<'a>,
    ids: HashMap<u64, NodeId>,
    /// The node that reads a state, and the shape of what is in it.
    states: HashMap<usize, (NodeId, Vec<Dim>)>,
    lines: HashMap<NodeId, Line>,
    graph: &'a mut Graph,
}

impl<'a> Builder<'a> {
    fn new(rec: &Recording, calls: &'a Calls, of: Of<'a>, graph: &'a mut Graph) -> Builder<'a> {
        Builder {
            calls,
            call: rec.calls.len().saturating_sub(1),
            of,
            ids: HashMap::new(),
            states: HashMap::new(),
            lines: HashMap::new(),
            graph,
        }
    }

    fn run(mut self, outputs: &[Tensor], point: &str) -> Result<HashMap<NodeId, Line>, Error> {
        for (i, output) in outputs.iter().enumerate() {
            let id = self.visit(output, Port::Output(i), point)?;
            self.graph.outputs.push(id);
        }
        for (state, rule) in self.of.states.rules(self.of.index).iter().enumerate() {
            let (update, left) = match rule {
                Rule::Made(at) => {
                    let list = self.calls.list(self.call);
                    let made = list.get(*at).ok_or_else(|| self.lost(state, point))?;
                    let port = Port::Operand { at: *at, index: 0 };
                    (self.visit(made, port, point)?, dims(made))
                }
                Rule::Kept(other) => {
                    let id = self.held(*other, point)?;
                    (id, self.graph.node(id).shape.clone())
                }
            };
            // Whoever has never read a state may find one of any size.
            let shape = match (self.states.get(&state), self.before(state)) {
                (Some((_, shape)), _) => shape.clone(),
                (None, Before::Made(tensor)) => dims(&tensor),
                (None, Before::Nothing | Before::Lost) => left,
            };
            let dtype = self.graph.node(update).dtype;
            self.graph.states.push(StateDecl {
                shape,
                dtype,
                update,
                initial: None,
                least: Vec::new(),
            });
        }
        Ok(self.lines)
    }

    /// Adds a tensor and what it is made of, operands first.
    fn visit(&mut self, root: &Tensor, port: Port, point: &str) -> Result<NodeId, Error> {
        let mut stack = vec![(root.clone(), port, false)];
        while let Some((tensor, port, ready)) = stack.pop() {
            if self.ids.contains_key(&tensor.id()) {
                continue;
            }
            let place = self.calls.place(&tensor);
            if place.is_some_and(|p| p.call != self.call) {
                let id = self.read(&tensor, port, point)?;
                self.ids.insert(tensor.id(), id);
                continue;
            }
            if !ready {
                stack.push((tensor.clone(), port, true));
                let at = place.map_or(0, |p| p.at);
                let operands = tensor.operands().iter().enumerate().rev();
                let port = |index| Port::Operand { at, index };
                stack.extend(operands.map(|(i, t)| (t.clone(), port(i), false)));
                continue;
            }
            let operands = tensor.operands().iter();
            let node = Node {
                op: tensor.op().clone(),
                inputs: operands.map(|t| self.ids[&t.id()]).collect(),
                shape: dims(&tensor),
                dtype: tensor.kernel_dtype(),
            };
            let id = self.graph.push(node);
            self.lines.insert(id, tensor.line());
            self.ids.insert(tensor.id(), id);
        }
        Ok(self.ids[&root.id()])
    }

    /// The node of what an earlier call made: a state, if that is what the plan says.
    fn read(&mut self, tensor: &Tensor, port: Port, point: &str) -> Result<NodeId, Error> {
        let state = self.of.states.at(self.of.index, port);
        let state = state.ok_or_else(|| self.lost(self.states.len(), point))?;
        let same = match self.before(state) {
            Before::Made(before) => before.id() == tensor.id(),
            Before::Nothing => self.calls.place(tensor).is_some_and(|p| p.call == 1),
            Before::Lost => false,
        };
        if !same {
            return Err(self.lost(state, point));
        }
        Ok(self.state(state, tensor))
    }

    fn state(&mut self, state: usize, tensor: &Tensor) -> NodeId {
        if let Some((id, _)) = self.states.get(&state) {
            return *id;
        }
        let id = self.graph.push(Node {
            op: Op::State(state as u32),
            inputs: Vec::new(),
            shape: dims(tensor),
            dtype: tensor.kernel_dtype(),
        });
        self.states.insert(state, (id, dims(tensor)));
        id
    }

    /// The node of a state that is handed on.
    fn held(&mut self, state: usize, point: &str) -> Result<NodeId, Error> {
        if let Some((id, _)) = self.states.get(&state) {
            return Ok(*id);
        }
        match self.before(state) {
            Before::Made(tensor) => Ok(self.state(state, &tensor)),
            Before::Nothing => Err(Error::State {
                state,
                what: format!("{point} keeps what no call before it has made"),
            }),
            Before::Lost => Err(self.lost(state, point)),
        }
    }

    /// What is in a state before the last call.
    fn before(&self, mut state: usize) -> Before {
        let alike = self.calls.list(self.call).len();
        for call in (1..self.call).rev() {
            match self.of.states.rules(self.of.index).get(state) {
                Some(Rule::Kept(other)) => state = *other,
                Some(Rule::Made(at)) => {
                    let list = self.calls.list(call);
                    return match list.get(*at).filter(|_| list.len() == alike) {
                        Some(tensor) => Before::Made(tensor.clone()),
                        None => Before::Lost,
                    };
                }
                None => return Before::Lost,
            }
        }
        Before::Nothing
    }

    fn lost(&self, state: usize, point: &str) -> Error {
        let made = |call: usize| self.calls.list(call).len();
        Error::State {
            state,
            what: format!(
                "the call before {point} makes {} tensors that depend on inputs and that call {}, so what one \
                 keeps is not found in the other: the model's control flow differs between them; split the \
                 profile where it changes",
                made(self.call.saturating_sub(1)),
                made(self.call)
            ),
        }
    }
}
