//! Sorting, spelled in what row kernels fuse.
//!
//! Rows are sorted in runs of a fixed length by counting, for each element, those before it; then runs are
//! merged, each twice as long as before. A merge asks for each place of its result how many elements
//! of the first run come before it, and finds that by halving. Nothing is written but where it is
//! computed, so no order of threads is seen, and a row may have any length up to the class's largest:
//! a run beyond its end has no elements.
//!
//! A row of `n` costs `n` times the run's length to count, twice, and about `log(n)^2 / 2` picks an
//! element to merge, in a launch for each doubling.

use super::rewrite::push;
use crate::graph::{Graph, Node, NodeId, Op};
use trt_kernel::{Binary, Compare, DType, Dim, Reduce};

/// Elements of a run that is sorted by counting.
const RUN: i64 = 256;

pub(super) fn expanded(g: &mut Graph, node: &Node, asc: bool) -> NodeId {
    let columns = node.shape.last().cloned().unwrap_or_default();
    let most = g.bound(&columns);
    let x = node.inputs[0];
    let mut sort = Sort {
        float: g.node(x).dtype.is_float(),
        x,
        asc,
        columns,
        shape: node.shape.clone(),
        g,
    };
    let mut order = sort.runs(most.min(RUN));
    let mut length = RUN;
    while length < most {
        order = sort.merged(order, length);
        length *= 2;
    }
    order
}

struct Sort<'a> {
    g: &'a mut Graph,
    /// What is sorted.
    x: NodeId,
    float: bool,
    asc: bool,
    /// Elements of a row.
    columns: Dim,
    /// The shape of the nodes that are made.
    shape: Vec<Dim>,
}

/// How many elements of the first run come before a place, at least and at most.
struct Between {
    low: NodeId,
    high: NodeId,
}

/// Two neighbouring runs, at each place of their union.
struct Runs {
    start: NodeId,
    place: NodeId,
    length: NodeId,
}

impl Sort<'_> {
    fn node(&mut self, op: Op, inputs: &[NodeId], dtype: DType) -> NodeId {
        push(self.g, op, inputs, &self.shape, dtype)
    }

    fn integers(&mut self, f: Binary, a: NodeId, b: NodeId) -> NodeId {
        self.node(Op::Binary(f), &[a, b], DType::I64)
    }

    fn compare(&mut self, f: Compare, a: NodeId, b: NodeId) -> NodeId {
        self.node(Op::Compare(f), &[a, b], DType::U8)
    }

    fn both(&mut self, a: NodeId, b: NodeId) -> NodeId {
        self.node(Op::Binary(Binary::Minimum), &[a, b], DType::U8)
    }

    fn either(&mut self, a: NodeId, b: NodeId) -> NodeId {
        self.node(Op::Binary(Binary::Maximum), &[a, b], DType::U8)
    }

    fn not(&mut self, a: NodeId) -> NodeId {
        let zero = self.repeated(Dim::from(0), DType::U8);
        self.compare(Compare::Eq, a, zero)
    }

    fn choose(&mut self, c: NodeId, a: NodeId, b: NodeId) -> NodeId {
        let dtype = self.g.node(a).dtype;
        self.node(Op::Where, &[c, a, b], dtype)
    }

    fn repeated(&mut self, value: Dim, dtype: DType) -> NodeId {
        let scalar = push(self.g, Op::Int(value), &[], &[], dtype);
        let point = vec![Dim::from(1); self.shape.len()];
        let point = push(self.g, Op::Reshape, &[scalar], &point, dtype);
        self.node(Op::Broadcast, &[point], dtype)
    }

    fn number(&mut self, value: impl Into<Dim>) -> NodeId {
        self.repeated(value.into(), DType::I64)
    }

    /// The index along an axis.
    fn index(&mut self, axis: usize) -> NodeId {
        let op = Op::Arange {
            start: Dim::from(0),
            step: 1,
        };
        let size = self.shape[axis].clone();
        let line = push(self.g, op, &[], std::slice::from_ref(&size), DType::I64);
        let mut point = vec![Dim::from(1); self.shape.len()];
        point[axis] = size;
        let point = push(self.g, Op::Reshape, &[line], &point, DType::I64);
        self.node(Op::Broadcast, &[point], DType::I64)
    }

    /// A tensor of rows over a space that has one more axis: the same element along it.
    fn along(&mut self, id: NodeId) -> NodeId {
        let Node { shape, dtype, .. } = self.g.node(id).clone();
        let point = [&shape[..], &[Dim::from(1)]].concat();
        let point = push(self.g, Op::Reshape, &[id], &point, dtype);
        self.node(Op::Broadcast, &[point], dtype)
    }

    /// The elements of rows that ids say, over a space that has one more axis: all below the end.
    fn others(&mut self, id: NodeId, ids: NodeId) -> NodeId {
        let Node { shape, dtype, .. } = self.g.node(id).clone();
        let (columns, outer) = (&self.columns, &shape[..shape.len() - 1]);
        let line = [outer, &[Dim::from(1), columns.clone()]].concat();
        let all = [outer, &[columns.clone(), columns.clone()]].concat();
        let line = push(self.g, Op::Reshape, &[id], &line, dtype);
        let all = push(self.g, Op::Broadcast, &[line], &all, dtype);
        self.node(Op::Gather(shape.len()), &[all, ids], dtype)
    }

    /// Whether `a` is before `b`, where equal ones are not.
    fn before(&mut self, a: NodeId, b: NodeId) -> NodeId {
        let order = if self.asc { Compare::Lt } else { Compare::Gt };
        let less = self.compare(order, a, b);
        if !self.float {
            return less;
        }
        let (a, b) = (
            self.compare(Compare::Eq, a, a),
            self.compare(Compare::Ne, b, b),
        );
        let last = self.both(a, b);
        self.either(less, last)
    }

    /// Sorted runs: for each element of the result its place in the row.
    fn runs(&mut self, run: i64) -> NodeId {
        let rows = std::mem::take(&mut self.shape);
        self.shape = [&rows[..], &[Dim::from(run)]].concat();
        let last = rows.len() - 1;
        let (here, step) = (self.index(last), self.index(last + 1));
        let length = self.number(run);
        let start = self.integers(Binary::Div, here, length);
        let start = self.integers(Binary::Mul, start, length);
        let there = self.integers(Binary::Add, start, step);
        let end = self.number(self.columns.clone());
        let inside = self.compare(Compare::Lt, there, end);
        let most = self.number(&self.columns - &Dim::from(1));
        let there = self.integers(Binary::Minimum, there, most);

        let (mine, other) = (self.along(self.x), self.others(self.x, there));
        let before = self.before(other, mine);
        let after = self.before(mine, other);
        let equal = self.either(before, after);
        let equal = self.not(equal);
        let earlier = self.compare(Compare::Lt, there, here);
        let earlier = self.both(equal, earlier);
        let before = self.either(before, earlier);
        let counted = self.both(before, inside);
        let (one, zero) = (self.number(1), self.number(0));
        let counted = self.choose(counted, one, zero);
        // How many of its run are before each element.
        let rank = self.sum(counted, &rows);

        let rank_there = self.others(rank, there);
        let own = self.integers(Binary::Sub, here, start);
        let found = self.compare(Compare::Eq, rank_there, own);
        let found = self.both(found, inside);
        let place = self.choose(found, there, zero);
        let order = self.sum(place, &rows);
        self.shape = rows;
        self.node(Op::Cast, &[order], DType::U32)
    }

    /// Sums along the last axis, which goes.
    fn sum(&mut self, x: NodeId, rows: &[Dim]) -> NodeId {
        let last = self.shape.len() - 1;
        let kept = [rows, &[Dim::from(1)]].concat();
        let sum = push(
            self.g,
            Op::Reduce(Reduce::Sum, last),
            &[x],
            &kept,
            DType::I64,
        );
        push(self.g, Op::Reshape, &[sum], rows, DType::I64)
    }

    /// What each place of `order` says, and the element there. Places beyond the row are its ends.
    fn at(&mut self, order: NodeId, place: NodeId) -> (NodeId, NodeId) {
        let zero = self.number(0);
        let most = self.number(&self.columns - &Dim::from(1));
        let place = self.integers(Binary::Minimum, place, most);
        let place = self.integers(Binary::Maximum, place, zero);
        let last = self.shape.len() - 1;
        let from = self.node(Op::Gather(last), &[order, place], DType::U32);
        let dtype = self.g.node(self.x).dtype;
        (from, self.node(Op::Gather(last), &[self.x, from], dtype))
    }

    /// Neighbouring runs of so many elements, merged two by two.
    fn merged(&mut self, order: NodeId, length: i64) -> NodeId {
        let place = self.index(self.shape.len() - 1);
        let (double, length_of) = (self.number(2 * length), self.number(length));
        let start = self.integers(Binary::Div, place, double);
        let start = self.integers(Binary::Mul, start, double);
        let end = self.number(self.columns.clone());
        let rest = self.integers(Binary::Sub, end, start);
        let first = self.integers(Binary::Minimum, rest, length_of);
        // None where the row ends with the first.
        let second = self.integers(Binary::Sub, rest, first);
        let second = self.integers(Binary::Minimum, second, length_of);
        let runs = Runs {
            start,
            place: self.integers(Binary::Sub, place, start),
            length: length_of,
        };
        let zero = self.number(0);
        let low = self.integers(Binary::Sub, runs.place, second);
        let mut between = Between {
            low: self.integers(Binary::Maximum, low, zero),
            high: self.integers(Binary::Minimum, runs.place, first),
        };
        // They are at most `length` apart.
        for _ in 0..=length.ilog2() {
            between = self.halved(order, &runs, between);
        }
        let taken = between.low;
        let (from_first, x) = self.of_first(order, &runs, taken);
        let rest = self.integers(Binary::Sub, runs.place, taken);
        let (from_second, y) = self.of_second(order, &runs, rest);
        let some = self.compare(Compare::Lt, taken, first);
        let none = self.compare(Compare::Ge, rest, second);
        let later = self.before(y, x);
        let earlier = self.not(later);
        let earlier = self.either(none, earlier);
        let first_next = self.both(some, earlier);
        self.choose(first_next, from_first, from_second)
    }

    fn of_first(&mut self, order: NodeId, runs: &Runs, i: NodeId) -> (NodeId, NodeId) {
        let place = self.integers(Binary::Add, runs.start, i);
        self.at(order, place)
    }

    fn of_second(&mut self, order: NodeId, runs: &Runs, i: NodeId) -> (NodeId, NodeId) {
        let place = self.integers(Binary::Add, runs.start, i);
        let place = self.integers(Binary::Add, place, runs.length);
        self.at(order, place)
    }

    /// One step of the search: element `middle` of the first run is before the place, or it is not.
    fn halved(&mut self, order: NodeId, runs: &Runs, between: Between) -> Between {
        let Between { low, high } = between;
        let (one, two) = (self.number(1), self.number(2));
        let open = self.compare(Compare::Lt, low, high);
        let middle = self.integers(Binary::Add, low, high);
        let middle = self.integers(Binary::Div, middle, two);
        let next = self.integers(Binary::Add, middle, one);
        let (_, x) = self.of_first(order, runs, middle);
        let rest = self.integers(Binary::Sub, runs.place, next);
        let (_, y) = self.of_second(order, runs, rest);
        // Of equal ones the first run's is before the second's.
        let later = self.before(y, x);
        let earlier = self.not(later);
        let up = self.both(open, earlier);
        let down = self.both(open, later);
        Between {
            low: self.choose(up, next, low),
            high: self.choose(down, middle, high),
        }
    }
}
