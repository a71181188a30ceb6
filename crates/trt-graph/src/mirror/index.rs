//! `.i(..)`: indices and ranges for the leading axes.

use super::tensor::Tensor;
use candle_core::{Result, bail};
use std::ops::{
    Bound, Range, RangeBounds, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive,
};

/// What one axis is indexed with.
#[derive(Clone, Debug)]
pub enum TensorIndexer {
    /// One index; the axis goes.
    Select(usize),
    /// A range; the axis stays.
    Narrow(Bound<usize>, Bound<usize>),
    /// Ids (rank 1); the axis stays.
    IndexSelect(Tensor),
}

impl From<usize> for TensorIndexer {
    fn from(index: usize) -> Self {
        TensorIndexer::Select(index)
    }
}

impl From<&Tensor> for TensorIndexer {
    fn from(ids: &Tensor) -> Self {
        TensorIndexer::IndexSelect(ids.clone())
    }
}

macro_rules! range_indexers {
    ($($range:ty),*) => {
        $(
            impl From<$range> for TensorIndexer {
                fn from(range: $range) -> Self {
                    TensorIndexer::Narrow(range.start_bound().cloned(), range.end_bound().cloned())
                }
            }
        )*
    };
}
range_indexers!(
    Range<usize>,
    RangeFrom<usize>,
    RangeFull,
    RangeInclusive<usize>,
    RangeTo<usize>,
    RangeToInclusive<usize>
);

/// Indexing with one indexer or a tuple of them.
pub trait IndexOp<T> {
    /// The part of the tensor that the indexers pick.
    ///
    /// # Errors
    ///
    /// If there are more indexers than axes, or one is outside of its axis.
    fn i(&self, index: T) -> Result<Tensor>;
}

impl Tensor {
    #[track_caller]
    fn index(&self, indexers: &[TensorIndexer]) -> Result<Tensor> {
        if indexers.len() > self.rank() {
            bail!(
                "{} indexers for a tensor of shape {:?}",
                indexers.len(),
                self.shape()
            );
        }
        let mut out = self.clone();
        let mut axis = 0;
        for indexer in indexers {
            match indexer {
                TensorIndexer::Select(i) => {
                    let one = out.narrow(axis, *i, 1)?;
                    let mut dims = one.dims().to_vec();
                    dims.remove(axis);
                    out = one.reshape(dims)?;
                }
                // What is written as a full range is one at any size; another may be at some.
                TensorIndexer::Narrow(Bound::Unbounded, Bound::Unbounded) => axis += 1,
                TensorIndexer::Narrow(start, end) => {
                    let size = out.dims()[axis];
                    let start = match start {
                        Bound::Included(n) => *n,
                        Bound::Excluded(n) => n.saturating_add(1),
                        Bound::Unbounded => 0,
                    };
                    let end = match end {
                        Bound::Included(n) => n.saturating_add(1),
                        Bound::Excluded(n) => *n,
                        Bound::Unbounded => size,
                    };
                    out = out.narrow(axis, start, end.saturating_sub(start))?;
                    axis += 1;
                }
                TensorIndexer::IndexSelect(ids) => {
                    out = out.index_select(ids, axis)?;
                    axis += 1;
                }
            }
        }
        Ok(out)
    }
}

impl<T: Into<TensorIndexer>> IndexOp<T> for Tensor {
    #[track_caller]
    fn i(&self, index: T) -> Result<Tensor> {
        self.index(&[index.into()])
    }
}

macro_rules! tuple_index {
    ($($t:ident),+) => {
        #[allow(non_snake_case)]
        impl<$($t),+> IndexOp<($($t,)+)> for Tensor
        where
            $($t: Into<TensorIndexer>,)+
        {
            #[track_caller]
            fn i(&self, ($($t,)+): ($($t,)+)) -> Result<Tensor> {
                self.index(&[$($t.into()),+])
            }
        }
    };
}
tuple_index!(A);
tuple_index!(A, B);
tuple_index!(A, B, C);
tuple_index!(A, B, C, E);
tuple_index!(A, B, C, E, F);
