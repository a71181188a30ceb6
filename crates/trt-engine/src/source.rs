//! The weight index as model code sees it.

use std::sync::Arc;
use trt_graph::candle_nn::WeightSource;
use trt_kernel::DType;
use trt_stream::Weights;

pub(crate) struct Source(pub Arc<Weights>);

impl WeightSource for Source {
    fn find(&self, name: &str) -> Option<(Vec<usize>, DType)> {
        let info = self.0.get(self.0.lookup(name)?)?;
        Some((info.shape.clone(), info.dtype))
    }

    fn similar(&self, name: &str) -> Vec<String> {
        match self.0.find(name) {
            Err(trt_stream::WeightsError::Missing { near, .. }) => near,
            _ => Vec::new(),
        }
    }
}
