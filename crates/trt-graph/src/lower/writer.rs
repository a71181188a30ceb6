//! A program in the making: what is declared, where results are, and the launches so far.

use super::emit::{Args, Emitter, Places, Stop};
use super::group::Groups;
use super::place::Place;
use crate::Error;
use crate::graph::{Graph, NodeId};
use crate::program::{BufferId, BufferKind, Launch, ParamId, Program, Source};
use std::collections::HashMap;
use std::sync::Arc;
use trt_kernel::{Arg, BodyBuilder, Dim, Encoding, Inst, Kernel, fusible};

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
    pub(super) users: Vec<Vec<NodeId>>,
    pub(super) program: Program,
    /// The ops that each launch computes.
    pub(super) ops: Vec<Vec<String>>,
    pub(super) weights: HashMap<(Arc<str>, Encoding), ParamId>,
    /// Weights in blocks: the parameter that products by rows and gathers read. What `places` has of
    /// them is their values.
    pub(super) encoded: HashMap<NodeId, ParamId>,
    pub(super) cats: HashMap<NodeId, Place>,
    /// Padded tensors whose zeros are written: the whole, and where the elements belong.
    pub(super) pads: HashMap<NodeId, (Place, Place)>,
}

impl<'a> Writer<'a> {
    pub fn new(graph: &'a Graph, groups: &'a Groups) -> Self {
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
                floors: graph.floors.clone(),
                max_context: graph.max_context,
                inputs: graph.inputs.clone(),
                outputs: graph.outputs.iter().map(output).collect(),
                ..Program::default()
            },
            ops: Vec::new(),
            weights: HashMap::new(),
            encoded: HashMap::new(),
            cats: HashMap::new(),
            pads: HashMap::new(),
        }
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
            split: None,
        }
    }

    pub fn launch(&mut self, kernel: Kernel, args: Args, ops: Vec<String>) {
        for (i, source) in args.sources.iter().enumerate() {
            let Source::Weight(w) = source else { continue };
            let role = kernel.role(Arg(i as u16));
            self.program.weights[w.0 as usize].roles.add(role);
        }
        let in_place = self.in_place(&kernel, &args);
        let label = if ops.is_empty() {
            kernel.kind().to_string()
        } else {
            ops.join("+")
        };
        self.ops.push(ops);
        self.program.launches.push(Launch {
            label,
            kernel,
            args: args.sources,
            in_place,
        });
    }

    /// Temporaries that a result may replace: read only where it is written, element by element.
    fn in_place(&self, kernel: &Kernel, args: &Args) -> Vec<(BufferId, BufferId)> {
        let Some(body) = fusible::in_place(kernel) else {
            return vec![];
        };
        let operand = |arg: trt_kernel::Arg| match kernel {
            Kernel::Matmul(k) => (k.a.stored().into_iter())
                .chain([&k.b])
                .map(|o| o.arg)
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
                let reads = |x: &&Inst| matches!(x.access(), Some((a, _, false)) if a == arg);
                let mut reads = body.insts.iter().filter(reads).peekable();
                let there = |x: &Inst| matches!(x, Inst::Load(_, v) if v == view);
                let same = reads.peek().is_some() && reads.all(there);
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
}
