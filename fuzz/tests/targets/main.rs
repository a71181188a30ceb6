//! Every parser of files and texts that others made, a module each.

mod budget;
mod cgroup;
mod config;
mod files;
mod gguf;
mod gguf_weights;
mod header;
mod index;
mod pack;
mod program;
mod saved;
mod side;
mod template;
mod tokenizer;
mod tokenizer_config;

/// Counts what each case holds.
#[global_allocator]
static MEMORY: candle_trt_fuzz::Counting = candle_trt_fuzz::Counting;
