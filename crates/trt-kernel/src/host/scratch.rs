//! Buffers of f32 that each thread keeps between launches, so that a launch allocates nothing.

use super::HostError;
use std::cell::RefCell;

thread_local! {
    static POOL: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Lends `len` floats of any content; an error if there is no memory for them. Uses may nest.
pub(super) fn with<T>(
    len: usize,
    f: impl FnOnce(&mut [f32]) -> Result<T, HostError>,
) -> Result<T, HostError> {
    let mut buffer = POOL.with(|p| p.borrow_mut().pop()).unwrap_or_default();
    if buffer.len() < len {
        let refused = |_| HostError::Memory {
            bytes: len.saturating_mul(size_of::<f32>()),
        };
        buffer
            .try_reserve_exact(len - buffer.len())
            .map_err(refused)?;
        buffer.resize(len, 0.0);
    }
    let out = f(&mut buffer[..len]);
    POOL.with(|p| p.borrow_mut().push(buffer));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_there_can_be_is_an_error_with_the_bytes() {
        for len in [usize::MAX, 1 << 60] {
            let error = with(len, |_| Ok(())).unwrap_err();
            assert!(matches!(error, HostError::Memory { .. }), "{error}");
        }
        assert_eq!(with(10, |b| Ok(b.len())), Ok(10));
    }
}
