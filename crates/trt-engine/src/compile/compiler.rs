//! What a compiler is told: where to run, for which calls, and how much it may take.

use super::limits::CompileLimits;
use crate::error::Error;
use candle_core::DType;
use std::sync::Arc;
use trt_alloc::Allocation;
use trt_device::Device;
use trt_graph::Profile;
use trt_stream::{Request, Store, TileTarget, Weights};

/// Compiles models; see the crate's documentation for an example. What is set here are the settings of
/// `torch_tensorrt.compile` in Torch-TensorRT; a model is built from a variable builder as in candle.
#[derive(Debug)]
pub struct Compiler {
    pub(super) weights: Arc<Weights>,
    pub(super) device: Option<Arc<dyn Device>>,
    pub(super) dtype: Option<DType>,
    pub(super) profile: Option<Profile>,
    pub(super) streaming: Option<bool>,
    pub(super) budget: Option<Request>,
    pub(super) limit: Option<u64>,
    pub(super) tile_target: TileTarget,
    pub(super) replay: bool,
    pub(super) allocation: Allocation,
    pub(super) limits: CompileLimits,
    pub(super) store: Store,
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
            store: Store::Memory,
        }
    }

    /// Where to run (default: the first CUDA device where there is one, else the host's memory in
    /// place; a CUDA device that is there but cannot be used is an error of
    /// [`compile`](Self::compile), so nobody runs on the CPU without knowing it). What was chosen is
    /// [`Engine::device`](crate::Engine::device)'s name. Each compiler opens a device of its own:
    /// engines that are to know of each other are given one with
    /// [`shared_device`](Self::shared_device).
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

    /// Whether weights may stream under a budget, `enable_weight_streaming` in Torch-TensorRT (default: if a [`budget`](Self::budget) or a
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

    /// The most that the engine may hold on the device, in bytes: all that
    /// [`Engine::device_limit`](crate::Engine::device_limit) counts. It implies weight streaming.
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

    /// How the memory of intermediate results is held (default: [`Allocation::Static`]; with
    /// [`Allocation::Dynamic`] it is as with `dynamically_allocate_resources` in Torch-TensorRT).
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

    /// Where weights are kept that model code derives of others: folded batch norms, joined, turned and scaled
    /// matrices. They are made once, on the host, and stream as the model's own do (default: in memory, which then holds them
    /// beside the files; in a folder they are made when a model is compiled for the first time, and again when
    /// its files change). How many there are, and where, is in [`CompileReport::derived`](crate::CompileReport::derived).
    pub fn store(mut self, store: Store) -> Self {
        self.store = store;
        self
    }

    /// The device that it was told of, or the default one.
    ///
    /// # Errors
    /// If there is a device that cannot be used.
    pub(super) fn device_or_default(&self) -> Result<Arc<dyn Device>, Error> {
        match &self.device {
            Some(device) => Ok(device.clone()),
            None => Ok(trt_device::open("auto")?),
        }
    }

    /// Whether weights stream.
    pub(super) fn streams(&self) -> bool {
        let implied = self.budget.is_some() || self.limit.is_some();
        self.streaming.unwrap_or(implied)
    }

    /// The first budget that is asked for.
    pub(super) fn first_budget(&self) -> Request {
        match self.streams() {
            true => self.budget.unwrap_or(Request::Automatic),
            false => Request::Full,
        }
    }

    /// Whether what was asked for can be had together.
    ///
    /// # Errors
    /// [`Error::BudgetWithoutStreaming`] if it cannot.
    pub(super) fn check_options(&self) -> Result<(), Error> {
        match self.budget {
            Some(budget) if !self.streams() && budget != Request::Full => {
                Err(Error::BudgetWithoutStreaming { budget })
            }
            _ => Ok(()),
        }
    }
}
