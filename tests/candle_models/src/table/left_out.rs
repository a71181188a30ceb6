//! Files that type-check and have no case, with the reason.

/// By file.
pub const LEFT_OUT: &[(&str, &str)] = &[];
