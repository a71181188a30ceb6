//! From model code and weights to an engine.
//!
//! Each class of the profile is traced and lowered to a program of its own; all share states,
//! weights and constants. What a weight is used for decides where it lives: operands of ranged
//! matmuls stream, tables that are only gathered stay on the host, the rest is pinned.

use crate::contents::Contract;
use crate::engine::{Engine, Parts};
use crate::limits::{CompileLimits, DeviceNeeds, Watch, compiling, loading};
use crate::ready::{Found, HasProgram, Lowered, agree, code_bytes, find, large_pinned, ready};
use crate::report::{ClassReport, CompileReport};
use crate::saved::Opened;
use crate::source::Source;
use crate::{Allocation, Error, Profile, Request, TileTarget, Weights};
use candle_core::DType;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use trt_device::{Device, Residency};
use trt_graph::Step;
use trt_graph::candle_nn::VarBuilder;

/// Compiles models; see the crate's documentation for an example.
#[derive(Debug)]
pub struct Compiler {
    weights: Arc<Weights>,
    device: Option<Arc<dyn Device>>,
    dtype: Option<DType>,
    profile: Option<Profile>,
    streaming: Option<bool>,
    budget: Option<Request>,
    limit: Option<u64>,
    tile_target: TileTarget,
    replay: bool,
    allocation: Allocation,
    limits: CompileLimits,
}

impl Compiler {
    /// A compiler for models with these weights. Defaults: the device that [`trt_device::open`] calls
    /// `auto`, the dtype in which most weight bytes are stored, a decoder profile of 2048 positions
    /// in calls of up to 512, no weight streaming.
    pub fn new(weights: impl Into<Arc<Weights>>) -> Self {
        Compiler {
            weights: weights.into(),
            device: None,
            dtype: None,
            profile: None,
            streaming: None,
            budget: None,
            limit: None,
            tile_target: TileTarget::default(),
            replay: true,
            allocation: Allocation::Static,
            limits: CompileLimits::default(),
        }
    }

    /// Where to run (default: the first CUDA device where there is one, else the host's memory in
    /// place; a CUDA device that is there but cannot be used is an error of
    /// [`compile`](Self::compile), so nobody runs on the CPU without knowing it). What was chosen is
    /// [`Engine::device`]'s name. Each compiler opens a device of its own: engines that are to know of
    /// each other are given one with [`shared_device`](Self::shared_device).
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

    /// Whether weights may stream under a budget (default: if a [`budget`](Self::budget) or a
    /// [`device_limit`](Self::device_limit) is given). Without, all are resident, setting a budget
    /// is [`Error::NoStreaming`], and one that is given here other than [`Request::Full`] is
    /// [`Error::BudgetWithoutStreaming`].
    pub fn weight_streaming(mut self, streaming: bool) -> Self {
        self.streaming = Some(streaming);
        self
    }

    /// The first budget (default: automatic). It implies weight streaming.
    pub fn budget(mut self, budget: Request) -> Self {
        self.budget = Some(budget);
        self
    }

    /// The most that the engine may hold on the device, in bytes: all that [`Engine::device_limit`]
    /// counts. It implies weight streaming.
    ///
    /// **Without a budget, or with an automatic one, the budget is the largest that fits**: what the
    /// limit leaves for weights, as far as the device has it, at most all of them; less than the
    /// floor is [`Error::LimitTooSmall`]. Any other first budget is what was asked for if it fits,
    /// else [`Error::LimitBelowBudget`].
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
    /// # use trt_device::Host;
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
    ///     .device(Host::unified())
    ///     .profile(Profile::single(&[("rows", 2, 1000)])?)
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

    /// Bounds what compiling and loading may take. What cannot be done within the limits is
    /// [`Error::CompileLimit`], which names the shortfall. For the device it comes after the model was
    /// traced and lowered (or read), but before a kernel is loaded, a stream made or memory asked
    /// for; only where nothing but the kernels' own working memory or the gaps of the plan exceed the
    /// limit are kernels loaded first. For the host it comes before work starts as far as that can
    /// be told from the weight index and the profile, or from the length of a saved engine, else
    /// after the class of calls, or the step of loading, that took more. What was taken is in the
    /// report.
    pub fn limits(mut self, limits: CompileLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Traces and compiles a model. `load` builds it from a variable builder; it runs a few times
    /// for each class of the profile, and reads no weight.
    pub fn compile<S: Step>(
        self,
        mut load: impl FnMut(VarBuilder) -> candle_core::Result<S>,
    ) -> Result<Engine, Error> {
        self.check_options()?;
        let profile = match &self.profile {
            Some(p) => p.clone(),
            None => Profile::decoder(2048, 512)?,
        };
        let estimate = || compiling(&self.weights, &profile);
        let watch = Watch::start(self.limits.host_bytes, estimate)?;
        let dtype = self.dtype.unwrap_or_else(|| common_dtype(&self.weights));
        let vb = VarBuilder::new(Arc::new(Source(self.weights.clone())), dtype);
        let mut report = CompileReport::default();
        let mut found = Vec::with_capacity(profile.classes.len());
        for class in &profile.classes {
            let start = Instant::now();
            let graph = trt_graph::trace(&mut load, &vb, class)?;
            report.trace_seconds += start.elapsed().as_secs_f64();
            let start = Instant::now();
            let mut of_class = ClassReport::of_trace(class, &graph);
            let (program, notes) = trt_graph::compile(graph)?;
            of_class.add(notes);
            let lowered = Lowered {
                class: class.clone(),
                program,
                offsets: None,
            };
            found.push(find(lowered, &self.weights)?);
            report.classes.push(of_class);
            report.compile_seconds += start.elapsed().as_secs_f64();
            watch.check(&format!("class {}", class.name))?;
        }
        for (name, bytes) in large_pinned(&found, &self.weights) {
            report.notes.push(format!(
                "weight {name} ({bytes} bytes) is not streamed: no matmul reads it by rows"
            ));
        }
        self.engine(dtype, profile, found, report, watch)
    }

    /// Loads what [`Engine::save`] saved, which takes a fraction of the time of compiling. The
    /// weights must be those that it was compiled for: names, shapes, dtypes and places in the
    /// files are compared, contents are not. The device, budgets and everything else that is set
    /// here is as for [`compile`](Self::compile), but a profile or dtype is the file's, and one
    /// that was set here must agree with it.
    ///
    /// # Errors
    ///
    /// A file that is damaged, cut short, of another kind or of another version is
    /// [`Error::Saved`], as is a pipe, a device or a folder in its place. Nothing is read but the
    /// header, and no memory taken, before the header is known to be of this version and of these
    /// weights.
    pub fn load(self, path: impl AsRef<Path>) -> Result<Engine, Error> {
        let start = Instant::now();
        let path = path.as_ref();
        let refuse = |source| Error::saved(path, source);
        self.check_options()?;
        let opened = Opened::new(path, self.weights.fingerprint()).map_err(refuse)?;
        let estimate = || loading(opened.len as u64);
        let watch = Watch::start(self.limits.host_bytes, estimate)?;
        let saved = opened.read().map_err(refuse)?;
        let dtype = saved.dtype().map_err(refuse)?;
        let profile = saved.profile();
        saved
            .agrees(self.dtype, self.profile.as_ref())
            .map_err(refuse)?;
        let mut report = CompileReport {
            loaded: true,
            notes: saved.notes,
            ..CompileReport::default()
        };
        let mut found = Vec::with_capacity(saved.classes.len());
        for mut of_class in saved.classes {
            let lowered = of_class.lowered().map_err(refuse)?;
            found.push(find(lowered, &self.weights)?);
            report.classes.push(of_class.report);
        }
        report.compile_seconds = start.elapsed().as_secs_f64();
        watch.check("reading the saved engine")?;
        self.engine(dtype, profile, found, report, watch)
    }

    fn device_or_default(&self) -> Result<Arc<dyn Device>, Error> {
        match &self.device {
            Some(device) => Ok(device.clone()),
            None => Ok(trt_device::open("auto")?),
        }
    }

    /// Whether weights stream.
    fn streams(&self) -> bool {
        let implied = self.budget.is_some() || self.limit.is_some();
        self.streaming.unwrap_or(implied)
    }

    /// The first budget that is asked for.
    fn first_budget(&self) -> Request {
        match self.streams() {
            true => self.budget.unwrap_or(Request::Automatic),
            false => Request::Full,
        }
    }

    /// Whether what was asked for can be had together.
    fn check_options(&self) -> Result<(), Error> {
        match self.budget {
            Some(budget) if !self.streams() && budget != Request::Full => {
                Err(Error::BudgetWithoutStreaming { budget })
            }
            _ => Ok(()),
        }
    }

    /// What the device must hold with an arena of so many bytes.
    fn needs<P: HasProgram>(
        &self,
        programs: &[P],
        contract: &Contract,
        arena: Option<u64>,
        residency: Residency,
    ) -> Result<DeviceNeeds, Error> {
        let (arena, budget) = (arena.unwrap_or(1), self.first_budget());
        let target = self.tile_target;
        DeviceNeeds::of(programs, contract, arena, residency, target, budget)
    }

    fn engine(
        self,
        dtype: DType,
        profile: Profile,
        found: Vec<Found>,
        mut report: CompileReport,
        watch: Watch,
    ) -> Result<Engine, Error> {
        agree(&found)?;
        let mut contract = Contract::of(&found, &self.weights);
        if self.limits.device_bytes.is_some() {
            let arena = found.iter().map(Found::least_arena).max();
            // No device needs less than one that copies weights.
            let least = self.needs(&found, &contract, arena, Residency::Copied)?;
            least.check_least(self.limits.device_bytes)?;
        }
        let start = Instant::now();
        let device = self.device_or_default()?;
        let numbers = std::mem::take(&mut contract.numbers);
        let classes = found.into_iter().zip(numbers).zip(&mut report.classes);
        let programs = classes.map(|((found, ids), class)| ready(found, ids, &*device, class));
        let programs = programs.collect::<Result<Vec<_>, _>>()?;
        report.compile_seconds += start.elapsed().as_secs_f64();
        watch.check("loading kernels")?;
        let arena = programs.iter().map(|p| p.arena.bytes).max();
        let mut needs = self.needs(&programs, &contract, arena, device.info().residency)?;
        needs.code = code_bytes(&programs);
        needs.check(self.limits.device_bytes)?;
        // An automatic budget follows the limit.
        if self.first_budget() != Request::Automatic {
            needs.check_budget(self.limit)?;
        }
        let parts = Parts {
            device,
            budget: self.first_budget(),
            streaming: self.streams(),
            files: self.weights,
            contract,
            dtype,
            profile,
            programs,
            report,
            needs,
            limit: self.limit,
            compile_limit: self.limits.device_bytes,
            tile_target: self.tile_target,
            replay: self.replay,
            allocation: self.allocation,
        };
        Engine::new(parts, watch)
    }
}

/// The dtype of most weight bytes.
fn common_dtype(weights: &Weights) -> DType {
    let mut sums = [(DType::F32, 0usize), (DType::BF16, 0), (DType::F16, 0)];
    for (_, info) in weights.iter() {
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
