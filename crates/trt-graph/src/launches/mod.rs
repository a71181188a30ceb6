//! Fewer launches: what lowering wrote, one fusion a file.
//!
//! A fusion takes launches with their *levels* and gives launches that compute the same; it sees the
//! buffers and changes none. [`Program::verify`] runs between any two, and an error names the fusion
//! that broke the program. Goldens show what each does.
//!
//! Levels are those of the launches as they were written (`order.rs`), whatever is fused afterwards:
//! so they do not depend on the sizes of calls, and the programs of all classes use their weights in
//! one order. A launch that takes in others keeps its own level.
//!
//! What can be fused is asked of [`trt_kernel::fusible`], never of a device.

mod dual_gemm;
mod gemm_prologue;
mod horizontal;
mod joined;
mod leveled;
mod order;
mod rope_append;

pub use leveled::Leveled;

use crate::Error;
use crate::program::{Buffer, Program};
use crate::report::{FusionNote, KernelNote};

/// A fusion by name: from all launches to all launches, given the program's buffers.
pub type Fusion = (&'static str, fn(&[Buffer], Vec<Leveled>) -> Vec<Leveled>);

/// All fusions in order.
pub const FUSIONS: &[Fusion] = &[
    // Not a fusion by itself: it brings together what the others look for.
    ("order", order::run),
    ("gemm_prologue", gemm_prologue::run),
    ("dual_gemm", dual_gemm::run),
    ("rope_append", rope_append::run),
    ("horizontal", horizontal::run),
];

/// A program whose launches are still being fused.
#[derive(Clone, Debug)]
pub struct Draft {
    /// All of the program but its launches.
    program: Program,
    launches: Vec<Leveled>,
}

impl Draft {
    /// Starts from a program as it was written; `ops` are those that each launch computes.
    ///
    /// # Errors
    ///
    /// [`Error::Program`] if the program breaks its invariants.
    pub fn new(mut program: Program, ops: Vec<Vec<String>>) -> Result<Draft, Error> {
        program.verify()?;
        let launches = order::leveled(std::mem::take(&mut program.launches), ops);
        Ok(Draft { program, launches })
    }

    /// The launches so far.
    pub fn launches(&self) -> &[Leveled] {
        &self.launches
    }

    /// The program with the launches so far.
    pub fn program(&self) -> Program {
        let launches = self.launches.iter().map(|l| l.launch.clone());
        Program {
            launches: launches.collect(),
            ..self.program.clone()
        }
    }

    /// Runs one fusion.
    ///
    /// # Errors
    ///
    /// [`Error::Fusion`] if the program breaks its invariants afterwards.
    pub fn apply(&mut self, (fusion, run): &Fusion) -> Result<FusionNote, Error> {
        let before = self.launches.len();
        let fused = run(&self.program.buffers, std::mem::take(&mut self.launches));
        // The check is of whole programs, so it is lent the launches.
        let (launches, beside): (Vec<_>, Vec<_>) = (fused.into_iter())
            .map(|l| (l.launch, (l.level, l.ops)))
            .unzip();
        self.program.launches = launches;
        let checked = self.program.verify();
        let launches = std::mem::take(&mut self.program.launches);
        self.launches = (launches.into_iter().zip(beside))
            .map(|(launch, (level, ops))| Leveled { level, launch, ops })
            .collect();
        match checked {
            Ok(()) => Ok(FusionNote {
                fusion,
                before,
                after: self.launches.len(),
            }),
            Err(Error::Program(what)) => Err(Error::Fusion { fusion, what }),
            Err(other) => Err(other),
        }
    }

    /// Runs every fusion with the check in between.
    ///
    /// # Errors
    ///
    /// [`Error::Fusion`] as [`Draft::apply`].
    pub fn fuse(&mut self) -> Result<Vec<FusionNote>, Error> {
        FUSIONS.iter().map(|fusion| self.apply(fusion)).collect()
    }

    /// The program, and what each of its launches computes.
    pub fn finish(self) -> (Program, Vec<KernelNote>) {
        let mut program = self.program;
        let mut notes = Vec::with_capacity(self.launches.len());
        for Leveled { launch, ops, .. } in self.launches {
            let kind = launch.kernel.kind();
            notes.push(KernelNote { kind, ops });
            program.launches.push(launch);
        }
        (program, notes)
    }
}
