//! Where model code finds its weights: names, never bytes.

use crate::mirror::tensor::{Tensor, candle_dtype, kernel_dtype};
use candle_core::{DType, Device, Result, Shape, bail};
use std::sync::Arc;

/// What is known of a model's weights while it is traced.
pub trait WeightSource: Send + Sync {
    /// Shape and stored dtype of a tensor.
    fn find(&self, name: &str) -> Option<(Vec<usize>, trt_kernel::DType)>;

    /// Names close to a missing one, for the error.
    fn similar(&self, name: &str) -> Vec<String>;

    /// Whether there is a tensor of this name, even one that cannot be used: a model must not
    /// take another way because of a type that no kernel has.
    fn contains(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Why a tensor that is not found cannot be had, where that is another reason than that there
    /// is none.
    fn refusal(&self, name: &str) -> Option<String> {
        let _ = name;
        None
    }
}

/// A path into the weights and the dtype that the model runs in.
#[derive(Clone)]
pub struct VarBuilder {
    source: Arc<dyn WeightSource>,
    path: Vec<String>,
    dtype: DType,
    device: Device,
}

impl VarBuilder {
    /// The root of the weights; tensors appear to the model as `dtype`.
    pub fn new(source: Arc<dyn WeightSource>, dtype: DType) -> Self {
        VarBuilder {
            source,
            path: Vec::new(),
            dtype,
            device: Device::Cpu,
        }
    }

    /// The path as a dotted prefix.
    pub fn prefix(&self) -> String {
        self.path.join(".")
    }

    /// The root of the weights.
    pub fn root(&self) -> Self {
        VarBuilder {
            path: Vec::new(),
            ..self.clone()
        }
    }

    /// Another path.
    pub fn set_prefix(&self, prefix: impl ToString) -> Self {
        VarBuilder {
            path: vec![prefix.to_string()],
            ..self.clone()
        }
    }

    /// One level deeper.
    pub fn push_prefix<S: ToString>(&self, s: S) -> Self {
        let mut out = self.clone();
        out.path.push(s.to_string());
        out
    }

    /// One level deeper.
    pub fn pp<S: ToString>(&self, s: S) -> Self {
        self.push_prefix(s)
    }

    /// Always the CPU: where a program runs is decided when it is compiled.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The dtype in which tensors appear to the model.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The same path with another dtype.
    pub fn to_dtype(&self, dtype: DType) -> Self {
        VarBuilder {
            dtype,
            ..self.clone()
        }
    }

    /// The same path with another dtype.
    pub fn set_dtype(self, dtype: DType) -> Self {
        VarBuilder { dtype, ..self }
    }

    fn full_name(&self, name: &str) -> String {
        match self.path.is_empty() {
            true => name.into(),
            false => format!("{}.{name}", self.path.join(".")),
        }
    }

    /// Whether there is such a tensor, also where [`get`](Self::get) can only say why it cannot be
    /// used.
    pub fn contains_tensor(&self, name: &str) -> bool {
        self.source.contains(&self.full_name(name))
    }

    /// The tensor of a name, which must have this shape.
    ///
    /// # Errors
    ///
    /// If there is no such weight, it cannot be used, or it has another shape.
    pub fn get<S: Into<Shape>>(&self, s: S, name: &str) -> Result<Tensor> {
        let shape = s.into();
        let tensor = self.get_unchecked(name)?;
        if tensor.shape() != &shape {
            bail!(
                "weight '{}' has shape {:?} in the file, the model expects {shape:?}",
                self.full_name(name),
                tensor.shape()
            );
        }
        Ok(tensor)
    }

    /// The tensor of a name, whatever its shape.
    ///
    /// # Errors
    ///
    /// If there is no such weight, or it cannot be used.
    pub fn get_unchecked(&self, name: &str) -> Result<Tensor> {
        self.get_unchecked_dtype(name, self.dtype)
    }

    /// The tensor of a name as another dtype, whatever its shape.
    ///
    /// # Errors
    ///
    /// If there is no such weight, it cannot be used, or the dtype is not supported.
    pub fn get_unchecked_dtype(&self, name: &str, dtype: DType) -> Result<Tensor> {
        let full = self.full_name(name);
        let Some((shape, stored)) = self.source.find(&full) else {
            if let Some(why) = self.source.refusal(&full) {
                bail!("{why}");
            }
            let similar = self.source.similar(&full);
            match similar.is_empty() {
                true => bail!("no weight '{full}' in the files"),
                false => bail!(
                    "no weight '{full}' in the files; similar names: {}",
                    similar.join(", ")
                ),
            }
        };
        kernel_dtype(dtype)?;
        let weight = Tensor::weight(&full, shape.into(), stored)?;
        match candle_dtype(stored) == dtype {
            true => Ok(weight),
            false => weight.to_dtype(dtype),
        }
    }
}

impl std::fmt::Debug for VarBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "VarBuilder({:?}, {:?})", self.prefix(), self.dtype)
    }
}
