//! What instructions and bodies touch and depend on.

use crate::{Arg, Body, Dim, Inst, Reg, Var, View};
use std::collections::BTreeSet;

impl Inst {
    /// What a load or a store touches: the argument, the view, and whether it writes.
    pub fn access(&self) -> Option<(Arg, &View, bool)> {
        match self {
            Inst::Load(arg, view) | Inst::Pick(arg, view, ..) => Some((*arg, view, false)),
            Inst::Store(arg, view, _) => Some((*arg, view, true)),
            Inst::Input
            | Inst::F32(_)
            | Inst::I64(_)
            | Inst::Iota(_)
            | Inst::Unary(..)
            | Inst::Binary(..)
            | Inst::Compare(..)
            | Inst::Select(..)
            | Inst::Cast(..)
            | Inst::Within(..)
            | Inst::Reduce(..)
            | Inst::Yield(_) => None,
        }
    }

    /// The same with another argument and another view, if it touches an argument.
    pub fn moved(&self, arg: impl Fn(Arg) -> Arg, view: impl Fn(&View) -> View) -> Inst {
        match self {
            Inst::Load(a, v) => Inst::Load(arg(*a), view(v)),
            Inst::Pick(a, v, s, r) => Inst::Pick(arg(*a), view(v), s.clone(), *r),
            Inst::Store(a, v, r) => Inst::Store(arg(*a), view(v), *r),
            other => other.clone(),
        }
    }

    /// Sizes, strides and constants that it depends on.
    pub fn dims(&self) -> impl Iterator<Item = &Dim> {
        let view = self.access().map(|(_, view, _)| view);
        let own = match self {
            Inst::Pick(_, _, dim, _) | Inst::Within(_, dim) | Inst::I64(dim) => Some(dim),
            _ => None,
        };
        let view = view.into_iter();
        (view.flat_map(|v| std::iter::once(&v.offset).chain(&v.strides))).chain(own)
    }
}

impl Body {
    /// What its loads and stores touch, in order: the argument, the view, and whether it writes.
    pub fn accesses(&self) -> impl Iterator<Item = (Arg, &View, bool)> + Clone {
        self.insts.iter().filter_map(Inst::access)
    }

    /// Whether it loads or stores an argument.
    pub fn touches(&self, arg: Arg) -> bool {
        self.accesses().any(|(a, ..)| a == arg)
    }

    /// The arguments that are stored to, in order of first store.
    pub fn stores(&self) -> Vec<Arg> {
        let stored = self.accesses().filter(|(.., writes)| *writes);
        each_once(stored.map(|(arg, ..)| arg))
    }

    /// The arguments that are loaded, in order of first load.
    pub fn loads(&self) -> Vec<Arg> {
        let loaded = self.accesses().filter(|(.., writes)| !*writes);
        each_once(loaded.map(|(arg, ..)| arg))
    }

    /// Of each access in order: if a value decides where it reads, the stride that it counts and the
    /// size that it is below.
    pub(crate) fn picks(&self) -> impl Iterator<Item = Option<(&Dim, &Dim)>> {
        let touching = self.insts.iter().filter(|inst| inst.access().is_some());
        touching.map(|inst| match inst {
            Inst::Pick(_, _, stride, by) => Some((stride, self.bound(*by)?)),
            _ => None,
        })
    }

    /// The register that [`Inst::Yield`] names, if any.
    pub fn yielded(&self) -> Option<Reg> {
        self.insts.iter().rev().find_map(|i| match i {
            Inst::Yield(r) => Some(*r),
            _ => None,
        })
    }

    /// The size that the value of a register is below, if it was held against one.
    pub fn bound(&self, reg: Reg) -> Option<&Dim> {
        match self.insts.get(reg.0 as usize) {
            Some(Inst::Within(_, size)) => Some(size),
            _ => None,
        }
    }

    /// Runtime integers that any address or constant depends on.
    pub fn vars(&self) -> Vec<Var> {
        let dims = self.insts.iter().flat_map(Inst::dims);
        let mut vars: Vec<Var> = dims.flat_map(Dim::vars).collect();
        vars.sort();
        vars.dedup();
        vars
    }
}

pub(crate) fn each_once(args: impl Iterator<Item = Arg>) -> Vec<Arg> {
    let mut seen = BTreeSet::new();
    args.filter(|arg| seen.insert(*arg)).collect()
}
