//! The weight index as model code sees it.

use super::metadata;
use super::saved::hash;
use crate::report::WeightRead;
use candle_core::quantized::gguf_file::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use trt_graph::candle_nn::{self, Stored, WeightSource};
use trt_stream::{RowOrder, View, Weights, WeightsError};

pub(super) struct ModelWeights {
    weights: Arc<Weights>,
    /// Read once, when a model asks for it: a vocabulary takes a while, and models are loaded often.
    metadata: OnceLock<Option<Arc<HashMap<String, Value>>>>,
    /// Weights whose values model code read.
    read: Mutex<BTreeMap<String, u64>>,
}

impl ModelWeights {
    pub fn new(weights: Arc<Weights>) -> ModelWeights {
        ModelWeights {
            weights,
            metadata: OnceLock::new(),
            read: Mutex::default(),
        }
    }

    /// The weights whose values model code read so far.
    pub fn read(&self) -> Vec<WeightRead> {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let one = |(name, hash): (&String, &u64)| WeightRead {
            name: name.clone(),
            hash: *hash,
        };
        read.iter().map(one).collect()
    }
}

impl WeightSource for ModelWeights {
    fn find(&self, name: &str) -> Option<Stored> {
        let View { id, rows, added } = self.weights.view(name).ok()?;
        let info = self.weights.get(id)?;
        Some(Stored {
            name: info.name.as_str().into(),
            shape: info.shape.clone(),
            encoding: info.encoding,
            rows: match rows {
                RowOrder::AsStored => candle_nn::RowOrder::Same,
                RowOrder::Interleaved { heads } => candle_nn::RowOrder::Interleaved { heads },
            },
            added,
        })
    }

    fn similar(&self, name: &str) -> Vec<String> {
        match self.weights.find(name) {
            Ok(_) => Vec::new(),
            Err(error) => error.suggestions(),
        }
    }

    fn contains(&self, name: &str) -> bool {
        self.weights.contains(name)
    }

    fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let bytes = values(&self.weights, name)?;
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.insert(name.into(), hash(&[bytes]));
        Some(bytes.to_vec())
    }

    fn refusal(&self, name: &str) -> Option<String> {
        match self.weights.view(name) {
            Ok(_) | Err(WeightsError::Missing { .. }) => None,
            Err(error) => Some(error.to_string()),
        }
    }

    fn metadata(&self) -> Option<Arc<HashMap<String, Value>>> {
        let read = || self.weights.metadata().map(metadata::of).map(Arc::new);
        self.metadata.get_or_init(read).clone()
    }

    fn names(&self) -> Vec<String> {
        self.weights.names().map(str::to_string).collect()
    }
}

fn values<'a>(weights: &'a Weights, name: &str) -> Option<&'a [u8]> {
    weights.bytes(weights.lookup(name)?)
}

impl WeightRead {
    /// Whether these weights have the values that were read.
    pub(super) fn is_of(&self, weights: &Weights) -> bool {
        values(weights, &self.name).is_some_and(|bytes| hash(&[bytes]) == self.hash)
    }
}
