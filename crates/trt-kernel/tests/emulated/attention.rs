//! Attention as PTX.
