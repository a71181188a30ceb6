//! How the panels of a many-row matmul are shared out among threads.

use std::ops::Range;

/// How panels are shared out: whole ones while every thread gets one, the rest cut by rows.
pub(super) struct Pieces {
    whole: usize,
    rest: usize,
    cuts: usize,
    rows: usize,
}

impl Pieces {
    /// Pieces of `panels` panels of `rows` rows each.
    pub fn new(panels: usize, threads: usize, rows: usize) -> Pieces {
        let rest = panels % threads;
        Pieces {
            whole: panels - rest,
            rest,
            cuts: threads.min(rows.div_ceil(24)).max(1),
            rows,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.whole + self.rest * self.cuts
    }

    /// The panel and the rows of a piece.
    pub fn get(&self, piece: usize) -> (usize, Range<usize>) {
        if piece < self.whole {
            return (piece, 0..self.rows);
        }
        let (panel, cut) = (
            self.whole + (piece - self.whole) / self.cuts,
            (piece - self.whole) % self.cuts,
        );
        let at = |c: usize| {
            (self.rows * c / self.cuts)
                .next_multiple_of(6)
                .min(self.rows)
        };
        (
            panel,
            if cut + 1 == self.cuts {
                at(cut)..self.rows
            } else {
                at(cut)..at(cut + 1)
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_every_row_of_every_panel_once() {
        for panels in 0..9 {
            for threads in 1..5 {
                for rows in [1, 9, 64, 512] {
                    let pieces = Pieces::new(panels, threads, rows);
                    let mut seen = vec![vec![0; rows]; panels];
                    for p in 0..pieces.len() {
                        let (panel, range) = pieces.get(p);
                        seen[panel][range].iter_mut().for_each(|n| *n += 1);
                    }
                    assert!(
                        seen.iter().flatten().all(|n| *n == 1),
                        "{panels} {threads} {rows}"
                    );
                }
            }
        }
    }
}
