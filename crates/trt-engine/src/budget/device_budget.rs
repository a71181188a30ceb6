//! One budget for several engines on a device.
//!
//! The plan is [`share`]: bytes go where they save most time. This applies it: engines that shrink
//! come before engines that grow, so the sum never exceeds the budget in between, and if one refuses
//! all get back what they had. Engines are known weakly; one that is dropped has left.

use super::neighbours;
use super::planning::Planning;
use crate::error::Error;
use crate::run::engine::{Core, Engine};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use trt_device::Device;
use trt_stream::{Applied, BelowFloors, Demand, Request, Shares, share};

/// How much the time of an engine matters: one of priority 2 counts as two of priority 1 that run
/// as often. With priority 0 it gets more than its floor only when the others have all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Priority(pub u32);

impl Priority {
    /// What an engine has unless it is said otherwise.
    pub const NORMAL: Priority = Priority(1);
}

impl Default for Priority {
    fn default() -> Priority {
        Priority::NORMAL
    }
}

/// A budget for the weights of several engines on one device: models, or parts of one. Clones are
/// the same budget. A budget that a member sets by itself holds until the next joint plan.
///
/// In Torch-TensorRT a `device_budget` is shared only among the parts of one module, in proportion to their
/// weights; here bytes go where they save most time.
///
/// ```
/// # use candle_core::{DType, Device as Cpu, Tensor};
/// # use std::{collections::HashMap, sync::Arc};
/// # use trt_engine::{Compiler, Engine, Error, Profile, TileTarget, Weights};
/// # use trt_graph::{Call, candle_nn::{self, Module}};
/// use trt_device::{Device, Host};
/// use trt_engine::{DeviceBudget, Priority, Request};
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("model.safetensors");
/// # let w = Tensor::ones((2048, 64), DType::F32, &Cpu::Cpu)?;
/// # candle_core::safetensors::save(&HashMap::from([("weight", w)]), &path)?;
/// # let compile = |device: &Arc<dyn Device>| -> Result<Engine, Error> {
/// #     Compiler::new(Weights::open(&path)?)
/// #         .profile(Profile::single(&[("rows", 1, 8)])?)
/// #         .weight_streaming(true)
/// #         .tile_target(TileTarget::Bytes(16 << 10))
/// #         .shared_device(device.clone())
/// #         .compile(|vb: candle_nn::VarBuilder| {
/// #             let proj = candle_nn::linear_no_bias(64, 2048, vb)?;
/// #             Ok(move |call: &Call| {
/// #                 let x = call.input("x", (call.int("rows")?, 64), DType::F32)?;
/// #                 Ok(vec![proj.forward(&x)?])
/// #             })
/// #         })
/// # };
/// let device: Arc<dyn Device> = Arc::new(Host::discrete());
/// let (encoder, decoder) = (compile(&device)?, compile(&device)?);
///
/// let budget = DeviceBudget::new(device, "50%".parse()?);
/// budget.join(&encoder, Priority::NORMAL)?;
/// let plan = budget.join(&decoder, Priority(2))?;
/// let (a, b) = (encoder.device_budget()?.applied, decoder.device_budget()?.applied);
/// assert!(a < b);
/// assert_eq!(a + b, plan.budget);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct DeviceBudget(Arc<Joint>);

#[derive(Debug)]
struct Joint {
    device: Arc<dyn Device>,
    roster: Mutex<Roster>,
}

#[derive(Clone, Debug)]
struct Roster {
    request: Request,
    members: Vec<Member>,
}

#[derive(Clone, Debug)]
struct Member {
    engine: Weak<Core>,
    priority: Priority,
    /// Calls that it had made when it joined.
    before: u64,
}

/// A joint plan, and what of it is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceShares {
    /// What was asked for.
    pub requested: Request,
    /// The same in bytes.
    pub budget: u64,
    /// Each engine, in the order of joining.
    pub engines: Vec<EngineShare>,
    /// The sum of the shares.
    pub spent: u64,
    /// What no engine can use.
    pub remainder: u64,
}

/// One engine of a joint plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineShare {
    /// Its share in bytes.
    pub share: u64,
    /// The budget in force: less than the share under memory pressure.
    pub applied: u64,
    /// The smallest budget.
    pub floor: u64,
    /// The largest useful budget.
    pub total: u64,
    /// Its priority.
    pub priority: Priority,
    /// Calls since it joined.
    pub calls: u64,
}

/// A plan with the engines that it is for.
struct JointPlan {
    members: Vec<(Arc<Core>, Priority, u64)>,
    requested: Request,
    budget: u64,
    shares: Shares,
}

impl DeviceBudget {
    /// A budget without engines on a device. Shares of it are of the sum of all engines' weights;
    /// [`Request::Automatic`] is what is free beside everything else.
    pub fn new(device: Arc<dyn Device>, request: Request) -> DeviceBudget {
        let members = Vec::new();
        let roster = Mutex::new(Roster { request, members });
        DeviceBudget(Arc::new(Joint { device, roster }))
    }

    /// Adds an engine, or changes its priority, and plans anew. After an error nothing has changed.
    ///
    /// # Errors
    /// [`Error::NoStreaming`] without weight streaming, [`Error::OtherDevice`] for an engine of another
    /// device; those of [`DeviceBudget::set`].
    pub fn join(&self, engine: &Engine, priority: Priority) -> Result<DeviceShares, Error> {
        engine.require_streaming()?;
        if !Arc::ptr_eq(engine.device(), &self.0.device) {
            let name = |device: &Arc<dyn Device>| device.info().name.clone();
            return Err(Error::OtherDevice {
                budget: name(&self.0.device),
                engine: name(engine.device()),
            });
        }
        self.change(|roster| {
            let is = |m: &&mut Member| m.is(engine);
            match roster.members.iter_mut().find(is) {
                Some(member) => member.priority = priority,
                None => roster.members.push(Member {
                    engine: Arc::downgrade(engine.core()),
                    priority,
                    before: engine.core().calls(),
                }),
            }
        })
    }

    /// Takes an engine out, which keeps its budget, and plans anew for the others. The engine has
    /// left whether or not they could have what it had.
    ///
    /// # Errors
    /// Those of [`DeviceBudget::set`].
    pub fn leave(&self, engine: &Engine) -> Result<DeviceShares, Error> {
        self.roster().members.retain(|m| !m.is(engine));
        self.replan()
    }

    /// Changes the budget: every engine gets its new share, or after an error all keep the old.
    ///
    /// # Errors
    /// [`Error::BelowFloors`] if it is less than the engines need, [`Error::Member`] if one refuses its share.
    pub fn set(&self, request: Request) -> Result<DeviceShares, Error> {
        self.change(|roster| roster.request = request)
    }

    /// Plans anew with the same request: after engines were dropped, after they ran more or less
    /// often than before, or after memory pressure.
    ///
    /// # Errors
    /// Those of [`DeviceBudget::set`].
    pub fn replan(&self) -> Result<DeviceShares, Error> {
        self.change(|_| {})
    }

    /// What a plan made now would be, beside the budgets in force. Changes nothing.
    ///
    /// # Errors
    /// [`Error::BelowFloors`] if the budget is less than the engines need, [`Error::Stream`] while one of
    /// them has no budget.
    pub fn plan(&self) -> Result<DeviceShares, Error> {
        let roster = self.roster().clone();
        self.planned(&roster)?.report()
    }

    /// Engines that have joined and not left.
    pub fn members(&self) -> usize {
        let roster = self.roster();
        let alive = |m: &&Member| m.engine.strong_count() > 0;
        roster.members.iter().filter(alive).count()
    }

    fn roster(&self) -> MutexGuard<'_, Roster> {
        // A change that panicked has not been put in the roster.
        self.0.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the roster if the plan that follows from it can be applied.
    fn change(&self, change: impl FnOnce(&mut Roster)) -> Result<DeviceShares, Error> {
        let mut roster = self.roster();
        let mut new = roster.clone();
        new.members.retain(|m| m.engine.strong_count() > 0);
        change(&mut new);
        let _planning = Planning::on(&self.0.device);
        let plan = self.planned(&new)?;
        plan.apply()?;
        *roster = new;
        plan.report()
    }

    fn planned(&self, roster: &Roster) -> Result<JointPlan, Error> {
        let alive = roster.members.iter().filter_map(|m| {
            let engine = m.engine.upgrade()?;
            let calls = engine.calls();
            Some((engine, m.priority, calls.saturating_sub(m.before)))
        });
        let members: Vec<(Arc<Core>, Priority, u64)> = alive.collect();
        let demands: Vec<Demand> = members.iter().map(demand).collect();
        let floors: u64 = demands.iter().map(|d| d.floor).sum();
        let total: u64 = demands.iter().map(|d| d.total).sum();
        let budget = match roster.request {
            Request::Minimum | Request::Bytes(0) => floors,
            Request::Bytes(bytes) => bytes,
            Request::Percent(part) if part.millionths() == 0 => floors,
            Request::Percent(part) => part.of(total),
            Request::Full => total,
            Request::Automatic => {
                let engines: Vec<Arc<Core>> = members.iter().map(|m| m.0.clone()).collect();
                neighbours::room(&self.0.device, &engines).max(floors)
            }
        };
        let shares = share(budget, &demands).map_err(|e: BelowFloors| Error::BelowFloors(e))?;
        Ok(JointPlan {
            members,
            requested: roster.request,
            budget,
            shares,
        })
    }
}

impl Member {
    fn is(&self, engine: &Engine) -> bool {
        std::ptr::eq(self.engine.as_ptr(), Arc::as_ptr(engine.core()))
    }
}

/// What memory gains for a member. All links are that of one device, so their rate is left out.
fn demand((engine, priority, calls): &(Arc<Core>, Priority, u64)) -> Demand {
    Demand {
        // Before anybody has run, all are taken to run as often.
        weight: f64::from(priority.0) * (calls + 1) as f64,
        ..engine.demand()
    }
}

impl JointPlan {
    /// Gives every engine its share, those first that shrink; if one refuses, all go back.
    fn apply(&self) -> Result<(), Error> {
        let shares = self.members.iter().zip(&self.shares.bytes);
        let now = |m: &Arc<Core>| m.run().weights().applied();
        let befores = shares.map(|((m, ..), share)| Ok((now(m)?, *share)));
        let befores: Vec<(Applied, u64)> = befores.collect::<Result<_, trt_stream::Error>>()?;
        let mut order: Vec<usize> = (0..befores.len()).collect();
        order.sort_by_key(|i| befores[*i].1 > befores[*i].0.applied);
        for (done, &i) in order.iter().enumerate() {
            let engine = &self.members[i].0;
            let share = Request::Bytes(befores[i].1);
            let Err(error) = engine.apply(&mut engine.run(), share, 0) else {
                continue;
            };
            for &back in order[..done].iter().rev() {
                let engine = &self.members[back].0;
                let mut run = engine.run();
                let restored = run.restore(&befores[back].0);
                engine.note(&run);
                match restored {
                    Ok(now) if now.applied == befores[back].0.applied => {}
                    other => tracing::error!(
                        engine = back,
                        ?other,
                        "a budget could not be restored fully"
                    ),
                }
            }
            return Err(Error::Member {
                engine: i,
                engines: self.members.len(),
                source: Box::new(error),
            });
        }
        Ok(())
    }

    fn report(&self) -> Result<DeviceShares, Error> {
        let shares = self.members.iter().zip(&self.shares.bytes);
        let engines = shares.map(|((engine, priority, calls), share)| {
            let applied = engine.run().weights().applied()?;
            Ok(EngineShare {
                share: *share,
                applied: applied.applied,
                floor: applied.floor,
                total: applied.total,
                priority: *priority,
                calls: *calls,
            })
        });
        Ok(DeviceShares {
            requested: self.requested,
            budget: self.budget,
            engines: engines.collect::<Result<_, Error>>()?,
            spent: self.shares.bytes.iter().sum(),
            remainder: self.shares.remainder,
        })
    }
}

impl fmt::Display for DeviceShares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "budget {} ({} bytes): {} for {} engines, {} left over",
            self.requested,
            self.budget,
            self.spent,
            self.engines.len(),
            self.remainder
        )?;
        for (i, e) in self.engines.iter().enumerate() {
            writeln!(
                f,
                "  engine {i}: {} of {} bytes ({} in force, floor {}), priority {}, {} calls",
                e.share, e.total, e.applied, e.floor, e.priority.0, e.calls
            )?;
        }
        Ok(())
    }
}
