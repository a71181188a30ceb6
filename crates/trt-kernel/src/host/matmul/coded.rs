//! Many rows over a weight in blocks, whose codes are multiplied.

use super::MatmulCall;
use crate::BlockType;
use crate::host::HostError;
use crate::host::blocks::{self, RowsAt};
use crate::host::coded::{CodePanel, Layout, Quantise};
use crate::host::scratch;
use crate::host::simd;
use crate::host::tile::{BLOCK, PANEL};
use std::ops::Range;

/// Rows of f32 that are multiplied at once where codes are not.
const EXACT_ROWS: usize = 48;

impl MatmulCall<'_> {
    /// Reads rows of `a` as numbers of 16 bits.
    pub(super) fn activation_words(
        &self,
        batch: usize,
        from: usize,
        out: &mut [f32],
        layout: Layout,
    ) -> Result<(), HostError> {
        scratch::with(self.k, |x| {
            for (i, row) in out.chunks_exact_mut(layout.pitch()).enumerate() {
                self.activations(batch, from + i, x, self.k)?;
                let x = &*x;
                simd::run(Quantise { layout, x, row });
            }
            Ok(())
        })
    }

    /// Sums of a panel in `c`, rows of 64, by codes; in f32 where codes cannot give them.
    pub(super) fn code_panel(
        &self,
        batch: usize,
        rows: Range<usize>,
        cols: Range<usize>,
        (a, block, layout): (&[f32], BlockType, Layout),
        c: &mut [f32],
    ) -> Result<(), HostError> {
        let all = scratch::with(blocks::elements(BLOCK.min(self.k)), |packed| {
            for at in (0..self.k).step_by(BLOCK) {
                let len = BLOCK.min(self.k - at);
                let (offset, stride, _) = self.b_axes(batch, cols.start);
                let place = RowsAt {
                    arg: self.kernel.b.arg,
                    block,
                    offset: offset + at as i64,
                    stride,
                };
                let args = &self.call.args;
                let Some(b) = blocks::pack(args, place, (cols.len(), len), packed)? else {
                    return Ok(false);
                };
                let panel = CodePanel {
                    a,
                    layout,
                    m: rows.len(),
                    at,
                    len,
                    b,
                    c: &mut *c,
                    add: at > 0,
                    at_once: false,
                };
                panel.run();
            }
            Ok(true)
        })?;
        let refused = |i: usize| !all || layout.is_refused(&a[i * layout.pitch()..]);
        let mut i = 0;
        while i < rows.len() {
            let same = |n: &usize| refused(*n) == refused(i);
            let count = (i..rows.len().min(i + EXACT_ROWS)).take_while(same).count();
            if refused(i) {
                let c = &mut c[i * PANEL..(i + count) * PANEL];
                self.exact(batch, rows.start + i, cols.clone(), c)?;
            }
            i += count;
        }
        Ok(())
    }

    /// The same of rows from `from` on, each weight unpacked.
    fn exact(
        &self,
        batch: usize,
        from: usize,
        cols: Range<usize>,
        c: &mut [f32],
    ) -> Result<(), HostError> {
        scratch::with(c.len() / PANEL * self.k, |a| {
            self.activations(batch, from, a, self.k)?;
            self.panel(batch, cols, (&*a, self.k, false), c)
        })
    }
}
