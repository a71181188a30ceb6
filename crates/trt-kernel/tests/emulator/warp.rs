//! A warp: registers of 32 lanes, where each lane stands, and what the warp has seen.
//!
//! Lanes with the lowest instruction run together, so lanes that parted meet again where their
//! paths do. A register that a lane never wrote may not be read by it.

use super::error::Why;
use super::inst::{Op, Program, Slot, Special, Src};
use super::order::{Knowledge, Orders, Released, learn};
use super::race::Who;
use super::registers::Registers;
use super::wgmma::Products;
use std::collections::VecDeque;

/// A value for each lane.
pub type Lanes = [u64; 32];

/// A broken rule, and the lane that broke it where one did.
#[derive(Debug)]
pub struct Stop {
    pub lane: Option<u32>,
    pub why: Why,
}

impl From<Why> for Stop {
    fn from(why: Why) -> Stop {
        Stop { lane: None, why }
    }
}

impl Stop {
    pub fn at(lane: u32) -> impl Fn(Why) -> Stop {
        move |why| Stop {
            lane: Some(lane),
            why,
        }
    }
}

/// The lanes of a mask, lowest first.
pub fn lanes(mask: u32) -> impl Iterator<Item = u32> {
    let mut left = mask;
    std::iter::from_fn(move || {
        let lane = left.trailing_zeros();
        left &= left.wrapping_sub(1);
        (lane < 32).then_some(lane)
    })
}

/// What a warp knows of the order of accesses; see [`super::race`].
#[derive(Debug, Default)]
pub struct Time {
    pub now: u32,
    pub seen: Vec<u32>,
    pub block: u32,
    pub launch: u32,
    /// What other blocks did before this, and what each lane has ordered with them.
    pub orders: Orders,
    /// As `seen`, at the last `fence.proxy.async`.
    pub proxied: Vec<u32>,
    /// Lanes that have waited for the launch ahead, or need not.
    pub waited: u32,
}

impl Time {
    /// What was done before is ordered before what follows, for this warp.
    pub fn tick(&mut self, warp: usize) {
        self.seen[warp] = self.now;
        self.now += 1;
        self.orders.share();
    }

    /// What a release by a lane of a warp orders before it here.
    pub fn release(&self, warp: usize, lane: u32) -> Knowledge {
        let thread = warp as u32 * 32 + lane;
        let own = Released {
            block: self.block,
            seen: self.seen.clone(),
            thread,
            own: self.now,
        };
        self.orders.before(lane, own)
    }

    /// All lanes have what they had asked for.
    pub fn beat(&mut self) {
        self.now += 1;
    }

    pub fn who(&self, warp: usize, lane: u32) -> Who<'_> {
        Who {
            thread: warp as u32 * 32 + lane,
            now: self.now,
            seen: &self.seen,
            block: self.block,
            launch: self.launch,
            acquired: [&self.orders.all, &self.orders.lanes[lane as usize].acquired],
            proxied: &self.proxied,
            waited: self.waited & 1 << lane != 0,
        }
    }
}

/// Asynchronous copies of a lane: address and bytes.
#[derive(Debug, Default)]
pub struct Copies {
    pub open: Vec<(u64, usize)>,
    pub groups: VecDeque<Vec<(u64, usize)>>,
}

/// Why a warp does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Ready,
    /// Waits at a barrier.
    Barrier(u32),
    /// Sleeps until a phase of the barrier at this address completes.
    Phase(u64),
    Done,
}

#[derive(Debug)]
pub struct Warp {
    pub index: usize,
    pub registers: Registers,
    pub time: Time,
    pub state: State,
    /// Lanes that have not exited.
    pub alive: u32,
    /// Lanes that run, and where they stand.
    pub active: u32,
    pub at: u32,
    /// Where the other lanes stand, and the lowest of that.
    pc: [u32; 32],
    others: u32,
    pub copies: Vec<Copies>,
    pub products: Products,
    /// Whether the entry waits for the launch ahead.
    waits: bool,
    /// What special registers hold: threads of a block, block, grid.
    threads: u32,
    block: [u32; 3],
    grid: [u32; 3],
}

impl Warp {
    pub fn new(program: &Program, index: usize, threads: u32, grid: [u32; 3]) -> Warp {
        let n = program.registers.len();
        Warp {
            index,
            registers: Registers::new(n),
            products: Products::default(),
            time: Time::default(),
            state: State::Ready,
            alive: 0,
            active: 0,
            at: 0,
            pc: [0; 32],
            others: u32::MAX,
            copies: (0..32).map(|_| Copies::default()).collect(),
            waits: program.code.iter().any(|i| matches!(i.op, Op::GridWait)),
            threads,
            block: [0; 3],
            grid,
        }
    }

    /// Begins a block at its first clock.
    pub fn begin(&mut self, block: [u32; 3], clock: u32, launch: u32) {
        let present = (self.threads - 32 * self.index as u32).min(32);
        self.alive = u32::MAX >> (32 - present);
        self.registers.clear();
        self.products = Products::default();
        let warps = self.threads.div_ceil(32) as usize;
        self.time = Time {
            now: clock,
            seen: vec![clock - 1; warps],
            block: clock,
            launch,
            orders: Orders::default(),
            proxied: Vec::new(),
            waited: if self.waits { 0 } else { u32::MAX },
        };
        (self.state, self.active, self.at) = (State::Ready, self.alive, 0);
        (self.others, self.block) = (u32::MAX, block);
        self.copies.iter_mut().for_each(|c| *c = Copies::default());
    }

    /// A source for the lanes of a mask.
    pub fn read(&self, program: &Program, src: Src, mask: u32) -> Result<Lanes, Stop> {
        Ok(match src {
            Src::Reg(slot) => *self.registers.get(program, slot, mask)?,
            Src::Not(slot) => self.registers.get(program, slot, mask)?.map(|p| p ^ 1),
            Src::Imm(value) => [value; 32],
            Src::Special(s) => std::array::from_fn(|lane| u64::from(self.special(s, lane as u32))),
        })
    }

    /// A source that must be the same for all lanes of a mask.
    pub fn read_uniform(&self, program: &Program, src: Src, mask: u32) -> Result<u64, Stop> {
        let values = self.read(program, src, mask)?;
        let first = values[mask.trailing_zeros() as usize];
        match lanes(mask).find(|l| values[*l as usize] != first) {
            None => Ok(first),
            Some(l) => Err(Stop::at(l)(Why::Wrong(
                "lanes disagree on an operand".into(),
            ))),
        }
    }

    fn special(&self, s: Special, lane: u32) -> u32 {
        match s {
            Special::Tid(0) => self.index as u32 * 32 + lane,
            Special::Tid(_) => 0,
            Special::Ntid(0) => self.threads,
            Special::Ntid(_) => 1,
            Special::Ctaid(axis) => self.block[axis],
            Special::Nctaid(axis) => self.grid[axis],
            Special::Lane => lane,
            Special::Warp => self.index as u32,
        }
    }

    /// Lanes that run and whose guard holds.
    pub fn guarded(&self, program: &Program, guard: Option<(Slot, bool)>) -> Result<u32, Stop> {
        let Some((slot, wanted)) = guard else {
            return Ok(self.active);
        };
        let p = self.registers.get(program, slot, self.active)?;
        let holds = p
            .iter()
            .enumerate()
            .fold(0u32, |m, (l, v)| m | ((*v & 1) as u32) << l);
        Ok(self.active & if wanted { holds } else { !holds })
    }

    pub fn block(&self) -> [u32; 3] {
        self.block
    }

    /// The lanes that run go to the next instruction.
    pub fn advance(&mut self) {
        self.at += 1;
        if self.at >= self.others {
            self.regroup();
        }
    }

    /// Some of the lanes that run go elsewhere, the others to the next instruction.
    pub fn branch(&mut self, taken: u32, to: u32) {
        if taken == self.active && self.others == u32::MAX {
            self.at = to;
            return;
        }
        if taken == 0 {
            return self.advance();
        }
        let stay = self.active & !taken;
        lanes(stay).for_each(|l| self.pc[l as usize] = self.at + 1);
        lanes(taken).for_each(|l| self.pc[l as usize] = to);
        self.active = 0;
        self.regroup();
    }

    /// Some of the lanes that run are done; the others go to the next instruction.
    pub fn exit(&mut self, mask: u32) {
        self.alive &= !mask;
        self.active &= !mask;
        self.at += 1;
        if self.alive == 0 {
            self.state = State::Done;
        } else {
            self.regroup();
        }
    }

    /// Runs the lanes with the lowest instruction from here on.
    fn regroup(&mut self) {
        lanes(self.active).for_each(|l| self.pc[l as usize] = self.at);
        self.at = lanes(self.alive)
            .map(|l| self.pc[l as usize])
            .min()
            .unwrap_or(u32::MAX);
        let here = |l: &u32| self.pc[*l as usize] == self.at;
        self.active = lanes(self.alive).filter(here).fold(0, |m, l| m | 1 << l);
        let away = lanes(self.alive & !self.active).map(|l| self.pc[l as usize]);
        self.others = away.min().unwrap_or(u32::MAX);
    }

    /// Orders a lane's accesses for the whole device.
    pub fn fence(&mut self, lane: u32) {
        let own = &mut self.time.orders.lanes[lane as usize];
        let found = std::mem::take(&mut own.found);
        learn(&mut own.acquired, &found);
        let before = self.time.release(self.index, lane);
        self.time.orders.lanes[lane as usize].fenced = Some(before);
    }

    /// Fails unless every lane that lives is in the mask.
    pub fn together(&self, mask: u32, what: &'static str) -> Result<(), Stop> {
        match mask == self.alive {
            true => Ok(()),
            false => Err(Why::Divergent {
                what,
                active: mask,
                alive: self.alive,
            }
            .into()),
        }
    }

    /// Fails unless all 32 lanes are in the mask.
    pub fn whole(&self, mask: u32, what: &'static str) -> Result<(), Stop> {
        match mask == u32::MAX {
            true => Ok(()),
            false => Err(Why::Divergent {
                what,
                active: mask,
                alive: self.alive,
            }
            .into()),
        }
    }
}
