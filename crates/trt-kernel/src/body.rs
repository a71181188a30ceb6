//! The straight-line program at the heart of every kernel.
//!
//! A [`Body`] is SSA: register `i` is the value of instruction `i`, and instructions refer only
//! to earlier ones. It runs once for each point of an index space whose axes the owning kernel
//! names. There are three register types ([`Ty`]); every float is computed in `f32` whatever the
//! dtype in memory, so a value is rounded only where it is stored. A [`Inst::Reduce`] folds a
//! value over the last axis (the columns of a row kernel); what depends on it is a row value. Where an
//! element is may depend on a value, too ([`Inst::Pick`]): that value has passed a [`Inst::Within`], so
//! what is reached is known before anything runs.
//! [`Body::check`] is the invariant.

use crate::{Binary, Compare, DType, Dim, Reduce, Unary};
use serde::{Deserialize, Serialize};

/// The index of a kernel argument (a pointer given at launch).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Arg(pub u16);

/// A register: the value of the instruction with this index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reg(pub u16);

/// The type of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Ty {
    /// A float; loaded from and rounded to any float dtype.
    F32,
    /// A signed integer; loaded from and stored to any integer dtype.
    I64,
    /// A truth value; stored to integer dtypes as 0 or 1.
    Bool,
}

/// How an index-space point maps to an element: `offset + Σ index[axis] * strides[axis]`, in
/// elements. A broadcast axis has stride 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct View {
    /// Element offset of the point at the origin.
    pub offset: Dim,
    /// One stride, in elements, for each axis of the space.
    pub strides: Vec<Dim>,
}

impl View {
    /// A row-major view of the whole space.
    pub fn contiguous(space: &[Dim]) -> Self {
        let mut strides = vec![Dim::from(1); space.len()];
        for axis in (1..space.len()).rev() {
            strides[axis - 1] = &strides[axis] * &space[axis];
        }
        View {
            offset: Dim::from(0),
            strides,
        }
    }

    /// The view of a space with one more axis.
    pub fn along(&self, stride: &Dim) -> Self {
        let mut view = self.clone();
        view.strides.push(stride.clone());
        view
    }
}

/// One instruction; its value is the register with its index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Inst {
    /// Reads an element: a float dtype gives [`Ty::F32`], an integer dtype [`Ty::I64`].
    Load(Arg, View),
    /// The value that the template hands in: a matmul's sum, an attention score, a gathered
    /// element. Always [`Ty::F32`].
    Input,
    /// A float constant.
    F32(f32),
    /// An integer that may depend on the runtime integers.
    I64(Dim),
    /// The index along one axis of the space, as [`Ty::I64`].
    Iota(u8),
    /// A function of one float (integers: `Neg`, `Abs`, `Sqr`, `Sign`).
    Unary(Unary, Reg),
    /// A function of two values of one type (float or integer).
    Binary(Binary, Reg, Reg),
    /// A comparison of two values of one type.
    Compare(Compare, Reg, Reg),
    /// `if c { a } else { b }`: `c` is [`Ty::Bool`], `a` and `b` have one type.
    Select(Reg, Reg, Reg),
    /// Conversion; float to integer truncates and saturates, anything to `Bool` is `!= 0`.
    Cast(Reg, Ty),
    /// A fold of a number over the columns; row kernels only. A sum of integers wraps.
    Reduce(Reduce, Reg),
    /// Writes an element, rounding to the argument's dtype. Its register has no value.
    Store(Arg, View, Reg),
    /// The value handed back to the template (an attention's score). Its register has no value.
    Yield(Reg),
    /// Reads the element that lies as many strides beyond the view's as a register says, which is that
    /// of an [`Inst::Within`].
    Pick(Arg, View, Dim, Reg),
    /// The same integer, which is at least 0 and below a size: any other is an error of the launch.
    Within(Reg, Dim),
}

/// What [`Body::check`] can find wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// An operand is not an earlier value.
    #[error("instruction %{at} uses %{operand}, which is not an earlier value")]
    Order {
        /// The instruction.
        at: usize,
        /// Its operand.
        operand: u16,
    },
    /// Operand types do not fit the instruction.
    #[error("instruction %{at} ({inst}) does not accept operands of type {types}")]
    Type {
        /// The instruction.
        at: usize,
        /// Its text.
        inst: String,
        /// The types found.
        types: String,
    },
    /// An argument index is beyond the kernel's arguments.
    #[error("instruction %{at} names argument {arg}, but the kernel has {args}")]
    Arg {
        /// The instruction.
        at: usize,
        /// The argument it names.
        arg: u16,
        /// The number of arguments.
        args: usize,
    },
    /// A view or axis does not match the index space.
    #[error("instruction %{at} addresses {found} axes, but the index space has {axes}")]
    Axes {
        /// The instruction.
        at: usize,
        /// Axes it addresses.
        found: usize,
        /// Axes of the space.
        axes: usize,
    },
    /// What picks an element was not held against a size.
    #[error("instruction %{at} picks by %{operand}, which is no `within`")]
    Unbounded {
        /// The instruction.
        at: usize,
        /// What it picks by.
        operand: u16,
    },
    /// An instruction that this kind of kernel does not offer.
    #[error("instruction %{at} ({inst}) is not allowed in {place}")]
    Place {
        /// The instruction.
        at: usize,
        /// Its text.
        inst: String,
        /// The kernel kind.
        place: &'static str,
    },
}

/// A straight-line SSA program. Build one with [`BodyBuilder`].
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Body {
    /// The instructions; register `i` is the value of `insts[i]`.
    pub insts: Vec<Inst>,
}

impl Inst {
    /// The registers that this instruction reads.
    pub fn operands(&self) -> impl Iterator<Item = Reg> + use<> {
        let regs: [Option<Reg>; 3] = match *self {
            Inst::Load(..) | Inst::Input | Inst::F32(_) | Inst::I64(_) | Inst::Iota(_) => [None; 3],
            Inst::Unary(_, a)
            | Inst::Cast(a, _)
            | Inst::Reduce(_, a)
            | Inst::Store(_, _, a)
            | Inst::Pick(_, _, _, a)
            | Inst::Within(a, _)
            | Inst::Yield(a) => [Some(a), None, None],
            Inst::Binary(_, a, b) | Inst::Compare(_, a, b) => [Some(a), Some(b), None],
            Inst::Select(c, a, b) => [Some(c), Some(a), Some(b)],
        };
        regs.into_iter().flatten()
    }
}

impl Body {
    /// The type of every register (`None` for [`Inst::Store`] and [`Inst::Yield`]).
    ///
    /// # Errors
    /// [`BodyError`] for an operand that is not defined earlier or has a type that its instruction
    /// does not take, and for an argument beyond `args`.
    pub fn types(&self, args: &[DType]) -> Result<Vec<Option<Ty>>, BodyError> {
        let mut types: Vec<Option<Ty>> = Vec::with_capacity(self.insts.len());
        for (at, inst) in self.insts.iter().enumerate() {
            let mut operands = Vec::new();
            for r in inst.operands() {
                match types.get(r.0 as usize).copied().flatten() {
                    Some(ty) => operands.push(ty),
                    None => return Err(BodyError::Order { at, operand: r.0 }),
                }
            }
            if let Some((a, ..)) = inst.access()
                && a.0 as usize >= args.len()
            {
                return Err(BodyError::Arg {
                    at,
                    arg: a.0,
                    args: args.len(),
                });
            }
            types.push(
                result_type(inst, &operands, args).ok_or_else(|| BodyError::Type {
                    at,
                    inst: inst.to_string(),
                    types: format!("{operands:?}"),
                })?,
            );
        }
        Ok(types)
    }

    /// Checks order, types, argument indices and axes. `place` names the owner for errors;
    /// `reduces` and `input` say whether it offers [`Inst::Reduce`] and [`Inst::Input`].
    ///
    /// # Errors
    /// [`BodyError`] as [`Body::types`], and for views of another number of axes than `axes`, indices
    /// along axes beyond them, and folds or inputs that the owner does not offer.
    pub fn check(
        &self,
        args: &[DType],
        axes: usize,
        place: &'static str,
        reduces: bool,
        input: bool,
    ) -> Result<(), BodyError> {
        self.types(args)?;
        for (at, inst) in self.insts.iter().enumerate() {
            let found = match (inst, inst.access()) {
                (_, Some((_, view, _))) => view.strides.len(),
                (Inst::Iota(a), _) if *a as usize >= axes => *a as usize + 1,
                _ => axes,
            };
            if found != axes {
                return Err(BodyError::Axes { at, found, axes });
            }
            if let Inst::Pick(_, _, _, by) = inst
                && self.bound(*by).is_none()
            {
                return Err(BodyError::Unbounded { at, operand: by.0 });
            }
            let allowed = match inst {
                Inst::Reduce(..) => reduces,
                Inst::Input => input,
                _ => true,
            };
            if !allowed {
                return Err(BodyError::Place {
                    at,
                    inst: inst.to_string(),
                    place,
                });
            }
        }
        Ok(())
    }
}

/// The result type of an instruction: outer `None` = operands do not fit, inner `None` = no value.
fn result_type(inst: &Inst, operands: &[Ty], args: &[DType]) -> Option<Option<Ty>> {
    use Ty::{Bool, F32, I64};
    let loaded = |a: &Arg| match args.get(a.0 as usize) {
        Some(d) if d.is_float() => F32,
        _ => I64,
    };
    Some(match (inst, operands) {
        (Inst::Load(a, _), []) | (Inst::Pick(a, ..), [I64]) => Some(loaded(a)),
        (Inst::Within(..), [I64]) => Some(I64),
        (Inst::Input | Inst::F32(_), []) => Some(F32),
        (Inst::I64(_) | Inst::Iota(_), []) => Some(I64),
        (Inst::Unary(..), [F32]) => Some(F32),
        (Inst::Unary(u, _), [I64]) if u.of_integers() => Some(I64),
        (Inst::Binary(..), [F32, F32]) => Some(F32),
        (Inst::Binary(b, ..), [I64, I64]) if b.of_integers() => Some(I64),
        (Inst::Compare(..), [a, b]) if a == b && *a != Bool => Some(Bool),
        (Inst::Select(..), [Bool, a, b]) if a == b => Some(*a),
        (Inst::Cast(_, ty), [_]) => Some(*ty),
        (Inst::Reduce(..), [x @ (F32 | I64)]) => Some(*x),
        (Inst::Store(a, ..), [v]) => match (loaded(a), v) {
            (F32, F32) | (I64, I64 | Bool) => None,
            _ => return None,
        },
        (Inst::Yield(_), [F32]) => None,
        _ => return None,
    })
}

/// Builds a [`Body`], reusing the register of an identical pure instruction.
#[derive(Clone, Debug, Default)]
pub struct BodyBuilder {
    body: Body,
}

impl BodyBuilder {
    /// An empty body.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends an instruction, or finds the equal one that is already there.
    pub fn push(&mut self, inst: Inst) -> Reg {
        let pure = !matches!(inst, Inst::Store(..) | Inst::Yield(_));
        if pure && let Some(i) = self.body.insts.iter().position(|x| *x == inst) {
            return Reg(i as u16);
        }
        self.body.insts.push(inst);
        Reg((self.body.insts.len() - 1) as u16)
    }

    /// [`Inst::Load`].
    pub fn load(&mut self, arg: Arg, view: View) -> Reg {
        self.push(Inst::Load(arg, view))
    }

    /// [`Inst::Unary`].
    pub fn unary(&mut self, f: Unary, a: Reg) -> Reg {
        self.push(Inst::Unary(f, a))
    }

    /// [`Inst::Binary`].
    pub fn binary(&mut self, f: Binary, a: Reg, b: Reg) -> Reg {
        self.push(Inst::Binary(f, a, b))
    }

    /// [`Inst::Store`].
    pub fn store(&mut self, arg: Arg, view: View, value: Reg) {
        self.push(Inst::Store(arg, view, value));
    }

    /// The finished body.
    pub fn finish(self) -> Body {
        self.body
    }
}
