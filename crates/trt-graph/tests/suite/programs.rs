//! Programs of hand-picked graphs.
