//! Model files of `candle_transformers`, ported by their `use` lines.
//!
//! None of them is in this repository: the build script finds the sources of candle-transformers among the dependencies
//! and writes those again that type-check by the last trial (the package `candle-models-trial`).
#![allow(
    dead_code,
    unused,
    unexpected_cfgs,
    macro_expanded_macro_exports_accessed_by_absolute_paths,
    missing_docs,
    clippy::all,
    clippy::too_many_lines,
    clippy::missing_errors_doc,
    clippy::undocumented_unsafe_blocks,
    reason = "the files are candle's"
)]

include!(concat!(env!("OUT_DIR"), "/ported.rs"));
