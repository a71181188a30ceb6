//! When the arena of a call is acquired and given back.
//!
//! An engine *joins* a strategy with the bytes of its largest call and *leaves* it once; in
//! between, every call brackets its work between [`Strategy::begin`] and [`Strategy::end`], and
//! from one to the other the arena is its alone. Whoever calls `end` or `leave` has waited for
//! the work that uses the arena, so memory that is given back is free at once. Debug builds bracket
//! one thing more before they leave a strategy whose memory stays: they fill it with garbage.
//!
//! What a strategy promises about its memory is its [`Hold`]. Only memory that stays may be
//! referred to by anything that outlives a call, such as recorded launches.

use crate::{Error, Lease, Pool, Purpose};
use std::any::Any;
use std::fmt;
use std::sync::Arc;
use trt_device::{Device, Slice, Stream, Work};

mod dynamic;
mod fixed;
mod shared;

pub use dynamic::Dynamic;
pub use fixed::Static;
pub use shared::Shared;

/// Decides how long the memory of intermediate values is held.
///
/// ```
/// use std::sync::{Mutex, PoisonError};
/// use trt_alloc::{Arena, Error, Pool, Strategy};
///
/// /// Keeps the arena of the largest call so far.
/// #[derive(Debug, Default)]
/// struct Grow(Mutex<Option<Arena>>);
///
/// impl Strategy for Grow {
///     fn name(&self) -> &'static str {
///         "grow"
///     }
///
///     fn begin(&self, pool: &Pool, bytes: u64) -> Result<Arena, Error> {
///         let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
///         match kept.filter(|arena| arena.bytes() >= bytes) {
///             Some(arena) => Ok(arena),
///             None => Arena::acquire(pool, bytes),
///         }
///     }
///
///     fn end(&self, arena: Arena) {
///         *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(arena);
///     }
/// }
///
/// let pool = Pool::new(std::sync::Arc::new(trt_device::Host::unified()), 1 << 20);
/// let grow = Grow::default();
/// for (bytes, held) in [(1000, 1000), (4000, 4000), (500, 4000)] {
///     grow.end(grow.begin(&pool, bytes)?);
///     assert_eq!(pool.in_use(), held);
/// }
/// # Ok::<(), Error>(())
/// ```
pub trait Strategy: Send + Sync + fmt::Debug {
    /// A name for reports, e.g. `static`.
    fn name(&self) -> &'static str;

    /// What it promises about the memory of two calls.
    fn hold(&self) -> Hold {
        Hold::Call
    }

    /// An engine whose calls need up to `most` bytes starts to use it. After an error nothing
    /// has changed.
    ///
    /// # Errors
    /// [`Error`] if it does not serve one more engine, or has no memory for it.
    fn join(&self, pool: &Pool, most: u64) -> Result<(), Error> {
        let _ = (pool, most);
        Ok(())
    }

    /// An engine that has joined with these arguments does not use it any more.
    fn leave(&self, pool: &Pool, most: u64) {
        let _ = (pool, most);
    }

    /// An arena of at least `bytes` bytes for one call.
    ///
    /// # Errors
    /// [`Error`] if what it holds is too small or in use, or there is no memory for the call.
    fn begin(&self, pool: &Pool, bytes: u64) -> Result<Arena, Error>;

    /// Takes the arena of a call back, to keep it or to let it go.
    fn end(&self, arena: Arena);
}

/// How long a call's memory stays what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// From joining to leaving every arena starts at the same address, and what lies behind it
    /// stays memory: calls are laid out once, for the largest, and may be recorded.
    Member,
    /// For one call: each is laid out for its own lengths, and nothing of it is recorded.
    Call,
}

/// How an engine's arena is held.
#[derive(Clone, Debug, Default)]
pub enum Allocation {
    /// One arena for the largest call, for the life of the engine: a call never allocates.
    #[default]
    Static,
    /// An arena of the size of each call, acquired for it and returned to the device after it.
    Dynamic,
    /// One arena for several engines that run in turns, as large as the largest of them needs.
    Shared(Shared),
    /// A strategy of the caller's.
    Custom(Arc<dyn Strategy>),
}

impl Allocation {
    /// The strategy for one more engine.
    pub fn strategy(&self) -> Arc<dyn Strategy> {
        match self {
            Allocation::Static => Arc::new(Static::default()),
            Allocation::Dynamic => Arc::new(Dynamic),
            Allocation::Shared(shared) => Arc::new(shared.clone()),
            Allocation::Custom(own) => own.clone(),
        }
    }
}

impl PartialEq for Allocation {
    /// Whether changing from one to the other would change nothing.
    fn eq(&self, other: &Allocation) -> bool {
        match (self, other) {
            (Allocation::Static, Allocation::Static) => true,
            (Allocation::Dynamic, Allocation::Dynamic) => true,
            (Allocation::Shared(a), Allocation::Shared(b)) => a.same(b),
            (Allocation::Custom(a), Allocation::Custom(b)) => Arc::ptr_eq(a, b),
            (
                Allocation::Static
                | Allocation::Dynamic
                | Allocation::Shared(_)
                | Allocation::Custom(_),
                _,
            ) => false,
        }
    }
}

impl fmt::Display for Allocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.strategy().name())
    }
}

impl From<&Shared> for Allocation {
    fn from(shared: &Shared) -> Allocation {
        Allocation::Shared(shared.clone())
    }
}

impl<S: Strategy + 'static> From<Arc<S>> for Allocation {
    fn from(own: Arc<S>) -> Allocation {
        Allocation::Custom(own)
    }
}

/// The memory of one call's intermediate values.
pub struct Arena {
    whole: Slice,
    /// What the memory, or the turn to use it, hangs on.
    #[allow(dead_code, reason = "held to be dropped")]
    held: Box<dyn Any + Send + Sync>,
}

/// What poisoned memory is filled with: as a token or an index out of any range, as a float of
/// either width a tiny negative number, and not zero.
const POISON: u8 = 0xa5;
/// Bytes of poison that come from the caller; the rest is copied from them on the device.
const DOSE: usize = 64 << 10;

impl Arena {
    /// An arena that is a lease of its own, or shares one.
    pub fn new(lease: Arc<Lease>) -> Arena {
        Arena::part(lease.whole(), lease)
    }

    /// An arena of newly acquired memory.
    ///
    /// # Errors
    /// [`Error::OverLimit`] and [`Error::Device`] as [`Pool::acquire`].
    pub fn acquire(pool: &Pool, bytes: u64) -> Result<Arena, Error> {
        let lease = pool.acquire(bytes, Purpose::Activations)?;
        Ok(Arena::new(Arc::new(lease)))
    }

    /// An arena in memory that is counted by `held`, which is dropped with it.
    pub fn part(whole: Slice, held: impl Any + Send + Sync) -> Arena {
        let held = Box::new(held);
        Arena { whole, held }
    }

    /// Bytes.
    pub fn bytes(&self) -> u64 {
        self.whole.len() as u64
    }

    /// The bytes of one value of a plan.
    ///
    /// # Errors
    /// [`trt_device::Error`] if the arena does not hold these bytes.
    pub fn slice(&self, offset: u64, bytes: u64) -> Result<Slice, trt_device::Error> {
        // What does not fit a usize does not fit the arena either, and is refused as a range.
        let clamp = |b: u64| usize::try_from(b).unwrap_or(usize::MAX);
        let range = clamp(offset)..clamp(offset.saturating_add(bytes));
        self.whole.slice(range)
    }

    /// Fills it with garbage, in the order of a stream, so that whoever reads what was not
    /// written in this call, or uses it after this call, gets wrong results rather than lucky
    /// ones. Meant for debug builds.
    ///
    /// # Errors
    /// [`trt_device::Error`] as the device refuses the writes and copies.
    pub fn poison(&self, device: &dyn Device, stream: Stream) -> Result<(), trt_device::Error> {
        let mut done = DOSE.min(self.whole.len());
        let dst = self.whole.slice(0..done)?;
        let bytes = vec![POISON; done];
        device.submit(stream, Work::Write { dst, bytes })?;
        while done < self.whole.len() {
            let next = done.min(self.whole.len() - done);
            let src = self.whole.slice(0..next)?;
            let dst = self.whole.slice(done..done + next)?;
            device.submit(stream, Work::Copy { dst, src })?;
            done += next;
        }
        Ok(())
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.whole.address();
        write!(f, "Arena({} bytes at {address:#x})", self.bytes())
    }
}
