//! One instruction of a warp.

use super::bulk::Phases;
use super::error::Why;
use super::inst::*;
use super::memory::{Memory, Params};
use super::ops::Fun;
use super::order::Knowledge;
use super::warp::{Lanes, Stop, Warp, lanes};
use super::{lanes as exchange, tensor, wgmma};
use std::collections::HashMap;

/// What all warps of a block share.
#[derive(Debug)]
pub struct Machine<'a> {
    pub program: &'a Program,
    pub params: &'a Params,
    pub global: &'a mut Memory,
    pub shared: Memory,
    /// What goes with the values that atomics left, by address.
    pub published: HashMap<u64, Knowledge>,
    /// Atomics on global memory so far, counted by thread.
    pub atomics: u64,
    /// For each warp, the last clock whose writes to shared memory it fenced for wgmma.
    pub fenced: Vec<u32>,
    /// Barriers in shared memory, by address.
    pub phases: HashMap<u64, Phases>,
}

/// What a block must do after a warp's instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    Nothing,
    /// The warp arrived at a barrier of so many threads (or all).
    Barrier {
        id: u32,
        threads: Option<u32>,
        waits: bool,
    },
    /// The warp found the open phase of this barrier, and sleeps until it completes.
    Sleep(u64),
    /// A phase of this barrier completed.
    Phase(u64),
    /// The warp exited.
    Exit,
}

impl Machine<'_> {
    /// Runs the next instruction.
    pub fn step(&mut self, warp: &mut Warp) -> Result<After, Stop> {
        let program = self.program;
        let inst = &program.code[warp.at as usize];
        let mask = warp.guarded(program, inst.guard)?;
        match &inst.op {
            Op::Branch { to, uniform } => {
                if *uniform && mask != 0 && mask != warp.active {
                    return Err(Why::Wrong("bra.uni is not uniform".into()).into());
                }
                warp.branch(mask, *to);
                return Ok(After::Nothing);
            }
            Op::Exit if mask != 0 => {
                warp.exit(mask);
                return Ok(if warp.alive == 0 {
                    After::Exit
                } else {
                    After::Nothing
                });
            }
            Op::Barrier { id, threads, waits } if mask != 0 => {
                warp.together(mask, "a barrier")?;
                let id = warp.read_uniform(program, *id, mask)? as u32;
                let threads = match threads {
                    Some(n) => Some(warp.read_uniform(program, *n, mask)? as u32),
                    None => None,
                };
                warp.advance();
                return Ok(After::Barrier {
                    id,
                    threads,
                    waits: *waits,
                });
            }
            op @ (Op::PhaseInit { .. }
            | Op::PhaseArrive { .. }
            | Op::PhaseTry { .. }
            | Op::BulkCopy { .. }
            | Op::BoxCopy { .. })
                if mask != 0 =>
            {
                let after = self.bulk(warp, op, mask)?;
                warp.registers.check(program)?;
                warp.advance();
                return Ok(after);
            }
            _ if mask == 0 => {}
            op => {
                self.plain(warp, op, mask)?;
                warp.registers.check(program)?;
            }
        }
        warp.advance();
        Ok(After::Nothing)
    }

    /// An instruction that neither branches nor waits for other warps.
    fn plain(&mut self, warp: &mut Warp, op: &Op, mask: u32) -> Result<(), Stop> {
        let program = self.program;
        match op {
            Op::Map { .. } => map(warp, program, op, mask),
            Op::Pack { .. } | Op::Unpack { .. } => pack(warp, program, op, mask),
            Op::Setp { .. } => set_predicates(warp, program, op, mask),
            Op::Load { .. } => self.load(warp, op, mask),
            Op::Store { .. } => self.store(warp, op, mask),
            Op::Atomic { .. } => self.atomic(warp, op, mask),
            Op::CopyAsync { .. } => self.copy(warp, op, mask),
            Op::CopyCommit => {
                for l in lanes(mask) {
                    let c = &mut warp.copies[l as usize];
                    let group = std::mem::take(&mut c.open);
                    c.groups.push_back(group);
                }
                Ok(())
            }
            Op::CopyWait { left } => self.arrive(warp, *left as usize, false, mask),
            Op::CopyWaitAll => self.arrive(warp, 0, true, mask),
            Op::GridWait => {
                warp.time.waited |= mask;
                Ok(())
            }
            Op::Fence => {
                lanes(mask).for_each(|lane| warp.fence(lane));
                Ok(())
            }
            Op::WarpSync { mask: members } => {
                warp.together(mask, "bar.warp.sync")?;
                let members = warp.read_uniform(program, *members, mask)? as u32;
                if members & mask != mask {
                    return Err(Why::Text("bar.warp.sync of a part of the warp".into()).into());
                }
                warp.time.tick(warp.index);
                Ok(())
            }
            Op::Shuffle { .. } | Op::Vote { .. } | Op::Redux { .. } | Op::ActiveMask { .. } => {
                exchange::run(warp, program, op, mask)
            }
            Op::LoadMatrix { .. } | Op::StoreMatrix { .. } | Op::Mma { .. } => {
                tensor::run(warp, program, &mut self.shared, op, mask)
            }
            Op::ProductFence | Op::ProductCommit | Op::ProductWait { .. } | Op::Product { .. } => {
                wgmma::run(warp, program, &mut self.shared, &self.fenced, op, mask)
            }
            Op::ProxyFence => {
                warp.together(mask, "fence.proxy.async")?;
                self.fenced[warp.index] = warp.time.now;
                warp.time.proxied = warp.time.seen.clone();
                warp.time.proxied[warp.index] = warp.time.now;
                warp.time.beat();
                Ok(())
            }
            Op::Nop | Op::Branch { .. } | Op::Exit | Op::Barrier { .. } => Ok(()),
            Op::PhaseInit { .. }
            | Op::PhaseArrive { .. }
            | Op::PhaseTry { .. }
            | Op::BulkCopy { .. }
            | Op::BoxCopy { .. } => Ok(()),
        }
    }
}

impl Logic {
    fn of(self, a: u64, b: u64) -> u64 {
        match self {
            Logic::And => a & b,
            Logic::Or => a | b,
            Logic::Xor => a ^ b,
        }
    }
}

/// Puts parts of a register together, or takes it apart.
fn pack(warp: &mut Warp, program: &Program, op: &Op, mask: u32) -> Result<(), Stop> {
    match op {
        Op::Pack { d, bits, parts } => {
            let mut out: Lanes = [0; 32];
            for (i, part) in parts.iter().enumerate() {
                let values = warp.read(program, *part, mask)?;
                (0..32).for_each(|l| out[l] |= values[l] << (*bits * i as u32));
            }
            warp.registers.set(*d, mask, &out);
        }
        Op::Unpack { d, bits, a } => {
            let values = warp.read(program, *a, mask)?;
            for (i, d) in d.iter().enumerate() {
                let part = values.map(|v| v >> (*bits * i as u32) & (u64::MAX >> (64 - *bits)));
                d.iter().for_each(|d| warp.registers.set(*d, mask, &part));
            }
        }
        _ => {}
    }
    Ok(())
}

fn set_predicates(warp: &mut Warp, program: &Program, op: &Op, mask: u32) -> Result<(), Stop> {
    let Op::Setp {
        test,
        combine,
        p,
        q,
        a,
        b,
    } = op
    else {
        return Ok(());
    };
    let (a, b) = (warp.read(program, *a, mask)?, warp.read(program, *b, mask)?);
    let tests: Lanes = std::array::from_fn(|l| u64::from(test(a[l], b[l])));
    let (mut yes, mut no) = (tests, tests.map(|t| t ^ 1));
    if let Some((logic, c)) = combine {
        let c = warp.read(program, *c, mask)?;
        let with = |t: Lanes| std::array::from_fn(|l| logic.of(t[l], c[l]));
        (yes, no) = (with(yes), with(no));
    }
    warp.registers.set(*p, mask, &yes);
    q.iter().for_each(|q| warp.registers.set(*q, mask, &no));
    Ok(())
}

fn map(warp: &mut Warp, program: &Program, op: &Op, mask: u32) -> Result<(), Stop> {
    let Op::Map {
        fun,
        d,
        src,
        divides,
        mask: cut,
    } = op
    else {
        return Ok(());
    };
    let get = |i: usize| warp.read(program, src[i], mask);
    let out: Lanes = match *fun {
        Fun::One(f) => get(0)?.map(|a| f(a) & cut),
        Fun::Two(f) => {
            let (a, mut b) = (get(0)?, get(1)?);
            if *divides {
                if let Some(lane) = lanes(mask).find(|l| b[*l as usize] == 0) {
                    return Err(Stop::at(lane)(Why::Wrong("division by zero".into())));
                }
                b.iter_mut().for_each(|b| *b = (*b).max(1));
            }
            std::array::from_fn(|l| f(a[l], b[l]) & cut)
        }
        Fun::Three(f) => {
            let (a, b, c) = (get(0)?, get(1)?, get(2)?);
            std::array::from_fn(|l| f(a[l], b[l], c[l]) & cut)
        }
        Fun::Four(f) => {
            let (a, b, c, e) = (get(0)?, get(1)?, get(2)?, get(3)?);
            std::array::from_fn(|l| f(a[l], b[l], c[l], e[l]) & cut)
        }
    };
    warp.registers.set(*d, mask, &out);
    Ok(())
}
