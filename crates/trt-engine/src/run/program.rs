//! The program of one class of calls, loaded and laid out for a device.

use super::arena::{ArenaLayout, ArenaShape};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use trt_device::Executable;
use trt_graph::program::{BufferId, ParamId, Program};
use trt_kernel::{Env, Role, Var};
use trt_stream::{Use, WeightId};

/// How an argument of a launch is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ArgUse {
    /// A buffer.
    Buffer(BufferId),
    /// A weight, where weights of this role are.
    Weight(ParamId, Role),
}

/// The program of one class of calls, ready to run.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub class: trt_graph::Class,
    pub program: Program,
    /// Each launch of the program.
    pub launches: Vec<LaunchForms>,
    /// The runtime integers that decide how its launches are made.
    pub shape_vars: Vec<Var>,
    /// What lives when in the arena of a call.
    pub shape: ArenaShape,
    /// The arena of the largest call.
    pub arena: Arc<ArenaLayout>,
    /// The weight that each parameter of the program is, and each further one of launches that read packed rows.
    pub weights: Vec<WeightId>,
}

/// A launch that is loaded.
#[derive(Debug)]
pub(crate) struct LoadedLaunch {
    pub executable: Executable,
    pub args: Vec<ArgUse>,
}

/// A launch in the forms in which its weights may be.
#[derive(Debug)]
pub(crate) struct LaunchForms {
    /// Its weights are as they were given.
    pub plain: LoadedLaunch,
    /// Those that have a packed form are packed; none if no weight of the launch has one.
    pub packed: Option<LoadedLaunch>,
}

impl LaunchForms {
    /// What is loaded for it.
    pub fn executables(&self) -> impl Iterator<Item = &Executable> {
        let both = [Some(&self.plain), self.packed.as_ref()];
        both.into_iter().flatten().map(|p| &p.executable)
    }
}

/// How a weight is derived of others: a program without inputs that gives it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Recipe {
    /// The name under which programs read it.
    pub name: Arc<str>,
    pub program: Program,
}

impl Compiled {
    /// What is loaded for its launches.
    pub fn executables(&self) -> impl Iterator<Item = &Executable> {
        self.launches.iter().flat_map(LaunchForms::executables)
    }

    /// What it reads by rows, in launch order.
    pub fn streamed(&self) -> Vec<Use> {
        streamed(&self.program, &self.weights)
    }

    /// Bytes of each input of a call.
    pub fn input_bytes(&self, env: &Env) -> Vec<usize> {
        let bytes = |i: &trt_graph::InputDecl| {
            i.shape.iter().map(|d| d.size(env)).product::<usize>() * i.dtype.size()
        };
        self.program.inputs.iter().map(bytes).collect()
    }
}

/// What a program reads by rows, in launch order, where its parameters are these weights.
pub(crate) fn streamed(program: &Program, numbers: &[WeightId]) -> Vec<Use> {
    let ranged = program.ranged_uses();
    ranged.map(|p| numbers[p.0 as usize].into()).collect()
}
