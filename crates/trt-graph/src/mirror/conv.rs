//! Convolutions, spelled as a product with the weight's rows.
//!
//! Windows of the (padded) input are views, `[batch, places.., channels, window..]`. Joined to
//! `[batch * places, channels * window]` they are the left operand of a product with the weight
//! as `[c_out, channels * window]`: a matrix whose rows are contiguous in the file, so that it
//! streams like any other. The join is a copy of `channels * window` elements for each place,
//! except for windows of one element, which are the channels of a place as they are. With a
//! channel to itself (depthwise), an output is the sum over the window's elements, each a view:
//! no copy and no product. Other groups are independent products of weights that are read whole.

use super::tensor::Tensor;
use crate::graph::{Margin, Op};
use candle_core::conv::CudnnFwdAlgo;
use candle_core::{Error, Result, bail};

/// The most elements of a window that are summed up one by one.
pub(super) const UNROLLED: usize = 64;

/// The numbers of a convolution, alike along all axes of places.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConvParams {
    pub padding: usize,
    pub stride: usize,
    pub dilation: usize,
    pub groups: usize,
}

impl Tensor {
    /// A convolution of `[b, c_in, l]` with a kernel `[c_out, c_in / groups, k]`.
    ///
    /// # Errors
    ///
    /// If channels, groups or dtypes do not fit, a stride or dilation is 0, or the kernel does not
    /// fit into the padded input.
    #[track_caller]
    pub fn conv1d(
        &self,
        kernel: &Self,
        padding: usize,
        stride: usize,
        dilation: usize,
        groups: usize,
    ) -> Result<Self> {
        let (_, c_in_k, _) = kernel.dims3()?;
        let (_, c_in, _) = self.dims3()?;
        if c_in_k.checked_mul(groups) != Some(c_in) {
            Err(Error::Conv1dInvalidArgs {
                inp_shape: self.shape().clone(),
                k_shape: kernel.shape().clone(),
                padding,
                stride,
                msg: "the number of in-channels on the input doesn't match the kernel size",
            }
            .bt())?
        }
        let params = ConvParams {
            padding,
            stride,
            dilation,
            groups,
        };
        self.convolved(kernel, params, "conv1d")
    }

    /// As [`Tensor::conv1d`]; the algorithm is the compiler's choice.
    ///
    /// # Errors
    ///
    /// As [`Tensor::conv1d`].
    #[expect(clippy::too_many_arguments, reason = "candle's signature")]
    #[track_caller]
    pub fn conv1d_with_algo(
        &self,
        kernel: &Self,
        padding: usize,
        stride: usize,
        dilation: usize,
        groups: usize,
        _cudnn_fwd_algo: Option<CudnnFwdAlgo>,
    ) -> Result<Self> {
        self.conv1d(kernel, padding, stride, dilation, groups)
    }

    /// A convolution of `[b, c_in, h, w]` with a kernel `[c_out, c_in / groups, kh, kw]`.
    ///
    /// # Errors
    ///
    /// If channels, groups or dtypes do not fit, a stride or dilation is 0, or the kernel does not
    /// fit into the padded input.
    #[track_caller]
    pub fn conv2d(
        &self,
        kernel: &Self,
        padding: usize,
        stride: usize,
        dilation: usize,
        groups: usize,
    ) -> Result<Self> {
        let (_, c_in, _, _) = self.dims4()?;
        let (_, c_in_k, _, _) = kernel.dims4()?;
        if c_in_k.checked_mul(groups) != Some(c_in) {
            bail!(
                "in_channel mismatch between input ({c_in}, groups {groups}) and kernel ({c_in_k})"
            )
        }
        let params = ConvParams {
            padding,
            stride,
            dilation,
            groups,
        };
        self.convolved(kernel, params, "conv2d")
    }

    /// As [`Tensor::conv2d`]; the algorithm is the compiler's choice.
    ///
    /// # Errors
    ///
    /// As [`Tensor::conv2d`].
    #[expect(clippy::too_many_arguments, reason = "candle's signature")]
    #[track_caller]
    pub fn conv2d_with_algo(
        &self,
        kernel: &Self,
        padding: usize,
        stride: usize,
        dilation: usize,
        groups: usize,
        _cudnn_fwd_algo: Option<CudnnFwdAlgo>,
    ) -> Result<Self> {
        self.conv2d(kernel, padding, stride, dilation, groups)
    }

    #[track_caller]
    pub(super) fn convolved(&self, kernel: &Self, p: ConvParams, name: &str) -> Result<Self> {
        if self.kernel_dtype() != kernel.kernel_dtype() || !self.kernel_dtype().is_float() {
            bail!(
                "{name}: dtypes {:?} and {:?} do not fit",
                self.dtype(),
                kernel.dtype()
            );
        }
        if p.groups == 0 || !kernel.dims()[0].is_multiple_of(p.groups) {
            bail!(
                "{name}: {} out-channels do not split into {} groups",
                kernel.dims()[0],
                p.groups
            );
        }
        let window = &kernel.dims()[2..];
        let places = self.places(window, p, name)?;
        let x = match p.padding {
            0 => self.clone(),
            n => self.padded(&vec![(n, 0, n); window.len()])?,
        };
        let taps: usize = window.iter().product();
        if p.groups > 1 && kernel.dims()[1] == 1 && taps <= UNROLLED {
            return x.depthwise(kernel, &places, p);
        }
        x.by_product(kernel, &places, p)
    }

    /// The number of windows along each axis.
    #[track_caller]
    fn places(&self, window: &[usize], p: ConvParams, name: &str) -> Result<Vec<usize>> {
        if p.stride == 0 || p.dilation == 0 {
            bail!(
                "{name}: stride {} and dilation {} must be at least 1",
                p.stride,
                p.dilation
            );
        }
        let reach = |k: &usize| p.dilation.saturating_mul(k - 1).saturating_add(1);
        let around = p.padding.saturating_mul(2);
        let along = |(n, k): (&usize, &usize)| match (n.saturating_add(around), k) {
            (_, 0) => bail!("{name}: a kernel of shape {window:?} has no elements"),
            (n, k) => match n.checked_sub(reach(k)) {
                Some(rest) => Ok(rest / p.stride + 1),
                None => bail!(
                    "{name}: a kernel of {k} elements {} apart does not fit into {n}, padding \
                     included (input {:?})",
                    p.dilation,
                    self.shape()
                ),
            },
        };
        self.dims()[2..].iter().zip(window).map(along).collect()
    }

    /// Zeros before, between and after the elements of the axes behind the first two.
    #[track_caller]
    pub(super) fn padded(&self, zeros: &[(usize, usize, usize)]) -> Result<Self> {
        let mut margins = vec![Margin::default(); 2];
        margins.extend(zeros.iter().map(|(before, between, after)| Margin {
            before: *before,
            between: *between,
            after: *after,
        }));
        let size = |(n, m): (&usize, &Margin)| {
            let gaps = n.saturating_sub(1).saturating_mul(m.between);
            let sizes = [*n, m.before, m.after, gaps];
            sizes.into_iter().fold(0, usize::saturating_add)
        };
        let dims: Vec<usize> = self.dims().iter().zip(&margins).map(size).collect();
        let operands = vec![self.clone()];
        Tensor::make(Op::Pad(margins), operands, dims, self.kernel_dtype())
    }

    /// An axis as windows of `k` elements at `n` places.
    #[track_caller]
    pub(super) fn unfolded(
        &self,
        axis: usize,
        k: usize,
        n: usize,
        (step, dilation): (usize, usize),
    ) -> Result<Self> {
        let mut dims = self.dims().to_vec();
        dims[axis] = n;
        dims.insert(axis + 1, k);
        let op = Op::Unfold {
            axis,
            step,
            dilation,
        };
        Tensor::make(op, vec![self.clone()], dims, self.kernel_dtype())
    }

    /// `[b, c, places and window of each axis..]`.
    #[track_caller]
    fn windows(
        &self,
        window: &[usize],
        places: &[usize],
        (step, dilation): (usize, usize),
    ) -> Result<Self> {
        let mut axes = window.iter().zip(places).enumerate();
        axes.try_fold(self.clone(), |x, (i, (k, n))| {
            x.unfolded(2 + 2 * i, *k, *n, (step, dilation))
        })
    }

    #[track_caller]
    fn by_product(&self, kernel: &Self, places: &[usize], p: ConvParams) -> Result<Self> {
        let (b, c_out, groups) = (self.dims()[0], kernel.dims()[0], p.groups);
        let (window, d) = (&kernel.dims()[2..], places.len());
        let m = b * places.iter().product::<usize>();
        let k = kernel.dims()[1..].iter().product::<usize>();
        // Axes of places and of the window alternate behind the channels.
        let windows = self.windows(window, places, (p.stride, p.dilation))?;
        let odd = |from: usize| (0..d).map(move |i| from + 2 * i);
        if groups == 1 {
            let order: Vec<usize> = [0]
                .into_iter()
                .chain(odd(2))
                .chain([1])
                .chain(odd(3))
                .collect();
            let rows = windows.permute(order)?.reshape((m, k))?;
            let out = rows.product(&kernel.reshape((c_out, k))?.t()?)?;
            let split = [&[b], places, &[c_out]].concat();
            return out.reshape(split)?.channels_first();
        }
        let n = c_out / groups;
        let mut split = windows.dims().to_vec();
        split[1] /= groups;
        split.insert(1, groups);
        let order = [1, 0].into_iter().chain(odd(3)).chain([2]).chain(odd(4));
        let rows = windows
            .reshape(split)?
            .permute(order.collect::<Vec<_>>())?
            .reshape((groups, m, k))?;
        let out = rows.product(&kernel.reshape((groups, n, k))?.t()?)?;
        let split = [&[groups, b], places, &[n]].concat();
        let order: Vec<usize> = [1, 0, d + 2].into_iter().chain(2..d + 2).collect();
        let joined = [&[b, c_out], places].concat();
        out.reshape(split)?.permute(order)?.reshape(joined)
    }

    /// `[b, places.., c]` with the channels second.
    #[track_caller]
    fn channels_first(&self) -> Result<Self> {
        let last = self.rank() - 1;
        let order: Vec<usize> = [0, last].into_iter().chain(1..last).collect();
        self.permute(order)
    }

    /// One input channel for each group, and one or more outputs.
    #[track_caller]
    fn depthwise(&self, kernel: &Self, places: &[usize], p: ConvParams) -> Result<Self> {
        let (b, groups, c_out) = (self.dims()[0], p.groups, kernel.dims()[0]);
        let window = kernel.dims()[2..].to_vec();
        let windows = self.windows(&window, places, (p.stride, p.dilation))?;
        let of_input = [&[b, groups, 1], places].concat();
        let ones = vec![1; places.len()];
        let of_kernel = [&[1, groups, c_out / groups], ones.as_slice()].concat();
        let whole = [&[b, groups, c_out / groups], places].concat();
        let mut sum: Option<Tensor> = None;
        for tap in taps(&window) {
            let (mut x, mut w) = (windows.clone(), kernel.clone());
            for (i, at) in tap.iter().enumerate() {
                x = x.narrow(3 + 2 * i, *at, 1)?;
                w = w.narrow(2 + i, *at, 1)?;
            }
            let x = x
                .reshape(of_input.as_slice())?
                .broadcast_as(whole.as_slice())?;
            let w = w
                .reshape(of_kernel.as_slice())?
                .broadcast_as(whole.as_slice())?;
            let term = (x * w)?;
            sum = Some(match sum {
                None => term,
                Some(sum) => (sum + term)?,
            });
        }
        match sum {
            Some(sum) => sum.reshape([&[b, c_out], places].concat()),
            None => bail!("a kernel of shape {:?} has no elements", kernel.shape()),
        }
    }
}

/// The indices of a window's elements, in row-major order.
pub(super) fn taps(window: &[usize]) -> Vec<Vec<usize>> {
    window.iter().fold(vec![vec![]], |all, n| {
        let longer = |tap: &Vec<usize>| (0..*n).map(|i| [tap.as_slice(), &[i]].concat()).collect();
        all.iter()
            .flat_map(|tap| -> Vec<Vec<usize>> { longer(tap) })
            .collect()
    })
}
