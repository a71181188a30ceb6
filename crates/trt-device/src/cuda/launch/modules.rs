//! Assembled modules, each text once.
//!
//! A model has hundreds of kernels and few distinct texts, and assembling one takes milliseconds.
//! Invariant: as long as an executable of a text lives, loading the text again gives the same
//! module. Different texts are assembled beside each other when several threads load.

use super::executable::CudaExecutable;
use super::fed::Fed;
use super::part::Part;
use crate::Error;
use crate::cuda::driver::{Context, Facts, Maps, Module, Rejected};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use trt_kernel::Kernel;
use trt_kernel::ptx::{self, Emitted, PtxError, Target};

/// The modules and executables of a device.
#[derive(Debug)]
pub(in crate::cuda) struct Modules {
    context: Arc<Context>,
    target: Target,
    by_text: Mutex<HashMap<String, Weak<Text>>>,
    /// Executables in use, by kernel.
    loaded: Mutex<Vec<(Kernel, Weak<CudaExecutable>)>>,
    /// Texts that the driver was given.
    assembled: AtomicU64,
    /// The proof that the driver makes tensor maps, if kernels may need them.
    pub maps: Option<Maps>,
    /// Launches with tensor maps.
    mapped: AtomicU64,
}

/// What kernels are emitted for, or why a device can have none.
pub(in crate::cuda) fn target(facts: &Facts) -> Result<Target, Error> {
    let (major, minor) = facts.capability;
    Target::of(major, minor).ok_or_else(|| Error::OldDevice {
        device: facts.name.clone(),
        capability: facts.capability,
    })
}

/// A text that is assembled by whoever comes first.
#[derive(Debug, Default)]
pub(in crate::cuda) struct Text(OnceLock<Result<Module, Rejected>>);

impl Modules {
    /// `target` has tensor maps only if there is a proof that they are made.
    pub fn new(context: Arc<Context>, target: Target, maps: Option<Maps>) -> Arc<Modules> {
        Arc::new(Modules {
            context,
            target: if maps.is_some() {
                target
            } else {
                target.without_maps()
            },
            by_text: Mutex::default(),
            loaded: Mutex::default(),
            assembled: AtomicU64::new(0),
            maps,
            mapped: AtomicU64::new(0),
        })
    }

    /// Whether kernels may need tensor maps.
    pub fn has_maps(&self) -> bool {
        self.target.maps()
    }

    /// Counts launches with tensor maps.
    pub fn count_mapped(&self, launches: u64) {
        self.mapped.fetch_add(launches, Ordering::Relaxed);
    }

    /// How many launches had tensor maps so far.
    pub fn mapped(&self) -> u64 {
        self.mapped.load(Ordering::Relaxed)
    }

    /// The context of all of them.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// How many texts the driver was given so far.
    pub fn assembled(&self) -> u64 {
        self.assembled.load(Ordering::Relaxed)
    }

    /// The executable of a kernel.
    pub fn load(self: &Arc<Self>, kernel: &Kernel) -> Result<Arc<CudaExecutable>, Error> {
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
        let executable = CudaExecutable::new(kernel, parts);
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

    /// A kernel, whose arguments begin with number `first` of the launch's, without tensor maps.
    pub fn unmapped(self: &Arc<Self>, kernel: &Kernel, first: usize) -> Result<Part, Error> {
        let emitted = ptx::emit(kernel, self.target.without_maps())?;
        self.part(kernel, first, emitted).map(|(_, part)| part)
    }

    /// Assembles what a kernel has emitted.
    fn part(
        self: &Arc<Self>,
        kernel: &Kernel,
        first: usize,
        emitted: Emitted,
    ) -> Result<(Emitted, Part), Error> {
        let text = self.text(&emitted.text);
        let part = self.module(&text, &emitted).and_then(|module| {
            let fed = Fed::new(self, kernel, first, &emitted);
            let part = Part::new(kernel, first, &emitted, module, text.clone(), fed);
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
    fn module<'a>(&self, text: &'a Text, emitted: &Emitted) -> Result<&'a Module, Rejected> {
        let load = || {
            self.assembled.fetch_add(1, Ordering::Relaxed);
            Module::load(&self.context, &emitted.text)
        };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::driver::Driver;
    use trt_kernel::{Arg, BodyBuilder, DType, Dim, Row, View};

    #[test]
    fn a_device_without_the_instructions_is_an_error_with_its_name_and_capability() {
        let facts = |capability| Facts {
            name: "Tesla V100".into(),
            capability,
            total_memory: 16 << 30,
            registers_read_only: true,
            same_addresses: true,
        };
        let error = target(&facts((7, 0))).unwrap_err();
        assert!(matches!(error, Error::OldDevice { .. }), "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains("Tesla V100") && text.contains("7.0"),
            "{text}"
        );
        assert!(text.contains("7.5"), "what is needed: {text}");
        assert!(target(&facts((7, 5))).is_ok());
    }

    /// The modules of the first device; nothing where there is none.
    fn modules() -> Option<Arc<Modules>> {
        let context = Driver::get().and_then(|driver| Context::retain(driver, 0));
        match context {
            Ok(context) => {
                let target = target(context.facts()).unwrap();
                Some(Modules::new(context, target, None))
            }
            Err(error) if std::env::var_os("TRT_REQUIRE_CUDA").is_some_and(|v| v == "1") => {
                panic!("TRT_REQUIRE_CUDA=1, but {error}")
            }
            Err(error) => {
                println!("no CUDA device: {error}");
                None
            }
        }
    }

    #[test]
    fn a_text_that_is_not_taken_is_an_error_with_the_kernel_and_what_the_assembler_wrote() {
        let Some(modules) = modules() else { return };
        let space = [Dim::from(4)];
        let mut body = BodyBuilder::new();
        let x = body.load(Arg(0), View::contiguous(&space));
        body.store(Arg(1), View::contiguous(&space), x);
        let kernel = Kernel::Row(Row {
            space: space.to_vec(),
            args: vec![DType::F32; 2],
            body: body.finish(),
        });
        let mut emitted = ptx::emit(&kernel, modules.target).unwrap();
        emitted.text = emitted.text.replace("ld.global", "BAD.instruction");
        assert!(emitted.text.contains("BAD"), "{}", emitted.text);
        let error = modules.part(&kernel, 0, emitted.clone()).unwrap_err();
        let Error::Module {
            kernel: named, log, ..
        } = &error
        else {
            panic!("{error:?}");
        };
        assert_eq!(*named, kernel.kind());
        assert!(!log.is_empty(), "{error}");
        assert!(error.to_string().contains(log.as_str()), "{error}");
        // Nor is it taken the next time, and the kernel itself is.
        assert!(modules.part(&kernel, 0, emitted).is_err());
        assert!(modules.load(&kernel).is_ok());
    }
}
