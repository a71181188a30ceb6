//! A tiny GGUF file of random weights, and what it is to both sides.

use candle_core::quantized::gguf_file::{Content, Value, write};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use candle_trt::candle_nn::{Stored, VarBuilder, WeightSource};
use candle_trt::kernel::{BlockType, DType, Encoding};
use std::collections::HashMap;
use std::io::Cursor;
use std::sync::Arc;

/// The bytes of a file, and the same with every weight as its f32 values.
///
/// candle multiplies what the second holds in f32, which is what the blocks of the first mean: by the first it
/// would round activations to eight bits.
pub struct File {
    /// The file.
    pub bytes: Vec<u8>,
    /// The file of its values.
    pub values: Vec<u8>,
}

/// A file as it is put together.
#[derive(Default)]
pub struct Parts {
    metadata: Vec<(String, Value)>,
    tensors: Vec<(String, QTensor)>,
}

/// Numbers about 0 that depend on a name and an index only.
fn noise(name: &str, n: usize) -> Vec<f32> {
    let seed = name.bytes().fold(11u64, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    });
    let value = |i: u64| {
        let x = (seed ^ i.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 31)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (x >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n as u64).map(value).collect()
}

impl Parts {
    /// An entry of the metadata, instead of what was said under this key.
    pub fn say(mut self, key: &str, value: Value) -> Self {
        self.metadata.retain(|(said, _)| said != key);
        self.metadata.push((key.into(), value));
        self
    }

    /// A matrix, with values such that products stay as large as what they are of.
    pub fn matrix(&mut self, name: &str, (n, k): (usize, usize), dtype: GgmlDType) {
        let scale = (3.0 / k as f32).sqrt();
        let data: Vec<f32> = noise(name, n * k).iter().map(|v| v * scale).collect();
        let data = Tensor::from_vec(data, (n, k), &Device::Cpu).expect("a tensor");
        self.tensor(name, &data, dtype);
    }

    /// A vector of values about `middle`, in f32.
    pub fn vector(&mut self, name: &str, n: usize, middle: f32) {
        let data: Vec<f32> = noise(name, n).iter().map(|v| middle + 0.2 * v).collect();
        let data = Tensor::from_vec(data, n, &Device::Cpu).expect("a tensor");
        self.tensor(name, &data, GgmlDType::F32);
    }

    /// These values.
    pub fn tensor(&mut self, name: &str, data: &Tensor, dtype: GgmlDType) {
        let blocks = QTensor::quantize(data, dtype).expect("blocks");
        self.tensors.push((name.into(), blocks));
    }

    /// The file of all parts.
    pub fn write(self) -> File {
        let metadata: Vec<_> = self.metadata.iter().map(|(k, v)| (k.as_str(), v)).collect();
        let file = |tensors: &[(String, QTensor)]| {
            let mut bytes = Cursor::new(Vec::new());
            let tensors: Vec<_> = tensors.iter().map(|(n, t)| (n.as_str(), t)).collect();
            write(&mut bytes, &metadata, &tensors).expect("a file");
            bytes.into_inner()
        };
        let value = |(name, tensor): &(String, QTensor)| {
            let values = tensor.dequantize(&Device::Cpu).expect("values");
            let plain = QTensor::quantize(&values, GgmlDType::F32).expect("floats");
            (name.clone(), plain)
        };
        let values: Vec<_> = self.tensors.iter().map(value).collect();
        File {
            bytes: file(&self.tensors),
            values: file(&values),
        }
    }
}

impl File {
    /// What a model is loaded with.
    pub fn builder(&self) -> VarBuilder<'static> {
        VarBuilder::new(Arc::new(self.source()), candle_core::DType::F32)
    }

    /// Its weights, as a model's builder asks for them.
    pub fn source(&self) -> Source {
        let content = Content::read(&mut Cursor::new(&self.bytes)).expect("candle reads its file");
        let stored = |(name, info): (&String, &candle_core::quantized::gguf_file::TensorInfo)| {
            let shape = info.shape.dims().to_vec();
            (
                name.clone(),
                Stored::new(name, shape, encoding(info.ggml_dtype)),
            )
        };
        Source {
            tensors: content.tensor_infos.iter().map(stored).collect(),
            metadata: Arc::new(content.metadata),
            unusable: None,
        }
    }
}

fn encoding(dtype: GgmlDType) -> Encoding {
    match dtype {
        GgmlDType::F32 => DType::F32.into(),
        GgmlDType::F16 => DType::F16.into(),
        GgmlDType::BF16 => DType::BF16.into(),
        GgmlDType::Q4_0 => Encoding::Blocks(BlockType::Q4_0),
        GgmlDType::Q5_1 => Encoding::Blocks(BlockType::Q5_1),
        GgmlDType::Q8_0 => Encoding::Blocks(BlockType::Q8_0),
        GgmlDType::Q4K => Encoding::Blocks(BlockType::Q4K),
        GgmlDType::Q6K => Encoding::Blocks(BlockType::Q6K),
        other => panic!("no test has {other:?}"),
    }
}

/// The weights of a file, by its names.
pub struct Source {
    tensors: HashMap<String, Stored>,
    metadata: Arc<HashMap<String, Value>>,
    /// A tensor of a type that no kernel has.
    pub unusable: Option<String>,
}

impl WeightSource for Source {
    fn find(&self, name: &str) -> Option<Stored> {
        let usable = self.unusable.as_deref() != Some(name);
        self.tensors.get(name).filter(|_| usable).cloned()
    }

    fn similar(&self, _: &str) -> Vec<String> {
        Vec::new()
    }

    fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn refusal(&self, name: &str) -> Option<String> {
        let unusable = self.unusable.as_deref() == Some(name);
        unusable.then(|| format!("'{name}' is of a type that nothing reads"))
    }

    fn metadata(&self) -> Option<Arc<HashMap<String, Value>>> {
        Some(self.metadata.clone())
    }

    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }
}
