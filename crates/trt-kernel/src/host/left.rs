//! Products that compute their left operand: a row kernel into memory of the thread, then the
//! product from there.
//!
//! Both run as they would by themselves, so fusing changes no bit. A product that is launched
//! range by range computes the operand for each: a few rows cost little beside the panels of a
//! weight.

use super::HostError;
use super::matmul;
use super::program::Program;
use super::row;
use super::scratch;
use super::span::{Args, Raw};
use super::team::Team;
use crate::{BodyError, Env, Matmul, Row};
use std::ops::Range;

/// The two kernels that such a product is.
#[derive(Debug)]
pub(super) struct SplitProduct {
    row: Row,
    body: Program,
    product: Matmul,
}

impl SplitProduct {
    /// None for a product whose left operand is in memory.
    pub fn new(kernel: &Matmul) -> Result<Option<SplitProduct>, BodyError> {
        let Some((row, product)) = kernel.split() else {
            return Ok(None);
        };
        let body = Program::new(&row.body, &row.args)?;
        Ok(Some(SplitProduct { row, body, product }))
    }

    /// Runs the product; `epilogue` is prepared for its arguments.
    pub fn run(
        &self,
        epilogue: &Program,
        env: &Env,
        rows: Option<Range<usize>>,
        args: Args,
        team: &Team,
    ) -> Result<(), HostError> {
        let sizes = self.row.space.iter().map(|d| d.size(env));
        let elements = sizes.fold(1, usize::saturating_mul);
        let bytes = elements.saturating_mul(self.product.left_dtype().size());
        scratch::with(bytes.div_ceil(size_of::<f32>()), |left| {
            let mut spans = args.spans.to_vec();
            spans.push(Raw::from_mut(left));
            let args = Args {
                spans: &spans,
                encodings: &self.product.args,
            };
            row::run(&self.row, &self.body, env, args, team)?;
            matmul::run(&self.product, epilogue, env, rows, args, team)
        })
    }
}
