//! What a kernel reads and writes, told once.
//!
//! [`Kernel::accesses`] lists each access as data: the argument, the view, the index space, and
//! whether it reads or writes. Whoever checks sizes, bounds launches, finds what is written or
//! gives arguments memory asks here instead of walking the templates. The invariant: a launch
//! touches nothing that is not listed. Views are affine, so the extremes of an access lie at
//! corners of its space: [`Access::reach`] gives them in elements, and [`Reach::bytes`] in bytes of
//! whatever the argument is written down in.

use crate::touches::each_once;
use crate::{
    Arg, Attention, Body, Dim, Encoding, Env, Kernel, Left, Matmul, Move, Operand, Var, View,
};
use std::borrow::Cow;
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
    /// A template, of an operand that is [plain](Encoding::Plain), or of what unpacks another.
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

/// An index space of a kernel with all that is touched at its points. It only refers to the kernel,
/// since what is written is asked of hundreds of kernels, again and again.
#[derive(Clone, Debug)]
pub(crate) struct Walk<'a> {
    sizes: Sizes<'a>,
    touched: Touched<'a>,
    /// The number of the first of the arguments that are named here.
    first: u16,
}

/// Sizes of the axes of an index space.
#[derive(Clone, Debug)]
enum Sizes<'a> {
    Given(&'a [Dim]),
    Made(Vec<Size<'a>>),
}

/// Size of an axis.
#[derive(Clone, Copy, Debug)]
enum Size<'a> {
    Dim(&'a Dim),
    Number(usize),
}

/// What is touched at each point of a space.
#[derive(Clone, Debug)]
enum Touched<'a> {
    Body(&'a Body),
    Move(&'a Move),
    Operand(&'a Operand, Toucher),
    Result(&'a Operand),
    Table(Arg),
    /// What unpacks another argument, all of it.
    Code(Arg),
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

impl<'a> Walk<'a> {
    fn new(sizes: Sizes<'a>, touched: Touched<'a>) -> Walk<'a> {
        Walk {
            sizes,
            touched,
            first: 0,
        }
    }

    fn over(sizes: &[Size<'a>], touched: Touched<'a>) -> Walk<'a> {
        Walk::new(Sizes::Made(sizes.to_vec()), touched)
    }

    /// Sizes of the axes.
    pub fn space(&self) -> Vec<Dim> {
        match &self.sizes {
            Sizes::Given(sizes) => sizes.to_vec(),
            Sizes::Made(sizes) => sizes.iter().map(Size::dim).collect(),
        }
    }

    /// What is touched, in order: the argument, the view, and whether it is written. A table has
    /// no view of its own: it is touched as a whole.
    pub fn each(&self) -> impl Iterator<Item = (Arg, Option<&'a View>, bool)> + use<'a> {
        let of = |operand: &'a Operand, writes| (operand.arg, Some(&operand.view), writes);
        let (body, [one, other]) = match self.touched {
            Touched::Body(body) => (Some(body), [None; 2]),
            Touched::Move(k) => {
                let both = [(Arg(0), Some(&k.src), false), (Arg(1), Some(&k.dst), true)];
                (None, both.map(Some))
            }
            Touched::Operand(operand, _) => (None, [Some(of(operand, false)), None]),
            Touched::Result(operand) => (None, [Some(of(operand, true)), None]),
            Touched::Table(arg) | Touched::Code(arg) => (None, [Some((arg, None, false)), None]),
        };
        let loads_and_stores = body.into_iter().flat_map(Body::accesses);
        let all = loads_and_stores.map(|(arg, view, writes)| (arg, Some(view), writes));
        let first = self.first;
        let all = all.chain(one).chain(other);
        all.map(move |(arg, view, writes)| (Arg(first + arg.0), view, writes))
    }

    fn by(&self) -> Toucher {
        match self.touched {
            Touched::Body(_) | Touched::Move(_) => Toucher::Body,
            Touched::Operand(_, by) => by,
            Touched::Result(_) | Touched::Code(_) => Toucher::Operand,
            Touched::Table(_) => Toucher::Table,
        }
    }

    /// What is reached, in order. What picks an element walks along one more axis.
    pub fn accesses(&self) -> impl Iterator<Item = Access<'a>> + use<'a> {
        let space: Arc<[Dim]> = self.space().into();
        let by = self.by();
        let body = match self.touched {
            Touched::Body(body) => Some(body),
            _ => None,
        };
        let picks = body.into_iter().flat_map(Body::picks);
        let each = self.each().zip(picks.chain(std::iter::repeat(None)));
        each.map(move |((arg, view, writes), picked)| {
            let mut view = match view {
                Some(view) => Cow::Borrowed(view),
                None => Cow::Owned(View::contiguous(&space)),
            };
            let mut space = space.clone();
            if let Some((stride, size)) = picked {
                view = Cow::Owned(view.along(stride));
                space = [&space[..], std::slice::from_ref(size)].concat().into();
            }
            Access {
                arg,
                view,
                space,
                writes,
                by,
            }
        })
    }
}

impl Size<'_> {
    fn dim(&self) -> Dim {
        match *self {
            Size::Dim(dim) => dim.clone(),
            Size::Number(n) => Dim::from(n),
        }
    }
}

impl Kernel {
    /// All that a launch touches: operands, then what bodies load and store. An attention's result
    /// comes last, right behind what its rows touch that run first.
    pub fn accesses(&self) -> Vec<Access<'_>> {
        self.walks().iter().flat_map(Walk::accesses).collect()
    }

    /// The arguments that a launch writes, in order of first store; an attention's result comes
    /// last.
    pub fn written(&self) -> Vec<Arg> {
        let args = match self {
            Kernel::Attention(k) => k.args.len(),
            _ => usize::MAX,
        };
        let walks = self.walks();
        let stored = walks
            .iter()
            .flat_map(Walk::each)
            .filter(|(.., writes)| *writes);
        // Memory of the launch's own is no argument.
        each_once(
            stored
                .map(|(arg, ..)| arg)
                .filter(|arg| (arg.0 as usize) < args),
        )
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
        let walks = self.walks().into_iter().filter(|walk| by(walk.by()));
        let args = walks.flat_map(|walk| walk.each());
        args.map(|(arg, ..)| arg).collect()
    }

    /// The index spaces, also those at whose points nothing is touched; of a group those of all
    /// its parts.
    pub(crate) fn walks(&self) -> Vec<Walk<'_>> {
        match self {
            Kernel::Row(k) => vec![Walk::new(Sizes::Given(&k.space), Touched::Body(&k.body))],
            Kernel::Matmul(k) => of_product(k),
            Kernel::Routed(k) => {
                let ids = Touched::Operand(&k.ids, Toucher::Operand);
                let ids = Walk::over(&[Size::Dim(&k.product.m)], ids);
                let mut walks = of_product(&k.product);
                walks.push(ids);
                walks
            }
            Kernel::Attention(k) => of_attention(k),
            Kernel::Gather(k) => {
                let (rows, cols) = (Size::Dim(&k.rows), Size::Number(k.cols));
                let ids = Touched::Operand(&k.ids, Toucher::Operand);
                let entries = Size::Number(k.entries);
                vec![
                    Walk::over(&[rows], ids),
                    Walk::over(&[entries, cols], Touched::Table(k.table)),
                    Walk::over(&[rows, cols], Touched::Body(&k.body)),
                ]
            }
            Kernel::Move(k) => vec![Walk::new(Sizes::Given(&k.space), Touched::Move(k))],
            Kernel::Group(_) => self.numbered_parts().flat_map(of_part).collect(),
        }
    }
}

fn of_product(k: &Matmul) -> Vec<Walk<'_>> {
    let [batch, m, n, depth] = [&k.batch, &k.m, &k.n, &k.k].map(Size::Dim);
    let left = match &k.a {
        Left::Stored(a) => Touched::Operand(a, Toucher::Operand),
        Left::Computed { body, .. } => Touched::Body(body),
    };
    let right = Touched::Operand(&k.b, Toucher::Right { ranged: k.ranged });
    let mut walks = vec![
        Walk::over(&[batch, m, depth], left),
        Walk::over(&[batch, n, depth], right),
        Walk::over(&[batch, m, n], Touched::Body(&k.epilogue)),
    ];
    let whole = k.n.constant_size().zip(k.k.constant_size());
    if let Some((code, (n, k))) = k.code().zip(whole) {
        let words = trt_pack::argument_bytes(n.div_ceil(trt_pack::unit_rows(k)));
        let words = words.unwrap_or(usize::MAX) / Encoding::Code.bytes();
        walks.push(Walk::over(&[Size::Number(words)], Touched::Code(code)));
    }
    walks
}

fn of_attention(k: &Attention) -> Vec<Walk<'_>> {
    let [batch, queries, keys] = [&k.batch, &k.queries, &k.keys].map(Size::Dim);
    let [heads, kv_heads] = [k.heads, k.kv_heads].map(Size::Number);
    let [dim, value] = [k.head_dim, k.value_dim].map(Size::Number);
    let read = |operand| Touched::Operand(operand, Toucher::Operand);
    let mut walks = vec![
        Walk::over(&[batch, heads, queries, dim], read(&k.q)),
        Walk::over(&[batch, kv_heads, keys, dim], read(&k.k)),
        Walk::over(&[batch, kv_heads, keys, value], read(&k.v)),
        Walk::over(&[batch, heads, queries, keys], Touched::Body(&k.score)),
    ];
    let before = k.before.iter();
    walks.extend(before.map(|row| Walk::new(Sizes::Given(&row.space), Touched::Body(&row.body))));
    let out = Touched::Result(&k.out);
    walks.push(Walk::over(&[batch, heads, queries, value], out));
    walks
}

/// Those of a part, with the numbers that the group gives its arguments.
fn of_part((first, part): (u16, &Kernel)) -> impl Iterator<Item = Walk<'_>> {
    let own = part.walks().into_iter();
    own.map(move |walk| Walk {
        first: walk.first + first,
        ..walk
    })
}
