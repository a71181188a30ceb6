//! Kernels on the device: what one is, what a launch of it must hold, and its parameters.
//!
//! Everything about a launch is decided by [`Emitted`]: which entries run with which grids, and
//! the order of the parameters that all of them take. Nothing is launched that reaches outside
//! its arguments or breaks the row-range law.

use super::bounds::Bounds;
use super::driver::{Context, Function, Grid, Module};
use super::modules::Text;
use super::params::{Surroundings, grid, pack, row_range_law};
use crate::{Error, Slice, Tiles};
use std::sync::Arc;
use trt_kernel::host::HostError;
use trt_kernel::ptx::{Emitted, Launch, MAX_TILES, Param, TilesParam};
use trt_kernel::{Dim, Env, Kernel, Var};

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
