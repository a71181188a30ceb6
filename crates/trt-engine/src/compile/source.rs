//! The weight index as model code sees it.

use super::metadata;
use candle_core::quantized::gguf_file::Value;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use trt_graph::candle_nn::{self, Stored, WeightSource};
use trt_stream::{RowOrder, View, Weights, WeightsError};

pub(super) struct ModelWeights {
    weights: Arc<Weights>,
    /// Read once, when a model asks for it: a vocabulary takes a while, and models are loaded often.
    metadata: OnceLock<Option<Arc<HashMap<String, Value>>>>,
}

impl ModelWeights {
    pub fn new(weights: Arc<Weights>) -> ModelWeights {
        ModelWeights {
            weights,
            metadata: OnceLock::new(),
        }
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
