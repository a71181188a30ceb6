//! Layers that are closures.

use crate::mirror::tensor::{Module, ModuleT, Tensor};
use candle_core::Result;
use std::fmt;
use std::sync::Arc;

type Call<'a> = dyn 'a + Fn(&Tensor) -> Result<Tensor> + Send + Sync;
type CallT<'a> = dyn 'a + Fn(&Tensor, bool) -> Result<Tensor> + Send + Sync;

/// A layer that is a closure.
#[derive(Clone)]
pub struct Func<'a>(Arc<Call<'a>>);

/// A layer that is a closure of its input.
#[track_caller]
pub fn func<'a, F>(f: F) -> Func<'a>
where
    F: 'a + Fn(&Tensor) -> Result<Tensor> + Send + Sync,
{
    Func(Arc::new(f))
}

impl<'a> Func<'a> {
    /// A layer that is a closure of its input.
    #[track_caller]
    pub fn new<F>(f: F) -> Self
    where
        F: 'a + Fn(&Tensor) -> Result<Tensor> + Send + Sync,
    {
        func(f)
    }
}

impl Module for Func<'_> {
    #[track_caller]
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        (self.0)(xs)
    }
}

impl fmt::Debug for Func<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("func")
    }
}

/// A layer that is a closure which is told whether this is training.
#[derive(Clone)]
pub struct FuncT<'a>(Arc<CallT<'a>>);

/// A layer that is a closure of its input and of whether this is training.
#[track_caller]
pub fn func_t<'a, F>(f: F) -> FuncT<'a>
where
    F: 'a + Fn(&Tensor, bool) -> Result<Tensor> + Send + Sync,
{
    FuncT(Arc::new(f))
}

impl<'a> FuncT<'a> {
    /// A layer that is a closure of its input and of whether this is training.
    #[track_caller]
    pub fn new<F>(f: F) -> Self
    where
        F: 'a + Fn(&Tensor, bool) -> Result<Tensor> + Send + Sync,
    {
        func_t(f)
    }
}

impl ModuleT for FuncT<'_> {
    #[track_caller]
    fn forward_t(&self, xs: &Tensor, train: bool) -> Result<Tensor> {
        (self.0)(xs, train)
    }
}

impl fmt::Debug for FuncT<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("func")
    }
}
