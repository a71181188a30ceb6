//! Constants that follow positions: `f(j - i)` over the last two axes, a row of it for each element of the leading ones.
//!
//! Relative places in buckets, windows to both sides, triangles and slopes by distance are of this kind. The distance
//! counts from the start of both axes or from their ends. Every sample says what `f` is at the distances that it
//! has; where no two samples differ, and they have all distances that a call can have, the constant is a
//! gather from the table of `f`.

use super::literal::{Data, Instance};
use crate::graph::{Graph, Literal, Node, NodeId, Op};
use trt_kernel::{Binary, DType, Dim};

/// Elements of the largest table.
const LARGEST: usize = 1 << 24;

/// The table of `f`.
pub(super) struct Relative {
    /// `[distances, leading]`, from the least distance on.
    table: Literal,
    /// The least and the largest distance, the least with its sign turned.
    below: usize,
    above: usize,
    /// Elements of the leading axes.
    leading: usize,
    /// Whether distances count from the ends.
    ends: bool,
}

/// An instance as `[leading, queries, keys]`.
fn sizes(instance: &Instance<'_>) -> Option<[usize; 3]> {
    let (keys, rest) = instance.shape.split_last()?;
    let (queries, leading) = rest.split_last().unwrap_or((&1, &[]));
    Some([leading.iter().product(), *queries, *keys])
}

pub(super) fn recognise(instances: &[Instance<'_>], data: &[Data<'_>]) -> Option<Relative> {
    let sizes: Vec<[usize; 3]> = instances.iter().map(sizes).collect::<Option<_>>()?;
    let empty = sizes.iter().any(|s| s.contains(&0));
    let leading = sizes.first().filter(|_| !empty)?[0];
    if sizes.iter().any(|s| s[0] != leading) {
        return None;
    }
    [false, true]
        .into_iter()
        .find_map(|ends| table(&sizes, data, leading, ends))
}

fn table(sizes: &[[usize; 3]], data: &[Data<'_>], leading: usize, ends: bool) -> Option<Relative> {
    let shift = |[_, q, k]: &[usize; 3]| match ends {
        true => *k as i64 - *q as i64,
        false => 0,
    };
    let below = sizes
        .iter()
        .map(|s| s[1] as i64 - 1 + shift(s))
        .max()?
        .max(0);
    let above = sizes
        .iter()
        .map(|s| s[2] as i64 - 1 - shift(s))
        .max()?
        .max(0);
    let (below, above) = (below as usize, above as usize);
    let count = (below + above + 1)
        .checked_mul(leading)
        .filter(|n| *n <= LARGEST)?;
    let width = data.first()?.width();
    let mut bytes = vec![0; count * width];
    let mut known = vec![false; count];
    let mut elements = 0usize;
    for (size, data) in sizes.iter().zip(data) {
        let [_, queries, keys] = *size;
        let shift = shift(size);
        for (n, element) in data.raw().enumerate() {
            let (i, j) = (n / keys % queries, n % keys);
            let row = j as i64 - i as i64 - shift + below as i64;
            let at = usize::try_from(row).ok()? * leading + n / (keys * queries);
            let known = known.get_mut(at)?;
            let place = bytes.get_mut(at * width..(at + 1) * width)?;
            if *known && place != element {
                return None;
            }
            place.copy_from_slice(element);
            *known = true;
        }
        elements += size.iter().product::<usize>();
    }
    // Each distance is there, and some of them more than once.
    (known.iter().all(|k| *k) && elements > count).then(|| Relative {
        table: Literal::new(bytes),
        below,
        above,
        leading,
        ends,
    })
}

impl Relative {
    /// The node of the constant, if the table has all distances of all calls.
    pub fn spell(self, out: &mut Graph, shape: Vec<Dim>, dtype: DType) -> Option<NodeId> {
        let one = Dim::from(1);
        let keys = shape.last()?.clone();
        let queries = shape.iter().rev().nth(1).cloned().unwrap_or(one.clone());
        let shift = match self.ends {
            true => &keys - &queries,
            false => Dim::from(0),
        };
        let below = out.bound(&(&(&queries + &shift) - &one));
        let above = out.bound(&(&(&keys - &shift) - &one));
        if below > self.below as i64 || above > self.above as i64 {
            return None;
        }
        let each = &queries * &keys;
        let rows = self.rows(out, [&queries, &keys], &shift);
        let rows = push(out, Op::Reshape, vec![rows], vec![each.clone()], DType::I64);
        let leading = Dim::from(self.leading);
        let distances = Dim::from(self.below + self.above + 1);
        let whole = vec![distances, leading.clone()];
        let table = push(out, Op::Const(self.table), vec![], whole, dtype);
        let picked = vec![each.clone(), leading.clone()];
        let picked = push(out, Op::IndexSelect, vec![table, rows], picked, dtype);
        let turned = vec![leading, each];
        let turned = push(out, Op::Permute(vec![1, 0]), vec![picked], turned, dtype);
        Some(push(out, Op::Reshape, vec![turned], shape, dtype))
    }

    /// The row of the table for each query and key.
    fn rows(&self, out: &mut Graph, [queries, keys]: [&Dim; 2], shift: &Dim) -> NodeId {
        let one = Dim::from(1);
        let matrix = vec![queries.clone(), keys.clone()];
        let line = |out: &mut Graph, start: Dim, len: &Dim, shape: Vec<Dim>| {
            let range = Op::Arange { start, step: 1 };
            let range = push(out, range, vec![], vec![len.clone()], DType::I64);
            let range = push(out, Op::Reshape, vec![range], shape, DType::I64);
            push(out, Op::Broadcast, vec![range], matrix.clone(), DType::I64)
        };
        let first = &Dim::from(self.below) - shift;
        let key = line(out, first, keys, vec![one.clone(), keys.clone()]);
        let query = line(out, Dim::from(0), queries, vec![queries.clone(), one]);
        let minus = Op::Binary(Binary::Sub);
        push(out, minus, vec![key, query], matrix.clone(), DType::I64)
    }
}

fn push(out: &mut Graph, op: Op, inputs: Vec<NodeId>, shape: Vec<Dim>, dtype: DType) -> NodeId {
    out.push(Node {
        op,
        inputs,
        shape,
        dtype,
    })
}
