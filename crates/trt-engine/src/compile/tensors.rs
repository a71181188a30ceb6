//! Weights given as candle tensors.

use crate::error::Error;
use candle_core::{CpuStorage, DType, DeviceLocation, Storage, Tensor};
use std::collections::{BTreeMap, HashMap};
use trt_stream::{Copies, Weights};

/// Weights from tensors that are already in memory.
pub trait FromTensors: Sized {
    /// Takes tensors on the CPU as weights.
    ///
    /// **One host copy, never a second.** Each tensor is copied once, into memory that lives as a
    /// file without a name, and is let go of as soon as it is copied: if the map held the last
    /// reference, its memory is free again, and the peak is the weights and one tensor. All
    /// engines and devices share that copy and treat it as they treat files: budgets, streaming
    /// and residency work alike, and give the same bits. Two names of one tensor share their
    /// bytes. Unlike files, the copy occupies memory for as long as the weights exist, whatever the
    /// budget: a budget bounds what of it is mapped or on a device.
    ///
    /// Tensors that the caller keeps stay as and where they are. The copy has no name and its
    /// size is sealed, so nothing of what [`Weights::open`] asks of files is asked of the caller.
    ///
    /// # Errors
    ///
    /// A tensor that is not on the CPU is [`Error::NotOnHost`]: nothing is moved between devices
    /// behind the caller's back. Tensors of dtypes other than f32, f16 and bf16 are an error only
    /// if the model asks for them. What the system has no memory for, and says so, is an error.
    fn from_tensors(tensors: HashMap<String, Tensor>) -> Result<Self, Error>;
}

impl FromTensors for Weights {
    fn from_tensors(tensors: HashMap<String, Tensor>) -> Result<Weights, Error> {
        // All of them before the first is copied and let go.
        for (name, t) in &tensors {
            on_host(name, t.device().location())?;
        }
        let mut copies = Copies::new()?;
        // Places of tensors in the caller's memory. None of them was made after the first was let
        // go, so no two of them are equal by chance.
        let mut known: HashMap<(usize, usize, DType), String> = HashMap::new();
        // In one order, whatever the map's: the order is part of the fingerprint.
        for (name, tensor) in BTreeMap::from_iter(tensors) {
            copy(&mut copies, &mut known, name, &tensor)?;
        }
        Ok(copies.finish()?)
    }
}

fn on_host(name: &str, at: DeviceLocation) -> Result<(), Error> {
    match at {
        DeviceLocation::Cpu => Ok(()),
        DeviceLocation::Cuda { .. } | DeviceLocation::Metal { .. } => Err(Error::NotOnHost {
            name: name.into(),
            device: format!("{at:?}"),
        }),
    }
}

fn copy(
    copies: &mut Copies,
    known: &mut HashMap<(usize, usize, DType), String>,
    name: String,
    tensor: &Tensor,
) -> Result<(), Error> {
    let dtype = match tensor.dtype() {
        DType::F32 => trt_kernel::DType::F32,
        DType::F16 => trt_kernel::DType::F16,
        DType::BF16 => trt_kernel::DType::BF16,
        other => {
            copies.mention(&name, other.as_str(), tensor.dims());
            return Ok(());
        }
    };
    let borrowed = tensor.is_contiguous();
    let rows = match borrowed {
        true => tensor.clone(),
        false => tensor.contiguous()?,
    };
    let (storage, layout) = rows.storage_and_layout();
    let elements = layout.start_offset()..layout.start_offset() + layout.shape().elem_count();
    let bytes: Option<&[u8]> = match &*storage {
        Storage::Cpu(CpuStorage::F32(v)) => v.get(elements).map(bytemuck::cast_slice),
        Storage::Cpu(CpuStorage::F16(v)) => v.get(elements).map(bytemuck::cast_slice),
        Storage::Cpu(CpuStorage::BF16(v)) => v.get(elements).map(bytemuck::cast_slice),
        _ => None,
    };
    let bytes = bytes.ok_or_else(|| {
        candle_core::Error::Msg(format!("tensor '{name}' does not lie where it says")).bt()
    })?;
    let place = (bytes.as_ptr() as usize, bytes.len(), tensor.dtype());
    match known.get(&place).filter(|_| borrowed && !bytes.is_empty()) {
        Some(first) => copies.alias(&name, tensor.dims(), first)?,
        None => {
            copies.add(&name, dtype, tensor.dims(), bytes)?;
            if borrowed {
                known.insert(place, name);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A candle without CUDA and Metal has no tensor to give.
    #[test]
    fn a_tensor_that_is_not_on_the_cpu_is_refused_with_its_name_and_place() {
        assert!(on_host("w", DeviceLocation::Cpu).is_ok());
        let elsewhere = [
            (DeviceLocation::Cuda { gpu_id: 1 }, "Cuda { gpu_id: 1 }"),
            (DeviceLocation::Metal { gpu_id: 0 }, "Metal { gpu_id: 0 }"),
        ];
        for (at, place) in elsewhere {
            match on_host("w", at).unwrap_err() {
                Error::NotOnHost { name, device } => {
                    assert_eq!((name.as_str(), device.as_str()), ("w", place));
                }
                other => panic!("{other}"),
            }
        }
    }
}
