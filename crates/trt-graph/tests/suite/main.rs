//! What `trt-graph` promises, by area.

mod mirror;
mod programs;
mod random;
mod support;
mod tracing;
