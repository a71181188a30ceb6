//! Weight files that are not as they should be: cut while they are open, or with tensors that no type
//! aligns. What is right on every device is told here once.

use super::forward::{Ask, Forward, Hooks};
use super::small::CONTEXT;
use super::tiny::{self, tokens};
use candle_core::DType;
use candle_trt::device::{Device, Error as DeviceError, Stream, Work};
use candle_trt::models::{Llama, LoadOptions};
use candle_trt::{Compiler, Engine, Error, Profile, Request, TileTarget, Weights};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

const FILE: &str = "model.safetensors";

/// A file that is cut, until it is whole again.
#[derive(Debug)]
pub struct Cut {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Cut {
    pub fn new(path: PathBuf) -> Cut {
        let bytes = std::fs::read(&path).expect("a file");
        Cut { path, bytes }
    }

    /// Takes all but the first `share` of a hundred away.
    pub fn cut(&self, share: usize) {
        let file = File::options().write(true).open(&self.path).expect("it");
        let len = self.bytes.len() * share / 100;
        file.set_len(len as u64).expect("a cut");
    }

    pub fn mend(&self) {
        use std::os::unix::fs::FileExt;
        let file = File::options().write(true).open(&self.path).expect("it");
        file.write_all_at(&self.bytes, 0).expect("the bytes");
    }

    /// An error must say what happened.
    fn names(&self, error: &Error, share: usize) {
        let text = error.to_string();
        let len = self.bytes.len();
        let parts = [
            FILE.into(),
            len.to_string(),
            (len * share / 100).to_string(),
        ];
        assert!(parts.iter().all(|p| text.contains(p)), "{text}");
    }
}

/// Moves the data of a safetensors file on by `by` bytes: blanks after the header.
pub fn shift(path: &Path, by: usize) {
    let mut bytes = std::fs::read(path).expect("a file");
    let (prefix, _) = bytes.split_first_chunk::<8>().expect("a length");
    let header = u64::from_le_bytes(*prefix) as usize;
    bytes[..8].copy_from_slice(&((header + by) as u64).to_le_bytes());
    bytes.splice(8 + header..8 + header, std::iter::repeat_n(b' ', by));
    std::fs::write(path, bytes).expect("a file");
}

/// A small Llama in `dir`, compiled for a device.
pub fn compile(dir: &Path, dtype: DType, by: usize, device: Arc<dyn Device>) -> Engine {
    let model = tiny::llama();
    model.write(dir, dtype, 7, 1).expect("a checkpoint");
    shift(&dir.join(FILE), by);
    let config = model.config();
    let options = LoadOptions {
        max_positions: Some(CONTEXT),
    };
    Compiler::new(Weights::open(dir).expect("it opens"))
        .shared_device(device)
        .dtype(dtype)
        .profile(Profile::decoder(CONTEXT, CONTEXT - 4).expect("a profile"))
        .weight_streaming(true)
        .tile_target(TileTarget::Bytes(8 << 10))
        .compile(|vb| Llama::load_with(vb, &config, &options))
        .expect("it compiles")
}

/// Bytes of the file of such a model, of f32.
pub fn file_bytes() -> u64 {
    let dir = tempfile::tempdir().expect("a folder");
    let written = tiny::llama().write(dir.path(), DType::F32, 7, 1);
    written.expect("a checkpoint");
    std::fs::metadata(dir.path().join(FILE))
        .expect("a file")
        .len()
}

pub fn budgets(engine: &Engine) -> [Request; 3] {
    let (floor, total) = (engine.minimum_device_budget(), engine.total_device_budget());
    [
        Request::Minimum,
        Request::Bytes((total / 2).max(floor)),
        Request::Full,
    ]
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|v| v.to_bits()).collect()
}

/// Logits of a prompt and of tokens one by one.
fn logits(engine: &Engine) -> Vec<Vec<u32>> {
    let mut session = engine.session().expect("a session");
    let all = tokens(14);
    let calls = std::iter::once(&all[..6]).chain(all[6..].chunks(1));
    calls
        .map(|call| bits(&session.prefill(call).expect("tokens")))
        .collect()
}

/// Tensors that start anywhere give the bits of those that are aligned, at every budget.
pub fn alignment_changes_no_bit(make: impl Fn() -> Arc<dyn Device>) {
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let mut expected: Option<Vec<Vec<u32>>> = None;
        for by in 0..dtype.size_in_bytes() {
            let dir = tempfile::tempdir().expect("a folder");
            let engine = compile(dir.path(), dtype, by, make());
            for budget in budgets(&engine) {
                engine.set_device_budget(budget).expect("a budget");
                let found = logits(&engine);
                let first = expected.get_or_insert_with(|| found.clone());
                assert!(*first == found, "{dtype:?} moved by {by} at {budget}");
            }
        }
    }
}

/// A file that is cut between two tokens fails the calls that come then, and nothing else.
pub fn a_cut_between_tokens_fails_the_call(device: Arc<dyn Device>) {
    let dir = tempfile::tempdir().expect("a folder");
    let engine = compile(dir.path(), DType::F32, 0, device);
    let file = Cut::new(dir.path().join(FILE));
    let expected = logits(&engine);
    let all = tokens(14);
    for budget in budgets(&engine) {
        engine.set_device_budget(budget).expect("a budget");
        let applied = |engine: &Engine| engine.device_budget().expect("a budget").applied;
        let before = applied(&engine);
        let mut session = engine.session().expect("a session");
        session.prefill(&all[..6]).expect("a prompt");
        for (i, token) in all[6..].iter().enumerate() {
            let share = [0, 3, 50, 99][i % 4];
            if i % 2 == 1 {
                file.cut(share);
                let position = session.position();
                for _ in 0..2 {
                    let error = session.decode(*token).expect_err("the file was cut");
                    file.names(&error, share);
                }
                assert_eq!(session.position(), position);
                assert_eq!(applied(&engine), before);
                file.mend();
            }
            let found = session.decode(*token).expect("the file is whole");
            assert!(bits(&found) == expected[i + 1], "token {i} at {budget}");
        }
    }
}

/// A file that is cut in the middle of a pass, while it streams, fails that call, and nothing else.
/// Its data is moved on by `by` bytes.
pub fn a_cut_while_streaming_fails_the_call(device: Arc<dyn Device>, by: usize) {
    let dir = tempfile::tempdir().expect("a folder");
    let cutting = Cutting::new(device);
    let engine = compile(dir.path(), DType::F32, by, cutting.clone());
    let file = Arc::new(Cut::new(dir.path().join(FILE)));
    engine
        .set_device_budget(Request::Minimum)
        .expect("a budget");
    let expected = logits(&engine);
    let all = tokens(14);
    let share = 40;
    let mut failed = 0;
    for fetch in (0..40).step_by(3) {
        let mut session = engine.session().expect("a session");
        session.prefill(&all[..6]).expect("a prompt");
        cutting.cut_at_fetch(fetch, file.clone(), share);
        let mut at = 0;
        // What is fetched at the end of a call is for the next one, which fails then.
        let error = loop {
            match session.decode(all[6 + at]) {
                Ok(found) => assert!(bits(&found) == expected[at + 1], "before fetch {fetch}"),
                Err(error) => break error,
            }
            at += 1;
        };
        failed += usize::from(at == 0);
        file.names(&error, share);
        assert_eq!(session.position(), 6 + at);
        file.mend();
        for (token, expected) in all[6 + at..].iter().zip(&expected[at + 1..]) {
            let found = session.decode(*token).expect("the file is whole");
            assert!(bits(&found) == *expected, "after fetch {fetch}");
        }
    }
    assert!(failed > 3, "only {failed} calls were cut in their own pass");
}

/// A device that cuts a file just before a fetch, when nothing is under way.
type Cutting = Forward<Cuts>;

/// What is cut, and when.
#[derive(Debug)]
struct Cuts {
    streams: Mutex<Vec<Stream>>,
    /// Fetches until then, the file, and what is left of it.
    planned: Mutex<Option<(usize, Arc<Cut>, usize)>>,
}

impl Cutting {
    fn new(inner: Arc<dyn Device>) -> Arc<Cutting> {
        let cuts = Cuts {
            streams: Mutex::default(),
            planned: Mutex::default(),
        };
        Forward::to(inner, cuts)
    }
}

impl Cuts {
    fn cut_at_fetch(&self, fetch: usize, file: Arc<Cut>, share: usize) {
        *self.planned.lock().expect("nobody panicked") = Some((fetch, file, share));
    }

    fn before_work(&self, inner: &dyn Device, work: &Work) -> Result<(), DeviceError> {
        let mut planned = self.planned.lock().expect("nobody panicked");
        if !matches!(work, Work::Populate(_) | Work::Upload { .. }) {
            return Ok(());
        }
        match planned.take() {
            Some((0, file, share)) => {
                for stream in self.streams.lock().expect("nobody panicked").iter() {
                    inner.synchronize(*stream)?;
                }
                file.cut(share);
            }
            Some((left, file, share)) => *planned = Some((left - 1, file, share)),
            None => {}
        }
        Ok(())
    }
}

impl Hooks for Cuts {
    fn before(&self, inner: &dyn Device, ask: Ask<'_>) -> Result<(), DeviceError> {
        match ask {
            Ask::Submit(_, work) => self.before_work(inner, work),
            _ => Ok(()),
        }
    }

    fn made(&self, stream: Stream) {
        self.streams.lock().expect("nobody panicked").push(stream);
    }
}
