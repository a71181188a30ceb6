//! Weights as candle's model asks for them: each is made when it is first named, and kept for the other side.

use crate::blocks::file::{File, Parts};
use crate::values::noise;
use candle_core::quantized::GgmlDType;
use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::{Init, VarBuilder, var_builder::SimpleBackend};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

/// The weights that were asked for until now.
#[derive(Clone)]
pub struct Made {
    tensors: Arc<Mutex<HashMap<String, Tensor>>>,
    lacks: fn(&str) -> bool,
}

impl Made {
    /// None yet; those whose names `lacks` says are never made.
    pub fn new(lacks: fn(&str) -> bool) -> Made {
        Made {
            tensors: Arc::default(),
            lacks,
        }
    }

    /// What loads a model of candle.
    pub fn builder(&self) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(self.clone()), DType::F32, Device::Cpu)
    }

    /// A GGUF file of them, in blocks where rows are of whole blocks.
    pub fn file(&self) -> File {
        let mut parts = Parts::default();
        for (i, (name, tensor)) in BTreeMap::from_iter(self.tensors()).iter().enumerate() {
            let dtype = match tensor.dims() {
                [_, k] if k % 32 == 0 => [GgmlDType::Q8_0, GgmlDType::Q4_0][i % 2],
                _ => GgmlDType::F32,
            };
            parts.tensor(name, tensor, dtype);
        }
        parts.write()
    }

    /// All of them.
    pub fn tensors(&self) -> HashMap<String, Tensor> {
        self.made().clone()
    }

    fn made(&self) -> MutexGuard<'_, HashMap<String, Tensor>> {
        self.tensors.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl SimpleBackend for Made {
    fn get(&self, s: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        // Code that has a kernel of no places for a step that is left out looks whether there is a weight for it.
        if (self.lacks)(name) || s.elem_count() == 0 {
            candle_core::bail!("there is no weight '{name}'");
        }
        let mut made = self.made();
        if let Some(known) = made.get(name) {
            if known.shape() != &s {
                candle_core::bail!("'{name}' is {:?} and {s:?}", known.shape());
            }
            return known.to_dtype(dtype);
        }
        let tensor = make(name, &s, device)?;
        made.insert(name.into(), tensor.clone());
        tensor.to_dtype(dtype)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, _: &Device) -> Result<Tensor> {
        let made = self.made();
        match made.get(name) {
            Some(known) => known.to_dtype(dtype),
            None => candle_core::bail!("no shape is known of '{name}'"),
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        !(self.lacks)(name)
    }
}

/// A weight such that what passes through it stays as large as it is: scales are about 1, variances above it, and
/// products neither grow nor vanish.
fn make(name: &str, shape: &Shape, device: &Device) -> Result<Tensor> {
    let (n, dims) = (shape.elem_count(), shape.dims());
    let last = name.rsplit('.').next().unwrap_or(name);
    let value: Box<dyn Fn(f32) -> f32> = match (last, dims) {
        ("running_var", _) => Box::new(|v| 1.5 + 0.5 * v),
        (_, [_, .., _]) => {
            let across = dims[1..].iter().product::<usize>().max(1);
            let scale = (3.0 / across as f32).sqrt();
            Box::new(move |v| scale * v)
        }
        ("weight" | "gamma" | "scale" | "g", _) => Box::new(|v| 1.0 + 0.2 * v),
        _ => Box::new(|v| 0.2 * v),
    };
    let data: Vec<f32> = noise(name, n).into_iter().map(value).collect();
    Tensor::from_vec(data, shape, device)
}
