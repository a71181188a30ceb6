//! How the entries of a kernel are launched on a GPU, as data, whatever its back end writes.
//!
//! A kernel becomes entries; each is launched over a grid whose extents are formulas of a call's
//! sizes, under conditions on sizes, with parameters that are the same for all entries. Whoever
//! launches follows that and knows no kernel. The invariant: what is launched depends on the sizes
//! of a call and on the range of weight rows only through [`Extent`] and [`When`].
//!
//! What does not depend on an instruction set is here too: which sizes indices of 32 bits cover
//! ([`within`]), how wide accesses to memory may be, and how rows with folds are cut into passes
//! and given to threads.

mod indices;
pub(crate) mod row_plan;
pub(crate) mod stages;
pub(crate) mod widths;

pub use indices::{LARGEST_INDEX, TooLarge, within};

use crate::fusible::MAX_TILES;
use crate::{Arg, Dim, Env, SumOrder};
use std::fmt;

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
    /// The address of the working memory that the kernel asks for (u64, 256-byte aligned).
    Scratch,
    /// The address of a fault record (u64): three i64, all zero until a kernel finds bad input:
    /// a nonzero mark, the id, and the row it stands at.
    Fault,
    /// The address of [`COUNTERS`] of u32 (u64) that no launch beside this one uses: all zero when
    /// it starts, and again when it ends.
    Counters,
    /// One of the tensor maps that the kernel asks for: a [`crate::ptx::MapParam`] by value, 64-byte
    /// aligned where the kernel reads it, which is decided by the assembler: the driver must place the
    /// parameters. Only entries whose launch is [`EntryLaunch::mapped`] read it.
    Map(u8),
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
    /// As [`Extent::Rows`], of some of these rows.
    Slab {
        /// Which weight, as in [`crate::Kernel::streamed`].
        weight: u8,
        /// The first of them, counted from the first row in the launch.
        from: u32,
        /// How many of them, if there are as many.
        rows: u32,
        /// What one block does.
        per: u32,
    },
    /// As many as the largest of these.
    Most(Vec<Extent>),
    /// As many as all of these together.
    Sum(Vec<Extent>),
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
            Extent::Slab {
                weight,
                from,
                rows: most,
                per,
            } => {
                let rows = rows.get(*weight as usize).copied().unwrap_or(0) as u64;
                let some = rows.saturating_sub(u64::from(*from)).min(u64::from(*most));
                some.div_ceil(u64::from(*per))
            }
            Extent::Most(all) => all.iter().map(|e| e.blocks(env, rows)).max().unwrap_or(0),
            Extent::Sum(all) => all.iter().map(|e| e.blocks(env, rows)).sum(),
        }
    }
}

/// One launch of an entry. Launches of a kernel run in order, each after the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryLaunch {
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
    /// Whether it needs the kernel's tensor maps.
    pub mapped: bool,
    /// For each product of the kernel in order, the order in which the entry takes each of its sums;
    /// none where tensor cores or a tile of `f32` lanes decide that.
    pub sums: Vec<Option<SumOrder>>,
}

impl Extent {
    /// The sizes that it depends on.
    pub(crate) fn dims(&self) -> Vec<&Dim> {
        match self {
            Extent::Of { dim, .. } => vec![dim],
            Extent::Fixed(_) | Extent::Rows { .. } | Extent::Slab { .. } => Vec::new(),
            Extent::Most(all) | Extent::Sum(all) => all.iter().flat_map(Extent::dims).collect(),
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
            Extent::Slab {
                weight,
                from,
                rows,
                per,
            } => write!(f, "ceil(min(rows{weight}-{from}, {rows})/{per})"),
            Extent::Most(all) => {
                let all: Vec<String> = all.iter().map(Extent::to_string).collect();
                write!(f, "max({})", all.join(", "))
            }
            Extent::Sum(all) => {
                let all: Vec<String> = all.iter().map(Extent::to_string).collect();
                write!(f, "{}", all.join(" + "))
            }
        }
    }
}

impl fmt::Display for EntryLaunch {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slab_has_the_blocks_of_those_of_its_rows_that_are_in_the_launch() {
        let slab = Extent::Slab {
            weight: 1,
            from: 256,
            rows: 256,
            per: 100,
        };
        let blocks = |rows| slab.blocks(&Env::default(), &[9999, rows]);
        assert_eq!(
            [0, 256, 257, 456, 457, 512, 9000].map(blocks),
            [0, 0, 1, 2, 3, 3, 3]
        );
        assert_eq!(slab.to_string(), "ceil(min(rows1-256, 256)/100)");
        assert!(slab.dims().is_empty());
    }
}
