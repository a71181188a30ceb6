//! A recording as what its calls computed from their inputs and from each other.
//!
//! A tensor *varies* if it is made of an input of some call. What does not (tables, masks, fills, weights in
//! another layout) is the same whenever it is made, so a call that finds it made already has not read a state, and
//! it is in no list here: a call that makes its table and a later one that has it are alike. The varying tensors
//! of a call, in order, are its list, and a tensor is known by its place in it.

use crate::graph::Op;
use crate::mirror::Tensor;
use crate::mirror::recorder::Recording;
use std::collections::{HashMap, HashSet};

/// Where a call uses a tensor that it did not make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Port {
    /// An operand of the tensor at a place of its list.
    Operand { at: usize, index: usize },
    /// A result.
    Output(usize),
    /// Nowhere, but a later call reads it: what was made at a place of the list so many calls ago.
    Passed { at: usize, age: usize },
}

/// A place in the list of a call; call 0 is loading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub call: usize,
    pub at: usize,
}

/// The varying tensors of each call. They are to go before the recording, which lets go of the
/// newest first.
#[derive(Default)]
pub(super) struct Calls {
    lists: Vec<Vec<Tensor>>,
    places: HashMap<u64, Place>,
}

impl Calls {
    pub fn of(recording: &Recording) -> Calls {
        let mut calls = Calls::default();
        for (call, made) in recording.calls.iter().enumerate() {
            let mut list = Vec::new();
            for tensor in made {
                let known = |t: &Tensor| calls.places.contains_key(&t.id());
                let given = matches!(tensor.op(), Op::Input(_) | Op::State(_));
                if given || tensor.operands().iter().any(known) {
                    let at = list.len();
                    calls.places.insert(tensor.id(), Place { call, at });
                    list.push(tensor.clone());
                }
            }
            calls.lists.push(list);
        }
        calls
    }

    /// The list of a call.
    pub fn list(&self, call: usize) -> &[Tensor] {
        self.lists.get(call).map_or(&[], Vec::as_slice)
    }

    /// Where a tensor was made, if it varies.
    pub fn place(&self, tensor: &Tensor) -> Option<Place> {
        self.places.get(&tensor.id()).copied()
    }

    /// Adds to `found` what a call uses of earlier ones to make a tensor, in the order in which a graph of it
    /// is built, and where. What is behind `seen` tensors is known.
    pub fn reads(
        &self,
        call: usize,
        root: (Port, &Tensor),
        seen: &mut HashSet<u64>,
        found: &mut Vec<(Port, Tensor)>,
    ) {
        let mut stack = vec![(root.0, root.1.clone())];
        while let Some((port, tensor)) = stack.pop() {
            let Some(place) = self.place(&tensor) else {
                continue;
            };
            if place.call != call {
                found.push((port, tensor));
                continue;
            }
            if !seen.insert(tensor.id()) {
                continue;
            }
            let operands = tensor.operands().iter().enumerate().rev();
            let at = place.at;
            stack.extend(operands.map(|(index, t)| (Port::Operand { at, index }, t.clone())));
        }
    }
}
