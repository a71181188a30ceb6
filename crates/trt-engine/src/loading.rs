//! Kernels of a program made ready on the device, equal ones once and different ones at a time.
//!
//! A GPU's driver takes tens of milliseconds to assemble a kernel, and a model has a dozen
//! different ones, so that is most of the time of compiling unless processors share it.

use crate::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use trt_device::{Device, Executable};
use trt_graph::program::Program;
use trt_kernel::Kernel;

/// Threads at most: a program has no more kernels that take long.
const THREADS: usize = 16;

/// The executable of each launch.
pub(crate) fn load_all(device: &dyn Device, program: &Program) -> Result<Vec<Executable>, Error> {
    let mut distinct: Vec<&Kernel> = Vec::new();
    let mut which = Vec::with_capacity(program.launches.len());
    for launch in &program.launches {
        let known = distinct.iter().position(|k| **k == launch.kernel);
        which.push(known.unwrap_or(distinct.len()));
        if known.is_none() {
            distinct.push(&launch.kernel);
        }
    }
    let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
    let threads = processors.min(THREADS).min(distinct.len());
    let next = AtomicUsize::new(0);
    let loaded: Mutex<Vec<Option<Result<Executable, trt_device::Error>>>> =
        Mutex::new(vec![None; distinct.len()]);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(kernel) = distinct.get(at) else {
                        return;
                    };
                    let result = device.load(kernel);
                    let mut loaded = loaded.lock().unwrap_or_else(PoisonError::into_inner);
                    loaded[at] = Some(result);
                }
            });
        }
    });
    let loaded = loaded.into_inner().unwrap_or_else(PoisonError::into_inner);
    let of = |at: usize| match &loaded[at] {
        Some(result) => Ok(result.clone()?),
        None => Err(Error::lower("a kernel was not loaded".into())),
    };
    which.into_iter().map(of).collect()
}
