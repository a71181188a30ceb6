//! From model code, or a saved engine, and weights to an engine.
//!
//! Each class of the profile is traced and lowered to a program of its own; all share states,
//! weights and constants. Weights that they derive of others are made first ([`derived`](super::derived)). What a weight is used for decides where it lives: operands of ranged
//! matmuls stream, tables that are only gathered stay on the host, the rest is pinned.

use super::compiler::Compiler;
use super::contents::Contract;
use super::derived::{self, Recipes, with_derived};
use super::limits::{DeviceNeeds, Watch, compiling, loading};
use super::make::{Prepared, make};
use super::packed::{packed, told};
use super::ready::{
    Found, HasProgram, Lowered, agree, code_bytes, find, large_pinned, ready, with_values,
};
use super::saved::Opened;
use super::source::ModelWeights;
use crate::error::Error;
use crate::report::{ClassReport, CompileReport};
use crate::run::engine::Engine;
use crate::run::program::Recipe;
use candle_core::DType;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use trt_device::{Host, Residency};
use trt_graph::candle_nn::VarBuilder;
use trt_graph::passes::{derive, optimise};
use trt_graph::{Profile, Report, Step, Traced};
use trt_stream::{Request, Weights};

impl Compiler {
    /// Traces and compiles a model. `load` builds it from a variable builder; it runs a few times
    /// for each class of the profile. It reads no weight but small ones whose values its code asks for
    /// ([`CompileReport::read`]). Where its code differs within a class, the class is split
    /// ([`CompileReport::splits`]). Its counterpart in Torch-TensorRT is
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
        let source = Arc::new(ModelWeights::new(self.weights.clone()));
        let vb = VarBuilder::new(source.clone(), dtype);
        let mut report = CompileReport::default();
        let (mut lowered, mut recipes) = (Vec::new(), Recipes::default());
        let start = Instant::now();
        let Traced {
            profile,
            graphs,
            splits,
        } = trt_graph::trace_profile(&mut load, &vb, &profile)?;
        report.splits = splits;
        report.read = source.read();
        report.trace_seconds = start.elapsed().as_secs_f64();
        watch.check("tracing")?;
        for (class, graph) in profile.classes.iter().zip(graphs) {
            let start = Instant::now();
            let mut of_class = ClassReport::of_trace(class, &graph);
            let (graph, passes) = optimise(graph)?;
            let (graph, derived) = derive(graph)?;
            recipes.add(derived)?;
            let (program, notes) = trt_graph::lower(&graph)?;
            of_class.add(Report { passes, ..notes });
            lowered.push(Lowered {
                class: class.clone(),
                program,
                offsets: None,
            });
            report.classes.push(of_class);
            report.compile_seconds += start.elapsed().as_secs_f64();
            watch.check(&format!("class {}", class.name))?;
        }
        let routes = |(kind, _): &(String, Vec<String>)| kind == "routed";
        if report.classes.iter().any(|c| c.launches.iter().any(routes)) {
            report.notes.push(
                "every call fetches the weights of all experts; a row is multiplied by its own alone"
                    .into(),
            );
        }
        let plan = Plan {
            dtype,
            profile,
            lowered,
            recipes: recipes.finish(),
            report,
        };
        self.engine(plan, watch)
    }

    /// Loads what [`Engine::save`] saved, which takes a fraction of the time of compiling. The
    /// weights must be those that it was compiled for: names, shapes, dtypes and places in the
    /// files are compared, contents only of what model code read ([`CompileReport::read`]). The device, budgets and everything else that is set
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
        saved.holds_for(&self.weights).map_err(refuse)?;
        let dtype = saved.dtype().map_err(refuse)?;
        let profile = saved.profile();
        saved
            .agrees(self.dtype, self.profile.as_ref())
            .map_err(refuse)?;
        let mut report = CompileReport {
            loaded: true,
            notes: saved.notes,
            read: saved.read,
            splits: saved.splits,
            ..CompileReport::default()
        };
        saved
            .recipes
            .iter()
            .try_for_each(derived::check)
            .map_err(refuse)?;
        let mut lowered = Vec::with_capacity(saved.classes.len());
        for mut of_class in saved.classes {
            lowered.push(of_class.lowered().map_err(refuse)?);
            report.classes.push(of_class.report);
        }
        report.compile_seconds = start.elapsed().as_secs_f64();
        watch.check("reading the saved engine")?;
        let plan = Plan {
            dtype,
            profile,
            lowered,
            recipes: saved.recipes,
            report,
        };
        self.engine(plan, watch)
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

    fn engine(self, plan: Plan, watch: Watch) -> Result<Engine, Error> {
        let Plan {
            dtype,
            profile,
            lowered,
            recipes,
            mut report,
        } = plan;
        let start = Instant::now();
        watch.expect(derived::host_bytes(&recipes), "deriving weights of others")?;
        let run = |recipe: &Recipe| made_by(recipe, &self.weights);
        let (weights, derived) = with_derived(&self.weights, &recipes, &self.store, &run)?;
        report.derived = derived;
        report.compile_seconds += start.elapsed().as_secs_f64();
        watch.check("deriving weights of others")?;
        let found = lowered.into_iter().map(|l| find(l, &weights));
        let mut found = found.collect::<Result<Vec<_>, _>>()?;
        if !report.loaded {
            let large = large_pinned(&found, &weights).into_iter();
            report.notes.splice(
                0..0,
                large.map(|(name, bytes)| {
                    format!(
                        "weight {name} ({bytes} bytes) is not streamed: no matmul reads it by rows"
                    )
                }),
            );
        }
        agree(&found)?;
        let files = with_values(&mut found, &weights)?;
        let values = files.total_bytes() - weights.total_bytes();
        if values > 0 {
            report.notes.push(format!(
                "weights in blocks that are used in one piece take {values} bytes as their values"
            ));
        }
        let packed = packed(&mut found, &files)?;
        report.packed = told(&packed, &files);
        let mut contract = Contract::of(&found, &packed, &files);
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
            recipes,
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

/// What an engine is made of, whether it was traced or read.
struct Plan {
    dtype: DType,
    profile: Profile,
    lowered: Vec<Lowered>,
    recipes: Vec<Recipe>,
    report: CompileReport,
}

/// The weight that a recipe gives: the host runs it on these weights.
///
/// # Errors
/// Those of [`Compiler::load`], but for reading.
fn made_by(recipe: &Recipe, weights: &Arc<Weights>) -> Result<Vec<u8>, Error> {
    let plan = Plan {
        dtype: DType::F32,
        profile: derived::profile(),
        lowered: vec![derived::lowered(recipe)],
        recipes: Vec::new(),
        report: CompileReport {
            classes: vec![ClassReport::default()],
            ..CompileReport::default()
        },
    };
    let compiler = Compiler::new(weights.clone())
        .device(Host::unified())
        .replay(false);
    let watch = Watch::start(None, || Ok((0, String::new())))?;
    let mut results = compiler.engine(plan, watch)?.session()?.results()?;
    Ok(results.pop().unwrap_or_default())
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
