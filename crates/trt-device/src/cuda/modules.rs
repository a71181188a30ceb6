//! Assembled modules, each text once.
//!
//! A model has hundreds of kernels and few distinct texts, and assembling one takes milliseconds.
//! Invariant: as long as an executable of a text lives, loading the text again gives the same
//! module. Different texts are assembled beside each other when several threads load.

use super::driver::{Context, Module, Rejected};
use super::launch::CudaExecutable;
use crate::Error;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use trt_kernel::Kernel;
use trt_kernel::ptx::{self, Emitted, Target};

/// The modules and executables of a device.
#[derive(Debug)]
pub(super) struct Modules {
    context: Arc<Context>,
    target: Target,
    by_text: Mutex<HashMap<String, Weak<Text>>>,
    /// Executables in use, by kernel.
    loaded: Mutex<Vec<(Kernel, Weak<CudaExecutable>)>>,
}

/// A text that is assembled by whoever comes first.
#[derive(Debug, Default)]
pub(super) struct Text(OnceLock<Result<Module, Rejected>>);

impl Modules {
    pub fn new(context: Arc<Context>, target: Target) -> Modules {
        Modules {
            context,
            target,
            by_text: Mutex::default(),
            loaded: Mutex::default(),
        }
    }

    /// The executable of a kernel.
    pub fn load(&self, kernel: &Kernel) -> Result<Arc<CudaExecutable>, Error> {
        if let Some(known) = self.known(kernel) {
            return Ok(known);
        }
        let emitted = ptx::emit(kernel, self.target)?;
        let rejected = |Rejected { error, log }| match *error {
            lost @ Error::Lost { .. } => lost,
            error => Error::Module {
                kernel: kernel.kind(),
                source: Box::new(error),
                log,
            },
        };
        let text = self.text(&emitted.text);
        let executable = self.executable(kernel, &emitted, text).map_err(rejected)?;
        let executable = Arc::new(executable);
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.retain(|(_, known)| known.strong_count() > 0);
        loaded.push((kernel.clone(), Arc::downgrade(&executable)));
        Ok(executable)
    }

    fn known(&self, kernel: &Kernel) -> Option<Arc<CudaExecutable>> {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let same = loaded.iter().filter(|(known, _)| known == kernel);
        same.filter_map(|(_, executable)| executable.upgrade())
            .next()
    }

    fn executable(
        &self,
        kernel: &Kernel,
        emitted: &Emitted,
        text: Arc<Text>,
    ) -> Result<CudaExecutable, Rejected> {
        // Outside the locks: others may look for their texts meanwhile.
        let assembled = text
            .0
            .get_or_init(|| Module::load(&self.context, &emitted.text));
        let module = assembled.as_ref().map_err(Rejected::clone)?;
        Ok(CudaExecutable::new(kernel, emitted, module, text.clone())?)
    }

    fn text(&self, text: &str) -> Arc<Text> {
        let mut texts = self.by_text.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = texts.get(text).and_then(Weak::upgrade) {
            return known;
        }
        texts.retain(|_, known| known.strong_count() > 0);
        let slot = Arc::new(Text::default());
        texts.insert(text.to_string(), Arc::downgrade(&slot));
        slot
    }
}
