//! What a kernel reads and writes, told once.
//!
//! [`Kernel::accesses`] lists each access as data: the argument, the view, the index space, and
//! whether it reads or writes. Whoever checks sizes, bounds launches, finds what is written or
//! gives arguments memory asks here instead of walking the templates. The invariant: a launch
//! touches nothing that is not listed. Views are affine, so the extremes of an access lie at
//! corners of its space: [`Access::reach`] gives them in elements, and [`Reach::bytes`] in bytes of
//! whatever the argument is written down in.

use crate::{Arg, Body, Dim, Encoding, Env, Group, Inst, Kernel, Left, Operand, Var, View};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

/// One way in which a kernel touches an argument: at every point of an index space, the element
/// that a view has there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access<'a> {
    /// The argument; one more than the kernel's last is [memory of the launch's
    /// own](crate::Attention::own).
    pub arg: Arg,
    /// Where each point is, in elements from the argument's pointer.
    pub view: Cow<'a, View>,
    /// Sizes of the axes that the view is over.
    pub space: Arc<[Dim]>,
    /// Whether it writes; else it reads.
    pub writes: bool,
    /// What touches it.
    pub by: Toucher,
}

/// What touches an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toucher {
    /// A body, or a copy.
    Body,
    /// A template, of an operand that is [plain](Encoding::Plain).
    Operand,
    /// A product, of its right operand, which may have any encoding. `ranged` says whether a
    /// launch may be given it as tiles.
    Right {
        /// See [`crate::Matmul::ranged`].
        ranged: bool,
    },
    /// A gather, of its table, which may have any encoding. It finds by itself how rows lie.
    Table,
}

/// The elements of an argument that are reached: none lies outside of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The lowest, from the argument's pointer.
    pub first: i64,
    /// The highest.
    pub last: i64,
}

/// An index space of a kernel with all that is touched at its points.
#[derive(Clone, Debug)]
pub(crate) struct Walk<'a> {
    /// Sizes of the axes.
    pub space: Arc<[Dim]>,
    /// What is touched, in order.
    pub accesses: Vec<Access<'a>>,
}

impl Access<'_> {
    /// The same, for as long as one likes.
    pub fn into_owned(self) -> Access<'static> {
        Access {
            arg: self.arg,
            view: Cow::Owned(self.view.into_owned()),
            space: self.space,
            writes: self.writes,
            by: self.by,
        }
    }

    /// The runtime integers that decide what is reached.
    pub fn vars(&self) -> impl Iterator<Item = Var> {
        let view = std::iter::once(&self.view.offset).chain(&self.view.strides);
        view.chain(self.space.iter()).flat_map(Dim::vars)
    }

    /// The elements that are reached in a call; none if the space is empty.
    pub fn reach(&self, env: &Env) -> Option<Reach> {
        let start = self.view.offset.eval(env);
        let (mut first, mut last) = (start, start);
        for (size, stride) in self.space.iter().zip(&self.view.strides) {
            let size = size.eval(env);
            if size <= 0 {
                return None;
            }
            let far = (size - 1).saturating_mul(stride.eval(env));
            first = first.saturating_add(far.min(0));
            last = last.saturating_add(far.max(0));
        }
        Some(Reach { first, last })
    }
}

impl Reach {
    /// What reaches both.
    pub fn and(self, other: Reach) -> Reach {
        Reach {
            first: self.first.min(other.first),
            last: self.last.max(other.last),
        }
    }

    /// The bytes that are reached from the argument's pointer, if the argument is written down like
    /// this. They saturate at 64 bits, which is more than any memory has.
    ///
    /// Blocks hold neighbours of a row, and rows are whole blocks, so that counting the blocks of
    /// elements is counting rows by [`Encoding::row_bytes`].
    pub fn bytes(self, encoding: Encoding) -> Range<i64> {
        let [values, bytes] = [encoding.values(), encoding.bytes()].map(|n| n as i64);
        let start = self.first.div_euclid(values).saturating_mul(bytes);
        let end = self.last.div_euclid(values).saturating_add(1);
        start..end.saturating_mul(bytes)
    }
}

impl Inst {
    /// What a load or a store touches: the argument, the view, and whether it writes.
    pub fn access(&self) -> Option<(Arg, &View, bool)> {
        match self {
            Inst::Load(arg, view) => Some((*arg, view, false)),
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
            | Inst::Reduce(..)
            | Inst::Yield(_) => None,
        }
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
}

fn each_once(args: impl Iterator<Item = Arg>) -> Vec<Arg> {
    let mut seen = BTreeSet::new();
    args.filter(|arg| seen.insert(*arg)).collect()
}

impl Kernel {
    /// All that a launch touches. An attention's result comes last; what is before it comes
    /// right before that.
    pub fn accesses(&self) -> Vec<Access<'_>> {
        let walks = self.walks().into_iter();
        walks.flat_map(|walk| walk.accesses).collect()
    }

    /// The arguments that a launch writes, in order of first store; an attention's result comes
    /// last.
    pub fn written(&self) -> Vec<Arg> {
        let args = self.args().len();
        let stored = self.accesses().into_iter().filter(|access| access.writes);
        // Memory of the launch's own is no argument.
        let stored = stored.filter(|access| (access.arg.0 as usize) < args);
        each_once(stored.map(|access| access.arg))
    }

    /// The arguments that may be given as tiles: the weights of ranged products.
    pub fn streamed(&self) -> Vec<Arg> {
        self.touched_by(|by| matches!(by, Toucher::Right { ranged: true }))
    }

    /// The arguments that are tables, rows of which are picked by ids.
    pub fn tables(&self) -> Vec<Arg> {
        self.touched_by(|by| by == Toucher::Table)
    }

    fn touched_by(&self, by: impl Fn(Toucher) -> bool) -> Vec<Arg> {
        let all = self.accesses().into_iter();
        all.filter(|a| by(a.by)).map(|a| a.arg).collect()
    }

    /// The index spaces, also those at whose points nothing is touched; of a group those of all
    /// its parts.
    pub(crate) fn walks(&self) -> Vec<Walk<'_>> {
        match self {
            Kernel::Row(k) => vec![of_body(&k.space, &k.body)],
            Kernel::Matmul(k) => {
                let left = [&k.batch, &k.m, &k.k];
                let by = Toucher::Right { ranged: k.ranged };
                vec![
                    match &k.a {
                        Left::Stored(a) => of_operand(left, a, Toucher::Operand),
                        Left::Computed { body, .. } => of_body(&made(left), body),
                    },
                    of_operand([&k.batch, &k.n, &k.k], &k.b, by),
                    of_body(&made([&k.batch, &k.m, &k.n]), &k.epilogue),
                ]
            }
            Kernel::Attention(k) => of_attention(k),
            Kernel::Gather(k) => {
                let [cols, entries] = [k.cols, k.entries].map(Dim::from);
                let table = made([&entries, &cols]);
                let whole = Cow::Owned(View::contiguous(&table));
                vec![
                    of_operand([&k.rows], &k.ids, Toucher::Operand),
                    walk(&table, [(k.table, whole, false)], Toucher::Table),
                    of_body(&made([&k.rows, &cols]), &k.body),
                ]
            }
            Kernel::Move(k) => {
                let both = [(Arg(0), &k.src, false), (Arg(1), &k.dst, true)];
                let both = both.map(|(arg, view, writes)| (arg, Cow::Borrowed(view), writes));
                vec![walk(&k.space, both, Toucher::Body)]
            }
            Kernel::Group(k) => of_group(self, k),
        }
    }
}

fn of_attention(k: &crate::Attention) -> Vec<Walk<'_>> {
    let [heads, kv_heads] = [k.heads, k.kv_heads].map(Dim::from);
    let [dim, value] = [k.head_dim, k.value_dim].map(Dim::from);
    let queries = |last| [&k.batch, &heads, &k.queries, last];
    let keys = |last| [&k.batch, &kv_heads, &k.keys, last];
    let mut out = of_operand(queries(&value), &k.out, Toucher::Operand);
    out.accesses.iter_mut().for_each(|a| a.writes = true);
    let mut walks = vec![
        of_operand(queries(&dim), &k.q, Toucher::Operand),
        of_operand(keys(&dim), &k.k, Toucher::Operand),
        of_operand(keys(&value), &k.v, Toucher::Operand),
        of_body(&made(queries(&k.keys)), &k.score),
    ];
    walks.extend(k.before.iter().map(|row| of_body(&row.space, &row.body)));
    walks.push(out);
    walks
}

/// Those of the parts, with the numbers that the group gives their arguments.
fn of_group<'a>(group: &'a Kernel, k: &'a Group) -> Vec<Walk<'a>> {
    let mut walks = Vec::with_capacity(3 * k.parts.len());
    for (first, part) in group.numbered_parts() {
        let mut own = part.walks();
        let all = own.iter_mut().flat_map(|walk| &mut walk.accesses);
        all.for_each(|access| access.arg.0 += first);
        walks.extend(own);
    }
    walks
}

fn of_body<'a>(space: &[Dim], body: &'a Body) -> Walk<'a> {
    let all = body.accesses();
    let all = all.map(|(arg, view, writes)| (arg, Cow::Borrowed(view), writes));
    walk(space, all, Toucher::Body)
}

/// An operand that is read.
fn of_operand<'a, const N: usize>(space: [&Dim; N], operand: &'a Operand, by: Toucher) -> Walk<'a> {
    let view = Cow::Borrowed(&operand.view);
    walk(&made(space), [(operand.arg, view, false)], by)
}

fn made<const N: usize>(space: [&Dim; N]) -> [Dim; N] {
    space.map(Dim::clone)
}

fn walk<'a>(
    space: &[Dim],
    accesses: impl IntoIterator<Item = (Arg, Cow<'a, View>, bool)>,
    by: Toucher,
) -> Walk<'a> {
    let space: Arc<[Dim]> = space.into();
    let access = |(arg, view, writes)| Access {
        arg,
        view,
        space: space.clone(),
        writes,
        by,
    };
    Walk {
        accesses: accesses.into_iter().map(access).collect(),
        space,
    }
}
