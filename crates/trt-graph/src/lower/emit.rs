//! Writes the body of a kernel by walking back from its root to what is in memory.
//!
//! The walk carries an [`Access`]: how the kernel's index space reads the node at hand. Layout
//! ops change the access, scalar ops become instructions, stored tensors become loads.

use super::access::{self, Access, Index, Layout, Split};
use super::group::{Groups, Role};
use super::place::Place;
use crate::graph::{Graph, NodeId, Op};
use crate::program::Source;
use std::collections::HashMap;
use trt_kernel::{Arg, Binary, BodyBuilder, Compare, DType, Dim, Encoding, Inst, Reg, Ty, View};

/// Why writing stopped: the node must be stored first.
#[derive(Debug)]
pub(super) struct Stop(pub NodeId, pub &'static str);

/// The arguments of a kernel in the making.
#[derive(Default)]
pub(super) struct Args {
    pub sources: Vec<Source>,
    pub dtypes: Vec<DType>,
    /// Arguments that only their owner reads: a ranged operand starts elsewhere in each launch.
    own: Vec<Arg>,
}

impl Args {
    /// The argument of a source, added if it is new.
    pub fn of(&mut self, source: Source, dtype: DType) -> Arg {
        let known = self.sources.iter().zip(0u16..);
        let mut shared = known.filter(|(s, i)| **s == source && !self.own.contains(&Arg(*i)));
        match shared.next() {
            Some((_, i)) => Arg(i),
            None => self.add(source, dtype),
        }
    }

    /// An argument of its own.
    pub fn fresh(&mut self, source: Source, dtype: DType) -> Arg {
        let arg = self.add(source, dtype);
        self.own.push(arg);
        arg
    }

    /// How all of them are written down: plainly but for one.
    pub fn encodings(&self, arg: Arg, encoding: Encoding) -> Vec<Encoding> {
        let mut all = Encoding::plain(self.dtypes.iter().copied());
        if let Some(one) = all.get_mut(usize::from(arg.0)) {
            *one = encoding;
        }
        all
    }

    fn add(&mut self, source: Source, dtype: DType) -> Arg {
        self.sources.push(source);
        self.dtypes.push(dtype);
        Arg(self.sources.len() as u16 - 1)
    }
}

/// Stored tensors by node.
pub(super) struct Places<'a> {
    pub graph: &'a Graph,
    pub stored: Vec<Option<Place>>,
}

impl Places<'_> {
    /// Where a node's value is, looking through layout ops.
    pub fn of(&self, id: NodeId) -> Result<Place, Stop> {
        if let Some(place) = &self.stored[id.index()] {
            return Ok(place.clone());
        }
        let node = self.graph.node(id);
        if !node.op.is_view() {
            return Err(Stop(id, "an operand of a kernel must be in memory"));
        }
        let input = node.inputs[0];
        let from = &self.graph.node(input).shape;
        self.of(input)?
            .viewed(&node.op, from, &node.shape)
            .ok_or(Stop(id, "no strides express this layout"))
    }
}

impl Places<'_> {
    /// As [`of`](Self::of), with the last axis as two halves. They need not be neighbours: rows of
    /// queries and keys may lie interleaved.
    pub fn halves(&self, id: NodeId) -> Result<Place, Stop> {
        let node = self.graph.node(id);
        let last = node.shape.len() - 1;
        let half = node.shape[last].divide(&Dim::from(2));
        let half = half.ok_or(Stop(id, "an odd size has no halves"))?;
        let together = |mut place: Place| {
            let distance = &half * &place.strides[last];
            place.strides.insert(last, distance);
            place
        };
        let apart = self.of(id).map(together);
        let Some(&input) = node.inputs.first().filter(|_| apart.is_err()) else {
            return apart;
        };
        let halves = [Dim::from(2), half.clone()];
        let from = &self.graph.node(input).shape;
        match &node.op {
            Op::Permute(perm) if perm[last] == last => {
                let mut place = self.halves(input)?;
                let axes = perm.iter().copied().chain([last + 1]);
                place.strides = axes.map(|a| place.strides[a].clone()).collect();
                Ok(place)
            }
            Op::Reshape if from.ends_with(&halves) => {
                let to = [&node.shape[..last], &halves[..]].concat();
                let place = self.of(input)?.viewed(&Op::Reshape, from, &to);
                place.map_or(apart, Ok)
            }
            _ => apart,
        }
    }
}

/// The body of one kernel while it is written.
pub(super) struct Emitter<'a> {
    pub graph: &'a Graph,
    pub groups: &'a Groups,
    pub places: &'a Places<'a>,
    pub root: NodeId,
    /// The product whose sum is the body's input, with the access at which it is read.
    pub anchor: Option<(NodeId, Access)>,
    /// The kernel's axes.
    pub space: Vec<Dim>,
    pub body: BodyBuilder,
    pub args: Args,
    /// Names of the ops written, in order.
    pub ops: Vec<String>,
    pub memo: HashMap<(NodeId, Access), (Reg, Ty)>,
    /// What would have let writing go on, after a [`Stop`].
    pub split: Option<Split>,
}

impl Emitter<'_> {
    pub fn view(&self, place: &Place, access: &Access) -> View {
        access::view(&place.offset, &place.strides, access, self.space.len())
    }

    pub fn load(&mut self, place: &Place, access: &Access) -> (Reg, Ty) {
        let view = self.view(place, access);
        let arg = self.args.of(place.source, place.dtype);
        let ty = if place.dtype.is_float() {
            Ty::F32
        } else {
            Ty::I64
        };
        (self.body.load(arg, view), ty)
    }

    /// Stores a value of the dtype's register type.
    pub fn store(&mut self, place: &Place, access: &Access, value: (Reg, Ty)) {
        let view = self.view(place, access);
        let arg = self.args.of(place.source, place.dtype);
        let value = match (place.dtype.is_float(), value.1) {
            (true, Ty::I64 | Ty::Bool) => self.body.push(Inst::Cast(value.0, Ty::F32)),
            (false, Ty::F32) => self.body.push(Inst::Cast(value.0, Ty::I64)),
            _ => value.0,
        };
        self.body.store(arg, view, value);
    }

    /// The value of a node at an access.
    pub fn emit(&mut self, id: NodeId, access: &Access) -> Result<(Reg, Ty), Stop> {
        let key = (id, access.clone());
        if let Some(found) = self.memo.get(&key) {
            return Ok(*found);
        }
        let value = self.value(id, access)?;
        self.memo.insert(key, value);
        Ok(value)
    }

    fn value(&mut self, id: NodeId, access: &Access) -> Result<(Reg, Ty), Stop> {
        let node = self.graph.node(id);
        if let Some((anchor, at)) = &self.anchor
            && *anchor == id
        {
            return match at == access {
                true => {
                    self.ops.push("matmul".into());
                    Ok((self.body.push(Inst::Input), Ty::F32))
                }
                false => Err(Stop(id, "its consumer reads it in another layout")),
            };
        }
        if let Some(place) = &self.places.stored[id.index()] {
            let place = place.clone();
            return Ok(self.load(&place, access));
        }
        if node.op.is_view() {
            // A stored tensor behind it may be addressed even where the index is not linear.
            if let Ok(place) = self.places.of(id) {
                return Ok(self.load(&place, access));
            }
            let input = node.inputs[0];
            let from = &self.graph.node(input).shape;
            let layout = Layout {
                op: &node.op,
                from,
                to: &node.shape,
                space: &self.space,
            };
            let inner = access::through(&layout, access).map_err(|split| {
                self.split = split;
                Stop(input, "its consumer reads it through a reshape")
            })?;
            return self.emit(input, &inner);
        }
        let anywhere = self.groups.roles[id.index()] == Role::Anywhere;
        match anywhere || self.groups.kernel(id) == Some(self.root) {
            true => self.compute(id, access),
            false => Err(Stop(id, "several kernels need it")),
        }
    }

    fn compute(&mut self, id: NodeId, access: &Access) -> Result<(Reg, Ty), Stop> {
        let node = self.graph.node(id);
        let inputs = node.inputs.clone();
        let value = match node.op.clone() {
            Op::Float(v) => (self.body.push(Inst::F32(v)), Ty::F32),
            Op::Int(d) => (self.body.push(Inst::I64(d)), Ty::I64),
            Op::Arange { start, step } => {
                let index = self.index(&access[0]);
                let step = self.body.push(Inst::I64(Dim::from(step)));
                let scaled = self.body.binary(Binary::Mul, index, step);
                let start = self.body.push(Inst::I64(start));
                let value = (self.body.binary(Binary::Add, scaled, start), Ty::I64);
                self.convert(
                    value,
                    if node.dtype.is_float() {
                        Ty::F32
                    } else {
                        Ty::I64
                    },
                )
            }
            Op::Causal { offset, window } => self.causal(access, &offset, window),
            Op::Unary(f) => {
                let (x, ty) = self.number(inputs[0], access)?;
                (self.body.unary(f, x), ty)
            }
            Op::Binary(f) => {
                let (a, ty) = self.number(inputs[0], access)?;
                let (b, _) = self.number(inputs[1], access)?;
                (self.body.binary(f, a, b), ty)
            }
            Op::Compare(f) => {
                let (a, _) = self.number(inputs[0], access)?;
                let (b, _) = self.number(inputs[1], access)?;
                (self.body.push(Inst::Compare(f, a, b)), Ty::Bool)
            }
            Op::Where => {
                let cond = self.emit(inputs[0], access)?;
                let cond = self.convert(cond, Ty::Bool).0;
                let (a, ty) = self.number(inputs[1], access)?;
                let (b, _) = self.number(inputs[2], access)?;
                (self.body.push(Inst::Select(cond, a, b)), ty)
            }
            Op::Cast => {
                let x = self.emit(inputs[0], access)?;
                self.convert(
                    x,
                    if node.dtype.is_float() {
                        Ty::F32
                    } else {
                        Ty::I64
                    },
                )
            }
            Op::Within(size) => {
                let (x, ty) = self.number(inputs[0], access)?;
                (self.body.push(Inst::Within(x, size)), ty)
            }
            Op::Gather(axis) => self.pick(inputs[0], inputs[1], axis, access)?,
            Op::Reduce(f, axis) => {
                let whole = &self.graph.node(inputs[0]).shape;
                let aligned = *whole == self.space
                    && axis + 1 == whole.len()
                    && (0..axis).all(|i| access[i] == Index::axis(i) || whole[i].is(1));
                if !aligned {
                    let stored = self.groups.apart(id);
                    return Err(Stop(stored, "its consumer walks over other rows"));
                }
                let identity = (0..whole.len()).map(Index::axis).collect();
                let (x, ty) = self.number(inputs[0], &identity)?;
                (self.body.push(Inst::Reduce(f, x)), ty)
            }
            _ => return Err(Stop(id, "an operand of a kernel must be in memory")),
        };
        if !node.op.is_generated() && node.op != Op::Cast {
            self.ops.push(node.op.name());
        }
        Ok(value)
    }

    /// A value that is not a truth value.
    pub(super) fn number(&mut self, id: NodeId, access: &Access) -> Result<(Reg, Ty), Stop> {
        let value = self.emit(id, access)?;
        Ok(match value.1 {
            Ty::Bool => self.convert(value, Ty::I64),
            _ => value,
        })
    }

    fn convert(&mut self, (reg, ty): (Reg, Ty), to: Ty) -> (Reg, Ty) {
        match ty == to {
            true => (reg, ty),
            false => (self.body.push(Inst::Cast(reg, to)), to),
        }
    }

    /// An index as a register.
    fn index(&mut self, index: &Index) -> Reg {
        let mut sum = self.body.push(Inst::I64(index.offset.clone()));
        for (axis, stride) in &index.terms {
            let i = self.body.push(Inst::Iota(*axis as u8));
            let s = self.body.push(Inst::I64(stride.clone()));
            let term = self.body.binary(Binary::Mul, i, s);
            sum = self.body.binary(Binary::Add, sum, term);
        }
        sum
    }

    fn causal(&mut self, access: &Access, offset: &Dim, window: Option<usize>) -> (Reg, Ty) {
        let (i, j) = (self.index(&access[0]), self.index(&access[1]));
        let offset = self.body.push(Inst::I64(offset.clone()));
        let last = self.body.binary(Binary::Add, i, offset);
        let after = self.body.push(Inst::Compare(Compare::Gt, j, last));
        let Some(window) = window else {
            return (after, Ty::Bool);
        };
        let window = self.body.push(Inst::I64(Dim::from(window)));
        let first = self.body.binary(Binary::Sub, last, window);
        let before = self.body.push(Inst::Compare(Compare::Le, j, first));
        let one = self.body.push(Inst::I64(Dim::from(1)));
        let before = self.body.push(Inst::Cast(before, Ty::I64));
        let either = self.body.push(Inst::Select(after, one, before));
        (self.body.push(Inst::Cast(either, Ty::Bool)), Ty::Bool)
    }
}
