//! What a device hands out, and only that device opens.

use super::{Error, Info};
use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use trt_kernel::{Dim, Var};

/// A device of this process: two have never had the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId(u64);

impl DeviceId {
    /// One that no device has had.
    pub fn unique() -> DeviceId {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        DeviceId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// An ordered queue of work on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stream {
    device: DeviceId,
    number: u32,
}

impl Stream {
    /// The stream that a device calls by this number.
    pub fn new(device: DeviceId, number: u32) -> Stream {
        Stream { device, number }
    }

    /// What the device calls it.
    ///
    /// # Errors
    /// [`Error::WrongDevice`] if it is a stream of another.
    pub fn open(self, device: &Info) -> Result<u32, Error> {
        match self.device == device.id {
            true => Ok(self.number),
            false => Err(device.wrong("a stream")),
        }
    }
}

/// Something that a device made.
#[derive(Clone)]
struct Handle {
    device: DeviceId,
    own: Arc<dyn Any + Send + Sync>,
}

impl Handle {
    fn new(device: DeviceId, own: impl Any + Send + Sync) -> Handle {
        let own = Arc::new(own);
        Handle { device, own }
    }

    fn open<T: Any>(&self, what: &'static str, device: &Info) -> Result<&T, Error> {
        let own = (self.device == device.id).then(|| self.own.downcast_ref());
        own.flatten().ok_or_else(|| device.wrong(what))
    }
}

/// A kernel made ready to launch on one device.
#[derive(Clone)]
pub struct Executable {
    handle: Handle,
    info: Arc<ExecutableInfo>,
}

/// What everybody may know of an executable. The default is what a device says that needs
/// nothing.
#[derive(Clone, Debug, Default)]
pub struct ExecutableInfo {
    /// See [`Executable::by_host`].
    pub by_host: Option<String>,
    /// See [`Executable::code`].
    pub code: Vec<(usize, u64)>,
    /// See [`Executable::scratch`].
    pub scratch: Dim,
    /// See [`Executable::grid_vars`].
    pub grid_vars: Vec<Var>,
}

impl Executable {
    /// What a device launches: `own` is for the device alone.
    pub fn new(device: DeviceId, info: ExecutableInfo, own: impl Any + Send + Sync) -> Executable {
        Executable {
            handle: Handle::new(device, own),
            info: Arc::new(info),
        }
    }

    /// What the device put into it.
    ///
    /// # Errors
    /// [`Error::WrongDevice`] if another device made it, or put something else into it.
    pub fn open<T: Any>(&self, device: &Info) -> Result<&T, Error> {
        self.handle.open("an executable", device)
    }

    /// Why the host computes this for the device, which has no kernel for it; nothing if the
    /// device does.
    pub fn by_host(&self) -> Option<&str> {
        self.info.by_host.as_deref()
    }

    /// The code that it has on the device, piece by piece: a number that executables which share a
    /// piece have in common while they live, and at most how many bytes it is. None on the host.
    pub fn code(&self) -> Vec<(usize, u64)> {
        self.info.code.clone()
    }

    /// Bytes of working memory that a launch needs.
    pub fn scratch(&self) -> Dim {
        self.info.scratch.clone()
    }

    /// The runtime integers that decide how a launch is made: recorded work can be replayed for
    /// calls that agree in them with the call that it was recorded for.
    pub fn grid_vars(&self) -> Vec<Var> {
        self.info.grid_vars.clone()
    }
}

impl fmt::Debug for Executable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Executable({:?}, {:?})", self.handle.device, self.info)
    }
}

/// A point in a stream that another stream or the caller can wait for. Recording again moves
/// the point; waiting refers to the latest record submitted before the wait.
#[derive(Clone)]
pub struct Event(Handle);

impl Event {
    /// An event of a device: `own` is for the device alone.
    pub fn new(device: DeviceId, own: impl Any + Send + Sync) -> Event {
        Event(Handle::new(device, own))
    }

    /// What the device put into it.
    ///
    /// # Errors
    /// [`Error::WrongDevice`] if another device made it, or put something else into it.
    pub fn open<T: Any>(&self, device: &Info) -> Result<&T, Error> {
        self.0.open("an event", device)
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Event({:?})", self.0.device)
    }
}

/// Recorded work that can be submitted again at the cost of one launch. It keeps the memory
/// that it uses.
#[derive(Clone)]
pub struct Graph(Handle);

impl Graph {
    /// Recorded work of a device: `own` is for the device alone.
    pub fn new(device: DeviceId, own: impl Any + Send + Sync) -> Graph {
        Graph(Handle::new(device, own))
    }

    /// What the device put into it.
    ///
    /// # Errors
    /// [`Error::WrongDevice`] if another device made it, or put something else into it.
    pub fn open<T: Any>(&self, device: &Info) -> Result<&T, Error> {
        self.0.open("a graph", device)
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Graph({:?})", self.0.device)
    }
}
