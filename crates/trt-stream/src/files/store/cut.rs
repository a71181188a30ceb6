//! Which tensors have rows that can be packed, and how these are cut into units.
//!
//! All of it follows from a tensor's shape and dtype, so that kernels, plans and side files say the same.

use std::ops::Range;
use trt_kernel::{DType, Encoding, SumOrder};
use trt_pack::{Geometry, Kind, unit_rows};

/// Fewer bytes of a tensor are not worth a code.
const LEAST: usize = 64 << 10;

/// More bytes of a tensor than this have places that a table of units has no numbers for.
const MOST: usize = 32 << 30;

/// The rows of a tensor, in units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub kind: Kind,
    pub rows: usize,
    pub unit_rows: usize,
    pub geometry: Geometry,
}

impl Cut {
    /// How the rows of a tensor are cut, if they can be packed: those of a plain matrix of 16-bit values, or of several
    /// one after another (experts) of which each is whole units.
    pub fn of(encoding: Encoding, shape: &[usize]) -> Option<Cut> {
        let kind = match encoding {
            Encoding::Plain(DType::BF16) => Kind::Bf16,
            Encoding::Plain(DType::F16) => Kind::F16,
            Encoding::Plain(DType::F32 | DType::U8 | DType::U32 | DType::I64)
            | Encoding::Blocks(_)
            | Encoding::Packed(_)
            | Encoding::Code => return None,
        };
        let (experts, of_each, columns) = match *shape {
            [rows, columns] => (1, rows, columns),
            [experts, rows, columns] => (experts, rows, columns),
            _ => return None,
        };
        let order = SumOrder::new(columns, encoding)?;
        let geometry = Geometry::new(columns, order.lanes).ok()?;
        let unit_rows = unit_rows(columns);
        let rows = experts.checked_mul(of_each)?;
        let bytes = rows.checked_mul(columns)?.checked_mul(2)?;
        let whole = experts == 1 || of_each.is_multiple_of(unit_rows);
        (whole && (LEAST..=MOST).contains(&bytes)).then_some(Cut {
            kind,
            rows,
            unit_rows,
            geometry,
        })
    }

    /// How many units there are.
    pub fn units(&self) -> usize {
        self.rows.div_ceil(self.unit_rows)
    }

    /// The rows of a unit.
    pub fn unit(&self, number: usize) -> Range<usize> {
        let first = number * self.unit_rows;
        first..(first + self.unit_rows).min(self.rows)
    }

    /// Bytes of a row as it is.
    pub fn row_bytes(&self) -> usize {
        2 * self.geometry.columns()
    }

    /// Bytes of all rows as they are.
    pub fn bytes(&self) -> usize {
        self.rows * self.row_bytes()
    }
}
