//! Whether CUDA can be used at all, found out without ever panicking.
//!
//! The bindings load the driver's library at their first call, and panic where it or a symbol is
//! missing. So nothing is called through them before [`Driver::get`] has found the library, every
//! symbol that this crate uses, and a driver that starts and is new enough. Holding a [`Driver`]
//! is the proof. What a driver may lack is looked for too, and each thing that it has is a proof
//! of its own, such as [`Maps`].

use super::check;
use crate::Error;
use cudarc::driver::sys;
use std::sync::OnceLock;

/// The oldest CUDA version that will do: it has PTX 8.0 and every symbol below.
const NEEDED: (u32, u32) = (12, 0);

/// Names of the driver's library, in the order in which the bindings try them.
const LIBRARIES: &[&str] = if cfg!(windows) {
    &["nvcuda.dll"]
} else {
    &["libcuda.so", "libcuda.so.1"]
};

/// Every symbol that this crate calls.
pub(super) const SYMBOLS: &[&str] = &[
    "cuCtxGetCurrent",
    "cuCtxSetCurrent",
    "cuCtxSynchronize",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDeviceTotalMem_v2",
    "cuDriverGetVersion",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventQuery",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuFuncGetAttribute",
    "cuFuncSetAttribute",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuGraphUpload",
    "cuInit",
    "cuLaunchKernel",
    "cuLaunchKernelEx",
    "cuMemAddressFree",
    "cuMemAddressReserve",
    "cuMemAlloc_v2",
    "cuMemCreate",
    "cuMemFreeHost",
    "cuMemFree_v2",
    "cuMemGetAllocationGranularity",
    "cuMemGetInfo_v2",
    "cuMemHostAlloc",
    "cuMemHostGetDevicePointer_v2",
    "cuMemHostRegister_v2",
    "cuMemHostUnregister",
    "cuMemMap",
    "cuMemRelease",
    "cuMemSetAccess",
    "cuMemUnmap",
    "cuMemcpyDtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemsetD8Async",
    "cuModuleGetFunction",
    "cuModuleLoadDataEx",
    "cuModuleUnload",
    "cuStreamBeginCapture_v2",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamEndCapture",
    "cuStreamQuery",
    "cuStreamSynchronize",
    "cuStreamWaitEvent",
];

/// What encodes tensor maps; a driver may lack it.
const ENCODES_MAPS: &str = "cuTensorMapEncodeTiled";

/// The driver, found and started: the proof that calling it cannot panic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Driver {
    devices: usize,
    maps: Option<Maps>,
}

/// The proof that the driver encodes tensor maps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Maps(());

impl Driver {
    /// Looks for the driver and starts it; the answer stays the same for this process.
    pub fn get() -> Result<Driver, Error> {
        static DRIVER: OnceLock<Result<Driver, Error>> = OnceLock::new();
        DRIVER.get_or_init(find).clone()
    }

    /// How many devices it shows.
    pub fn devices(self) -> usize {
        self.devices
    }

    /// Whether it encodes tensor maps.
    pub fn maps(self) -> Option<Maps> {
        self.maps
    }
}

fn find() -> Result<Driver, Error> {
    let maps = symbols(LIBRARIES)?;
    // SAFETY: the library and the symbol exist.
    let started = unsafe { sys::cuInit(0) };
    // Without a GPU there may be nothing but the library, or a stand-in for it.
    if let sys::CUresult::CUDA_ERROR_NO_DEVICE | sys::CUresult::CUDA_ERROR_STUB_LIBRARY = started {
        return Ok(Driver { devices: 0, maps });
    }
    check(started, || "cuInit".into()).map_err(|error| Error::BrokenDriver {
        reason: error.to_string(),
    })?;
    new_enough(version()?)?;
    let mut devices = 0;
    // SAFETY: the driver has started; it writes one number.
    let counted = unsafe { sys::cuDeviceGetCount(&mut devices) };
    check(counted, || "cuDeviceGetCount".into())?;
    Ok(Driver {
        devices: usize::try_from(devices).unwrap_or(0),
        maps,
    })
}

/// Whether one of the libraries loads and has every symbol, and what else it has.
fn symbols(libraries: &[&str]) -> Result<Option<Maps>, Error> {
    let mut reasons = Vec::new();
    for name in libraries {
        // SAFETY: the initialisers of the driver's library are what every CUDA program runs.
        match unsafe { libloading::Library::new(*name) } {
            Ok(library) => return complete(name, library),
            Err(error) => reasons.push(because(&error)),
        }
    }
    let reason = reasons.join("; ");
    Err(Error::NoDriver { reason })
}

/// What the system said; the error itself says only that it did not load.
fn because(error: &libloading::Error) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), ToString::to_string)
}

fn complete(name: &str, library: libloading::Library) -> Result<Option<Maps>, Error> {
    let has = |symbol: &str| {
        // SAFETY: the symbol is only looked for, never used at this type.
        let found = unsafe { library.get::<*const ()>(symbol.as_bytes()) };
        found.is_ok()
    };
    let found = enough(name, has);
    // The bindings open it again; unloading it in between would undo what its start has done.
    std::mem::forget(library);
    found
}

/// Whether a library has every symbol, and what else it has.
fn enough(name: &str, has: impl Fn(&str) -> bool) -> Result<Option<Maps>, Error> {
    match SYMBOLS.iter().find(|symbol| !has(symbol)) {
        None => Ok(has(ENCODES_MAPS).then_some(Maps(()))),
        Some(symbol) => Err(Error::BrokenDriver {
            reason: format!("{name} has no {symbol}; CUDA {}.{} has", NEEDED.0, NEEDED.1),
        }),
    }
}

fn version() -> Result<(u32, u32), Error> {
    let mut version = 0;
    // SAFETY: the driver has started; it writes one number.
    let told = unsafe { sys::cuDriverGetVersion(&mut version) };
    check(told, || "cuDriverGetVersion".into())?;
    let version = u32::try_from(version).unwrap_or(0);
    Ok((version / 1000, version % 1000 / 10))
}

fn new_enough(found: (u32, u32)) -> Result<(), Error> {
    match found >= NEEDED {
        true => Ok(()),
        false => Err(Error::OldDriver {
            found,
            needed: NEEDED,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_missing_library_is_an_error_that_names_it() {
        let error = symbols(&["libno-such-driver.so"]).unwrap_err();
        assert!(matches!(error, Error::NoDriver { .. }));
        assert!(
            error.to_string().contains("libno-such-driver.so"),
            "{error}"
        );
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_library_without_the_symbols_is_an_error_that_names_one() {
        let error = symbols(&["libno-such-driver.so", "libc.so.6"]).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("libc.so.6 has no cuCtxGetCurrent"),
            "{error}"
        );
    }

    #[test]
    fn a_driver_that_encodes_no_maps_is_taken_without_them() {
        assert!(enough("lib", |_| true).unwrap().is_some());
        let maps = enough("lib", |symbol| symbol != ENCODES_MAPS);
        assert!(maps.unwrap().is_none());
        assert!(enough("lib", |symbol| symbol != "cuInit").is_err());
    }

    #[test]
    fn an_old_driver_is_refused_with_both_versions() {
        let text = new_enough((11, 8)).unwrap_err().to_string();
        assert!(text.contains("11.8") && text.contains("12.0"), "{text}");
        assert!(new_enough((12, 0)).is_ok() && new_enough((13, 0)).is_ok());
    }

    #[test]
    fn every_call_is_among_the_symbols_that_are_looked_for() {
        let sources = [
            include_str!("context.rs"),
            include_str!("graph.rs"),
            include_str!("maps.rs"),
            include_str!("memory.rs"),
            include_str!("mod.rs"),
            include_str!("module.rs"),
            include_str!("probe.rs"),
            include_str!("queue.rs"),
            include_str!("space.rs"),
        ];
        let calls = sources.iter().flat_map(|s| s.split("sys::cu").skip(1));
        let called: BTreeSet<String> = calls
            .filter(|rest| rest.starts_with(char::is_uppercase))
            .map(|rest| rest.split('(').next().unwrap_or(""))
            .map(|name| format!("cu{name}"))
            .collect();
        let listed = SYMBOLS.iter().chain([&ENCODES_MAPS]);
        let listed: BTreeSet<String> = listed.map(|s| s.to_string()).collect();
        assert_eq!(called, listed);
    }
}
