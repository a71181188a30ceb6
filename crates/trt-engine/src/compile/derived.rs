//! Weights that model code derives of others: made once, when an engine is made, and weights like any others from then on.
//!
//! Each recipe is a program of its own without inputs, which the host runs: so a derived weight has the bits that its
//! kernels gave in each call. The invariant: a program that reads a derived weight finds it under the name
//! of its recipe, whether it was just made or is in the store from before.

use super::ready::Lowered;
use crate::error::{Error, SavedError};
use crate::report::DerivedReport;
use crate::run::arena::ArenaShape;
use crate::run::program::Recipe;
use std::collections::BTreeMap;
use std::sync::Arc;
use trt_graph::passes::Derived;
use trt_graph::{Class, Profile};
use trt_kernel::{DType, Dim};
use trt_stream::{Derivation, Store, Weights};

/// What runs a recipe.
pub(super) type Run<'a> = dyn Fn(&Recipe) -> Result<Vec<u8>, Error> + Sync + 'a;

/// The recipes of all classes, each once.
#[derive(Default)]
pub(super) struct Recipes {
    known: BTreeMap<Arc<str>, Derived>,
    in_order: Vec<Recipe>,
}

impl Recipes {
    /// Adds those of a class.
    ///
    /// # Errors
    /// [`Error::Graph`] for one that cannot be lowered.
    pub fn add(&mut self, derived: Vec<Derived>) -> Result<(), Error> {
        for one in derived {
            if let Some(first) = self.known.get(one.name()) {
                if *first != one {
                    let name = one.name();
                    return Err(Error::lower(format!(
                        "two derived weights are called {name}"
                    )));
                }
                continue;
            }
            let (program, _) = trt_graph::lower(one.graph())?;
            self.in_order.push(Recipe {
                name: one.name().clone(),
                program,
            });
            self.known.insert(one.name().clone(), one);
        }
        Ok(())
    }

    pub fn finish(self) -> Vec<Recipe> {
        self.in_order
    }
}

/// Whether a recipe that was read can be one.
///
/// # Errors
/// [`SavedError::Damaged`] if its program breaks its invariants, or gives no weight.
pub(super) fn check(recipe: &Recipe) -> Result<(), SavedError> {
    let damaged = |what: String| SavedError::Damaged { what };
    let Recipe { name, program } = recipe;
    program.verify().map_err(|e| damaged(e.to_string()))?;
    let alone = program.ints.is_empty()
        && program.floors.is_empty()
        && program.inputs.is_empty()
        && program.states.is_empty();
    match derivation(recipe).filter(|d| alone && d.dtype.is_float()) {
        Some(_) => Ok(()),
        None => Err(damaged(format!("weight {name} is not derived of weights"))),
    }
}

/// The weight that a recipe gives.
fn derivation(recipe: &Recipe) -> Option<Derivation> {
    let [(shape, dtype)] = &recipe.program.outputs[..] else {
        return None;
    };
    let shape: Option<Vec<usize>> = shape.iter().map(Dim::constant_size).collect();
    Some(Derivation {
        name: recipe.name.to_string(),
        dtype: *dtype,
        shape: shape?,
    })
}

/// The only call of a recipe.
pub(super) fn profile() -> Profile {
    let class = Class {
        name: "derive".into(),
        ints: Vec::new(),
        max_context: None,
    };
    Profile {
        classes: vec![class],
    }
}

/// A recipe as a program that is to be made ready.
pub(super) fn lowered(recipe: &Recipe) -> Lowered {
    Lowered {
        class: profile().classes.swap_remove(0),
        program: recipe.program.clone(),
        offsets: None,
    }
}

/// Bytes of host memory that making the largest takes: its sources, what is computed on the way, and the result where it is
/// computed, read and written.
pub(super) fn host_bytes(recipes: &[Recipe]) -> u64 {
    let of = |recipe: &Recipe| {
        let program = &recipe.program;
        let arena = ArenaShape::new(program, &[], "derive").largest_live();
        let bytes = |shape: &[usize], dtype: DType| {
            let sizes = shape.iter().map(|d| *d as u64);
            sizes.fold(dtype.size() as u64, u64::saturating_mul)
        };
        let sources = program.weights.iter();
        let sources = sources.map(|w| bytes(&w.shape, w.encoding.dtype()));
        let result = derivation(recipe).map_or(0, |d| bytes(&d.shape, d.dtype));
        let result = result.saturating_mul(2);
        sources.fold(arena.saturating_add(result), u64::saturating_add)
    };
    recipes.iter().map(of).max().unwrap_or(0)
}

/// The weights with those that recipes give, which a store keeps; `run` runs a recipe.
///
/// # Errors
/// [`Error::Store`] if one cannot be made or kept.
pub(super) fn with_derived(
    weights: &Arc<Weights>,
    recipes: &[Recipe],
    store: &Store,
    run: &Run<'_>,
) -> Result<(Arc<Weights>, Option<DerivedReport>), Error> {
    if recipes.is_empty() {
        return Ok((weights.clone(), None));
    }
    let wanted = recipes.iter().map(|recipe| {
        let name = &recipe.name;
        derivation(recipe).ok_or_else(|| Error::lower(format!("{name} has no constant shape")))
    });
    let wanted = wanted.collect::<Result<Vec<_>, _>>()?;
    let derive = |number: usize| run(&recipes[number]).map_err(|e| e.to_string().into());
    let all = weights.with_derived(&wanted, &derive, store)?;
    let report = DerivedReport {
        weights: wanted.len(),
        bytes: all.weights.total_bytes() - weights.total_bytes(),
        file: all.file,
    };
    Ok((Arc::new(all.weights), Some(report)))
}
