//! Views with the numbers of one call: where the points of an index space lie in their arguments.

use super::program::Program;
use super::span::Run;
use crate::{Env, Inst, View};

/// The most axes that an index space may have.
pub(super) const MAX_AXES: usize = 8;

/// A point of an index space.
pub(super) type Index = [i64; MAX_AXES];

/// Axes of a template: each is its own.
pub(super) const SAME_AXES: [Option<u8>; MAX_AXES] = {
    let mut axes = [None; MAX_AXES];
    let mut i = 0;
    while i < MAX_AXES {
        axes[i] = Some(i as u8);
        i += 1;
    }
    axes
};

/// A view with the numbers of one call.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CallView {
    pub offset: i64,
    pub strides: Index,
}

impl CallView {
    pub fn new(view: &View, env: &Env) -> CallView {
        let mut strides = [0; MAX_AXES];
        for (s, dim) in strides.iter_mut().zip(&view.strides) {
            *s = dim.eval(env);
        }
        CallView {
            offset: view.offset.eval(env),
            strides,
        }
    }

    /// The element at a point.
    #[inline(always)]
    pub fn at(&self, index: &Index) -> i64 {
        let mut sum = self.offset;
        for (i, s) in index.iter().zip(&self.strides) {
            sum = sum.wrapping_add(i.wrapping_mul(*s));
        }
        sum
    }

    /// `count` points from `index` on along `axis`.
    #[inline(always)]
    pub fn run(&self, index: &Index, axis: usize, count: usize) -> Run {
        Run {
            offset: self.at(index),
            stride: self.strides[axis],
            count,
        }
    }
}

/// One [`CallView`] for each instruction.
pub(super) fn places(program: &Program, env: &Env) -> Vec<CallView> {
    let place = |inst: &Inst| match inst.access() {
        Some((_, view, _)) => CallView::new(view, env),
        None => CallView::default(),
    };
    program.insts.iter().map(place).collect()
}
