//! The thread's recorder: which tensors each call of a running trace made.
//!
//! The recorder holds every tensor of the trace, and lets them go newest first. A tensor's
//! operands are older, so none is freed recursively however long the chain of calls is.

use crate::mirror::Tensor;
use std::cell::RefCell;

thread_local! {
    static ACTIVE: RefCell<Option<Recording>> = const { RefCell::new(None) };
}

/// Tensors by call; call 0 is loading.
#[derive(Default)]
pub(crate) struct Recording {
    pub calls: Vec<Vec<Tensor>>,
}

impl Drop for Recording {
    fn drop(&mut self) {
        while let Some(mut call) = self.calls.pop() {
            while call.pop().is_some() {}
        }
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
        if let Some(call) = r.as_mut().and_then(|r| r.calls.last_mut()) {
            call.push(tensor.clone());
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
