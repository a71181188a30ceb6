//! The block interpreter: every register is a run of lanes, each instruction one loop.
//!
//! A block covers one or several rows of an index space, `len` consecutive points of its last
//! axis each. Loads and stores walk the rows; everything else is one vectorised loop over all
//! lanes. Registers of one type lie in one file in order of definition, and operands are always
//! defined earlier, so splitting the file at the result gives disjoint slices.

use super::HostError;
use super::call_view::{CallView, Index, MAX_AXES};
use super::fold::{self, RunningFold};
use super::math;
use super::program::{Program, Slot};
use super::simd::{self, Job, Simd};
use super::span::Args;
use crate::{Arg, Binary, Compare, Env, Inst, Reg, Unary};
use std::cell::Cell;

/// A body with everything that one call fixes.
#[derive(Clone, Copy)]
pub(super) struct BodyCall<'a> {
    pub program: &'a Program,
    pub args: Args<'a>,
    pub env: &'a Env,
    /// By instruction; only loads and stores have one that matters.
    pub places: &'a [CallView],
    /// The space's axis that an [`Inst::Iota`] reads; `None` if that axis has one point.
    pub iotas: [Option<u8>; MAX_AXES],
    /// The axis that blocks run along.
    pub inner: usize,
}

/// Register files, kept by each thread between launches.
#[derive(Default)]
pub(super) struct Registers {
    pub(super) width: usize,
    pub(super) f32s: Vec<f32>,
    pub(super) i64s: Vec<i64>,
    bools: Vec<u32>,
}

thread_local! {
    static REGISTERS: Cell<Option<Box<Registers>>> = const { Cell::new(None) };
}

impl Registers {
    /// Lends this thread's registers with room for `width` lanes of each register.
    pub fn with<T>(program: &Program, width: usize, f: impl FnOnce(&mut Registers) -> T) -> T {
        let mut registers = REGISTERS.take().unwrap_or_default();
        registers.width = width;
        let [f32s, i64s, bools] = program.counts;
        grow(&mut registers.f32s, f32s * width);
        // One more than the program has: truth values are widened there on their way to memory.
        grow(&mut registers.i64s, (i64s + usize::from(bools > 0)) * width);
        grow(&mut registers.bools, bools * width);
        let out = f(&mut registers);
        REGISTERS.set(Some(registers));
        out
    }

    /// The first `count` lanes of an f32 register.
    #[inline(always)]
    pub fn lanes(&mut self, slot: usize, count: usize) -> &mut [f32] {
        &mut self.f32s[slot * self.width..][..count]
    }

    /// Runs the uniform instructions of a stage over all lanes.
    pub fn uniform(&mut self, call: &BodyCall, stage: usize) -> Result<(), HostError> {
        let list = &call.program.stages[stage].uniform;
        match list.is_empty() {
            true => Ok(()),
            false => self.exec(call, list, &[], self.width),
        }
    }

    /// Runs instructions over a block of `rows.len() * len` lanes. Uniform instructions need no
    /// rows: then `len` is the number of lanes.
    pub fn exec(
        &mut self,
        call: &BodyCall,
        list: &[usize],
        rows: &[Index],
        len: usize,
    ) -> Result<(), HostError> {
        simd::run(Exec {
            registers: self,
            call,
            list,
            rows,
            len,
        })
    }

    #[inline(always)]
    fn interpret<S: Simd>(
        &mut self,
        call: &BodyCall,
        list: &[usize],
        rows: &[Index],
        len: usize,
    ) -> Result<(), HostError> {
        let n = len * rows.len().max(1);
        let w = self.width;
        let program = call.program;
        for &at in list {
            let of = |r: &Reg| program.slots[r.0 as usize];
            match (&program.insts[at], program.slots[at]) {
                (Inst::Load(arg, _), _) => self.load::<S>(call, *arg, at, (rows, len))?,
                (Inst::Store(arg, _, value), _) => {
                    self.store::<S>(call, *arg, at, of(value), (rows, len))?;
                }
                (Inst::Pick(arg, _, stride, by), _) => {
                    let stride = stride.eval(call.env);
                    self.pick::<S>(call, (*arg, stride), at, of(by), (rows, len))?;
                }
                (Inst::Within(x, size), Slot::I64(o)) => {
                    self.within(of(x), o, size.eval(call.env), n)?;
                }
                (Inst::F32(c), Slot::F32(o)) => self.f32s[o * w..][..n].fill(*c),
                (Inst::I64(d), Slot::I64(o)) => self.i64s[o * w..][..n].fill(d.eval(call.env)),
                (Inst::Iota(axis), Slot::I64(o)) => {
                    self.iota(call, call.iotas[*axis as usize], o, rows, len);
                }
                (Inst::Unary(f, x), out) => self.unary::<S>(*f, of(x), out, n),
                (Inst::Binary(f, x, y), out) => self.binary(*f, [of(x), of(y)], out, n),
                (Inst::Compare(f, x, y), out) => self.compare(*f, [of(x), of(y)], out, n),
                (Inst::Select(c, x, y), out) => self.select(of(c), [of(x), of(y)], out, n),
                (Inst::Cast(x, _), slot) => self.cast(of(x), slot, n),
                // Inputs, folds and yields are the owner's; the rest cannot pass the check.
                (Inst::Input | Inst::Reduce(..) | Inst::Yield(_), _) => {}
                (Inst::F32(_) | Inst::I64(_) | Inst::Iota(_) | Inst::Within(..), _) => {}
            }
        }
        Ok(())
    }

    /// Reads what a load has in each row of a block.
    #[inline(always)]
    fn load<S: Simd>(
        &mut self,
        call: &BodyCall,
        arg: Arg,
        at: usize,
        (rows, len): (&[Index], usize),
    ) -> Result<(), HostError> {
        let w = self.width;
        for (r, index) in rows.iter().enumerate() {
            let run = call.places[at].run(index, call.inner, len);
            match call.program.slots[at] {
                Slot::F32(o) => {
                    let out = &mut self.f32s[o * w + r * len..][..len];
                    call.args.load_f32::<S>(arg, run, out)?;
                }
                Slot::I64(o) => {
                    let out = &mut self.i64s[o * w + r * len..][..len];
                    call.args.load_i64(arg, run, out)?;
                }
                Slot::Bool(_) | Slot::None => {}
            }
        }
        Ok(())
    }

    /// Writes a value of each row of a block.
    #[inline(always)]
    fn store<S: Simd>(
        &mut self,
        call: &BodyCall,
        arg: Arg,
        at: usize,
        value: Slot,
        (rows, len): (&[Index], usize),
    ) -> Result<(), HostError> {
        let (w, spare) = (self.width, call.program.counts[1]);
        if let Slot::Bool(i) = value {
            self.bools_as_i64s(i, spare, len * rows.len().max(1));
        }
        for (r, index) in rows.iter().enumerate() {
            let run = call.places[at].run(index, call.inner, len);
            match value {
                Slot::F32(i) => {
                    let from = &self.f32s[i * w + r * len..][..len];
                    call.args.store_f32::<S>(arg, run, from)?;
                }
                Slot::I64(i) => {
                    let from = &self.i64s[i * w + r * len..][..len];
                    call.args.store_i64(arg, run, from)?;
                }
                Slot::Bool(_) => {
                    let from = &self.i64s[spare * w + r * len..][..len];
                    call.args.store_i64(arg, run, from)?;
                }
                Slot::None => {}
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn unary<S: Simd>(&mut self, f: Unary, x: Slot, out: Slot, n: usize) {
        let w = self.width;
        match (out, x) {
            (Slot::F32(o), Slot::F32(x)) => {
                let (lo, hi) = self.f32s.split_at_mut(o * w);
                math::unary_f32::<S>(f, &lo[x * w..][..n], &mut hi[..n]);
            }
            (Slot::I64(o), Slot::I64(x)) => {
                let (lo, hi) = self.i64s.split_at_mut(o * w);
                math::unary_i64(f, &lo[x * w..][..n], &mut hi[..n]);
            }
            // Operands have the type of the result.
            (Slot::F32(_) | Slot::I64(_) | Slot::Bool(_) | Slot::None, _) => {}
        }
    }

    #[inline(always)]
    fn binary(&mut self, f: Binary, operands: [Slot; 2], out: Slot, n: usize) {
        let w = self.width;
        match (out, operands) {
            (Slot::F32(o), [Slot::F32(x), Slot::F32(y)]) => {
                let (lo, hi) = self.f32s.split_at_mut(o * w);
                let (x, y) = (&lo[x * w..][..n], &lo[y * w..][..n]);
                math::binary_f32(f, x, y, &mut hi[..n]);
            }
            (Slot::I64(o), [Slot::I64(x), Slot::I64(y)]) => {
                let (lo, hi) = self.i64s.split_at_mut(o * w);
                let (x, y) = (&lo[x * w..][..n], &lo[y * w..][..n]);
                math::binary_i64(f, x, y, &mut hi[..n]);
            }
            (Slot::F32(_) | Slot::I64(_) | Slot::Bool(_) | Slot::None, _) => {}
        }
    }

    #[inline(always)]
    fn compare(&mut self, f: Compare, operands: [Slot; 2], out: Slot, n: usize) {
        let w = self.width;
        let Slot::Bool(o) = out else { return };
        let out = &mut self.bools[o * w..][..n];
        match operands {
            [Slot::F32(x), Slot::F32(y)] => {
                let (x, y) = (&self.f32s[x * w..][..n], &self.f32s[y * w..][..n]);
                math::compare(f, x, y, out);
            }
            [Slot::I64(x), Slot::I64(y)] => {
                let (x, y) = (&self.i64s[x * w..][..n], &self.i64s[y * w..][..n]);
                math::compare(f, x, y, out);
            }
            _ => {}
        }
    }

    #[inline(always)]
    fn select(&mut self, c: Slot, operands: [Slot; 2], out: Slot, n: usize) {
        let w = self.width;
        let Slot::Bool(c) = c else { return };
        match (out, operands) {
            (Slot::F32(o), [Slot::F32(x), Slot::F32(y)]) => {
                let (lo, hi) = self.f32s.split_at_mut(o * w);
                let (x, y) = (&lo[x * w..][..n], &lo[y * w..][..n]);
                math::select(&self.bools[c * w..][..n], x, y, &mut hi[..n]);
            }
            (Slot::I64(o), [Slot::I64(x), Slot::I64(y)]) => {
                let (lo, hi) = self.i64s.split_at_mut(o * w);
                let (x, y) = (&lo[x * w..][..n], &lo[y * w..][..n]);
                math::select(&self.bools[c * w..][..n], x, y, &mut hi[..n]);
            }
            (Slot::Bool(o), [Slot::Bool(x), Slot::Bool(y)]) => {
                let (lo, hi) = self.bools.split_at_mut(o * w);
                let (x, y) = (&lo[x * w..][..n], &lo[y * w..][..n]);
                math::select(&lo[c * w..][..n], x, y, &mut hi[..n]);
            }
            (Slot::F32(_) | Slot::I64(_) | Slot::Bool(_) | Slot::None, _) => {}
        }
    }

    /// Folds the lanes of a reduction's operand.
    pub fn fold(
        &mut self,
        program: &Program,
        at: usize,
        fold: &mut Option<RunningFold>,
        len: usize,
    ) {
        let Inst::Reduce(_, x) = &program.insts[at] else {
            return;
        };
        match (fold, program.slots[x.0 as usize]) {
            (Some(RunningFold::Float(fold)), Slot::F32(x)) => {
                fold.take(&self.f32s[x * self.width..][..len]);
            }
            (Some(RunningFold::Integer(kind, acc)), Slot::I64(x)) => {
                *acc = fold::integers(*kind, *acc, &self.i64s[x * self.width..][..len]);
            }
            // A fold is made for its operand's type.
            (Some(_) | None, _) => {}
        }
    }

    /// Puts a reduction's value into all lanes of its register.
    pub fn splat(&mut self, program: &Program, at: usize, fold: Option<RunningFold>) {
        match (program.slots[at], fold) {
            (Slot::F32(o), Some(RunningFold::Float(fold))) => {
                self.f32s[o * self.width..][..self.width].fill(fold.finish());
            }
            (Slot::I64(o), Some(RunningFold::Integer(_, value))) => {
                self.i64s[o * self.width..][..self.width].fill(value);
            }
            (_, Some(_) | None) => {}
        }
    }

    /// Indices along one axis.
    fn iota(&mut self, call: &BodyCall, axis: Option<u8>, o: usize, rows: &[Index], len: usize) {
        let n = len * rows.len();
        let out = &mut self.i64s[o * self.width..][..n];
        let Some(axis) = axis else {
            return out.fill(0);
        };
        for (row, index) in out.chunks_mut(len.max(1)).zip(rows) {
            let first = index[axis as usize];
            match axis as usize == call.inner {
                true => (row.iter_mut().zip(first..)).for_each(|(o, i)| *o = i),
                false => row.fill(first),
            }
        }
    }

    #[inline(always)]
    fn cast(&mut self, from: Slot, to: Slot, n: usize) {
        let w = self.width;
        let (f, i, b) = (&mut self.f32s, &mut self.i64s, &mut self.bools);
        match (from, to) {
            (Slot::F32(x), Slot::F32(o)) => f.copy_within(x * w..x * w + n, o * w),
            (Slot::I64(x), Slot::I64(o)) => i.copy_within(x * w..x * w + n, o * w),
            (Slot::Bool(x), Slot::Bool(o)) => b.copy_within(x * w..x * w + n, o * w),
            (Slot::F32(x), Slot::I64(o)) => {
                math::cast(&f[x * w..][..n], &mut i[o * w..], |x: f32| x as i64);
            }
            (Slot::F32(x), Slot::Bool(o)) => {
                math::cast(&f[x * w..][..n], &mut b[o * w..], |x: f32| {
                    u32::from(x != 0.0)
                });
            }
            (Slot::I64(x), Slot::F32(o)) => {
                math::cast(&i[x * w..][..n], &mut f[o * w..], |x: i64| x as f32);
            }
            (Slot::I64(x), Slot::Bool(o)) => {
                math::cast(&i[x * w..][..n], &mut b[o * w..], |x: i64| {
                    u32::from(x != 0)
                });
            }
            (Slot::Bool(x), Slot::F32(o)) => {
                math::cast(&b[x * w..][..n], &mut f[o * w..], |x: u32| x as f32);
            }
            (Slot::Bool(x), Slot::I64(o)) => {
                math::cast(&b[x * w..][..n], &mut i[o * w..], i64::from);
            }
            (Slot::None, _) | (_, Slot::None) => {}
        }
    }

    /// Widens a truth register into the spare register after the last integer one.
    fn bools_as_i64s(&mut self, x: usize, spare: usize, n: usize) {
        let w = self.width;
        math::cast(
            &self.bools[x * w..][..n],
            &mut self.i64s[spare * w..],
            i64::from,
        );
    }
}

struct Exec<'a> {
    registers: &'a mut Registers,
    call: &'a BodyCall<'a>,
    list: &'a [usize],
    rows: &'a [Index],
    len: usize,
}

impl Job for Exec<'_> {
    type Out = Result<(), HostError>;
    #[inline(always)]
    fn run<S: Simd>(self) -> Self::Out {
        self.registers
            .interpret::<S>(self.call, self.list, self.rows, self.len)
    }
}

fn grow<T: Copy + Default>(v: &mut Vec<T>, len: usize) {
    if v.len() < len {
        v.resize(len, T::default());
    }
}
