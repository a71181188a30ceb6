//! What work that may still run keeps alive.
//!
//! A GPU runs work long after it was submitted, so a stream holds what its work uses until the
//! work is done. Invariant: an item leaves only when an event recorded after it was reached, or
//! when its stream was waited for. Events are recorded once in a batch and used again, so an item
//! costs a push.

use std::collections::VecDeque;

/// Items in a batch.
const BATCH: usize = 64;

/// Events that are kept for later batches.
const SPARE: usize = 8;

/// The items of a stream, oldest first.
#[derive(Debug)]
pub(crate) struct Retire<T, E> {
    /// Submitted since the last event.
    open: Vec<T>,
    /// Batches, each with an event after its last item.
    sealed: VecDeque<(E, Vec<T>)>,
    spare: Vec<E>,
}

impl<T, E> Default for Retire<T, E> {
    fn default() -> Self {
        Retire {
            open: Vec::new(),
            sealed: VecDeque::new(),
            spare: Vec::new(),
        }
    }
}

impl<T, E> Retire<T, E> {
    /// Keeps an item that was just submitted. Returns whether it is time to [`Retire::seal`].
    pub fn push(&mut self, item: T) -> bool {
        if self.open.capacity() == 0 {
            self.open.reserve(BATCH);
        }
        self.open.push(item);
        self.open.len() >= BATCH
    }

    /// An event to record for the next seal, if one is left over.
    pub fn spare(&mut self) -> Option<E> {
        self.spare.pop()
    }

    /// Closes the batch; `event` was recorded after everything in it.
    pub fn seal(&mut self, event: E) {
        let batch = std::mem::take(&mut self.open);
        self.sealed.push_back((event, batch));
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty() && self.sealed.is_empty()
    }

    /// The batches at the front whose event is reached, for the caller to drop.
    pub fn done(&mut self, reached: impl Fn(&E) -> bool) -> Vec<Vec<T>> {
        let mut out = Vec::new();
        while self.sealed.front().is_some_and(|(e, _)| reached(e)) {
            if let Some((event, batch)) = self.sealed.pop_front() {
                out.push(batch);
                self.keep(event);
            }
        }
        out
    }

    /// Everything, for the caller to drop once the stream is known to be done with it.
    pub fn take_all(&mut self) -> Vec<Vec<T>> {
        let mut out = Vec::with_capacity(self.sealed.len() + 1);
        while let Some((event, batch)) = self.sealed.pop_front() {
            out.push(batch);
            self.keep(event);
        }
        out.push(std::mem::take(&mut self.open));
        out
    }

    /// Keeps again what [`Retire::take_all`] gave, since the wait for it has failed. All events that
    /// are kept were recorded after it.
    pub fn take_back(&mut self, batches: Vec<Vec<T>>) {
        let oldest = match self.sealed.front_mut() {
            Some((_, batch)) => batch,
            None => &mut self.open,
        };
        oldest.splice(0..0, batches.into_iter().flatten());
    }

    fn keep(&mut self, event: E) {
        if self.spare.len() < SPARE {
            self.spare.push(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(batches: usize) -> Retire<usize, usize> {
        let mut retire = Retire::default();
        for item in 0..batches * BATCH {
            if retire.push(item) {
                let event = retire.spare().unwrap_or(item / BATCH);
                retire.seal(event);
            }
        }
        retire
    }

    #[test]
    fn a_batch_is_due_after_as_many_items() {
        let mut retire: Retire<usize, ()> = Retire::default();
        let due: Vec<bool> = (0..BATCH).map(|i| retire.push(i)).collect();
        assert_eq!(due.iter().position(|d| *d), Some(BATCH - 1));
    }

    #[test]
    fn only_batches_whose_event_is_reached_leave_and_in_order() {
        let mut retire = filled(3);
        assert!(retire.done(|_| false).is_empty());
        // The second is not reached, so the third must stay, whatever its event says.
        let out = retire.done(|e| *e != 1);
        assert_eq!(out, [(0..BATCH).collect::<Vec<_>>()]);
        assert!(!retire.is_empty());
    }

    #[test]
    fn items_without_an_event_stay_until_the_stream_was_waited_for() {
        let mut retire = filled(1);
        retire.push(1000);
        retire.done(|_| true);
        assert!(!retire.is_empty());
        assert_eq!(retire.take_all(), [vec![1000]]);
        assert!(retire.is_empty());
    }

    #[test]
    fn what_was_not_waited_for_leaves_with_what_came_behind_it() {
        let mut retire = filled(1);
        retire.push(1000);
        let taken = retire.take_all();
        retire.take_back(taken);
        assert_eq!(
            retire.take_all(),
            [(0..BATCH).chain([1000]).collect::<Vec<_>>()]
        );
        // A batch was closed meanwhile, so its event is behind what was taken.
        retire.push(1);
        let taken = retire.take_all();
        retire.push(2);
        retire.seal(9);
        retire.push(3);
        retire.take_back(taken);
        assert_eq!(retire.done(|e| *e == 9), [vec![1, 2]]);
        assert_eq!(retire.take_all(), [vec![3]]);
    }

    #[test]
    fn events_are_used_again() {
        let mut retire = filled(2);
        retire.done(|_| true);
        assert_eq!(
            (retire.spare(), retire.spare(), retire.spare()),
            (Some(1), Some(0), None)
        );
    }
}
