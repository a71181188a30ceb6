//! Ported model files against candle's own, on tiny random GGUF files.

mod by_builder;
mod by_content;
mod file;
mod follow;
mod refused;

/// The files, as the build script wrote them.
#[allow(
    dead_code,
    unused,
    unexpected_cfgs,
    missing_docs,
    clippy::all,
    clippy::too_many_lines,
    reason = "the files are candle's"
)]
mod ported {
    include!(concat!(env!("OUT_DIR"), "/ported.rs"));
}
