//! The back end that executes kernels on the CPU.

use crate::{DType, Env, Kernel};
use std::ops::Range;

/// A memory range that a launch may read or write: start address and length in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    ptr: *mut u8,
    len: usize,
    writable: bool,
    _life: std::marker::PhantomData<&'a mut [u8]>,
}

/// What a launch can fail with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// placeholder
    #[error("not built")]
    NotBuilt(DType),
}

/// placeholder
pub fn run_on_slices(
    _k: &Kernel,
    _env: &Env,
    _rows: Option<Range<usize>>,
    _ops: &mut [Span<'_>],
) -> Result<(), HostError> {
    Ok(())
}
impl<'a> Span<'a> {
    /// placeholder
    pub fn from_slice<T: bytemuck::Pod>(s: &'a [T]) -> Self {
        Span {
            ptr: s.as_ptr() as *mut u8,
            len: std::mem::size_of_val(s),
            writable: false,
            _life: std::marker::PhantomData,
        }
    }
    /// placeholder
    pub fn from_mut<T: bytemuck::Pod>(s: &'a mut [T]) -> Self {
        Span {
            ptr: s.as_mut_ptr() as *mut u8,
            len: std::mem::size_of_val(s),
            writable: true,
            _life: std::marker::PhantomData,
        }
    }
}
