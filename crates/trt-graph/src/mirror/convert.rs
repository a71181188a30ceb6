//! Numbers and vectors from tensors, where they depend on constants only, and tensors from them.

use super::device::Device;
use super::tensor::Tensor;
use candle_core::{Error, WithDType};
use half::{bf16, f16};

impl<T: WithDType> TryFrom<&[T]> for Tensor {
    type Error = Error;
    #[track_caller]
    fn try_from(v: &[T]) -> Result<Self, Self::Error> {
        Tensor::from_slice(v, v.len(), &Device::Cpu)
    }
}

impl<T: WithDType> TryFrom<Vec<T>> for Tensor {
    type Error = Error;
    #[track_caller]
    fn try_from(v: Vec<T>) -> Result<Self, Self::Error> {
        let len = v.len();
        Tensor::from_vec(v, len, &Device::Cpu)
    }
}

/// What a tensor becomes by a method of its own.
macro_rules! from_tensor {
    ($method:ident: $out:ty) => {
        impl TryFrom<&Tensor> for $out {
            type Error = Error;
            #[track_caller]
            fn try_from(tensor: &Tensor) -> Result<Self, Self::Error> {
                tensor.$method()
            }
        }

        impl TryFrom<Tensor> for $out {
            type Error = Error;
            #[track_caller]
            fn try_from(tensor: Tensor) -> Result<Self, Self::Error> {
                tensor.$method()
            }
        }
    };
}

macro_rules! numbers {
    ($($number:ty),*) => {
        $(
            from_tensor!(to_scalar: $number);
            from_tensor!(to_vec1: Vec<$number>);
            from_tensor!(to_vec2: Vec<Vec<$number>>);
            from_tensor!(to_vec3: Vec<Vec<Vec<$number>>>);

            impl TryFrom<$number> for Tensor {
                type Error = Error;
                #[track_caller]
                fn try_from(v: $number) -> Result<Self, Self::Error> {
                    Tensor::new(v, &Device::Cpu)
                }
            }
        )*
    };
}
numbers!(f64, f32, f16, bf16, i64, i32, i16, u32, u8);
