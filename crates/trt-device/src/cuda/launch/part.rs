//! A module of a kernel: its entries, the parameters that all of them take, and what a launch
//! of it must hold. A kernel is one part, or a group's kernels are one each.
//!
//! Everything about a launch is decided by [`Emitted`]: which entries run with which grids, and
//! the order of the parameters. Nothing is launched that reaches outside its arguments, finds them
//! where kernels cannot, or breaks the row-range law.

use super::executable::{Put, Ready};
use super::fed::Fed;
use super::maps::Places;
use super::modules::Text;
use super::params::{Given, NO_ROWS, Surroundings, grid, pack};
use crate::cuda::driver::{Function, Grid, Module};
use crate::gpu::{Alignment, Bounds, Needs, WIDEST, count, refused, row_range_law};
use crate::{Call, Error, LaunchError, Slice, Tiles};
use std::ops::Range;
use std::sync::Arc;
use trt_kernel::launch::{EntryLaunch, Param, TilesParam, within};
use trt_kernel::ptx::Emitted;
use trt_kernel::{Dim, Encoding, Env, Kernel, Order, Toucher, Var};

/// A part of an executable.
#[derive(Debug)]
pub(in crate::cuda) struct Part {
    kind: &'static str,
    /// Its arguments among those of the launch.
    args: Range<usize>,
    params: Vec<Param>,
    entries: Vec<EntryPoint>,
    pub scratch: Dim,
    /// Sizes that its text counts with 32 bits.
    limits: Vec<Dim>,
    /// Whether its launches may start before the one ahead has ended.
    overlaps: bool,
    weights: Vec<Weight>,
    /// Whether all weights of a launch must have the same rows in it, if they have any.
    chain: bool,
    bounds: Bounds,
    alignment: Alignment,
    /// If launches need tensor maps.
    fed: Option<Fed>,
    /// A bound of the bytes of its code.
    code: u64,
    /// Holds the functions of the entries.
    text: Arc<Text>,
}

/// One launch of those that a kernel takes.
#[derive(Debug)]
struct EntryPoint {
    function: Function,
    launch: EntryLaunch,
}

/// An operand that may come in tiles.
#[derive(Debug)]
struct Weight {
    /// Its argument among those of the part.
    arg: usize,
    rows: Dim,
    /// Values of a row.
    columns: Dim,
    /// How a row is written down.
    encoding: Encoding,
}

impl Part {
    /// A kernel whose arguments begin with number `first` of the launch's.
    pub fn new(
        kernel: &Kernel,
        first: usize,
        emitted: &Emitted,
        module: &Module,
        text: Arc<Text>,
        fed: Option<Fed>,
    ) -> Result<Part, Error> {
        let entry = |launch: &EntryLaunch| {
            // The attribute for shared memory belongs to the entry, so it must fit all launches.
            let same = emitted.launches.iter().filter(|l| l.entry == launch.entry);
            let shared = same.map(|l| l.shared).max().unwrap_or(0);
            Ok(EntryPoint {
                function: module.function(&launch.entry, launch.block, shared)?,
                launch: launch.clone(),
            })
        };
        Ok(Part {
            kind: kernel.kind(),
            args: first..first + kernel.args().len(),
            params: emitted.params.clone(),
            entries: emitted
                .launches
                .iter()
                .map(entry)
                .collect::<Result<_, Error>>()?,
            scratch: emitted.scratch.clone(),
            limits: emitted.limits.clone(),
            overlaps: emitted.overlaps(),
            weights: weights(kernel),
            chain: matches!(kernel, Kernel::Group(g) if g.order == Order::Chain),
            bounds: Bounds::new(kernel),
            alignment: Alignment::new(kernel),
            fed,
            code: emitted.code_bytes(),
            text,
        })
    }

    /// Its code: the place of its text, which other parts may share, and a bound of its bytes.
    pub fn code(&self) -> (usize, u64) {
        (Arc::as_ptr(&self.text) as usize, self.code)
    }

    /// How many weights may come in tiles.
    pub fn weights(&self) -> usize {
        self.weights.len()
    }

    /// The runtime integers that decide what rows of its weights are, which a launch is told by
    /// value.
    pub fn table_vars(&self) -> impl Iterator<Item = Var> {
        let dims = self.weights.iter().flat_map(|w| [&w.rows, &w.columns]);
        dims.flat_map(Dim::vars)
    }

    /// Adds what a launch that was prepared reaches in other calls.
    pub fn needs(&self, call: Call<'_>, tiles: &[Tiles], needs: &mut Needs) {
        let args = call.args.get(self.args.clone()).unwrap_or(&[]);
        for (access, encoding) in self.bounds.each() {
            if let Some(slice) = args.get(access.arg.0 as usize)
                && !self.tiled(access.arg.0 as usize, tiles)
            {
                needs.access(self.kind, access, encoding, slice.len());
            }
        }
        needs.scratch(self.kind, &self.scratch, call.scratch.map_or(0, Slice::len));
        needs.limits(self.kind, &self.limits);
    }

    /// Whether tiles stand for an argument.
    fn tiled(&self, arg: usize, tiles: &[Tiles]) -> bool {
        !tiles.is_empty() && self.weights.iter().any(|w| w.arg == arg)
    }

    /// Decides a launch, or says why there can be none. `tiles` are those of its own weights:
    /// none for everything. `locate` gives the address of a slice, or refuses it.
    pub fn prepare(
        &self,
        call: Call<'_>,
        tiles: &[Tiles],
        around: Surroundings,
        ready: &mut Ready,
        locate: &mut impl FnMut(&Slice, u64) -> Result<u64, Error>,
    ) -> Result<(), Error> {
        let args = call.args.get(self.args.clone()).unwrap_or(&[]);
        let failed = |source| Error::Launch {
            kernel: self.kind,
            stream: call.stream.into(),
            source,
        };
        let kernel = self.kind;
        within(&self.limits, call.env).map_err(|source| Error::TooLarge { kernel, source })?;
        let used = |arg| !self.tiled(arg, tiles);
        let checked = self.bounds.check(call.env, args, used);
        checked.map_err(failed)?;
        let tables = self.tables(call.env, args, tiles, failed, locate)?;
        let rows = tables.iter().map(|t| (t.end - t.first) as usize);
        let rows: Vec<usize> = rows.collect();
        let launches = self.launches(call.env, &rows)?;
        let mapped = launches.iter().filter(|(e, _)| e.launch.mapped).count();
        let scratch = match self.working_memory(call)? {
            Some(slice) => Some(self.alignment.scratch(locate(slice, WIDEST)?)?),
            None => None,
        };
        let maps = match &self.fed {
            Some(fed) if mapped > 0 => {
                let mut places = self.places(call.env, args, tiles, &tables, locate)?;
                places.scratch = scratch;
                match fed.maps(&places, mapped)? {
                    Some(maps) => maps,
                    None => return fed.unmapped()?.prepare(call, tiles, around, ready, locate),
                }
            }
            Some(_) | None => Vec::new(),
        };
        let address = |arg: usize| match args.get(arg) {
            Some(slice) if used(arg) => {
                let address = locate(slice, self.alignment.of(arg))?;
                self.alignment.arg(self.args.start, arg, address)
            }
            // Not read: what tiles stand for.
            Some(_) | None => Ok(0),
        };
        let (start, first) = (ready.words.len(), ready.starts.len());
        let given = Given {
            tiles: &tables,
            maps: &maps,
            around,
            scratch: scratch.unwrap_or(0),
        };
        pack(ready, &self.params, given, address)?;
        let words = start..ready.words.len();
        let starts = first..ready.starts.len();
        let each = launches.into_iter().map(|(entry, grid)| Put {
            function: entry.function,
            grid,
            words: words.clone(),
            starts: starts.clone(),
        });
        ready.launches.extend(each);
        Ok(())
    }

    /// Where the rows of each weight are.
    fn tables(
        &self,
        env: &Env,
        args: &[Slice],
        tiles: &[Tiles],
        failed: impl Fn(LaunchError) -> Error + Copy,
        locate: &mut impl FnMut(&Slice, u64) -> Result<u64, Error>,
    ) -> Result<Vec<TilesParam>, Error> {
        let mut tables = Vec::with_capacity(self.weights.len());
        for (i, weight) in self.weights.iter().enumerate() {
            let table = match (tiles.get(i), args.get(weight.arg)) {
                (Some(tiles), _) => weight.tiles(env, tiles, failed, locate)?,
                (None, Some(whole)) => weight.whole(env, whole, failed, locate)?,
                (None, None) => NO_ROWS,
            };
            self.alignment.tiles(i, &table.address)?;
            tables.push(table);
        }
        let mut some = tables.iter().filter(|t| t.end > t.first);
        if let (true, Some(one)) = (self.chain, some.next())
            && let Some(other) = some.find(|o| (o.first, o.end) != (one.first, one.end))
        {
            let (rows, n) = (other.first as usize..other.end as usize, one.end as usize);
            return Err(failed(refused(
                &rows,
                n,
                "other rows than those of its chain",
            )));
        }
        Ok(tables)
    }

    /// Where the copy engine finds operands. It is not asked to read mapped pages in place.
    fn places<'a>(
        &self,
        env: &'a Env,
        args: &[Slice],
        tiles: &[Tiles],
        tables: &[TilesParam],
        locate: &mut impl FnMut(&Slice, u64) -> Result<u64, Error>,
    ) -> Result<Places<'a>, Error> {
        let weight = |arg| self.weights.iter().any(|w| w.arg == arg);
        let address = |(arg, slice): (usize, &Slice)| match weight(arg) || slice.is_mapping() {
            true => Ok(None),
            false => locate(slice, WIDEST).map(Some),
        };
        let each = self.weights.iter().zip(tables).enumerate();
        let table = each.map(|(i, (weight, table))| {
            let in_place = match tiles.get(i) {
                Some(tiles) => tiles.places.iter().any(Slice::is_mapping),
                None => args.get(weight.arg).is_none_or(Slice::is_mapping),
            };
            (!in_place).then_some(*table)
        });
        Ok(Places {
            env,
            tiles: table.collect(),
            scratch: None,
            args: args
                .iter()
                .enumerate()
                .map(address)
                .collect::<Result<_, _>>()?,
        })
    }

    /// The entries that a call launches.
    fn launches(&self, env: &Env, rows: &[usize]) -> Result<Vec<(&EntryPoint, Grid)>, Error> {
        let each = self.entries.iter().map(|entry| {
            let grid = grid(&entry.launch, env, rows, self.overlaps);
            let grid = grid.map_err(|blocks| Error::Grid {
                kernel: self.kind,
                blocks,
                threads: entry.launch.block,
            })?;
            Ok(grid.map(|grid| (entry, grid)))
        });
        each.filter_map(Result::transpose).collect()
    }

    fn working_memory<'a>(&self, call: Call<'a>) -> Result<Option<&'a Slice>, Error> {
        let needed = self.scratch.size(call.env);
        if needed == 0 {
            return Ok(None);
        }
        let found = call.scratch.map_or(0, Slice::len);
        let slice = call.scratch.filter(|s| s.len() >= needed);
        let slice = slice.ok_or(Error::Scratch {
            kernel: self.kind,
            needed,
            found,
        })?;
        match slice.is_mapping() {
            false => Ok(Some(slice)),
            true => Err(Error::ReadOnly {
                work: format!("a {} kernel, to its working memory,", self.kind),
            }),
        }
    }
}

fn weights(kernel: &Kernel) -> Vec<Weight> {
    let args = kernel.args();
    let each = kernel.accesses().into_iter();
    let of = each.filter_map(|access| match (access.by, &*access.space) {
        (Toucher::Right { ranged: true }, [_, rows, columns]) => {
            let arg = access.arg.0 as usize;
            Some(Weight {
                arg,
                rows: rows.clone(),
                columns: columns.clone(),
                encoding: *args.get(arg)?,
            })
        }
        _ => None,
    });
    of.collect()
}

impl Weight {
    /// All rows, in one piece.
    fn whole(
        &self,
        env: &Env,
        slice: &Slice,
        failed: impl Fn(LaunchError) -> Error,
        locate: &mut impl FnMut(&Slice, u64) -> Result<u64, Error>,
    ) -> Result<TilesParam, Error> {
        let n = self.rows.size(env);
        let mut param = NO_ROWS;
        param.end = count(n, &(0..n), n).map_err(failed)?;
        param.step = param.end.max(1);
        param.address[0] = locate(slice, WIDEST)?;
        Ok(param)
    }

    /// The rows that tiles hold.
    fn tiles(
        &self,
        env: &Env,
        tiles: &Tiles,
        failed: impl Fn(LaunchError) -> Error,
        locate: &mut impl FnMut(&Slice, u64) -> Result<u64, Error>,
    ) -> Result<TilesParam, Error> {
        tiles.check()?;
        if tiles.rows.is_empty() {
            return Ok(NO_ROWS);
        }
        let (n, rows) = (self.rows.size(env), &tiles.rows);
        let columns = self.columns.size(env);
        row_range_law(tiles, n, (self.encoding, columns))
            .map_err(|why| failed(refused(rows, n, why)))?;
        let mut param = NO_ROWS;
        param.first = count(rows.start, rows, n).map_err(&failed)?;
        param.end = count(rows.end, rows, n).map_err(&failed)?;
        param.step = count(tiles.step, rows, n).map_err(&failed)?;
        for ((rows, place), address) in tiles.each().zip(&mut param.address) {
            let needed = self.encoding.least_bytes(rows.len(), columns);
            let needed = needed.unwrap_or(usize::MAX);
            if place.len() < needed {
                return Err(Error::Length {
                    work: "launch on a tile",
                    src: place.len(),
                    dst: needed,
                });
            }
            *address = locate(place, WIDEST)?;
        }
        Ok(param)
    }
}
