//! What `trt-graph` promises, by area.

mod before;
mod conv;
mod ends;
mod fused;
mod fusions;
mod mirror;
mod passes;
mod programs;
mod random;
mod sizes;
mod stored;
mod support;
mod text;
mod tracing;
