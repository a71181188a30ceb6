//! How an engine's arena is held, for good or for a scope.

use crate::error::Error;
use crate::run::engine::Engine;
use crate::run::pressure::Failed;
use trt_alloc::Allocation;

impl Engine {
    /// How the memory of intermediate results is held now.
    pub fn allocation(&self) -> Allocation {
        self.run().membership().allocation().clone()
    }

    /// Changes how the memory of intermediate results is held, from the next call on. Changing to
    /// what is in force does nothing. Where the device has no memory for it, resident weights make
    /// room as they do for a call.
    ///
    /// # Errors
    /// If there is no memory for it, even where resident weights make room, or the strategy refuses: then
    /// the allocation is what it was.
    pub fn set_allocation(&self, allocation: impl Into<Allocation>) -> Result<(), Error> {
        let allocation = allocation.into();
        let mut run = self.run();
        if *run.membership().allocation() == allocation {
            return Ok(());
        }
        let core = self.core();
        core.shrink_and_retry(&mut run, |run| {
            let entered = run.enter(allocation.clone(), core.compute());
            entered.map_err(Failed::Yet)
        })
    }

    /// The scope of an allocation: the previous one is back when the guard is dropped.
    ///
    /// ```
    /// # use candle_core::{DType, Device, Tensor};
    /// # use std::collections::HashMap;
    /// # use trt_engine::{Allocation, Compiler, Profile, Weights};
    /// # use trt_graph::{Call, candle_nn::VarBuilder};
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("model.safetensors");
    /// # let w = Tensor::ones(64, DType::F32, &Device::Cpu)?;
    /// # candle_core::safetensors::save(&HashMap::from([("scale", w)]), &path)?;
    /// # let engine = Compiler::new(Weights::open(&path)?)
    /// #     .device(trt_device::Host::unified())
    /// #     .profile(Profile::single(&[("rows", 2, 1000)])?)
    /// #     .compile(|vb: VarBuilder| {
    /// #         let scale = vb.get(64, "scale")?;
    /// #         Ok(move |call: &Call| {
    /// #             let x = call.input("x", (call.int("rows")?, 64), DType::F32)?;
    /// #             Ok(vec![x.broadcast_mul(&scale)?.exp()?])
    /// #         })
    /// #     })?;
    /// # let x = Tensor::zeros((30, 64), DType::F32, &Device::Cpu)?;
    /// assert_eq!(engine.memory().activations, 2 * 1000 * 256);
    /// {
    ///     let _scope = engine.resource_allocation(Allocation::Dynamic)?;
    ///     engine.session()?.run(&[x])?;
    ///     assert_eq!(engine.memory().activations, 0);
    /// }
    /// assert_eq!(engine.allocation(), Allocation::Static);
    /// assert_eq!(engine.memory().activations, 2 * 1000 * 256);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Engine::set_allocation`].
    pub fn resource_allocation(
        &self,
        allocation: impl Into<Allocation>,
    ) -> Result<ResourceAllocation<'_>, Error> {
        ResourceAllocation::of([self], allocation)
    }
}

/// Changes the allocation of engines for a scope, as `ResourceAllocationStrategy` of Torch-TensorRT
/// does with `dynamically_allocate_resources`. Dropping it, on any way out of the scope, gives
/// each engine back the allocation that it had when the guard was made, whatever it has now: of two
/// guards on one engine that end in the order in which they were made, the second has the last word.
#[derive(Debug)]
pub struct ResourceAllocation<'a> {
    before: Vec<(&'a Engine, Allocation)>,
}

impl<'a> ResourceAllocation<'a> {
    /// A scope over several engines: all of them change, or after an error none.
    ///
    /// # Errors
    /// Those of [`Engine::set_allocation`], of the first engine that has one.
    pub fn of(
        engines: impl IntoIterator<Item = &'a Engine>,
        allocation: impl Into<Allocation>,
    ) -> Result<Self, Error> {
        let allocation = allocation.into();
        let mut scope = ResourceAllocation { before: Vec::new() };
        for engine in engines {
            let before = engine.allocation();
            // On an error the drop of the scope puts those back that have changed.
            engine.set_allocation(allocation.clone())?;
            scope.before.push((engine, before));
        }
        Ok(scope)
    }
}

impl Drop for ResourceAllocation<'_> {
    fn drop(&mut self) {
        // The last first, so that an engine that was named twice ends where it began.
        for (engine, before) in self.before.drain(..).rev() {
            let mut run = engine.run();
            if *run.membership().allocation() != before {
                run.go_back(before, engine.core().compute());
            }
        }
    }
}
