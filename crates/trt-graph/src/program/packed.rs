//! Launches that read packed rows.
//!
//! A weight may have a packed form beside the one in which it was given, and kernels that read either give the same bits. So which
//! of them is read is no matter of a model's graph: a program is lowered for what the files have, and [`Program::packed`] gives
//! the same launches for rows that are packed. Both number their launches, buffers and weights alike, so who runs them may choose at each launch.

use super::{Launch, ParamId, Program, Source, Weight};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use trt_kernel::{Arg, Encoding, Kernel, Order, PackedType, Role, Roles, fusible};

/// What of a weight's packed form a program names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedForm {
    /// How rows are packed.
    pub packed: PackedType,
    /// The name of what unpacks them, which is pinned.
    pub code: Arc<str>,
    /// Its bytes.
    pub code_bytes: usize,
}

/// The weights that a packed program has beside those of the plain one, for one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedParams {
    /// The weight whose rows they are.
    pub of: ParamId,
    /// Its packed rows.
    pub rows: ParamId,
    /// What unpacks them.
    pub code: ParamId,
}

impl Program {
    /// The weights that launches read by rows, each of them by kernels that can read packed rows as well.
    pub fn packable(&self) -> BTreeSet<ParamId> {
        let mut by_rows = BTreeSet::new();
        let mut refused = BTreeSet::new();
        for launch in &self.launches {
            for (first, part) in launch.kernel.numbered_parts() {
                let reads = match part {
                    Kernel::Matmul(k) if fusible::reads_packed(k) => Some(k.b.arg),
                    _ => None,
                };
                for arg in part.streamed() {
                    let Some(Source::Weight(w)) = launch.args.get((first + arg.0) as usize) else {
                        continue;
                    };
                    by_rows.insert(*w);
                    if reads != Some(arg) {
                        refused.insert(*w);
                    }
                }
            }
        }
        by_rows.difference(&refused).copied().collect()
    }

    /// The same program with these weights, which are [`packable`](Self::packable), read packed wherever they are read by rows; and what was added to its
    /// weights.
    pub fn packed(&self, forms: &BTreeMap<ParamId, PackedForm>) -> (Program, Vec<PackedParams>) {
        let mut program = self.clone();
        let mut added = Vec::with_capacity(forms.len());
        for (of, form) in forms {
            let Some(plain) = self.weights.get(of.0 as usize) else {
                continue;
            };
            let next = program.weights.len() as u32;
            added.push(PackedParams {
                of: *of,
                rows: ParamId(next),
                code: ParamId(next + 1),
            });
            program.weights.push(Weight {
                encoding: Encoding::Packed(form.packed),
                ..plain.clone()
            });
            program.weights.push(Weight {
                name: form.code.clone(),
                encoding: Encoding::Code,
                shape: vec![form.code_bytes],
                roles: Roles::default(),
            });
        }
        let of: BTreeMap<ParamId, PackedParams> = added.iter().map(|p| (p.of, *p)).collect();
        program.launches = self
            .launches
            .iter()
            .map(|l| launch(l, forms, &of))
            .collect();
        program.count_roles();
        (program, added)
    }

    /// A weight with one of these forms that is in a chain with one that has another, or none: parts of a chain go
    /// through their weights in the same steps.
    pub fn mixed(&self, forms: &BTreeMap<ParamId, PackedForm>) -> Option<ParamId> {
        let chains = self.launches.iter().filter(|l| match &l.kernel {
            Kernel::Group(group) => group.order == Order::Chain,
            _ => false,
        });
        chains
            .flat_map(|l| mixed(&l.ranged_weights(), forms))
            .next()
    }

    /// Says of each weight what the launches read it as.
    fn count_roles(&mut self) {
        for weight in &mut self.weights {
            weight.roles = Roles::default();
        }
        for launch in &self.launches {
            for (i, source) in launch.args.iter().enumerate() {
                let Source::Weight(w) = source else { continue };
                let role: Role = launch.kernel.role(Arg(i as u16));
                if let Some(weight) = self.weights.get_mut(w.0 as usize) {
                    weight.roles.add(role);
                }
            }
        }
    }
}

fn mixed(weights: &[ParamId], forms: &BTreeMap<ParamId, PackedForm>) -> Option<ParamId> {
    let packed = |w: &ParamId| forms.get(w).map(|f| f.packed);
    let first = weights.first().map(packed)?;
    match weights.iter().all(|w| packed(w) == first) {
        true => None,
        false => weights.iter().copied().find(|w| forms.contains_key(w)),
    }
}

/// A launch with its packed weights read packed.
fn launch(
    plain: &Launch,
    forms: &BTreeMap<ParamId, PackedForm>,
    added: &BTreeMap<ParamId, PackedParams>,
) -> Launch {
    let mut args = Vec::with_capacity(plain.args.len());
    let mut parts = Vec::new();
    for (first, part) in plain.kernel.numbered_parts() {
        let first = first as usize;
        let mut own = plain.args[first..first + part.args().len()].to_vec();
        let mut part = part.clone();
        if let Kernel::Matmul(k) = &mut part
            && k.ranged
        {
            let b = k.b.arg.0 as usize;
            let weight = match own.get(b) {
                Some(Source::Weight(w)) => Some(*w),
                _ => None,
            };
            let params = weight.and_then(|w| Some((forms.get(&w)?, added.get(&w)?)));
            if let Some((form, params)) = params {
                k.args[b] = Encoding::Packed(form.packed);
                k.args.push(Encoding::Code);
                own[b] = Source::Weight(params.rows);
                own.push(Source::Weight(params.code));
            }
        }
        args.extend(own);
        parts.push(part);
    }
    let kernel = match &plain.kernel {
        Kernel::Group(group) => Kernel::Group(trt_kernel::Group {
            parts,
            order: group.order,
        }),
        // One part, which is the kernel.
        other => parts.pop().unwrap_or_else(|| other.clone()),
    };
    Launch {
        kernel,
        args,
        ..plain.clone()
    }
}
