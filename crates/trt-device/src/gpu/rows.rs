//! Which rows of a weight a launch may cover.

use crate::{LaunchError, Tiles};
use std::ops::Range;
use trt_kernel::ROW_PANEL;

/// Whether a launch may cover these rows of `n`.
pub(crate) fn row_range_law(tiles: &Tiles, n: usize) -> Result<(), &'static str> {
    let rows = &tiles.rows;
    if rows.start > rows.end || rows.end > n {
        Err("not a range of the weight's rows")
    } else if !rows.start.is_multiple_of(ROW_PANEL) {
        Err("the start is no multiple of the panel of 64")
    } else if !rows.end.is_multiple_of(ROW_PANEL) && rows.end != n {
        Err("the end is neither a multiple of the panel of 64 nor the last row")
    } else if tiles.places.len() > 1 && !tiles.step.is_multiple_of(ROW_PANEL) {
        Err("tiles end between multiples of the panel of 64")
    } else {
        Ok(())
    }
}

/// The error for rows of `n` that a launch may not cover.
pub(crate) fn refused(rows: &Range<usize>, n: usize, why: &'static str) -> LaunchError {
    let (start, end) = (rows.start, rows.end);
    LaunchError::Rows { start, end, n, why }
}

/// A number of rows, as kernels count it; `rows` of `n` are those of the launch.
pub(crate) fn count(value: usize, rows: &Range<usize>, n: usize) -> Result<u32, LaunchError> {
    u32::try_from(value).map_err(|_| refused(rows, n, "more rows than 32 bits count"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DeviceId, Memory};

    #[test]
    fn tiles_keep_the_row_range_law() {
        let memory = Memory::new(DeviceId::unique(), std::ptr::null_mut(), 0, ());
        let law = |rows: std::ops::Range<usize>, step: usize, places: usize| {
            let places = vec![memory.whole(); places];
            row_range_law(&Tiles { rows, step, places }, 200)
        };
        assert!(law(64..200, 64, 3).is_ok());
        assert!(law(64..192, 1000, 1).is_ok());
        assert!(law(63..128, 64, 2).is_err());
        assert!(law(64..199, 64, 3).is_err());
        assert!(law(0..200, 100, 2).is_err());
        assert!(law(192..256, 64, 1).is_err());
    }
}
