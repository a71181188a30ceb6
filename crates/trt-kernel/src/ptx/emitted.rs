//! What the back end hands over: text, and what whoever launches it needs beside that.

use crate::launch::{self, EntryLaunch, Extent, Param, TooLarge};
use crate::{Arg, DType, Dim, Env, Var};
use std::fmt;

/// The instruction set to emit for: the smallest of its family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// Turing and later.
    Sm75,
    /// Ampere and later: `cp.async`, bf16 tensor cores.
    Sm80,
    /// Hopper and later, without the instructions of one architecture only.
    Sm90,
    /// Hopper itself (`sm_90a`): warp-group products.
    Sm90a,
    /// The same, and whoever launches makes tensor maps: products are fed by the copy engine.
    Sm90aMaps,
}

impl Target {
    /// Every target.
    pub const ALL: [Target; 5] = [
        Target::Sm75,
        Target::Sm80,
        Target::Sm90,
        Target::Sm90a,
        Target::Sm90aMaps,
    ];

    /// The best target that a device of this compute capability runs without tensor maps; none
    /// below 7.5.
    pub fn of(major: u32, minor: u32) -> Option<Target> {
        match (major, minor) {
            (9, 0) => Some(Target::Sm90a),
            (9.., _) => Some(Target::Sm90),
            (8, _) => Some(Target::Sm80),
            (7, 5..) => Some(Target::Sm75),
            _ => None,
        }
    }

    /// Whether a launch may take tensor maps ([`Param::Map`]).
    pub const fn maps(self) -> bool {
        match self {
            Target::Sm75 | Target::Sm80 | Target::Sm90 | Target::Sm90a => false,
            Target::Sm90aMaps => true,
        }
    }

    /// The target for a device like this one where tensor maps are made; itself where none can be.
    pub const fn with_maps(self) -> Target {
        match self {
            Target::Sm90a => Target::Sm90aMaps,
            other => other,
        }
    }

    /// The target for a device like this one where nobody makes tensor maps.
    pub const fn without_maps(self) -> Target {
        match self {
            Target::Sm90aMaps => Target::Sm90a,
            other => other,
        }
    }

    /// Whether launches can overlap (`griddepcontrol`).
    pub(super) const fn overlaps(self) -> bool {
        match self {
            Target::Sm75 | Target::Sm80 => false,
            Target::Sm90 | Target::Sm90a | Target::Sm90aMaps => true,
        }
    }

    /// The name that PTX and its assembler use.
    pub const fn name(self) -> &'static str {
        match self {
            Target::Sm75 => "sm_75",
            Target::Sm80 => "sm_80",
            Target::Sm90 => "sm_90",
            Target::Sm90a | Target::Sm90aMaps => "sm_90a",
        }
    }

    /// The PTX version of the text: the lowest that has the instructions.
    pub const fn version(self) -> &'static str {
        match self {
            Target::Sm75 | Target::Sm80 => "7.4",
            Target::Sm90 | Target::Sm90a | Target::Sm90aMaps => "8.0",
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        f.write_str(if self.maps() { "+maps" } else { "" })
    }
}

/// Bytes of a tensor map as the driver encodes it.
pub const MAP_BYTES: usize = 128;

/// How many ranges of memory the tiles of a weight may lie in that are too far apart for one map.
pub const MAP_RANGES: u8 = 2;

/// The value of [`Param::Map`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapParam {
    /// The map, as the driver encodes it.
    pub map: [u64; MAP_BYTES / 8],
    /// The address that it begins at; above all addresses if there is no map.
    pub base: u64,
}

/// A tensor map that a launch needs: of rows in memory, read in boxes of some rows and 128 bytes
/// along them, with the swizzle of 128 bytes. What lies outside of the rows reads as zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorMap {
    /// What it shows.
    pub of: Mapped,
    /// The dtype of an element, of 16 bits.
    pub dtype: DType,
    /// Elements of a row.
    pub columns: usize,
    /// Bytes from a row to the next; a multiple of 16.
    pub pitch: usize,
    /// Rows of a box.
    pub box_rows: u32,
}

/// What a tensor map shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mapped {
    /// Rows of an argument.
    Rows {
        /// The argument.
        arg: Arg,
        /// Bytes to the first row; a multiple of 16.
        offset: usize,
        /// How many rows.
        rows: Dim,
    },
    /// Tiles of a ranged weight. The map begins at the lowest of them and reaches to the end of
    /// the highest, whatever lies between; all lie at distances that are multiples of 128 bytes.
    /// A tile of the second range is one that is 2^31 rows or more from the start of the first.
    Tiles {
        /// Which weight, as in [`crate::Kernel::streamed`].
        weight: u8,
        /// Which of the [`MAP_RANGES`].
        range: u8,
    },
    /// Rows of the launch's working memory.
    Scratch {
        /// Bytes to the first row; a multiple of 16.
        offset: usize,
        /// How many rows.
        rows: usize,
    },
}

/// A kernel as PTX.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emitted {
    /// The module.
    pub text: String,
    /// What it was emitted for.
    pub target: Target,
    /// Parameters of every entry.
    pub params: Vec<Param>,
    /// What to launch, in order.
    pub launches: Vec<EntryLaunch>,
    /// Tensor maps to be made for launches that need them.
    pub maps: Vec<TensorMap>,
    /// Bytes of working memory that a call needs; its content means nothing before and after.
    pub scratch: Dim,
    /// Sizes that the text counts with 32 bits: see [`Emitted::within`].
    pub limits: Vec<Dim>,
}

impl Emitted {
    /// A bound of the bytes of instructions that the text becomes. It needs no driver, and no proof
    /// stands behind it: instructions follow the text, and what assemblers add (divisions, copies
    /// of short loops) is a few KiB. It was found by assembling, and tests hold every kernel of the
    /// corpus and of the models to it, for every device. Constants and what a driver rounds up to
    /// come on top.
    pub fn code_bytes(&self) -> u64 {
        2 * self.text.len() as u64 + (4 << 10)
    }

    /// Whether a launch may start before the one ahead of it in its stream has ended: the text
    /// waits by itself before it touches what other launches write. Streamed weights are read
    /// before that, so they must be there when the launch ahead starts.
    pub fn overlaps(&self) -> bool {
        self.target.overlaps()
    }

    /// Whether the text computes a call right, as far as sizes decide that. Indices are 32-bit
    /// values, so a call that this refuses must not be launched; asked before anything else of the
    /// call is computed. Runtime integers that decide it may be others than those of
    /// [`Emitted::grid_vars`], so a replay asks too.
    ///
    /// # Errors
    /// [`TooLarge`] names the first limit that the call's sizes break.
    pub fn within(&self, env: &Env) -> Result<(), TooLarge> {
        launch::within(&self.limits, env)
    }

    /// The runtime integers that decide what is launched: calls that agree in these launch the
    /// same entries with the same grids and tensor maps.
    pub fn grid_vars(&self) -> Vec<Var> {
        let grids = self.launches.iter().flat_map(|l| &l.grid);
        let of = grids.flat_map(Extent::dims);
        let when = self.launches.iter().flat_map(|l| &l.when).map(|w| &w.dim);
        let mapped = self.maps.iter().filter_map(|m| match &m.of {
            Mapped::Rows { rows, .. } => Some(rows),
            Mapped::Tiles { .. } | Mapped::Scratch { .. } => None,
        });
        let dims = of.chain(when).chain(mapped);
        let mut vars: Vec<Var> = dims.flat_map(|d| d.vars().collect::<Vec<_>>()).collect();
        vars.sort();
        vars.dedup();
        vars
    }
}

impl fmt::Display for Emitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for l in &self.launches {
            writeln!(f, "// {l}")?;
        }
        if !self.scratch.is(0) {
            writeln!(f, "// scratch {} bytes", self.scratch)?;
        }
        f.write_str(&self.text)
    }
}
