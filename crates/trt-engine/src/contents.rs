//! What an engine holds beside its arena, read off its programs: the roles of weights, constants,
//! (states have a module of their own).

use crate::Error;
use crate::engine::Compiled;
use crate::ready::Uses;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use trt_alloc::{Lease, Pool, Purpose};
use trt_device::{Stream, Work};
use trt_graph::program::BufferKind;
use trt_kernel::Role;
use trt_stream::TensorId;

/// What the weights of all programs are used for.
pub(crate) struct Roles {
    pub streamed: BTreeSet<TensorId>,
    pub pinned: BTreeSet<TensorId>,
    pub mapped: BTreeSet<TensorId>,
}

impl Roles {
    pub fn of<P: Uses>(programs: &[P]) -> Roles {
        let mut roles = Roles {
            streamed: BTreeSet::new(),
            pinned: BTreeSet::new(),
            mapped: BTreeSet::new(),
        };
        for (w, id) in programs
            .iter()
            .flat_map(|p| p.program().weights.iter().zip(p.weights()))
        {
            let sets = [
                (w.roles.has(Role::Rows), &mut roles.streamed),
                (w.roles.has(Role::Whole), &mut roles.pinned),
                (w.roles.has(Role::Table), &mut roles.mapped),
            ];
            sets.into_iter()
                .filter(|(used, _)| *used)
                .for_each(|(_, set)| {
                    set.insert(*id);
                });
        }
        roles
    }
}

/// Bytes of all constants, equal ones once.
pub(crate) fn constant_bytes<P: Uses>(programs: &[P]) -> u64 {
    let buffers = programs.iter().flat_map(|p| &p.program().buffers);
    let constants = buffers.filter_map(|buffer| match &buffer.kind {
        BufferKind::Const(literal) => Some(&literal.bytes[..]),
        _ => None,
    });
    let distinct: HashSet<&[u8]> = constants.collect();
    distinct.iter().map(|bytes| bytes.len().max(1) as u64).sum()
}

/// Puts every constant on the device, equal ones once.
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
