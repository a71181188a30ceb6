//! Run candle models in less device memory than their weights take.
//!
//! candle-trt compiles models written against candle's API into fused kernels and runs them under
//! a budget of device memory: weights stay in memory-mapped safetensors files, what fits the
//! budget is resident, the rest streams through a small ring ahead of its use. The budget can
//! change between any two calls, and results are the same bits at every budget.
//!
//! A model is ported by changing its `use` lines from `candle_core` and `candle_nn` to
//! [`candle`] and [`candle_nn`]; [`models`] has ready ones.
//!
//! ```no_run
//! use candle_trt::models::{DecoderConfig, Llama};
//! use candle_trt::{Compiler, Request, Weights, device};
//!
//! let weights = Weights::open("SmolLM2-135M-Instruct/")?; // mmapped; nothing is read
//! let config = DecoderConfig::from_file("SmolLM2-135M-Instruct/config.json")?;
//! let engine = Compiler::new(weights)
//!     .shared_device(device::open("auto")?) // CUDA where there is one, else the host: the default
//!     .weight_streaming(true)
//!     .compile(|vb| Llama::load(vb, &config))?; // plain candle code
//!
//! let mut session = engine.session()?;
//! let mut streaming = engine.weight_streaming()?; // restores the budget when dropped
//! let applied = streaming.set_device_budget("64MiB".parse::<Request>()?)?;
//! println!("{} of {} bytes, floor {}", applied.applied, applied.total, applied.floor);
//! let logits = session.prefill(&[1, 2, 3])?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The crates below, from the face down: `trt-engine` (compile, sessions, budgets),
//! `trt-graph` (symbolic tensors, passes, lowering), `trt-stream` (weights, tiles, schedule),
//! `trt-alloc` (planning, the bounded pool), `trt-device` (where it runs), `trt-kernel` (how a
//! kernel computes).
#![forbid(unsafe_code)]

pub use trt_engine::{
    Allocation, Applied, Class, ClassReport, CompileLimits, CompileReport, Compiler, Costs,
    DerivedReport, DeviceBudget, DeviceShares, Engine, EngineShare, Error, FromTensors,
    MemoryReport, PackedReport, Percent, Prediction, Pressure, Priority, Profile, ProfileBuilder,
    Rates, Request, ResourceAllocation, SavedError, Session, Shared, Shrink, TileTarget, Traffic,
    WeightRead, WeightStreaming, Weights, trim_host_memory,
};
pub use trt_graph::{Call, Step, candle, candle_nn, candle_transformers};
pub use trt_models as models;
pub use trt_stream::{NameError, PackOptions, Store, StoreError, plain_name};

/// Graphs, passes and programs: for those who look inside or extend the compiler.
pub use trt_graph as graph;

/// Devices to run on, and what the process holds.
pub mod device {
    pub use trt_device::{
        AnonPeak, Call, Claim, ControlGroups, Cuda, Device, DeviceId, Error, Event, Executable,
        ExecutableInfo, Ferry, Graph, Host, HostFallback, HostMode, Info, LaunchError, MappedFile,
        Memory, OverStream, OwnedStream, Paging, ProcessMemory, Residency, Room, Slice, Stream,
        Tiles, Transfers, Work, host_team, open,
    };
}

/// Memory planning and allocation strategies.
pub use trt_alloc as alloc;
/// The kernel language and its back ends.
pub use trt_kernel as kernel;
/// Weight files, tiles, schedules and the streaming executor.
pub use trt_stream as stream;
