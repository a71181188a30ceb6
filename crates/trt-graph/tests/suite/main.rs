//! What `trt-graph` promises, by area.

mod mirror;
mod passes;
mod programs;
mod random;
mod support;
mod text;
mod tracing;
