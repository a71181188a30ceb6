//! The invariants of a program, whether it was just lowered or read from a file.
//!
//! Whoever runs a program indexes by its ids and multiplies its sizes without asking again:
//! after [`Program::verify`] every id exists, every size fits, operands have the dtype that
//! their kernel expects, nothing is read before it is written, and what weights are said to be
//! used for is what they are used for.
//!
//! Checking ends soon whatever the program says: it takes time and memory in proportion to the
//! program's own size, but for what is counted and bounded here.

use super::{Buffer, BufferId, BufferKind, Launch, Program, Source};
use crate::Error;
use std::collections::BTreeSet;
use trt_kernel::{Arg, DType, Dim, Inst, Interval, Kernel, Order, Roles, Var};

/// No size, stride or offset is larger: products with an element's size and sums of many still
/// fit 64 bits.
const LARGEST: i64 = 1 << 48;
/// The most axes of a tensor.
const AXES: usize = 16;
/// The most arguments of a launch, and the most pairs of buffers that may share memory in it.
const ARGUMENTS: usize = 1 << 10;
/// The most kernels in one launch.
const PARTS: usize = 1 << 8;
/// The most terms that multiplying a shape's sizes goes through.
const TERMS: usize = 1 << 12;
/// The most instructions that are looked at to tell that parts of one launch do not meet.
const LOOKS: usize = 1 << 22;

type Checked = Result<(), String>;

fn ensure(ok: bool, what: impl FnOnce() -> String) -> Checked {
    if ok { Ok(()) } else { Err(what()) }
}

impl Program {
    /// Checks everything that running a program relies on.
    ///
    /// # Errors
    ///
    /// [`Error::Program`] with the first thing that is wrong.
    pub fn verify(&self) -> Result<(), Error> {
        let all = || {
            self.check_integers()?;
            let ranges = self.ranges();
            self.check_declarations(&ranges)?;
            for (i, buffer) in self.buffers.iter().enumerate() {
                let checked = self.check_buffer(buffer, &ranges);
                checked.map_err(|what| format!("buffer b{i}: {what}"))?;
            }
            for (i, launch) in self.launches.iter().enumerate() {
                let checked = self.check_launch(launch, &ranges);
                checked.map_err(|what| format!("launch {i} ({}): {what}", launch.label))?;
            }
            self.check_order()?;
            self.check_weights()
        };
        all().map_err(Error::Program)
    }

    fn check_integers(&self) -> Checked {
        let all = self.ints.len().saturating_add(self.floors.len());
        ensure(all <= Var::MAX, || format!("{all} runtime integers"))?;
        let broken = |r: Interval| r.min < 0 || r.min > r.max || r.max > LARGEST;
        if let Some(i) = self.ints.iter().find(|i| broken(i.range)) {
            let (name, Interval { min, max }) = (&i.name, i.range);
            return Err(format!("{name} is in {min}..={max}"));
        }
        let ranges = self.ranges();
        for (i, floor) in self.floors.iter().enumerate() {
            ensure(floor.by >= 2, || format!("{} divides", floor.by))?;
            // Computed of earlier ones only.
            small(&floor.of, &ranges[..self.ints.len() + i])?;
        }
        Ok(())
    }

    /// Inputs, outputs and states, each of the shape and dtype of its buffer. The buffers come in
    /// this order, before all others.
    fn check_declarations(&self, ranges: &[Interval]) -> Checked {
        let inputs = self.inputs.iter().map(|d| (d.shape.clone(), d.dtype));
        let outputs = self.outputs.iter().cloned();
        let mut declared: Vec<(BufferKind, Vec<Dim>, DType)> = Vec::new();
        let of = |kind: fn(usize) -> BufferKind| {
            move |(i, (shape, dtype)): (usize, (Vec<Dim>, DType))| (kind(i), shape, dtype)
        };
        declared.extend(inputs.enumerate().map(of(BufferKind::Input)));
        declared.extend(outputs.enumerate().map(of(BufferKind::Output)));
        for (i, state) in self.states.iter().enumerate() {
            count(&state.shape, ranges)?;
            if let Some(initial) = &state.initial {
                let bytes = state.capacity.iter().copied();
                let bytes = bytes.fold(state.dtype.size(), usize::saturating_mul);
                let found = initial.bytes.len();
                ensure(found > 0 && bytes.is_multiple_of(found), || {
                    format!("state {i} of {bytes} bytes begins with {found}")
                })?;
            }
            let capacity = state.capacity.iter().map(|c| Dim::from(*c)).collect();
            declared.push((BufferKind::State(i), capacity, state.dtype));
        }
        for (i, (kind, shape, dtype)) in declared.iter().enumerate() {
            let len = count(shape, ranges)?;
            let found = self.buffers.get(i);
            let fits = |b: &Buffer| b.kind == *kind && b.dtype == *dtype && b.len == len;
            ensure(found.is_some_and(fits), || {
                format!("buffer b{i} is not {kind:?}, {len} of {dtype}")
            })?;
        }
        let rest = self.buffers.iter().skip(declared.len());
        let own = |b: &Buffer| matches!(b.kind, BufferKind::Const(_) | BufferKind::Temp);
        ensure(rest.into_iter().all(own), || {
            "more inputs, outputs or states than are declared".into()
        })
    }

    fn check_buffer(&self, buffer: &Buffer, ranges: &[Interval]) -> Checked {
        small(&buffer.len, ranges)?;
        let max = usize::try_from(self.integers().bound(&buffer.len)).unwrap_or(0);
        ensure(buffer.max_len == max, || {
            format!("{} elements at most, not {max}", buffer.max_len)
        })?;
        let BufferKind::Const(literal) = &buffer.kind else {
            return Ok(());
        };
        let bytes = buffer.len.constant_size().map(|n| n * buffer.dtype.size());
        ensure(bytes == Some(literal.bytes.len()), || {
            format!("{} bytes for {}", literal.bytes.len(), buffer.len)
        })
    }

    fn check_launch(&self, launch: &Launch, ranges: &[Interval]) -> Checked {
        let parts = launch.kernel.parts().len();
        ensure(parts <= PARTS, || format!("{parts} kernels in one launch"))?;
        let pairs = launch.in_place.len();
        ensure(pairs <= ARGUMENTS, || format!("{pairs} in place"))?;
        let encodings = launch.kernel.args();
        let fits = launch.args.len() == encodings.len() && encodings.len() <= ARGUMENTS;
        ensure(fits, || {
            format!("{} arguments for {}", launch.args.len(), encodings.len())
        })?;
        launch.kernel.check().map_err(|e| e.to_string())?;
        for dim in launch.kernel.dims() {
            small(dim, ranges)?;
        }
        for (i, (source, encoding)) in launch.args.iter().zip(&encodings).enumerate() {
            let found = match source {
                Source::Buffer(b) => self.buffers.get(b.0 as usize).map(|b| b.dtype.into()),
                Source::Weight(w) => self.weights.get(w.0 as usize).map(|w| w.encoding),
            };
            ensure(found == Some(*encoding), || {
                let found = found.map_or("nothing".into(), |found| found.to_string());
                format!("argument a{i} is {source} of {found}, not {encoding}")
            })?;
        }
        let written = written(launch);
        for source in &written {
            let constant = match source {
                Source::Weight(_) => true,
                Source::Buffer(b) => {
                    let kind = &self.buffer(*b).kind;
                    matches!(kind, BufferKind::Input(_) | BufferKind::Const(_))
                }
            };
            ensure(!constant, || format!("it writes to {source}"))?;
        }
        apart(&launch.kernel, &launch.args)?;
        let rows = matches!(&launch.kernel, Kernel::Attention(k) if !k.before.is_empty());
        ensure(!rows || launch.in_place.is_empty(), || {
            "blocks still read what its result would replace".into()
        })?;
        let temp = |b: BufferId| {
            let buffer = self.buffers.get(b.0 as usize);
            buffer.is_some_and(|b| b.kind == BufferKind::Temp)
        };
        for (out, read) in &launch.in_place {
            let (w, r) = (Source::Buffer(*out), Source::Buffer(*read));
            let fits = temp(*out) && temp(*read) && written.contains(&w);
            ensure(fits && launch.args.contains(&r), || {
                format!("{w} cannot take the place of {r}")
            })?;
        }
        Ok(())
    }

    /// Intermediate results and outputs are written before they are read.
    fn check_order(&self) -> Checked {
        let mut known: BTreeSet<BufferId> = BTreeSet::new();
        for (i, launch) in self.launches.iter().enumerate() {
            let written = written(launch);
            for source in &launch.args {
                let Source::Buffer(b) = source else { continue };
                let made = matches!(
                    self.buffer(*b).kind,
                    BufferKind::Temp | BufferKind::Output(_)
                );
                let ready = !made || known.contains(b) || written.contains(source);
                ensure(ready, || {
                    format!("launch {i} ({}) reads {source} too early", launch.label)
                })?;
            }
            known.extend(written.iter().filter_map(|s| match s {
                Source::Buffer(b) => Some(*b),
                Source::Weight(_) => None,
            }));
        }
        Ok(())
    }

    fn check_weights(&self) -> Checked {
        let mut uses = vec![Roles::default(); self.weights.len()];
        for launch in &self.launches {
            for (i, source) in launch.args.iter().enumerate() {
                let Source::Weight(w) = source else { continue };
                // Arguments were counted: a `u16` holds their numbers.
                uses[w.0 as usize].add(launch.kernel.role(Arg(i as u16)));
            }
        }
        for (w, found) in self.weights.iter().zip(uses) {
            let shape: Vec<Dim> = w.shape.iter().map(|d| Dim::from(*d)).collect();
            count(&shape, &[]).map_err(|what| format!("weight {}: {what}", w.name))?;
            ensure(w.roles == found, || {
                format!("weight {} is used otherwise than it says", w.name)
            })?;
        }
        Ok(())
    }
}

/// Parts of a group run in any order: none touches what another writes, but for what later parts
/// of a chain load of it.
pub(crate) fn apart(kernel: &Kernel, args: &[Source]) -> Checked {
    let group = match kernel {
        Kernel::Group(group) => group,
        Kernel::Attention(k) if !k.before.is_empty() => return once(kernel, args),
        _ => return Ok(()),
    };
    let source = |first: u16, i: usize| args.get(first as usize + i);
    let looks = std::cell::Cell::new(0usize);
    for (first, part) in kernel.numbered_parts() {
        for written in part.written() {
            let out = source(first, written.0 as usize);
            let others = kernel.numbered_parts().filter(|o| o.0 != first);
            for (f, other) in others {
                let uses = |i: &usize| out.is_some() && source(f, *i) == out;
                let chain = group.order == Order::Chain && f > first;
                let mut shared = (0..other.args().len()).filter(uses);
                let fits = |i| {
                    looks.set(looks.get() + instructions(part) + instructions(other));
                    let few = looks.get() <= LOOKS;
                    few && chain && follows(part, written, other, Arg(i as u16))
                };
                ensure(shared.all(fits), || {
                    let out = out.map_or_else(String::new, Source::to_string);
                    format!("one part writes {out}, which another uses")
                })?;
            }
        }
    }
    match group.order {
        Order::Side => Ok(()),
        Order::Chain => one_left(kernel, args),
    }
}

/// How many instructions telling whether one product follows another looks at.
fn instructions(kernel: &Kernel) -> usize {
    match kernel {
        Kernel::Matmul(k) => k.bodies().map(|b| b.insts.len()).sum(),
        _ => 0,
    }
}

/// Blocks of an attention run the rows before it in any order: what is written is one argument.
fn once(kernel: &Kernel, args: &[Source]) -> Checked {
    for written in kernel.written() {
        let out = args.get(written.0 as usize);
        ensure(args.iter().filter(|s| Some(*s) == out).count() == 1, || {
            let out = out.map_or_else(String::new, Source::to_string);
            format!("it writes {out}, which is another argument too")
        })?;
    }
    Ok(())
}

/// Whether a product uses an argument only in its epilogue, to load what another has stored there
/// at the same point.
fn follows(one: &Kernel, written: Arg, other: &Kernel, read: Arg) -> bool {
    let (Kernel::Matmul(one), Kernel::Matmul(other)) = (one, other) else {
        return false;
    };
    let mut stores = one.epilogue.insts.iter().filter_map(|i| match i {
        Inst::Store(a, v, _) if *a == written => Some(v),
        _ => None,
    });
    let Some(view) = stores.next() else {
        return false;
    };
    let loads = |inst: &Inst| match inst {
        Inst::Load(a, v) => *a != read || v == view,
        Inst::Store(a, ..) | Inst::Pick(a, ..) => *a != read,
        _ => true,
    };
    let operand = other.b.arg == read || other.a.args().contains(&read);
    stores.all(|v| v == view) && !operand && other.epilogue.insts.iter().all(loads)
}

/// Parts of a chain have their left operand from the same sources.
fn one_left(kernel: &Kernel, args: &[Source]) -> Checked {
    let lefts = kernel.numbered_parts().map(|(first, part)| match part {
        Kernel::Matmul(k) => {
            let own = k.a.args().into_iter();
            own.map(|a| args.get((first + a.0) as usize)).collect()
        }
        _ => Vec::new(),
    });
    let lefts: Vec<Vec<Option<&Source>>> = lefts.collect();
    ensure(lefts.windows(2).all(|pair| pair[0] == pair[1]), || {
        "parts of a chain have different left operands".into()
    })
}

/// What a launch writes. Its arguments are as many as its kernel's.
fn written(launch: &Launch) -> Vec<Source> {
    let args = launch.kernel.written();
    let sources = args.iter().map(|a| launch.args.get(a.0 as usize).copied());
    sources.flatten().collect()
}

/// The elements of a shape, if there are not too many in any call.
fn count(shape: &[Dim], ranges: &[Interval]) -> Result<Dim, String> {
    ensure(shape.len() <= AXES, || format!("{} axes", shape.len()))?;
    let mut total: i64 = 1;
    for dim in shape {
        let size = dim.magnitude(ranges).unwrap_or(i64::MAX).max(1);
        total = total.saturating_mul(size);
    }
    let elements = || shape.iter().map(Dim::to_string).collect::<Vec<_>>();
    ensure(total <= LARGEST, || {
        format!("[{}] has too many elements", elements().join(", "))
    })?;
    let terms = shape.iter().map(|d| d.terms().len().max(1));
    let terms = terms.fold(1, usize::saturating_mul);
    ensure(terms <= TERMS, || format!("a product of {terms} terms"))?;
    Ok(Dim::product(shape))
}

fn small(dim: &Dim, ranges: &[Interval]) -> Checked {
    let fits = |m: i64| m <= LARGEST;
    ensure(dim.magnitude(ranges).is_some_and(fits), || {
        format!("{dim} is too large, or depends on what the calls do not have")
    })
}
