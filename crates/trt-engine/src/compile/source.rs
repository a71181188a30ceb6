//! The weight index as model code sees it.

use std::sync::Arc;
use trt_graph::candle_nn::WeightSource;
use trt_kernel::DType;
use trt_stream::{Weights, WeightsError};

pub(super) struct ModelWeights(pub Arc<Weights>);

impl WeightSource for ModelWeights {
    fn find(&self, name: &str) -> Option<(Vec<usize>, DType)> {
        let info = self.0.get(self.0.lookup(name)?)?;
        Some((info.shape.clone(), info.dtype))
    }

    fn similar(&self, name: &str) -> Vec<String> {
        match self.0.find(name) {
            Ok(_) => Vec::new(),
            Err(error) => error.suggestions(),
        }
    }

    fn contains(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    fn refusal(&self, name: &str) -> Option<String> {
        match self.0.find(name) {
            Ok(_) | Err(WeightsError::Missing { .. }) => None,
            Err(error) => Some(error.to_string()),
        }
    }
}
