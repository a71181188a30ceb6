//! Where model code finds its weights: names, never bytes.

use super::no_files::NoFiles;
use crate::line;
use crate::mirror::device::Device;
use crate::mirror::tensor::{Tensor, kernel_dtype};
use candle_core::quantized::gguf_file::Value;
use candle_core::{DType, Result, Shape, bail};
use candle_nn::Init;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;
use trt_kernel::Encoding;

/// A weight as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// The name that the files have for it.
    pub name: Arc<str>,
    /// Its shape, row-major.
    pub shape: Vec<usize>,
    /// How its values are written down.
    pub encoding: Encoding,
    /// In which order its rows lie there.
    pub rows: RowOrder,
    /// What was added to each value before it was written: 1 to gemma's norms in GGUF files, mostly 0.
    pub added: f32,
}

/// In which order the rows of a weight lie in its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowOrder {
    /// As the model has them.
    Same,
    /// Within each of so many heads, row `2 i + h` is row `i` of half `h`: how llama's queries and
    /// keys lie in GGUF files.
    Interleaved {
        /// The heads, in which the rows are cut.
        heads: usize,
    },
}

impl Stored {
    /// A weight of a name that lies as the model has it.
    pub fn new(name: &str, shape: Vec<usize>, encoding: impl Into<Encoding>) -> Stored {
        Stored {
            name: name.into(),
            shape,
            encoding: encoding.into(),
            rows: RowOrder::Same,
            added: 0.0,
        }
    }

    /// The weight as it lies.
    #[track_caller]
    pub(in crate::mirror) fn weight(&self) -> Result<Tensor> {
        Tensor::weight(&self.name, Shape::from(self.shape.clone()), self.encoding)
    }

    /// What the model has of the weight that lies so, in a dtype.
    #[track_caller]
    pub(in crate::mirror) fn values(&self, weight: &Tensor, dtype: DType) -> Result<Tensor> {
        let weight = match self.added != 0.0 {
            true => weight.affine(1.0, -f64::from(self.added))?,
            false => weight.clone(),
        };
        let weight = weight.to_dtype(dtype)?;
        match self.rows {
            RowOrder::Same => Ok(weight),
            RowOrder::Interleaved { heads } => deinterleaved(&weight, heads, &self.name),
        }
    }
}

/// What is known of a model's weights while it is traced.
pub trait WeightSource: Send + Sync {
    /// What is known of a tensor.
    fn find(&self, name: &str) -> Option<Stored>;

    /// Names close to a missing one, for the error.
    fn similar(&self, name: &str) -> Vec<String>;

    /// Whether there is a tensor of this name, even one that cannot be used: a model must not
    /// take another way because of a type that no kernel has.
    fn contains(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// The bytes of a tensor as they lie, by the name that the files have for it; none where only names and shapes are
    /// known. Model code that reads values asks for them, and what is traced then holds for these values
    /// alone: who gives them is to remember which.
    fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let _ = name;
        None
    }

    /// Why a tensor that is not found cannot be had, where that is another reason than that there
    /// is none.
    fn refusal(&self, name: &str) -> Option<String> {
        let _ = name;
        None
    }

    /// What a GGUF file says of the model; none of any other file.
    fn metadata(&self) -> Option<Arc<HashMap<String, Value>>> {
        None
    }

    /// The names that a GGUF file has for its tensors, also for such as cannot be used.
    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Which name the files have for a name that is asked for.
type Rename = dyn Fn(&str) -> String + Send + Sync;

/// A path into the weights and the dtype that the model runs in.
///
/// The lifetime is candle's, for which what is built from may be borrowed; here nothing is.
#[derive(Clone)]
pub struct VarBuilder<'a> {
    source: Arc<dyn WeightSource>,
    /// Tensors that model code made itself, in place of files.
    made: Option<Arc<HashMap<String, Tensor>>>,
    rename: Option<Arc<Rename>>,
    lifetime: PhantomData<&'a ()>,
    path: Vec<String>,
    dtype: DType,
    device: Device,
}

impl VarBuilder<'_> {
    /// The root of the weights; tensors appear to the model as `dtype`.
    pub fn new(source: Arc<dyn WeightSource>, dtype: DType) -> Self {
        VarBuilder {
            source,
            made: None,
            rename: None,
            lifetime: PhantomData,
            path: Vec::new(),
            dtype,
            device: Device::Cpu,
        }
    }

    /// A builder over tensors that model code made, by name.
    pub fn from_tensors(tensors: HashMap<String, Tensor>, dtype: DType, _device: &Device) -> Self {
        VarBuilder {
            made: Some(Arc::new(tensors)),
            ..VarBuilder::new(Arc::new(NoFiles), dtype)
        }
    }

    /// Not here: whoever compiles a model opens its files.
    ///
    /// # Errors
    ///
    /// Always; a model is given the builder that it loads from.
    #[track_caller]
    pub fn from_mmaped_safetensors<P: AsRef<Path>>(
        paths: &[P],
        _dtype: DType,
        _device: &Device,
    ) -> Result<Self> {
        let paths: Vec<_> = paths
            .iter()
            .map(|p| p.as_ref().display().to_string())
            .collect();
        bail!(
            "candle-trt opens files itself: give {} to Weights::open, and load the model from the builder that \
             Compiler::compile gives",
            paths.join(", ")
        )
    }

    /// Tensors under other names: `f` says of the name that is asked for which one the files have.
    pub fn rename_f<F: Fn(&str) -> String + Sync + Send + 'static>(self, f: F) -> Self {
        let rename: Arc<Rename> = match self.rename.clone() {
            Some(inner) => Arc::new(move |name| inner(&f(name))),
            None => Arc::new(f),
        };
        VarBuilder {
            rename: Some(rename),
            ..self
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

    /// The same path: where a program runs is decided when it is compiled.
    pub fn set_device(self, _device: Device) -> Self {
        self
    }

    /// The same path with another dtype.
    pub fn set_dtype(self, dtype: DType) -> Self {
        VarBuilder { dtype, ..self }
    }

    /// The same builder: nothing is borrowed.
    pub(crate) fn owned(self) -> VarBuilder<'static> {
        VarBuilder {
            source: self.source,
            made: self.made,
            rename: self.rename,
            lifetime: PhantomData,
            path: self.path,
            dtype: self.dtype,
            device: self.device,
        }
    }

    pub(in crate::mirror) fn source(&self) -> &Arc<dyn WeightSource> {
        &self.source
    }

    pub(in crate::mirror) fn full_name(&self, name: &str) -> String {
        let full = match self.path.is_empty() {
            true => name.into(),
            false => format!("{}.{name}", self.path.join(".")),
        };
        match &self.rename {
            Some(rename) => rename(&full),
            None => full,
        }
    }

    /// Whether there is such a tensor, also where [`get`](Self::get) can only say why it cannot be
    /// used.
    pub fn contains_tensor(&self, name: &str) -> bool {
        let full = self.full_name(name);
        match &self.made {
            Some(made) => made.contains_key(&full),
            None => self.source.contains(&full),
        }
    }

    /// The tensor of a name, which must have this shape.
    ///
    /// # Errors
    ///
    /// If there is no such weight, it cannot be used, or it has another shape.
    #[track_caller]
    pub fn get<S: Into<Shape>>(&self, s: S, name: &str) -> Result<Tensor> {
        self.get_with_hints_dtype(s, name, Init::default(), self.dtype)
    }

    /// As [`get`](Self::get), as another dtype.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), and if the dtype is not supported.
    #[track_caller]
    pub fn get_with_hints_dtype<S: Into<Shape>>(
        &self,
        s: S,
        name: &str,
        _hints: Init,
        dtype: DType,
    ) -> Result<Tensor> {
        let shape = s.into();
        let tensor = self.get_unchecked_dtype(name, dtype)?;
        if tensor.shape() != &shape {
            bail!(
                "weight '{}' has shape {:?} in the file, the model expects {shape:?}",
                self.full_name(name),
                tensor.shape()
            );
        }
        Ok(tensor)
    }

    /// As [`get`](Self::get): what a missing weight would be made of is for training.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    #[track_caller]
    pub fn get_with_hints<S: Into<Shape>>(&self, s: S, name: &str, _hints: Init) -> Result<Tensor> {
        self.get(s, name)
    }

    /// The tensor of a name, whatever its shape.
    ///
    /// # Errors
    ///
    /// If there is no such weight, or it cannot be used.
    #[track_caller]
    pub fn get_unchecked(&self, name: &str) -> Result<Tensor> {
        self.get_unchecked_dtype(name, self.dtype)
    }

    /// The tensor of a name as another dtype, whatever its shape.
    ///
    /// # Errors
    ///
    /// If there is no such weight, it cannot be used, or the dtype is not supported.
    #[track_caller]
    pub fn get_unchecked_dtype(&self, name: &str, dtype: DType) -> Result<Tensor> {
        line::here();
        let full = self.full_name(name);
        if let Some(tensor) = self.made.as_ref().and_then(|made| made.get(&full)) {
            return tensor.to_dtype(dtype);
        }
        let stored = self.stored(&full)?;
        kernel_dtype(dtype)?;
        stored.values(&stored.weight()?, dtype)
    }

    /// What is known of a tensor by its whole name.
    #[track_caller]
    pub(in crate::mirror) fn stored(&self, full: &str) -> Result<Stored> {
        if let Some(stored) = self.source.find(full) {
            return Ok(stored);
        }
        if let Some(why) = self.source.refusal(full) {
            bail!("{why}");
        }
        let similar = self.source.similar(full);
        match similar.is_empty() {
            true => bail!("no weight '{full}' in the files"),
            false => bail!(
                "no weight '{full}' in the files; similar names: {}",
                similar.join(", ")
            ),
        }
    }
}

/// The rows of each head, halves after each other: a view of rows that lie interleaved.
#[track_caller]
fn deinterleaved(weight: &Tensor, heads: usize, name: &str) -> Result<Tensor> {
    let dims = weight.dims();
    let rows = dims.first().copied().unwrap_or(0);
    if heads == 0 || !rows.is_multiple_of(2 * heads) {
        bail!("weight '{name}' has {rows} rows, which are no halves of {heads} heads");
    }
    let mut split = vec![heads, rows / heads / 2, 2];
    split.extend(&dims[1..]);
    weight.reshape(split)?.transpose(1, 2)?.reshape(dims)
}

impl std::fmt::Debug for VarBuilder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "VarBuilder({:?}, {:?})", self.prefix(), self.dtype)
    }
}
