//! Buffers of f32 that each thread keeps between launches, so that a launch allocates nothing.

use std::cell::RefCell;

thread_local! {
    static POOL: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Lends `len` floats of any content. Uses may nest.
pub(super) fn with<T>(len: usize, f: impl FnOnce(&mut [f32]) -> T) -> T {
    let mut buffer = POOL.with(|p| p.borrow_mut().pop()).unwrap_or_default();
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    let out = f(&mut buffer[..len]);
    POOL.with(|p| p.borrow_mut().push(buffer));
    out
}
