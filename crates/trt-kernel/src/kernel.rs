//! The closed set of kernels: one that runs a [`Body`] over rows, and the templates.
//!
//! A kernel is plain data: argument dtypes, symbolic sizes, views, and a body. Arguments are
//! pointers given at launch, in the order of `args`; views are in elements from the pointer.

mod left;
mod routed;

pub use routed::Routed;

use crate::{Arg, Body, DType, Dim, Encoding, Inst, View};
use serde::{Deserialize, Serialize};

/// Everything the back ends can run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Kernel {
    /// A body over rows and columns, with reductions along the columns.
    Row(Row),
    /// Matrix product with an epilogue.
    Matmul(Matmul),
    /// Scaled dot-product attention over keys of runtime length.
    Attention(Attention),
    /// Rows of a table picked by ids.
    Gather(Gather),
    /// A strided copy without arithmetic.
    Move(Move),
    /// Several kernels in one launch.
    Group(Group),
    /// A product at the rows that integers choose.
    Routed(Routed),
}

/// Kernels in one launch. Its arguments are those of the parts, one part after another.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// At least two: either ranged products, or row kernels and moves.
    pub parts: Vec<Kernel>,
    /// How the parts depend on each other.
    pub order: Order,
}

/// How the parts of a group depend on each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Not at all: none reads or writes what another writes.
    Side,
    /// They are ranged products of one shape, with the same left operand. The epilogue of each may
    /// load what epilogues of earlier ones have stored, at the point where it was stored. A launch
    /// is on the same rows of all weights, or on rows of one.
    Chain,
}

/// A body over `space`; the last axis are the columns. Reductions fold over the columns, so a
/// body with reductions needs at least one column at run time (a fold over none is its neutral
/// element). Rows are independent of each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Sizes of the axes, columns last; at least one axis.
    pub space: Vec<Dim>,
    /// Dtypes of the arguments.
    pub args: Vec<DType>,
    /// What runs at each point.
    pub body: Body,
}

/// A tensor argument of a template: which pointer, and how the template's axes address it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Operand {
    /// The argument.
    pub arg: Arg,
    /// Strides per template axis, in elements.
    pub view: View,
}

/// The left operand of a product, over axes `[batch, m, k]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Left {
    /// It is in memory.
    Stored(Operand),
    /// It is computed where the product runs: what a body yields at each point, rounded to a dtype
    /// as if it had been stored, so that [`Matmul::split`] gives the same numbers. The body may
    /// fold over `k`, takes no input and stores nothing.
    Computed {
        /// What elements are rounded to before they are multiplied.
        dtype: DType,
        /// Yields an element.
        body: Body,
    },
}

/// `sum[batch, m, n] = Σ_k a[batch, m, k] * b[batch, n, k]`, then the epilogue at each
/// `[batch, m, n]` with the sum as [`crate::Inst::Input`]. Sums are f32.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Matmul {
    /// Independent products.
    pub batch: Dim,
    /// Rows of the result.
    pub m: Dim,
    /// Columns of the result; rows of a weight.
    pub n: Dim,
    /// The contracted size.
    pub k: Dim,
    /// Encodings of the arguments: all but that of `b` are plain, and that of what unpacks it, which there is exactly if `b` is packed.
    pub args: Vec<Encoding>,
    /// Left operand.
    pub a: Left,
    /// Right operand over axes `[batch, n, k]`. Its view counts values; unless it is plain, it is
    /// ranged, so that whole rows lie one after another.
    pub b: Operand,
    /// Whether `b` is a weight that may be launched by row ranges: then its view is row-major
    /// over `[n, k]` without batch, and a launch on rows `r0..r1` gets a pointer to row `r0`.
    pub ranged: bool,
    /// Runs over axes `[batch, m, n]` (absolute `n`, also in a ranged launch) and stores.
    pub epilogue: Body,
}

/// Which keys a query may see.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Causal {
    /// Key `j` is visible to query `i` only if `j <= i + offset`.
    pub offset: Dim,
    /// With a window `w`, also only if `j > i + offset - w`.
    pub window: Option<usize>,
}

/// `out[b, h, i] = Σ_j softmax_j(score(q[b, h, i] · k[b, h / group, j])) v[b, h / group, j]`,
/// everything in f32. A query that sees no key gives zeros.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attention {
    /// Batch size.
    pub batch: Dim,
    /// Query heads; a multiple of `kv_heads`.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Queries per head.
    pub queries: Dim,
    /// Keys per head.
    pub keys: Dim,
    /// Elements of a query or key.
    pub head_dim: usize,
    /// Elements of a value.
    pub value_dim: usize,
    /// Dtypes of the arguments.
    pub args: Vec<DType>,
    /// Over `[batch, heads, queries, head_dim]`.
    pub q: Operand,
    /// Over `[batch, kv_heads, keys, head_dim]`.
    pub k: Operand,
    /// Over `[batch, kv_heads, keys, value_dim]`.
    pub v: Operand,
    /// Over `[batch, heads, queries, value_dim]`.
    pub out: Operand,
    /// The causal mask, if any; everything else is in `score`.
    pub causal: Option<Causal>,
    /// Over `[batch, heads, queries, keys]`: takes the dot product as input, applies scale,
    /// soft cap or a loaded mask, and yields the score.
    pub score: Body,
    /// Row kernels that run first, one after another: they store the queries, and may store keys
    /// and values of this call behind those of earlier ones. If there are any, the queries are in
    /// memory of the launch's own, which all take as one more argument: see [`Attention::split`].
    pub before: Vec<Row>,
}

/// `body(table[ids[row], col])` at each `[row, col]`; an id outside the table is an error of the
/// launch. The table is row-major `[entries, cols]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gather {
    /// Number of ids.
    pub rows: Dim,
    /// Elements of a table row.
    pub cols: usize,
    /// Rows of the table.
    pub entries: usize,
    /// Encodings of the arguments: all but that of the table are plain.
    pub args: Vec<Encoding>,
    /// Integer ids over axis `[rows]`.
    pub ids: Operand,
    /// The table's argument.
    pub table: Arg,
    /// Runs over `[rows, cols]` with the element as input, and stores.
    pub body: Body,
}

/// `dst[i...] = src[i...]` over `space`, both of one dtype; the last axis is innermost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Move {
    /// Sizes of the axes.
    pub space: Vec<Dim>,
    /// The dtype of both arguments (`args[0]` source, `args[1]` destination).
    pub dtype: DType,
    /// Source view; argument 0.
    pub src: View,
    /// Destination view; argument 1.
    pub dst: View,
}

/// The dtypes of the arguments' values.
fn dtypes(args: &[Encoding]) -> Vec<DType> {
    args.iter().map(|e| e.dtype()).collect()
}

impl Matmul {
    /// The dtype in which elements of `a` are multiplied.
    pub fn left_dtype(&self) -> DType {
        match &self.a {
            Left::Stored(a) => self.args[a.arg.0 as usize].dtype(),
            Left::Computed { dtype, .. } => *dtype,
        }
    }

    /// The dtypes of the arguments' values.
    pub fn dtypes(&self) -> Vec<DType> {
        dtypes(&self.args)
    }

    /// How `b` is written down.
    pub fn right(&self) -> Encoding {
        self.args[self.b.arg.0 as usize]
    }

    /// The argument that unpacks `b`, if that is packed.
    pub fn code(&self) -> Option<Arg> {
        let at = self.args.iter().position(|e| *e == Encoding::Code)?;
        Some(Arg(at as u16))
    }

    /// The bodies that it runs: of the left operand, if that has one, and the epilogue.
    pub fn bodies(&self) -> impl Iterator<Item = &Body> {
        let left = match &self.a {
            Left::Stored(_) => None,
            Left::Computed { body, .. } => Some(body),
        };
        left.into_iter().chain([&self.epilogue])
    }

    /// If the left operand is computed: a row kernel that stores it, and the product that reads
    /// it there. Both take the arguments of this product and after them the operand, row-major.
    pub fn split(&self) -> Option<(Row, Matmul)> {
        let Left::Computed { dtype, body } = &self.a else {
            return None;
        };
        let mut args = self.args.clone();
        let arg = Arg(args.len() as u16);
        args.push(Encoding::Plain(*dtype));
        let space = vec![self.batch.clone(), self.m.clone(), self.k.clone()];
        let view = View::contiguous(&space);
        let insts = body.insts.iter().map(|inst| match inst {
            Inst::Yield(r) => Inst::Store(arg, view.clone(), *r),
            other => other.clone(),
        });
        let row = Row {
            body: Body {
                insts: insts.collect(),
            },
            args: dtypes(&args),
            space,
        };
        let product = Matmul {
            args,
            a: Operand { arg, view }.into(),
            ..self.clone()
        };
        Some((row, product))
    }
}

impl Gather {
    /// The dtypes of the arguments' values.
    pub fn dtypes(&self) -> Vec<DType> {
        dtypes(&self.args)
    }

    /// How the table is written down.
    pub fn table(&self) -> Encoding {
        self.args[self.table.0 as usize]
    }
}

impl Attention {
    /// The argument that is memory of the launch's own, if it has one.
    pub fn own(&self) -> Option<Arg> {
        (!self.before.is_empty()).then_some(Arg(self.args.len() as u16))
    }

    /// The elements of that memory: room for the queries, if it is known how much.
    pub fn own_elements(&self) -> Option<usize> {
        let sizes = [self.batch.constant_size()?, self.queries.constant_size()?];
        let all = [self.heads, self.head_dim].into_iter().chain(sizes);
        all.into_iter().try_fold(1usize, usize::checked_mul)
    }

    /// If row kernels run first: these, and the attention that follows them. All take the
    /// arguments of this one and after them the queries.
    pub fn split(&self) -> Option<(&[Row], Attention)> {
        let first = self.before.first()?;
        let attention = Attention {
            args: first.args.clone(),
            before: Vec::new(),
            ..self.clone()
        };
        Some((&self.before, attention))
    }
}

impl Kernel {
    /// A short name of the kind: `row`, `matmul`, `attention`, `gather`, `move`, `group`, `routed`.
    pub fn kind(&self) -> &'static str {
        match self {
            Kernel::Row(_) => "row",
            Kernel::Matmul(_) => "matmul",
            Kernel::Attention(_) => "attention",
            Kernel::Gather(_) => "gather",
            Kernel::Move(_) => "move",
            Kernel::Group(_) => "group",
            Kernel::Routed(_) => "routed",
        }
    }

    /// Encodings of the arguments, in launch order.
    pub fn args(&self) -> Vec<Encoding> {
        let plain = |dtypes: &[DType]| Encoding::plain(dtypes.iter().copied());
        match self {
            Kernel::Row(k) => plain(&k.args),
            Kernel::Matmul(k) | Kernel::Routed(Routed { product: k, .. }) => k.args.clone(),
            Kernel::Attention(k) => plain(&k.args),
            Kernel::Gather(k) => k.args.clone(),
            Kernel::Move(k) => plain(&[k.dtype; 2]),
            Kernel::Group(k) => k.parts.iter().flat_map(Kernel::args).collect(),
        }
    }

    /// The kernels of a group, or this one.
    pub fn parts(&self) -> &[Kernel] {
        match self {
            Kernel::Group(k) => &k.parts,
            Kernel::Row(_)
            | Kernel::Matmul(_)
            | Kernel::Attention(_)
            | Kernel::Gather(_)
            | Kernel::Routed(_)
            | Kernel::Move(_) => std::slice::from_ref(self),
        }
    }

    /// Each of [`Kernel::parts`] with the number of its first argument.
    pub fn numbered_parts(&self) -> impl Iterator<Item = (u16, &Kernel)> {
        self.parts().iter().scan(0, |next, part| {
            let first = *next;
            *next += part.args().len() as u16;
            Some((first, part))
        })
    }
}
