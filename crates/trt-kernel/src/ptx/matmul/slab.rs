//! Rows of a weight that are written out to working memory together, for a product that reads them there as a plain weight's.
//!
//! Working memory is bounded: where a weight is larger, slabs of its rows are written out and multiplied one after another in the same
//! place. All of them have the same texts but for the number of the slab, which is in that of the launch that writes it out; it
//! leaves the first row of the slab for the products to find.

use crate::launch::Extent;
use crate::ptx::asm::{Asm, Class, R};
use crate::ptx::emitted::Mapped;
use crate::ptx::scope::Scope;
use crate::{Matmul, ROW_PANEL};

/// Bytes before the rows: the first of them, as a number.
pub(super) const HEAD: usize = 256;
/// Rows that blocks of products are whole in.
const ROWS: usize = 256;

/// Rows of a weight that are in working memory together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slab {
    /// How many, but for the last ones of a launch.
    pub rows: usize,
    /// How many slabs hold the whole weight.
    pub count: usize,
}

impl Slab {
    pub fn of(n: usize, k: usize, room: usize) -> Slab {
        const { assert!(ROWS.is_multiple_of(ROW_PANEL)) };
        let most = (room / (2 * k) / ROWS * ROWS).max(ROWS);
        let count = n.div_ceil(most);
        let rows = n.div_ceil(count).next_multiple_of(ROWS);
        let count = n.div_ceil(rows);
        Slab { rows, count }
    }

    /// Bytes of working memory; a multiple of 16.
    pub fn size(&self, kernel: &Matmul) -> usize {
        let row = 2 * kernel.k.constant_size().unwrap_or(0);
        HEAD + self.rows * row
    }

    /// A grid axis over the rows of a weight, for the `i`-th slab of them.
    pub fn extent(&self, i: usize, whole: &Extent) -> Extent {
        match whole {
            Extent::Rows { weight, per } => Extent::Slab {
                weight: *weight,
                from: (i * self.rows) as u32,
                rows: self.rows as u32,
                per: *per,
            },
            other => other.clone(),
        }
    }

    /// What a tensor map shows of it.
    pub fn mapped(&self) -> Mapped {
        Mapped::Scratch {
            offset: HEAD,
            rows: self.rows,
        }
    }

    /// The address of the first row, and which of the weight it is, in a launch whose range begins with `first`.
    pub fn find(&self, asm: &mut Asm, scope: &Scope, first: R) -> (R, R) {
        let base = asm.op("add.s64", Class::B64, &[&scope.scratch, &HEAD]);
        let first = match self.count {
            1 => first,
            _ => {
                let at = format!("[{}]", scope.scratch);
                asm.op("ld.global.b32", Class::B32, &[&at])
            }
        };
        (base, first)
    }

    /// Where there are several slabs, leaves the number of the first row of one for the products that read it. `threads`
    /// are the number of the block and that of the thread.
    pub fn say(&self, asm: &mut Asm, scope: &Scope, [block, thread]: [R; 2], first: R) {
        if self.count > 1 {
            scope.wait(asm);
            let number = asm.op("or.b32", Class::B32, &[&block, &thread]);
            let says = asm.op("setp.eq.u32", Class::Pred, &[&number, &0]);
            asm.put(format_args!(
                "@{says} st.global.b32 [{}], {first}",
                scope.scratch
            ));
        }
    }
}
