//! A small Llama on any device, and a device that refuses memory at will and remembers what it was
//! asked for.

use super::forward::{Ask, Forward, Hooks};
use super::tiny::{self, tokens};
use candle_core::DType;
use candle_trt::device::{Device, Error as DeviceError, Host, Memory, Slice, Stream, Work};
use candle_trt::kernel::Kernel;
use candle_trt::models::{Llama, LoadOptions};
use candle_trt::{Compiler, Engine, Error, Profile, TileTarget, Weights};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// Positions of a session.
pub const CONTEXT: usize = 128;

/// Compiles a small Llama with weight streaming; `set` changes how.
pub fn compile(
    device: Arc<dyn Device>,
    set: impl FnOnce(Compiler) -> Compiler,
) -> Result<Engine, Error> {
    let dir = tempfile::tempdir().expect("a folder");
    let model = tiny::llama();
    model
        .write(dir.path(), DType::F32, 7, 1)
        .expect("a checkpoint");
    let config = model.config();
    let options = LoadOptions {
        max_positions: Some(CONTEXT),
    };
    let compiler = Compiler::new(Weights::open(dir.path()).expect("it opens"))
        .shared_device(device)
        .profile(Profile::decoder(CONTEXT, CONTEXT - 4).expect("a profile"))
        .weight_streaming(true)
        .tile_target(TileTarget::Bytes(8 << 10));
    set(compiler).compile(|vb| Llama::load_with(vb, &config, &options))
}

/// A prompt and some tokens in a session of its own, as bits.
pub fn bits(engine: &Engine) -> Vec<Vec<u32>> {
    let mut session = engine.session().expect("a session");
    let all = tokens(14);
    let mut calls = vec![&all[..9]];
    calls.extend(all[9..].chunks(1));
    let run = |call: &[u32]| session.prefill(call).expect("tokens");
    let bits = |logits: Vec<f32>| logits.iter().map(|v| v.to_bits()).collect();
    calls.into_iter().map(run).map(bits).collect()
}

/// What another party takes of a device: all that is free but for `but` bytes.
pub fn take_all(device: &Arc<dyn Device>, but: u64) -> Memory {
    let free = device.free_memory().expect("it tells");
    let bytes = free.checked_sub(but).expect("as much is free");
    device.allocate(bytes as usize).expect("it is free")
}

/// A device that does not tell what is free, refuses to commit more than so many bytes of any
/// reserved range, and remembers what it was asked for; all else is done by another.
pub type Stingy = Forward<Stinginess>;

/// What is refused, and what was asked for.
#[derive(Debug)]
pub struct Stinginess {
    most: AtomicUsize,
    records: AtomicBool,
    asked: Mutex<Asked>,
    peek: Mutex<Peek>,
}

/// What was asked of a device.
#[derive(Debug, Default)]
pub struct Asked {
    /// Kernels that were loaded.
    pub kernels: Vec<Kernel>,
    /// Streams that were made.
    pub streams: usize,
    /// Bytes of each allocation.
    pub allocations: Vec<usize>,
}

/// A look at memory just before something is launched.
#[derive(Debug, Default)]
enum Peek {
    #[default]
    Nowhere,
    At(Slice),
    Seen(Vec<u8>),
}

impl Stingy {
    /// A host that refuses nothing yet.
    pub fn new() -> Arc<Stingy> {
        Stingy::on(Arc::new(Host::discrete()))
    }

    /// A device that refuses nothing yet.
    pub fn on(inner: Arc<dyn Device>) -> Arc<Stingy> {
        let stinginess = Stinginess {
            most: AtomicUsize::new(usize::MAX),
            records: AtomicBool::new(true),
            asked: Mutex::default(),
            peek: Mutex::default(),
        };
        Forward::to(inner, stinginess)
    }
}

impl Stinginess {
    /// Refuses more than this from now on.
    pub fn refuse_above(&self, bytes: usize) {
        self.most.store(bytes, Ordering::SeqCst);
    }

    /// Whether works can be recorded from now on.
    pub fn set_records(&self, can: bool) {
        self.records.store(can, Ordering::SeqCst);
    }

    /// What was asked for so far; it is forgotten here.
    pub fn take_asked(&self) -> Asked {
        std::mem::take(&mut *self.asked())
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().expect("nobody panicked")
    }

    /// Looks at memory before the next launch.
    pub fn peek_at(&self, memory: Slice) {
        *self.peek.lock().expect("nobody panicked") = Peek::At(memory);
    }

    /// What it saw there.
    pub fn peeked(&self) -> Option<Vec<u8>> {
        match std::mem::take(&mut *self.peek.lock().expect("nobody panicked")) {
            Peek::Seen(bytes) => Some(bytes),
            Peek::Nowhere | Peek::At(_) => None,
        }
    }

    fn peek(&self, inner: &dyn Device, stream: Stream, work: &Work) -> Result<(), DeviceError> {
        let mut peek = self.peek.lock().expect("nobody panicked");
        if let (Peek::At(memory), Work::Launch { .. }) = (&*peek, work) {
            let mut bytes = vec![0; memory.len()];
            inner.read(stream, memory, &mut bytes)?;
            *peek = Peek::Seen(bytes);
        }
        Ok(())
    }
}

impl Hooks for Stinginess {
    fn tells(&self) -> bool {
        false
    }

    fn before(&self, inner: &dyn Device, ask: Ask<'_>) -> Result<(), DeviceError> {
        match ask {
            Ask::Allocate(bytes) => self.asked().allocations.push(bytes),
            Ask::Load(kernel) => self.asked().kernels.push(kernel.clone()),
            Ask::Stream => self.asked().streams += 1,
            Ask::Commit(bytes) if bytes > self.most.load(Ordering::SeqCst) => {
                return Err(DeviceError::OutOfMemory {
                    device: "stingy".into(),
                    bytes,
                    reason: "it was told to".into(),
                });
            }
            Ask::Record if !self.records.load(Ordering::SeqCst) => {
                return Err(DeviceError::NotRecordable { work: "anything" });
            }
            Ask::Submit(stream, work) => self.peek(inner, stream, work)?,
            Ask::Commit(_) | Ask::Record => {}
        }
        Ok(())
    }
}
