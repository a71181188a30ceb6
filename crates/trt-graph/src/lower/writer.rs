//! Writes the program: walks the graph in order and makes a launch of every root.

use super::access::Index;
use super::emit::{Args, Emitter, Places, Stop};
use super::group::{Groups, Role};
use super::place::{Place, row_major};
use super::{KernelNote, Report, is_view, kernels};
use crate::Error;
use crate::graph::{Graph, NodeId, Op};
use crate::program::{
    Buffer, BufferId, BufferKind, Launch, Program, Source, State, Weight, WeightId,
};
use std::collections::HashMap;
use std::sync::Arc;
use trt_kernel::{BodyBuilder, DType, Dim, Inst, Kernel, Row};

/// The program, or the node that has to be stored for there to be one.
pub(super) enum Outcome {
    Done(Box<Program>, Report),
    Store(NodeId, &'static str),
}

pub(super) fn write(graph: &Graph, groups: &Groups) -> Result<Outcome, Error> {
    let mut writer = Writer::new(graph, groups);
    match writer.run() {
        Ok(()) => Ok(Outcome::Done(Box::new(writer.program), writer.report)),
        Err(Fault::Stop(Stop(node, why))) => Ok(Outcome::Store(node, why)),
        Err(Fault::Error(e)) => Err(e),
    }
}

pub(super) enum Fault {
    Stop(Stop),
    Error(Error),
}

impl From<Stop> for Fault {
    fn from(s: Stop) -> Self {
        Fault::Stop(s)
    }
}

impl From<Error> for Fault {
    fn from(e: Error) -> Self {
        Fault::Error(e)
    }
}

pub(super) struct Writer<'a> {
    pub graph: &'a Graph,
    pub groups: &'a Groups,
    pub places: Places<'a>,
    users: Vec<Vec<NodeId>>,
    program: Program,
    report: Report,
    weights: HashMap<Arc<str>, WeightId>,
    cats: HashMap<NodeId, Place>,
}

impl<'a> Writer<'a> {
    fn new(graph: &'a Graph, groups: &'a Groups) -> Self {
        let output = |o: &NodeId| (graph.node(*o).shape.clone(), graph.node(*o).dtype);
        Writer {
            graph,
            groups,
            places: Places {
                graph,
                stored: vec![None; graph.nodes.len()],
            },
            users: graph.users(),
            program: Program {
                ints: graph.ints.clone(),
                max_context: graph.max_context,
                inputs: graph.inputs.clone(),
                outputs: graph.outputs.iter().map(output).collect(),
                ..Program::default()
            },
            report: Report::default(),
            weights: HashMap::new(),
            cats: HashMap::new(),
        }
    }

    fn run(&mut self) -> Result<(), Fault> {
        self.declare();
        for id in self.graph.ids() {
            match self.groups.roles[id.index()] {
                Role::Leaf => self.leaf(id),
                Role::Root => self.root(id)?,
                Role::View | Role::Inside(_) | Role::Anywhere => {}
            }
        }
        self.finish()
    }

    /// Inputs, outputs and states come first, so that every class of calls numbers them alike.
    fn declare(&mut self) {
        for (i, d) in self.graph.inputs.iter().enumerate() {
            self.buffer(BufferKind::Input(i), d.dtype, &d.shape);
        }
        for (i, o) in self.graph.outputs.iter().enumerate() {
            let n = self.graph.node(*o);
            self.buffer(BufferKind::Output(i), n.dtype, &n.shape);
        }
        for (i, s) in self.graph.states.iter().enumerate() {
            let update = &self.graph.node(s.update).shape;
            let capacity: Vec<usize> = update
                .iter()
                .map(|d| usize::try_from(self.graph.bound(d)).unwrap_or(0))
                .collect();
            let dims: Vec<Dim> = capacity.iter().map(|c| Dim::from(*c)).collect();
            self.buffer(BufferKind::State(i), s.dtype, &dims);
            self.program.states.push(State {
                shape: s.shape.clone(),
                capacity,
                dtype: s.dtype,
            });
        }
    }

    fn buffer(&mut self, kind: BufferKind, dtype: DType, shape: &[Dim]) -> BufferId {
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

    fn find(&self, kind: &BufferKind) -> Source {
        let at = self.program.buffers.iter().position(|b| b.kind == *kind);
        Source::Buffer(BufferId(at.unwrap_or(0) as u32))
    }

    fn leaf(&mut self, id: NodeId) {
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
            Op::Weight(name) => {
                let weight = self.weight(name, node.dtype, &node.shape);
                Place::contiguous(Source::Weight(weight), node.dtype, &node.shape)
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

    fn weight(&mut self, name: &Arc<str>, dtype: DType, shape: &[Dim]) -> WeightId {
        if let Some(id) = self.weights.get(name) {
            return *id;
        }
        let id = WeightId(self.program.weights.len() as u32);
        let shape = shape.iter().filter_map(Dim::constant_size).collect();
        let weight = Weight {
            name: name.clone(),
            dtype,
            shape,
            ranged: false,
            rows: false,
            whole: false,
        };
        self.program.weights.push(weight);
        self.weights.insert(name.clone(), id);
        id
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
                _ => {}
            }
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
            _ => self.temp(node.dtype, &node.shape),
        })
    }

    fn append_target(&mut self, append: NodeId, axis: usize) -> Place {
        let old = self.graph.node(append).inputs[0];
        let Op::State(state) = self.graph.node(old).op else {
            unreachable!("verify: append starts with a state")
        };
        self.state_place(state as usize)
            .part(axis, &self.graph.node(old).shape[axis])
    }

    fn cat_target(&mut self, cat: NodeId, axis: usize, part: NodeId) -> Place {
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
            op if is_view(op) => {
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
            Op::Matmul => self.matmul(id, id)?,
            Op::IndexSelect => kernels::gather(self, id)?,
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
        self.copy(source, target, &shape);
        Ok(())
    }

    /// A copy of a tensor of some shape between two places of one dtype.
    fn copy(&mut self, source: Place, target: Place, shape: &[Dim]) {
        let (kernel, args) = kernels::copy(&source, &target, shape);
        self.launch(kernel, args, vec!["copy".into()]);
    }

    pub fn emitter(&self, root: NodeId, space: Vec<Dim>) -> Emitter<'_> {
        Emitter {
            graph: self.graph,
            groups: self.groups,
            places: &self.places,
            root,
            anchor: None,
            space,
            body: BodyBuilder::new(),
            args: Args::default(),
            ops: Vec::new(),
            memo: HashMap::new(),
        }
    }

    /// A row kernel for a root of scalar ops and reductions.
    fn row(&mut self, id: NodeId) -> Result<(), Fault> {
        let target = self.destination(id)?;
        let shape = self.graph.node(id).shape.clone();
        let mut space = self.groups.space(self.graph, id);
        let reduced = matches!(self.graph.node(id).op, Op::Reduce(..));
        if space.is_empty() {
            space.push(Dim::from(1));
        }
        let last = shape.len().saturating_sub(1);
        let access = (0..shape.len()).map(|i| {
            if reduced && i == last {
                Index::default()
            } else {
                Index::axis(i)
            }
        });
        let access = access.collect();
        let mut e = self.emitter(id, space.clone());
        let value = e.emit(id, &access)?;
        e.store(&target, &access, value);
        let (args, ops) = (e.args, e.ops);
        let kernel = Kernel::Row(Row {
            space,
            args: args.dtypes.clone(),
            body: e.body.finish(),
        });
        self.places.stored[id.index()] = Some(target);
        self.launch(kernel, args, ops);
        Ok(())
    }

    fn matmul(&mut self, root: NodeId, product: NodeId) -> Result<(), Fault> {
        let target = self.destination(root)?;
        let (kernel, args, ops) = kernels::matmul(self, root, product, &target)?;
        self.places.stored[root.index()] = Some(target);
        self.launch(kernel, args, ops);
        Ok(())
    }

    pub fn launch(&mut self, kernel: Kernel, args: Args, ops: Vec<String>) {
        for (i, source) in args.sources.iter().enumerate() {
            let Source::Weight(w) = source else { continue };
            let weight = &mut self.program.weights[w.0 as usize];
            match &kernel {
                Kernel::Matmul(m) if m.ranged && m.b.arg.0 as usize == i => weight.ranged = true,
                Kernel::Gather(g) if g.table.0 as usize == i => weight.rows = true,
                _ => weight.whole = true,
            }
        }
        let in_place = self.in_place(&kernel, &args);
        self.report.kernels.push(KernelNote {
            kind: kernel.kind(),
            ops: ops.clone(),
        });
        let label = if ops.is_empty() {
            kernel.kind().to_string()
        } else {
            ops.join("+")
        };
        self.program.launches.push(Launch {
            label,
            kernel,
            args: args.sources,
            in_place,
        });
    }

    /// Temporaries that a result may replace: read only where it is written, element by element.
    fn in_place(&self, kernel: &Kernel, args: &Args) -> Vec<(BufferId, BufferId)> {
        let body = match kernel {
            Kernel::Row(k) => &k.body,
            Kernel::Matmul(k) => &k.epilogue,
            Kernel::Attention(_) | Kernel::Gather(_) | Kernel::Move(_) => return vec![],
        };
        let operand = |arg: trt_kernel::Arg| match kernel {
            Kernel::Matmul(k) => [k.a.arg, k.b.arg]
                .iter()
                .any(|o| args.sources[o.0 as usize] == args.sources[arg.0 as usize]),
            _ => false,
        };
        let temp = |arg: trt_kernel::Arg| match args.sources[arg.0 as usize] {
            Source::Buffer(b) if self.program.buffer(b).kind == BufferKind::Temp => Some(b),
            _ => None,
        };
        let mut pairs = Vec::new();
        for inst in &body.insts {
            let Inst::Store(out, view, _) = inst else {
                continue;
            };
            let Some(written) = temp(*out) else { continue };
            for (i, _) in args.sources.iter().enumerate() {
                let arg = trt_kernel::Arg(i as u16);
                let loads: Vec<_> = body
                    .insts
                    .iter()
                    .filter_map(|x| match x {
                        Inst::Load(a, v) if *a == arg => Some(v),
                        _ => None,
                    })
                    .collect();
                let same = !loads.is_empty() && loads.iter().all(|v| *v == view);
                let Some(read) = temp(arg).filter(|b| *b != written && same && !operand(arg))
                else {
                    continue;
                };
                let bytes = |b: BufferId| {
                    let b = self.program.buffer(b);
                    (b.len.clone(), b.dtype.size())
                };
                if bytes(written) == bytes(read) {
                    pairs.push((written, read));
                }
            }
        }
        pairs
    }

    /// Outputs and states that are not yet where they belong.
    fn finish(&mut self) -> Result<(), Fault> {
        for (i, output) in self.graph.outputs.clone().into_iter().enumerate() {
            let node = self.graph.node(output);
            let target =
                Place::contiguous(self.find(&BufferKind::Output(i)), node.dtype, &node.shape);
            self.copy_unless_there(output, target)?;
        }
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
            if let Source::Buffer(b) = source.source
                && matches!(self.program.buffer(b).kind, BufferKind::State(_))
            {
                let what =
                    "its next value is a state rearranged or another state, which this version \
                            cannot move"
                        .into();
                return Err(Error::State { state: i, what }.into());
            }
            self.copy(source, target, &shape);
        }
        Ok(())
    }
}
