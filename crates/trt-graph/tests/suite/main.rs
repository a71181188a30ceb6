//! What `trt-graph` promises, by area.

mod programs;
mod random;
mod support;
