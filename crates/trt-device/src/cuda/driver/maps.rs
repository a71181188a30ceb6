//! Tensor maps: how the copy engine is told where rows lie.

use super::context::Bound;
use super::probe::Maps;
use crate::Error;
use cudarc::driver::sys;
use std::ffi::c_void;

/// Words of an encoded map.
pub(crate) const MAP_WORDS: usize = 16;

/// Rows in device memory, read in boxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Boxes {
    /// Whether elements are bf16; else f16.
    pub brain: bool,
    /// The address of the first row; a multiple of 16.
    pub address: u64,
    /// Elements of a row.
    pub columns: u64,
    /// How many rows, of 32 bits.
    pub rows: u64,
    /// Bytes from a row to the next: a multiple of 16, of 40 bits.
    pub pitch: u64,
    /// Elements and rows of a box, up to 256 each; the elements are 128 bytes.
    pub sizes: [u32; 2],
}

/// An encoded map, where the driver wants it to lie.
#[repr(C, align(128))]
struct Aligned(sys::CUtensorMap);

impl Boxes {
    /// Encodes a map with the swizzle of 128 bytes, of which what lies outside reads as zeros. The
    /// driver only calculates: it does not look at the memory.
    pub fn encode(&self, _: Maps, bound: &Bound<'_>) -> Result<[u64; MAP_WORDS], Error> {
        use sys::CUtensorMapDataType as Type;
        let dtype = match self.brain {
            true => Type::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            false => Type::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
        };
        let mut map = Aligned(sys::CUtensorMap {
            opaque: [0; MAP_WORDS],
        });
        let (sizes, pitches) = ([self.columns, self.rows], [self.pitch]);
        let steps = [1; 2];
        // SAFETY: the symbol exists, as the proof says; the map lies at a multiple of 128 bytes;
        // of two dimensions there are two sizes, one pitch, two sizes of a box and two steps, and
        // all of them outlive the call. The address is a number here: nothing is read from it.
        let told = unsafe {
            sys::cuTensorMapEncodeTiled(
                &raw mut map.0,
                dtype,
                2,
                self.address as *mut c_void,
                sizes.as_ptr(),
                pitches.as_ptr(),
                self.sizes.as_ptr(),
                steps.as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        bound.check(told, || format!("cuTensorMapEncodeTiled of {self:?}"))?;
        Ok(map.0.opaque)
    }
}
