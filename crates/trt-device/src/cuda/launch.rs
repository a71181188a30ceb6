//! Kernels on the device: what one is, what a launch of it must hold, and its parameters.
//!
//! Everything about a launch is decided by [`Emitted`]: which entries run with which grids, and
//! the order of the parameters that all of them take. Parameters are packed as the words of one
//! buffer, since each is a multiple of eight bytes with an alignment of eight.

use super::bounds::Bounds;
use super::driver::{Context, Function, Grid, Module};
use super::modules::Text;
use crate::{Error, Slice, Tiles};
use std::sync::Arc;
use trt_kernel::host::HostError;
use trt_kernel::ptx::{Emitted, Launch, MAX_TILES, Param, TilesParam};
use trt_kernel::{Dim, Env, Kernel, ROW_PANEL, Var};

/// Whether launches may start before the one before has ended, on devices that can: kernels must
/// then wait for what they read by themselves.
const OVERLAP: bool = false;

/// A kernel that the driver has assembled.
#[derive(Debug)]
pub(crate) struct CudaExecutable {
    kind: &'static str,
    args: usize,
    written: Vec<usize>,
    params: Vec<Param>,
    entries: Vec<Entry>,
    scratch: Dim,
    grid_vars: Vec<Var>,
    weight: Option<Weight>,
    /// Rows of the table of a gather.
    table_rows: Option<usize>,
    bounds: Bounds,
    context: Arc<Context>,
    /// Holds the functions of the entries.
    _text: Arc<Text>,
}

/// One launch of those that a kernel takes.
#[derive(Debug)]
struct Entry {
    function: Function,
    launch: Launch,
}

/// The operand that may come in tiles.
#[derive(Debug)]
struct Weight {
    arg: usize,
    rows: Dim,
    /// Elements of a row.
    columns: Dim,
    /// Bytes of an element.
    size: usize,
}

/// A launch as it was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    pub env: &'a Env,
    pub args: &'a [Slice],
    pub tiles: Option<&'a Tiles>,
    pub scratch: Option<&'a Slice>,
    /// The name of the stream, for errors.
    pub stream: &'a str,
}

/// What a launch is given beside its arguments.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surroundings {
    /// The address of the runtime integers.
    pub integers: u64,
    /// The address of the fault record.
    pub fault: u64,
}

/// A launch with everything decided.
#[derive(Debug, Default)]
pub(super) struct Ready {
    /// The parameters.
    pub words: Vec<u64>,
    /// What to launch with them, in order.
    pub launches: Vec<(Function, Grid)>,
}

impl CudaExecutable {
    pub(super) fn new(
        kernel: &Kernel,
        emitted: &Emitted,
        module: &Module,
        text: Arc<Text>,
    ) -> Result<CudaExecutable, Error> {
        let entry = |launch: &Launch| {
            // The attribute for shared memory belongs to the entry, so it must fit all launches.
            let same = emitted.launches.iter().filter(|l| l.entry == launch.entry);
            let shared = same.map(|l| l.shared).max().unwrap_or(0);
            Ok(Entry {
                function: module.function(&launch.entry, launch.block, shared)?,
                launch: launch.clone(),
            })
        };
        let weight = match kernel {
            Kernel::Matmul(k) if k.ranged => Some(Weight {
                arg: k.b.arg.0 as usize,
                rows: k.n.clone(),
                columns: k.k.clone(),
                size: k.args.get(k.b.arg.0 as usize).map_or(0, |d| d.size()),
            }),
            _ => None,
        };
        Ok(CudaExecutable {
            kind: kernel.kind(),
            args: kernel.args().len(),
            written: kernel.written().iter().map(|a| a.0 as usize).collect(),
            params: emitted.params.clone(),
            entries: emitted
                .launches
                .iter()
                .map(entry)
                .collect::<Result<_, Error>>()?,
            scratch: emitted.scratch.clone(),
            grid_vars: emitted.grid_vars(),
            weight,
            table_rows: match kernel {
                Kernel::Gather(k) => Some(k.entries),
                _ => None,
            },
            bounds: Bounds::new(kernel),
            context: module.context().clone(),
            _text: text,
        })
    }

    /// Whether it belongs to this context.
    pub(super) fn is_of(&self, context: &Arc<Context>) -> bool {
        Arc::ptr_eq(&self.context, context)
    }

    /// Bytes of working memory that a launch needs.
    pub(crate) fn scratch(&self) -> &Dim {
        &self.scratch
    }

    /// The runtime integers that decide grids and entries.
    pub(crate) fn grid_vars(&self) -> &[Var] {
        &self.grid_vars
    }

    /// Rows of the table of a gather.
    pub(super) fn table_rows(&self) -> Option<usize> {
        self.table_rows
    }

    /// Decides a launch, or says why there can be none. `locate` gives the address of a slice, or
    /// refuses it.
    pub(super) fn prepare(
        &self,
        call: Call<'_>,
        around: Surroundings,
        ready: &mut Ready,
        mut locate: impl FnMut(&Slice) -> Result<u64, Error>,
    ) -> Result<(), Error> {
        self.check(call)?;
        let tiles = self.tiles(call, &mut locate)?;
        let tiled = call.tiles.and(self.weight.as_ref()).map(|w| w.arg);
        let scratch = self.working_memory(call, &mut locate)?;
        let address = |arg: usize| match call.args.get(arg) {
            Some(_) if tiled == Some(arg) => Ok(0),
            Some(slice) => locate(slice),
            None => Err(self.wrong_args(call)),
        };
        pack(
            &mut ready.words,
            &self.params,
            &tiles,
            around,
            scratch,
            address,
        )?;
        let rows = (tiles.end - tiles.first) as usize;
        ready.launches.clear();
        for Entry { function, launch } in &self.entries {
            let grid = grid(launch, call.env, rows).map_err(|blocks| Error::Grid {
                kernel: self.kind,
                blocks,
                threads: launch.block,
            })?;
            ready.launches.extend(grid.map(|grid| (*function, grid)));
        }
        Ok(())
    }

    fn check(&self, call: Call<'_>) -> Result<(), Error> {
        if call.args.len() != self.args {
            return Err(self.wrong_args(call));
        }
        let read_only = |i: &&usize| call.args.get(**i).is_some_and(Slice::is_mapping);
        if let Some(i) = self.written.iter().find(read_only) {
            return Err(Error::ReadOnly {
                work: format!("a {} kernel, to argument a{i},", self.kind),
            });
        }
        let except = call.tiles.and(self.weight.as_ref()).map(|w| w.arg);
        let checked = self.bounds.check(call.env, call.args, except);
        checked.map_err(|source| self.failed(call, source))
    }

    fn wrong_args(&self, call: Call<'_>) -> Error {
        Error::Args {
            kernel: self.kind,
            expected: self.args,
            found: call.args.len(),
        }
    }

    fn failed(&self, call: Call<'_>, source: HostError) -> Error {
        Error::Launch {
            kernel: self.kind,
            stream: call.stream.into(),
            source,
        }
    }

    /// The rows of the launch and where they lie; none without a weight.
    fn tiles(
        &self,
        call: Call<'_>,
        locate: &mut impl FnMut(&Slice) -> Result<u64, Error>,
    ) -> Result<TilesParam, Error> {
        let mut param = TilesParam {
            first: 0,
            end: 0,
            step: 1,
            reserved: 0,
            address: [0; MAX_TILES],
        };
        let n = self.weight.as_ref().map_or(0, |w| w.rows.size(call.env));
        let range = call.tiles.map_or(0..n, |t| t.rows.clone());
        let refuse = |why| {
            let (start, end) = (range.start, range.end);
            self.failed(call, HostError::Rows { start, end, n, why })
        };
        let number =
            |v: usize| u32::try_from(v).map_err(|_| refuse("more rows than 32 bits count"));
        let Some(weight) = &self.weight else {
            return match call.tiles {
                None => Ok(param),
                Some(_) => Err(refuse("this kernel has no weight to cut")),
            };
        };
        (param.first, param.end) = (number(range.start)?, number(range.end)?);
        let Some(tiles) = call.tiles else {
            param.step = param.end.max(1);
            if let Some(slice) = call.args.get(weight.arg) {
                param.address[0] = locate(slice)?;
            }
            return Ok(param);
        };
        tiles.check()?;
        row_range_law(tiles, n).map_err(refuse)?;
        param.step = number(tiles.step)?;
        let row_bytes = weight.columns.size(call.env).saturating_mul(weight.size);
        for ((rows, place), address) in tiles.each().zip(&mut param.address) {
            let needed = rows.len().saturating_mul(row_bytes);
            if place.len() < needed {
                return Err(Error::Length {
                    work: "launch on a tile",
                    src: place.len(),
                    dst: needed,
                });
            }
            *address = locate(place)?;
        }
        Ok(param)
    }

    fn working_memory(
        &self,
        call: Call<'_>,
        locate: &mut impl FnMut(&Slice) -> Result<u64, Error>,
    ) -> Result<u64, Error> {
        let needed = self.scratch.size(call.env);
        if needed == 0 {
            return Ok(0);
        }
        let found = call.scratch.map_or(0, Slice::len);
        let short = || Error::Scratch {
            kernel: self.kind,
            needed,
            found,
        };
        let slice = call
            .scratch
            .filter(|s| s.len() >= needed)
            .ok_or_else(short)?;
        if slice.is_mapping() {
            return Err(Error::ReadOnly {
                work: format!("a {} kernel, to its working memory,", self.kind),
            });
        }
        locate(slice)
    }
}

/// Whether a launch may cover these rows of `n`.
fn row_range_law(tiles: &Tiles, n: usize) -> Result<(), &'static str> {
    let rows = &tiles.rows;
    if rows.start > rows.end || rows.end > n {
        Err("not a range of the weight's rows")
    } else if !rows.start.is_multiple_of(ROW_PANEL) {
        Err("the start is no multiple of the panel of 64")
    } else if !rows.end.is_multiple_of(ROW_PANEL) && rows.end != n {
        Err("the end is neither a multiple of the panel of 64 nor the last row")
    } else if tiles.places.len() > 1 && !tiles.step.is_multiple_of(ROW_PANEL) {
        Err("tiles end between multiples of the panel of 64")
    } else {
        Ok(())
    }
}

/// The parameters of a launch in their order, as words.
fn pack(
    words: &mut Vec<u64>,
    params: &[Param],
    tiles: &TilesParam,
    around: Surroundings,
    scratch: u64,
    mut address: impl FnMut(usize) -> Result<u64, Error>,
) -> Result<(), Error> {
    words.clear();
    for param in params {
        match param {
            Param::Arg(arg) => words.push(address(arg.0 as usize)?),
            Param::Tiles => {
                let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
                words.push(pair(tiles.first, tiles.end));
                words.push(pair(tiles.step, tiles.reserved));
                words.extend(tiles.address);
            }
            Param::Env => words.push(around.integers),
            Param::Scratch => words.push(scratch),
            Param::Fault => words.push(around.fault),
        }
    }
    Ok(())
}

/// The most blocks along x, y and z.
const MOST_BLOCKS: [u64; 3] = [(1 << 31) - 1, 65535, 65535];

/// The grid of a launch in a call; none where nothing is launched. The blocks, where there are
/// too many.
fn grid(launch: &Launch, env: &Env, rows: usize) -> Result<Option<Grid>, [u64; 3]> {
    if !launch.when.iter().all(|w| w.holds(env)) {
        return Ok(None);
    }
    let blocks = [0, 1, 2].map(|axis| launch.grid[axis].blocks(env, rows));
    if blocks.contains(&0) {
        return Ok(None);
    }
    if blocks.iter().zip(MOST_BLOCKS).any(|(b, most)| *b > most) {
        return Err(blocks);
    }
    Ok(Some(Grid {
        blocks: blocks.map(|b| b as u32),
        threads: launch.block,
        shared: launch.shared,
        overlap: OVERLAP,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use trt_kernel::Arg;
    use trt_kernel::ptx::{Extent, When};

    fn launch(x: Extent) -> Launch {
        Launch {
            entry: "k".into(),
            when: vec![When {
                dim: Dim::var(Var(0)),
                min: 1,
                max: 8,
            }],
            grid: [x, Extent::Fixed(2), Extent::Fixed(1)],
            block: 128,
            shared: 64,
        }
    }

    #[test]
    fn parameters_lie_in_memory_as_the_kernel_reads_them() {
        let mut tiles = TilesParam {
            first: 0x0102_0304,
            end: 0x1112_1314,
            step: 0x2122_2324,
            reserved: 0,
            address: [0; MAX_TILES],
        };
        tiles.address[0] = 0x3132_3334_3536_3738;
        tiles.address[MAX_TILES - 1] = 7;
        let params = [
            Param::Arg(Arg(1)),
            Param::Arg(Arg(0)),
            Param::Tiles,
            Param::Env,
            Param::Scratch,
            Param::Fault,
        ];
        let around = Surroundings {
            integers: 0xe,
            fault: 0xf,
        };
        let mut words = vec![99];
        pack(&mut words, &params, &tiles, around, 0x5, |a| {
            Ok(0xa0 + a as u64)
        })
        .unwrap();

        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let at = |offset: usize| u64::from_le_bytes(bytes[offset..][..8].try_into().unwrap());
        assert_eq!((at(0), at(8)), (0xa1, 0xa0));
        let start = 16;
        let fields = [
            (std::mem::offset_of!(TilesParam, first), tiles.first),
            (std::mem::offset_of!(TilesParam, end), tiles.end),
            (std::mem::offset_of!(TilesParam, step), tiles.step),
            (std::mem::offset_of!(TilesParam, reserved), tiles.reserved),
        ];
        for (offset, value) in fields {
            assert_eq!(bytes[start + offset..][..4], value.to_le_bytes());
        }
        let addresses = start + std::mem::offset_of!(TilesParam, address);
        assert_eq!(at(addresses), tiles.address[0]);
        let end = start + size_of::<TilesParam>();
        assert_eq!(at(end - 8), 7);
        assert_eq!((at(end), at(end + 8), at(end + 16)), (0xe, 0x5, 0xf));
        assert_eq!(bytes.len(), end + 24);
    }

    #[test]
    fn nothing_is_launched_without_blocks_or_where_a_condition_fails() {
        let rows = launch(Extent::Rows { per: 64 });
        assert_eq!(grid(&rows, &Env::new(&[1]), 0), Ok(None));
        assert_eq!(grid(&rows, &Env::new(&[9]), 64), Ok(None));
        let some = grid(&rows, &Env::new(&[8]), 65).unwrap().unwrap();
        assert_eq!(
            (some.blocks, some.threads, some.shared),
            ([2, 2, 1], 128, 64)
        );
    }

    #[test]
    fn a_grid_beyond_the_device_is_refused_with_its_blocks() {
        let huge = launch(Extent::Fixed(u32::MAX));
        assert_eq!(
            grid(&huge, &Env::new(&[1]), 0),
            Err([u64::from(u32::MAX), 2, 1])
        );
    }

    #[test]
    fn tiles_keep_the_row_range_law() {
        let memory = crate::Memory::host(0, "host").unwrap();
        let law = |rows: std::ops::Range<usize>, step: usize, places: usize| {
            let places = vec![memory.whole(); places];
            row_range_law(&Tiles { rows, step, places }, 200)
        };
        assert!(law(64..200, 64, 3).is_ok());
        assert!(law(64..192, 1000, 1).is_ok());
        assert!(law(63..128, 64, 2).is_err());
        assert!(law(64..199, 64, 3).is_err());
        assert!(law(0..200, 100, 2).is_err());
        assert!(law(192..256, 64, 1).is_err());
    }
}
