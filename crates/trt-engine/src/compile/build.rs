//! From model code, or a saved engine, and weights to an engine.
//!
//! Each class of the profile is traced and lowered to a program of its own; all share states,
//! weights and constants. What a weight is used for decides where it lives: operands of ranged
//! matmuls stream, tables that are only gathered stay on the host, the rest is pinned.

use super::compiler::Compiler;
use super::contents::Contract;
use super::limits::{DeviceNeeds, Watch, compiling, loading};
use super::make::{Prepared, make};
use super::ready::{
    Found, HasProgram, Lowered, agree, code_bytes, find, large_pinned, ready, with_values,
};
use super::saved::Opened;
use super::source::ModelWeights;
use crate::error::Error;
use crate::report::{ClassReport, CompileReport};
use crate::run::engine::Engine;
use candle_core::DType;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use trt_device::Residency;
use trt_graph::candle_nn::VarBuilder;
use trt_graph::{Profile, Step};
use trt_stream::{Request, Weights};

impl Compiler {
    /// Traces and compiles a model. `load` builds it from a variable builder; it runs a few times
    /// for each class of the profile, and reads no weight. Its counterpart in Torch-TensorRT is
    /// `torch_tensorrt.compile`.
    ///
    /// # Errors
    /// [`Error::BudgetWithoutStreaming`] for options that exclude each other; [`Error::Graph`] or
    /// [`Error::Weights`] for a model that cannot be traced or lowered, or whose weights are not there;
    /// [`Error::Classes`] if its classes keep different states; [`Error::CompileLimit`],
    /// [`Error::LimitBelowBudget`] or [`Error::LimitTooSmall`] for what is not within the limits; what the
    /// device fails with, or has no memory for.
    pub fn compile<S: Step>(
        self,
        mut load: impl FnMut(VarBuilder<'static>) -> candle_core::Result<S>,
    ) -> Result<Engine, Error> {
        self.check_options()?;
        let profile = match &self.profile {
            Some(p) => p.clone(),
            None => Profile::decoder(2048, 512)?,
        };
        let estimate = || compiling(&self.weights, &profile);
        let watch = Watch::start(self.limits.host_bytes, estimate)?;
        let dtype = self.dtype.unwrap_or_else(|| common_dtype(&self.weights));
        let vb = VarBuilder::new(Arc::new(ModelWeights::new(self.weights.clone())), dtype);
        let mut report = CompileReport::default();
        let mut found = Vec::with_capacity(profile.classes.len());
        let start = Instant::now();
        let graphs = trt_graph::trace_profile(&mut load, &vb, &profile)?;
        report.trace_seconds = start.elapsed().as_secs_f64();
        watch.check("tracing")?;
        for (class, graph) in profile.classes.iter().zip(graphs) {
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
        let routes = |(kind, _): &(String, Vec<String>)| kind == "routed";
        if report.classes.iter().any(|c| c.launches.iter().any(routes)) {
            report.notes.push(
                "every call fetches the weights of all experts; a row is multiplied by its own alone"
                    .into(),
            );
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
    /// [`Error::Saved`], as is a pipe, a device or a folder in its place; else those of
    /// [`compile`](Self::compile) but for tracing. Nothing is read but the
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
        mut found: Vec<Found>,
        mut report: CompileReport,
        watch: Watch,
    ) -> Result<Engine, Error> {
        agree(&found)?;
        let files = with_values(&mut found, &self.weights)?;
        let values = files.total_bytes() - self.weights.total_bytes();
        if values > 0 {
            report.notes.push(format!(
                "weights in blocks that are used in one piece take {values} bytes as their values"
            ));
        }
        let mut contract = Contract::of(&found, &files);
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
        let prepared = Prepared {
            device,
            budget: self.first_budget(),
            streaming: self.streams(),
            files,
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
        make(prepared, watch)
    }
}

/// The dtype of most weight bytes.
fn common_dtype(weights: &Weights) -> DType {
    let mut sums = [(DType::F32, 0usize), (DType::BF16, 0), (DType::F16, 0)];
    for (_, info) in weights.iter() {
        let dtype = match info.dtype() {
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
