//! Calls as they were recorded, against the graphs: one program serves every call, or tracing fails.
//!
//! A state before a call is the update of the call before it, and before the first call it is its initial value
//! or has no elements. So graphs that are chained by their states must compute what a recording of the
//! same calls computes, however model code kept it: joined to nothing at first, in a ring, made
//! once. Both are compared node by node from the results down, reading `cat(empty, x)` as `x`, passing
//! over layout ops without effect, and constants by value. A constant that the first call has in place
//! of a state is the state's initial value.

use super::profile::Class;
use super::tour::Tour;
use crate::Error;
use crate::graph::{Graph, Literal, Node, NodeId, Op};
use crate::mirror::Tensor;
use crate::reference;
use std::collections::{HashMap, HashSet};
use trt_kernel::{Dim, Env};

/// A recorded call.
struct Recorded {
    class: usize,
    values: Vec<i64>,
    outputs: Vec<NodeId>,
}

/// Recorded calls as one graph, without states.
pub(super) struct History {
    graph: Graph,
    /// The call that made a node.
    made: Vec<usize>,
    /// Call 1 is the first.
    calls: Vec<Recorded>,
}

/// What the classes' states begin with, as far as it is known.
pub(super) type Initials = Vec<Option<Literal>>;

impl History {
    /// The calls of a tour up to where it was told what is kept.
    pub fn of(tour: &Tour) -> History {
        let mut history = History {
            graph: Graph::default(),
            made: Vec::new(),
            calls: Vec::new(),
        };
        let mut ids = HashMap::new();
        for stop in tour.stops.iter().take(tour.natural) {
            let outputs = stop.outputs.iter().map(|t| history.add(t, &mut ids));
            let outputs = outputs.collect();
            history.calls.push(Recorded {
                class: stop.class,
                values: stop.values.clone(),
                outputs,
            });
        }
        history
    }

    fn add(&mut self, root: &Tensor, ids: &mut HashMap<u64, NodeId>) -> NodeId {
        let mut stack = vec![(root.clone(), false)];
        while let Some((tensor, ready)) = stack.pop() {
            if ids.contains_key(&tensor.id()) {
                continue;
            }
            if !ready {
                stack.push((tensor.clone(), true));
                stack.extend(tensor.operands().iter().map(|t| (t.clone(), false)));
                continue;
            }
            let node = Node {
                op: tensor.op().clone(),
                inputs: tensor.operands().iter().map(|t| ids[&t.id()]).collect(),
                shape: tensor.made_dims().iter().map(|d| Dim::from(*d)).collect(),
                dtype: tensor.kernel_dtype(),
            };
            self.made.push(tensor.epoch() as usize);
            ids.insert(tensor.id(), self.graph.push(node));
        }
        ids[&root.id()]
    }

    /// Checks that the graphs of the classes compute this, and adds to what states begin with. Calls from one
    /// that is of no class are not looked at.
    pub fn check(
        &self,
        classes: &[Class],
        graphs: &[Graph],
        initials: &mut Initials,
    ) -> Result<(), Error> {
        let fits = |c: &&Recorded| classes[c.class].accepts(&c.values);
        let calls = self.calls.iter().take_while(fits).count();
        let mut check = Check {
            history: self,
            classes,
            graphs,
            initials,
            seen: HashSet::new(),
            envs: self
                .calls
                .iter()
                .map(|c| graphs[c.class].env(&c.values))
                .collect(),
        };
        for call in 1..=calls {
            let recorded = &self.calls[call - 1];
            let general = &graphs[recorded.class].outputs;
            for (a, b) in general.iter().zip(&recorded.outputs) {
                check.same(call, *a, *b)?;
            }
        }
        Ok(())
    }
}

struct Check<'a> {
    history: &'a History,
    classes: &'a [Class],
    graphs: &'a [Graph],
    initials: &'a mut Initials,
    seen: HashSet<(usize, NodeId, NodeId)>,
    /// All runtime integers of each call.
    envs: Vec<Env>,
}

/// A node of the chained graphs: in the graph of a call, or a state before the first.
#[derive(Clone, Copy)]
enum Chained {
    Node(usize, NodeId),
    Initial(usize),
}

impl Check<'_> {
    fn graph(&self, call: usize) -> (&Graph, &Env) {
        let recorded = &self.history.calls[call - 1];
        (&self.graphs[recorded.class], &self.envs[call - 1])
    }

    fn same(&mut self, call: usize, general: NodeId, recorded: NodeId) -> Result<(), Error> {
        let mut stack = vec![(call, general, recorded)];
        while let Some((call, a, b)) = stack.pop() {
            let b = effective(&self.history.graph, b, &Env::default());
            match self.chained(call, a) {
                Chained::Initial(state) => self.begins(call, state, a, b)?,
                Chained::Node(at, a) => {
                    if self.seen.insert((at, a, b)) {
                        self.node(at, a, b)?;
                        let (graph, _) = self.graph(at);
                        let y = self.history.graph.node(b);
                        if !matches!(y.op, Op::Const(_)) {
                            let operands = graph.node(a).inputs.iter().zip(&y.inputs);
                            stack.extend(operands.map(|(a, b)| (at, *a, *b)));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// What a node of a call's graph stands for: states are followed to the call that made them.
    fn chained(&self, mut call: usize, mut id: NodeId) -> Chained {
        loop {
            let (graph, env) = self.graph(call);
            id = effective(graph, id, env);
            match graph.node(id).op {
                Op::State(state) if call == 1 => return Chained::Initial(state as usize),
                Op::State(state) => {
                    call -= 1;
                    id = self.graph(call).0.states[state as usize].update;
                }
                _ => return Chained::Node(call, id),
            }
        }
    }

    /// Whether a node of a call's graph is what was recorded, but for its operands.
    fn node(&self, call: usize, a: NodeId, b: NodeId) -> Result<(), Error> {
        let (graph, env) = self.graph(call);
        let (x, y) = (graph.node(a), self.history.graph.node(b));
        let same_kind = sizes(x, env) == sizes(y, env) && x.dtype == y.dtype;
        if same_kind && matches!(y.op, Op::Const(_)) {
            return match by_value(graph, a, &self.history.graph, b, env) {
                true => Ok(()),
                false => Err(self.differs(call, x, b)),
            };
        }
        let own = !matches!(y.op, Op::Input(_)) || self.history.made[b.index()] == call;
        let same = same_kind && own && at(&x.op, env) == at(&y.op, env);
        match same && x.inputs.len() == y.inputs.len() {
            true => Ok(()),
            false => Err(self.differs(call, x, b)),
        }
    }

    fn differs(&self, call: usize, general: &Node, b: NodeId) -> Error {
        let recorded = &self.history.calls[call - 1];
        let class = &self.classes[recorded.class];
        let y = self.history.graph.node(b);
        Error::ControlFlow {
            a: match call {
                1 => format!("the first call of {}", class.name),
                _ => format!("call {call}, {},", class.describe(&recorded.values)),
            },
            b: "later calls".into(),
            node: b.index(),
            left: format!("{} {:?}", y.op.name(), sizes(y, &self.envs[call - 1])),
            right: format!(
                "{} {:?}",
                general.op.name(),
                sizes(general, &self.envs[call - 1])
            ),
        }
    }

    /// A state that the first call has as something else: it must be a constant, the same everywhere.
    fn begins(&mut self, call: usize, state: usize, a: NodeId, b: NodeId) -> Result<(), Error> {
        let (graph, env) = self.graph(1);
        let read = |n: &&Node| matches!(n.op, Op::State(i) if i as usize == state);
        let declared = &graph.states[state];
        let shape = graph
            .nodes
            .iter()
            .find(read)
            .map_or(&declared.shape, |n| &n.shape);
        let shape: Vec<usize> = shape.iter().map(|d| d.size(env)).collect();
        let value = reference::constant(&self.history.graph, b, &Env::default());
        let Some(value) = value.filter(|v| v.shape == shape) else {
            let (graph, _) = self.graph(call);
            return Err(self.differs(call, graph.node(a), b));
        };
        if value.data.is_empty() {
            return Ok(());
        }
        let capacity = graph.capacity(declared);
        let first = value.data[0];
        let filled = value.data.iter().all(|v| v.to_bits() == first.to_bits());
        if !filled && capacity != shape {
            let what = format!(
                "it begins with {shape:?} elements that are not all one value, and grows to {capacity:?}"
            );
            return Err(Error::State { state, what });
        }
        let kept = if filled {
            &value.data[..1]
        } else {
            &value.data
        };
        let literal = Literal::new(reference::encode(kept, declared.dtype));
        match &self.initials[state] {
            Some(known) if *known != literal => Err(Error::State {
                state,
                what: "it does not always begin with the same values".into(),
            }),
            _ => {
                self.initials[state] = Some(literal);
                Ok(())
            }
        }
    }
}

fn sizes(node: &Node, env: &Env) -> Vec<i64> {
    node.shape.iter().map(|d| d.eval(env)).collect()
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
