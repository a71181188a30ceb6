//! The program as users and hostile others meet it: each test starts the binary.

mod broken;
mod folders;
mod gguf;
#[path = "../../../crates/trt-stream/tests/support/gguf.rs"]
mod gguf_file;
mod hub;
mod hubs;
mod lines;
mod models;
mod pip;
mod program;
