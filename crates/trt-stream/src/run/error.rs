//! What can go wrong while weights stream, with the names and numbers needed to act on it.

use super::config::ProgramId;
use super::weight::Weight;
use crate::files::Shown;
use crate::plan::{BudgetError, SheetError, WeightId};
use trt_kernel::Role;

/// An error of the executor.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The budget cannot be met.
    #[error(transparent)]
    Budget(#[from] BudgetError),
    /// The pool has no room.
    #[error(transparent)]
    Pool(#[from] trt_alloc::Error),
    /// The device refused.
    #[error(transparent)]
    Device(#[from] trt_device::Error),
    /// A weight that the streamer was not told of.
    #[error("weight {} does not exist: there are {count}", id.0)]
    UnknownWeight {
        /// The id asked for.
        id: WeightId,
        /// How many weights there are.
        count: usize,
    },
    /// A weight is to be pinned and streamed.
    #[error("weight '{}' cannot be both pinned and streamed", Shown(name))]
    TwoRoles {
        /// The weight.
        name: String,
    },
    /// A weight was asked for in a role it does not have.
    #[error("weight '{}' is not {role}", Shown(name))]
    NotInRole {
        /// The weight.
        name: String,
        /// The role asked for: streamed, pinned or mapped.
        role: &'static str,
    },
    /// A form that cannot be what it is said to be.
    #[error("weight '{}': {}", Shown(name), Shown(what))]
    Form {
        /// The weight.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// A form that cannot be cut into tiles.
    #[error(transparent)]
    Sheet(#[from] SheetError),
    /// A use of an expert that a weight does not have.
    #[error("weight '{}' has no expert {expert}: there are {count}", Shown(name))]
    NoExpert {
        /// The weight.
        name: String,
        /// The expert asked for.
        expert: u32,
        /// How many there are.
        count: usize,
    },
    /// No such program.
    #[error("program {} does not exist: there are {count}", program.0)]
    UnknownProgram {
        /// The program asked for.
        program: ProgramId,
        /// How many there are.
        count: usize,
    },
    /// A pass asked for more weights than its program uses.
    #[error("program {} uses {uses} weights, and all were used in this pass", program.0)]
    TooManyUses {
        /// The program.
        program: ProgramId,
        /// Weights it uses.
        uses: usize,
    },
    /// A pass ended early.
    #[error("the pass over program {} ended after {done} of {uses} weights", program.0)]
    Unfinished {
        /// The program.
        program: ProgramId,
        /// Weights used.
        done: usize,
        /// Weights the program uses.
        uses: usize,
    },
    /// Memory for the last budget could not be had, nor for the one before.
    #[error("the streamer holds no usable budget since one could not be applied: set another")]
    Starved,
}

impl Error {
    pub(super) fn not_in_role(weight: &Weight, role: Role) -> Error {
        Error::NotInRole {
            name: weight.name.to_string(),
            role: match role {
                Role::Rows => "streamed",
                Role::Table => "mapped",
                Role::Whole => "pinned",
            },
        }
    }

    /// The bytes that were asked for, if the device had no memory for them.
    pub fn out_of_memory(&self) -> Option<u64> {
        match self {
            Error::Device(e) => e.out_of_memory(),
            Error::Pool(e) => e.out_of_memory(),
            _ => None,
        }
    }
}
