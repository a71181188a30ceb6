//! Which rows of a weight a launch may cover.

use crate::{LaunchError, Tiles};
use std::ops::Range;
use trt_kernel::{Encoding, ROW_PANEL};

/// Whether a launch may cover these rows of `n`, of so many values each, which are written down so.
pub(crate) fn row_range_law(
    tiles: &Tiles,
    n: usize,
    (encoding, columns): (Encoding, usize),
) -> Result<(), &'static str> {
    let rows = &tiles.rows;
    let unit = encoding.row_step(columns);
    let cut = |row: usize| row.is_multiple_of(unit);
    if rows.start > rows.end || rows.end > n {
        Err("not a range of the weight's rows")
    } else if let Encoding::Packed(_) = encoding {
        let step = tiles.places.len() <= 1 || cut(tiles.step);
        match cut(rows.start) && (cut(rows.end) || rows.end == n) && step {
            true => Ok(()),
            false => Err("packed rows are cut between units"),
        }
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
    use trt_kernel::{DType, PackedType};

    #[test]
    fn tiles_keep_the_row_range_law() {
        let memory = Memory::new(DeviceId::unique(), std::ptr::null_mut(), 0, ());
        let of = |rows: std::ops::Range<usize>, step: usize, places: usize| {
            let places = vec![memory.whole(); places];
            Tiles { rows, step, places }
        };
        let law = |rows, step, places| {
            let plain = (Encoding::Plain(DType::BF16), 4096);
            row_range_law(&of(rows, step, places), 200, plain)
        };
        assert!(law(64..200, 64, 3).is_ok());
        assert!(law(64..192, 1000, 1).is_ok());
        assert!(law(63..128, 64, 2).is_err());
        assert!(law(64..199, 64, 3).is_err());
        assert!(law(0..200, 100, 2).is_err());
        assert!(law(192..256, 64, 1).is_err());
        // Units of 128 rows.
        let packed = |rows, step, places| {
            let packed = (Encoding::Packed(PackedType::Bf16Pairs), 4096);
            row_range_law(&of(rows, step, places), 600, packed)
        };
        assert!(packed(128..600, 128, 4).is_ok());
        assert!(packed(128..512, 384, 1).is_ok());
        assert!(packed(64..600, 128, 5).is_err());
        assert!(packed(0..320, 320, 1).is_err());
        assert!(packed(0..600, 64, 10).is_err());
    }
}
