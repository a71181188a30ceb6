//! The thread's recorder: which tensors each call of a running trace made.
//!
//! The recorder holds every tensor of the trace, and lets them go newest first. A tensor's
//! operands are older, so none is freed recursively however long the chain of calls is.

use super::tensor::Tensor;
use crate::graph::Op;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};

thread_local! {
    static ACTIVE: RefCell<Option<Recording>> = const { RefCell::new(None) };
}

/// About how many bytes a recorded tensor takes beside its constant data.
const RECORD: u64 = 320;

/// How much the calls of a recording made.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Made {
    /// Bytes of constants and of records.
    pub bytes: u64,
}

/// Tensors by call; call 0 is loading.
#[derive(Default)]
pub(crate) struct Recording {
    pub calls: Vec<Vec<Tensor>>,
    made: Made,
}

impl Drop for Recording {
    fn drop(&mut self) {
        while let Some(mut call) = self.calls.pop() {
            while call.pop().is_some() {}
        }
    }
}

impl Recording {
    fn push(&mut self, tensor: &Tensor) {
        // Loading is done once however long the way to a point is.
        if self.calls.len() > 1 {
            let constant = match tensor.op() {
                Op::Const(literal) => literal.bytes.len() as u64,
                _ => 0,
            };
            self.made.bytes += RECORD + constant;
        }
        if let Some(call) = self.calls.last_mut() {
            call.push(tensor.clone());
        }
    }

    /// The tensors of the last call that someone beside the recording holds: what the model keeps.
    fn kept(&self) -> Vec<Tensor> {
        let Some(call) = self.calls.last() else {
            return Vec::new();
        };
        let mut uses: HashMap<u64, usize> = HashMap::new();
        for operand in call.iter().flat_map(Tensor::operands) {
            *uses.entry(operand.id()).or_default() += 1;
        }
        let known = |t: &Tensor| 1 + uses.get(&t.id()).copied().unwrap_or(0);
        let kept = call.iter().filter(|t| t.holders() > known(t));
        kept.cloned().collect()
    }

    /// The shape that a tensor of the last call has after `by` positions more, where the call had
    /// `seq` new ones: what differs from the tensor of an earlier call that it continues grows.
    fn grown(&self, tensor: &Tensor, by: i64, seq: i64) -> Option<Vec<usize>> {
        let old = self.continued(tensor)?;
        if old.rank() != tensor.rank() {
            return None;
        }
        let axis = |(new, old): (&usize, &usize)| {
            let (new, old) = (i64::try_from(*new).ok()?, i64::try_from(*old).ok()?);
            let each = (new - old)
                .checked_div(seq)
                .filter(|e| e * seq == new - old)?;
            usize::try_from(new.checked_add(each.checked_mul(by)?)?).ok()
        };
        tensor.dims().iter().zip(old.dims()).map(axis).collect()
    }

    /// The tensor of an earlier call that is fewest operations away.
    fn continued(&self, tensor: &Tensor) -> Option<Tensor> {
        let epoch = tensor.epoch();
        let mut seen = HashSet::new();
        let mut queue = VecDeque::from([tensor.clone()]);
        while let Some(t) = queue.pop_front() {
            if (1..epoch).contains(&t.epoch()) {
                return Some(t);
            }
            let new = t.operands().iter().filter(|o| o.epoch() != 0);
            queue.extend(new.filter(|o| seen.insert(o.id())).cloned());
        }
        None
    }
}

/// The number of the running call, or 0 outside of a trace.
pub(crate) fn current_epoch() -> u32 {
    ACTIVE.with_borrow(|r| {
        r.as_ref()
            .map_or(0, |r| r.calls.len().saturating_sub(1) as u32)
    })
}

/// Keeps a tensor that was just made.
pub(crate) fn record(tensor: &Tensor) {
    ACTIVE.with_borrow_mut(|r| {
        if let Some(r) = r {
            r.push(tensor);
        }
    });
}

/// A running recording; ends on drop.
pub(crate) struct Scope {
    outer: Option<Recording>,
}

impl Scope {
    /// Starts with call 0 (loading).
    pub fn start() -> Scope {
        let fresh = Recording {
            calls: vec![Vec::new()],
            made: Made::default(),
        };
        Scope {
            outer: ACTIVE.with_borrow_mut(|r| r.replace(fresh)),
        }
    }

    /// Starts the next call.
    pub fn next_call(&self) {
        ACTIVE.with_borrow_mut(|r| {
            if let Some(r) = r {
                r.calls.push(Vec::new());
            }
        });
    }

    /// What the calls so far made.
    pub fn made(&self) -> Made {
        ACTIVE.with_borrow(|r| r.as_ref().map_or(Made::default(), |r| r.made))
    }

    /// Gives what the last call keeps the shape that it would have `by` positions further on, the
    /// call having had `seq` new ones. Nothing else may hold tensors of that call.
    pub fn resize_kept(&self, by: i64, seq: i64) {
        ACTIVE.with_borrow(|r| {
            let Some(r) = r else { return };
            let kept = r.kept();
            let grown: Vec<_> = kept.iter().map(|t| r.grown(t, by, seq)).collect();
            for (tensor, dims) in kept.iter().zip(grown) {
                if let Some(dims) = dims {
                    tensor.resize(dims);
                }
            }
        });
    }

    /// What was recorded, ending the scope.
    pub fn finish(self) -> Recording {
        ACTIVE.with_borrow_mut(Option::take).unwrap_or_default()
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        let outer = self.outer.take();
        // The ended recording is dropped outside of the borrow: its tensors may be many.
        let ended = ACTIVE.with_borrow_mut(|r| std::mem::replace(r, outer));
        drop(ended);
    }
}
