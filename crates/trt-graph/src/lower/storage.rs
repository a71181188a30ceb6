//! Where values live: the buffers and weights of a program, and the destination of each result.
//!
//! A result goes straight into the output, state or joined tensor that is its only use; then no
//! copy is needed. Otherwise it has a buffer of its own.

use super::copies;
use super::place::Place;
use super::writer::{Fault, Writer};
use crate::graph::{Margin, NodeId, Op};
use crate::ints::Positions;
use crate::program::{Buffer, BufferId, BufferKind, ParamId, Source, State, Weight};
use std::sync::Arc;
use trt_kernel::{DType, Dim, Encoding, Roles};

impl Writer<'_> {
    /// Inputs, outputs and states come first, so that every class of calls numbers them alike.
    pub(super) fn declare(&mut self) {
        for (i, d) in self.graph.inputs.iter().enumerate() {
            self.buffer(BufferKind::Input(i), d.dtype, &d.shape);
        }
        for (i, o) in self.graph.outputs.iter().enumerate() {
            let n = self.graph.node(*o);
            self.buffer(BufferKind::Output(i), n.dtype, &n.shape);
        }
        for (i, s) in self.graph.states.iter().enumerate() {
            let capacity = self.graph.capacity(s);
            let dims: Vec<Dim> = capacity.iter().map(|c| Dim::from(*c)).collect();
            self.buffer(BufferKind::State(i), s.dtype, &dims);
            self.program.states.push(State {
                shape: s.shape.clone(),
                capacity,
                dtype: s.dtype,
                initial: s.initial.clone(),
                rewinds: self.rewinds(i),
            });
        }
    }

    /// Whether a call leaves what was in the state before it where it was, so that a session can go back by
    /// taking a part of it: what grows by appending does, and so does what stays. A call that only ever is the
    /// first has nothing before it.
    fn rewinds(&self, state: usize) -> bool {
        let graph = self.graph;
        let update = graph.node(graph.states[state].update);
        let itself = |op: &Op| matches!(op, Op::State(i) if *i as usize == state);
        let old = update.inputs.first();
        let grows = matches!(update.op, Op::Append(_))
            && old.is_some_and(|old| itself(&graph.node(*old).op));
        let past = Positions::of(&graph.ints).map(|p| graph.ints[p.past].range.max);
        grows || itself(&update.op) || past == Some(0)
    }

    pub(super) fn buffer(&mut self, kind: BufferKind, dtype: DType, shape: &[Dim]) -> BufferId {
        let len = Dim::product(shape);
        let max_len = usize::try_from(self.graph.bound(&len)).unwrap_or(0);
        self.program.buffers.push(Buffer {
            kind,
            dtype,
            len,
            max_len,
        });
        BufferId(self.program.buffers.len() as u32 - 1)
    }

    pub fn temp(&mut self, dtype: DType, shape: &[Dim]) -> Place {
        let id = self.buffer(BufferKind::Temp, dtype, shape);
        Place::contiguous(Source::Buffer(id), dtype, shape)
    }

    pub(super) fn find(&self, kind: &BufferKind) -> Source {
        let at = self.program.buffers.iter().position(|b| b.kind == *kind);
        Source::Buffer(BufferId(at.unwrap_or(0) as u32))
    }

    pub(super) fn leaf(&mut self, id: NodeId) {
        let node = self.graph.node(id);
        let place = match &node.op {
            Op::Input(i) => Place::contiguous(
                self.find(&BufferKind::Input(*i as usize)),
                node.dtype,
                &node.shape,
            ),
            Op::State(i) => self.state_place(*i as usize),
            Op::Const(l) => {
                let kind = BufferKind::Const(l.clone());
                let known = self
                    .program
                    .buffers
                    .iter()
                    .any(|b| b.kind == kind && b.dtype == node.dtype);
                let source = match known {
                    true => self.find(&kind),
                    false => Source::Buffer(self.buffer(kind, node.dtype, &node.shape)),
                };
                Place::contiguous(source, node.dtype, &node.shape)
            }
            Op::Weight(name, encoding) => {
                let weight = self.weight(name, *encoding, &node.shape);
                let values = match encoding.as_plain() {
                    Some(_) => weight,
                    None => {
                        self.encoded.insert(id, weight);
                        self.weight(name, node.dtype.into(), &node.shape)
                    }
                };
                Place::contiguous(Source::Weight(values), node.dtype, &node.shape)
            }
            _ => return,
        };
        self.places.stored[id.index()] = Some(place);
    }

    pub fn state_place(&self, i: usize) -> Place {
        let state = &self.program.states[i];
        let capacity: Vec<Dim> = state.capacity.iter().map(|c| Dim::from(*c)).collect();
        Place::contiguous(self.find(&BufferKind::State(i)), state.dtype, &capacity)
    }

    /// The parameter that is a weight in some encoding. One in blocks is a parameter of its own beside
    /// that of its values, and what is not used in the end is not kept.
    fn weight(&mut self, name: &Arc<str>, encoding: Encoding, shape: &[Dim]) -> ParamId {
        let key = (name.clone(), encoding);
        if let Some(id) = self.weights.get(&key) {
            return *id;
        }
        let id = ParamId(self.program.weights.len() as u32);
        let shape = shape.iter().filter_map(Dim::constant_size).collect();
        let weight = Weight {
            name: name.clone(),
            encoding,
            shape,
            roles: Roles::default(),
        };
        self.program.weights.push(weight);
        self.weights.insert(key, id);
        id
    }

    /// Where a weight is and how it is written down there, for kernels that read it in any encoding.
    pub fn stored_weight(&self, id: NodeId) -> Option<(Place, Encoding)> {
        let node = self.graph.node(id);
        let Op::Weight(_, encoding) = &node.op else {
            return None;
        };
        let mut place = self.places.stored[id.index()].clone()?;
        if let Some(weight) = self.encoded.get(&id) {
            place.source = Source::Weight(*weight);
        }
        Some((place, *encoding))
    }

    /// Parameters that no launch reads are left out: a weight in blocks is declared as such and as
    /// its values.
    pub(super) fn drop_unread(&mut self) {
        let read = |w: &Weight| w.roles != Roles::default();
        let mut next = 0;
        let kept: Vec<Option<ParamId>> = (self.program.weights.iter())
            .map(|w| {
                let id = read(w).then_some(ParamId(next));
                next += u32::from(id.is_some());
                id
            })
            .collect();
        self.program.weights.retain(read);
        for source in self.program.launches.iter_mut().flat_map(|l| &mut l.args) {
            if let Source::Weight(w) = source
                && let Some(Some(new)) = kept.get(w.0 as usize)
            {
                *w = *new;
            }
        }
    }

    /// Where a root's result goes: straight into the output, state or joined tensor that is its
    /// only use, or into a buffer of its own.
    pub fn destination(&mut self, id: NodeId) -> Result<Place, Fault> {
        let node = self.graph.node(id);
        if let Some(o) = self.graph.outputs.iter().position(|o| *o == id) {
            return Ok(Place::contiguous(
                self.find(&BufferKind::Output(o)),
                node.dtype,
                &node.shape,
            ));
        }
        if let [user] = self.users[id.index()][..]
            && !self.graph.roots().any(|r| r == id)
        {
            let consumer = self.graph.node(user);
            match consumer.op {
                Op::Append(axis) if consumer.inputs[1] == id && consumer.inputs[0] != id => {
                    return Ok(self.append_target(user, axis));
                }
                Op::Cat(axis) if consumer.inputs.iter().filter(|i| **i == id).count() == 1 => {
                    return Ok(self.cat_target(user, axis, id));
                }
                Op::Pad(ref margins) => return Ok(self.pad_target(user, margins)?.1),
                _ => {}
            }
        }
        if let Some(place) = self.rearranged_output(id) {
            return Ok(place);
        }
        Ok(match node.op {
            // Heads are stored inside positions, which is how they are joined afterwards.
            Op::Attention(_) => {
                let s = &node.shape;
                let stored = [s[0].clone(), s[2].clone(), s[1].clone(), s[3].clone()];
                let mut place = self.temp(node.dtype, &stored);
                place.strides.swap(1, 2);
                place
            }
            _ => self.own(id),
        })
    }

    /// The memory of an output that is this result in another layout, if strides can express it.
    fn rearranged_output(&self, id: NodeId) -> Option<Place> {
        let mut path = vec![id];
        let output = loop {
            let [user] = self.users[path[path.len() - 1].index()][..] else {
                return None;
            };
            if !matches!(self.graph.node(user).op, Op::Reshape | Op::Permute(_)) {
                return None;
            }
            path.push(user);
            if let Some(o) = self.graph.outputs.iter().position(|o| *o == user) {
                break o;
            }
        };
        let last = self.graph.node(path[path.len() - 1]);
        let source = self.find(&BufferKind::Output(output));
        self.behind(&path, Place::contiguous(source, last.dtype, &last.shape))
    }

    /// The buffer of a padded tensor, and the part of it that gets the elements. The zeros are
    /// written when it is first asked for. Its axes lie in memory in the order of the operand's.
    pub(super) fn pad_target(
        &mut self,
        pad: NodeId,
        margins: &[Margin],
    ) -> Result<(Place, Place), Fault> {
        if let Some(known) = self.pads.get(&pad) {
            return Ok(known.clone());
        }
        let node = self.graph.node(pad);
        let input = node.inputs[0];
        let order = match self.places.of(input) {
            Ok(place) => self.memory_order(&place),
            Err(_) => (0..node.shape.len()).collect(),
        };
        let stored: Vec<Dim> = order.iter().map(|a| node.shape[*a].clone()).collect();
        let mut whole = self.temp(node.dtype, &stored);
        let strides = whole.strides.clone();
        order
            .iter()
            .zip(strides)
            .for_each(|(a, s)| whole.strides[*a] = s);
        let (kernel, args) = copies::zeros(&whole, &node.shape);
        self.launch(kernel, args, vec!["zeros".into()]);
        let mut inside = whole.clone();
        for (axis, m) in margins.iter().enumerate() {
            inside.offset = &inside.offset + &(&whole.strides[axis] * &Dim::from(m.before));
            inside.strides[axis] = &whole.strides[axis] * &Dim::from(m.between + 1);
        }
        self.pads.insert(pad, (whole.clone(), inside.clone()));
        Ok((whole, inside))
    }

    /// The axes of a tensor from the outermost in memory to the innermost.
    fn memory_order(&self, place: &Place) -> Vec<usize> {
        let env = self.graph.max_env();
        let mut order: Vec<usize> = (0..place.strides.len()).collect();
        order.sort_by_key(|a| std::cmp::Reverse(place.strides[*a].eval(&env)));
        order
    }

    pub(super) fn append_target(&mut self, append: NodeId, axis: usize) -> Place {
        let old = self.graph.node(append).inputs[0];
        let Op::State(state) = self.graph.node(old).op else {
            unreachable!("verify: append starts with a state")
        };
        self.state_place(state as usize)
            .part(axis, &self.graph.node(old).shape[axis])
    }

    pub(super) fn cat_target(&mut self, cat: NodeId, axis: usize, part: NodeId) -> Place {
        let whole = match self.cats.get(&cat) {
            Some(place) => place.clone(),
            None => {
                let node = self.graph.node(cat);
                let place = match self.graph.outputs.iter().position(|o| *o == cat) {
                    Some(o) => Place::contiguous(
                        self.find(&BufferKind::Output(o)),
                        node.dtype,
                        &node.shape,
                    ),
                    None => self.temp(node.dtype, &node.shape),
                };
                self.cats.insert(cat, place.clone());
                place
            }
        };
        let before = self
            .graph
            .node(cat)
            .inputs
            .iter()
            .take_while(|i| **i != part);
        let start = before.fold(Dim::from(0), |sum, i| {
            &sum + &self.graph.node(*i).shape[axis]
        });
        whole.part(axis, &start)
    }
}
