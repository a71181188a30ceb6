//! What model files share.

pub mod with_tracing;
