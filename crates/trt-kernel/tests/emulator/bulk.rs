//! The copy engine: boxes of tensor maps into shared memory, and the barriers in shared memory
//! that count arrivals and bytes (`mbarrier`).
//!
//! A box is copied when it is asked for, but its bytes are under way until the phase that counts
//! them completes, and whoever touches them must have waited for that. A wait that finds its phase
//! open fails once, and its warp sleeps until the phase completes: text that does not ask again
//! goes on without having waited. An arrival of one lane stands for what its warp did before.

use super::error::Why;
use super::exec::{After, Machine};
use super::inst::*;
use super::memory::value;
use super::names::Names;
use super::order::{Knowledge, learn};
use super::text::Operand;
use super::warp::{Stop, Warp, lanes};

/// A barrier that was initialised.
#[derive(Debug, Default)]
pub struct Phases {
    /// Arrivals of a phase, and those still missing in the open one.
    count: u64,
    missing: u64,
    /// Bytes announced less bytes come.
    pub bytes: i64,
    /// Phases that are complete.
    complete: u64,
    /// What those who arrived had seen and acquired.
    seen: Vec<u32>,
    acquired: Knowledge,
    /// As of the last complete phase.
    known: (Vec<u32>, Knowledge),
    /// What came in the open phase: address and bytes.
    pub landing: Vec<(u64, usize)>,
}

/// A tensor map as this device encodes it: of 16-bit elements, in boxes of 64 columns.
#[derive(Clone, Copy, Debug)]
pub struct Map {
    pub base: u64,
    pub columns: u64,
    pub rows: u64,
    pub pitch: u64,
    pub box_rows: u64,
}

/// What marks an encoded map.
const MARK: u64 = 0x6d61_705f_6d61_705f;
/// Bytes of a row of a box.
pub const ROW: usize = 128;
/// Bytes that move as one.
pub const PIECE: usize = 16;

impl Map {
    pub fn encode(self) -> Vec<u8> {
        let words = [
            MARK,
            self.base,
            self.columns,
            self.rows,
            self.pitch,
            self.box_rows,
        ];
        let mut bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        bytes.resize(trt_kernel::ptx::MAP_BYTES, 0);
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Map, Why> {
        let words: Vec<u64> = bytes.chunks_exact(8).map(value).collect();
        match words.as_slice() {
            [MARK, base, columns, rows, pitch, box_rows, ..] => Ok(Map {
                base: *base,
                columns: *columns,
                rows: *rows,
                pitch: *pitch,
                box_rows: *box_rows,
            }),
            _ => Err(Why::Wrong("no tensor map lies there".into())),
        }
    }

    /// The address of 8 elements, if they are inside.
    pub fn piece(&self, x: i64, y: i64) -> Option<u64> {
        let inside = |i: i64, n: u64| u64::try_from(i).ok().filter(|i| *i < n);
        let (x, y) = (inside(x, self.columns)?, inside(y, self.rows)?);
        Some(self.base + y * self.pitch + 2 * x)
    }
}

/// Decodes `mbarrier`.
pub fn barrier(names: &Names, parts: &[&str], o: &[Operand]) -> Result<Option<Op>, Why> {
    let at = |o: &Operand| names.address(o, Space::Shared);
    Ok(Some(match (parts, o) {
        (["mbarrier", "init", "shared::cta", "b64"], [a, Operand::Imm(n)]) => Op::PhaseInit {
            at: at(a)?,
            count: *n as u64,
        },
        (["mbarrier", "arrive", "shared::cta", "b64"], [Operand::Sink, a]) => Op::PhaseArrive {
            at: at(a)?,
            bytes: Src::Imm(0),
        },
        (["mbarrier", "arrive", "expect_tx", "shared::cta", "b64"], [Operand::Sink, a, n]) => {
            Op::PhaseArrive {
                at: at(a)?,
                bytes: names.source(n, Ty::U(32))?,
            }
        }
        (
            ["mbarrier", "try_wait", "parity", "shared::cta", "b64"],
            [Operand::Name(d), a, parity],
        ) => Op::PhaseTry {
            d: names.slot(d, Ty::Pred)?,
            at: at(a)?,
            parity: names.source(parity, Ty::U(32))?,
        },
        _ => return Ok(None),
    }))
}

/// Decodes `cp.async.bulk`.
pub fn copy(names: &Names, parts: &[&str], o: &[Operand]) -> Result<Option<Op>, Why> {
    let form = [
        "cp",
        "async",
        "bulk",
        "tensor",
        "2d",
        "shared::cluster",
        "global",
        "mbarrier::complete_tx::bytes",
    ];
    let plain = [&form[..3], &form[5..]].concat();
    if let (true, [to, from, bytes, barrier]) = (parts == plain, o) {
        return Ok(Some(Op::BulkCopy {
            to: names.address(to, Space::Shared)?,
            from: names.address(from, Space::Global)?,
            bytes: names.source(bytes, Ty::U(32))?,
            barrier: names.address(barrier, Space::Shared)?,
        }));
    }
    let (true, [to, Operand::Box(map, at), barrier]) = (parts == form, o) else {
        return Ok(None);
    };
    let [x, y] = at.as_slice() else {
        return Ok(None);
    };
    Ok(Some(Op::BoxCopy {
        to: names.address(to, Space::Shared)?,
        map: Src::Reg(names.slot(map, Ty::U(64))?),
        at: [names.source(x, Ty::S(32))?, names.source(y, Ty::S(32))?],
        barrier: names.address(barrier, Space::Shared)?,
    }))
}

impl Machine<'_> {
    /// Runs one of them.
    pub fn bulk(&mut self, warp: &mut Warp, op: &Op, mask: u32) -> Result<After, Stop> {
        let mut after = After::Nothing;
        match op {
            Op::PhaseInit { at, count } => {
                let at = self.addresses(warp, *at, mask)?;
                for lane in lanes(mask) {
                    let (who, at) = (warp.time.who(warp.index, lane), at[lane as usize]);
                    let written = self.shared.write(&who, at, &count.to_le_bytes());
                    written.map_err(Stop::at(lane))?;
                    let phases = Phases {
                        count: *count,
                        missing: *count,
                        ..Phases::default()
                    };
                    self.phases.insert(at, phases);
                }
            }
            Op::PhaseArrive { at, bytes } => {
                let at = self.addresses(warp, *at, mask)?;
                let bytes = warp.read(self.program, *bytes, mask)?;
                for lane in lanes(mask) {
                    let (at, bytes) = (at[lane as usize], bytes[lane as usize]);
                    self.initialised(warp, lane, at).map_err(Stop::at(lane))?;
                    warp.time.tick(warp.index);
                    let phases = self.phases.entry(at).or_default();
                    if phases.missing == 0 {
                        let what = "more arrive at a barrier than it counts";
                        return Err(Stop::at(lane)(Why::Wrong(what.into())));
                    }
                    phases.learn(&warp.time.seen);
                    learn(&mut phases.acquired, &warp.time.orders.all);
                    phases.missing -= 1;
                    phases.bytes += i64::from(bytes as u32);
                    if self.settle(at)? {
                        after = After::Phase(at);
                    }
                }
            }
            Op::PhaseTry { d, at, parity } => {
                let at = self.addresses(warp, *at, mask)?;
                let parity = warp.read_uniform(self.program, *parity, mask)?;
                let first = mask.trailing_zeros();
                let at = match lanes(mask).find(|l| at[*l as usize] != at[first as usize]) {
                    None => at[first as usize],
                    Some(_) => {
                        let what = "lanes wait at different barriers";
                        return Err(Why::Wrong(what.into()).into());
                    }
                };
                for lane in lanes(mask) {
                    self.initialised(warp, lane, at).map_err(Stop::at(lane))?;
                }
                let phases = self.phases.entry(at).or_default();
                let done = phases.complete & 1 != parity;
                if done {
                    let seen = warp.time.seen.iter_mut().zip(&phases.known.0);
                    seen.for_each(|(w, b)| *w = (*w).max(*b));
                    learn(&mut warp.time.orders.all, &phases.known.1);
                } else {
                    after = After::Sleep(at);
                }
                warp.registers.set(*d, mask, &[u64::from(done); 32]);
            }
            Op::BulkCopy { .. } | Op::BoxCopy { .. } => after = self.copies(warp, op, mask)?,
            _ => {}
        }
        Ok(after)
    }

    /// Fails unless the barrier was initialised before this.
    pub fn initialised(&mut self, warp: &Warp, lane: u32, at: u64) -> Result<(), Why> {
        let who = warp.time.who(warp.index, lane);
        self.shared.read(&who, at, 8)?;
        match self.phases.contains_key(&at) {
            true => Ok(()),
            false => Err(Why::Wrong("no barrier was initialised there".into())),
        }
    }

    /// Completes the open phase of a barrier if all arrived and all bytes came.
    pub fn settle(&mut self, at: u64) -> Result<bool, Why> {
        let phases = self.phases.entry(at).or_default();
        if phases.missing > 0 || phases.bytes != 0 {
            return Ok(false);
        }
        phases.missing = phases.count;
        phases.complete += 1;
        phases.known = (phases.seen.clone(), phases.acquired.clone());
        for (at, len) in std::mem::take(&mut phases.landing) {
            self.shared.land(at, len)?;
        }
        Ok(true)
    }

    /// Fails if a barrier still counts bytes at the end of a block.
    pub fn all_came(&self) -> Result<(), Why> {
        match self.phases.iter().find(|(_, p)| p.bytes != 0) {
            None => Ok(()),
            Some((at, p)) => Err(Why::Wrong(format!(
                "the barrier at {at:#x} still counts {} bytes",
                p.bytes
            ))),
        }
    }
}

impl Phases {
    pub fn learn(&mut self, seen: &[u32]) {
        self.seen.resize(seen.len().max(self.seen.len()), 0);
        let each = self.seen.iter_mut().zip(seen);
        each.for_each(|(b, w)| *b = (*b).max(*w));
    }
}
