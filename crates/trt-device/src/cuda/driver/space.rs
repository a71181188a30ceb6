//! A range of device addresses of which a first part is backed by memory.
//!
//! Memory comes in steps of equal size, so that a range of any size takes at most a few hundred
//! calls to fill, and what is given back is really free again for others. Invariant: exactly the
//! first `steps` steps are mapped, also after a call that failed.

use super::context::{Bound, Context};
use super::memory::warn;
use crate::Error;
use cudarc::driver::sys;
use std::sync::{Arc, Mutex, PoisonError};

const MIB: usize = 1 << 20;

/// A reserved range; given back when dropped, so no work may use it then.
#[derive(Debug)]
pub(crate) struct AddressSpace {
    context: Arc<Context>,
    base: u64,
    /// Bytes reserved: a multiple of `step`.
    size: usize,
    step: usize,
    /// How many steps are backed by memory.
    steps: Mutex<usize>,
}

/// How much memory is mapped at once in a range of `bytes`: about a 256th of it.
fn step(bytes: usize, granularity: usize) -> usize {
    let granularity = granularity.max(1);
    let wanted = (bytes / 256).clamp(2 * MIB, 16 * MIB);
    wanted.div_ceil(granularity).saturating_mul(granularity)
}

impl AddressSpace {
    /// Reserves addresses for at least `bytes` bytes.
    pub fn reserve(context: &Arc<Context>, bytes: usize) -> Result<AddressSpace, Error> {
        let bound = context.bind()?;
        let step = step(bytes, granularity(&bound)?);
        let Some(size) = bytes.max(1).checked_next_multiple_of(step) else {
            return Err(Error::OutOfMemory {
                device: context.facts().name.clone(),
                bytes,
                reason: "more than there are addresses".into(),
            });
        };
        let mut base = 0;
        // SAFETY: the context is current; the driver writes one address.
        let told = unsafe { sys::cuMemAddressReserve(&mut base, size, 0, 0, 0) };
        bound.check_memory(told, bytes, "cuMemAddressReserve")?;
        Ok(AddressSpace {
            context: context.clone(),
            base,
            size,
            step,
            steps: Mutex::new(0),
        })
    }

    /// The first address.
    pub fn address(&self) -> u64 {
        self.base
    }

    /// The context it belongs to.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Backs the first `bytes` bytes, rounded up to a step, with memory and no more. What goes
    /// back waits for everything that the device still does; after an error nothing has changed.
    pub fn commit(&self, bytes: usize) -> Result<(), Error> {
        let bound = self.context.bind()?;
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = bytes.min(self.size).div_ceil(self.step);
        if wanted < *steps {
            bound.synchronize()?;
            return self.shrink(&bound, &mut steps, wanted);
        }
        let before = *steps;
        let grown = self.grow(&bound, &mut steps, wanted);
        if grown.is_err() && *steps > before {
            warn(self.shrink(&bound, &mut steps, before));
        }
        grown
    }

    fn grow(&self, bound: &Bound<'_>, steps: &mut usize, wanted: usize) -> Result<(), Error> {
        while *steps < wanted {
            self.map(bound, *steps)?;
            *steps += 1;
        }
        Ok(())
    }

    fn shrink(&self, bound: &Bound<'_>, steps: &mut usize, wanted: usize) -> Result<(), Error> {
        while *steps > wanted {
            self.unmap(bound, *steps - 1)?;
            *steps -= 1;
        }
        Ok(())
    }

    fn map(&self, bound: &Bound<'_>, index: usize) -> Result<(), Error> {
        let (address, step) = (self.at(index), self.step);
        let properties = properties(bound);
        let mut memory = 0;
        // SAFETY: the context is current; the driver reads the properties and writes one handle.
        let told = unsafe { sys::cuMemCreate(&mut memory, step, &properties, 0) };
        bound.check_memory(told, step, "cuMemCreate")?;
        // SAFETY: the addresses are reserved, and nothing is mapped at a step from `steps` on.
        let mapped = unsafe { sys::cuMemMap(address, step, 0, memory, 0) };
        // SAFETY: the handle was made above; the mapping, if there is one, keeps the memory.
        let released = unsafe { sys::cuMemRelease(memory) };
        bound.check(mapped, || format!("cuMemMap of {step} bytes"))?;
        let access = sys::CUmemAccessDesc {
            location: properties.location,
            flags: sys::CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE,
        };
        // SAFETY: the step is mapped now; the driver reads one descriptor.
        let allowed = unsafe { sys::cuMemSetAccess(address, step, &access, 1) };
        let result = bound
            .check(released, || "cuMemRelease".into())
            .and_then(|()| bound.check(allowed, || format!("cuMemSetAccess of {step} bytes")));
        if result.is_err() {
            warn(self.unmap(bound, index));
        }
        result
    }

    fn unmap(&self, bound: &Bound<'_>, index: usize) -> Result<(), Error> {
        // SAFETY: the step is mapped and no work uses it: the device has been waited for, or
        // nobody has seen the step yet.
        let told = unsafe { sys::cuMemUnmap(self.at(index), self.step) };
        bound.check(told, || format!("cuMemUnmap of {} bytes", self.step))
    }

    fn at(&self, index: usize) -> u64 {
        self.base + (index * self.step) as u64
    }
}

impl Drop for AddressSpace {
    fn drop(&mut self) {
        let Ok(bound) = self.context.bind() else {
            return;
        };
        let mut steps = *self.steps.get_mut().unwrap_or_else(PoisonError::into_inner);
        warn(self.shrink(&bound, &mut steps, 0));
        if steps == 0 {
            // SAFETY: reserved in `reserve`, nothing is mapped in it any more, freed only here.
            let told = unsafe { sys::cuMemAddressFree(self.base, self.size) };
            warn(bound.check(told, || "cuMemAddressFree".into()));
        }
    }
}

/// Plain memory of the device.
fn properties(bound: &Bound<'_>) -> sys::CUmemAllocationProp {
    // SAFETY: a plain C structure in which zero means "none" for every field.
    let mut properties: sys::CUmemAllocationProp = unsafe { std::mem::zeroed() };
    properties.type_ = sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location = sys::CUmemLocation {
        type_: sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE,
        id: bound.device(),
    };
    properties
}

fn granularity(bound: &Bound<'_>) -> Result<usize, Error> {
    let option = sys::CUmemAllocationGranularity_flags::CU_MEM_ALLOC_GRANULARITY_MINIMUM;
    let properties = properties(bound);
    let mut granularity = 0;
    // SAFETY: the context is current; the driver reads the properties and writes one number.
    let told = unsafe { sys::cuMemGetAllocationGranularity(&mut granularity, &properties, option) };
    bound.check(told, || "cuMemGetAllocationGranularity".into())?;
    Ok(granularity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_a_multiple_of_the_granularity_between_2_and_16_mib() {
        for (bytes, granularity, expected) in [
            (0, 2 * MIB, 2 * MIB),
            (300 * MIB, 2 * MIB, 2 * MIB),
            (1500 * MIB, 2 * MIB, 6 * MIB),
            (80 << 30, 2 * MIB, 16 * MIB),
            (1 << 30, 3 * MIB, 6 * MIB),
            (usize::MAX, 64 << 10, 16 * MIB),
        ] {
            assert_eq!(step(bytes, granularity), expected, "{bytes}");
        }
    }
}
