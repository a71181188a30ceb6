//! Recorded work.

mod graph;

pub(super) use graph::CudaGraph;
