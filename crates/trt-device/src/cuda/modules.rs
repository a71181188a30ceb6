//! Assembled modules, each text once.
//!
//! A model has hundreds of kernels and few distinct texts, and assembling one takes milliseconds.
//! Invariant: as long as an executable of a text lives, loading the text again gives the same
//! module. Different texts are assembled beside each other when several threads load.

use super::driver::{Context, Module, Rejected};
use super::launch::CudaExecutable;
use super::part::Part;
use crate::Error;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use trt_kernel::Kernel;
use trt_kernel::ptx::{self, Emitted, PtxError, Target};

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
        let parts = match ptx::emit(kernel, self.target) {
            Ok(emitted) => vec![self.part(kernel, 0, emitted)?],
            Err(PtxError::Unsupported { .. }) if kernel.parts().len() > 1 => {
                let each = kernel.numbered_parts();
                let part = |(first, part): (u16, &Kernel)| {
                    self.part(part, first as usize, ptx::emit(part, self.target)?)
                };
                each.map(part).collect::<Result<_, Error>>()?
            }
            Err(error) => return Err(error.into()),
        };
        let executable = CudaExecutable::new(&self.context, kernel, parts);
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

    /// Assembles what a kernel has emitted.
    fn part(
        &self,
        kernel: &Kernel,
        first: usize,
        emitted: Emitted,
    ) -> Result<(Emitted, Part), Error> {
        let text = self.text(&emitted.text);
        let part = self.assembled(&text, &emitted).and_then(|module| {
            let part = Part::new(kernel, first, &emitted, module, text.clone());
            Ok(part?)
        });
        match part {
            Ok(part) => Ok((emitted, part)),
            Err(Rejected { error, log }) => Err(match *error {
                lost @ Error::Lost { .. } => lost,
                error => Error::Module {
                    kernel: kernel.kind(),
                    source: Box::new(error),
                    log,
                },
            }),
        }
    }

    /// The module of a text. Outside the locks: others may look for their texts meanwhile.
    fn assembled<'a>(&self, text: &'a Text, emitted: &Emitted) -> Result<&'a Module, Rejected> {
        let load = || Module::load(&self.context, &emitted.text);
        text.0.get_or_init(load).as_ref().map_err(Rejected::clone)
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
