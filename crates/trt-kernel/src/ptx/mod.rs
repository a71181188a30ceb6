//! The back end for NVIDIA GPUs: kernels as PTX text.
//!
//! Not built yet: [`emit`] names the kernel it cannot emit. The language assumes nothing of the
//! host, so this module is all that a GPU needs from this crate.

use crate::Kernel;

/// Why no text was emitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no PTX for {kernel} kernels in this version; run on the host device")]
pub struct Unsupported {
    /// The kernel kind.
    pub kernel: &'static str,
}

/// PTX text for a kernel.
pub fn emit(kernel: &Kernel) -> Result<String, Unsupported> {
    Err(Unsupported {
        kernel: kernel.kind(),
    })
}
