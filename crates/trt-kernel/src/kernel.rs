//! The closed set of kernels: one that runs a [`Body`] over rows, and the templates.
//!
//! A kernel is plain data: argument dtypes, symbolic sizes, views, and a body. Arguments are
//! pointers given at launch, in the order of `args`; views are in elements from the pointer.

use crate::{Arg, Body, BodyError, DType, Dim, View};
use serde::{Deserialize, Serialize};
use std::fmt;

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
    /// Independent kernels in one launch.
    Group(Group),
}

/// Kernels side by side in one launch: none reads or writes what another writes. Its arguments
/// are those of the parts, one part after another.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// At least two: either ranged products, or row kernels and moves.
    pub parts: Vec<Kernel>,
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
    /// Dtypes of the arguments.
    pub args: Vec<DType>,
    /// Left operand over axes `[batch, m, k]`.
    pub a: Operand,
    /// Right operand over axes `[batch, n, k]`.
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
    /// Dtypes of the arguments.
    pub args: Vec<DType>,
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

/// What [`Kernel::check`] can find wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// The body breaks its rules.
    #[error("{kernel} kernel: {source}")]
    Body {
        /// The kernel kind.
        kernel: &'static str,
        /// What is wrong.
        source: BodyError,
    },
    /// A template's parts do not fit together.
    #[error("{kernel} kernel: {what}")]
    Shape {
        /// The kernel kind.
        kernel: &'static str,
        /// What is wrong, with numbers.
        what: String,
    },
}

impl Kernel {
    /// A short name of the kind: `row`, `matmul`, `attention`, `gather`, `move`.
    pub fn kind(&self) -> &'static str {
        match self {
            Kernel::Row(_) => "row",
            Kernel::Matmul(_) => "matmul",
            Kernel::Attention(_) => "attention",
            Kernel::Gather(_) => "gather",
            Kernel::Move(_) => "move",
            Kernel::Group(_) => "group",
        }
    }

    /// Dtypes of the arguments, in launch order.
    pub fn args(&self) -> Vec<DType> {
        match self {
            Kernel::Row(k) => k.args.clone(),
            Kernel::Matmul(k) => k.args.clone(),
            Kernel::Attention(k) => k.args.clone(),
            Kernel::Gather(k) => k.args.clone(),
            Kernel::Move(k) => vec![k.dtype; 2],
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

    /// The arguments that may be given as tiles: the weights of ranged products.
    pub fn streamed(&self) -> Vec<Arg> {
        let each = self.numbered_parts();
        each.filter_map(|(first, part)| match part {
            Kernel::Matmul(k) if k.ranged => Some(Arg(first + k.b.arg.0)),
            _ => None,
        })
        .collect()
    }

    /// The arguments that a launch writes.
    pub fn written(&self) -> Vec<Arg> {
        match self {
            Kernel::Row(k) => k.body.stores(),
            Kernel::Matmul(k) => k.epilogue.stores(),
            Kernel::Attention(k) => vec![k.out.arg],
            Kernel::Gather(k) => k.body.stores(),
            Kernel::Move(_) => vec![Arg(1)],
            Kernel::Group(_) => {
                let each = self.numbered_parts();
                let of = each.flat_map(|(first, part)| {
                    let own = part.written().into_iter();
                    own.map(move |a| Arg(first + a.0))
                });
                of.collect()
            }
        }
    }

    /// Checks everything that can be checked without a launch.
    pub fn check(&self) -> Result<(), KernelError> {
        let kernel = self.kind();
        let body = |b: &Body, args: &[DType], axes, reduces, input| {
            b.check(args, axes, kernel, reduces, input)
                .map_err(|source| KernelError::Body { kernel, source })
        };
        let ensure = |ok: bool, what: String| match ok {
            true => Ok(()),
            false => Err(KernelError::Shape { kernel, what }),
        };
        let operand = |o: &Operand, args: &[DType], axes: usize| {
            ensure(
                (o.arg.0 as usize) < args.len() && o.view.strides.len() == axes,
                format!(
                    "operand a{} {} does not fit {} args, {axes} axes",
                    o.arg.0,
                    o.view,
                    args.len()
                ),
            )
        };
        match self {
            Kernel::Row(k) => {
                ensure(!k.space.is_empty(), "the index space has no axis".into())?;
                body(&k.body, &k.args, k.space.len(), true, false)
            }
            Kernel::Matmul(k) => {
                operand(&k.a, &k.args, 3)?;
                operand(&k.b, &k.args, 3)?;
                if k.ranged {
                    let s = &k.b.view.strides;
                    ensure(
                        k.b.view.offset.is(0)
                            && s[0].is(0)
                            && s[1] == k.k
                            && s[2].is(1)
                            && k.batch.is(1),
                        format!(
                            "a ranged operand must be row-major [{}, {}] with one batch, not {}",
                            k.n, k.k, k.b.view
                        ),
                    )?;
                }
                body(&k.epilogue, &k.args, 3, false, true)
            }
            Kernel::Attention(k) => {
                for o in [&k.q, &k.k, &k.v, &k.out] {
                    operand(o, &k.args, 4)?;
                }
                ensure(
                    k.kv_heads > 0 && k.heads % k.kv_heads == 0,
                    format!(
                        "{} heads are no multiple of {} key heads",
                        k.heads, k.kv_heads
                    ),
                )?;
                ensure(
                    k.score.yielded().is_some(),
                    "the score yields nothing".into(),
                )?;
                body(&k.score, &k.args, 4, false, true)
            }
            Kernel::Gather(k) => {
                operand(&k.ids, &k.args, 1)?;
                ensure(
                    (k.table.0 as usize) < k.args.len(),
                    format!("no table argument a{}", k.table.0),
                )?;
                body(&k.body, &k.args, 2, false, true)
            }
            Kernel::Move(k) => ensure(
                k.src.strides.len() == k.space.len()
                    && k.dst.strides.len() == k.space.len()
                    && !k.space.is_empty(),
                format!("views {} and {} over {} axes", k.src, k.dst, k.space.len()),
            ),
            Kernel::Group(k) => {
                ensure(k.parts.len() > 1, format!("{} parts", k.parts.len()))?;
                let products = |part: &Kernel| matches!(part, Kernel::Matmul(m) if m.ranged);
                let all = k.parts.iter().all(products);
                k.parts.iter().try_for_each(|part| match part {
                    Kernel::Matmul(_) if all => part.check(),
                    Kernel::Row(_) | Kernel::Move(_) => part.check(),
                    Kernel::Matmul(_)
                    | Kernel::Attention(_)
                    | Kernel::Gather(_)
                    | Kernel::Group(_) => ensure(false, format!("a part is a {}", part.kind())),
                })
            }
        }
    }
}

fn list(dims: &[Dim]) -> String {
    dims.iter()
        .map(Dim::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

fn dtypes(args: &[DType]) -> String {
    args.iter().map(|d| d.name()).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a{}{}", self.arg.0, self.view)
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kernel::Row(k) => {
                writeln!(f, "row [{}] ({})", list(&k.space), dtypes(&k.args))?;
                write!(f, "{}", k.body)
            }
            Kernel::Matmul(k) => {
                let ranged = if k.ranged { " ranged" } else { "" };
                writeln!(
                    f,
                    "matmul{ranged} batch={} m={} n={} k={} ({})",
                    k.batch,
                    k.m,
                    k.n,
                    k.k,
                    dtypes(&k.args)
                )?;
                writeln!(f, "    a = {}", k.a)?;
                writeln!(f, "    b = {}", k.b)?;
                write!(f, "{}", k.epilogue)
            }
            Kernel::Attention(k) => {
                writeln!(
                    f,
                    "attention batch={} heads={}/{} queries={} keys={} dim={}/{} ({})",
                    k.batch,
                    k.heads,
                    k.kv_heads,
                    k.queries,
                    k.keys,
                    k.head_dim,
                    k.value_dim,
                    dtypes(&k.args)
                )?;
                for (name, o) in [("q", &k.q), ("k", &k.k), ("v", &k.v), ("out", &k.out)] {
                    writeln!(f, "    {name} = {o}")?;
                }
                if let Some(c) = &k.causal {
                    let window = c.window.map(|w| format!(" window={w}")).unwrap_or_default();
                    writeln!(f, "    causal offset={}{window}", c.offset)?;
                }
                write!(f, "{}", k.score)
            }
            Kernel::Gather(k) => {
                writeln!(
                    f,
                    "gather rows={} cols={} entries={} ids={} table=a{} ({})",
                    k.rows,
                    k.cols,
                    k.entries,
                    k.ids,
                    k.table.0,
                    dtypes(&k.args)
                )?;
                write!(f, "{}", k.body)
            }
            Kernel::Move(k) => {
                writeln!(
                    f,
                    "move [{}] {} {} -> {}",
                    list(&k.space),
                    k.dtype,
                    k.src,
                    k.dst
                )
            }
            Kernel::Group(k) => {
                writeln!(f, "group of {}", k.parts.len())?;
                k.parts.iter().try_for_each(|part| write!(f, "  {part}"))
            }
        }
    }
}
