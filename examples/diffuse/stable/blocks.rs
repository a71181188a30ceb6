//! What the two networks of pictures have in common.

use candle_nn::{
    Conv2d, Conv2dConfig, GroupNorm, Linear, Module, VarBuilder, conv2d, group_norm, linear, ops,
};
use candle_trt::candle::{D, DType, Result, Tensor};
use candle_trt::candle_nn;

/// A convolution that keeps the size, or halves it with a stride of 2.
pub fn conv(
    [from, to]: [usize; 2],
    (kernel, stride): (usize, usize),
    vb: VarBuilder,
) -> Result<Conv2d> {
    let config = Conv2dConfig {
        padding: kernel / 2,
        stride,
        ..Default::default()
    };
    conv2d(from, to, kernel, config, vb)
}

/// Twice as many rows and columns, then a convolution.
pub fn doubled(x: &Tensor, conv: &Conv2d) -> Result<Tensor> {
    let (_, _, h, w) = x.dims4()?;
    conv.forward(&x.upsample_nearest2d(2 * h, 2 * w)?)
}

/// Groups of channels that are made alike, and how much is added where they do not vary.
#[derive(Clone, Copy)]
pub struct Norm {
    pub groups: usize,
    pub eps: f64,
}

impl Norm {
    pub fn load(self, channels: usize, vb: VarBuilder) -> Result<GroupNorm> {
        group_norm(self.groups, channels, self.eps, vb)
    }
}

/// Two convolutions beside the identity, and between them what time it is.
pub struct ResBlock {
    before: GroupNorm,
    first: Conv2d,
    time: Option<Linear>,
    after: GroupNorm,
    second: Conv2d,
    skip: Option<Conv2d>,
}

impl ResBlock {
    /// `time` is the size of what tells the time, if the network knows of it.
    pub fn new(
        [from, to]: [usize; 2],
        norm: Norm,
        time: Option<usize>,
        vb: VarBuilder,
    ) -> Result<Self> {
        let time = time.map(|size| linear(size, to, vb.pp("time_emb_proj")));
        let skip = (from != to).then(|| conv([from, to], (1, 1), vb.pp("conv_shortcut")));
        Ok(ResBlock {
            before: norm.load(from, vb.pp("norm1"))?,
            first: conv([from, to], (3, 1), vb.pp("conv1"))?,
            time: time.transpose()?,
            after: norm.load(to, vb.pp("norm2"))?,
            second: conv([to, to], (3, 1), vb.pp("conv2"))?,
            skip: skip.transpose()?,
        })
    }

    pub fn forward(&self, x: &Tensor, time: Option<&Tensor>) -> Result<Tensor> {
        let h = self.first.forward(&self.before.forward(x)?.silu()?)?;
        let h = match (&self.time, time) {
            (Some(own), Some(time)) => {
                let time = own.forward(&time.silu()?)?;
                h.broadcast_add(&time.unsqueeze(D::Minus1)?.unsqueeze(D::Minus1)?)?
            }
            _ => h,
        };
        let h = self.second.forward(&self.after.forward(&h)?.silu()?)?;
        match &self.skip {
            Some(skip) => skip.forward(x)? + h,
            None => x + h,
        }
    }
}

/// What rows of `query` find among `key` and `value`, all `[batch, rows, size]`, by so many heads. Scores are f32.
pub fn attend(query: &Tensor, key: &Tensor, value: &Tensor, heads: usize) -> Result<Tensor> {
    let (batch, rows, size) = query.dims3()?;
    let split = |x: &Tensor| {
        let (batch, rows, size) = x.dims3()?;
        let x = x.reshape((batch, rows, heads, size / heads))?;
        x.transpose(1, 2)?.contiguous()?.to_dtype(DType::F32)
    };
    let scale = ((size / heads) as f64).sqrt();
    let scores = (split(query)?.matmul(&split(key)?.t()?)? / scale)?;
    let mixed = ops::softmax_last_dim(&scores)?.matmul(&split(value)?)?;
    let mixed = mixed
        .to_dtype(query.dtype())?
        .transpose(1, 2)?
        .contiguous()?;
    mixed.reshape((batch, rows, size))
}

/// `[batch, channels, h, w]` to `[batch, h * w, channels]`.
pub fn rows(x: &Tensor) -> Result<Tensor> {
    x.flatten_from(2)?.transpose(1, 2)?.contiguous()
}

/// The other way round.
pub fn picture(x: &Tensor, like: &Tensor) -> Result<Tensor> {
    let (_, _, h, w) = like.dims4()?;
    let (batch, _, channels) = x.dims3()?;
    x.transpose(1, 2)?
        .contiguous()?
        .reshape((batch, channels, h, w))
}
