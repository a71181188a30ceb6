//! Bodies as instructions: a body for some neighbouring points of its index space.
//!
//! The points differ in the last axis only and are as many as there are *lanes*. A value that
//! does not depend on the last axis is one register for all lanes; what does is one register
//! for each. Loads and stores that touch neighbouring elements are one access of up to 16 bytes.

use super::access;
use super::asm::{Asm, Class, Int, R};
use super::math;
use super::pick;
use super::scope::Scope;
use crate::launch::widths::fixed_along_lanes;
use crate::{Arg, Body, DType, Inst, Reg, View};

/// Where a body runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point<'a> {
    /// The index along each axis (signed 32-bit); the last is that of the first lane, and a
    /// multiple of `lanes`.
    pub at: &'a [Int],
    /// Neighbouring points along the last axis, all inside of the space: 1, 2, 4 or 8.
    pub lanes: usize,
    /// The template's value for each lane (f32), if it has one.
    pub input: &'a [R],
}

/// Emits a body without reductions at a point; returns what it yields, for each lane (f32).
pub(super) fn run(
    asm: &mut Asm,
    scope: &Scope,
    body: &Body,
    args: &[DType],
    point: Point<'_>,
) -> Vec<R> {
    let mut lanes = Lanes::new(scope, body, args);
    for inst in 0..body.insts.len() {
        lanes.step(asm, point, inst);
    }
    let yielded = body.yielded();
    (0..point.lanes)
        .filter_map(|l| yielded.map(|y| lanes.lane(y, l)))
        .collect()
}

/// What a register of a body holds: floats are f32, integers s64, truths predicates.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// The same in all lanes.
    Uniform(R),
    /// One for each lane.
    Each(Vec<R>),
}

/// The registers of a body at one point, filled instruction by instruction.
#[derive(Clone, Debug)]
pub(super) struct Lanes<'a> {
    scope: &'a Scope,
    body: &'a Body,
    args: &'a [DType],
    values: Vec<Option<Value>>,
    /// Where loads and stores begin, if that was made ahead of them.
    places: Vec<Option<R>>,
}

impl<'a> Lanes<'a> {
    pub fn new(scope: &'a Scope, body: &'a Body, args: &'a [DType]) -> Self {
        Lanes {
            scope,
            body,
            args,
            values: vec![None; body.insts.len()],
            places: vec![None; body.insts.len()],
        }
    }

    /// Gives a register its value from outside: a fold, or what another point has computed.
    pub fn set(&mut self, reg: Reg, value: Value) {
        self.values[reg.0 as usize] = Some(value);
    }

    /// The value of a register whose instruction has run.
    pub fn value(&self, reg: Reg) -> &Value {
        // A checked body reads only what earlier instructions gave a value.
        let value = self.values[reg.0 as usize].as_ref();
        value.expect("an operand is an earlier value")
    }

    /// The register's value in one lane.
    pub fn lane(&self, reg: Reg, lane: usize) -> R {
        match self.value(reg) {
            Value::Uniform(r) => *r,
            Value::Each(all) => all[lane],
        }
    }

    /// Makes the address of a load or store ahead of it, for the same point.
    pub fn aim(&mut self, asm: &mut Asm, point: Point<'_>, inst: usize) -> Option<R> {
        let (arg, view, _) = self.body.insts[inst].access()?;
        let size = self.args[arg.0 as usize].size();
        let place = self.scope.address(asm, arg, view, point.at, size);
        self.places[inst] = Some(place);
        Some(place)
    }

    /// All addresses that were made ahead.
    pub fn places(&self) -> impl Iterator<Item = &R> {
        self.places.iter().flatten()
    }

    /// Where the access of an instruction begins.
    fn place(&self, asm: &mut Asm, point: Point<'_>, inst: usize, (arg, view): (Arg, &View)) -> R {
        let size = self.args[arg.0 as usize].size();
        match self.places[inst] {
            Some(place) => place,
            None => self.scope.address(asm, arg, view, point.at, size),
        }
    }

    /// Emits one instruction, which is not a reduction; its operands have run.
    pub fn step(&mut self, asm: &mut Asm, point: Point<'_>, inst: usize) {
        self.step_if(asm, point, inst, None);
    }

    /// As [`Lanes::step`], but a load gives zeros where `p` does not hold: the point may then lie
    /// outside of the space.
    pub fn step_if(&mut self, asm: &mut Asm, point: Point<'_>, inst: usize, p: Option<R>) {
        let value = match &self.body.insts[inst] {
            Inst::Load(arg, view) => {
                let place = self.place(asm, point, inst, (*arg, view));
                self.load(asm, point, (*arg, view, place), p)
            }
            Inst::Pick(arg, view, stride, by) => {
                let place = self.place(asm, point, inst, (*arg, view));
                let pick = pick::Picked {
                    scope: self.scope,
                    dtype: self.args[arg.0 as usize],
                    size: self.body.bound(*by),
                    stride,
                };
                let some = pick.some(asm, p);
                // Where neither differs between lanes, all pick the same.
                let uniform = matches!(self.value(*by), Value::Uniform(_));
                let one = |asm: &mut Asm, lane: usize| {
                    let (place, offset) =
                        self.lane_address(asm, place, view, lane, pick.dtype.size());
                    pick.load(asm, (place, offset), self.lane(*by, lane), some)
                };
                match uniform && fixed_along_lanes(view) {
                    true => Value::Uniform(one(asm, 0)),
                    false => Value::Each((0..point.lanes).map(|l| one(asm, l)).collect()),
                }
            }
            Inst::Within(x, size) => {
                let size = self.scope.wide(asm, size);
                self.map(point, [*x], |[x]| {
                    pick::within(asm, self.scope, (x, size), p)
                })
            }
            Inst::Input => Value::Each(point.input.to_vec()),
            Inst::F32(c) => Value::Uniform(asm.f32(*c)),
            Inst::I64(d) => {
                let d = self.scope.wide(asm, d);
                Value::Uniform(asm.op("mov.b64", Class::B64, &[&d]))
            }
            Inst::Iota(axis) => iota(asm, point, *axis as usize),
            Inst::Unary(f, x) => self.map(point, [*x], |[x]| match x.class {
                Class::F32 => math::unary_f32(asm, *f, x),
                _ => math::unary_i64(asm, *f, x),
            }),
            Inst::Binary(f, x, y) => self.map(point, [*x, *y], |[x, y]| match x.class {
                Class::F32 => math::binary_f32(asm, *f, x, y),
                _ => math::binary_i64(asm, *f, x, y),
            }),
            Inst::Compare(f, x, y) => {
                self.map(point, [*x, *y], |[x, y]| math::compare(asm, *f, x, y))
            }
            Inst::Select(c, x, y) => {
                self.map(point, [*c, *x, *y], |[c, x, y]| math::select(asm, c, x, y))
            }
            Inst::Cast(x, ty) => self.map(point, [*x], |[x]| math::cast(asm, x, *ty)),
            Inst::Store(arg, view, x) => {
                let place = self.place(asm, point, inst, (*arg, view));
                return self.store(asm, point, (*arg, view, place), *x);
            }
            // A yield has no value of its own; folds are their owner's.
            Inst::Yield(_) | Inst::Reduce(..) => return,
        };
        self.values[inst] = Some(value);
    }

    /// Applies a function to operands: once if none of them differs between lanes.
    fn map<const N: usize>(
        &self,
        point: Point<'_>,
        operands: [Reg; N],
        mut f: impl FnMut([R; N]) -> R,
    ) -> Value {
        let uniform = |r: &Reg| matches!(self.value(*r), Value::Uniform(_));
        let mut at = |lane: usize| f(operands.map(|r| self.lane(r, lane)));
        match operands.iter().all(uniform) {
            true => Value::Uniform(at(0)),
            false => Value::Each((0..point.lanes).map(at).collect()),
        }
    }

    fn load(
        &self,
        asm: &mut Asm,
        point: Point<'_>,
        (arg, view, address): (Arg, &View, R),
        p: Option<R>,
    ) -> Value {
        let dtype = self.args[arg.0 as usize];
        let size = dtype.size();
        let read = |asm: &mut Asm, address: R, offset: i64, bytes: usize| match p {
            None => access::load(asm, address, offset, bytes, size),
            Some(p) => access::load_if(asm, p, address, offset, bytes, size),
        };
        if fixed_along_lanes(view) {
            let bits = read(asm, address, 0, size);
            return Value::Uniform(access::decode(asm, dtype, &bits, 1)[0]);
        }
        let width = access::width(view, Some(point.at), point.lanes, size);
        let mut all = Vec::with_capacity(point.lanes);
        for from in (0..point.lanes).step_by(width) {
            let (address, offset) = self.lane_address(asm, address, view, from, size);
            let bits = read(asm, address, offset, width * size);
            all.extend(access::decode(asm, dtype, &bits, width));
        }
        Value::Each(all)
    }

    fn store(
        &self,
        asm: &mut Asm,
        point: Point<'_>,
        (arg, view, address): (Arg, &View, R),
        value: Reg,
    ) {
        let dtype = self.args[arg.0 as usize];
        let size = dtype.size();
        // What all lanes write to one element is the last lane's.
        let (first, width) = match fixed_along_lanes(view) {
            true => (point.lanes - 1, 1),
            false => (0, access::width(view, Some(point.at), point.lanes, size)),
        };
        for from in (first..point.lanes).step_by(width) {
            let values: Vec<R> = (from..from + width)
                .map(|l| math::widen(asm, self.lane(value, l)))
                .collect();
            let bits = access::encode(asm, self.scope.target, dtype, &values);
            let (address, offset) = self.lane_address(asm, address, view, from, size);
            let (space, at) = (self.scope.space(arg), (address, offset));
            access::store_to(asm, space, at, width * size, size, &bits);
        }
    }

    /// The address of a lane as a register and a constant.
    fn lane_address(
        &self,
        asm: &mut Asm,
        address: R,
        view: &View,
        lane: usize,
        size: usize,
    ) -> (R, i64) {
        let bytes = (lane * size) as i64;
        let Some(stride) = view.strides.last().filter(|_| lane > 0) else {
            return (address, 0);
        };
        match self.scope.wide(asm, stride) {
            Int::Imm(s) if i32::try_from(s.saturating_mul(bytes)).is_ok() => (address, s * bytes),
            stride => {
                let step = asm.op("mov.b64", Class::B64, &[&stride]);
                let at = asm.op("mad.lo.s64", Class::B64, &[&step, &bytes, &address]);
                (at, 0)
            }
        }
    }
}

/// The index along an axis.
fn iota(asm: &mut Asm, point: Point<'_>, axis: usize) -> Value {
    let last = axis + 1 == point.at.len();
    let first = match point.at.get(axis) {
        Some(Int::Reg(r)) => asm.op("cvt.s64.s32", Class::B64, &[r]),
        Some(Int::Imm(i)) => asm.op("mov.b64", Class::B64, &[i]),
        None => asm.op("mov.b64", Class::B64, &[&0]),
    };
    if !last || point.lanes == 1 {
        return Value::Uniform(first);
    }
    let mut all = vec![first];
    all.extend((1..point.lanes).map(|l| asm.op("add.s64", Class::B64, &[&first, &l])));
    Value::Each(all)
}
