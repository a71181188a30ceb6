//! A device's primary context, and the proof that it is current on a thread.
//!
//! The primary context is the one that every library of the process shares, so tensors of others
//! and memory of ours live side by side. Invariants: once a call has found the context beyond use,
//! every later [`Context::bind`] says so with the first error; and all that is opened of one
//! ordinal shares one [`Context`], since what breaks a capture breaks it whoever's it is.

use super::clearing::Clearing;
use super::probe::Driver;
use super::{check, ends_context, failure};
use crate::Error;
use cudarc::driver::sys;
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use sys::CUdevice_attribute as Attribute;

/// The contexts that are retained, by ordinal.
static OPENED: Mutex<BTreeMap<usize, Weak<Context>>> = Mutex::new(BTreeMap::new());

/// The primary context of one device; released when the last reference is gone.
pub(crate) struct Context {
    device: sys::CUdevice,
    raw: sys::CUcontext,
    facts: Facts,
    lost: OnceLock<Error>,
    /// Held while a stream captures, and by what a capture would not survive.
    capturing: Mutex<()>,
    clearing: Clearing,
}

/// What a device is, as the driver tells.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// Its name.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// Bytes of memory.
    pub total_memory: u64,
    /// Whether a read-only file mapping can be registered for copies and kernels.
    pub registers_read_only: bool,
    /// Whether kernels see registered memory where the host does.
    pub same_addresses: bool,
}

impl Facts {
    /// Asks the driver; needs no context.
    pub fn of(driver: Driver, ordinal: usize) -> Result<Facts, Error> {
        let device = handle(driver, ordinal)?;
        let mut name = [0; 256];
        let mut total = 0;
        // SAFETY: the driver has started and the device exists; it writes at most as many bytes
        // as it is told, with a zero at their end, and one number.
        unsafe {
            let told = sys::cuDeviceGetName(name.as_mut_ptr(), name.len() as i32 - 1, device);
            check(told, || format!("cuDeviceGetName of device {ordinal}"))?;
            let told = sys::cuDeviceTotalMem_v2(&mut total, device);
            check(told, || format!("cuDeviceTotalMem of device {ordinal}"))?;
        }
        // SAFETY: the last byte is zero, whatever the driver wrote before it.
        let name = unsafe { CStr::from_ptr(name.as_ptr()) };
        let number = |a| attribute(device, a).map(|n| u32::try_from(n).unwrap_or(0));
        let flag = |a| attribute(device, a).map(|n| n != 0);
        Ok(Facts {
            name: name.to_string_lossy().into_owned(),
            capability: (
                number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            ),
            total_memory: total as u64,
            registers_read_only: flag(
                Attribute::CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED,
            )?,
            same_addresses: flag(
                Attribute::CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM,
            )?,
        })
    }
}

fn handle(driver: Driver, ordinal: usize) -> Result<sys::CUdevice, Error> {
    let devices = driver.devices();
    let none = Error::NoDevice { ordinal, devices };
    let number = i32::try_from(ordinal).map_err(|_| none.clone())?;
    if ordinal >= devices {
        return Err(none);
    }
    let mut device = 0;
    // SAFETY: the driver has started, as `driver` proves; it writes one number.
    let told = unsafe { sys::cuDeviceGet(&mut device, number) };
    check(told, || format!("cuDeviceGet of device {ordinal}"))?;
    Ok(device)
}

fn attribute(device: sys::CUdevice, attribute: Attribute) -> Result<i32, Error> {
    let mut value = 0;
    // SAFETY: only reached with a device that the driver gave; it writes one number.
    let told = unsafe { sys::cuDeviceGetAttribute(&mut value, attribute, device) };
    check(told, || {
        format!("cuDeviceGetAttribute {}", attribute as u32)
    })?;
    Ok(value)
}

// SAFETY: contexts may be used from any thread that makes them current, which `bind` does; the
// handle itself is never changed.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// The primary context of a device, the same one for as long as anybody has it.
    pub fn retain(driver: Driver, ordinal: usize) -> Result<Arc<Context>, Error> {
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(context) = opened.get(&ordinal).and_then(Weak::upgrade) {
            return Ok(context);
        }
        let facts = Facts::of(driver, ordinal)?;
        let device = handle(driver, ordinal)?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the driver has started and the device exists; it writes one handle.
        let told = unsafe { sys::cuDevicePrimaryCtxRetain(&mut raw, device) };
        check(told, || {
            format!("cuDevicePrimaryCtxRetain of {}", facts.name)
        })?;
        let context = Arc::new(Context {
            device,
            raw,
            facts,
            lost: OnceLock::new(),
            capturing: Mutex::default(),
            clearing: Clearing::default(),
        });
        opened.insert(ordinal, Arc::downgrade(&context));
        Ok(context)
    }

    /// What the device is.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// What memory that was given back keeps the copy engine busy with.
    pub fn clearing(&self) -> &Clearing {
        &self.clearing
    }

    /// Makes the context current on this thread, at the cost of a look if it is already.
    pub fn bind(&self) -> Result<Bound<'_>, Error> {
        if let Some(error) = self.lost.get() {
            return Err(Error::Lost {
                device: self.facts.name.clone(),
                source: Box::new(error.clone()),
            });
        }
        let mut current = std::ptr::null_mut();
        // SAFETY: a context exists, so the driver has started; it writes one handle.
        let told = unsafe { sys::cuCtxGetCurrent(&mut current) };
        self.check(told, || "cuCtxGetCurrent".into())?;
        if current != self.raw {
            // SAFETY: the handle is retained for as long as `self` lives.
            let told = unsafe { sys::cuCtxSetCurrent(self.raw) };
            self.check(told, || "cuCtxSetCurrent".into())?;
        }
        Ok(Bound {
            context: self,
            thread: PhantomData,
        })
    }

    /// Waits for captures of other threads to end, and lets none begin before it is dropped. A thread
    /// that waits for the device breaks every capture, whoever's it is, and fails itself.
    pub fn without_captures(&self) -> MutexGuard<'_, ()> {
        self.capturing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, result: sys::CUresult, call: impl FnOnce() -> String) -> Result<(), Error> {
        if result == sys::CUresult::CUDA_SUCCESS {
            return Ok(());
        }
        let error = failure(result, call());
        if ends_context(result) {
            // Kept only if it is the first.
            let _ = self.lost.set(error.clone());
        }
        Err(error)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        let mut current = std::ptr::null_mut();
        // SAFETY: retained once in `retain`, released once here; what belongs to the context holds
        // a reference to it, so nothing of it is left. The thread must not keep a context as
        // current that may be gone. A failure leaves nothing to do.
        unsafe {
            let _ = sys::cuCtxGetCurrent(&mut current);
            if current == self.raw {
                let _ = sys::cuCtxSetCurrent(std::ptr::null_mut());
            }
            let _ = sys::cuDevicePrimaryCtxRelease_v2(self.device);
        }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.facts.name)
    }
}

/// The proof that a context is current on this thread.
#[derive(Clone, Copy)]
pub(crate) struct Bound<'a> {
    context: &'a Context,
    /// It says something about this thread only.
    thread: PhantomData<*const ()>,
}

impl Bound<'_> {
    pub(super) fn device(&self) -> sys::CUdevice {
        self.context.device
    }

    /// An error unless the result is a success; the context remembers errors that end it.
    pub(super) fn check(
        &self,
        result: sys::CUresult,
        call: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        self.context.check(result, call)
    }

    /// As [`Bound::check`], for a call that takes `bytes` bytes of device memory.
    pub(super) fn check_memory(
        &self,
        result: sys::CUresult,
        bytes: usize,
        call: &str,
    ) -> Result<(), Error> {
        match self.check(result, || format!("{call} of {bytes} bytes")) {
            Err(error) if result == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                let (free, total) = self.free_memory().unwrap_or((0, 0));
                Err(Error::OutOfMemory {
                    device: self.context.facts.name.clone(),
                    bytes,
                    reason: format!("{error}; {free} of {total} bytes are free"),
                })
            }
            other => other,
        }
    }

    /// Bytes of device memory that are free, and all of them.
    pub fn free_memory(&self) -> Result<(u64, u64), Error> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: the context is current; the driver writes two numbers.
        let told = unsafe { sys::cuMemGetInfo_v2(&mut free, &mut total) };
        self.check(told, || "cuMemGetInfo".into())?;
        Ok((free as u64, total as u64))
    }

    /// Waits for everything that this process has given the device to do, with no capture under way.
    pub fn synchronize(&self) -> Result<(), Error> {
        let _none = self.context.without_captures();
        // SAFETY: the context is current.
        let told = unsafe { sys::cuCtxSynchronize() };
        self.check(told, || "cuCtxSynchronize".into())
    }
}
