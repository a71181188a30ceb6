//! What `trt-graph` promises, by area.

#[macro_use]
mod oracle;

mod calls;
mod constants;
mod conv;
mod derived;
mod encoded;
mod ends;
mod execute;
mod folds;
mod from_one;
mod fused;
mod fusions;
mod known;
mod layers;
mod lines;
mod mirror;
mod moe;
mod packed;
mod parts;
mod passes;
mod picks;
mod programs;
mod quantized;
mod random;
mod rope_append;
mod routed;
mod sizes;
mod stored;
mod support;
mod text;
mod tracing;
