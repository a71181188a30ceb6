//! Who touched each byte, and whether that is ordered before an access that follows.
//!
//! Every warp has a clock that ticks when it synchronises, and knows how far it has seen each
//! other warp of its block (a vector clock). It also ticks when all lanes shuffle: that orders no
//! writes, but what the warp had asked for by then it has read. An access is ordered before
//! another if one thread made both, or if the second one's warp has seen the clock of the first.
//! Clocks never repeat: a block starts above all that came before, so what an earlier block or
//! launch did is told from its clock alone. Other blocks of the launch are ordered before only
//! through atomics ([`super::order`]).

use super::error::Why;
use super::order::Released;
use std::rc::Rc;

/// A write under way (an asynchronous copy).
const PENDING: u32 = 1 << 31;
/// A write by an atomic.
const ATOMIC: u32 = 1 << 30;
/// A write by the copy engine, for a thread.
const ENGINE: u32 = 1 << 29;
const THREAD: u32 = ENGINE - 1;

/// In a read's tag, below the clock: several lanes, several blocks.
const MANY: u32 = 1 << 5;
const FOREIGN: u32 = 1 << 6;
const CLOCK: u32 = 7;
/// The largest clock a tag holds.
pub const LAST_CLOCK: u32 = u32::MAX >> CLOCK;

/// The thread that makes an access, and what it has seen.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// Its number in the block.
    pub thread: u32,
    /// The clock of its warp.
    pub now: u32,
    /// For each warp, the last clock whose accesses are ordered before this one.
    pub seen: &'a [u32],
    /// The first clock of the block, and of the launch.
    pub block: u32,
    pub launch: u32,
    /// As `seen`, at the last fence between threads and the hardware's own agent.
    pub proxied: &'a [u32],
    /// What other blocks of the launch did before (through atomics): all lanes of the warp know,
    /// and this one does.
    pub acquired: [&'a [Rc<Released>]; 2],
    /// Whether it has waited for the launch ahead, or need not.
    pub waited: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Write {
    clock: u32,
    thread: u32,
}

/// Which writes make a byte readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fresh {
    /// It always is.
    Always,
    /// Any earlier write; a vector may reach into padding that nothing wrote.
    Written,
    /// A write of this block.
    Block,
}

/// The history of some bytes.
#[derive(Debug)]
pub struct Shadow {
    fresh: Fresh,
    writes: Vec<Write>,
    /// For each warp, its last read of each byte.
    reads: Vec<Vec<u32>>,
    /// For each byte, the warps that may have read it since it was written.
    readers: Vec<u32>,
}

/// An access in words: what it does, and to whom a broken rule is reported.
type Place<'a> = &'a dyn Fn(usize) -> Box<str>;

impl Shadow {
    pub fn new(fresh: Fresh, bytes: usize) -> Shadow {
        Shadow {
            fresh,
            writes: vec![Write::default(); bytes],
            reads: Vec::new(),
            readers: vec![0; bytes],
        }
    }

    /// The last reads by the warp of a thread, which is about to read some bytes.
    fn reads(&mut self, who: &Who, at: usize, len: usize) -> &mut [u32] {
        while self.reads.len() < who.seen.len() {
            self.reads.push(vec![0; self.writes.len()]);
        }
        let warp = who.thread as usize / 32;
        let mask = 1 << warp;
        self.readers[at..at + len]
            .iter_mut()
            .for_each(|r| *r |= mask);
        &mut self.reads[warp][at..at + len]
    }

    /// Checks and records a read of `len` bytes.
    pub fn read(&mut self, who: &Who, at: usize, len: usize, place: Place) -> Result<(), Why> {
        self.check_written(who, at, len, place)?;
        let lane = who.thread % 32;
        let tag = who.now << CLOCK | lane;
        for old in self.reads(who, at, len) {
            let clock = *old >> CLOCK;
            let mut new = tag;
            if clock == LAST_CLOCK {
                new = *old;
            } else if clock == who.now {
                new |= *old & (MANY | FOREIGN);
                new |= if *old & 31 == lane { 0 } else { MANY };
            } else if clock >= who.launch {
                new |= *old & FOREIGN;
                new |= if clock < who.block { FOREIGN } else { 0 };
            }
            *old = new;
        }
        Ok(())
    }

    fn check_written(&self, who: &Who, at: usize, len: usize, place: Place) -> Result<(), Why> {
        let writes = &self.writes[at..at + len];
        let padding = writes.iter().any(|w| w.clock > 0);
        for (i, w) in writes.iter().enumerate() {
            let unwritten = match self.fresh {
                Fresh::Always => false,
                Fresh::Written => w.clock == 0 && !padding,
                Fresh::Block => w.clock < who.block,
            };
            if unwritten {
                return Err(Why::Unwritten {
                    place: place(at + i),
                });
            }
            if !who.after_write(w) {
                return Err(who.broken("a read after a write", w, place(at + i)));
            }
        }
        Ok(())
    }

    /// Checks and records a write; `changed` says whether a byte changes (two threads may write
    /// the same value).
    pub fn write(
        &mut self,
        who: &Who,
        at: usize,
        len: usize,
        changed: &dyn Fn(usize) -> bool,
        place: Place,
    ) -> Result<(), Why> {
        for i in at..at + len {
            let w = self.last(who, i);
            if !who.after_write(&w) && (w.thread & PENDING != 0 || changed(i - at)) {
                return Err(who.broken("a write after a write", &w, place(i)));
            }
            self.check_readers(who, i, place)?;
            self.readers[i] = 0;
            self.writes[i] = Write {
                clock: who.now,
                thread: who.thread,
            };
        }
        Ok(())
    }

    /// The last write that concerns an access; what an earlier block did to its own shared
    /// memory does not.
    fn last(&self, who: &Who, i: usize) -> Write {
        let w = self.writes[i];
        match self.fresh {
            Fresh::Block if w.clock < who.block => Write::default(),
            _ => w,
        }
    }

    fn check_readers(&self, who: &Who, i: usize, place: Place) -> Result<(), Why> {
        for warp in super::warp::lanes(self.readers[i]) {
            let warp = warp as usize;
            let tag = self.reads[warp][i];
            let clock = tag >> CLOCK;
            if clock < who.launch || clock == 0 {
                continue;
            }
            let by = warp as u32 * 32 + (tag & 31);
            let alone = tag & MANY == 0 && by == who.thread;
            let in_block = clock >= who.block;
            let ordered = match in_block {
                // Values that went through a shuffle had been read.
                true if clock == LAST_CLOCK => {
                    return Err(Why::Pending {
                        place: place(i),
                        by,
                    });
                }
                true if warp == who.thread as usize / 32 => alone || clock < who.now,
                true => clock <= who.seen.get(warp).copied().unwrap_or(u32::MAX),
                false => self.fresh == Fresh::Block || who.knows(|r| r.covers_warp(clock, warp)),
            };
            // The tag tells the last read only.
            let others = self.fresh != Fresh::Block && !who.knows(|_| true);
            let foreign = tag & FOREIGN != 0 && others;
            if !ordered || foreign {
                return Err(Why::Race {
                    place: place(i),
                    what: "a write after a read",
                    by,
                });
            }
        }
        Ok(())
    }

    /// Checks and records a read-modify-write by an atomic.
    pub fn atomic(&mut self, who: &Who, at: usize, len: usize, place: Place) -> Result<(), Why> {
        for i in at..at + len {
            let w = self.last(who, i);
            if self.fresh != Fresh::Always && w.clock == 0 {
                return Err(Why::Unwritten { place: place(i) });
            }
            if w.thread & ATOMIC == 0 && !who.after_write(&w) {
                return Err(who.broken("an atomic after a write", &w, place(i)));
            }
            self.check_readers(who, i, place)?;
            self.readers[i] = 0;
            self.writes[i] = Write {
                clock: who.now,
                thread: who.thread | ATOMIC,
            };
        }
        Ok(())
    }

    /// Marks bytes that were just written as under way.
    pub fn begin(&mut self, at: usize, len: usize) {
        self.writes[at..at + len]
            .iter_mut()
            .for_each(|w| w.thread |= PENDING);
    }

    /// Bytes under way have arrived, for the thread that waited.
    pub fn finish(&mut self, who: &Who, at: usize, len: usize) {
        for w in &mut self.writes[at..at + len] {
            *w = Write {
                clock: who.now,
                thread: who.thread,
            };
        }
    }

    /// Bytes that the copy engine wrote have arrived: they are there for who has waited.
    pub fn land(&mut self, at: usize, len: usize) {
        for w in &mut self.writes[at..at + len] {
            w.thread = w.thread & !PENDING | ENGINE;
        }
    }

    /// Whether the copy engine wrote a byte last, or it is still under way, which whoever touches
    /// it is told.
    pub fn by_engine(&self, at: usize) -> bool {
        self.writes[at].thread & (ENGINE | PENDING) != 0
    }

    /// Marks bytes that an asynchronous product of a warp reads until it is released.
    pub fn hold(&mut self, who: &Who, at: usize, len: usize) {
        self.reads(who, at, len).fill(LAST_CLOCK << CLOCK | MANY);
    }

    /// The product that read bytes is done.
    pub fn release(&mut self, who: &Who, at: usize, len: usize) {
        self.reads(who, at, len).fill(who.now << CLOCK | MANY);
    }

    /// The clock of the last write of a byte, and its thread.
    pub fn writer(&self, at: usize) -> (u32, u32) {
        (self.writes[at].clock, self.writes[at].thread & THREAD)
    }
}

impl Who<'_> {
    fn after_write(&self, w: &Write) -> bool {
        if w.thread & PENDING != 0 {
            return false;
        }
        let by = w.thread & THREAD;
        if w.clock < self.launch {
            return true;
        }
        if w.clock < self.block {
            return self.knows(|r| r.covers(w.clock, by));
        }
        let own = by == self.thread && w.thread & ENGINE == 0;
        own || w.clock <= self.seen[by as usize / 32]
    }

    fn knows(&self, what: impl Fn(&Released) -> bool) -> bool {
        self.acquired.iter().copied().flatten().any(|r| what(r))
    }

    fn broken(&self, what: &'static str, w: &Write, place: Box<str>) -> Why {
        let by = w.thread & THREAD;
        if w.thread & PENDING != 0 {
            return Why::Pending { place, by };
        }
        Why::Race { place, what, by }
    }
}
