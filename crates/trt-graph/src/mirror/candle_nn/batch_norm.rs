//! Batch norms as they are after training: a shift and a scale for each channel.

use super::var_builder::VarBuilder;
use crate::mirror::tensor::{ModuleT, Tensor};
use candle_core::{Result, bail};

/// How a [`BatchNorm`] behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchNormConfig {
    /// Added to the variance.
    pub eps: f64,
    /// Used in training only.
    pub remove_mean: bool,
    /// Whether there are a weight and a bias.
    pub affine: bool,
    /// Used in training only.
    pub momentum: f64,
}

impl Default for BatchNormConfig {
    fn default() -> Self {
        Self {
            eps: 1e-5,
            remove_mean: true,
            affine: true,
            momentum: 0.1,
        }
    }
}

impl From<f64> for BatchNormConfig {
    fn from(eps: f64) -> Self {
        Self {
            eps,
            ..Self::default()
        }
    }
}

/// Normalisation of each channel by the mean and variance that training left.
#[derive(Clone, Debug)]
pub struct BatchNorm {
    running_mean: Tensor,
    running_var: Tensor,
    weight_and_bias: Option<(Tensor, Tensor)>,
    eps: f64,
}

impl BatchNorm {
    #[track_caller]
    fn checked(self, num_features: usize) -> Result<Self> {
        if self.eps < 0. {
            bail!("batch-norm eps cannot be negative {}", self.eps)
        }
        let mut all = vec![&self.running_mean, &self.running_var];
        all.extend(self.weight_and_bias.iter().flat_map(|(w, b)| [w, b]));
        match all.iter().find(|t| t.dims() != [num_features]) {
            Some(t) => bail!(
                "batch-norm: a tensor of shape {:?} should have shape [{num_features}]",
                t.shape()
            ),
            None => Ok(self),
        }
    }

    /// With weight and bias.
    ///
    /// # Errors
    ///
    /// If `eps` is negative or a tensor does not have one element for each feature.
    #[track_caller]
    pub fn new(
        num_features: usize,
        running_mean: Tensor,
        running_var: Tensor,
        weight: Tensor,
        bias: Tensor,
        eps: f64,
    ) -> Result<Self> {
        let norm = Self {
            running_mean,
            running_var,
            weight_and_bias: Some((weight, bias)),
            eps,
        };
        norm.checked(num_features)
    }

    /// Without weight and bias.
    ///
    /// # Errors
    ///
    /// As [`BatchNorm::new`].
    #[track_caller]
    pub fn new_no_bias(
        num_features: usize,
        running_mean: Tensor,
        running_var: Tensor,
        eps: f64,
    ) -> Result<Self> {
        let norm = Self {
            running_mean,
            running_var,
            weight_and_bias: None,
            eps,
        };
        norm.checked(num_features)
    }

    /// The mean that training left.
    pub fn running_mean(&self) -> &Tensor {
        &self.running_mean
    }

    /// The variance that training left.
    pub fn running_var(&self) -> &Tensor {
        &self.running_var
    }

    /// What is added to the variance.
    pub fn eps(&self) -> f64 {
        self.eps
    }

    /// The weight and the bias.
    pub fn weight_and_bias(&self) -> Option<(&Tensor, &Tensor)> {
        self.weight_and_bias.as_ref().map(|v| (&v.0, &v.1))
    }
}

impl BatchNorm {
    /// The norm by what it finds in `x`: for training.
    ///
    /// # Errors
    ///
    /// Always: candle-trt does not train.
    #[track_caller]
    pub fn forward_train(&self, x: &Tensor) -> Result<Tensor> {
        bail!("batch-norm of {x:?}: candle-trt does not train; call forward_t with train = false")
    }
}

impl ModuleT for BatchNorm {
    #[track_caller]
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        if train {
            return self.forward_train(x);
        }
        let mut shape = vec![1; x.rank()];
        shape[1.min(x.rank().saturating_sub(1))] = self.running_mean.dims1()?;
        let of = |t: &Tensor| t.reshape(shape.as_slice());
        let deviation = (of(&self.running_var)? + self.eps)?.sqrt()?;
        let x = x.broadcast_sub(&of(&self.running_mean)?)?;
        let x = x.broadcast_div(&deviation)?;
        match &self.weight_and_bias {
            None => Ok(x),
            Some((weight, bias)) => x.broadcast_mul(&of(weight)?)?.broadcast_add(&of(bias)?),
        }
    }
}

/// A norm with the tensors `running_mean`, `running_var` and, if affine, `weight` and `bias`.
///
/// # Errors
///
/// If a weight is missing or has another shape, or as [`BatchNorm::new`].
#[track_caller]
pub fn batch_norm<C: Into<BatchNormConfig>>(
    num_features: usize,
    config: C,
    vb: VarBuilder,
) -> Result<BatchNorm> {
    let config = config.into();
    let mean = vb.get(num_features, "running_mean")?;
    let var = vb.get(num_features, "running_var")?;
    match config.affine {
        true => {
            let (weight, bias) = (
                vb.get(num_features, "weight")?,
                vb.get(num_features, "bias")?,
            );
            BatchNorm::new(num_features, mean, var, weight, bias, config.eps)
        }
        false => BatchNorm::new_no_bias(num_features, mean, var, config.eps),
    }
}
