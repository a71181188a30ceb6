//! Walks a graph in order and makes a launch of every root.

use super::access::{Access, Index};
use super::emit::Stop;
use super::group::{Groups, Role};
use super::place::{Place, row_major};
use super::writer::{Fault, Writer};
use super::{copies, experts, kernels};
use crate::Error;
use crate::graph::{Graph, NodeId, Op};
use crate::program::{BufferKind, Program};
use trt_kernel::{Dim, Kernel, Row};

/// Axes of a row kernel that may be split no more.
const AXES: usize = 7;

/// The program, or the nodes that have to be stored for there to be one.
pub(super) enum Outcome {
    /// The program, and the ops that each launch computes.
    Done(Box<Program>, Vec<Vec<String>>),
    /// What to store, and why: one node at least.
    Store(Vec<(NodeId, &'static str)>),
}

pub(super) fn write(graph: &Graph, groups: &Groups) -> Result<Outcome, Error> {
    let mut writer = Writer::new(graph, groups);
    let mut stops = Vec::new();
    match writer.run(&mut stops) {
        // What comes after a stop is looked at to find the others; no more is made of it.
        _ if !stops.is_empty() => Ok(Outcome::Store(stops)),
        Ok(()) => Ok(Outcome::Done(Box::new(writer.program), writer.ops)),
        Err(Fault::Stop(Stop(node, why))) => Ok(Outcome::Store(vec![(node, why)])),
        Err(Fault::Error(e)) => Err(e),
    }
}

/// A value that is to be in a state's memory after the call.
struct Move {
    source: Place,
    target: Place,
    shape: Vec<Dim>,
}

impl Writer<'_> {
    /// Where a root cannot be written, what has to be stored for it goes to `stops`, and the walk goes on.
    fn run(&mut self, stops: &mut Vec<(NodeId, &'static str)>) -> Result<(), Fault> {
        self.declare();
        for id in self.graph.ids() {
            match self.groups.roles[id.index()] {
                Role::Leaf => self.leaf(id),
                Role::Root => match self.root(id) {
                    Err(Fault::Stop(Stop(node, why))) => {
                        stops.push((node, why));
                        for stored in self.groups.beside(id).into_iter().chain([id]) {
                            self.places.stored[stored.index()] = Some(self.own(stored));
                        }
                    }
                    other => other?,
                },
                Role::View | Role::Inside(_) | Role::Beside(_) | Role::Anywhere => {}
            }
        }
        self.finish()
    }

    fn root(&mut self, id: NodeId) -> Result<(), Fault> {
        let node = self.graph.node(id).clone();
        match &node.op {
            Op::Append(axis) => {
                let new = node.inputs[1];
                let target = self.append_target(id, *axis);
                self.copy_unless_there(new, target)?;
                let Op::State(state) = self.graph.node(node.inputs[0]).op else {
                    unreachable!("verify: append starts with a state")
                };
                self.places.stored[id.index()] = Some(self.state_place(state as usize));
            }
            Op::Cat(axis) => {
                // Parts may repeat, so each is placed by its position.
                self.cat_target(id, *axis, node.inputs[0]);
                let whole = self.cats[&id].clone();
                let mut start = Dim::from(0);
                for part in &node.inputs {
                    self.copy_unless_there(*part, whole.part(*axis, &start))?;
                    start = &start + &self.graph.node(*part).shape[*axis];
                }
                self.places.stored[id.index()] = Some(whole);
            }
            op if op.is_view() => {
                let input = node.inputs[0];
                let target = self.temp(node.dtype, &node.shape);
                let source = self.places.of(input)?;
                let from = self.graph.node(input).shape.clone();
                match source.viewed(op, &from, &node.shape) {
                    Some(seen) => self.copy(seen, target.clone(), &node.shape),
                    // Only a reshape has no strides: the elements are copied in their own order.
                    None => {
                        let flat = Place {
                            strides: row_major(&from),
                            ..target.clone()
                        };
                        self.copy(source, flat, &from);
                    }
                }
                self.places.stored[id.index()] = Some(target);
            }
            Op::Pad(margins) => {
                let input = node.inputs[0];
                let (whole, inside) = self.pad_target(id, margins)?;
                self.copy_unless_there(input, inside)?;
                self.places.stored[id.index()] = Some(whole);
            }
            Op::Matmul => self.matmul(id, id)?,
            Op::IndexSelect => kernels::gather(self, id)?,
            Op::Experts => experts::write(self, id)?,
            Op::Rope => kernels::rope(self, id)?,
            Op::Attention(op) => kernels::attention(self, id, op)?,
            _ => match self.groups.anchors.get(&id) {
                Some(anchor) => self.matmul(id, *anchor)?,
                None => self.row(id)?,
            },
        }
        Ok(())
    }

    fn copy_unless_there(&mut self, part: NodeId, target: Place) -> Result<(), Fault> {
        if self.places.stored[part.index()].as_ref() == Some(&target) {
            return Ok(());
        }
        let source = self.places.of(part)?;
        let shape = self.graph.node(part).shape.clone();
        if !source.is_same(&target, &shape) {
            self.copy(source, target, &shape);
        }
        Ok(())
    }

    /// A copy of a tensor of some shape between two places of one dtype.
    fn copy(&mut self, source: Place, target: Place, shape: &[Dim]) {
        let (kernel, args) = copies::between(&source, &target, shape);
        self.launch(kernel, args, vec!["copy".into()]);
    }

    /// A row kernel for a root of scalar ops and reductions, and for the folds that are stored beside it.
    fn row(&mut self, id: NodeId) -> Result<(), Fault> {
        let target = self.destination(id)?;
        let mut targets = vec![(id, target)];
        for beside in self.groups.beside(id) {
            targets.push((beside, self.destination(beside)?));
        }
        let mut space = self.groups.space(self.graph, id);
        if space.is_empty() {
            space.push(Dim::from(1));
        }
        let mut access = self.points(id);
        // Rows that are folded stay what they are.
        let splits = !self.groups.folds(self.graph, id);
        let mut first: Option<Stop> = None;
        let e = loop {
            let mut e = self.emitter(id, space.clone());
            let written: Result<(), Stop> = targets.iter().try_for_each(|(node, target)| {
                let value = e.emit(*node, &access)?;
                e.store(target, &access, value);
                Ok(())
            });
            let may = splits && space.len() < AXES;
            match (written, e.split.take().filter(|_| may)) {
                (Ok(()), _) => break e,
                (Err(stop), None) => return Err(first.unwrap_or(stop).into()),
                (Err(stop), Some(split)) => {
                    first.get_or_insert(stop);
                    let outer = space[split.axis].divide(&split.inner);
                    space[split.axis] = split.inner.clone();
                    space.insert(split.axis, outer.expect("a split divides its axis"));
                    access = access.iter().map(|i| i.after(&split)).collect();
                }
            }
        };
        let (args, ops) = (e.args, e.ops);
        let kernel = Kernel::Row(Row {
            space,
            args: args.dtypes.clone(),
            body: e.body.finish(),
        });
        for (node, target) in targets {
            self.places.stored[node.index()] = Some(target);
        }
        self.launch(kernel, args, ops);
        Ok(())
    }

    /// How a row kernel's space walks over its result, which has one point a row after a fold.
    fn points(&self, id: NodeId) -> Access {
        let axes = self.graph.node(id).shape.len();
        let folded = self.groups.is_folded(id);
        let axis = |i| match folded && i + 1 == axes {
            true => Index::default(),
            false => Index::axis(i),
        };
        (0..axes).map(axis).collect()
    }

    fn matmul(&mut self, root: NodeId, product: NodeId) -> Result<(), Fault> {
        let target = self.destination(root)?;
        let (kernel, args, ops) = kernels::matmul(self, root, product, &target)?;
        self.places.stored[root.index()] = Some(target);
        self.launch(kernel, args, ops);
        Ok(())
    }

    /// Outputs and states that are not yet where they belong.
    fn finish(&mut self) -> Result<(), Fault> {
        for (i, output) in self.graph.outputs.clone().into_iter().enumerate() {
            let node = self.graph.node(output);
            let target =
                Place::contiguous(self.find(&BufferKind::Output(i)), node.dtype, &node.shape);
            self.copy_unless_there(output, target)?;
        }
        let mut moves = Vec::new();
        for (i, state) in self.graph.states.iter().enumerate() {
            let target = self.state_place(i);
            let source = self.places.of(state.update)?;
            if source == target {
                continue;
            }
            let shape = self.graph.node(state.update).shape.clone();
            if shape != state.shape {
                let what = "it changes its shape other than by appending along one axis".into();
                return Err(Error::State { state: i, what }.into());
            }
            moves.push(Move {
                source,
                target,
                shape,
            });
        }
        self.move_all(moves);
        self.drop_unread();
        Ok(())
    }

    /// Copies as if all at once: a state that others take over is written after that. Where states go round,
    /// one of them waits in memory of its own.
    fn move_all(&mut self, mut moves: Vec<Move>) {
        while !moves.is_empty() {
            let free = |m: &Move| moves.iter().all(|o| o.source.source != m.target.source);
            match moves.iter().position(free) {
                Some(next) => {
                    let m = moves.remove(next);
                    self.copy(m.source, m.target, &m.shape);
                }
                None => {
                    let shape = moves[0].shape.clone();
                    let aside = self.temp(moves[0].source.dtype, &shape);
                    let source = std::mem::replace(&mut moves[0].source, aside.clone());
                    self.copy(source, aside, &shape);
                }
            }
        }
    }
}
