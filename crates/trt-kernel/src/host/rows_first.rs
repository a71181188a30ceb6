//! Attentions that rows come before: the rows, with the queries in memory of the thread, then the
//! attention. All run as they would by themselves, so fusing changes no bit.

use super::HostError;
use super::attention;
use super::program::Program;
use super::row;
use super::scratch;
use super::span::{Args, Raw};
use super::team::Team;
use crate::{Attention, BodyError, Encoding, Env, Row};

/// The kernels that such an attention is.
#[derive(Debug)]
pub(super) struct RowsFirst {
    rows: Vec<(Row, Program)>,
    attention: Attention,
    /// Floats that have room for the queries.
    floats: usize,
}

impl RowsFirst {
    /// None for an attention that no rows come before.
    pub fn new(kernel: &Attention) -> Result<Option<RowsFirst>, BodyError> {
        let Some((rows, attention)) = kernel.split() else {
            return Ok(None);
        };
        let ready = |row: &Row| Ok((row.clone(), Program::new(&row.body, &row.args)?));
        let size = attention.args.last().map_or(0, |d| d.size());
        // The kernel was checked, so this is known.
        let elements = kernel.own_elements().unwrap_or(0);
        Ok(Some(RowsFirst {
            rows: rows.iter().map(ready).collect::<Result<_, _>>()?,
            attention,
            floats: elements.saturating_mul(size).div_ceil(size_of::<f32>()),
        }))
    }

    /// Runs all; `score` is prepared for the arguments of the attention.
    pub fn run(
        &self,
        score: &Program,
        env: &Env,
        args: Args,
        team: &Team,
    ) -> Result<(), HostError> {
        scratch::with(self.floats, |queries| {
            let mut spans = args.spans.to_vec();
            spans.push(Raw::from_mut(queries));
            let encodings = Encoding::plain(self.attention.args.iter().copied());
            let args = Args {
                spans: &spans,
                encodings: &encodings,
            };
            for (row, body) in &self.rows {
                row::run(row, body, env, args, team)?;
            }
            attention::run(&self.attention, score, env, args, team)
        })
    }
}
