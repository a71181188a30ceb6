//! Layers that take a sequence part by part: `candle::streaming` over symbolic tensors.

use super::tensor::{Module, Tensor};
use candle_core::{D, Result, Shape, bail};
use std::fmt;

/// A number of an axis that can be given on.
pub trait Dim: candle_core::shape::Dim + Copy {}
impl<T: candle_core::shape::Dim + Copy> Dim for T {}

/// A part of a sequence, or nothing.
#[derive(Clone)]
pub struct StreamTensor(Option<Tensor>);

impl fmt::Debug for StreamTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(t) => write!(f, "{:?}", t.shape()),
            None => f.write_str("Empty"),
        }
    }
}

impl From<Option<Tensor>> for StreamTensor {
    fn from(value: Option<Tensor>) -> Self {
        Self(value)
    }
}

impl From<Tensor> for StreamTensor {
    fn from(value: Tensor) -> Self {
        Self(Some(value))
    }
}

impl From<()> for StreamTensor {
    fn from((): ()) -> Self {
        Self(None)
    }
}

impl StreamTensor {
    /// Nothing.
    pub fn empty() -> Self {
        Self(None)
    }

    /// A part.
    pub fn from_tensor(tensor: Tensor) -> Self {
        Self(Some(tensor))
    }

    /// The shape, if there is something.
    #[track_caller]
    pub fn shape(&self) -> Option<&Shape> {
        self.0.as_ref().map(Tensor::shape)
    }

    /// This part and the next along an axis.
    ///
    /// # Errors
    ///
    /// If they do not fit.
    #[track_caller]
    pub fn cat2<A: Dim>(&self, rhs: &Self, dim: A) -> Result<Self> {
        Ok(Self(match (&self.0, &rhs.0) {
            (Some(a), Some(b)) => Some(Tensor::cat(&[a, b], dim)?),
            (one, None) | (None, one) => one.clone(),
        }))
    }

    /// The size of an axis; 0 of nothing.
    ///
    /// # Errors
    ///
    /// If there is no such axis.
    #[track_caller]
    pub fn seq_len<A: Dim>(&self, dim: A) -> Result<usize> {
        self.0.as_ref().map_or(Ok(0), |t| t.dim(dim))
    }

    /// Becomes nothing.
    pub fn reset(&mut self) {
        self.0 = None;
    }

    /// At most `len` indices of an axis from `offset` on; nothing if there are none.
    ///
    /// # Errors
    ///
    /// If there is no such axis.
    #[track_caller]
    pub fn narrow<A: Dim>(&self, dim: A, offset: usize, len: usize) -> Result<StreamTensor> {
        let Some(t) = &self.0 else {
            return Ok(Self(None));
        };
        match t.dim(dim)?.checked_sub(offset) {
            None | Some(0) => Ok(Self(None)),
            Some(left) => Ok(Self(Some(t.narrow(dim, offset, len.min(left))?))),
        }
    }

    /// The first `lhs_len` indices of an axis, and the others.
    ///
    /// # Errors
    ///
    /// If there is no such axis.
    #[track_caller]
    pub fn split<A: Dim>(&self, dim: A, lhs_len: usize) -> Result<(Self, Self)> {
        let Some(t) = &self.0 else {
            return Ok((Self(None), Self(None)));
        };
        let len = t.dim(dim)?;
        let first = lhs_len.min(len);
        let part = |start: usize, len: usize| -> Result<Self> {
            match len {
                0 => Ok(Self(None)),
                _ => Ok(Self(Some(t.narrow(dim, start, len)?))),
            }
        };
        match first {
            0 => Ok((Self(None), self.clone())),
            _ => Ok((part(0, first)?, part(first, len - first)?)),
        }
    }

    /// The tensor, if there is one.
    pub fn as_option(&self) -> Option<&Tensor> {
        self.0.as_ref()
    }

    /// A layer's result on what there is.
    ///
    /// # Errors
    ///
    /// What the layer returns.
    #[track_caller]
    pub fn apply<M: Module>(&self, m: &M) -> Result<Self> {
        match &self.0 {
            None => Ok(Self(None)),
            Some(t) => Ok(Self(Some(t.apply(m)?))),
        }
    }
}

/// A layer that takes a sequence part by part, and keeps what it needs of the parts before.
pub trait StreamingModule {
    /// The next part of the result.
    ///
    /// # Errors
    ///
    /// If the part does not fit the layer.
    fn step(&mut self, xs: &StreamTensor) -> Result<StreamTensor>;

    /// Forgets what was before.
    fn reset_state(&mut self);
}

/// A function of two sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BinOp {
    /// Their sum.
    Add,
    /// Their product.
    Mul,
    /// Their difference.
    Sub,
    /// Their quotient.
    Div,
}

/// A function of two sequences whose parts need not be equally long.
#[derive(Debug, Clone)]
pub struct StreamingBinOp {
    left: StreamTensor,
    right: StreamTensor,
    /// The function.
    pub op: BinOp,
    /// The axis along which the sequences are.
    pub dim: D,
}

impl StreamingBinOp {
    /// A function of sequences along an axis.
    pub fn new(op: BinOp, dim: D) -> Self {
        Self {
            left: StreamTensor::empty(),
            right: StreamTensor::empty(),
            op,
            dim,
        }
    }

    /// Forgets what waits for the other side.
    pub fn reset_state(&mut self) {
        self.left.reset();
        self.right.reset();
    }

    /// The function of two tensors.
    ///
    /// # Errors
    ///
    /// If shapes or dtypes differ.
    #[track_caller]
    pub fn forward(&self, lhs: &Tensor, rhs: &Tensor) -> Result<Tensor> {
        match self.op {
            BinOp::Add => lhs.add(rhs),
            BinOp::Mul => lhs.mul(rhs),
            BinOp::Sub => lhs.sub(rhs),
            BinOp::Div => lhs.div(rhs),
        }
    }

    /// The function as far as both sides are there; the rest waits.
    ///
    /// # Errors
    ///
    /// If the parts do not fit.
    #[track_caller]
    pub fn step(&mut self, lhs: &StreamTensor, rhs: &StreamTensor) -> Result<StreamTensor> {
        let lhs = self.left.cat2(lhs, self.dim)?;
        let rhs = self.right.cat2(rhs, self.dim)?;
        let common = lhs.seq_len(self.dim)?.min(rhs.seq_len(self.dim)?);
        let (lhs, left) = lhs.split(self.dim, common)?;
        let (rhs, right) = rhs.split(self.dim, common)?;
        let out = match (&lhs.0, &rhs.0) {
            (Some(a), Some(b)) => StreamTensor::from_tensor(self.forward(a, b)?),
            (None, None) => StreamTensor::empty(),
            _ => bail!("StreamingBinOp: parts {lhs:?} and {rhs:?} of a common length of {common}"),
        };
        (self.left, self.right) = (left, right);
        Ok(out)
    }
}

/// A layer that looks at each part by itself.
pub struct Map<T: Module>(T);

impl<T: Module> StreamingModule for Map<T> {
    #[track_caller]
    fn step(&mut self, xs: &StreamTensor) -> Result<StreamTensor> {
        xs.apply(&self.0)
    }

    fn reset_state(&mut self) {}
}
