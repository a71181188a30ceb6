//! Where candle would compute: nowhere while a model is traced.
//!
//! [`Device::Cpu`] is the only value, and what model code gives where candle wants a device. It is not *the
//! CPU* all the same: [`Device::is_cpu`] is false like its like, because candle's models take ways of their
//! own there which read memory, and no symbolic tensor has any. So they take the way that is spelled
//! in tensors.

use candle_core::{CpuStorage, DType, DeviceLocation, Result, bail};

/// candle's device: where a program runs is decided when it is compiled.
#[derive(Clone, Debug)]
pub enum Device {
    /// What every symbolic tensor has.
    Cpu,
    /// Never.
    Cuda(Never),
    /// Never.
    Metal(Never),
}

/// A device of candle that no symbolic tensor is on.
#[derive(Clone, Debug)]
pub enum Never {}

/// The memory of a tensor: a symbolic one has none.
#[derive(Clone, Debug)]
pub enum Storage {
    /// Memory of the CPU: never.
    Cpu(CpuStorage),
    /// Nothing that could be read.
    Symbolic,
}

impl Device {
    /// No device of candle's is opened for symbolic tensors.
    ///
    /// # Errors
    ///
    /// Always.
    pub fn new_cuda(_ordinal: usize) -> Result<Device> {
        bail!(
            "a model that is compiled runs where Compiler::device says; use Device::Cpu in its code"
        )
    }

    /// As [`Device::new_cuda`].
    ///
    /// # Errors
    ///
    /// Always.
    pub fn new_metal(ordinal: usize) -> Result<Device> {
        Device::new_cuda(ordinal)
    }

    /// The only device.
    ///
    /// # Errors
    ///
    /// None; the signature is candle's.
    pub fn cuda_if_available(_ordinal: usize) -> Result<Device> {
        Ok(Device::Cpu)
    }

    /// The only device.
    ///
    /// # Errors
    ///
    /// None; the signature is candle's.
    pub fn metal_if_available(_ordinal: usize) -> Result<Device> {
        Ok(Device::Cpu)
    }

    /// False: memory cannot be read.
    pub fn is_cpu(&self) -> bool {
        false
    }

    /// False.
    pub fn is_cuda(&self) -> bool {
        false
    }

    /// False.
    pub fn is_metal(&self) -> bool {
        false
    }

    /// As candle's CPU: false, so that code which asks computes in f32.
    pub fn supports_bf16(&self) -> bool {
        false
    }

    /// As candle's CPU: f32.
    pub fn bf16_default_to_f32(&self) -> DType {
        DType::F32
    }

    /// Where candle's CPU is.
    pub fn location(&self) -> DeviceLocation {
        DeviceLocation::Cpu
    }

    /// Nothing waits: nothing runs while a model is traced.
    ///
    /// # Errors
    ///
    /// None; the signature is candle's.
    pub fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    /// True: there is only one.
    pub fn same_device(&self, _other: &Device) -> bool {
        true
    }
}
