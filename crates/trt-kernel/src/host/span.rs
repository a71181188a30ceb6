//! Memory that a launch may touch. With [`super::elements`] this is the only code that touches it by
//! address.
//!
//! Invariant: every access names its first and last element and is checked against the span's
//! length before the first byte moves, so a wrong view is a [`HostError`] and never undefined
//! behaviour. Two arguments may be the same memory (a pointwise kernel in place), so no
//! reference to the memory is ever made: elements move through raw pointers, without any
//! alignment assumed.

use super::HostError;
use super::blocks::unpack;
use super::elements::{bf16_bits, hop, scatter, strided};
use super::simd::Simd;
use crate::{Arg, BlockType, DType, Encoding};
use half::f16;
use std::marker::PhantomData;

/// A memory range that a launch may read or write: start address and length in bytes.
///
/// A span has one owner: it is neither copied nor cloned, and a launch borrows its spans mutably.
/// So two launches that run at once cannot write the same bytes unless somebody promised in
/// [`Span::from_raw`] that they may.
///
/// ```compile_fail,E0382
/// use trt_kernel::host::Span;
/// let mut bytes = [0u8; 4];
/// let span = Span::from_mut(&mut bytes);
/// let mut twice = [span, span];
/// ```
#[derive(Debug)]
#[repr(transparent)]
pub struct Span<'a> {
    raw: Raw,
    life: PhantomData<&'a mut [u8]>,
}

/// A span without its owner: what the parts of one launch share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raw {
    ptr: *mut u8,
    len: usize,
    writable: bool,
}

// SAFETY: an address range is no access. All accesses go through [`Args`], which exists only while
// a launch holds the spans mutably; that the parts of a launch do not race is the contract of
// `Prepared::run`.
unsafe impl Send for Raw {}
// SAFETY: as above.
unsafe impl Sync for Raw {}

impl<'a> Span<'a> {
    /// A range that may only be read.
    pub fn from_slice<T: bytemuck::Pod>(slice: &'a [T]) -> Self {
        Span::new(Raw {
            ptr: slice.as_ptr() as *mut u8,
            len: std::mem::size_of_val(slice),
            writable: false,
        })
    }

    /// A range that may be read and written.
    pub fn from_mut<T: bytemuck::Pod>(slice: &'a mut [T]) -> Self {
        Span::new(Raw::from_mut(slice))
    }

    /// A range by address.
    ///
    /// # Safety
    /// `ptr..ptr + len` must be valid for reads (and for writes if `writable`) for as long as
    /// the span is used, and nobody may access a byte of it while a launch writes that byte. Of
    /// other spans of the same launch that share bytes with it, see [`super::Prepared::run`].
    pub unsafe fn from_raw(ptr: *mut u8, len: usize, writable: bool) -> Span<'static> {
        Span::new(Raw { ptr, len, writable })
    }

    fn new(raw: Raw) -> Self {
        let life = PhantomData;
        Span { raw, life }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.raw.len
    }

    /// Whether the range is empty.
    pub fn is_empty(&self) -> bool {
        self.raw.len == 0
    }

    /// The ranges of a launch's spans, for as long as it holds them.
    pub(super) fn raw<'b>(spans: &'b mut [Span<'_>]) -> &'b [Raw] {
        let (start, count) = (spans.as_ptr().cast::<Raw>(), spans.len());
        // SAFETY: a span is laid out as its one field that has a size, and the borrow goes on.
        unsafe { std::slice::from_raw_parts(start, count) }
    }
}

impl Raw {
    /// Memory of the launch itself, which must outlive what is made of this.
    pub fn from_mut<T: bytemuck::Pod>(slice: &mut [T]) -> Raw {
        Raw {
            ptr: slice.as_mut_ptr() as *mut u8,
            len: std::mem::size_of_val(slice),
            writable: true,
        }
    }
}

/// The arguments of one launch.
#[derive(Clone, Copy)]
pub(super) struct Args<'a> {
    pub spans: &'a [Raw],
    pub encodings: &'a [Encoding],
}

/// `count` elements from `offset` on, `stride` elements apart.
#[derive(Clone, Copy)]
pub(super) struct Run {
    pub offset: i64,
    pub stride: i64,
    pub count: usize,
}

impl<'a> Args<'a> {
    /// All bytes of an argument that kernels only read, as those that are packed are.
    pub fn whole(&self, arg: Arg) -> &'a [u8] {
        let Raw { ptr, len, .. } = self.spans[arg.0 as usize];
        if len == 0 {
            return &[];
        }
        // SAFETY: a span is readable, and kernels write none that is not plain.
        unsafe { std::slice::from_raw_parts(ptr, len) }
    }

    /// How an argument is written down.
    #[inline(always)]
    pub fn encoding(&self, arg: Arg) -> Encoding {
        self.encodings[arg.0 as usize]
    }

    /// The dtype of an argument's values.
    #[inline(always)]
    pub fn dtype(&self, arg: Arg) -> DType {
        self.encoding(arg).dtype()
    }

    /// The address of a run's first element, once all of the run is known to be inside. Of a plain
    /// argument.
    #[inline(always)]
    pub fn address(&self, arg: Arg, run: Run, write: bool) -> Result<*mut u8, HostError> {
        let span = &self.spans[arg.0 as usize];
        let Some(dtype) = self.encoding(arg).as_plain() else {
            return Err(self.outside(arg, run.offset, run.offset));
        };
        let size = dtype.size() as i64;
        let reach = run.stride.saturating_mul(run.count.max(1) as i64 - 1);
        let (low, high) = (
            run.offset.saturating_add(reach.min(0)),
            run.offset.saturating_add(reach.max(0)),
        );
        let end = high.saturating_add(1).saturating_mul(size);
        if run.count == 0 {
            return Ok(span.ptr);
        }
        if low < 0 || end < 0 || end as u64 > span.len as u64 {
            return Err(self.outside(arg, low, high));
        }
        if write && !span.writable {
            return Err(HostError::ReadOnly { arg: arg.0 });
        }
        // SAFETY: 0 <= low <= offset and (high + 1) * size <= len, so the address is inside.
        Ok(unsafe { span.ptr.offset((run.offset * size) as isize) })
    }

    #[cold]
    fn outside(&self, arg: Arg, low: i64, high: i64) -> HostError {
        HostError::OutOfBounds {
            arg: arg.0,
            dtype: self.dtype(arg),
            first: low,
            last: high,
            bytes: self.spans[arg.0 as usize].len,
        }
    }

    /// Reads a float run as f32.
    #[inline(always)]
    pub fn load_f32<S: Simd>(&self, arg: Arg, run: Run, out: &mut [f32]) -> Result<(), HostError> {
        let out = &mut out[..run.count];
        if let Encoding::Blocks(block) = self.encoding(arg) {
            return self.load_blocks(arg, block, run, out);
        }
        let p = self.address(arg, run, false)? as *const u8;
        // SAFETY: `address` checked the run; the pointers below stay within it.
        unsafe {
            match (self.dtype(arg), run.stride) {
                (DType::F32, 1) => {
                    std::ptr::copy_nonoverlapping(p, out.as_mut_ptr() as *mut u8, 4 * out.len());
                }
                (DType::F32, s) => strided(p, s, out, |x: f32| x),
                (DType::BF16, 1) => S::widen_bf16(p as *const u16, out),
                (DType::BF16, s) => {
                    strided(p, s, out, |x: u16| f32::from_bits(u32::from(x) << 16));
                }
                (DType::F16, 1) => S::widen_f16(p as *const u16, out),
                (DType::F16, s) => strided(p, s, out, |x: u16| f16::from_bits(x).to_f32()),
                (DType::U8, s) => strided(p, s, out, |x: u8| f32::from(x)),
                (DType::U32, s) => strided(p, s, out, |x: u32| x as f32),
                (DType::I64, s) => strided(p, s, out, |x: i64| x as f32),
            }
        }
        Ok(())
    }

    /// Reads neighbouring values of blocks; rows are whole blocks, so values are counted through all
    /// of them.
    fn load_blocks(
        &self,
        arg: Arg,
        block: BlockType,
        run: Run,
        out: &mut [f32],
    ) -> Result<(), HostError> {
        let bytes = self.whole_blocks(arg, block, run)?;
        unpack(block, bytes, run.offset as usize % block.values(), out);
        Ok(())
    }

    /// The address of the block that a run of neighbouring values begins in, and the bytes from there to
    /// the end of the block that it ends in, all of which are inside.
    pub fn blocks(
        &self,
        arg: Arg,
        block: BlockType,
        run: Run,
    ) -> Result<(*const u8, usize), HostError> {
        let (values, size) = (block.values(), block.bytes());
        let last = run.offset.saturating_add(run.count.max(1) as i64 - 1);
        let span = &self.spans[arg.0 as usize];
        let first = usize::try_from(run.offset).ok();
        let end = usize::try_from(last).ok().and_then(|last| {
            let end = (last / values + 1).checked_mul(size)?;
            (end <= span.len && run.stride == 1).then_some(end)
        });
        let (Some(first), Some(end)) = (first, end) else {
            return Err(self.outside(arg, run.offset, last));
        };
        let start = first / values * size;
        // SAFETY: `start <= end <= len`.
        Ok((unsafe { span.ptr.add(start).cast_const() }, end - start))
    }

    /// The blocks that a run of neighbouring values lies in, from its first to its last.
    pub fn whole_blocks(&self, arg: Arg, block: BlockType, run: Run) -> Result<&[u8], HostError> {
        let (first, bytes) = self.blocks(arg, block, run)?;
        // SAFETY: `blocks` checked them, a span is readable, and kernels write no blocks.
        Ok(unsafe { std::slice::from_raw_parts(first, bytes) })
    }

    /// Reads the bytes of a run of neighbours as they are; `out` has exactly their size.
    #[inline(always)]
    pub fn load_bits(&self, arg: Arg, run: Run, out: &mut [f32]) -> Result<(), HostError> {
        let p = self.address(arg, Run { stride: 1, ..run }, false)? as *const u8;
        let bytes = (run.count * self.dtype(arg).size()).min(4 * out.len());
        // SAFETY: `address` checked `count` elements, and every bit pattern is an f32.
        unsafe { std::ptr::copy_nonoverlapping(p, out.as_mut_ptr() as *mut u8, bytes) };
        Ok(())
    }

    /// Reads an integer run as i64.
    #[inline(always)]
    pub fn load_i64(&self, arg: Arg, run: Run, out: &mut [i64]) -> Result<(), HostError> {
        let out = &mut out[..run.count];
        let p = self.address(arg, run, false)? as *const u8;
        let s = run.stride;
        // SAFETY: `address` checked the run.
        unsafe {
            match self.dtype(arg) {
                DType::U8 => strided(p, s, out, |x: u8| i64::from(x)),
                DType::U32 => strided(p, s, out, |x: u32| i64::from(x)),
                DType::I64 => strided(p, s, out, |x: i64| x),
                DType::F32 => strided(p, s, out, |x: f32| x as i64),
                DType::BF16 => strided(p, s, out, |x: u16| {
                    f32::from_bits(u32::from(x) << 16) as i64
                }),
                DType::F16 => strided(p, s, out, |x: u16| f16::from_bits(x).to_f32() as i64),
            }
        }
        Ok(())
    }

    /// Writes a float run, rounding to nearest even.
    #[inline(always)]
    pub fn store_f32<S: Simd>(&self, arg: Arg, run: Run, from: &[f32]) -> Result<(), HostError> {
        let from = &from[..run.count];
        let p = self.address(arg, run, true)?;
        // SAFETY: `address` checked the run and that it may be written.
        unsafe {
            match (self.dtype(arg), run.stride) {
                (DType::F32, 1) => {
                    std::ptr::copy_nonoverlapping(from.as_ptr() as *const u8, p, 4 * from.len());
                }
                (DType::F32, s) => scatter(p, s, from, |x: f32| x),
                (DType::BF16, 1) => S::narrow_bf16(from, p as *mut u16),
                (DType::BF16, s) => scatter(p, s, from, bf16_bits),
                (DType::F16, 1) => S::narrow_f16(from, p as *mut u16),
                (DType::F16, s) => scatter(p, s, from, |x: f32| f16::from_f32(x).to_bits()),
                (DType::U8, s) => scatter(p, s, from, |x: f32| x as u8),
                (DType::U32, s) => scatter(p, s, from, |x: f32| x as u32),
                (DType::I64, s) => scatter(p, s, from, |x: f32| x as i64),
            }
        }
        Ok(())
    }

    /// Writes an integer run; values keep their low bits.
    #[inline(always)]
    pub fn store_i64(&self, arg: Arg, run: Run, from: &[i64]) -> Result<(), HostError> {
        let from = &from[..run.count];
        let p = self.address(arg, run, true)?;
        let s = run.stride;
        // SAFETY: `address` checked the run and that it may be written.
        unsafe {
            match self.dtype(arg) {
                DType::U8 => scatter(p, s, from, |x: i64| x as u8),
                DType::U32 => scatter(p, s, from, |x: i64| x as u32),
                DType::I64 => scatter(p, s, from, |x: i64| x),
                DType::F32 => scatter(p, s, from, |x: i64| x as f32),
                DType::BF16 => scatter(p, s, from, |x: i64| bf16_bits(x as f32)),
                DType::F16 => scatter(p, s, from, |x: i64| f16::from_f32(x as f32).to_bits()),
            }
        }
        Ok(())
    }

    /// Copies a run between two arguments of one dtype.
    pub fn copy(&self, src: (Arg, Run), dst: (Arg, Run)) -> Result<(), HostError> {
        let size = self.dtype(src.0).size();
        let from = self.address(src.0, src.1, false)? as *const u8;
        let to = self.address(dst.0, dst.1, true)?;
        let count = src.1.count.min(dst.1.count);
        let (s, d) = (src.1.stride as isize, dst.1.stride as isize);
        // SAFETY: both runs were checked; `copy` allows them to overlap.
        unsafe {
            match (s, d, size) {
                (1, 1, _) => std::ptr::copy(from, to, count * size),
                (_, _, 1) => hop::<u8>(from, to, count, s, d),
                (_, _, 2) => hop::<u16>(from, to, count, s, d),
                (_, _, 4) => hop::<u32>(from, to, count, s, d),
                _ => hop::<u64>(from, to, count, s, d),
            }
        }
        Ok(())
    }
}
