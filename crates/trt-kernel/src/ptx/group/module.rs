//! The module of a group in the making: entries that parts share, and entries of one part.

use super::guard::{behind, beside, having, one};
use super::unsupported;
use crate::fusible::MAX_TILES;
use crate::launch::{EntryLaunch, Extent, Param, When};
use crate::ptx::PtxError;
use crate::ptx::asm::Asm;
use crate::ptx::block::Block;
use crate::ptx::emitted::{Emitted, Mapped, Target, TensorMap};
use crate::ptx::matmul::STAGED;
use crate::ptx::matmul::ways::Way;
use crate::ptx::scope::{head, params, wrapped_entry};
use crate::{Arg, Dim, Group, Kernel, Matmul};
use std::fmt::Write;

/// Bytes of parameters that every driver takes.
const PARAMS: usize = 4096;
/// Bytes of static shared memory that every device has.
const STATIC: usize = 48 << 10;
/// Bytes from a tensor map to the next.
const MAP_PITCH: usize = 192;

/// What of the launch's parameters is a part's.
#[derive(Clone, Copy)]
struct Place {
    /// Its first argument.
    arg: u16,
    /// Its weight, if it has one.
    weight: u8,
    /// Its first tensor map.
    map: u8,
}

/// A chain of blocks, and what is sent for ahead of them.
pub(super) struct Chain {
    pub blocks: Vec<Block>,
    pub ahead: Vec<Option<Asm>>,
}

pub(super) struct Module<'a> {
    kernel: &'a Group,
    target: Target,
    places: Vec<Place>,
    params: Vec<Param>,
    maps: Vec<TensorMap>,
    names: Vec<String>,
    text: String,
    dynamic: bool,
    launches: Vec<EntryLaunch>,
}

impl<'a> Module<'a> {
    /// An empty module; `maps` are those of each part, or of none.
    pub fn new(kernel: &'a Group, target: Target, maps: &[Vec<TensorMap>]) -> Module<'a> {
        let (mut places, mut all) = (Vec::new(), Vec::new());
        let (mut arg, mut weight) = (0, 0);
        for (i, part) in kernel.parts.iter().enumerate() {
            let place = Place {
                arg,
                weight,
                map: all.len() as u8,
            };
            let own = maps.get(i).into_iter().flatten();
            all.extend(own.map(|map| TensorMap {
                of: place.shown(&map.of),
                ..map.clone()
            }));
            places.push(place);
            arg += part.args().len() as u16;
            weight += u8::from(!part.streamed().is_empty());
        }
        let mut list: Vec<Param> = (0..all.len()).map(|i| Param::Map(i as u8)).collect();
        list.extend(params(arg as usize, weight as usize));
        Module {
            kernel,
            target,
            places,
            params: list,
            maps: all,
            names: Vec::new(),
            text: String::new(),
            dynamic: false,
            launches: Vec::new(),
        }
    }

    pub fn target(&self) -> Target {
        self.target
    }

    /// Whether every driver takes so many parameters.
    pub fn fits(&self) -> bool {
        let bytes = self.params.iter().map(|p| match p {
            Param::Map(_) => MAP_PITCH,
            Param::Tiles(_) => 16 + 8 * MAX_TILES,
            Param::Arg(_) | Param::Env | Param::Scratch | Param::Fault | Param::Counters => 8,
        });
        bytes.sum::<usize>() <= PARAMS
    }

    /// An entry of independent blocks, one of each part, if their grids differ along one axis only: in the number of
    /// rows of weights, or of points.
    pub fn side(
        &mut self,
        name: &str,
        when: &[When],
        blocks: Vec<Block>,
        mapped: bool,
    ) -> Result<bool, PtxError> {
        let same = blocks.windows(2).all(|b| b[0].grid[0] == b[1].grid[0]);
        let axis = match &blocks {
            all if all.iter().all(|b| one(&b.grid[1]) && one(&b.grid[2])) => 0,
            all if same && all.iter().all(|b| one(&b.grid[2])) => 1,
            _ => return Ok(false),
        };
        let open =
            |extent: &Extent| matches!(extent, Extent::Of { dim, .. } if dim.constant().is_none());
        // A block is one part's, so parts with the same arrays can have them in common.
        let (arrays, _) = blocks.first().map_or(("", 0), |b| b.asm.arrays());
        let arrays = arrays.to_string();
        let common = blocks.iter().all(|b| b.asm.arrays().0 == arrays);
        let bytes: usize = blocks.iter().map(|b| b.asm.arrays().1).sum();
        if !common && bytes > STATIC {
            return Ok(false);
        }
        let flat = axis == 1
            || self.kernel.parts.iter().any(over_blocks)
            || blocks.iter().any(|b| open(&b.grid[axis]));
        let mut text = REGISTERS.to_string();
        let id = ["%ctaid.x", "%ctaid.y"][axis];
        if flat {
            let _ = writeln!(text, "\t.reg .b32 %block;\n\tmov.u32 %block, {id};");
        }
        if common {
            text += &arrays;
        }
        let launch = self.shared(&blocks, name, when, mapped);
        let other = blocks
            .first()
            .map_or(Extent::Fixed(1), |b| b.grid[1 - axis].clone());
        let mut along = Vec::with_capacity(blocks.len());
        for (i, (block, place)) in blocks.into_iter().zip(self.places.clone()).enumerate() {
            let extent = place.extent(&block.grid[axis]);
            let asm = match common {
                true => block.asm.without_arrays(),
                false => block.asm,
            };
            let (tiles, body) = (place.tiles(), asm.finish(|n| place.renamed(n)));
            let body = match flat {
                true => {
                    behind(&mut text, i, &extent, &tiles, block.threads)?;
                    body.replace(id, "%block")
                }
                false => {
                    beside(&mut text, i, &extent, &tiles, block.threads)?;
                    body
                }
            };
            let _ = writeln!(text, "\t{{\n{body}\t}}\n\tret;\n$Part{i}:");
            along.push(extent);
        }
        let grid = match (flat, axis) {
            (true, 0) => [Extent::Sum(along), Extent::Fixed(1), Extent::Fixed(1)],
            (true, _) => [other, Extent::Sum(along), Extent::Fixed(1)],
            (false, _) => {
                let parts = Extent::Fixed(along.len() as u32);
                [Extent::Most(along), Extent::Fixed(1), parts]
            }
        };
        self.put(EntryLaunch { grid, ..launch.0 }, launch.1, &text);
        Ok(true)
    }

    /// An entry of blocks that follow each other.
    pub fn chain(&mut self, name: &str, when: &[When], chain: Chain) -> Result<(), PtxError> {
        let Chain { blocks, ahead } = chain;
        let mut text = REGISTERS.to_string();
        let _ = writeln!(
            text,
            "\t.reg .pred {STAGED};\n\tmov.u32 %mine, %ctaid.x;\n\tsetp.ne.u32 {STAGED}, %mine, %mine;"
        );
        let places = self.places.clone();
        let all = || blocks.iter().zip(&places).enumerate();
        for ((i, (block, place)), asm) in all().zip(ahead).skip(1) {
            let Some(asm) = asm else { continue };
            let label = blocks.len() + i;
            having(&mut text, label, &block.grid[0], &place.tiles())?;
            let body = asm.finish(|n| place.renamed(n));
            let _ = writeln!(text, "\t{{\n{body}\t}}\n$Part{label}:");
        }
        let launch = self.shared(&blocks, name, when, false);
        let mut along = Vec::with_capacity(blocks.len());
        for (i, (block, place)) in blocks.into_iter().zip(places).enumerate() {
            let [x, y, z] = &block.grid;
            if !(one(y) && one(z)) {
                let what = format!("part {i} has a grid of [{x}, {y}, {z}]");
                return Err(unsupported(what));
            }
            let extent = place.extent(x);
            having(&mut text, i, &extent, &place.tiles())?;
            let body = block.asm.finish(|n| place.renamed(n));
            let staged = format!("setp.eq.u32 {STAGED}, %mine, %mine");
            let _ = writeln!(text, "\t{{\n{body}\t}}\n\t{staged};\n$Part{i}:");
            along.push(extent);
        }
        let grid = [Extent::Most(along), Extent::Fixed(1), Extent::Fixed(1)];
        self.put(EntryLaunch { grid, ..launch.0 }, launch.1, &text);
        Ok(())
    }

    /// Entries of one way of part `i` alone.
    pub fn alone(&mut self, i: usize, product: &Matmul, way: &Way) {
        let place = self.places[i];
        for step in way.steps(product, self.target) {
            let mut sums = vec![None; self.places.len()];
            sums[i] = step.block.order;
            let launch = EntryLaunch {
                entry: format!("part{i}_{}", step.block.name),
                when: way.when.clone(),
                grid: step.grid.map(|e| place.extent(&e)),
                block: step.block.threads,
                shared: step.block.shared,
                mapped: step.mapped,
                sums,
            };
            let crowd = step.block.crowd;
            let text = step.block.asm.finish(|n| place.renamed(n));
            self.put(launch, crowd, &text);
        }
    }

    /// What a launch of several blocks is but for its grid, and how many of them a multiprocessor should hold.
    fn shared(
        &self,
        blocks: &[Block],
        name: &str,
        when: &[When],
        mapped: bool,
    ) -> (EntryLaunch, Option<u32>) {
        let products = blocks.iter().zip(&self.kernel.parts);
        let products = products.filter(|(_, part)| matches!(part, Kernel::Matmul(_)));
        let launch = EntryLaunch {
            entry: name.into(),
            when: when.to_vec(),
            grid: [Extent::Fixed(1), Extent::Fixed(1), Extent::Fixed(1)],
            block: blocks.iter().map(|b| b.threads).max().unwrap_or(1),
            shared: blocks.iter().map(|b| b.shared).max().unwrap_or(0),
            mapped,
            sums: products.map(|(block, _)| block.order).collect(),
        };
        (launch, blocks.iter().filter_map(|b| b.crowd).min())
    }

    /// One more launch, and its entry if that is not there yet.
    fn put(&mut self, launch: EntryLaunch, crowd: Option<u32>, text: &str) {
        self.dynamic |= launch.shared > 0;
        if !self.names.contains(&launch.entry) {
            let (name, threads) = (&launch.entry, launch.block);
            self.text += &wrapped_entry(name, &self.params, threads, crowd, text);
            self.names.push(launch.entry.clone());
        }
        self.launches.push(launch);
    }

    /// The module, with so many bytes of working memory.
    pub fn finish(self, scratch: Dim) -> Emitted {
        let mut text = head(self.target);
        if self.dynamic {
            text += ".extern .shared .align 1024 .b8 dynamic[];\n\n";
        }
        text += &self.text;
        Emitted {
            text,
            target: self.target,
            params: self.params,
            launches: self.launches,
            maps: self.maps,
            scratch,
            limits: Vec::new(),
        }
    }
}

/// Registers of an entry of several parts.
const REGISTERS: &str = "\t.reg .pred %part;\n\t.reg .b32 %which, %have, %mine;\n";

/// Whether it is a product over blocks.
fn over_blocks(part: &Kernel) -> bool {
    matches!(part, Kernel::Matmul(k) if k.right().as_plain().is_none())
}

impl Place {
    fn tiles(self) -> String {
        format!("tiles{}", self.weight)
    }

    /// The launch's name of a parameter of the part.
    fn renamed(self, name: &str) -> String {
        let number = |kind: &str| name.strip_prefix(kind).map(str::parse::<u16>);
        match (number("a"), number("map")) {
            (Some(Ok(arg)), _) => format!("a{}", self.arg + arg),
            (_, Some(Ok(map))) => format!("map{}", u16::from(self.map) + map),
            _ if name == "tiles" => self.tiles(),
            _ => name.to_string(),
        }
    }

    /// The same blocks, with the launch's number of the weight.
    fn extent(self, extent: &Extent) -> Extent {
        let mut extent = extent.clone();
        if let Extent::Rows { weight, .. } | Extent::Slab { weight, .. } = &mut extent {
            *weight += self.weight;
        }
        extent
    }

    /// What a map shows, with the launch's numbers.
    fn shown(self, of: &Mapped) -> Mapped {
        let mut of = of.clone();
        match &mut of {
            Mapped::Rows { arg, .. } => *arg = Arg(arg.0 + self.arg),
            Mapped::Tiles { weight, .. } => *weight += self.weight,
            Mapped::Scratch { .. } => {}
        }
        of
    }
}
