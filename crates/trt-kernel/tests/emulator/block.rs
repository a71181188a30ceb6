//! A block: its warps take turns, and wait for one another at barriers.
//!
//! The order of turns is fixed, or drawn from a seed: a kernel whose result depends on it is
//! wrong, and one that could depend on it is found by [`super::race`].

use super::error::{EmuError, Why};
use super::exec::{After, Machine};
use super::order::{Knowledge, learn};
use super::warp::{State, Stop, Warp};

/// A barrier at which some warps have arrived.
#[derive(Debug, Default)]
struct Barrier {
    /// Threads that complete it; all that live if none is given.
    threads: Option<u32>,
    arrived: Vec<usize>,
    waiting: Vec<usize>,
    /// What the warps that arrived had seen.
    seen: Vec<u32>,
    /// What they had acquired from other blocks.
    acquired: Knowledge,
}

/// Turns: which warp is next, and for how long.
#[derive(Debug)]
pub struct Turns(u64);

impl Turns {
    /// Seed 0: one after another, each until it waits.
    pub fn new(seed: u64) -> Turns {
        Turns(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn draw(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % n
    }

    /// The blocks of a grid, in the order in which they run: one after another as well, but with
    /// a seed in any.
    pub fn blocks(&mut self, grid: [u32; 3]) -> Vec<[u32; 3]> {
        let [nx, ny, nz] = grid;
        let row = move |y, z| (0..nx).map(move |x| [x, y, z]);
        let plane = move |z| (0..ny).flat_map(move |y| row(y, z));
        let mut all: Vec<[u32; 3]> = (0..nz).flat_map(plane).collect();
        if self.0 != 0 {
            for i in (1..all.len()).rev() {
                all.swap(i, self.draw(i + 1));
            }
        }
        all
    }

    fn next(&mut self, ready: &[usize], last: usize) -> (usize, usize) {
        if self.0 == 0 {
            let after = ready.iter().copied().find(|w| *w > last);
            return (after.unwrap_or(ready[0]), 100_000);
        }
        (ready[self.draw(ready.len())], 1 + self.draw(60))
    }
}

/// Instructions of a block after which it is taken to run forever.
const LIMIT: u64 = 200_000_000;

/// Runs a block that was begun; returns the last clock used and the instructions run.
pub fn run(
    machine: &mut Machine,
    warps: &mut [Warp],
    turns: &mut Turns,
) -> Result<(u32, u64), EmuError> {
    let mut barriers: Vec<Barrier> = (0..16).map(|_| Barrier::default()).collect();
    machine.fenced = vec![0; warps.len()];
    machine.phases.clear();
    let (mut last, mut steps) = (usize::MAX, 0u64);
    loop {
        let ready: Vec<usize> = warps
            .iter()
            .filter(|w| w.state == State::Ready)
            .map(|w| w.index)
            .collect();
        if ready.is_empty() {
            break;
        }
        let (index, slice) = turns.next(&ready, last);
        last = index;
        for _ in 0..slice {
            let at = warps[index].at;
            steps += 1;
            let step = machine
                .step(&mut warps[index])
                .and_then(|after| match after {
                    After::Nothing => Ok(()),
                    After::Barrier { id, threads, waits } => {
                        arrive(&mut barriers, warps, index, id, threads, waits)
                    }
                    After::Sleep(at) => {
                        warps[index].state = State::Phase(at);
                        Ok(())
                    }
                    After::Phase(at) => {
                        let asleep = warps.iter_mut().filter(|w| w.state == State::Phase(at));
                        asleep.for_each(|w| w.state = State::Ready);
                        Ok(())
                    }
                    After::Exit => {
                        barriers.iter_mut().for_each(|b| complete(b, warps));
                        Ok(())
                    }
                });
            let limit = match steps > LIMIT {
                true => Err(Why::Deadlock(format!("{LIMIT} instructions in one block")).into()),
                false => Ok(()),
            };
            step.and(limit)
                .map_err(|stop| locate(machine, &warps[index], at, stop))?;
            if warps[index].state != State::Ready {
                break;
            }
        }
    }
    match warps.iter().find(|w| w.state != State::Done) {
        None if warps.chunks(4).any(|g| {
            g.iter()
                .any(|w| w.products.started != g[0].products.started)
        }) =>
        {
            let why = Why::Wrong("warps of a group start different products".into());
            Err(locate(machine, &warps[0], 0, why.into()))
        }
        None => match machine.all_came() {
            Ok(()) => Ok((warps.iter().map(|w| w.time.now).max().unwrap_or(0), steps)),
            Err(why) => Err(locate(machine, &warps[0], 0, why.into())),
        },
        Some(w) => {
            let why = Why::Deadlock(format!("{:?} is never complete", w.state));
            Err(locate(machine, w, w.at.saturating_sub(1), why.into()))
        }
    }
}

fn locate(machine: &Machine, warp: &Warp, at: u32, stop: Stop) -> EmuError {
    let program = machine.program;
    let lane = stop.lane.unwrap_or(warp.active.trailing_zeros() & 31);
    EmuError {
        entry: program.name.as_str().into(),
        line: program.code.get(at as usize).map_or(0, |i| i.line),
        text: Box::default(),
        block: Some(warp.block()),
        thread: Some(warp.index as u32 * 32 + lane),
        why: stop.why,
    }
}

fn arrive(
    barriers: &mut [Barrier],
    warps: &mut [Warp],
    index: usize,
    id: u32,
    threads: Option<u32>,
    waits: bool,
) -> Result<(), Stop> {
    let Some(b) = barriers.get_mut(id as usize) else {
        return Err(Why::Wrong(format!("there is no barrier {id}")).into());
    };
    if threads.is_some_and(|n| !n.is_multiple_of(32) || n == 0) {
        return Err(Why::Wrong(format!("a barrier of {threads:?} threads")).into());
    }
    if !b.arrived.is_empty() && b.threads != threads {
        let what = format!(
            "barrier {id} of {threads:?} threads, begun with {:?}",
            b.threads
        );
        return Err(Why::Wrong(what).into());
    }
    if b.arrived.contains(&index) {
        return Err(Why::Wrong(format!("a warp arrives at barrier {id} twice")).into());
    }
    b.threads = threads;
    b.arrived.push(index);
    let warp = &mut warps[index];
    warp.time.tick(index);
    b.seen.resize(warp.time.seen.len(), 0);
    b.seen
        .iter_mut()
        .zip(&warp.time.seen)
        .for_each(|(b, w)| *b = (*b).max(*w));
    learn(&mut b.acquired, &warp.time.orders.all);
    if waits {
        warp.state = State::Barrier(id);
        b.waiting.push(index);
    }
    complete(b, warps);
    Ok(())
}

/// Lets waiting warps go if all that are needed have arrived.
fn complete(b: &mut Barrier, warps: &mut [Warp]) {
    let needed = match b.threads {
        Some(n) => n as usize / 32,
        None => warps
            .iter()
            .filter(|w| w.state != State::Done || b.arrived.contains(&w.index))
            .count(),
    };
    if b.arrived.is_empty() || b.arrived.len() < needed {
        return;
    }
    for &w in &b.waiting {
        let warp = &mut warps[w];
        warp.state = State::Ready;
        warp.time
            .seen
            .iter_mut()
            .zip(&b.seen)
            .for_each(|(w, b)| *w = (*w).max(*b));
        learn(&mut warp.time.orders.all, &b.acquired);
    }
    *b = Barrier::default();
}
