//! A case in an engine beside candle.
//!
//! One engine runs all calls of a way twice, with all weights resident and at a quarter of them (or at its floor, if that
//! is more). The second must give the bits of the first, the first what candle gives. In another dtype than f32, in which
//! candle's own sums round elsewhere, the first is held to what the host gives in that dtype.

use crate::oracle::{self, LAYERS, Results};
use crate::ours::cases::{Args, CLOSE_IN_BLOCKS, Case, Loader};
use crate::spec::{Called, Input, Values, Way};
use crate::weights::Made;
use crate::{Fault, theirs, values};
use candle_core::{DType, Tensor};
use candle_trt::candle::Result as Traced;
use candle_trt::{Call, Compiler, Engine, FromTensors, Percent, Request, Weights, device};
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The device of the table: weights are copied as a GPU would have them copied.
pub const HOST: &str = "host-discrete";

/// Where engines run, and the dtype of weights and of inputs that are not integers.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// A device's name.
    pub device: &'a str,
    /// f32 of the table; bf16 and f16 are other models.
    pub dtype: DType,
}

impl Target<'_> {
    /// What the table is made of.
    pub const TABLE: Target<'static> = Target {
        device: HOST,
        dtype: DType::F32,
    };

    /// Whether it is [`Self::TABLE`].
    pub fn is_table(self) -> bool {
        self.device == HOST && self.dtype == DType::F32
    }
}

/// Two devices differ by so much of the largest value at most where activations are rounded to 8 or 11 bits.
const CLOSE_ROUNDED: f32 = 3e-2;

/// That a way of calling a model gives what candle gives.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Held {
    /// How far off the worst result is, of the largest in its tensor.
    pub off: f32,
    /// Launches of a call, by class.
    pub launches: Vec<usize>,
    /// The least bytes of weights that may be on the device, and all of them.
    pub floor: (u64, u64),
}

/// The first line of what is said, which is what a table has room for.
pub fn line(said: &impl Display) -> String {
    let said = said.to_string();
    let lines = said.lines().map(str::trim).filter(|l| !l.is_empty());
    lines.take(1).collect()
}

/// Compares all calls of a way on a target.
///
/// # Errors
///
/// A [`Fault`] if there is nothing to compare, or it differs.
pub fn hold(
    ours: &Case,
    theirs: &theirs::cases::Case,
    way: &Way,
    target: Target<'_>,
) -> Result<Held, Fault> {
    let (want, made) = guarded(Fault::Oracle, || oracle::results(theirs, way))?;
    let engine_on = |target| {
        guarded(Fault::Compile, || {
            engine(ours, way, &made, (LAYERS, target))
        })
    };
    let tolerance = match (&ours.load, target.dtype) {
        (Loader::Plain(_), DType::F32) => ours.spec.tolerance,
        (Loader::Blocks(..), DType::F32) => ours.spec.tolerance.max(CLOSE_IN_BLOCKS),
        _ => CLOSE_ROUNDED,
    };
    let engine = engine_on(target)?;
    let want = match target.dtype {
        DType::F32 => want,
        dtype => {
            let host = engine_on(Target {
                device: HOST,
                dtype,
            })?;
            guarded(Fault::Oracle, || run(ours, way, (&host, dtype)))?
        }
    };
    guarded(Fault::Run, || {
        compare(ours, way, (&engine, target.dtype), (&want, tolerance))
    })
}

/// Launches of each class with one layer more than with one, if layers can be chosen.
///
/// # Errors
///
/// As [`hold`].
pub fn launches(ours: &Case, theirs: &theirs::cases::Case, way: &Way) -> Result<Vec<usize>, Fault> {
    let (_, made) = guarded(Fault::Oracle, || oracle::results(theirs, way))?;
    let count = |layers| {
        let engine = guarded(Fault::Compile, || {
            engine(ours, way, &made, (layers, Target::TABLE))
        })?;
        Ok::<_, Fault>(launched(&engine))
    };
    let (one, two) = (count(1)?, count(LAYERS)?);
    Ok(one
        .iter()
        .zip(two)
        .map(|(one, two)| two.saturating_sub(*one))
        .collect())
}

fn launched(engine: &Engine) -> Vec<usize> {
    let classes = &engine.report().classes;
    classes.iter().map(|c| c.launches.len()).collect()
}

/// What runs, with a panic as a fault of its kind.
pub fn guarded<T>(
    kind: fn(String) -> Fault,
    run: impl FnOnce() -> Result<T, Fault>,
) -> Result<T, Fault> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied());
            Err(kind(format!("panics: {}", line(&text.unwrap_or("?")))))
        }
    }
}

/// An engine of a case with so many layers, on a device by its name.
pub(crate) fn engine(
    case: &Case,
    way: &Way,
    made: &Made,
    (layers, target): (usize, Target<'_>),
) -> Result<Engine, Fault> {
    let failed = |e: candle_trt::Error| Fault::Compile(line(&e));
    let other = |e: &dyn Display| Fault::Compile(line(&e));
    let device = device::open(target.device).map_err(|e| other(&e))?;
    // A file is mapped when it was opened, so its folder may go with this call.
    let folder = tempfile::tempdir().map_err(|e| other(&e))?;
    let weights = match &case.load {
        Loader::Plain(_) => Weights::from_tensors(made.tensors()).map_err(failed)?,
        Loader::Blocks(..) => {
            let path = folder.path().join("model.gguf");
            std::fs::write(&path, made.file().bytes).map_err(|e| other(&e))?;
            Weights::open(&path).map_err(|e| other(&e))?
        }
    };
    Compiler::new(weights)
        .shared_device(device)
        .dtype(target.dtype)
        .profile(way.profile().map_err(|e| other(&e))?)
        .weight_streaming(true)
        .compile(|vb| {
            let mut model = match &case.load {
                Loader::Plain(load) => load(vb, layers)?,
                Loader::Blocks(_, load) => load(vb.into(), layers)?,
            };
            Ok(move |call: &Call<'_>| model(&declared(case, way, call, target.dtype)?))
        })
        .map_err(failed)
}

/// The inputs of a call that is traced.
pub fn declared(case: &Case, way: &Way, call: &Call<'_>, floats: DType) -> Traced<Args> {
    let size = |name: &str| match way.fixed.iter().find(|(n, _)| *n == name) {
        Some((_, size)) => Ok(*size),
        None => call.int(name),
    };
    let input = |i: &Input| {
        let sizes = i.shape.iter().map(|s| s.of(size));
        let dtype = match i.values {
            Values::Tokens(_) | Values::Same(_) | Values::Kept => DType::U32,
            Values::Noise | Values::All(_) => floats,
        };
        call.input(i.name, sizes.collect::<Traced<Vec<usize>>>()?, dtype)
    };
    let inputs = case.spec.inputs.iter().map(input).collect::<Traced<_>>()?;
    let past = call.positions().map_or(0, |(past, _)| past);
    Ok(Args { inputs, past })
}

/// All calls, as the values of each result.
fn run(case: &Case, way: &Way, (engine, dtype): (&Engine, DType)) -> Result<Results, Fault> {
    let failed = |e: candle_trt::Error| Fault::Run(line(&e));
    let session = |calls: Vec<Called>| {
        let mut session = engine.session().map_err(failed)?;
        let call = |call: &Called| {
            let inputs = values::inputs(&case.spec.inputs, call, dtype);
            session
                .run(&inputs.map_err(|e| Fault::Run(line(&e)))?)
                .map_err(failed)
        };
        calls.iter().map(call).collect()
    };
    way.sessions().into_iter().map(session).collect()
}

fn compare(
    case: &Case,
    way: &Way,
    (engine, dtype): (&Engine, DType),
    (want, tolerance): (&Results, f32),
) -> Result<Held, Fault> {
    let all = run(case, way, (engine, dtype))?;
    let failed = |e: candle_trt::Error| Fault::Run(line(&e));
    let quarter = Request::Percent(Percent::from_millionths(250_000));
    let few = {
        let mut streaming = engine.weight_streaming().map_err(failed)?;
        if streaming.set_device_budget(quarter).is_err() {
            streaming
                .set_device_budget(Request::Minimum)
                .map_err(failed)?;
        }
        run(case, way, (engine, dtype))?
    };
    let mut off = 0f32;
    for (i, ((got, few), want)) in all.iter().zip(&few).zip(want).enumerate() {
        for (call, ((got, few), want)) in got.iter().zip(few).zip(want).enumerate() {
            if got.len() != want.len() {
                return Err(Fault::Differs(format!(
                    "{} results for {}",
                    got.len(),
                    want.len()
                )));
            }
            for (output, ((got, few), want)) in got.iter().zip(few).zip(want).enumerate() {
                let place = format!("result {output} of call {call} in session {i}");
                off = off.max(apart(got, want, tolerance, &place)?);
                if bits(got)? != bits(few)? {
                    return Err(Fault::Bits(place));
                }
            }
        }
    }
    Ok(Held {
        off,
        launches: launched(engine),
        floor: (engine.minimum_device_budget(), engine.total_device_budget()),
    })
}

fn floats(t: &Tensor) -> Result<Vec<f32>, Fault> {
    let flat = t
        .to_dtype(DType::F32)
        .and_then(|t| t.flatten_all()?.to_vec1());
    flat.map_err(|e| Fault::Run(line(&e)))
}

fn bits(t: &Tensor) -> Result<Vec<u32>, Fault> {
    Ok(floats(t)?.into_iter().map(f32::to_bits).collect())
}

/// How far a result is from candle's, of the largest value there.
fn apart(got: &Tensor, want: &Tensor, tolerance: f32, place: &str) -> Result<f32, Fault> {
    if got.dims() != want.dims() {
        let (got, want) = (got.dims(), want.dims());
        return Err(Fault::Differs(format!("{place} is {got:?} for {want:?}")));
    }
    let (got, want) = (floats(got)?, floats(want)?);
    let largest = want.iter().fold(0f32, |m, v| m.max(v.abs()));
    let told = largest > 1e-3 && want.iter().all(|v| v.is_finite());
    if !told {
        return Err(Fault::Nothing(format!(
            "{place} compares nothing, its largest value is {largest}"
        )));
    }
    let far = |(g, w): (&f32, &f32)| match (g - w).abs() {
        d if d.is_nan() => f32::INFINITY,
        d => d,
    };
    let off = got.iter().zip(&want).map(far).fold(0.0, f32::max) / largest;
    match off <= tolerance {
        true => Ok(off),
        false => Err(Fault::Differs(format!(
            "{place} is off by {off:.1e} of its largest value"
        ))),
    }
}
