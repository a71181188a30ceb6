//! Compile a candle-style model and run it under a device budget.
//!
//! A [`Compiler`] traces a model, makes programs of it and gives an [`Engine`]: the programs,
//! the weights and the memory of one device. A [`Session`] is one conversation with the engine,
//! with states (key-value caches) of its own; several sessions take turns. How many bytes of
//! weights stay on the device is the engine's *budget*: it can be changed between any two
//! calls, for good or in the scope of a [`WeightStreaming`] guard, and never changes a bit of any
//! result. How the memory of intermediate results is held, for the life of the engine, for each
//! call, or by several engines together, is its [`Allocation`].
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use std::collections::HashMap;
//! use trt_device::Host;
//! use trt_engine::{Compiler, Profile, Request, Weights};
//! use trt_graph::{Call, candle, candle_nn};
//! use candle_nn::Module;
//!
//! // A file with one matrix.
//! let dir = tempfile::tempdir()?;
//! let path = dir.path().join("model.safetensors");
//! let w = Tensor::randn(0f32, 1., (256, 64), &Device::Cpu)?;
//! candle_core::safetensors::save(&HashMap::from([("proj.weight".to_string(), w.clone())]), &path)?;
//!
//! // Candle code over symbolic tensors; rows are known when the engine is called.
//! let engine = Compiler::new(Weights::open(&path)?)
//!     .device(Host::unified())
//!     .profile(Profile::single(&[("rows", 1, 32)])?)
//!     .weight_streaming(true)
//!     .compile(|vb: candle_nn::VarBuilder| {
//!         let proj = candle_nn::linear_no_bias(64, 256, vb.pp("proj"))?;
//!         Ok(move |call: &Call| {
//!             let x = call.input("x", (call.int("rows")?, 64), DType::F32)?;
//!             Ok(vec![proj.forward(&x)?.silu()?])
//!         })
//!     })?;
//!
//! let applied = engine.set_device_budget(Request::Minimum)?;
//! assert_eq!(applied.applied, engine.minimum_device_budget());
//! let x = Tensor::randn(0f32, 1., (5, 64), &Device::Cpu)?;
//! let out = engine.session()?.run(&[x.clone()])?;
//! let expected = x.matmul(&w.t()?)?.silu()?;
//! let worst = (&out[0] - &expected)?.abs()?.max_all()?.to_scalar::<f32>()?;
//! assert!(worst < 1e-4);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

// Arrows go one way, between the folders (compile -> budget -> run -> report, error) and between files.
mod budget;
mod compile;
mod error;
mod report;
mod run;

pub use budget::allocation::ResourceAllocation;
pub use budget::device_budget::{DeviceBudget, DeviceShares, EngineShare, Priority};
pub use budget::guard::WeightStreaming;
pub use compile::compiler::Compiler;
pub use compile::limits::CompileLimits;
pub use compile::tensors::FromTensors;
pub use error::{Error, SavedError};
pub use report::{
    ClassReport, CompileReport, DerivedReport, MemoryReport, PackedReport, Pressure, Shrink,
    WeightRead,
};
pub use run::engine::Engine;
pub use run::session::Session;
pub use trt_alloc::{Allocation, Shared};
pub use trt_device::trim_host_memory;
pub use trt_graph::{Class, Profile, ProfileBuilder};
pub use trt_stream::{
    Applied, Costs, Metadata, Percent, Prediction, Rates, Request, Store, TileTarget, Traffic,
    Weights,
};
