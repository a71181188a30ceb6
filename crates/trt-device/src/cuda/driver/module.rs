//! Kernels in text, assembled by the driver.

use super::context::{Bound, Context};
use super::memory::warn;
use crate::Error;
use cudarc::driver::sys;
use std::ffi::{CStr, CString, c_void};
use std::sync::Arc;

/// Bytes kept of what the driver's assembler writes.
const LOG: usize = 16 << 10;

/// Dynamic shared memory that a launch may have without asking.
const SHARED_WITHOUT_ASKING: u32 = 48 << 10;

/// An assembled module; its code leaves the device when dropped.
#[derive(Debug)]
pub(crate) struct Module {
    context: Arc<Context>,
    raw: sys::CUmodule,
}

// SAFETY: modules may be used from any thread on which their context is current.
unsafe impl Send for Module {}
// SAFETY: as above; the handle is never changed.
unsafe impl Sync for Module {}

/// An entry of a module, which must be kept for as long as it is used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Function(pub(super) sys::CUfunction);

// SAFETY: as for modules.
unsafe impl Send for Function {}
// SAFETY: as for modules.
unsafe impl Sync for Function {}

/// Why a text was not taken.
#[derive(Clone, Debug)]
pub(crate) struct Rejected {
    /// The driver's error.
    pub error: Box<Error>,
    /// What its assembler wrote.
    pub log: String,
}

impl From<Error> for Rejected {
    fn from(error: Error) -> Self {
        Rejected {
            error: Box::new(error),
            log: String::new(),
        }
    }
}

impl Module {
    /// Assembles a text.
    pub fn load(context: &Arc<Context>, text: &str) -> Result<Module, Rejected> {
        let bound = context.bind()?;
        let image = CString::new(text).map_err(|e| {
            let bad = sys::CUresult::CUDA_ERROR_INVALID_PTX;
            Rejected {
                error: Box::new(super::failure(bad, "cuModuleLoadDataEx".into())),
                log: e.to_string(),
            }
        })?;
        let (mut raw, mut log) = (std::ptr::null_mut(), vec![0u8; LOG]);
        // Sizes are passed where pointers stand.
        let mut options = [
            sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER,
            sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
        ];
        let mut values = [log.as_mut_ptr().cast::<c_void>(), LOG as *mut c_void];
        // SAFETY: the context is current; the text ends with a zero; there are as many options
        // as values; the log has the size told, and all of them outlive the call.
        let told = unsafe {
            sys::cuModuleLoadDataEx(
                &mut raw,
                image.as_ptr().cast(),
                options.len() as u32,
                options.as_mut_ptr(),
                values.as_mut_ptr(),
            )
        };
        bound
            .check(told, || {
                format!("cuModuleLoadDataEx of {} bytes", text.len())
            })
            .map_err(|error| Rejected {
                error: Box::new(error),
                log: text_of(&log),
            })?;
        Ok(Module {
            context: context.clone(),
            raw,
        })
    }

    /// An entry, ready for launches of `threads` threads a block with `shared` bytes of dynamic
    /// shared memory.
    pub fn function(&self, name: &str, threads: u32, shared: u32) -> Result<Function, Error> {
        use sys::CUfunction_attribute as Attribute;
        let bound = self.context.bind()?;
        let mut function = std::ptr::null_mut();
        let symbol = CString::new(name).unwrap_or_default();
        // SAFETY: the module is alive; the name ends with a zero; the driver writes one handle.
        let told = unsafe { sys::cuModuleGetFunction(&mut function, self.raw, symbol.as_ptr()) };
        bound.check(told, || format!("cuModuleGetFunction {name}"))?;
        let most = attribute(
            &bound,
            function,
            Attribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK,
        )?;
        if i64::from(threads) > i64::from(most) {
            let bad = sys::CUresult::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
            let call = format!("{name} with {threads} threads a block, of at most {most},");
            return Err(super::failure(bad, call));
        }
        if shared > SHARED_WITHOUT_ASKING {
            let wanted = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let value = i32::try_from(shared).unwrap_or(i32::MAX);
            // SAFETY: the function belongs to the module, which is alive.
            let told = unsafe { sys::cuFuncSetAttribute(function, wanted, value) };
            bound.check(told, || {
                format!("{shared} bytes of shared memory for {name}")
            })?;
        }
        Ok(Function(function))
    }
}

fn attribute(
    bound: &Bound<'_>,
    function: sys::CUfunction,
    attribute: sys::CUfunction_attribute,
) -> Result<i32, Error> {
    let mut value = 0;
    // SAFETY: the function's module is alive; the driver writes one number.
    let told = unsafe { sys::cuFuncGetAttribute(&mut value, attribute, function) };
    bound.check(told, || format!("cuFuncGetAttribute {}", attribute as u32))?;
    Ok(value)
}

fn text_of(log: &[u8]) -> String {
    let text = CStr::from_bytes_until_nul(log).unwrap_or_default();
    text.to_string_lossy().trim_end().to_string()
}

impl Drop for Module {
    fn drop(&mut self) {
        if let Ok(bound) = self.context.bind() {
            // SAFETY: loaded in `load`, unloaded only here; work that launches its functions
            // keeps the executable that owns it.
            let told = unsafe { sys::cuModuleUnload(self.raw) };
            warn(bound.check(told, || "cuModuleUnload".into()));
        }
    }
}
