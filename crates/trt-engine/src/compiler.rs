//! From model code and weights to an engine.
//!
//! Each class of the profile is traced and lowered to a program of its own; all share states,
//! weights and constants. What a weight is used for decides where it lives: operands of ranged
//! matmuls stream, tables that are only gathered stay on the host, the rest is pinned.

use crate::engine::{Compiled, Engine, Parts, WeightUse};
use crate::memory::{ArenaShape, is_written};
use crate::report::{ClassReport, CompileReport};
use crate::source::Source;
use crate::{Allocation, Error, Profile, Request, TileTarget, Weights};
use candle_core::DType;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;
use trt_device::{Device, Host};
use trt_graph::candle_nn::VarBuilder;
use trt_graph::program::{Program, Source as ArgSource};
use trt_graph::{Graph, Step};
use trt_kernel::{Dim, Interval, Var};
use trt_stream::WeightId;

/// Pinned weights larger than this are mentioned in the report.
const LARGE_PINNED: usize = 8 << 20;

/// Compiles models; see the crate's documentation for an example.
#[derive(Debug)]
pub struct Compiler {
    weights: Arc<Weights>,
    device: Option<Arc<dyn Device>>,
    dtype: Option<DType>,
    profile: Option<Profile>,
    streaming: bool,
    budget: Request,
    limit: Option<u64>,
    tile_target: TileTarget,
    replay: bool,
    allocation: Allocation,
}

impl Compiler {
    /// A compiler for models with these weights. Defaults: the host device, the dtype in which
    /// most weight bytes are stored, a decoder profile of 2048 positions in calls of up to 512,
    /// no weight streaming.
    pub fn new(weights: impl Into<Arc<Weights>>) -> Self {
        Compiler {
            weights: weights.into(),
            device: None,
            dtype: None,
            profile: None,
            streaming: false,
            budget: Request::Automatic,
            limit: None,
            tile_target: TileTarget::default(),
            replay: true,
            allocation: Allocation::Static,
        }
    }

    /// Where to run.
    pub fn device(self, device: impl Device + 'static) -> Self {
        self.shared_device(Arc::new(device))
    }

    /// Where to run, on a device that others use too.
    pub fn shared_device(mut self, device: Arc<dyn Device>) -> Self {
        self.device = Some(device);
        self
    }

    /// The dtype in which weights appear to the model, and so that of its activations.
    pub fn dtype(mut self, dtype: DType) -> Self {
        self.dtype = Some(dtype);
        self
    }

    /// The calls to serve.
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profile = Some(profile);
        self
    }

    /// Whether weights may stream under a budget. Without, all are resident and setting a budget
    /// is [`Error::NoStreaming`].
    pub fn weight_streaming(mut self, streaming: bool) -> Self {
        self.streaming = streaming;
        self
    }

    /// The first budget (default: automatic). Without streaming it is ignored.
    pub fn budget(mut self, budget: Request) -> Self {
        self.budget = budget;
        self
    }

    /// The most that the engine may hold on the device, in bytes, everything included.
    pub fn device_limit(mut self, bytes: u64) -> Self {
        self.limit = Some(bytes);
        self
    }

    /// How large the pieces are in which weights stream.
    pub fn tile_target(mut self, target: TileTarget) -> Self {
        self.tile_target = target;
        self
    }

    /// Whether calls that come again are recorded and replayed where all weights are copied to
    /// the device (default: yes). On a GPU this takes the cost of launching away from the host.
    pub fn replay(mut self, replay: bool) -> Self {
        self.replay = replay;
        self
    }

    /// How the memory of intermediate results is held (default: [`Allocation::Static`]).
    ///
    /// A strategy may be the caller's own:
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU64, Ordering};
    /// use std::sync::Arc;
    /// use trt_alloc::{Arena, Error, Pool, Strategy};
    /// # use candle_core::{DType, Device, Tensor};
    /// # use std::collections::HashMap;
    /// # use trt_engine::{Compiler, Profile, Weights};
    /// # use trt_graph::{Call, candle_nn::VarBuilder};
    ///
    /// /// Memory for each call, in whole pages, and the most that any call took.
    /// #[derive(Debug, Default)]
    /// struct Pages {
    ///     most: AtomicU64,
    /// }
    ///
    /// impl Strategy for Pages {
    ///     fn name(&self) -> &'static str {
    ///         "pages"
    ///     }
    ///
    ///     fn begin(&self, pool: &Pool, bytes: u64) -> Result<Arena, Error> {
    ///         let bytes = bytes.next_multiple_of(4096);
    ///         self.most.fetch_max(bytes, Ordering::Relaxed);
    ///         Arena::acquire(pool, bytes)
    ///     }
    ///
    ///     fn end(&self, arena: Arena) {
    ///         drop(arena); // gives the memory back
    ///     }
    /// }
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("model.safetensors");
    /// # let w = Tensor::ones(64, DType::F32, &Device::Cpu)?;
    /// # candle_core::safetensors::save(&HashMap::from([("scale", w)]), &path)?;
    /// let pages = Arc::new(Pages::default());
    /// let engine = Compiler::new(Weights::open(&path)?)
    ///     .profile(Profile::single(&[("rows", 1, 1000)])?)
    ///     .allocation(pages.clone())
    ///     .compile(|vb: VarBuilder| {
    ///         let scale = vb.get(64, "scale")?;
    ///         Ok(move |call: &Call| {
    ///             let x = call.input("x", (call.int("rows")?, 64), DType::F32)?;
    ///             Ok(vec![x.broadcast_mul(&scale)?.exp()?])
    ///         })
    ///     })?;
    /// let x = Tensor::zeros((30, 64), DType::F32, &Device::Cpu)?;
    /// engine.session()?.run(&[x])?;
    /// // One input and one output of 30 rows of 256 bytes; nothing of it is held any more.
    /// assert_eq!(pages.most.load(Ordering::Relaxed), 4 * 4096);
    /// assert_eq!(engine.memory().activations, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn allocation(mut self, allocation: impl Into<Allocation>) -> Self {
        self.allocation = allocation.into();
        self
    }

    /// Traces and compiles a model. `load` builds it from a variable builder; it runs a few times
    /// for each class of the profile, and reads no weight.
    pub fn compile<S: Step>(
        self,
        mut load: impl FnMut(VarBuilder) -> candle_core::Result<S>,
    ) -> Result<Engine, Error> {
        let device = self
            .device
            .clone()
            .unwrap_or_else(|| Arc::new(Host::unified()));
        let profile = match &self.profile {
            Some(p) => p.clone(),
            None => Profile::decoder(2048, 512)?,
        };
        let dtype = self.dtype.unwrap_or_else(|| common_dtype(&self.weights));
        let vb = VarBuilder::new(Arc::new(Source(self.weights.clone())), dtype);
        let mut report = CompileReport::default();
        let mut programs = Vec::with_capacity(profile.classes.len());
        for class in &profile.classes {
            let start = Instant::now();
            let graph = trt_graph::trace(&mut load, &vb, class)?;
            report.trace_seconds += start.elapsed().as_secs_f64();
            let start = Instant::now();
            let compiled = self.lower(graph, class.clone(), &*device, &mut report)?;
            report.compile_seconds += start.elapsed().as_secs_f64();
            programs.push(compiled);
        }
        agree(&programs)?;
        for (name, bytes) in large_pinned(&programs, &self.weights) {
            report.notes.push(format!(
                "weight {name} ({bytes} bytes) is not streamed: no matmul reads it by rows"
            ));
        }
        let (budget, streaming) = match self.streaming {
            true => (self.budget, true),
            false => (Request::Full, false),
        };
        let parts = Parts {
            device,
            weights: self.weights,
            profile,
            programs,
            report,
            streaming,
            budget,
            limit: self.limit,
            tile_target: self.tile_target,
            replay: self.replay,
            allocation: self.allocation,
        };
        Engine::new(parts)
    }

    fn lower(
        &self,
        graph: Graph,
        class: trt_graph::Class,
        device: &dyn Device,
        report: &mut CompileReport,
    ) -> Result<Compiled, Error> {
        let traced_nodes = graph.nodes.len();
        let (program, notes) = trt_graph::compile(graph)?;
        let weights = self.resolve(&program)?;
        let executables = program
            .launches
            .iter()
            .map(|l| device.load(&l.kernel))
            .collect::<Result<Vec<_>, _>>()?;
        let ranges: Vec<Interval> = class.ints.iter().map(|i| i.range).collect();
        let most = |bytes: &Dim| u64::try_from(bytes.bounds(&ranges).max).unwrap_or(0);
        let scratch = executables.iter().map(|e| e.scratch());
        let scratch: Vec<(Dim, u64)> = scratch.map(|s| (s.clone(), most(&s))).collect();
        let shape = ArenaShape::new(&program, &scratch, &class.name);
        let arena = Arc::new(shape.largest()?);
        let mut shape_vars: Vec<Var> = executables.iter().flat_map(|e| e.grid_vars()).collect();
        shape_vars.sort();
        shape_vars.dedup();
        report.classes.push(ClassReport {
            class: class.name.clone(),
            traced_nodes,
            nodes: notes.passes.last().map_or(traced_nodes, |p| p.after),
            passes: notes
                .passes
                .iter()
                .map(|p| (p.pass.to_string(), p.before, p.after))
                .collect(),
            launches: notes
                .kernels
                .iter()
                .map(|k| (k.kind.to_string(), k.ops.clone()))
                .collect(),
            stored: notes.stored,
            arena_bytes: arena.bytes,
            largest_live_bytes: arena.largest_live,
        });
        let uses = (0..program.launches.len())
            .map(|i| launch_uses(&program, i))
            .collect::<Result<_, _>>()?;
        Ok(Compiled {
            class,
            program,
            executables,
            shape_vars,
            shape,
            arena,
            weights,
            uses,
        })
    }

    /// The weight index's ids of a program's weights.
    fn resolve(&self, program: &Program) -> Result<Vec<WeightId>, Error> {
        let find =
            |w: &trt_graph::program::Weight| self.weights.require(&w.name, &w.shape, Some(w.dtype));
        Ok(program.weights.iter().map(find).collect::<Result<_, _>>()?)
    }
}

/// The dtype of most weight bytes.
fn common_dtype(weights: &Weights) -> DType {
    let mut sums = [(DType::F32, 0usize), (DType::BF16, 0), (DType::F16, 0)];
    for id in weights.ids() {
        let info = weights.info(id);
        let dtype = match info.dtype {
            trt_kernel::DType::BF16 => DType::BF16,
            trt_kernel::DType::F16 => DType::F16,
            _ => DType::F32,
        };
        sums.iter_mut()
            .filter(|s| s.0 == dtype)
            .for_each(|s| s.1 += info.bytes());
    }
    sums.into_iter()
        .max_by_key(|s| s.1)
        .map_or(DType::F32, |s| s.0)
}

/// How each argument of a launch is found.
fn launch_uses(program: &Program, launch: usize) -> Result<Vec<WeightUse>, Error> {
    let l = &program.launches[launch];
    let ranged = l.ranged_weight();
    let operand = match &l.kernel {
        trt_kernel::Kernel::Matmul(m) => Some(m.b.arg.0 as usize),
        _ => None,
    };
    let table = match &l.kernel {
        trt_kernel::Kernel::Gather(g) => Some(g.table.0 as usize),
        _ => None,
    };
    let uses = l.args.iter().enumerate().map(|(i, source)| match source {
        ArgSource::Buffer(b) => Ok(WeightUse::Buffer(*b)),
        ArgSource::Weight(_) if is_written(program, launch, i) => Err(Error::lower(format!(
            "launch {} writes to a weight",
            l.label
        ))),
        ArgSource::Weight(_) if ranged.is_some() && operand == Some(i) => Ok(WeightUse::Ranged),
        ArgSource::Weight(w) if table == Some(i) && !program.weight(*w).whole => {
            Ok(WeightUse::Rows(*w))
        }
        ArgSource::Weight(w) => Ok(WeightUse::Whole(*w)),
    });
    uses.collect()
}

/// Checks that all classes keep the same states.
fn agree(programs: &[Compiled]) -> Result<(), Error> {
    let Some(first) = programs.first() else {
        return Ok(());
    };
    for other in &programs[1..] {
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
        if first.program.inputs.len() != other.program.inputs.len() {
            return differ(format!(
                "inputs: {} and {}",
                first.program.inputs.len(),
                other.program.inputs.len()
            ));
        }
    }
    Ok(())
}

fn large_pinned(programs: &[Compiled], weights: &Weights) -> Vec<(String, usize)> {
    let whole = programs
        .iter()
        .flat_map(|p| p.program.weights.iter().zip(&p.weights));
    let ids: BTreeSet<WeightId> = whole.filter(|(w, _)| w.whole).map(|(_, id)| *id).collect();
    let sized = ids
        .into_iter()
        .map(|id| (weights.info(id).name.clone(), weights.info(id).bytes()));
    sized.filter(|(_, bytes)| *bytes > LARGE_PINNED).collect()
}
