//! What the back end hands over: text, parameters, and launches as data.

use super::limits::{self, TooLarge};
use crate::{Arg, DType, Dim, Env, SumOrder, Var};
use std::fmt;

/// The most tiles of a weight that one launch may cover.
pub const MAX_TILES: usize = 64;

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

/// A parameter of every entry of a module, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Param {
    /// The address of an argument (u64). A ranged weight's is not read; [`Param::Tiles`] is.
    Arg(Arg),
    /// The rows of a ranged weight in this launch, and where they lie: a [`TilesParam`] by value.
    /// Weights are counted as in [`crate::Kernel::streamed`].
    Tiles(u8),
    /// The address of the runtime integers, `Var::MAX` of i64 (u64).
    Env,
    /// The address of [`Emitted::scratch`] bytes of working memory (u64, 256-byte aligned).
    Scratch,
    /// The address of a fault record (u64): three i64, all zero until a kernel finds bad input:
    /// a nonzero mark, the id, and the row it stands at.
    Fault,
    /// The address of [`COUNTERS`] of u32 (u64) that no launch beside this one uses: all zero when
    /// it starts, and again when it ends.
    Counters,
    /// One of [`Emitted::maps`]: a [`MapParam`] by value, 64-byte aligned where the kernel reads
    /// it, which is decided by the assembler: the driver must place the parameters. Only entries
    /// whose launch is [`Launch::mapped`] read it.
    Map(u8),
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
}

/// The counters that [`Param::Counters`] stands for.
pub const COUNTERS: usize = 256;

/// The value of [`Param::Tiles`]: a range of weight rows, cut into tiles of equal height but for
/// the last.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TilesParam {
    /// First row.
    pub first: u32,
    /// End of the range.
    pub end: u32,
    /// Rows of a tile; a multiple of [`crate::ROW_PANEL`] if there is more than one.
    pub step: u32,
    /// Zero.
    pub reserved: u32,
    /// The address of the first row of each tile.
    pub address: [u64; MAX_TILES],
}

/// Holds if a size lies in a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct When {
    /// The size.
    pub dim: Dim,
    /// Smallest value.
    pub min: u32,
    /// Largest value.
    pub max: u32,
}

/// How many blocks along one axis of a grid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Always as many.
    Fixed(u32),
    /// A size of the call over `per`, rounded up.
    Of {
        /// The size.
        dim: Dim,
        /// What one block does.
        per: u32,
    },
    /// The rows of a ranged weight in the launch over `per`, rounded up.
    Rows {
        /// Which weight, as in [`crate::Kernel::streamed`].
        weight: u8,
        /// What one block does.
        per: u32,
    },
    /// As many as the largest of these.
    Most(Vec<Extent>),
}

impl Extent {
    /// Blocks in a call; `rows` is the number of rows of each ranged weight in the launch.
    pub fn blocks(&self, env: &Env, rows: &[usize]) -> u64 {
        match self {
            Extent::Fixed(n) => u64::from(*n),
            Extent::Of { dim, per } => (dim.size(env) as u64).div_ceil(u64::from(*per)),
            Extent::Rows { weight, per } => {
                let rows = rows.get(*weight as usize).copied().unwrap_or(0);
                (rows as u64).div_ceil(u64::from(*per))
            }
            Extent::Most(all) => all.iter().map(|e| e.blocks(env, rows)).max().unwrap_or(0),
        }
    }
}

/// One launch of an entry. Launches of a kernel run in order, each after the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The entry.
    pub entry: String,
    /// Launched only if all hold.
    pub when: Vec<When>,
    /// Blocks along x, y, z; nothing is launched if one is 0.
    pub grid: [Extent; 3],
    /// Threads of a block, along x.
    pub block: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// Whether it needs [`Emitted::maps`].
    pub mapped: bool,
    /// For each product of the kernel in order, the order in which the entry takes each of its sums;
    /// none where tensor cores or a tile of `f32` lanes decide that.
    pub sums: Vec<Option<SumOrder>>,
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
    pub launches: Vec<Launch>,
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
    pub fn within(&self, env: &Env) -> Result<(), TooLarge> {
        limits::within(&self.limits, env)
    }

    /// The runtime integers that decide what is launched: calls that agree in these launch the
    /// same entries with the same grids and tensor maps.
    pub fn grid_vars(&self) -> Vec<Var> {
        let grids = self.launches.iter().flat_map(|l| &l.grid);
        let of = grids.flat_map(Extent::dims);
        let when = self.launches.iter().flat_map(|l| &l.when).map(|w| &w.dim);
        let mapped = self.maps.iter().filter_map(|m| match &m.of {
            Mapped::Rows { rows, .. } => Some(rows),
            Mapped::Tiles { .. } => None,
        });
        let dims = of.chain(when).chain(mapped);
        let mut vars: Vec<Var> = dims.flat_map(|d| d.vars().collect::<Vec<_>>()).collect();
        vars.sort();
        vars.dedup();
        vars
    }
}

impl Extent {
    /// The sizes that it depends on.
    fn dims(&self) -> Vec<&Dim> {
        match self {
            Extent::Of { dim, .. } => vec![dim],
            Extent::Fixed(_) | Extent::Rows { .. } => Vec::new(),
            Extent::Most(all) => all.iter().flat_map(Extent::dims).collect(),
        }
    }
}

impl When {
    /// Whether it holds in a call.
    pub fn holds(&self, env: &Env) -> bool {
        let size = self.dim.size(env);
        (self.min as usize..=self.max as usize).contains(&size)
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Extent::Fixed(n) => write!(f, "{n}"),
            Extent::Of { dim, per: 1 } => write!(f, "({dim})"),
            Extent::Of { dim, per } => write!(f, "ceil(({dim})/{per})"),
            Extent::Rows { weight, per } => write!(f, "ceil(rows{weight}/{per})"),
            Extent::Most(all) => {
                let all: Vec<String> = all.iter().map(Extent::to_string).collect();
                write!(f, "max({})", all.join(", "))
            }
        }
    }
}

impl fmt::Display for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, z] = &self.grid;
        write!(
            f,
            "launch {} grid [{x}, {y}, {z}] block {}",
            self.entry, self.block
        )?;
        if self.shared > 0 {
            write!(f, " shared {}", self.shared)?;
        }
        for order in self.sums.iter().flatten() {
            write!(f, " sums {order}")?;
        }
        for w in &self.when {
            write!(f, " if {} <= {} <= {}", w.min, w.dim, w.max)?;
        }
        Ok(())
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
