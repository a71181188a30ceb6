//! Engines that were saved and loaded again.

use crate::common::tiny;
use crate::families::tokens;
use candle_core::{DType, Device, Tensor};
use candle_trt::candle_nn::VarBuilder;
use candle_trt::device::{Host, HostMode};
use candle_trt::models::{DecoderConfig, Llama, LoadOptions};
use candle_trt::{
    Call, Compiler, Engine, Error, Profile, Request, SavedError, TileTarget, Weights,
};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const CONTEXT: usize = 128;

/// A tiny checkpoint, how to compile it, and where to save it.
struct Model {
    dir: tempfile::TempDir,
    config: DecoderConfig,
}

impl Model {
    fn new(seed: u64) -> Model {
        let dir = tempfile::tempdir().expect("a folder");
        let model = tiny::llama();
        let written = model.write(dir.path(), DType::F32, seed, 2);
        written.expect("a checkpoint");
        Model {
            config: model.config(),
            dir,
        }
    }

    fn compiler(&self, mode: HostMode) -> Compiler {
        compiler(self.dir.path(), mode)
    }

    fn compile(&self, mode: HostMode) -> Engine {
        let profile = Profile::decoder(CONTEXT, 32).expect("a profile");
        compile(self.compiler(mode).profile(profile), &self.config)
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("tiny.engine")
    }
}

fn compiler(dir: &Path, mode: HostMode) -> Compiler {
    Compiler::new(Weights::open(dir).expect("it opens"))
        .device(Host::new(mode))
        .weight_streaming(true)
        .tile_target(TileTarget::Bytes(8 << 10))
}

fn compile(compiler: Compiler, config: &DecoderConfig) -> Engine {
    let options = LoadOptions {
        max_positions: Some(CONTEXT),
    };
    let engine = compiler.compile(|vb| Llama::load_with(vb, config, &options));
    engine.expect("it compiles")
}

/// The logits of a prompt and two tokens.
fn logits(engine: &Engine) -> Vec<Vec<f32>> {
    let mut session = engine.session().expect("a session");
    let mut all = vec![session.prefill(&tokens(20)).expect("a prompt")];
    all.extend([3, 4].map(|t| session.decode(t).expect("a token")));
    all
}

#[test]
fn a_loaded_engine_gives_the_same_bits_under_any_budget_on_any_device() {
    let model = Model::new(7);
    let engine = model.compile(HostMode::Unified);
    engine.save(model.file()).expect("it saves");
    let expected = logits(&engine);
    for mode in [HostMode::Unified, HostMode::Discrete] {
        let compiler = model.compiler(mode).budget(Request::Minimum);
        let loaded = compiler.load(model.file()).expect("it loads");
        let applied = loaded.device_budget().expect("a budget").applied;
        assert_eq!(applied, loaded.minimum_device_budget());
        assert_eq!(loaded.total_device_budget(), engine.total_device_budget());
        assert_eq!(loaded.profile(), engine.profile());
        for budget in [Request::Minimum, Request::Full] {
            loaded.set_device_budget(budget).expect("a budget");
            assert!(logits(&loaded) == expected, "{mode:?} at {budget}");
        }
    }
}

#[test]
fn what_a_report_says_of_the_programs_is_saved_with_them() {
    let model = Model::new(7);
    let engine = model.compile(HostMode::Unified);
    engine.save(model.file()).expect("it saves");
    let compiler = model.compiler(HostMode::Unified);
    let loaded = compiler.load(model.file()).expect("it loads");
    let (before, after) = (engine.report(), loaded.report());
    assert_eq!(before.classes, after.classes);
    assert_eq!(before.notes, after.notes);
    assert!(after.loaded && !before.loaded);
    assert_eq!(after.trace_seconds, 0.0);
}

/// Why loading is refused.
fn refusal(compiler: Compiler, path: &Path) -> SavedError {
    match compiler.load(path).expect_err("it is refused") {
        Error::Saved {
            path: named,
            source,
        } => {
            assert_eq!(named, path);
            source
        }
        other => panic!("{other}"),
    }
}

#[test]
fn other_weights_are_refused_with_both_fingerprints() {
    let model = Model::new(7);
    model
        .compile(HostMode::Unified)
        .save(model.file())
        .expect("it saves");
    // The same tensors in another number of files.
    let other = tempfile::tempdir().expect("a folder");
    tiny::llama()
        .write(other.path(), DType::F32, 7, 1)
        .expect("a checkpoint");
    let weights = Weights::open(other.path()).expect("it opens");
    let theirs = weights.fingerprint();
    let ours = Weights::open(model.dir.path())
        .expect("it opens")
        .fingerprint();
    let error = refusal(Compiler::new(weights), &model.file());
    let text = error.to_string();
    assert!(
        matches!(error, SavedError::OtherWeights { saved, found } if saved == ours && found == theirs)
    );
    assert!(text.contains(&format!("{ours:016x}")) && text.contains(&format!("{theirs:016x}")));
}

/// A file of a scale and a matrix, whose values are `seed` and what follows.
fn scaled(path: &Path, seed: f32, matrix: f32) -> Weights {
    let of = |v: f32| Tensor::full(v, (4, 4), &Device::Cpu).expect("a tensor");
    let scale = Tensor::new(&[seed, 2.0], &Device::Cpu).expect("a tensor");
    let tensors = [("scale", scale), ("matrix", of(matrix))].map(|(n, t)| (n.to_string(), t));
    candle_core::safetensors::save(&tensors.into(), path).expect("it is written");
    Weights::open(path).expect("it opens")
}

/// Model code that reads a weight's values decides with them, so what it became is for these values alone. Those of
/// other weights are read in each call.
#[test]
fn values_that_model_code_read_bind_a_saved_engine_to_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name);
    let compiler = |weights| {
        let profile = Profile::single(&[("rows", 1, 4)]).expect("a profile");
        let on = Compiler::new(weights).device(Host::unified());
        on.profile(profile)
    };
    let load = |vb: VarBuilder<'static>| {
        let scale = vb.get(2, "scale")?.to_vec1::<f32>()?;
        let matrix = vb.get((4, 4), "matrix")?;
        Ok(move |call: &Call<'_>| {
            let x = call.input("x", (call.int("rows")?, 4), DType::F32)?;
            let x = x.matmul(&matrix.t()?)?.affine(f64::from(scale[0]), 0.0)?;
            Ok(vec![x])
        })
    };
    let engine = compiler(scaled(&at("a"), 3.0, 0.5)).compile(load);
    let engine = engine.expect("it compiles");
    let read: Vec<&str> = engine
        .report()
        .read
        .iter()
        .map(|r| r.name.as_str())
        .collect();
    assert_eq!(read, ["scale"]);
    engine.save(at("engine")).expect("it saves");
    let run = |engine: &Engine| {
        let x = Tensor::ones((2, 4), DType::F32, &Device::Cpu).expect("ones");
        let out = engine.session().expect("a session").run(&[x]);
        let out = out.expect("it runs").remove(0).flatten_all();
        out.and_then(|t| t.to_vec1::<f32>()).expect("values")
    };
    assert_eq!(run(&engine), [6.0; 8]);
    let same = compiler(scaled(&at("b"), 3.0, 0.25)).load(at("engine"));
    let same = same.expect("no other weight was read");
    assert_eq!(run(&same), [3.0; 8]);
    assert_eq!(same.report().read, engine.report().read);
    let other = compiler(scaled(&at("c"), 4.0, 0.5));
    let error = refusal(other, &at("engine"));
    assert!(
        matches!(&error, SavedError::OtherValues { name } if name == "scale"),
        "{error}"
    );
}

#[test]
fn options_that_contradict_the_file_are_refused() {
    let model = Model::new(7);
    model
        .compile(HostMode::Unified)
        .save(model.file())
        .expect("it saves");
    let compiler = || model.compiler(HostMode::Unified);
    let profile = Profile::decoder(CONTEXT, 31).expect("a profile");
    for other in [compiler().dtype(DType::BF16), compiler().profile(profile)] {
        let error = refusal(other, &model.file());
        assert!(matches!(error, SavedError::OtherOptions { .. }), "{error}");
    }
    let same = Profile::decoder(CONTEXT, 32).expect("a profile");
    let loaded = compiler().dtype(DType::F32).profile(same);
    loaded.load(model.file()).expect("they agree");
}

#[test]
fn files_of_other_kinds_and_versions_are_refused() {
    let model = Model::new(7);
    model
        .compile(HostMode::Unified)
        .save(model.file())
        .expect("it saves");
    let compiler = || model.compiler(HostMode::Unified);
    let foreign = model.dir.path().join("config.json");
    let error = refusal(compiler(), &foreign);
    assert!(matches!(error, SavedError::Foreign), "{error}");
    let error = refusal(compiler(), &model.dir.path().join("missing"));
    assert!(matches!(error, SavedError::Io { .. }), "{error}");
    let mut bytes = std::fs::read(model.file()).expect("it is there");
    bytes[12] = b'9'; // the first digit of the library's version
    std::fs::write(model.file(), &bytes).expect("it is written");
    let error = refusal(compiler(), &model.file());
    let text = error.to_string();
    assert!(matches!(error, SavedError::Version { .. }), "{text}");
    assert!(text.contains(env!("CARGO_PKG_VERSION")), "{text}");
}

#[test]
fn every_cut_and_every_changed_byte_is_found() {
    let model = Model::new(7);
    model
        .compile(HostMode::Unified)
        .save(model.file())
        .expect("it saves");
    let good = std::fs::read(model.file()).expect("it is there");
    let weights = Weights::open(model.dir.path()).expect("it opens");
    let weights = std::sync::Arc::new(weights);
    let damaged = model.dir.path().join("damaged");
    let refused = |bytes: &[u8], what: String| {
        std::fs::write(&damaged, bytes).expect("it is written");
        let compiler = Compiler::new(weights.clone()).device(Host::unified());
        let loaded = compiler.load(&damaged);
        assert!(matches!(loaded, Err(Error::Saved { .. })), "{what}");
    };
    // All of the header, and places all over the rest.
    let places = || (0..64).chain((64..good.len()).step_by(good.len() / 97));
    for at in places() {
        refused(&good[..at], format!("cut at {at}"));
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        refused(&bytes, format!("changed at {at}"));
    }
    refused(&[&good[..], b"more"].concat(), "longer".into());
}

#[test]
fn other_things_in_place_of_a_saved_engine_are_refused_at_once() {
    let model = Model::new(7);
    let pipe = model.dir.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("it runs").success());
    let folder = model.dir.path().to_path_buf();
    let cases = [
        (pipe, "a named pipe"),
        (folder, "a folder"),
        (PathBuf::from("/dev/zero"), "a device"),
    ];
    for (path, kind) in cases {
        let error = refusal(model.compiler(HostMode::Unified), &path);
        assert!(matches!(error, SavedError::File(_)), "{error}");
        assert!(error.to_string().contains(kind), "{error}");
    }
}

#[test]
fn what_killed_saves_left_is_removed_by_the_next_save() {
    let model = Model::new(7);
    let left = model.dir.path().join("tiny.engine.4242-1.part");
    std::fs::write(&left, "half of it").expect("it is written");
    let engine = model.compile(HostMode::Unified);
    engine.save(model.file()).expect("it saves");
    assert!(!left.exists());
    let loaded = model.compiler(HostMode::Unified).load(model.file());
    assert!(logits(&loaded.expect("it loads")) == logits(&engine));
}

#[test]
fn saving_replaces_a_file_whole_or_not_at_all() {
    let model = Model::new(7);
    let engine = model.compile(HostMode::Unified);
    engine.save(model.file()).expect("it saves");
    engine.save(model.file()).expect("it saves again");
    let nowhere = model.dir.path().join("no such folder").join("file");
    assert!(engine.save(&nowhere).is_err());
    // A folder cannot be replaced by a file.
    let folder = model.dir.path().join("folder");
    std::fs::create_dir(&folder).expect("a folder");
    assert!(engine.save(&folder).is_err());
    let names = std::fs::read_dir(model.dir.path()).expect("a folder");
    let names = names.map(|e| e.expect("an entry").file_name());
    let left: Vec<_> = names
        .filter(|n| n.to_string_lossy().ends_with(".part"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// SmolLM2 if it is there, else the tiny model.
#[test]
fn loading_takes_a_fifth_of_compiling_at_most() {
    let home = std::env::var_os("HOME")
        .map(PathBuf::from)
        .unwrap_or_default();
    let real = home.join(".cache/candle-trt/SmolLM2-135M-Instruct-bf16");
    let tiny = Model::new(7);
    let dir = match real.join("model.safetensors").exists() {
        true => real.as_path(),
        false => tiny.dir.path(),
    };
    let config = DecoderConfig::from_file(dir.join("config.json")).expect("a config");
    let timed = |times: usize, f: &dyn Fn() -> Engine| {
        let once = || {
            let start = Instant::now();
            let engine = f();
            (start.elapsed(), engine)
        };
        // The machine may be busy with other tests: the best of a few counts.
        let all: Vec<(Duration, Engine)> = (0..times).map(|_| once()).collect();
        let best = all.into_iter().min_by_key(|(time, _)| *time);
        best.expect("some")
    };
    let options = || compiler(dir, HostMode::Unified).tile_target(TileTarget::Automatic);
    let profile = Profile::decoder(CONTEXT, 32).expect("a profile");
    let (compiling, engine) = timed(5, &|| compile(options().profile(profile.clone()), &config));
    engine.save(tiny.file()).expect("it saves");
    let (loading, loaded) = timed(20, &|| options().load(tiny.file()).expect("it loads"));
    println!(
        "{}: compiling {compiling:?}, loading {loading:?}, file {} bytes\n{}{}",
        dir.display(),
        std::fs::metadata(tiny.file()).expect("it is there").len(),
        engine.report().to_string().lines().next().unwrap_or(""),
        loaded.report().to_string().lines().next().unwrap_or(""),
    );
    assert!(loading * 5 <= compiling, "{loading:?} of {compiling:?}");
}
