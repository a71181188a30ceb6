//! What an engine says of itself, as data that serialises.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use trt_graph::{Class, Graph, Report, Split};

/// What compiling did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CompileReport {
    /// Seconds spent tracing.
    pub trace_seconds: f64,
    /// Seconds spent on passes, lowering, planning and loading kernels.
    pub compile_seconds: f64,
    /// Whether the programs were loaded rather than compiled; then nothing was traced, and
    /// [`compile_seconds`](Self::compile_seconds) were spent on reading and preparing them.
    #[serde(default)]
    pub loaded: bool,
    /// Most anonymous host memory held beyond what the process held before, in bytes, sampled
    /// every few milliseconds; nothing where the system does not tell. It counts what other
    /// threads of the process took meanwhile.
    #[serde(default)]
    pub host_peak_bytes: Option<u64>,
    /// Most device memory held until the engine was made, in bytes: constants, the arena, and the
    /// first budget.
    #[serde(default)]
    pub device_peak_bytes: u64,
    /// Weights that were derived of the model's, if its code does that.
    #[serde(default)]
    pub derived: Option<DerivedReport>,
    /// Weights that are read packed where the budget asks for it, if they have such a form.
    #[serde(default)]
    pub packed: Option<PackedReport>,
    /// One entry for each class of the profile.
    pub classes: Vec<ClassReport>,
    /// Things to know, e.g. large weights that cannot stream.
    pub notes: Vec<String>,
    /// Weights whose values model code read while it was traced: what was compiled holds for these values alone.
    #[serde(default)]
    pub read: Vec<WeightRead>,
    /// Classes of the profile that became two, since the model's code differs within them.
    #[serde(default)]
    pub splits: Vec<Split>,
}

/// A weight whose values are part of what was compiled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightRead {
    /// The name that its files have for it.
    pub name: String,
    /// A hash of its bytes.
    pub hash: u64,
}

/// Weights that follow from others by what model code does to them in each call (folding batch norms, joining, turning,
/// scaling): they are made once, and are weights like any others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DerivedReport {
    /// How many.
    pub weights: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Where they are kept; nothing if in memory.
    pub file: Option<PathBuf>,
}

/// Weights that also lie packed without loss, and that every launch can read so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackedReport {
    /// How many.
    pub weights: usize,
    /// Their bytes as they were given.
    pub plain_bytes: u64,
    /// Their bytes packed.
    pub packed_bytes: u64,
    /// Where they are kept; nothing if in memory.
    pub file: Option<PathBuf>,
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
    /// Launches for which the device has no kernel, as `(fused ops, why)`: the host computes them.
    #[serde(default)]
    pub by_host: Vec<(String, String)>,
}

impl ClassReport {
    pub(crate) fn of_trace(class: &Class, graph: &Graph) -> ClassReport {
        ClassReport {
            class: class.name.clone(),
            traced_nodes: graph.nodes.len(),
            nodes: graph.nodes.len(),
            ..ClassReport::default()
        }
    }

    /// What passes and lowering did.
    pub(crate) fn add(&mut self, notes: Report) {
        let passes = notes.passes.iter();
        self.passes = passes
            .map(|p| (p.pass.to_string(), p.before, p.after))
            .collect();
        self.nodes = self.passes.last().map_or(self.traced_nodes, |p| p.2);
        let launches = notes.kernels.into_iter();
        self.launches = launches.map(|k| (k.kind.to_string(), k.ops)).collect();
        self.stored = notes.stored;
    }
}

/// How an engine gave way to others on its device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pressure {
    /// How often memory was refused and resident weights made room.
    pub shrinks: u64,
    /// The last time.
    pub last: Option<Shrink>,
}

/// A budget that became smaller because the device had no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shrink {
    /// Bytes of weights on the device before.
    pub from: u64,
    /// Bytes of weights on the device after.
    pub to: u64,
}

/// What an engine holds on its device, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryReport {
    /// All weights of the model that count in the budget.
    pub total_weights: u64,
    /// The budget in force: bytes of weights that may be on the device. It is
    /// [`total_weights`](Self::total_weights) without weight streaming, and 0 while the device has no
    /// memory for any budget.
    #[serde(default)]
    pub budget: u64,
    /// Tables that are only read row by row through the mapping: in no budget.
    pub mapped_tables: u64,
    /// Weights on the device now, resident and ring.
    pub weights: u64,
    /// The arena of inputs, outputs and intermediate results.
    pub activations: u64,
    /// Constants such as rotary tables.
    pub constants: u64,
    /// Kernels: a bound of what their code takes, 0 on the host.
    #[serde(default)]
    pub code: u64,
    /// States of all sessions.
    pub states: u64,
    /// States of one session.
    pub states_per_session: u64,
    /// Everything in use.
    pub in_use: u64,
    /// The most that was ever in use.
    pub high_water: u64,
    /// The limit of everything, weights included.
    pub limit: u64,
    /// How often weights or their ring had to change for a budget.
    #[serde(default)]
    pub budget_changes: u64,
    /// How the engine gave way to others on the device.
    #[serde(default)]
    pub pressure: Pressure,
}

impl fmt::Display for DerivedReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DerivedReport {
            weights,
            bytes,
            file,
        } = self;
        write!(
            f,
            "{weights} weights derived of others, {bytes} bytes, kept in "
        )?;
        match file {
            Some(path) => writeln!(f, "{}", path.display()),
            None => writeln!(f, "memory"),
        }
    }
}

impl fmt::Display for PackedReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PackedReport {
            weights,
            plain_bytes,
            packed_bytes,
            file,
        } = self;
        write!(
            f,
            "{weights} weights of {plain_bytes} bytes packed in {packed_bytes}, kept in "
        )?;
        match file {
            Some(path) => writeln!(f, "{}", path.display()),
            None => writeln!(f, "memory"),
        }
    }
}

impl fmt::Display for CompileReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.loaded {
            true => writeln!(f, "loaded in {:.3} s", self.compile_seconds)?,
            false => writeln!(
                f,
                "traced in {:.3} s, compiled in {:.3} s",
                self.trace_seconds, self.compile_seconds
            )?,
        }
        if let Some(host) = self.host_peak_bytes {
            write!(f, "peak of {host} bytes of host memory, ")?;
        }
        writeln!(
            f,
            "peak of {} bytes of device memory",
            self.device_peak_bytes
        )?;
        if let Some(packed) = &self.packed {
            packed.fmt(f)?;
        }
        if let Some(derived) = &self.derived {
            derived.fmt(f)?;
        }
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
            for (op, why) in &c.by_host {
                writeln!(f, "  computed by the host: {op}: {why}")?;
            }
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        for split in &self.splits {
            writeln!(
                f,
                "split: {split}, where the model's code does something else"
            )?;
        }
        for weight in &self.read {
            writeln!(
                f,
                "model code read the values of {}: the programs hold for these alone",
                weight.name
            )?;
        }
        Ok(())
    }
}
