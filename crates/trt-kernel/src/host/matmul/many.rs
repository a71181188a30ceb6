//! Many rows: panels of the weight are packed once and meet blocks of converted activations.
//!
//! What the two sides become there is a [`Form`], which depends on the kernel alone. A weight in blocks gives its codes, and
//! activations become numbers of 16 bits ([`crate::host::coded`]). With activations of bfloat16 and a CPU that multiplies
//! its pairs, it is unpacked into those: each weight is rounded to bfloat16, to nearest even.

use super::MatmulCall;
use crate::host::HostError;
use crate::host::blocks;
use crate::host::coded::Layout;
use crate::host::pieces::Pieces;
use crate::host::row::cut;
use crate::host::scratch;
use crate::host::simd;
use crate::host::team::Team;
use crate::host::tile::{self, BLOCK, PANEL, Panel};
use crate::{BlockType, DType, Encoding};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Rows of `a` that are converted at once.
const ROWS: usize = 512;

/// What activations and weights are where they meet.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// f32.
    Values,
    /// Pairs of bfloat16, which the CPU multiplies as such.
    Pairs,
    /// Numbers of 16 bits and codes of blocks.
    Codes(BlockType, Layout),
}

impl Form {
    /// Elements of a converted row of `k` activations.
    fn pitch(self, k: usize) -> usize {
        match self {
            Form::Values => k,
            Form::Pairs => k / 2,
            Form::Codes(_, layout) => layout.pitch(),
        }
    }
}

impl MatmulCall<'_> {
    fn form(&self) -> Form {
        let neighbours = self.b.strides[2] == 1;
        let left = self.call.args.encoding(self.left);
        let bf16 = simd::has_pairs()
            && left == Encoding::Plain(DType::BF16)
            && self.a.strides[2] == 1
            && neighbours
            && self.k.is_multiple_of(2);
        match self.call.args.encoding(self.kernel.b.arg) {
            Encoding::Plain(DType::BF16) | Encoding::Blocks(_) if bf16 => Form::Pairs,
            Encoding::Blocks(block) if neighbours && self.begins_with_blocks(block) => {
                let (k, sub) = (self.k, blocks::sub_block(block));
                Form::Codes(block, Layout { k, sub })
            }
            Encoding::Plain(_) | Encoding::Blocks(_) | Encoding::Packed(_) | Encoding::Code => {
                Form::Values
            }
        }
    }

    /// Whether every row of the weight is whole blocks.
    fn begins_with_blocks(&self, block: BlockType) -> bool {
        let values = block.values() as i64;
        let whole = |places: i64| places % values == 0;
        self.k > 0
            && whole(self.k as i64)
            && whole(self.b.offset)
            && whole(self.b.strides[0])
            && whole(self.b.strides[1])
    }

    pub(super) fn many(&self, team: &Team) -> Result<(), HostError> {
        let m = self.m;
        let form = self.form();
        let pitch = form.pitch(self.k);
        let rows = ROWS.min(m);
        for batch in 0..self.batch {
            for from in (0..m).step_by(rows) {
                let count = rows.min(m - from);
                scratch::with(count * pitch, |a| {
                    self.convert(batch, from, a, form, team)?;
                    let panels = self.n.len().div_ceil(PANEL);
                    let pieces = Pieces::new(panels, team.threads(), count);
                    let a = &*a;
                    team.try_run(pieces.len(), |p| {
                        let (panel, rows) = pieces.get(p);
                        let a = &a[rows.start * pitch..rows.end * pitch];
                        let rows = from + rows.start..from + rows.end;
                        self.many_part(batch, rows, panel, (a, form))
                    })
                })?;
            }
        }
        Ok(())
    }

    /// Reads rows of activations from `from` on, as many as `a` has room for, on all threads.
    fn convert(
        &self,
        batch: usize,
        from: usize,
        a: &mut [f32],
        form: Form,
        team: &Team,
    ) -> Result<(), HostError> {
        const GROUP: usize = 32;
        let pitch = form.pitch(self.k);
        if pitch == 0 {
            return Ok(());
        }
        let groups: Vec<Mutex<&mut [f32]>> = a.chunks_mut(GROUP * pitch).map(Mutex::new).collect();
        let cost = groups.len() * GROUP * pitch / 16;
        cut(team, groups.len(), cost, |range| {
            for g in range {
                let mut rows = groups[g].lock().unwrap_or_else(PoisonError::into_inner);
                let first = from + g * GROUP;
                match form {
                    Form::Values => self.activations(batch, first, &mut rows, pitch)?,
                    Form::Pairs => self.activation_pairs(batch, first, &mut rows, pitch)?,
                    Form::Codes(_, layout) => {
                        self.activation_words(batch, first, &mut rows, layout)?
                    }
                }
            }
            Ok(())
        })
    }

    /// Rows of one panel against their converted activations, then the epilogue.
    fn many_part(
        &self,
        batch: usize,
        rows: Range<usize>,
        panel: usize,
        (a, form): (&[f32], Form),
    ) -> Result<(), HostError> {
        let first = self.n.start + panel * PANEL;
        let cols = first..(first + PANEL).min(self.n.end);
        scratch::with(PANEL * rows.len(), |c| {
            match form {
                Form::Values => self.panel(batch, cols.clone(), (a, self.k, false), c)?,
                Form::Pairs => self.panel(batch, cols.clone(), (a, self.k / 2, true), c)?,
                Form::Codes(block, layout) => {
                    self.code_panel(batch, rows.clone(), cols.clone(), (a, block, layout), c)?
                }
            }
            self.epilogue(batch, rows, cols, c, PANEL)
        })
    }

    /// Sums of a panel in `c`, rows of 64, with converted activations of `k` elements, which are f32 or pairs.
    pub(super) fn panel(
        &self,
        batch: usize,
        cols: Range<usize>,
        (a, k, pairs): (&[f32], usize, bool),
        c: &mut [f32],
    ) -> Result<(), HostError> {
        let (offset, column, along) = self.b_axes(batch, cols.start);
        if k == 0 {
            c.fill(0.0);
        }
        scratch::with(PANEL * BLOCK.min(k), |packed| {
            for at in (0..k).step_by(BLOCK) {
                let len = BLOCK.min(k - at);
                let (args, arg) = (&self.call.args, self.kernel.b.arg);
                let unit = if pairs { 2 } else { 1 };
                let axes = (offset + unit * at as i64 * along, column, along);
                match pairs {
                    true => tile::pack_pairs(args, arg, axes, cols.len(), len, packed)?,
                    false => tile::pack(args, arg, axes, cols.len(), len, packed)?,
                }
                let panel = Panel {
                    a: &a[at..],
                    lda: k,
                    m: c.len() / PANEL,
                    k: len,
                    b: packed,
                    c: &mut *c,
                    ldc: PANEL,
                    add: at > 0,
                    pairs,
                };
                panel.run();
            }
            Ok(())
        })
    }

    /// Reads rows of `a` as pairs of bfloat16.
    fn activation_pairs(
        &self,
        batch: usize,
        from: usize,
        out: &mut [f32],
        pitch: usize,
    ) -> Result<(), HostError> {
        for (i, row) in out.chunks_exact_mut(pitch).enumerate() {
            let [batch, m] = self.place(batch, from + i);
            let index = [batch, m, 0, 0, 0, 0, 0, 0];
            let run = self.a.run(&index, 2, self.k);
            self.call.args.load_bits(self.left, run, row)?;
        }
        Ok(())
    }
}
