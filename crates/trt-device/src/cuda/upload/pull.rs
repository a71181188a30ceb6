//! Uploads that a kernel makes, while the copy engine is held up.
//!
//! A kernel that reads registered pages reaches nearly the rate of the link, at the price of a part
//! of the multiprocessors: worth it only while the driver clears memory that was given back
//! ([`Clearing`](crate::cuda::driver::Clearing)).

use crate::Error;
use crate::cuda::driver::{Bound, Context, Function, Grid, Module, RawStream};
use std::sync::Arc;
use std::time::Instant;
use trt_kernel::ptx::{self, Target};

/// Blocks that reach the rate of the link, on an H100 with 256 threads each.
const BLOCKS: u32 = 32;

/// Bytes that are copied together; addresses and lengths are multiples of it.
const WORD: usize = 8;

/// The kernel.
#[derive(Debug)]
pub(in crate::cuda) struct Pull {
    context: Arc<Context>,
    function: Function,
    threads: u32,
    /// Holds the function.
    _module: Module,
}

impl Pull {
    /// Assembles it; none where kernels do not see registered pages at the host's addresses, or the
    /// driver does not take it.
    pub fn new(context: &Arc<Context>, target: Target) -> Option<Pull> {
        if !context.facts().same_addresses {
            return None;
        }
        let text = ptx::pull(target);
        let module = Module::load(context, &text.text);
        let made = module.and_then(|module| {
            let function = module.function(text.entry, text.block, 0)?;
            Ok(Pull {
                context: context.clone(),
                function,
                threads: text.block,
                _module: module,
            })
        });
        made.inspect_err(|why| tracing::debug!(%why.error, "uploads wait for clearing"))
            .ok()
    }

    /// Whether an upload should be made this way now.
    pub fn wanted(&self, dst: u64, src: *const u8, len: usize) -> bool {
        let aligned = [dst as usize, src as usize, len]
            .iter()
            .all(|n| n % WORD == 0);
        aligned && self.context.clearing().holds_up(Instant::now(), len)
    }

    /// Copies registered pages to device memory.
    ///
    /// # Safety
    /// `len` bytes at `dst` are device memory, and as many at `src` are registered pages that do not
    /// change, until the stream has come here; all three are multiples of eight.
    pub unsafe fn copy(
        &self,
        bound: &Bound<'_>,
        stream: &RawStream,
        dst: u64,
        src: *const u8,
        len: usize,
    ) -> Result<(), Error> {
        let grid = Grid {
            blocks: [BLOCKS, 1, 1],
            threads: self.threads,
            shared: 0,
            overlap: false,
        };
        let mut words = [dst, src as u64, (len / WORD) as u64];
        // SAFETY: the words are the entry's parameters in their order; the memory is as the caller
        // vouches, and kernels see it at these addresses; the module is kept by the device, which
        // waits for its streams before it goes.
        unsafe { stream.launch(bound, self.function, grid, &mut words, &[]) }
    }
}
