//! How many elements of each argument a kernel may touch in a call.

use candle_trt::kernel::{Env, Kernel};

/// For each argument, one more than the last element that a view reaches.
pub fn lengths(kernel: &Kernel, env: &Env) -> Vec<usize> {
    let mut lengths = vec![0; kernel.args().len()];
    for access in kernel.accesses() {
        let end = access.reach(env).map_or(0, |reach| reach.last + 1);
        // A launch's own memory is no argument.
        if let Some(length) = lengths.get_mut(access.arg.0 as usize) {
            *length = usize::try_from(end).map_or(*length, |end| end.max(*length));
        }
    }
    lengths
}
