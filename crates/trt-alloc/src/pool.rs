//! The bounded pool: every byte of device memory that an engine holds is counted here.
//!
//! The invariant: what is in use never exceeds the limit, and a byte counts until nothing can
//! touch it any more. The count of acquired memory is therefore tied to the memory itself, not
//! to the lease: work that is still queued keeps both.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use trt_device::{Device, Memory, Slice};

/// What bytes are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Purpose {
    /// Weights that stay.
    Weights,
    /// Weights that come and go.
    Ring,
    /// Intermediate values of a call.
    Activations,
    /// What a session keeps between calls, such as keys and values.
    States,
    /// Values computed at compile time.
    Constants,
    /// Inputs and outputs of a call.
    Io,
    /// Working memory of kernels.
    Scratch,
    /// Kernels themselves.
    Code,
}

impl Purpose {
    /// Every purpose, in the order of reports.
    pub const ALL: [Purpose; 8] = [
        Purpose::Weights,
        Purpose::Ring,
        Purpose::Activations,
        Purpose::States,
        Purpose::Constants,
        Purpose::Io,
        Purpose::Scratch,
        Purpose::Code,
    ];

    /// The name that reports use.
    pub const fn name(self) -> &'static str {
        match self {
            Purpose::Weights => "weights",
            Purpose::Ring => "ring",
            Purpose::Activations => "activations",
            Purpose::States => "states",
            Purpose::Constants => "constants",
            Purpose::Io => "io",
            Purpose::Scratch => "scratch",
            Purpose::Code => "code",
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Bytes in use by purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage([u64; Purpose::ALL.len()]);

impl Usage {
    /// Bytes in use for one purpose.
    pub fn of(&self, purpose: Purpose) -> u64 {
        self.0[purpose as usize]
    }

    /// Bytes in use for everything.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

impl fmt::Display for Usage {
    /// `768 bytes (weights 512, ring 256)`, or `0 bytes`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.total())?;
        let used = Purpose::ALL.into_iter().filter(|p| self.of(*p) > 0);
        let parts: Vec<String> = used.map(|p| format!("{p} {}", self.of(p))).collect();
        match parts.is_empty() {
            true => Ok(()),
            false => write!(f, " ({})", parts.join(", ")),
        }
    }
}

/// Why bytes were not given.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request would exceed the limit.
    #[error("{asked} bytes for {purpose} exceed the device limit of {limit} bytes: in use {usage}")]
    OverLimit {
        /// Bytes asked.
        asked: u64,
        /// What for.
        purpose: Purpose,
        /// The pool's limit.
        limit: u64,
        /// What was in use.
        usage: Usage,
    },
    /// A new limit lies below what is in use.
    #[error("a device limit of {asked} bytes is below what is in use: {usage}")]
    LimitBelowUse {
        /// The limit asked.
        asked: u64,
        /// What is in use.
        usage: Usage,
    },
    /// A call needs more than its strategy holds.
    #[error("a call needs {asked} bytes of activations, but the {strategy} arena holds {held}")]
    ArenaTooSmall {
        /// Bytes the call needs.
        asked: u64,
        /// Bytes held.
        held: u64,
        /// The strategy.
        strategy: &'static str,
    },
    /// The arena is in use by another call.
    #[error("the {strategy} arena of {held} bytes is in use by another call")]
    ArenaBusy {
        /// Bytes held.
        held: u64,
        /// The strategy.
        strategy: &'static str,
    },
    /// A second engine joins a strategy that serves one.
    #[error("the {strategy} arena belongs to another engine")]
    Joined {
        /// The strategy.
        strategy: &'static str,
    },
    /// An engine on another device joins.
    #[error("the {strategy} arena lies on {held}, but the engine runs on {asked}")]
    OtherDevice {
        /// The strategy.
        strategy: &'static str,
        /// The device of the arena.
        held: String,
        /// The device of the engine.
        asked: String,
    },
    /// The device refused.
    #[error(transparent)]
    Device(#[from] trt_device::Error),
}

impl Error {
    /// The bytes that were asked for, if the device had no memory for them. A limit of the pool is
    /// no such error.
    pub fn out_of_memory(&self) -> Option<u64> {
        match self {
            Error::Device(e) => e.out_of_memory(),
            _ => None,
        }
    }
}

/// The bounded pool of one device; a clone is the same pool.
#[derive(Clone, Debug)]
pub struct Pool {
    device: Arc<dyn Device>,
    accounts: Arc<Mutex<Accounts>>,
}

#[derive(Debug)]
struct Accounts {
    limit: u64,
    usage: Usage,
    high_water: u64,
}

/// Real device memory. It counts until the last slice of it is gone, which may be in work that
/// is still queued when the lease is dropped.
#[derive(Debug)]
pub struct Lease {
    memory: Memory,
    purpose: Purpose,
}

/// Bytes that count as in use without being allocated; given back on drop.
#[derive(Debug)]
pub struct Reservation {
    charge: Charge,
}

/// A sum on the accounts, taken back on drop.
#[derive(Debug)]
struct Charge {
    accounts: Arc<Mutex<Accounts>>,
    purpose: Purpose,
    bytes: u64,
}

fn lock(accounts: &Mutex<Accounts>) -> MutexGuard<'_, Accounts> {
    // Every change of the accounts is a few additions that cannot panic half-way.
    accounts.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// A pool of at most `limit` bytes of the device.
    pub fn new(device: Arc<dyn Device>, limit: u64) -> Pool {
        Pool {
            device,
            accounts: Arc::new(Mutex::new(Accounts {
                limit,
                usage: Usage::default(),
                high_water: 0,
            })),
        }
    }

    /// The device.
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// Whether both are the same pool.
    pub fn same(&self, other: &Pool) -> bool {
        Arc::ptr_eq(&self.accounts, &other.accounts)
    }

    /// Zeroed device memory.
    ///
    /// # Errors
    /// [`Error::OverLimit`] if the limit does not allow it, [`Error::Device`] if the device has not as
    /// much.
    pub fn acquire(&self, bytes: u64, purpose: Purpose) -> Result<Lease, Error> {
        let charge = self.charge(bytes, purpose)?;
        // More than an address space can hold is refused by the device, with its number.
        let memory = self
            .device
            .allocate(usize::try_from(bytes).unwrap_or(usize::MAX))?;
        memory.tie(charge);
        tracing::debug!(bytes, %purpose, in_use = self.in_use(), "acquired");
        Ok(Lease { memory, purpose })
    }

    /// Counts bytes that become resident in another way.
    ///
    /// # Errors
    /// [`Error::OverLimit`] if the limit does not allow it.
    pub fn reserve(&self, bytes: u64, purpose: Purpose) -> Result<Reservation, Error> {
        let charge = self.charge(bytes, purpose)?;
        Ok(Reservation { charge })
    }

    fn charge(&self, bytes: u64, purpose: Purpose) -> Result<Charge, Error> {
        lock(&self.accounts).add(bytes, purpose)?;
        Ok(Charge {
            accounts: self.accounts.clone(),
            purpose,
            bytes,
        })
    }

    /// Bytes in use.
    pub fn in_use(&self) -> u64 {
        self.usage().total()
    }

    /// Bytes in use for one purpose.
    pub fn in_use_by(&self, purpose: Purpose) -> u64 {
        self.usage().of(purpose)
    }

    /// Bytes in use by purpose, all of one moment.
    pub fn usage(&self) -> Usage {
        lock(&self.accounts).usage
    }

    /// Most bytes ever in use, or since [`Pool::reset_high_water`].
    pub fn high_water(&self) -> u64 {
        lock(&self.accounts).high_water
    }

    /// Starts the high-water mark again from what is in use now.
    pub fn reset_high_water(&self) {
        let mut accounts = lock(&self.accounts);
        accounts.high_water = accounts.usage.total();
    }

    /// Most bytes that may be in use.
    pub fn limit(&self) -> u64 {
        lock(&self.accounts).limit
    }

    /// Changes the limit. Below what is in use is an error, and then nothing has changed.
    ///
    /// # Errors
    /// [`Error::LimitBelowUse`] if more is in use.
    pub fn set_limit(&self, bytes: u64) -> Result<(), Error> {
        let mut accounts = lock(&self.accounts);
        if bytes < accounts.usage.total() {
            return Err(Error::LimitBelowUse {
                asked: bytes,
                usage: accounts.usage,
            });
        }
        accounts.limit = bytes;
        Ok(())
    }
}

impl Accounts {
    fn add(&mut self, bytes: u64, purpose: Purpose) -> Result<(), Error> {
        let total = self.usage.total();
        if bytes > self.limit.saturating_sub(total) {
            return Err(Error::OverLimit {
                asked: bytes,
                purpose,
                limit: self.limit,
                usage: self.usage,
            });
        }
        self.usage.0[purpose as usize] += bytes;
        self.high_water = self.high_water.max(total + bytes);
        Ok(())
    }

    fn remove(&mut self, bytes: u64, purpose: Purpose) {
        self.usage.0[purpose as usize] -= bytes;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        lock(&self.accounts).remove(self.bytes, self.purpose);
    }
}

impl Lease {
    /// The memory.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// All of the memory.
    pub fn whole(&self) -> Slice {
        self.memory.whole()
    }

    /// Bytes.
    pub fn bytes(&self) -> u64 {
        self.memory.len() as u64
    }

    /// What it is for.
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }
}

impl Reservation {
    /// Bytes.
    pub fn bytes(&self) -> u64 {
        self.charge.bytes
    }

    /// What it is for.
    pub fn purpose(&self) -> Purpose {
        self.charge.purpose
    }

    /// Changes the number of bytes. More than the limit allows is an error, and then nothing
    /// has changed.
    ///
    /// # Errors
    /// [`Error::OverLimit`] if the limit does not allow it.
    pub fn resize(&mut self, bytes: u64) -> Result<(), Error> {
        let (accounts, purpose, held) = (&self.charge.accounts, self.purpose(), self.bytes());
        let mut accounts = lock(accounts);
        match bytes.checked_sub(held) {
            Some(more) => accounts.add(more, purpose)?,
            None => accounts.remove(held - bytes, purpose),
        }
        drop(accounts);
        self.charge.bytes = bytes;
        Ok(())
    }
}
