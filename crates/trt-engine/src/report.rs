//! What an engine says of itself, as data that serialises.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What compiling did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CompileReport {
    /// Seconds spent tracing.
    pub trace_seconds: f64,
    /// Seconds spent on passes, lowering, planning and loading kernels.
    pub compile_seconds: f64,
    /// One entry for each class of the profile.
    pub classes: Vec<ClassReport>,
    /// Things to know, e.g. large weights that cannot stream.
    pub notes: Vec<String>,
}

/// What compiling made of one class of calls.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClassReport {
    /// The class.
    pub class: String,
    /// Nodes of the traced graph.
    pub traced_nodes: usize,
    /// Nodes after all passes.
    pub nodes: usize,
    /// Node counts as `(pass, before, after)`.
    pub passes: Vec<(String, usize, usize)>,
    /// Launches as `(kernel kind, fused ops)`, in order.
    pub launches: Vec<(String, Vec<String>)>,
    /// Elementwise results that are stored, with the reason: what did not fuse, and why.
    pub stored: Vec<(String, String)>,
    /// Bytes of the arena for inputs, outputs and intermediate results.
    pub arena_bytes: u64,
    /// Bytes of the largest set of them that lives at one time.
    pub largest_live_bytes: u64,
}

/// What an engine holds on its device, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryReport {
    /// All weights of the model that count in the budget.
    pub total_weights: u64,
    /// Tables that are only read row by row through the mapping: in no budget.
    pub mapped_tables: u64,
    /// Weights on the device now, resident and ring.
    pub weights: u64,
    /// The arena of inputs, outputs and intermediate results.
    pub activations: u64,
    /// Constants such as rotary tables.
    pub constants: u64,
    /// States of all sessions.
    pub states: u64,
    /// States of one session.
    pub states_per_session: u64,
    /// Everything in use.
    pub in_use: u64,
    /// The most that was ever in use.
    pub high_water: u64,
    /// The limit of everything.
    pub limit: u64,
}

impl fmt::Display for CompileReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "traced in {:.3} s, compiled in {:.3} s",
            self.trace_seconds, self.compile_seconds
        )?;
        for c in &self.classes {
            writeln!(
                f,
                "{}: {} nodes traced, {} after passes, {} launches, arena {} bytes (largest live set {})",
                c.class,
                c.traced_nodes,
                c.nodes,
                c.launches.len(),
                c.arena_bytes,
                c.largest_live_bytes
            )?;
            for (kind, ops) in &c.launches {
                writeln!(f, "  {kind}: {}", ops.join(" + "))?;
            }
            for (op, why) in &c.stored {
                writeln!(f, "  not fused: {op}: {why}")?;
            }
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}
