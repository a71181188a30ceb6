//! The memory of a call, its parameters, and its launches.

use super::error::{EmuError, Why};
use super::exec::Machine;
use super::inst::{self, Program};
use super::memory::{self, Access, Memory, Params, Region};
use super::{Call, Done, Fault, block, bulk, race, warp};
use crate::reference::Buffer;
use trt_kernel::fusible::MAX_TILES;
use trt_kernel::launch::{COUNTERS, EntryLaunch, Param};
use trt_kernel::ptx::{Emitted, MAP_BYTES, Mapped, Target, TensorMap};
use trt_kernel::{Arg, Encoding, ROW_PANEL};

/// Where the first region starts, and what lies between two at least.
const FIRST: u64 = 0x7f00_0000_0000;
const GUARD: u64 = 4096;
/// Where tiles start that are not near the others.
const FAR: u64 = 0x7fff_0000_0000;
/// The address that a parameter has where the kernel may not read it.
const POISON: u64 = 0xdead_0000_0000_0000;

/// Memory of a call, and its clock.
pub(super) struct Device {
    global: Memory,
    /// Addresses of arguments.
    pub args: Vec<u64>,
    /// Of the tiles of each ranged weight.
    tiles: Vec<Vec<u64>>,
    env: u64,
    scratch: u64,
    fault: u64,
    counters: u64,
    clock: u32,
    instructions: u64,
    atomics: u64,
}

impl Device {
    pub fn new(emitted: &Emitted, call: &Call, args: &[Buffer]) -> Device {
        let mut d = Device {
            global: Memory::new(inst::Space::Global),
            args: Vec::new(),
            tiles: Vec::new(),
            env: 0,
            scratch: 0,
            fault: 0,
            counters: 0,
            clock: 1,
            instructions: 0,
            atomics: 0,
        };
        for (i, buffer) in args.iter().enumerate() {
            let same = call.shared.iter().find(|s| s.0.0 as usize == i);
            let at = match same {
                Some((_, with)) => d.args[with.0 as usize],
                None => {
                    let is = |a: &Arg| a.0 as usize == i;
                    let over = call.shared.iter().any(|s| is(&s.1));
                    let written = over || call.written.iter().any(is);
                    let access = if written { Access::Write } else { Access::Read };
                    let at = d.place(&format!("a{i}"), buffer.bytes.clone(), access);
                    // No launch writes what belongs to a weight.
                    let last = d.global.regions.last_mut();
                    last.into_iter()
                        .for_each(|r| r.early = buffer.encoding == Encoding::Code);
                    at
                }
            };
            let skew = call.skew.filter(|s| s.0.0 as usize == i).map_or(0, |s| s.1);
            if let (1.., Some(r)) = (skew, d.global.regions.last_mut()) {
                r.base += skew;
            }
            let at = at + skew;
            d.args.push(at);
        }
        // Weights and runtime integers are there before the launch ahead has ended.
        let first = d.global.regions.len();
        for (w, tiles) in call.tiles.iter().enumerate() {
            let place = |(i, tile): (usize, &Vec<u8>)| {
                d.place(
                    &format!("tile {i} of weight {w}"),
                    tile.clone(),
                    Access::Read,
                )
            };
            let mut places: Vec<u64> = tiles.bytes.iter().enumerate().map(place).collect();
            let odd = places.iter_mut().skip(1).step_by(2);
            if call.seed % 2 == 1 {
                odd.for_each(|at| *at = d.far(*at));
            }
            d.tiles.push(places);
        }
        let vars = (0..trt_kernel::Var::MAX as u8).map(|v| call.env.get(trt_kernel::Var(v)));
        let vars = vars.flat_map(i64::to_le_bytes).collect();
        d.env = d.place("env", vars, Access::Read);
        d.global.regions[first..]
            .iter_mut()
            .for_each(|r| r.early = true);
        let scratch = vec![0xff; emitted.scratch.size(&call.env)];
        d.scratch = d.place("scratch", scratch, Access::Scratch);
        d.fault = d.place("fault", vec![0; 32], Access::Write);
        d.counters = d.place("counters", vec![0; 4 * COUNTERS], Access::Write);
        d
    }

    /// Lays bytes out after all others, behind a guard.
    fn place(&mut self, name: &str, bytes: Vec<u8>, access: Access) -> u64 {
        let end = |r: &Region| r.base + r.bytes.len() as u64;
        let near = self.global.regions.iter().filter(|r| r.base < FAR);
        let last = near.map(end).max().unwrap_or(FIRST);
        let at = (last + GUARD).next_multiple_of(256);
        self.global
            .regions
            .push(Region::new(name, at, bytes, access));
        at
    }

    /// Moves what was placed to where it is not near anything else.
    fn far(&mut self, at: u64) -> u64 {
        let to = at - FIRST + FAR;
        let here = self.global.regions.iter_mut().filter(|r| r.base == at);
        here.for_each(|r| r.base = to);
        to
    }

    fn params(&self, emitted: &Emitted, program: &Program, call: &Call) -> Result<Params, Why> {
        let mut bytes = Vec::new();
        for (param, (name, at, size)) in emitted.params.iter().zip(&program.params) {
            let mut value = match param {
                Param::Arg(a) => self.address(*a, call).to_le_bytes().to_vec(),
                Param::Env => self.env.to_le_bytes().to_vec(),
                Param::Scratch => self.scratch.to_le_bytes().to_vec(),
                Param::Fault => self.fault.to_le_bytes().to_vec(),
                Param::Counters => self.counters.to_le_bytes().to_vec(),
                Param::Tiles(i) => self.table(call, *i as usize)?,
                Param::Map(i) => match emitted.maps.get(*i as usize) {
                    Some(map) => self.map(map, call)?,
                    None => return Err(Why::Launch(format!("there is no map {i}"))),
                },
            };
            if value.len() != *size {
                let what = format!("{name} has {size} bytes where {} are given", value.len());
                return Err(Why::Launch(what));
            }
            bytes.resize(*at, 0);
            bytes.append(&mut value);
        }
        if emitted.params.len() != program.params.len() {
            let (a, b) = (emitted.params.len(), program.params.len());
            return Err(Why::Launch(format!("{a} parameters given, {b} declared")));
        }
        Ok(Params {
            bytes,
            fields: program.params.clone(),
        })
    }

    /// The address of an argument; a ranged weight is only read through its tiles.
    fn address(&self, arg: Arg, call: &Call) -> u64 {
        match call.tiles.iter().any(|t| t.weight == arg) {
            true => POISON,
            false => self.args.get(arg.0 as usize).copied().unwrap_or(POISON),
        }
    }

    /// The table of tiles as the kernel gets it; what lies behind its end is poison.
    fn table(&self, call: &Call, weight: usize) -> Result<Vec<u8>, Why> {
        let (Some(t), Some(places)) = (call.tiles.get(weight), self.tiles.get(weight)) else {
            return Err(Why::Launch("a ranged kernel without tiles".into()));
        };
        let tiles = t.rows.len().div_ceil(t.step.max(1));
        let lawful = tiles <= 1 || t.step % ROW_PANEL == 0;
        if tiles != t.bytes.len() || tiles > MAX_TILES || !lawful {
            let what = format!("rows {:?} in {} tiles of {}", t.rows, t.bytes.len(), t.step);
            return Err(Why::Launch(what));
        }
        let head = [t.rows.start as u32, t.rows.end as u32, t.step as u32, 0];
        let mut out: Vec<u8> = head.iter().flat_map(|x| x.to_le_bytes()).collect();
        for i in 0..MAX_TILES {
            out.extend(places.get(i).copied().unwrap_or(POISON).to_le_bytes());
        }
        Ok(out)
    }

    /// A tensor map and its base, as the kernel gets them.
    fn map(&self, map: &TensorMap, call: &Call) -> Result<Vec<u8>, Why> {
        let pitch = map.pitch as u64;
        let (base, rows) = match &map.of {
            Mapped::Rows { arg, offset, rows } => {
                let base = self.address(*arg, call) + *offset as u64;
                (base, rows.size(&call.env) as u64)
            }
            Mapped::Scratch { offset, rows } => (self.scratch + *offset as u64, *rows as u64),
            Mapped::Tiles { weight, range } => {
                let (w, far) = (usize::from(*weight), *range > 0);
                let places = self.tiles.get(w).into_iter().flatten();
                let sizes = call.tiles.get(w).into_iter().flat_map(|t| &t.bytes);
                let here = places.zip(sizes).filter(|(at, _)| (**at >= FAR) == far);
                let ends = here.map(|(at, bytes)| (*at, at + bytes.len() as u64));
                let ends: Vec<(u64, u64)> = ends.collect();
                let end = ends.iter().map(|e| e.1).max().unwrap_or(0);
                match ends.iter().map(|e| e.0).min() {
                    Some(base) => (base, (end - base).div_ceil(pitch)),
                    None => {
                        let none = [0xff; 8];
                        return Ok([vec![0; MAP_BYTES], none.to_vec()].concat());
                    }
                }
            }
        };
        let encoded = bulk::Map {
            base,
            columns: map.columns as u64,
            rows,
            pitch,
            box_rows: u64::from(map.box_rows),
        };
        Ok([encoded.encode(), base.to_le_bytes().to_vec()].concat())
    }

    pub fn launch(
        &mut self,
        emitted: &Emitted,
        launch: &EntryLaunch,
        program: &Program,
        call: &Call,
    ) -> Result<(), EmuError> {
        let rows: Vec<usize> = call.tiles.iter().map(|t| t.rows.len()).collect();
        let grid = [0, 1, 2].map(|i| launch.grid[i].blocks(&call.env, &rows));
        let params = self.params(emitted, program, call);
        let checked =
            params.and_then(|p| limits(emitted.target, launch, program, grid).map(|()| p));
        let params = checked.map_err(|why| {
            let mut e = EmuError::text(0, why);
            e.entry = launch.entry.as_str().into();
            e
        })?;
        self.blocks(launch, program, &params, grid, call.seed)
    }

    /// Runs the blocks of a launch, in an order drawn from a seed.
    pub fn blocks(
        &mut self,
        launch: &EntryLaunch,
        program: &Program,
        params: &Params,
        grid: [u64; 3],
        seed: u64,
    ) -> Result<(), EmuError> {
        let size = grid.map(|n| n as u32);
        let (launch_clock, block) = (self.clock, launch.block);
        let mut machine = Machine {
            program,
            params,
            global: &mut self.global,
            shared: Memory::shared(program, launch.shared as usize),
            published: Default::default(),
            atomics: 0,
            fenced: Vec::new(),
            phases: Default::default(),
        };
        let mut warps: Vec<warp::Warp> = (0..block.div_ceil(32) as usize)
            .map(|i| warp::Warp::new(program, i, block, size))
            .collect();
        let mut turns = block::Turns::new(seed);
        for [x, y, z] in turns.blocks(size) {
            let clock = self.clock;
            warps
                .iter_mut()
                .for_each(|w| w.begin([x, y, z], clock, launch_clock));
            let (last, steps) = block::run(&mut machine, &mut warps, &mut turns)?;
            self.clock = last + 1;
            self.instructions += steps;
            assert!(
                self.clock < race::LAST_CLOCK,
                "more synchronisation than tags hold"
            );
        }
        self.atomics += machine.atomics;
        self.counted(&launch.entry)
    }

    /// Fails if a launch leaves a counter other than zero.
    fn counted(&self, entry: &str) -> Result<(), EmuError> {
        let region = self.global.regions.iter().find(|r| r.base == self.counters);
        let bytes = region.map_or(&[][..], |r| &r.bytes);
        let counters = bytes.chunks_exact(4).map(memory::value);
        match counters.zip(0..).find(|(value, _)| *value != 0) {
            None => Ok(()),
            Some((value, i)) => {
                let why = Why::Wrong(format!("counter {i} is left at {value}"));
                let mut error = EmuError::text(0, why);
                error.entry = entry.into();
                Err(error)
            }
        }
    }

    pub fn finish(self, args: &mut [Buffer], call: &Call) -> Done {
        for (i, buffer) in args.iter_mut().enumerate() {
            let here = |r: &&Region| r.base == self.args[i];
            // An empty argument may lie where another one starts; it has nothing to copy.
            if let Some(r) = self.global.regions.iter().find(here)
                && call.written.iter().any(|a| a.0 as usize == i)
            {
                buffer.bytes.copy_from_slice(&r.bytes);
            }
        }
        let fault = self.global.regions.iter().find(|r| r.base == self.fault);
        let words = fault.map_or(&[][..], |r| &r.bytes).chunks_exact(8);
        let mut record = [0; 4];
        record
            .iter_mut()
            .zip(words)
            .for_each(|(r, w)| *r = memory::value(w) as i64);
        Done {
            fault: Fault(record),
            instructions: self.instructions,
            atomics: self.atomics,
        }
    }
}

/// What a device allows.
pub(super) fn limits(
    target: Target,
    launch: &EntryLaunch,
    program: &Program,
    grid: [u64; 3],
) -> Result<(), Why> {
    let statics: usize = program.shared.iter().map(|s| s.2).sum();
    let shared = statics + launch.shared as usize;
    // The smallest of the family: 64 KiB on 7.5, 99 KiB on 8.6 and 12.0, 227 KiB on 9.0.
    let most = match target {
        Target::Sm75 => 64 << 10,
        Target::Sm80 | Target::Sm90 => 99 << 10,
        Target::Sm90a | Target::Sm90aMaps => 227 << 10,
    };
    let refuse = |what: String| Err(Why::Launch(what));
    if statics > 48 << 10 || shared > most {
        return refuse(format!(
            "{statics} + {} bytes of shared memory",
            launch.shared
        ));
    }
    if launch.block == 0 || launch.block > program.max_threads.unwrap_or(1024).min(1024) {
        return refuse(format!("{} threads in a block", launch.block));
    }
    if grid[0] > i32::MAX as u64 || grid[1] > 65535 || grid[2] > 65535 {
        return refuse(format!("a grid of {grid:?} blocks"));
    }
    Ok(())
}
