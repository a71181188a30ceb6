//! A program made ready for one device: weights found, then kernels loaded, arena laid out.
//!
//! Programs that were just lowered and programs that were read from a file come through here
//! alike, after both were verified. Between the two steps is what needs no device to be known, such
//! as whether the device's limit can be kept.

use super::packed::PackedProgram;
use crate::error::Error;
use crate::report::ClassReport;
use crate::run::arena::{ArenaShape, is_written};
use crate::run::program::{ArgUse, Compiled, LaunchForms, LoadedLaunch};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use trt_device::{Device, Executable};
use trt_graph::Class;
use trt_graph::program::{Program, Source as ArgSource};
use trt_kernel::{Arg, Dim, Encoding, Role, Var};
use trt_stream::{TensorId, WeightId, Weights};

/// Pinned weights larger than this are mentioned in the report.
const LARGE_PINNED: usize = 8 << 20;

/// A program and what is known of it without a device.
pub(crate) struct Lowered {
    pub class: Class,
    pub program: Program,
    /// Offsets in the arena that were planned before, if any.
    pub offsets: Option<Vec<u64>>,
}

/// A lowered program whose weights are there.
pub(crate) struct Found {
    lowered: Lowered,
    /// The tensor of each of its parameters.
    tensors: Vec<TensorId>,
    /// Parameters that are the values of tensors in blocks.
    values: Vec<usize>,
    /// The program that reads packed rows, if it has any.
    packed: Option<PackedProgram>,
}

/// A program that is made ready, or is ready.
pub(crate) trait HasProgram {
    fn program(&self) -> &Program;
}

impl HasProgram for Found {
    fn program(&self) -> &Program {
        &self.lowered.program
    }
}

impl HasProgram for Compiled {
    fn program(&self) -> &Program {
        &self.program
    }
}

/// Bytes of the kernels' code on the device, at most; what programs share counts once.
pub(crate) fn code_bytes(programs: &[Compiled]) -> u64 {
    let executables = programs.iter().flat_map(Compiled::executables);
    let pieces: HashMap<usize, u64> = executables.flat_map(|e| e.code()).collect();
    pieces.values().sum()
}

/// Finds the weights of a program.
///
/// # Errors
/// [`Error::Weights`] if one is missing, or of another shape or encoding than its launches read it in.
pub(crate) fn find(lowered: Lowered, weights: &Weights) -> Result<Found, Error> {
    let parameters = &lowered.program.weights;
    let (mut tensors, mut values) = (Vec::with_capacity(parameters.len()), Vec::new());
    for (number, w) in parameters.iter().enumerate() {
        let stored = weights.require(&w.name, &w.shape, None)?;
        let blocks = weights.get(stored).map(|info| info.encoding);
        let wants_values = w.encoding.as_plain().is_some()
            && blocks.is_some_and(|e| {
                e.as_plain().is_none() && Encoding::Plain(e.dtype()) == w.encoding
            });
        if wants_values {
            values.push(number);
        } else {
            weights.require(&w.name, &w.shape, Some(w.encoding))?;
        }
        tensors.push(stored);
    }
    Ok(Found {
        lowered,
        tensors,
        values,
        packed: None,
    })
}

/// The weights of all programs: those of the files, and the values of those in blocks that a program needs in
/// one piece, which are made here, each once.
///
/// # Errors
/// [`Error::Store`] if the system has no memory for them.
pub(crate) fn with_values(
    programs: &mut [Found],
    weights: &Arc<Weights>,
) -> Result<Arc<Weights>, Error> {
    let wanted = programs
        .iter()
        .flat_map(|p| p.values.iter().map(|v| p.tensors[*v]));
    let wanted: Vec<TensorId> = wanted.collect::<BTreeSet<_>>().into_iter().collect();
    if wanted.is_empty() {
        return Ok(weights.clone());
    }
    let (all, made) = weights.with_values(&wanted)?;
    for program in programs {
        for number in std::mem::take(&mut program.values) {
            let tensor = &mut program.tensors[number];
            if let Ok(at) = wanted.binary_search(tensor) {
                *tensor = made[at];
            }
        }
    }
    Ok(Arc::new(all))
}

impl Found {
    /// The tensor of each parameter of the program.
    pub fn tensors(&self) -> &[TensorId] {
        &self.tensors
    }

    /// The same of the program that reads packed rows, which has more, if there is one.
    pub fn all_tensors(&self) -> &[TensorId] {
        self.packed.as_ref().map_or(&self.tensors, |p| &p.tensors)
    }

    /// The tensors that unpack others.
    pub fn codes(&self) -> impl Iterator<Item = TensorId> + '_ {
        let packed = self.packed.iter();
        packed.flat_map(|p| p.params.iter().map(|a| p.tensors[a.code.0 as usize]))
    }

    /// Has it read packed rows.
    pub(super) fn set_packed(&mut self, packed: PackedProgram) {
        self.packed = Some(packed);
    }

    /// Bytes that the arena of the largest call cannot be smaller than, whatever working memory the
    /// kernels turn out to need.
    pub fn least_arena(&self) -> u64 {
        let Lowered { class, program, .. } = &self.lowered;
        ArenaShape::new(program, &[], &class.name).largest_live()
    }
}

/// Makes a program ready whose parameters are these weights; what the device decides is noted in
/// `report`.
///
/// # Errors
/// If the device cannot load a kernel; [`Error::Plan`] if the plan of the arena fails its check.
pub(crate) fn ready(
    found: Found,
    weights: Vec<WeightId>,
    device: &dyn Device,
    report: &mut ClassReport,
) -> Result<Compiled, Error> {
    let Found {
        lowered, packed, ..
    } = found;
    let Lowered {
        class,
        program,
        offsets,
    } = lowered;
    // In turn: a GPU's driver assembles one kernel at a time whoever asks.
    let launches = (0..program.launches.len()).map(|i| {
        let differs = |p: &&PackedProgram| p.program.launches[i] != program.launches[i];
        let packed = packed.as_ref().filter(differs);
        Ok(LaunchForms {
            plain: prepared(&program, i, device)?,
            packed: packed
                .map(|p| prepared(&p.program, i, device))
                .transpose()?,
        })
    });
    let launches = launches.collect::<Result<Vec<_>, Error>>()?;
    let ranges = program.ranges();
    let most = |bytes: &Dim| u64::try_from(bytes.bounds(&ranges).max).unwrap_or(0);
    let scratch = launches.iter().map(|forms| larger(forms, &most));
    let scratch: Vec<(Dim, u64)> = scratch.collect();
    let shape = ArenaShape::new(&program, &scratch, &class.name);
    let arena = Arc::new(shape.largest(offsets.as_deref())?);
    report.arena_bytes = arena.bytes;
    report.largest_live_bytes = arena.largest_live;
    let labels = program.launches.iter().map(|l| &l.label);
    let by_host = launches.iter().zip(labels).flat_map(|(forms, label)| {
        let each = forms.executables();
        each.filter_map(move |e| Some((label.clone(), e.by_host()?.to_string())))
    });
    report.by_host = by_host.collect();
    let executables = launches.iter().flat_map(LaunchForms::executables);
    let mut shape_vars: Vec<Var> = executables.flat_map(|e| e.grid_vars()).collect();
    shape_vars.sort();
    shape_vars.dedup();
    Ok(Compiled {
        class,
        program,
        launches,
        shape_vars,
        shape,
        arena,
        weights,
    })
}

/// A launch of a program, loaded.
fn prepared(program: &Program, launch: usize, device: &dyn Device) -> Result<LoadedLaunch, Error> {
    Ok(LoadedLaunch {
        executable: device.load(&program.launches[launch].kernel)?,
        args: launch_uses(program, launch)?,
    })
}

/// Working memory that serves each form of a launch: in a call, and in the largest.
fn larger(forms: &LaunchForms, most: &dyn Fn(&Dim) -> u64) -> (Dim, u64) {
    let sized = |e: &Executable| (e.scratch(), most(&e.scratch()));
    let plain = sized(&forms.plain.executable);
    let Some(packed) = forms.packed.as_ref().map(|p| sized(&p.executable)) else {
        return plain;
    };
    match (plain.1, packed.1) {
        (_, 0) => plain,
        (0, _) => packed,
        // Which is larger may depend on the call.
        (a, b) if plain.0 != packed.0 => (Dim::from(a.max(b) as usize), a.max(b)),
        _ => plain,
    }
}

/// How each argument of a launch is found.
fn launch_uses(program: &Program, launch: usize) -> Result<Vec<ArgUse>, Error> {
    let l = &program.launches[launch];
    let uses = l.args.iter().enumerate().map(|(i, source)| match source {
        ArgSource::Buffer(b) => Ok(ArgUse::Buffer(*b)),
        ArgSource::Weight(_) if is_written(program, launch, i) => Err(Error::lower(format!(
            "launch {} writes to a weight",
            l.label
        ))),
        ArgSource::Weight(w) => Ok(ArgUse::Weight(
            *w,
            match l.kernel.role(Arg(i as u16)) {
                // It is on the device in any case.
                Role::Table if program.weight(*w).roles.has(Role::Whole) => Role::Whole,
                role => role,
            },
        )),
    });
    uses.collect()
}

/// Checks that all classes keep the same states. Inputs may differ: what only a first call is told is an input of its class.
///
/// # Errors
/// [`Error::Classes`] if they do not.
pub(crate) fn agree(programs: &[Found]) -> Result<(), Error> {
    let mut programs = programs.iter().map(|p| &p.lowered);
    let Some(first) = programs.next() else {
        return Ok(());
    };
    for other in programs {
        let differ = |what: String| {
            Err(Error::Classes {
                a: first.class.name.clone(),
                b: other.class.name.clone(),
                what,
            })
        };
        let (a, b) = (&first.program.states, &other.program.states);
        if a.len() != b.len() {
            return differ(format!("states: {} and {}", a.len(), b.len()));
        }
        if let Some(i) =
            (0..a.len()).find(|i| a[*i].dtype != b[*i].dtype || a[*i].capacity != b[*i].capacity)
        {
            return differ(format!(
                "state {i}: {}{:?} and {}{:?}",
                a[i].dtype, a[i].capacity, b[i].dtype, b[i].capacity
            ));
        }
    }
    Ok(())
}

/// Weights that are on the device whole although they are large, with their bytes.
pub(crate) fn large_pinned(programs: &[Found], weights: &Weights) -> Vec<(String, usize)> {
    let whole = programs
        .iter()
        .flat_map(|p| p.program().weights.iter().zip(p.tensors()));
    let ids: BTreeSet<TensorId> = whole
        .filter(|(w, _)| w.roles.has(Role::Whole))
        .map(|(_, id)| *id)
        .collect();
    let sized = ids
        .into_iter()
        .filter_map(|id| weights.get(id))
        .map(|info| (info.name.clone(), info.bytes()));
    sized.filter(|(_, bytes)| *bytes > LARGE_PINNED).collect()
}
