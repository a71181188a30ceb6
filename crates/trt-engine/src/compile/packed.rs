//! Which weights are read packed, and the programs that read them so.
//!
//! A form is chosen when an engine is made: what is saved names the form in which weights were given. The invariant: a weight has a
//! packed form here only if every launch of every program that reads its rows can read them packed, so whoever says where
//! weights are may choose either form for it without asking programs.

use super::ready::{Found, HasProgram};
use crate::error::Error;
use crate::report::PackedReport;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use trt_graph::program::{PackedForm, PackedParams, ParamId, Program};
use trt_kernel::Role;
use trt_stream::{TensorId, Weights};

/// A program that reads packed rows wherever it can.
pub(super) struct PackedProgram {
    pub program: Program,
    /// What its weights are beyond those of the plain program, two for each of these.
    pub params: Vec<PackedParams>,
    /// The tensor of each of its weights: those of the plain program, then for each of `params` whose rows
    /// it has, and what unpacks them.
    pub tensors: Vec<TensorId>,
}

/// Gives every program that can read packed rows its packed form; the tensors that are read so.
///
/// # Errors
/// If such a program breaks its invariants: a defect of this crate.
pub(super) fn packed(programs: &mut [Found], files: &Weights) -> Result<BTreeSet<TensorId>, Error> {
    let mut readable = readable(programs, files);
    // What leaves may be in a launch with what stays.
    while let Some(mixed) = programs.iter().find_map(|p| mixed(p, &readable)) {
        readable.remove(&mixed);
    }
    for found in programs {
        let forms = forms(found, &readable);
        if forms.is_empty() {
            continue;
        }
        let (program, params) = found.program().packed(&forms);
        program.verify()?;
        let mut tensors = found.tensors().to_vec();
        for added in &params {
            let of = tensors[added.of.0 as usize];
            // Only what has a packed form is among them.
            let code = files.packed(of).map_or(of, |rows| rows.code);
            tensors.extend([of, code]);
        }
        found.set_packed(PackedProgram {
            program,
            params,
            tensors,
        });
    }
    Ok(readable.into_keys().collect())
}

/// What the report says of tensors that are read packed.
pub(super) fn told(packed: &BTreeSet<TensorId>, files: &Weights) -> Option<PackedReport> {
    let rows = || packed.iter().filter_map(|id| files.packed(*id));
    let tensors = packed.iter().filter_map(|id| files.get(*id));
    (!packed.is_empty()).then(|| PackedReport {
        weights: packed.len(),
        plain_bytes: tensors.map(|info| info.bytes() as u64).sum(),
        packed_bytes: rows().map(|rows| rows.bytes() as u64).sum(),
        file: files
            .packing()
            .and_then(|p| p.path())
            .map(Path::to_path_buf),
    })
}

/// The packed forms of tensors whose rows are only read by launches that can read them packed.
fn readable(programs: &[Found], files: &Weights) -> BTreeMap<TensorId, PackedForm> {
    let mut all = BTreeMap::new();
    let mut refused = BTreeSet::new();
    for found in programs {
        let packable = found.program().packable();
        for (number, id) in by_rows(found) {
            let form = files.packed(id).and_then(|rows| {
                let code = files.get(rows.code)?;
                Some(PackedForm {
                    packed: rows.encoding,
                    code: code.name.as_str().into(),
                    code_bytes: code.bytes(),
                })
            });
            match form.filter(|_| packable.contains(&number)) {
                Some(form) => {
                    all.insert(id, form);
                }
                None => {
                    refused.insert(id);
                }
            }
        }
    }
    all.retain(|id, _| !refused.contains(id));
    all
}

/// The weights that a program reads by rows, with their tensors.
fn by_rows(found: &Found) -> impl Iterator<Item = (ParamId, TensorId)> {
    let weights = found.program().weights.iter().zip(found.tensors());
    let numbered = (0..).map(ParamId).zip(weights);
    numbered
        .filter_map(|(number, (weight, id))| weight.roles.has(Role::Rows).then_some((number, *id)))
}

fn forms(
    found: &Found,
    readable: &BTreeMap<TensorId, PackedForm>,
) -> BTreeMap<ParamId, PackedForm> {
    let each = by_rows(found);
    let each = each.filter_map(|(number, id)| Some((number, readable.get(&id)?.clone())));
    each.collect()
}

/// A tensor that is in a chain with one that is not packed in the same way.
fn mixed(found: &Found, readable: &BTreeMap<TensorId, PackedForm>) -> Option<TensorId> {
    let mixed = found.program().mixed(&forms(found, readable))?;
    found.tensors().get(mixed.0 as usize).copied()
}
