//! How wide an access to memory may be: up to 16 bytes, where that is provably aligned. Pointers
//! are, to 256 bytes, so it is enough that offset and strides are multiples.

use crate::{Body, DType, Dim, Inst, View};

/// The widest access, in bytes.
pub(crate) const WIDEST: usize = 16;

/// How many of `lanes` neighbouring elements of `size` bytes one access may take, where the index
/// along the last axis is a multiple of `lanes`. `known` is the index along an axis, if it is known.
pub(crate) fn width(
    view: &View,
    known: impl Fn(usize) -> Option<i64>,
    lanes: usize,
    size: usize,
) -> usize {
    let Some((last, outer)) = view.strides.split_last() else {
        return 1;
    };
    if !last.is(1) {
        return 1;
    }
    let index = |axis: usize| Dim::from(known(axis).unwrap_or(1));
    let aligned = |n: usize| {
        let mut steps = outer.iter().enumerate();
        view.offset.is_multiple_of(n) && steps.all(|(axis, s)| (s * &index(axis)).is_multiple_of(n))
    };
    let mut n = lanes.min(WIDEST / size).max(1);
    while n > 1 && !(lanes.is_multiple_of(n) && aligned(n)) {
        n /= 2;
    }
    n
}

/// How many neighbouring elements of the last axis a thread takes: no access is wider than 16
/// bytes, all are aligned, and the axis is a multiple of it.
pub(crate) fn lanes<'a>(columns: &Dim, accesses: impl Iterator<Item = (&'a View, usize)>) -> usize {
    let mut lanes = 8;
    for (view, size) in accesses {
        if view.strides.last().is_some_and(|s| !s.is(0)) {
            lanes = lanes.min(width(view, |_| None, lanes, size));
        }
    }
    while !columns.is_multiple_of(lanes) {
        lanes /= 2;
    }
    lanes
}

/// Whether all points along the last axis have one element.
pub(crate) fn fixed_along_lanes(view: &View) -> bool {
    view.strides.last().is_none_or(|s| s.is(0))
}

/// The views of a body's loads and stores with the sizes of their elements.
pub(crate) fn accesses<'a>(
    body: &'a Body,
    args: &'a [DType],
) -> impl Iterator<Item = (&'a View, usize)> {
    body.insts.iter().filter_map(|inst| match inst {
        Inst::Load(a, v) | Inst::Store(a, v, _) => Some((v, args[a.0 as usize].size())),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Var;

    fn view(offset: Dim, strides: [i64; 2]) -> View {
        View {
            offset,
            strides: strides.map(Dim::from).to_vec(),
        }
    }

    #[test]
    fn an_access_is_as_wide_as_offset_and_strides_allow() {
        let past = Dim::var(Var(0));
        let wide = |offset: Dim, row: i64| width(&view(offset, [row, 1]), |_| None, 8, 2);
        assert_eq!(wide(Dim::from(0), 64), 8);
        assert_eq!(wide(&past * &Dim::from(128), 64), 8);
        assert_eq!(wide(Dim::from(4), 64), 4);
        assert_eq!(wide(Dim::from(0), 66), 2);
        assert_eq!(wide(past, 64), 1);
    }

    #[test]
    fn elements_that_lie_apart_are_accessed_one_by_one() {
        assert_eq!(width(&view(Dim::from(0), [1, 64]), |_| None, 8, 2), 1);
    }

    #[test]
    fn a_stride_along_an_axis_at_its_start_does_not_count() {
        let odd = view(Dim::from(0), [33, 1]);
        assert_eq!(width(&odd, |_| None, 8, 2), 1);
        assert_eq!(width(&odd, |_| Some(0), 8, 2), 8);
    }

    #[test]
    fn lanes_fill_16_bytes_of_the_widest_element() {
        let narrow = view(Dim::from(0), [64, 1]);
        let lanes_of = |sizes: &[usize], columns: usize| {
            lanes(&Dim::from(columns), sizes.iter().map(|s| (&narrow, *s)))
        };
        assert_eq!(lanes_of(&[2, 2], 64), 8);
        assert_eq!(lanes_of(&[2, 4], 64), 4);
        assert_eq!(lanes_of(&[2, 2], 36), 4);
        assert_eq!(lanes_of(&[2, 2], 33), 1);
    }
}
