//! The runtime integers of a stream or a graph, which its kernels read.

use crate::Error;
use crate::cuda::driver::{Bound, RawStream};
use trt_kernel::{Env, Var};

/// Runtime integers where a copy finds them.
pub(in crate::cuda) type Integers = Box<[i64; Var::MAX]>;

/// Writes runtime integers to device memory in the stream's order. `keep` takes what must be kept
/// until the stream has come here, also after an error; `to` is the slot of a stream or graph,
/// which is.
pub(in crate::cuda) fn write_integers(
    bound: &Bound<'_>,
    stream: &RawStream,
    to: u64,
    env: Env,
    keep: impl FnOnce(Integers),
) -> Result<(), Error> {
    let values: Integers = Box::new(std::array::from_fn(|v| env.get(Var(v as u8))));
    let (from, len) = (values.as_ptr().cast::<u8>(), size_of_val(&*values));
    // SAFETY: the destination is the slot of a stream or graph, which outlives its work; the
    // source is on the heap and kept below, whatever became of the copy.
    let put = unsafe { stream.copy_in(bound, to, from, len) };
    keep(values);
    put
}
