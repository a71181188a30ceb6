//! What model code makes of weights is made once and is a weight: with the bits that candle gives, streamed, kept, and made
//! again when it should be.

use candle_core::{DType, Device as Candle, Tensor};
use candle_trt::device::{Host, HostMode};
use candle_trt::{
    CompileLimits, Compiler, Engine, Error, FromTensors, Profile, Request, Store, TileTarget,
    Weights,
};
use proptest::prelude::*;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use trt_graph::candle_nn::VarBuilder;
use trt_graph::{Call, candle};

/// Rows and columns of every matrix: four panels of rows.
const N: usize = 256;
/// Bytes of one.
const BYTES: u64 = (N * N * 4) as u64;

/// What model code does to a matrix, by numbers, over candle's tensors and over symbolic ones. Each step is exact: an element
/// is moved, or rounded once.
macro_rules! chain {
    ($name:ident, $tensor:ty) => {
        fn $name(steps: &[u8], [w, u, v]: [$tensor; 3]) -> candle_core::Result<$tensor> {
            let mut w = w;
            for step in steps {
                w = match step % 8 {
                    0 => w.broadcast_mul(&v.reshape((N, 1))?)?,
                    1 => (w + &u)?,
                    2 => w.t()?.contiguous()?,
                    3 => <$tensor>::cat(&[w.narrow(0, 100, N - 100)?, w.narrow(0, 0, 100)?], 0)?,
                    4 => w.broadcast_div(&(v.sqr()? + 1.5)?.sqrt()?)?,
                    5 => w.narrow(1, 0, N / 2)?.pad_with_zeros(1, N / 4, N / 4)?,
                    6 => (w * 0.5)?,
                    _ => w.maximum(&u)?,
                };
            }
            Ok(w)
        }
    };
}
chain!(on_candle, Tensor);
chain!(symbolic, candle::Tensor);

fn tensors(seed: u64) -> HashMap<String, Tensor> {
    let numbers = |seed: u64, count: usize| {
        let one = |i: u64| {
            let mixed = (i + seed * 7919).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            (mixed >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        (0..count as u64).map(one).collect::<Vec<f32>>()
    };
    let matrix = |seed| Tensor::from_vec(numbers(seed, N * N), (N, N), &Candle::Cpu);
    let all = [
        ("w", matrix(seed)),
        ("u", matrix(seed + 1)),
        ("v", Tensor::from_vec(numbers(seed + 2, N), N, &Candle::Cpu)),
    ];
    all.into_iter()
        .map(|(name, t)| (name.to_string(), t.expect("a tensor")))
        .collect()
}

/// A file of these weights.
fn file(folder: &Path, seed: u64) -> PathBuf {
    let path = folder.join("model.safetensors");
    candle_core::safetensors::save(&tensors(seed), &path).expect("a file");
    path
}

fn compiler(weights: Weights, mode: HostMode) -> Compiler {
    Compiler::new(weights)
        .device(Host::new(mode))
        .profile(Profile::single(&[("rows", 1, 20)]).expect("a profile"))
        .tile_target(TileTarget::Bytes(64 << 10))
        .budget(Request::Full)
}

/// A product with what the steps make of a matrix.
fn compile(compiler: Compiler, steps: &[u8]) -> Result<Engine, Error> {
    compiler.compile(|vb: VarBuilder| {
        let all = [vb.get((N, N), "w")?, vb.get((N, N), "u")?, vb.get(N, "v")?];
        let steps = steps.to_vec();
        Ok(move |call: &Call| {
            let x = call.input("x", (call.int("rows")?, N), DType::F32)?;
            let w = symbolic(&steps, all.clone())?;
            Ok(vec![x.matmul(&w.t()?)?])
        })
    })
}

/// A product with a matrix as it is.
fn compile_plain(weights: Weights) -> Engine {
    let engine = compiler(weights, HostMode::Unified).compile(|vb: VarBuilder| {
        let w = vb.get((N, N), "folded")?;
        Ok(move |call: &Call| {
            let x = call.input("x", (call.int("rows")?, N), DType::F32)?;
            Ok(vec![x.matmul(&w.t()?)?])
        })
    });
    engine.expect("it compiles")
}

fn outputs(engine: &Engine) -> Vec<Vec<f32>> {
    let mut session = engine.session().expect("a session");
    let calls = [1, 17].map(|rows| {
        let x = Tensor::arange(0f32, (rows * N) as f32, &Candle::Cpu);
        let x = x.and_then(|x| (x * 0.01)?.sin()?.reshape((rows, N)));
        let y = session.run(&[x.expect("an input")]).expect("a call");
        y[0].flatten_all().and_then(|y| y.to_vec1()).expect("f32")
    });
    calls.into()
}

/// What a model gives whose matrix candle made of the weights.
fn expected(steps: &[u8], seed: u64) -> Vec<Vec<f32>> {
    let of = tensors(seed);
    let folded = on_candle(steps, ["w", "u", "v"].map(|name| of[name].clone()));
    let folded = folded.and_then(|w| w.contiguous()).expect("a matrix");
    let weights = Weights::from_tensors(HashMap::from([("folded".into(), folded)]));
    outputs(&compile_plain(weights.expect("weights")))
}

/// Names in a folder, but for those that begin with a dot.
fn kept(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let names = entries.map(|e| e.expect("an entry").file_name().into_string());
    let names = names.map(|n| n.expect("text"));
    names.filter(|n| !n.starts_with('.')).collect()
}

/// A chain of all that there is.
const STEPS: [u8; 6] = [0, 3, 4, 2, 5, 1];

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_made_of_weights_has_the_bits_that_candle_gives_at_every_budget(
        steps in prop::collection::vec(0u8..8, 1..6),
        seed in 0u64..100,
        discrete: bool,
    ) {
        let mode = if discrete { HostMode::Discrete } else { HostMode::Unified };
        let weights = Weights::from_tensors(tensors(seed)).expect("weights");
        let engine = compile(compiler(weights, mode), &steps).expect("it compiles");
        // One matrix in four tiles, of which two are the ring.
        prop_assert_eq!(engine.total_device_budget(), BYTES);
        prop_assert_eq!(engine.minimum_device_budget(), BYTES / 2);
        let expected = expected(&steps, seed);
        for budget in [Request::Full, Request::Minimum] {
            engine.set_device_budget(budget).expect("a budget");
            prop_assert!(outputs(&engine) == expected, "{:?} at {}", steps, budget);
        }
    }
}

#[test]
fn a_report_says_how_many_there_are_and_where() {
    let dir = tempfile::tempdir().expect("a folder");
    let open = || Weights::open(file(dir.path(), 1)).expect("weights");
    let engine = compile(compiler(open(), HostMode::Unified), &STEPS).expect("it compiles");
    let derived = engine.report().derived.clone().expect("a weight");
    assert_eq!(
        (derived.weights, derived.bytes, derived.file),
        (1, BYTES, None)
    );
    let text = engine.report().to_string();
    assert!(
        text.contains("1 weights derived of others, 262144 bytes, kept in memory"),
        "{text}"
    );
    let folder = dir.path().join("made");
    let compiler = compiler(open(), HostMode::Unified).store(Store::Folder(folder.clone()));
    let engine = compile(compiler, &STEPS).expect("it compiles");
    let derived = engine.report().derived.clone().expect("a weight");
    let place = derived.file.expect("a file");
    assert_eq!(place.parent(), Some(&*folder));
    assert!(
        engine
            .report()
            .to_string()
            .contains(&place.display().to_string())
    );
    // Nothing is said of a model without any.
    assert_eq!(
        compile(self::compiler(open(), HostMode::Unified), &[])
            .expect("it")
            .report()
            .derived,
        None
    );
}

#[test]
fn what_was_made_is_used_again_unless_it_is_damaged_or_its_sources_changed() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().join("made");
    let path = file(dir.path(), 1);
    let engine = || {
        let weights = Weights::open(&path).expect("weights");
        let compiler = compiler(weights, HostMode::Unified).store(Store::Folder(folder.clone()));
        compile(compiler, &STEPS).expect("it compiles")
    };
    let expected = expected(&STEPS, 1);
    assert_eq!(outputs(&engine()), expected);
    let [name] = &kept(&folder)[..] else {
        panic!("{:?}", kept(&folder));
    };
    let place = folder.join(name);
    let when = || {
        std::fs::metadata(&place)
            .and_then(|m| m.modified())
            .expect("a time")
    };
    let (first, bytes) = (when(), std::fs::read(&place).expect("a file"));
    assert_eq!(outputs(&engine()), expected);
    assert_eq!(when(), first, "it was made again");
    for at in [20, bytes.len() - 9] {
        let mut other = bytes.clone();
        other[at] ^= 4;
        std::fs::write(&place, other).expect("a file");
        assert_eq!(outputs(&engine()), expected);
        assert_eq!(std::fs::read(&place).expect("a file"), bytes);
    }
    // The same names, shapes and length, with other values.
    std::thread::sleep(std::time::Duration::from_millis(20));
    file(dir.path(), 2);
    assert_eq!(outputs(&engine()), self::expected(&STEPS, 2));
}

#[test]
fn engines_that_are_made_at_once_share_one_file() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().join("made");
    let path = file(dir.path(), 3);
    let expected = expected(&STEPS, 3);
    std::thread::scope(|scope| {
        for mode in [HostMode::Unified, HostMode::Discrete, HostMode::Unified] {
            let (path, folder, expected) = (&path, &folder, &expected);
            scope.spawn(move || {
                let weights = Weights::open(path).expect("weights");
                let compiler = compiler(weights, mode).store(Store::Folder(folder.clone()));
                let engine = compile(compiler, &STEPS).expect("it compiles");
                assert!(outputs(&engine) == *expected);
            });
        }
    });
    assert_eq!(kept(&folder).len(), 1);
}

#[test]
fn a_saved_engine_makes_them_of_the_weights_that_are_there() {
    let dir = tempfile::tempdir().expect("a folder");
    let (path, saved) = (file(dir.path(), 4), dir.path().join("model.engine"));
    let open = |mode| compiler(Weights::open(&path).expect("weights"), mode);
    let engine = compile(open(HostMode::Unified), &STEPS).expect("it compiles");
    engine.save(&saved).expect("it saves");
    let folder = dir.path().join("made");
    for mode in [HostMode::Unified, HostMode::Discrete] {
        let compiler = open(mode).store(Store::Folder(folder.clone()));
        let loaded = compiler
            .budget(Request::Minimum)
            .load(&saved)
            .expect("it loads");
        assert_eq!(loaded.total_device_budget(), BYTES);
        assert_eq!(outputs(&loaded), expected(&STEPS, 4));
        // What was loaded can be saved in turn.
        loaded.save(&saved).expect("it saves");
    }
    assert_eq!(kept(&folder).len(), 1);
    std::thread::sleep(std::time::Duration::from_millis(20));
    file(dir.path(), 5);
    let compiler = open(HostMode::Unified).store(Store::Folder(folder.clone()));
    let loaded = compiler.load(&saved).expect("it loads");
    assert_eq!(outputs(&loaded), expected(&STEPS, 5));
}

#[test]
fn what_making_them_takes_of_the_host_is_known_before_it_begins() {
    const N: usize = 4096;
    let w = Tensor::ones((N, N), DType::F32, &Candle::Cpu).expect("a matrix");
    let weights = Weights::from_tensors(HashMap::from([("w".into(), w)])).expect("weights");
    // The matrix, and what it becomes where it is computed, read and written.
    let needed = 4 * (N * N * 4) as u64;
    let limits = CompileLimits {
        host_bytes: Some(needed - 1),
        device_bytes: None,
    };
    let engine = compiler(weights, HostMode::Unified)
        .limits(limits)
        .compile(|vb: VarBuilder| {
            let w = vb.get((N, N), "w")?;
            Ok(move |call: &Call| {
                let x = call.input("x", (call.int("rows")?, N), DType::F32)?;
                Ok(vec![x.matmul(&(&w * 0.5)?.t()?)?])
            })
        });
    let error = engine.expect_err("it is too much").to_string();
    assert!(error.contains("estimated for deriving"), "{error}");
    assert!(error.contains(&needed.to_string()), "{error}");
}
