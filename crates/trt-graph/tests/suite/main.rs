//! What `trt-graph` promises, by area.

mod fused;
mod conv;
mod mirror;
mod passes;
mod programs;
mod random;
mod stored;
mod support;
mod text;
mod tracing;
