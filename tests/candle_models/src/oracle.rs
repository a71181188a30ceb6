//! What candle gives: each call of a way by candle's own model, image by image.
//!
//! Where a batch is a leading size of inputs, each of its entries is a call of its own and results are put together.
//! candle 0.11.1 on the CPU multiplies a transposed batch of two or more wrongly where the right side has no batch, so
//! what it gives for a whole batch is no measure.

use crate::spec::{BATCH, Called, Way};
use crate::theirs::cases::{Args, BlocksBuilder, Case, Loader, Model};
use crate::weights::Made;
use crate::{Fault, values};
use candle_core::{Device, Result, Tensor};

/// Layers of a model where a case lets them be chosen.
pub const LAYERS: usize = 2;

/// The results of each call in each session.
pub type Results = Vec<Vec<Vec<Tensor>>>;

/// The results of each call in each session, and the weights that the model asked for.
pub fn results(case: &Case, way: &Way) -> std::result::Result<(Results, Made), Fault> {
    let made = Made::new(case.spec.lacks);
    let sessions = way.sessions();
    let all = sessions.iter().map(|calls| session(case, calls, &made));
    let all = all.collect::<Result<_>>();
    Ok((all.map_err(|e| Fault::Oracle(crate::hold::line(&e)))?, made))
}

fn session(case: &Case, calls: &[Called], made: &Made) -> Result<Vec<Vec<Tensor>>> {
    let batch = calls
        .first()
        .and_then(|c| c.sizes.iter().find(|(n, _)| *n == BATCH));
    let (batch, split) = match batch {
        Some((_, n)) => (
            *n,
            case.spec
                .inputs
                .iter()
                .any(|i| i.shape.first().is_some_and(|s| s.is_batch())),
        ),
        None => (1, false),
    };
    if !split {
        return entry(case, calls, made, |t, _| Ok(t));
    }
    // Whether it runs at all for a batch is the model's business.
    entry(case, calls, made, |t, _| Ok(t))?;
    let cut = |entry: usize| {
        move |t: Tensor, of_batch: bool| match of_batch {
            true => t.narrow(0, entry, 1),
            false => Ok(t),
        }
    };
    let entries = (0..batch).map(|i| entry(case, calls, made, cut(i)));
    let entries = entries.collect::<Result<Vec<_>>>()?;
    let joined = |call: usize, output: usize| {
        let parts: Vec<&Tensor> = entries.iter().map(|e| &e[call][output]).collect();
        Tensor::cat(&parts, 0)
    };
    let call = |call: usize| {
        (0..entries[0][call].len())
            .map(|o| joined(call, o))
            .collect()
    };
    (0..calls.len()).map(call).collect()
}

/// A model of candle with the weights that are made for it.
fn load(case: &Case, made: &Made) -> Result<Model> {
    match &case.load {
        Loader::Plain(load) => load(made.builder(), LAYERS),
        Loader::Blocks(like, load) => {
            // What the other model asks for is what the file holds.
            let cases = crate::theirs::cases::all();
            let like = cases.iter().find(|c| c.file == *like).map(|c| &c.load);
            let Some(Loader::Plain(asks)) = like else {
                candle_core::bail!("a model of a GGUF file is like one that has no case")
            };
            drop(asks(made.builder(), LAYERS)?);
            let file = made.file();
            load(
                BlocksBuilder::from_gguf_buffer(&file.values, &Device::Cpu)?,
                LAYERS,
            )
        }
    }
}

/// The calls of one entry of a batch, by a model of its own.
fn entry(
    case: &Case,
    calls: &[Called],
    made: &Made,
    cut: impl Fn(Tensor, bool) -> Result<Tensor>,
) -> Result<Vec<Vec<Tensor>>> {
    let mut model = load(case, made)?;
    let step = |call: &Called| {
        let given = |i: &crate::spec::Input| {
            let of_batch = i.shape.first().is_some_and(|s| s.is_batch());
            cut(values::input(i, call)?, of_batch)
        };
        let inputs = case
            .spec
            .inputs
            .iter()
            .map(given)
            .collect::<Result<Vec<_>>>()?;
        model(&Args {
            inputs,
            past: call.past,
        })
    };
    calls.iter().map(step).collect()
}
