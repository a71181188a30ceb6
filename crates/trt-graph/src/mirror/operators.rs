//! `+`, `-`, `*` and `/` between tensors, results and numbers.

use super::tensor::Tensor;
use candle_core::Result;
use std::borrow::Borrow;
use trt_kernel::Binary;

/// candle's operator set: tensors by value or reference, results, and numbers on either side.
macro_rules! operators {
    ($($trait:ident $fn:ident $f:expr, |$t:ident, $v:ident| $reversed:expr;)*) => {
        $(
            impl<B: Borrow<Tensor>> std::ops::$trait<B> for Tensor {
                type Output = Result<Tensor>;
                #[track_caller]
                fn $fn(self, rhs: B) -> Self::Output {
                    self.binary(rhs.borrow(), $f)
                }
            }
            impl<B: Borrow<Tensor>> std::ops::$trait<B> for &Tensor {
                type Output = Result<Tensor>;
                #[track_caller]
                fn $fn(self, rhs: B) -> Self::Output {
                    self.binary(rhs.borrow(), $f)
                }
            }
            impl<B: Borrow<Tensor>> std::ops::$trait<Result<B>> for Tensor {
                type Output = Result<Tensor>;
                #[track_caller]
                fn $fn(self, rhs: Result<B>) -> Self::Output {
                    self.binary(rhs?.borrow(), $f)
                }
            }
            impl<B: Borrow<Tensor>> std::ops::$trait<Result<B>> for &Tensor {
                type Output = Result<Tensor>;
                #[track_caller]
                fn $fn(self, rhs: Result<B>) -> Self::Output {
                    self.binary(rhs?.borrow(), $f)
                }
            }
            impl<B: Borrow<Tensor>> std::ops::$trait<Tensor> for Result<B> {
                type Output = Result<Tensor>;
                #[track_caller]
                fn $fn(self, rhs: Tensor) -> Self::Output {
                    self?.borrow().binary(&rhs, $f)
                }
            }
            impl<B: Borrow<Tensor>> std::ops::$trait<&Tensor> for Result<B> {
                type Output = Result<Tensor>;
                #[track_caller]
                fn $fn(self, rhs: &Tensor) -> Self::Output {
                    self?.borrow().binary(rhs, $f)
                }
            }
            impl std::ops::$trait<f64> for Tensor {
                type Output = Result<Tensor>;
                #[track_caller]
                fn $fn(self, rhs: f64) -> Self::Output {
                    self.with_scalar(rhs, $f)
                }
            }
            impl std::ops::$trait<f64> for &Tensor {
                type Output = Result<Tensor>;
                #[track_caller]
                fn $fn(self, rhs: f64) -> Self::Output {
                    self.with_scalar(rhs, $f)
                }
            }
            impl std::ops::$trait<Tensor> for f64 {
                type Output = Result<Tensor>;
                #[track_caller]
                fn $fn(self, $t: Tensor) -> Self::Output {
                    let $v = self;
                    $reversed
                }
            }
            impl std::ops::$trait<&Tensor> for f64 {
                type Output = Result<Tensor>;
                #[track_caller]
                fn $fn(self, $t: &Tensor) -> Self::Output {
                    let $v = self;
                    $reversed
                }
            }
        )*
    };
}
operators! {
    Add add Binary::Add, |t, v| t.with_scalar(v, Binary::Add);
    Sub sub Binary::Sub, |t, v| t.like(v)?.binary(Borrow::<Tensor>::borrow(&t), Binary::Sub);
    Mul mul Binary::Mul, |t, v| t.with_scalar(v, Binary::Mul);
    Div div Binary::Div, |t, v| t.like(v)?.binary(Borrow::<Tensor>::borrow(&t), Binary::Div);
}
