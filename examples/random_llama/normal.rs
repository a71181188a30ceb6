//! Rows of normal numbers, each row with a deviation of its own.
//!
//! Values are drawn from a table of normal numbers, four for each step of the generator, so that a large checkpoint is written as
//! fast as its disk takes it. The exponents of such rows in bf16 carry 2.6 bits each, as those of trained models do.

use anyhow::Result;
use fastrand::Rng;

/// Numbers in the table: what 16 bits choose from.
const TABLE: usize = 1 << 16;
/// The deviation that models are initialised with.
const DEVIATION: f32 = 0.02;
/// How much deviations of rows differ: theirs, in powers of two.
const SPREAD: f32 = 0.3;

/// Makes rows, the same ones for the same seed.
pub struct Rows {
    random: Rng,
    table: Box<[f32]>,
}

impl Rows {
    /// Any seed will do.
    pub fn new(seed: u64) -> Rows {
        let mut random = Rng::with_seed(seed);
        Rows {
            table: (0..TABLE).map(|_| normal(&mut random)).collect(),
            random,
        }
    }

    /// Hands the values of the next row to `take`, in order.
    ///
    /// # Errors
    ///
    /// The first that `take` gives.
    pub fn next(&mut self, columns: usize, mut take: impl FnMut(f32) -> Result<()>) -> Result<()> {
        let deviation = DEVIATION * (SPREAD * normal(&mut self.random)).exp2();
        let mut left = columns;
        while left > 0 {
            let mut bits = self.random.u64(..);
            for _ in 0..left.min(4) {
                take(self.table[bits as usize % TABLE] * deviation)?;
                bits >>= 16;
            }
            left -= left.min(4);
        }
        Ok(())
    }
}

/// A normal number, by the method of Box and Muller.
fn normal(random: &mut Rng) -> f32 {
    // Above 0, so that there is a logarithm.
    let (a, b) = (1.0 - random.f64(), random.f64());
    ((-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()) as f32
}
