//! Calls that were recorded to be replayed at the cost of one launch.
//!
//! A recorded call is right for another call only if everything but the runtime integers is the
//! same: the program, the memory of its arena and states, the places of its weights, and the
//! integers that decide how launches are made. All of that is the [`Key`]. A key is recorded
//! when it comes again soon, since most lengths of a prompt come once.
//!
//! What is recorded keeps the memory that it uses. So it is forgotten before that memory is to
//! go: with its session, with the budget that placed its weights, with the arena. Where an arena
//! is held for one call only, nothing is recorded.

use std::collections::VecDeque;
use trt_device::Graph;

/// What must agree between a recorded call and its replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    /// The program.
    pub program: usize,
    /// The split of the weights.
    pub generation: u64,
    /// Addresses of the arena and of the states.
    pub memory: Vec<u64>,
    /// Values of the integers that decide how launches are made.
    pub shape: Vec<i64>,
}

/// Recorded calls, the latest last.
#[derive(Debug)]
pub(crate) struct Recorded {
    enabled: bool,
    graphs: VecDeque<(Key, Graph)>,
    /// What came lately and is not recorded.
    seen: VecDeque<Key>,
    /// The split of the weights under which the device could not record a call.
    refused: Option<u64>,
    replayed: u64,
}

/// Recorded calls kept at most: two sessions of two classes of calls.
const KEPT: usize = 4;

impl Recorded {
    pub fn new(enabled: bool) -> Recorded {
        Recorded {
            enabled,
            graphs: VecDeque::new(),
            seen: VecDeque::new(),
            refused: None,
            replayed: 0,
        }
    }

    /// Whether calls are recorded.
    pub fn enabled(&self) -> bool {
        self.enabled
    }

    /// Changes that; what is recorded is forgotten when it goes.
    pub fn enable(&mut self, enabled: bool) {
        self.enabled = enabled;
        if !enabled {
            self.forget(None);
        }
    }

    /// Calls that were submitted as recorded work since the start.
    pub fn replayed(&self) -> u64 {
        self.replayed
    }

    /// The recorded call with this key.
    pub fn get(&mut self, key: &Key) -> Option<Graph> {
        let at = self.graphs.iter().position(|(k, _)| k == key)?;
        let found = self.graphs.remove(at)?;
        let graph = found.1.clone();
        self.graphs.push_back(found);
        self.replayed += 1;
        Some(graph)
    }

    /// Whether a call with this key should be recorded: one came lately.
    pub fn due(&mut self, key: &Key) -> bool {
        if self.refused == Some(key.generation) {
            return false;
        }
        if let Some(at) = self.seen.iter().position(|k| k == key) {
            self.seen.remove(at);
            return true;
        }
        if self.seen.len() == KEPT {
            self.seen.pop_front();
        }
        self.seen.push_back(key.clone());
        false
    }

    /// Records nothing more until weights move: the device has no room for it, or cannot.
    pub fn refuse(&mut self, key: &Key) {
        self.refused = Some(key.generation);
    }

    /// Keeps a recorded call, which is submitted for the first time now.
    pub fn keep(&mut self, key: Key, graph: Graph) {
        self.replayed += 1;
        self.graphs.retain(|(k, _)| k.generation == key.generation);
        if self.graphs.len() == KEPT {
            self.graphs.pop_front();
        }
        self.graphs.push_back((key, graph));
    }

    /// Forgets what uses memory at one of these addresses, or everything if none is given.
    pub(super) fn forget(&mut self, memory: Option<&[u64]>) {
        self.seen.clear();
        match memory {
            None => self.graphs.clear(),
            Some(gone) => self
                .graphs
                .retain(|(k, _)| !k.memory.iter().any(|a| gone.contains(a))),
        }
    }
}
