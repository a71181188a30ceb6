//! What back ends can fuse, as data: whoever plans launches asks here, and no back end.
//!
//! A plan must not depend on the device that it will run on: its launches, and with them the order
//! in which weights are used, are the same everywhere. So this is what *every* back end can make
//! of a kernel, and each is held to it by its tests: what this module says can be fused is emitted
//! for every target. A back end may do more; nobody asks it to.
//!
//! In the field's words: a *GEMM prologue* is [`computes_left`], *dual GEMM* (gate and up) is
//! [`chains`], *horizontal fusion* is [`part_kind`], and the rope and KV-append prologue of an
//! attention is [`runs_before`].

use crate::{
    Arg, Attention, Body, BodyBuilder, Dim, Encoding, Inst, Kernel, Matmul, Operand, PackedType,
    Row, SumOrder, View,
};

/// The most tiles of a weight that one launch may cover.
pub const MAX_TILES: usize = 64;

/// Products that compute their left operand where they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftLimits {
    /// Rows of the operand.
    pub rows: usize,
    /// Bytes of the whole operand.
    pub bytes: usize,
    /// Bytes that a row of the right operand is read by: it starts on a multiple of them and is a
    /// whole number of such pieces.
    pub piece: usize,
    /// Elements between two rows of the right operand are fewer.
    pub pitch: i64,
}

/// What every back end computes of left operands.
pub const LEFT: LeftLimits = LeftLimits {
    rows: 8,
    bytes: 32 << 10,
    piece: 16,
    pitch: 1 << 27,
};

/// Several kernels in one launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupLimits {
    /// Parts of a group: a launch takes few parameters.
    pub parts: usize,
    /// Rows of left operands that are few: products of different ones of these may stand side by side.
    pub rows: i64,
    /// Points of a row kernel or move in it, if no call decides them: larger ones fill a device alone.
    pub points: i64,
}

/// What every back end runs as a group.
pub const GROUP: GroupLimits = GroupLimits {
    parts: 4,
    rows: 8,
    points: 1 << 16,
};

/// Queries, keys and values that matrix units read in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of an element; all three have one dtype.
    pub element: usize,
    /// Elements of a head, and the places where heads start, are multiples of this.
    pub step: usize,
    /// The most elements of a head.
    pub widest: usize,
}

/// Attentions whose blocks can run rows before them: one query, and heads like these.
pub const HEADS: HeadLimits = HeadLimits {
    element: 2,
    step: 8,
    widest: 256,
};

/// Whether a product can compute its left operand: it has few rows, which are few bytes, and the
/// rows of its right operand can be read in pieces. Asked of one whose left operand is in memory,
/// whether it could if that were computed.
pub fn computes_left(kernel: &Matmul) -> bool {
    LEFT.hold(kernel)
}

/// Whether a product can read its right operand packed: a weight's whole rows of 16-bit values.
pub fn reads_packed(kernel: &Matmul) -> bool {
    let forms = PackedType::ALL.into_iter();
    let mut forms = forms.filter(|p| kernel.right() == Encoding::Plain(p.dtype()));
    let (n, k) = (kernel.n.constant_size(), kernel.k.constant_size());
    let cut = |p: PackedType| k.and_then(|k| p.geometry(k)).is_some();
    kernel.ranged && n.is_some() && forms.any(cut)
}

/// Whether two products can be a chain, as far as each of them and their right operands decide
/// that: every thread has the same points of both. [`Kernel::check`] says the rest. Those of more rows stay apart: what the first
/// stores would lie beside the result of the second, where it is otherwise replaced by that.
pub fn chains(one: &Matmul, other: &Matmul) -> bool {
    let fits = |k: &Matmul| k.ranged && computes_left(k);
    fits(one) && fits(other) && one.right() == other.right()
}

/// What may be parts of one group: kernels of one kind, that do not depend on each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartKind {
    /// Ranged products of few rows.
    FewRows,
    /// Ranged products of so many rows: more than few, or as many as a call has.
    Rows(Dim),
    /// Row kernels and moves of few points.
    FewPoints,
    /// Row kernels and moves of as many points as a call has.
    Points,
}

/// As what a kernel may be part of a group, if it may be. A back end may launch parts one by one: that is
/// what they would be by themselves. Those of few rows that are [read in pieces](LeftLimits::read_in_pieces) share a
/// launch on every one.
pub fn part_kind(kernel: &Kernel) -> Option<PartKind> {
    let points = |space: &[Dim]| match Dim::product(space).constant() {
        Some(points) => (points <= GROUP.points).then_some(PartKind::FewPoints),
        None => Some(PartKind::Points),
    };
    match kernel {
        Kernel::Matmul(k) => k.ranged.then(|| match k.m.constant() {
            Some(m) if (1..=GROUP.rows).contains(&m) => PartKind::FewRows,
            _ => PartKind::Rows(k.m.clone()),
        }),
        Kernel::Row(k) => points(&k.space),
        Kernel::Move(k) => points(&k.space),
        Kernel::Attention(_) | Kernel::Gather(_) | Kernel::Group(_) | Kernel::Routed(_) => None,
    }
}

/// The body of a kernel that may replace in memory what it loads: it loads and stores element by
/// element, each at its own point.
pub fn in_place(kernel: &Kernel) -> Option<&Body> {
    match kernel {
        Kernel::Row(k) => Some(&k.body),
        Kernel::Matmul(k) => Some(&k.epilogue),
        Kernel::Attention(_)
        | Kernel::Gather(_)
        | Kernel::Move(_)
        | Kernel::Group(_)
        | Kernel::Routed(_) => None,
    }
}

/// The space and body of what may become rows before an attention: a row kernel, or a move of floats
/// as one.
pub fn rows_of(kernel: &Kernel) -> Option<(Vec<Dim>, Body)> {
    match kernel {
        Kernel::Row(row) => Some((row.space.clone(), row.body.clone())),
        Kernel::Move(copy) if copy.dtype.is_float() => {
            let mut b = BodyBuilder::new();
            let x = b.load(Arg(0), copy.src.clone());
            b.store(Arg(1), copy.dst.clone(), x);
            Some((copy.space.clone(), b.finish()))
        }
        Kernel::Move(_)
        | Kernel::Matmul(_)
        | Kernel::Attention(_)
        | Kernel::Gather(_)
        | Kernel::Routed(_)
        | Kernel::Group(_) => None,
    }
}

/// Whether the blocks of an attention can run the rows before it for themselves, where there are
/// matrix units. Elsewhere these are launches of their own.
pub fn runs_before(kernel: &Attention) -> bool {
    let Some((rows, attention)) = kernel.split() else {
        return false;
    };
    let float = |o: &Operand| attention.args[o.arg.0 as usize].is_float();
    float(&attention.out)
        && attention.score.stores().is_empty()
        && HEADS.hold(&attention)
        && HeadRows::of(&attention, rows).is_some()
}

impl LeftLimits {
    /// Whether the left operand of a product, were it computed, is within these limits.
    pub fn hold(&self, kernel: &Matmul) -> bool {
        let (Some(m), Some(k)) = (kernel.m.constant_size(), kernel.k.constant_size()) else {
            return false;
        };
        let row = k.saturating_mul(kernel.left_dtype().size());
        kernel.batch.is(1)
            && (1..=self.rows).contains(&m)
            && row.saturating_mul(m) <= self.bytes
            && self.read_in_pieces(kernel)
    }

    /// Whether both operands are floats whose rows can be read in pieces; of a left operand that is
    /// in memory as many elements at once as a piece of the right one has.
    pub fn read_in_pieces(&self, kernel: &Matmul) -> bool {
        let order = kernel.k.constant_size();
        let order = order.and_then(|k| SumOrder::new(k, kernel.right()));
        let (left, Some(order)) = (kernel.left_dtype(), order) else {
            return false;
        };
        let right = match kernel.right() {
            Encoding::Plain(right) => right,
            // Where it is unpacked, its values meet those that the plain rows would.
            Encoding::Packed(packed) => packed.dtype(),
            // Its values are read one by one, and so are those that they meet.
            Encoding::Blocks(_) | Encoding::Code => return left.is_float(),
        };
        let columns = order.within.values();
        let read = self.piece.min(columns * left.size()) / left.size();
        let near = |stride: i64| stride.abs() < self.pitch;
        let view = &kernel.b.view;
        let stored = kernel.a.stored();
        left.is_float()
            && right.is_float()
            && view.strides[1].constant().is_some_and(near)
            && rows_start_on(view, columns)
            && stored.is_none_or(|a| rows_start_on(&a.view, read))
    }
}

impl HeadLimits {
    /// Whether queries, keys and values are floats of one dtype within these limits, with heads
    /// whose elements are neighbours.
    pub fn hold(&self, k: &Attention) -> bool {
        let dtype = |o: &Operand| k.args[o.arg.0 as usize];
        let first = dtype(&k.q);
        first.is_float()
            && first.size() == self.element
            && [&k.q, &k.k, &k.v]
                .iter()
                .all(|o| dtype(o) == first && rows_start_on(&o.view, self.step))
            && [k.head_dim, k.value_dim]
                .iter()
                .all(|d| d.is_multiple_of(self.step) && (self.step..=self.widest).contains(d))
    }
}

/// Whether the last axis is contiguous, and all rows along it start on multiples of `elements`.
fn rows_start_on(view: &View, elements: usize) -> bool {
    match view.strides.split_last() {
        Some((last, outer)) => {
            let mut starts = outer.iter().chain([&view.offset]);
            last.is(1) && starts.all(|d| d.is_multiple_of(elements))
        }
        None => false,
    }
}

/// Row kernels before an attention of one query, by what they store: each, in a space whose axes
/// are batches, heads and columns, nothing but the queries, or the last key, or the last value of
/// each head. So a block computes what belongs to its own key head and waits for no other.
#[derive(Clone, Debug)]
pub struct HeadRows<'a> {
    /// What stores the queries.
    pub queries: HeadRow<'a>,
    /// What stores the last key, if that is among them.
    pub key: Option<HeadRow<'a>>,
    /// What stores the last value, if that is among them.
    pub value: Option<HeadRow<'a>>,
}

/// A row kernel that stores one row of each head.
#[derive(Clone, Debug)]
pub struct HeadRow<'a> {
    /// The kernel.
    pub row: &'a Row,
    /// The axis of heads; none for one of one point.
    pub head: Option<usize>,
    /// The axis of batches; none for one of one point.
    pub batch: Option<usize>,
    /// Where the row starts.
    start: Dim,
    /// Points of a row.
    pub columns: usize,
}

impl<'a> HeadRows<'a> {
    /// Sorts the rows before an attention; both are parts of [`Attention::split`]. None if blocks
    /// cannot run them for themselves.
    pub fn of(k: &Attention, rows: &'a [Row]) -> Option<HeadRows<'a>> {
        let last = &k.keys - &Dim::from(1);
        let seen = k
            .causal
            .as_ref()
            .is_none_or(|c| c.offset == last && c.window != Some(0));
        if !(k.queries.is(1) && seen && k.k.arg != k.v.arg && alone(k, rows)) {
            return None;
        }
        let (mut queries, mut key, mut value) = (None, None, None);
        for row in rows {
            let [arg] = row.body.stores()[..] else {
                return None;
            };
            let first = Dim::from(0);
            let (slot, operand, at, heads, width) = match arg {
                a if a == k.q.arg => (&mut queries, &k.q, &first, k.heads, k.head_dim),
                a if a == k.k.arg => (&mut key, &k.k, &last, k.kv_heads, k.head_dim),
                a if a == k.v.arg => (&mut value, &k.v, &last, k.kv_heads, k.value_dim),
                _ => return None,
            };
            let stored = HeadRow::of(row, operand, at, (&k.batch, heads, width))?;
            if slot.replace(stored).is_some() {
                return None;
            }
        }
        Some(HeadRows {
            queries: queries?,
            key,
            value,
        })
    }
}

/// Whether nothing that the rows store is loaded otherwise than as an operand, and nobody touches
/// the result.
fn alone(k: &Attention, rows: &[Row]) -> bool {
    let bodies = || rows.iter().map(|row| &row.body);
    let stored: Vec<Arg> = bodies().flat_map(|b| b.stores()).collect();
    let loads = |inst: &Inst| match inst {
        Inst::Load(a, _) => stored.contains(a),
        // Where these read is not known.
        Inst::Pick(..) => true,
        _ => false,
    };
    let folds = |inst: &Inst| matches!(inst, Inst::Reduce(..));
    bodies().all(|b| !b.touches(k.out.arg) && !b.insts.iter().any(|i| loads(i) || folds(i)))
        && !k.score.insts.iter().any(loads)
        && !stored.contains(&k.out.arg)
}

impl<'a> HeadRow<'a> {
    /// A kernel that stores row `at` of an operand for all batches and heads, each element once.
    fn of(
        row: &'a Row,
        operand: &Operand,
        at: &Dim,
        (batches, heads, width): (&Dim, usize, usize),
    ) -> Option<HeadRow<'a>> {
        let views = row.body.insts.iter().filter_map(|inst| match inst {
            Inst::Store(_, view, _) => Some(view),
            _ => None,
        });
        let views: Vec<&View> = views.collect();
        let (columns, outer) = row.space.split_last()?;
        let columns = columns.constant_size()?;
        let strides = &operand.view.strides;
        let walks = |axis: usize, stride: &Dim| views.iter().all(|v| v.strides[axis] == *stride);
        let (mut head, mut batch) = (None, None);
        for (axis, size) in outer.iter().enumerate().filter(|(_, size)| !size.is(1)) {
            match size {
                s if head.is_none() && *s == Dim::from(heads) && walks(axis, &strides[1]) => {
                    head = Some(axis);
                }
                s if batch.is_none() && s == batches && walks(axis, &strides[0]) => {
                    batch = Some(axis);
                }
                _ => return None,
            }
        }
        let all = (heads == 1 || head.is_some()) && (batches.is(1) || batch.is_some());
        let start = &operand.view.offset + &(at * &strides[2]);
        let parts = views
            .iter()
            .map(|v| (&v.offset - &start).constant_size())
            .collect::<Option<Vec<usize>>>();
        let mut parts = parts?;
        parts.sort_unstable();
        // One behind the other, they are the whole row.
        let mut next = (0..).step_by(columns.max(1));
        let whole = parts.len() * columns == width && parts.iter().all(|p| next.next() == Some(*p));
        let last = row.space.len() - 1;
        (all && whole && walks(last, &Dim::from(1))).then_some(HeadRow {
            row,
            start,
            head,
            batch,
            columns,
        })
    }

    /// The column that a store's first point has in the row.
    pub fn part(&self, view: &View) -> usize {
        (&view.offset - &self.start).constant_size().unwrap_or(0)
    }
}
