//! Pooling, upsampling and transposed convolutions: windows read, or zeros put in between.

use super::conv::{ConvParams, UNROLLED, taps};
use super::size;
use super::tensor::Tensor;
use candle_core::{Result, ToUsize2, bail};
use trt_kernel::Binary;

/// The longest axis that is made of nearest elements.
const NEAREST: usize = 1 << 24;

/// What a pool makes of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pool {
    Mean,
    Max,
}

impl Tensor {
    /// Means of windows that touch.
    ///
    /// # Errors
    ///
    /// If the tensor has not 4 axes, the kernel does not fit into the last two, or it or the stride
    /// is 0.
    #[track_caller]
    pub fn avg_pool2d<T: ToUsize2>(&self, sz: T) -> Result<Self> {
        let sz = sz.to_usize2();
        self.pooled(sz, sz, Pool::Mean)
    }

    /// Means of windows.
    ///
    /// # Errors
    ///
    /// If the tensor has not 4 axes, the kernel does not fit into the last two, or it or the stride
    /// is 0.
    #[track_caller]
    pub fn avg_pool2d_with_stride<T: ToUsize2>(&self, kernel_size: T, stride: T) -> Result<Self> {
        self.pooled(kernel_size.to_usize2(), stride.to_usize2(), Pool::Mean)
    }

    /// Largest elements of windows that touch.
    ///
    /// # Errors
    ///
    /// If the tensor has not 4 axes, the kernel does not fit into the last two, or it or the stride
    /// is 0.
    #[track_caller]
    pub fn max_pool2d<T: ToUsize2>(&self, sz: T) -> Result<Self> {
        let sz = sz.to_usize2();
        self.pooled(sz, sz, Pool::Max)
    }

    /// Largest elements of windows.
    ///
    /// # Errors
    ///
    /// If the tensor has not 4 axes, the kernel does not fit into the last two, or it or the stride
    /// is 0.
    #[track_caller]
    pub fn max_pool2d_with_stride<T: ToUsize2>(&self, kernel_size: T, stride: T) -> Result<Self> {
        self.pooled(kernel_size.to_usize2(), stride.to_usize2(), Pool::Max)
    }

    #[track_caller]
    fn pooled(&self, kernel: (usize, usize), stride: (usize, usize), f: Pool) -> Result<Self> {
        let (b, c, h, w) = self.dims4()?;
        if h < kernel.0 || w < kernel.1 {
            bail!("kernel-size {kernel:?} is larger than the input size {h},{w}")
        }
        let count = kernel.0 * kernel.1;
        if stride.0 == 0 || stride.1 == 0 || count == 0 {
            bail!("pooling: kernel-size {kernel:?} and stride {stride:?} must be at least 1")
        }
        let places = [(h - kernel.0) / stride.0 + 1, (w - kernel.1) / stride.1 + 1];
        // Each axis has a step of its own.
        let rows = self.unfolded(2, kernel.0, places[0], (stride.0, 1))?;
        let windows = rows.unfolded(4, kernel.1, places[1], (stride.1, 1))?;
        let out = (b, c, places[0], places[1]);
        if count > UNROLLED {
            let windows = windows.permute((0, 1, 2, 4, 3, 5))?;
            let joined = windows.reshape((b, c, places[0], places[1], count))?;
            return match f {
                Pool::Mean => joined.mean(4),
                Pool::Max => joined.max(4),
            };
        }
        let mut all: Option<Tensor> = None;
        for tap in taps(&[kernel.0, kernel.1]) {
            let x = windows.narrow(3, tap[0], 1)?.narrow(5, tap[1], 1)?;
            let x = x.reshape(out)?;
            all = Some(match (all, f) {
                (None, _) => x,
                (Some(all), Pool::Mean) => (all + x)?,
                (Some(all), Pool::Max) => all.maximum(&x)?,
            });
        }
        match (all, f) {
            (Some(sum), Pool::Mean) => sum.with_scalar(1.0 / count as f64, Binary::Mul),
            (Some(largest), Pool::Max) => Ok(largest),
            (None, _) => bail!("pooling: kernel-size {kernel:?}"),
        }
    }

    /// Nearest elements of `[b, c, l]` at another length.
    ///
    /// # Errors
    ///
    /// If the tensor has not 3 axes, or one that grows has no elements or becomes too long.
    #[track_caller]
    pub fn interpolate1d(&self, target_size: usize) -> Result<Self> {
        self.dims3()?;
        self.nearest(2, target_size)
    }

    /// As [`Tensor::interpolate1d`].
    ///
    /// # Errors
    ///
    /// If the tensor has not 3 axes, or one that grows has no elements or becomes too long.
    #[track_caller]
    pub fn upsample_nearest1d(&self, target_size: usize) -> Result<Self> {
        self.interpolate1d(target_size)
    }

    /// Nearest elements of `[b, c, h, w]` at another size.
    ///
    /// # Errors
    ///
    /// If the tensor has not 4 axes, or one that grows has no elements or becomes too long.
    #[track_caller]
    pub fn interpolate2d(&self, target_h: usize, target_w: usize) -> Result<Self> {
        self.dims4()?;
        places(target_h)?;
        places(target_w)?;
        let factors = [
            repeats(self.dims()[2], target_h),
            repeats(self.dims()[3], target_w),
        ];
        match factors {
            // Both at once: each joined axis that repeats elements is a pass over memory.
            [Some(y), Some(x)] => {
                let (b, c, h, w) = self.dims4()?;
                let wide = self
                    .reshape((b, c, h, 1, w, 1))?
                    .broadcast_as((b, c, h, y, w, x))?;
                wide.reshape((b, c, target_h, target_w))
            }
            _ => self.nearest(2, target_h)?.nearest(3, target_w),
        }
    }

    /// As [`Tensor::interpolate2d`].
    ///
    /// # Errors
    ///
    /// If the tensor has not 4 axes, or one that grows has no elements or becomes too long.
    #[track_caller]
    pub fn upsample_nearest2d(&self, target_h: usize, target_w: usize) -> Result<Self> {
        self.interpolate2d(target_h, target_w)
    }

    #[track_caller]
    fn nearest(&self, axis: usize, target: usize) -> Result<Self> {
        let size = self.dims()[axis];
        places(target)?;
        let mut dims = self.dims().to_vec();
        if let Some(factor) = repeats(size, target) {
            dims.insert(axis + 1, 1);
            let point = self.reshape(dims.as_slice())?;
            dims[axis + 1] = factor;
            let wide = point.broadcast_as(dims.as_slice())?;
            dims.remove(axis + 1);
            dims[axis] = target;
            return wide.reshape(dims);
        }
        if size == 0 {
            bail!("nearest: axis {axis} of {:?} has no elements", self.shape());
        }
        let mut ids: Vec<u32> = size::room(target, "nearest")?;
        ids.extend((0..target).map(|i| nearest(size, target, i) as u32));
        let ids = Tensor::from_vec(ids, target, self.device())?;
        self.index_select(&ids, axis)
    }

    /// The transpose of a convolution of `[b, c_in, l]` with a kernel
    /// `[c_in, c_out / groups, k]`.
    ///
    /// # Errors
    ///
    /// If channels, groups or dtypes do not fit, a stride or dilation is 0, or padding leaves
    /// nothing.
    #[expect(clippy::too_many_arguments, reason = "candle's signature")]
    #[track_caller]
    pub fn conv_transpose1d(
        &self,
        kernel: &Self,
        padding: usize,
        output_padding: usize,
        stride: usize,
        dilation: usize,
        groups: usize,
    ) -> Result<Self> {
        let (c_in_k, _, _) = kernel.dims3()?;
        let (_, c_in, _) = self.dims3()?;
        if c_in != c_in_k {
            bail!("in_channel mismatch between input ({c_in}) and kernel ({c_in_k})")
        }
        if groups == 0 || !c_in.is_multiple_of(groups) {
            bail!("in_channel {c_in} is not divisible by the number of groups")
        }
        let params = ConvParams {
            padding,
            stride,
            dilation,
            groups,
        };
        self.transposed(kernel, params, output_padding)
    }

    /// The transpose of a convolution of `[b, c_in, h, w]` with a kernel `[c_in, c_out, kh, kw]`.
    ///
    /// # Errors
    ///
    /// If channels or dtypes do not fit, a stride or dilation is 0, or padding leaves nothing.
    #[track_caller]
    pub fn conv_transpose2d(
        &self,
        kernel: &Self,
        padding: usize,
        output_padding: usize,
        stride: usize,
        dilation: usize,
    ) -> Result<Self> {
        let (_, c_in, _, _) = self.dims4()?;
        let (c_in_k, _, _, _) = kernel.dims4()?;
        if c_in != c_in_k {
            bail!("in_channel mismatch between input ({c_in}) and kernel ({c_in_k})")
        }
        let params = ConvParams {
            padding,
            stride,
            dilation,
            groups: 1,
        };
        self.transposed(kernel, params, output_padding)
    }

    /// A convolution with the window turned around, over the input with zeros in between.
    #[track_caller]
    fn transposed(&self, kernel: &Self, p: ConvParams, output_padding: usize) -> Result<Self> {
        let window = kernel.dims()[2..].to_vec();
        if p.stride == 0 || p.dilation == 0 || window.contains(&0) {
            bail!(
                "a transposed convolution of window {window:?}, stride {}, dilation {}",
                p.stride,
                p.dilation
            );
        }
        for k in &window {
            size::parts(*k, "a transposed convolution's window")?;
        }
        let reach = |k: &usize| p.dilation.saturating_mul(k - 1);
        let after = |k: &usize| reach(k).saturating_add(output_padding);
        let zeros = |k: &usize| (reach(k), p.stride - 1, after(k));
        let mut x = self.padded(&window.iter().map(zeros).collect::<Vec<_>>())?;
        // Padding takes away what the window reaches beyond the input.
        for (i, k) in window.iter().enumerate() {
            let axis = i + 2;
            let len = x.dims()[axis];
            let kept = len
                .checked_sub(p.padding.saturating_mul(2))
                .filter(|kept| *kept > reach(k));
            let Some(kept) = kept else {
                bail!(
                    "padding {} leaves nothing of a transposed convolution of {:?} with {:?}",
                    p.padding,
                    self.shape(),
                    kernel.shape()
                );
            };
            if p.padding > 0 {
                x = x.narrow(axis, p.padding, kept)?;
            }
        }
        let (c_in, of_group) = (kernel.dims()[0], kernel.dims()[1]);
        let mut split = vec![p.groups, c_in / p.groups, of_group];
        split.extend(&window);
        let mut order = vec![0, 2, 1];
        order.extend(3..split.len());
        let mut turned = kernel.reshape(split)?.permute(order)?;
        for (i, k) in window.iter().enumerate() {
            let axis = i + 3;
            let last_first = (0..*k).rev().map(|at| turned.narrow(axis, at, 1));
            turned = Tensor::cat(&last_first.collect::<Result<Vec<_>>>()?, axis)?;
        }
        let mut joined = vec![p.groups * of_group, c_in / p.groups];
        joined.extend(&window);
        let params = ConvParams {
            padding: 0,
            stride: 1,
            ..p
        };
        x.convolved(&turned.reshape(joined)?, params, "conv_transpose")
    }
}

/// Whether an axis may become so long: each place is looked at while the model is traced.
#[track_caller]
fn places(target: usize) -> Result<()> {
    match target <= NEAREST {
        true => Ok(()),
        false => bail!("nearest: an axis of {target} elements is too long: more than {NEAREST}"),
    }
}

/// Which element is nearest, as candle counts it.
fn nearest(size: usize, target: usize, i: usize) -> usize {
    let scale = size as f64 / target as f64;
    (size - 1).min((i as f64 * scale) as usize)
}

/// How often each element appears, if all do equally often.
fn repeats(size: usize, target: usize) -> Option<usize> {
    let factor = target
        .checked_div(size)
        .filter(|f| *f > 0 && f * size == target)?;
    (0..target)
        .all(|i| nearest(size, target, i) == i / factor)
        .then_some(factor)
}
