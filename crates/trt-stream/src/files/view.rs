//! A GGUF model in the words of Hugging Face's files: the names of its tensors, and its configuration.

use super::WeightsError;
use super::gguf::{Held, RowOrder, View, config_json};
use super::index::{Found, Weights};
use super::tensor::TensorId;
use trt_kernel::{DType, Encoding};

impl Weights {
    /// What a name leads to. A tensor of a GGUF file is found by the name that it has there, and by what Hugging Face
    /// calls it.
    pub(super) fn found(&self, name: &str) -> Option<&Found> {
        let other = || {
            let (stored, ..) = self.names.as_ref()?.stored(name)?;
            self.by_name.get(&stored)
        };
        self.by_name.get(name).or_else(other)
    }

    /// As [`find`](Self::find), and how what lies in the file differs from what the name means: the weights of some GGUF
    /// models are other ones than Hugging Face's files have under the name.
    ///
    /// # Errors
    /// As [`find`](Self::find); rows that cannot be in the order that they should be in.
    pub fn view(&self, name: &str) -> Result<View, WeightsError> {
        let id = self.find(name)?;
        let stored = self.names.as_ref().and_then(|n| n.stored(name));
        let other = stored.filter(|_| !self.by_name.contains_key(name));
        let (_, rows, added) = other.unwrap_or_default();
        let info = self.info(id);
        match rows {
            RowOrder::Interleaved { heads }
                if !info.rows().is_multiple_of(heads.saturating_mul(2)) =>
            {
                let rows = info.rows();
                Err(WeightsError::BadTensor {
                    file: self.path(info.file).to_path_buf(),
                    tensor: info.name.clone(),
                    reason: format!("its {rows} rows are not {heads} heads of pairs"),
                })
            }
            RowOrder::AsStored | RowOrder::Interleaved { .. } => Ok(View { id, rows, added }),
        }
    }

    /// The tensors of a GGUF model that have a name in Hugging Face's files, by that name and in the order in which a
    /// decoder uses them; nothing for an architecture that is not known.
    ///
    /// # Errors
    /// As [`find`](Self::find) for a tensor that cannot be had.
    pub fn hugging_face(&self) -> Result<Vec<(String, TensorId)>, WeightsError> {
        let names = self.names.as_ref();
        let named = |stored: &String| {
            let (place, name) = names?.hugging_face(stored)?;
            Some(self.find(stored).map(|id| (place, name, id)))
        };
        let all = self.by_name.keys().filter_map(named);
        let mut all = all.collect::<Result<Vec<_>, _>>()?;
        all.sort();
        Ok(all.into_iter().map(|(_, name, id)| (name, id)).collect())
    }

    /// What a GGUF file says of its model, as the text of the `config.json` that Hugging Face's files would have; nothing
    /// for weights in other files.
    ///
    /// # Errors
    /// [`WeightsError::BadValue`] for an architecture whose configuration is not known, and for a value that is missing,
    /// of another type than it should be, or not supported.
    pub fn config_json(&self) -> Result<Option<String>, WeightsError> {
        let Some(metadata) = self.metadata() else {
            return Ok(None);
        };
        let shape = |name: &str| match self.by_name.contains_key(name) {
            true => Ok(self.get(self.find(name)?).map(|info| info.shape.clone())),
            false => Ok(None),
        };
        let held = Held {
            shape: &shape,
            rope_factors: self.rope_factors()?,
        };
        config_json(metadata, &held).map(Some)
    }

    /// The divisors of rope's frequencies that some files hold as a tensor.
    fn rope_factors(&self) -> Result<Option<Vec<f32>>, WeightsError> {
        const NAME: &str = "rope_freqs.weight";
        /// The most pairs of a head.
        const MOST: usize = 1 << 14;
        if !self.by_name.contains_key(NAME) {
            return Ok(None);
        }
        let id = self.find(NAME)?;
        let info = self.info(id);
        let values = self
            .bytes(id)
            .filter(|_| info.encoding == Encoding::Plain(DType::F32) && info.elements() <= MOST);
        let Some(values) = values else {
            return Err(WeightsError::BadTensor {
                file: self.path(info.file).to_path_buf(),
                tensor: NAME.into(),
                reason: format!(
                    "it is {} {:?}, not a list of f32",
                    info.encoding, info.shape
                ),
            });
        };
        let words = values.as_chunks::<4>().0.iter();
        Ok(Some(words.map(|w| f32::from_le_bytes(*w)).collect()))
    }
}
