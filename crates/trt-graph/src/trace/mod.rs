//! From model code to graphs: record what the model does, then generalise it.
//!
//! While a trace runs, every symbolic tensor that is made is also kept by a recorder of the
//! thread, in order and by call. Two calls that take the same path through the model's code make
//! the same list, so a tensor is known by its place in it: that is how what one call leaves for
//! the next is found, and how samples are compared.

mod first;
mod fit;
mod generalise;
mod literal;
mod profile;
mod recorder;
mod sample;

pub use profile::{Call, Class, Profile, Step};
pub(crate) use recorder::{current_epoch, record};

use crate::graph::Graph;
use crate::mirror::candle_nn::VarBuilder;
use crate::{Error, verify};
use trt_kernel::Env;

/// Traces a model for one class of calls and generalises it over the class's ranges.
///
/// `load` builds a fresh model; it runs once for each sample point. The returned graph holds for
/// every call in `class`; states that the model keeps are found and declared.
pub fn trace<S: Step>(
    load: &mut dyn FnMut(VarBuilder) -> candle_core::Result<S>,
    vb: &VarBuilder,
    class: &Class,
) -> Result<Graph, Error> {
    let points = class.sample_points()?;
    let mut samples = Vec::with_capacity(points.len());
    for point in points {
        samples.push(sample::sample(load, vb, class, &point)?);
    }
    let graph = generalise::generalise(class, samples)?;
    verify(&graph, "trace")?;
    if let Some(point) = class.first_call() {
        let first = sample::sample(load, vb, class, &point)?;
        first::check(&graph, &first.graph, &Env::new(&point), class)?;
    }
    Ok(graph)
}
