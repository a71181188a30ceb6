//! Who gets which bytes, and when: the memory planner, its checker, and the bounded pool.
//!
//! The planner is pure. A program's intermediate values are [`Lifetime`]s: how many bytes, from
//! which step to which. [`plan`] gives each an offset so that values alive at the same time
//! never share a byte, and tries to keep the end of the last one, the peak, close to
//! [`largest_live`], below which no plan can be. A value that may take over the bytes of one
//! that dies as it is born says so with a hint. [`check`](check()) proves a plan without
//! sharing any code with the planner.
//!
//! Real memory comes from a [`Pool`], which holds one number per device: the limit. Everything
//! an engine puts there is acquired (real bytes) or reserved (bytes that are resident without
//! being allocated, such as mapped pages) for a [`Purpose`], so the sum is known at any moment
//! and the limit is a contract rather than an estimate.
//!
//! A [`Strategy`] decides when the arena of a plan is acquired and given back: held for the life
//! of an engine ([`Static`]), acquired for each call ([`Dynamic`]), one for several engines that
//! take turns ([`Shared`]), or as a user's own code has it. [`Allocation`] names the choice.
//!
//! ```
//! use std::sync::Arc;
//! use trt_alloc::{Allocation, Lifetime, Pool, Purpose, Value, check, largest_live, plan};
//! use trt_device::Host;
//!
//! // a -> b -> c, where c overwrites b; a is still needed at step 2.
//! let value = |first, last| Lifetime { bytes: 1024, align: 256, first, last, in_place_of: None };
//! let a = value(0, 2);
//! let b = value(1, 2);
//! let c = Lifetime { in_place_of: Some(Value(1)), ..value(2, 3) };
//! let lifetimes = [a, b, c];
//!
//! let plan = plan(&lifetimes);
//! check(&lifetimes, &plan)?;
//! assert_eq!(plan.peak, largest_live(&lifetimes));
//! assert_eq!(plan.offsets[1], plan.offsets[2]);
//!
//! let pool = Pool::new(Arc::new(Host::unified()), 64 << 10);
//! let strategy = Allocation::Dynamic.strategy();
//! strategy.join(&pool, plan.peak)?;
//! let arena = strategy.begin(&pool, plan.peak)?;
//! assert_eq!(pool.in_use_by(Purpose::Activations), 2048);
//! assert_eq!(arena.slice(plan.offsets[2], 1024)?.len(), 1024);
//! strategy.end(arena);
//! strategy.leave(&pool, plan.peak);
//! assert_eq!(pool.in_use(), 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod check;
mod plan;
mod pool;
mod strategy;

pub use check::{PlanError, check};
pub use plan::{Lifetime, Plan, Value, largest_live, plan};
pub use pool::{Error, Lease, Pool, Purpose, Reservation, Usage};
pub use strategy::{Allocation, Arena, Dynamic, Hold, Shared, Static, Strategy};
