//! What the copy engine copies: runs of bytes, and boxes of tensor maps. Its bytes are under way until the
//! phase of a barrier that counts them completes.

use super::bulk::{Map, PIECE, ROW};
use super::error::Why;
use super::exec::{After, Machine};
use super::inst::*;
use super::warp::{Stop, Warp, lanes};

/// A box on its way: to where, by which map and from which column and row, and the barrier that
/// counts its bytes.
struct BoxCopy {
    to: u64,
    map: u64,
    at: [i64; 2],
    barrier: u64,
}

impl Machine<'_> {
    /// Runs a copy of each lane.
    pub fn copies(&mut self, warp: &mut Warp, op: &Op, mask: u32) -> Result<After, Stop> {
        let mut after = After::Nothing;
        match op {
            Op::BulkCopy {
                to,
                from,
                bytes,
                barrier,
            } => {
                let to = self.addresses(warp, *to, mask)?;
                let from = self.addresses(warp, *from, mask)?;
                let barrier = self.addresses(warp, *barrier, mask)?;
                let bytes = warp.read(self.program, *bytes, mask)?;
                for l in lanes(mask) {
                    let i = l as usize;
                    let done = self.bulk_copy(warp, l, [to[i], from[i], bytes[i], barrier[i]]);
                    if done.map_err(Stop::at(l))? {
                        after = After::Phase(barrier[i]);
                    }
                }
            }
            Op::BoxCopy {
                to,
                map,
                at,
                barrier,
            } => {
                let to = self.addresses(warp, *to, mask)?;
                let barrier = self.addresses(warp, *barrier, mask)?;
                let map = warp.read(self.program, *map, mask)?;
                let x = warp.read(self.program, at[0], mask)?;
                let y = warp.read(self.program, at[1], mask)?;
                for l in lanes(mask) {
                    let i = l as usize;
                    let copy = BoxCopy {
                        to: to[i],
                        map: map[i],
                        at: [x[i], y[i]].map(|c| i64::from(c as u32 as i32)),
                        barrier: barrier[i],
                    };
                    let done = self.box_copy(warp, l, copy);
                    if done.map_err(Stop::at(l))? {
                        after = After::Phase(barrier[i]);
                    }
                }
            }
            _ => {}
        }
        Ok(after)
    }

    /// Copies bytes, of which there are whole pieces; whether that completes a phase.
    fn bulk_copy(
        &mut self,
        warp: &mut Warp,
        lane: u32,
        [to, from, bytes, barrier]: [u64; 4],
    ) -> Result<bool, Why> {
        self.initialised(warp, lane, barrier)?;
        let who = warp.time.who(warp.index, lane);
        let fenced = &self.fenced;
        let fence = |warp: usize, clock: u32| {
            clock <= fenced[warp] || who.proxied.get(warp).is_some_and(|c| clock <= *c)
        };
        self.shared.handed_over(&who, barrier, 8, &fence)?;
        if (to | from | bytes) % PIECE as u64 != 0 || bytes == 0 {
            let what = format!("{bytes} bytes from {from:#x} to {to:#x}: alignment");
            return Err(Why::Wrong(what));
        }
        for at in (0..bytes).step_by(PIECE) {
            let data = self.global.read(&who, from + at, PIECE)?.to_vec();
            self.shared.handed_over(&who, to + at, PIECE, &fence)?;
            self.shared.write(&who, to + at, &data)?;
            self.shared.begin(to + at, PIECE)?;
        }
        self.under_way(warp, barrier, (to, bytes as usize))
    }

    /// Bytes are under way that a barrier counts; whether that completes a phase.
    fn under_way(
        &mut self,
        warp: &mut Warp,
        barrier: u64,
        bytes: (u64, usize),
    ) -> Result<bool, Why> {
        let phases = self.phases.entry(barrier).or_default();
        let mut seen = vec![0; warp.time.seen.len()];
        seen[warp.index] = warp.time.now;
        phases.learn(&seen);
        phases.bytes -= bytes.1 as i64;
        phases.landing.push(bytes);
        warp.time.beat();
        self.settle(barrier)
    }

    /// Copies a box; whether that completes a phase.
    fn box_copy(&mut self, warp: &mut Warp, lane: u32, copy: BoxCopy) -> Result<bool, Why> {
        let BoxCopy {
            to,
            map,
            at: [x, y],
            barrier,
        } = copy;
        self.initialised(warp, lane, barrier)?;
        let who = warp.time.who(warp.index, lane);
        let fenced = &self.fenced;
        let fence = |warp: usize, clock: u32| {
            clock <= fenced[warp] || who.proxied.get(warp).is_some_and(|c| clock <= *c)
        };
        self.shared.handed_over(&who, barrier, 8, &fence)?;
        let aligned = map.is_multiple_of(64) && to.is_multiple_of(8 * ROW as u64) && x % 8 == 0;
        if !aligned {
            let what = format!("a box at column {x} to {to:#x} by the map at {map:#x}: alignment");
            return Err(Why::Wrong(what));
        }
        let mut bytes = Vec::new();
        for word in 0..trt_kernel::ptx::MAP_BYTES as u64 / 8 {
            bytes.extend(self.params.read(map + 8 * word, 8)?);
        }
        let map = Map::decode(&bytes)?;
        let len = map.box_rows as usize * ROW;
        for at in (0..len).step_by(PIECE) {
            let (row, piece) = ((at / ROW) as i64, (at % ROW / PIECE) as i64);
            let mut data = [0; PIECE];
            if let Some(from) = map.piece(x + 8 * piece, y + row) {
                data.copy_from_slice(self.global.read(&who, from, PIECE)?);
            }
            let to = to + at as u64;
            // The pattern permutes the pieces of a row by the lines of 128 bytes.
            let to = to ^ (to >> 3 & (ROW - PIECE) as u64);
            self.shared.handed_over(&who, to, PIECE, &fence)?;
            self.shared.write(&who, to, &data)?;
            self.shared.begin(to, PIECE)?;
        }
        self.under_way(warp, barrier, (to, len))
    }
}
