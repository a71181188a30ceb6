//! What an engine holds beside its arena, read off its programs: weights, constants (states have a
//! module of their own).

use super::ready::{Found, HasProgram};
use crate::error::Error;
use crate::run::program::{Compiled, streamed};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use trt_alloc::{Lease, Pool, Purpose};
use trt_device::{Stream, Work};
use trt_graph::program::{BufferKind, Launch};
use trt_kernel::{Role, Roles};
use trt_stream::{Form, PackedRows, TensorId, Turning, Units, Use, Weight, WeightId, Weights};

/// The weights of all programs, as a streamer is told of them: one for each tensor that any of them
/// uses, in the order of the files, with the roles of all its uses. Those that programs can read packed have a second form.
pub(crate) struct Contract {
    pub weights: Vec<Weight>,
    /// For each program, the weight that each of its parameters is.
    pub numbers: Vec<Vec<WeightId>>,
    /// For each program, what it reads by rows, in launch order.
    pub uses: Vec<Vec<Use>>,
    /// Which weights share a launch.
    pub turning: Turning,
}

impl Contract {
    pub fn of(programs: &[Found], packed: &BTreeSet<TensorId>, files: &Weights) -> Contract {
        let mut roles: BTreeMap<TensorId, Roles> = BTreeMap::new();
        for found in programs {
            for (parameter, id) in found.program().weights.iter().zip(found.tensors()) {
                let known = roles.entry(*id).or_default();
                *known = known.and(parameter.roles);
            }
        }
        for code in programs.iter().flat_map(Found::codes) {
            roles.entry(code).or_default().add(Role::Whole);
        }
        let known = roles.into_iter().filter_map(|(id, roles)| {
            let mut weight = Weight::tensor(files.get(id)?, roles);
            let form = files.packed(id).filter(|_| packed.contains(&id));
            weight.second = form.and_then(packed_form);
            Some((id, weight))
        });
        let (ids, weights): (Vec<TensorId>, Vec<Weight>) = known.unzip();
        let number = |id: &TensorId| ids.binary_search(id).map(|at| WeightId(at as u32));
        // Every tensor of a program is of these files, so it has a number.
        let numbers = |p: &Found| p.all_tensors().iter().flat_map(number).collect();
        let numbers: Vec<Vec<WeightId>> = programs.iter().map(numbers).collect();
        let each = programs.iter().zip(&numbers);
        let together = each.clone().flat_map(|(p, numbers)| {
            let launches = p.program().launches.iter().map(Launch::ranged_weights);
            let shared = launches.filter(|weights| weights.len() > 1);
            shared.map(|weights| weights.iter().map(|w| numbers[w.0 as usize]).collect())
        });
        let turning = Turning {
            together: together.collect(),
            ..Turning::default()
        };
        Contract {
            turning,
            uses: each
                .map(|(p, numbers)| streamed(p.program(), numbers))
                .collect(),
            weights,
            numbers,
        }
    }

    /// Bytes of the tables that are only read through the mapping.
    ///
    /// # Errors
    /// If a weight has more bytes than can be counted.
    pub fn mapped_tables(&self) -> Result<u64, Error> {
        let only = |w: &&Weight| w.roles.has(Role::Table) && !w.roles.has(Role::Rows);
        let tables = self.weights.iter().filter(only);
        tables.map(|w| Ok(w.source_bytes()? as u64)).sum()
    }
}

/// The form in which rows lie packed; none if they cannot be cut into tiles as they lie.
fn packed_form(rows: &PackedRows) -> Option<Form> {
    let units = Units::new(rows.unit_rows, rows.offsets.to_vec()).ok()?;
    Some(Form {
        encoding: rows.encoding.into(),
        file: rows.file,
        start: rows.start,
        units: Some(Arc::new(units)),
        unpack: None,
    })
}

/// Bytes of all constants, equal ones once.
pub(crate) fn constant_bytes<P: HasProgram>(programs: &[P]) -> u64 {
    let buffers = programs.iter().flat_map(|p| &p.program().buffers);
    let constants = buffers.filter_map(|buffer| match &buffer.kind {
        BufferKind::Const(literal) => Some(&literal.bytes[..]),
        _ => None,
    });
    let distinct: HashSet<&[u8]> = constants.collect();
    distinct.iter().map(|bytes| bytes.len().max(1) as u64).sum()
}

/// Puts every constant on the device, equal ones once.
///
/// # Errors
/// If the device fails or has no memory for them.
pub(crate) fn constants(
    pool: &Pool,
    compute: Stream,
    programs: &[Compiled],
) -> Result<Vec<Vec<Option<Arc<Lease>>>>, Error> {
    let mut known: HashMap<&[u8], Arc<Lease>> = HashMap::new();
    let mut all = Vec::with_capacity(programs.len());
    for p in programs {
        let mut leases = Vec::with_capacity(p.program.buffers.len());
        for buffer in &p.program.buffers {
            let BufferKind::Const(literal) = &buffer.kind else {
                leases.push(None);
                continue;
            };
            if let Some(lease) = known.get(&literal.bytes[..]) {
                leases.push(Some(lease.clone()));
                continue;
            }
            let lease =
                Arc::new(pool.acquire(literal.bytes.len().max(1) as u64, Purpose::Constants)?);
            let dst = lease.whole().slice(0..literal.bytes.len())?;
            pool.device().submit(
                compute,
                Work::Write {
                    dst,
                    bytes: literal.bytes.to_vec(),
                },
            )?;
            known.insert(&literal.bytes, lease.clone());
            leases.push(Some(lease));
        }
        all.push(leases);
    }
    Ok(all)
}
