//! Index spaces with as few axes as their views allow, and how threads find their place in them.
//!
//! Two neighbouring axes become one where every view walks them as one; axes of one point go.
//! What remains is counted row-major, so a thread's number gives its index by divisions, which
//! are multiplications where sizes are known.

use super::asm::{Asm, Class, Int, R};
use super::divide;
use super::scope::Scope;
pub(super) use crate::launch::widths::accesses;
use crate::{Body, Dim, Inst, Move, Row, Var, View};

/// What may be merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Columns {
    /// The last axis is like the others.
    Merge,
    /// The last axis stays by itself.
    Keep,
}

/// New axes: their sizes, and which old axes each is made of (outermost first).
struct Axes {
    sizes: Vec<Dim>,
    from: Vec<Vec<usize>>,
}

/// Merges the axes of `space`; `read` axes are those whose index itself is used.
fn merge(space: &[Dim], views: &[&View], read: &[usize], columns: Columns) -> Axes {
    let mut axes = Axes {
        sizes: Vec::new(),
        from: Vec::new(),
    };
    let last = space.len() - 1;
    for (axis, size) in space.iter().enumerate() {
        let kept = axis == last && columns == Columns::Keep;
        if size.is(1) && !kept {
            continue;
        }
        let single = kept || read.contains(&axis);
        let before = axes.from.last().and_then(|f| f.last()).copied();
        let joins = before.filter(|b| !single && !read.contains(b)).filter(|b| {
            let steps = |v: &&View| v.strides[*b] == &v.strides[axis] * size;
            views.iter().all(steps)
        });
        match (joins, axes.sizes.last_mut(), axes.from.last_mut()) {
            (Some(_), Some(merged), Some(from)) if fits(&(&*merged * size)) => {
                *merged = &*merged * size;
                from.push(axis);
            }
            _ => {
                axes.sizes.push(size.clone());
                axes.from.push(vec![axis]);
            }
        }
    }
    if axes.sizes.is_empty() {
        axes.sizes.push(Dim::from(1));
        axes.from.push(vec![]);
    }
    axes
}

/// Whether indices up to a size are signed 32-bit values, also where runtime integers are large.
fn fits(size: &Dim) -> bool {
    const LARGE: f64 = 65_536.0;
    let terms = size.terms().iter().map(|(powers, c)| {
        let degree: u8 = powers.iter().sum();
        *c as f64 * LARGE.powi(i32::from(degree))
    });
    terms.sum::<f64>() <= f64::from(i32::MAX)
}

impl Axes {
    /// A view over the new axes: each is walked as the innermost of those that it is made of.
    fn view(&self, old: &View) -> View {
        let stride = |from: &Vec<usize>| {
            let innermost = from.last();
            innermost.map_or(Dim::from(0), |a| old.strides[*a].clone())
        };
        View {
            offset: old.offset.clone(),
            strides: self.from.iter().map(stride).collect(),
        }
    }

    /// The new axis whose index is that of an old one; none if that has one point.
    fn axis(&self, old: usize) -> Option<usize> {
        self.from.iter().position(|f| f.contains(&old))
    }
}

/// The same kernel over fewer axes.
pub(super) fn merge_row(row: &Row, columns: Columns) -> Row {
    let insts = row.body.insts.iter();
    let views: Vec<&View> = row.body.accesses().map(|(_, view, _)| view).collect();
    let read: Vec<usize> = insts
        .filter_map(|i| match i {
            Inst::Iota(axis) => Some(*axis as usize),
            _ => None,
        })
        .collect();
    let axes = merge(&row.space, &views, &read, columns);
    let insts = row.body.insts.iter().map(|inst| match inst {
        Inst::Iota(axis) => match axes.axis(*axis as usize) {
            Some(new) => Inst::Iota(new as u8),
            None => Inst::I64(Dim::from(0)),
        },
        other => other.moved(|arg| arg, |view| axes.view(view)),
    });
    Row {
        body: Body {
            insts: insts.collect(),
        },
        space: axes.sizes,
        args: row.args.clone(),
    }
}

/// The same copy over fewer axes.
pub(super) fn merge_move(copy: &Move) -> Move {
    let axes = merge(&copy.space, &[&copy.src, &copy.dst], &[], Columns::Merge);
    Move {
        src: axes.view(&copy.src),
        dst: axes.view(&copy.dst),
        space: axes.sizes,
        dtype: copy.dtype,
    }
}

/// The runtime integers of a row kernel.
pub(super) fn row_vars(kernel: &Row) -> Vec<Var> {
    let mut all = kernel.body.vars();
    all.extend(vars(&kernel.space, []));
    all.sort();
    all.dedup();
    all
}

/// The runtime integers in sizes and views.
pub(super) fn vars<'a>(
    dims: impl IntoIterator<Item = &'a Dim>,
    views: impl IntoIterator<Item = &'a View>,
) -> Vec<Var> {
    let mut all: Vec<Var> = dims.into_iter().flat_map(Dim::vars).collect();
    for v in views {
        all.extend(v.offset.vars());
        all.extend(v.strides.iter().flat_map(Dim::vars));
    }
    all.sort();
    all.dedup();
    all
}

/// The number of this thread in the grid, along x (u32).
pub(super) fn thread(asm: &mut Asm, block: u32) -> R {
    let block_id = asm.op("mov.u32", Class::B32, &[&"%ctaid.x"]);
    let tid = asm.op("mov.u32", Class::B32, &[&"%tid.x"]);
    asm.op("mad.lo.u32", Class::B32, &[&block_id, &block, &tid])
}

/// The index along each axis of the point with this number (u32), counted row-major.
pub(super) fn index(asm: &mut Asm, scope: &Scope, sizes: &[Dim], number: R) -> Vec<Int> {
    let mut at = vec![Int::Imm(0); sizes.len()];
    let mut rest = number;
    for (axis, size) in sizes.iter().enumerate().rev() {
        if size.is(1) {
            continue;
        }
        let outermost = sizes[..axis].iter().all(|s| s.is(1));
        if outermost {
            at[axis] = Int::Reg(rest);
            break;
        }
        let size = scope.size(asm, size);
        let (above, within) = divide::div_rem_by(asm, rest, size);
        at[axis] = Int::Reg(within);
        rest = above;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Arg, BodyBuilder, DType};

    /// `a0[space] -> a1[space]` with these strides of the source.
    fn copied(space: Vec<Dim>, strides: &[Dim], read: Option<u8>) -> Row {
        let mut b = BodyBuilder::new();
        let offset = Dim::from(0);
        let strides = strides.to_vec();
        let x = b.load(Arg(0), View { offset, strides });
        b.store(Arg(1), View::contiguous(&space), x);
        if let Some(axis) = read {
            b.push(Inst::Iota(axis));
        }
        Row {
            space,
            args: vec![DType::F32; 2],
            body: b.finish(),
        }
    }

    fn merged(space: &[Dim], strides: &[Dim], read: Option<u8>, columns: Columns) -> Vec<Dim> {
        merge_row(&copied(space.to_vec(), strides, read), columns).space
    }

    fn dims<const N: usize>(sizes: [i64; N]) -> Vec<Dim> {
        sizes.map(Dim::from).to_vec()
    }

    #[test]
    fn axes_that_all_views_walk_as_one_are_one() {
        let space = dims([1, 9, 1, 64]);
        let whole = View::contiguous(&space).strides;
        assert_eq!(merged(&space, &whole, None, Columns::Merge), dims([576]));
        assert_eq!(merged(&space, &whole, None, Columns::Keep), dims([9, 64]));
        let broadcast = dims([0, 0, 0, 1]);
        assert_eq!(
            merged(&space, &broadcast, None, Columns::Merge),
            dims([9, 64])
        );
    }

    #[test]
    fn runtime_sizes_merge_where_indices_stay_small() {
        let seq = Dim::var(Var(1));
        let space = vec![seq.clone(), Dim::from(14336)];
        let whole = View::contiguous(&space).strides;
        let flat = vec![&seq * &Dim::from(14336)];
        assert_eq!(merged(&space, &whole, None, Columns::Merge), flat);
        let logits = vec![seq, Dim::from(128_256)];
        let whole = View::contiguous(&logits).strides;
        assert_eq!(merged(&logits, &whole, None, Columns::Merge), logits);
    }

    #[test]
    fn an_axis_whose_index_is_read_stays() {
        let space = dims([4, 5, 6]);
        let whole = View::contiguous(&space).strides;
        assert_eq!(
            merged(&space, &whole, Some(0), Columns::Merge),
            dims([4, 30])
        );
        assert_eq!(merged(&space, &whole, Some(1), Columns::Merge), space);
    }

    #[test]
    fn a_space_of_one_point_keeps_an_axis() {
        assert_eq!(
            merged(&dims([1, 1]), &dims([0, 0]), None, Columns::Merge),
            dims([1])
        );
    }
}
