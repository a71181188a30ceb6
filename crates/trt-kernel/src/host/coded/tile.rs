//! The micro-kernel: rows of activations in numbers of 16 bits against a panel of 64 columns of codes.

use super::rows::Layout;
use crate::host::simd::{self, Job, Simd};
use crate::host::tile::PANEL;

/// Rows that meet a panel together: their sums of integers and of f32 fill the registers.
const ROWS: usize = 3;

/// A stretch of the contracted axis of 64 columns: codes in pairs, `[len / 2, 64]`, the scale of each sub-block,
/// `[len / sub, 64]`, and what is added for each, in types that have a minimum.
#[derive(Clone, Copy)]
pub(in crate::host) struct Stretch<'a> {
    pub words: &'a [f32],
    pub scales: &'a [f32],
    pub least: Option<&'a [f32]>,
}

/// `c[i, j] (+)= Σ_k a[i, k] * b[k, j]` for `i < m` and the panel's 64 columns, over `len` contracted values.
pub(in crate::host) struct CodePanel<'a> {
    /// Rows of activations.
    pub a: &'a [f32],
    pub layout: Layout,
    pub m: usize,
    /// The first value of the stretch, and how many it has: both multiples of a sub-block.
    pub at: usize,
    pub len: usize,
    pub b: Stretch<'a>,
    /// Rows of 64 columns.
    pub c: &'a mut [f32],
    /// Whether to add to what `c` holds.
    pub add: bool,
    /// Whether the CPU adds products at once ([`simd::has_words`]).
    pub at_once: bool,
}

impl CodePanel<'_> {
    /// Computes it with the best instructions.
    pub fn run(mut self) {
        self.at_once = simd::has_words();
        match self.at_once {
            true => simd::run_words(self),
            false => simd::run(self),
        }
    }

    #[inline(always)]
    fn rows<S: Simd, const M: usize>(&mut self, i: usize) {
        match (self.layout.sub, self.b.least.is_some()) {
            (16, true) => self.across::<S, M, 8, true>(i),
            (16, false) => self.across::<S, M, 8, false>(i),
            (_, true) => self.across::<S, M, 16, true>(i),
            (_, false) => self.across::<S, M, 16, false>(i),
        }
    }

    #[inline(always)]
    fn across<S: Simd, const M: usize, const P: usize, const L: bool>(&mut self, i: usize) {
        let width = S::TILE_VECTORS * S::LANES;
        for j in (0..PANEL).step_by(width) {
            match (S::TILE_VECTORS, self.at_once) {
                (4, true) => self.tile::<S, M, 4, P, L, true>(i, j),
                (4, false) => self.tile::<S, M, 4, P, L, false>(i, j),
                (2, _) => self.tile::<S, M, 2, P, L, false>(i, j),
                _ => self.tile::<S, M, 1, P, L, false>(i, j),
            }
        }
    }

    /// `P` pairs are a sub-block; `L` says whether there is something to add, `O` whether the CPU sums at once.
    // Rows and vectors are indices into registers.
    #[allow(clippy::needless_range_loop)]
    #[inline(always)]
    fn tile<
        S: Simd,
        const M: usize,
        const V: usize,
        const P: usize,
        const L: bool,
        const O: bool,
    >(
        &mut self,
        i: usize,
        j: usize,
    ) {
        let (layout, pitch) = (self.layout, self.layout.pitch());
        // SAFETY: `run` checked that `a` has `m` rows, that stretch and row have `len` values from `at` on, and that `c` has
        // `m` rows of 64; `i + M <= m` and `j + V * LANES <= 64`.
        unsafe {
            let row: [*const f32; M] =
                std::array::from_fn(|n| self.a.as_ptr().add((i + n) * pitch));
            let mut a: [*const i16; M] =
                std::array::from_fn(|n| row[n].add(layout.words(self.at)).cast());
            let sub = self.at / layout.sub;
            let unit: [*const f32; M] = std::array::from_fn(|n| row[n].add(layout.scales() + sub));
            let total: [*const f32; M] = std::array::from_fn(|n| row[n].add(layout.sums() + sub));
            let mut b: *const i16 = self.b.words.as_ptr().add(j).cast();
            let scales = self.b.scales.as_ptr().add(j);
            let least = self.b.least.map_or(scales, |least| least.as_ptr().add(j));
            let c = self.c.as_mut_ptr().add(i * PANEL + j);
            let mut sums = [[S::zero(); V]; M];
            if self.add {
                for n in 0..M {
                    for v in 0..V {
                        sums[n][v] = S::load(c.add(n * PANEL + v * S::LANES));
                    }
                }
            }
            for s in 0..self.len / layout.sub {
                let mut exact = [[S::nothing(); V]; M];
                for p in 0..P {
                    let b: [S::I; V] =
                        std::array::from_fn(|v| S::pairs(b.add(2 * (p * PANEL + v * S::LANES))));
                    for n in 0..M {
                        let x = S::pair(a[n].add(2 * p));
                        for v in 0..V {
                            exact[n][v] = match O {
                                true => S::dot_at_once(exact[n][v], x, b[v]),
                                false => S::dot(exact[n][v], x, b[v]),
                            };
                        }
                    }
                }
                b = b.add(2 * P * PANEL);
                for n in 0..M {
                    a[n] = a[n].add(2 * P);
                }
                for v in 0..V {
                    let scale = S::load(scales.add(s * PANEL + v * S::LANES));
                    for n in 0..M {
                        let x = S::scaled(exact[n][v], S::splat(*unit[n].add(s)));
                        sums[n][v] = S::fma(x, scale, sums[n][v]);
                    }
                }
                for v in 0..if L { V } else { 0 } {
                    let least = S::load(least.add(s * PANEL + v * S::LANES));
                    for n in 0..M {
                        sums[n][v] = S::fma(S::splat(*total[n].add(s)), least, sums[n][v]);
                    }
                }
            }
            for n in 0..M {
                for v in 0..V {
                    S::store(sums[n][v], c.add(n * PANEL + v * S::LANES));
                }
            }
        }
    }
}

impl Job for CodePanel<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(mut self) {
        let (m, layout) = (self.m, self.layout);
        if m == 0 {
            return;
        }
        let subs = self.len / layout.sub;
        assert!(self.at + self.len <= layout.k, "values of a row");
        assert!(self.a.len() >= m * layout.pitch(), "rows of a");
        assert!(self.b.words.len() >= self.len / 2 * PANEL, "pairs of b");
        assert!(self.b.scales.len() >= subs * PANEL, "scales of b");
        let least = self.b.least.is_none_or(|least| least.len() >= subs * PANEL);
        assert!(least, "minima of b");
        assert!(self.c.len() >= m * PANEL, "rows of c");
        let mut i = 0;
        while i + ROWS <= m {
            self.rows::<S, ROWS>(i);
            i += ROWS;
        }
        match m - i {
            2 => self.rows::<S, 2>(i),
            1 => self.rows::<S, 1>(i),
            _ => {}
        }
    }
}
