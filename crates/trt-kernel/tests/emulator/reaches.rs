//! Instructions that reach memory: loads, stores, atomics, asynchronous copies, as text and run.

use super::error::Why;
use super::exec::Machine;
use super::inst::*;
use super::memory::value;
use super::names::Names;
use super::ops;
use super::order::learn;
use super::text::Operand;
use super::warp::{Lanes, Stop, Warp, lanes};

type Result<T, E = Why> = std::result::Result<T, E>;

/// Cache hints, which change no result.
fn is_hint(part: &str) -> bool {
    let caches = ["ca", "cg", "cs", "lu", "wb", "wt"];
    let allocate = part.strip_prefix("L1::");
    let evict = [
        "no_allocate",
        "evict_normal",
        "evict_unchanged",
        "evict_first",
        "evict_last",
    ];
    caches.contains(&part)
        || allocate.is_some_and(|a| evict.contains(&a))
        || ["L2::64B", "L2::128B", "L2::256B"].contains(&part)
}

/// Decodes `ld` and `st`.
pub fn access(names: &Names, parts: &[&str], o: &[Operand]) -> Result<Option<Op>> {
    let [kind, space, middle @ .., ty] = parts else {
        return Ok(None);
    };
    let space = match *space {
        "param" => Space::Param,
        "global" => Space::Global,
        "shared" | "shared::cta" => Space::Shared,
        _ => return Ok(None),
    };
    let (mut count, mut nc) = (1, false);
    for part in middle {
        match *part {
            "v2" => count = 2,
            "v4" => count = 4,
            "nc" if *kind == "ld" && space == Space::Global => nc = true,
            hint if space != Space::Param && is_hint(hint) => {}
            _ => return Ok(None),
        }
    }
    let Some(ty) = Ty::parse(ty) else {
        return Ok(None);
    };
    let (value, at) = match (o, *kind) {
        ([v, at], "ld") | ([at, v], "st") => (v, names.address(at, space)?),
        _ => return Ok(None),
    };
    let values = match value {
        Operand::Vector(v) if v.len() == count => v.as_slice(),
        one if count == 1 => std::slice::from_ref(one),
        _ => return Ok(None),
    };
    if *kind == "st" {
        let part = |v: &Operand| match v {
            Operand::Name(r) if names.is_register(r) => Ok(Src::Reg(names.at_least(r, ty)?.0)),
            other => names.source(other, ty),
        };
        let src = values.iter().map(part).collect::<Result<_>>()?;
        return Ok((space != Space::Param).then_some(Op::Store { space, ty, src, at }));
    }
    let mut d = Vec::new();
    for v in values {
        d.push(match v {
            Operand::Name(r) => Some(names.at_least(r, ty)?),
            Operand::Sink if count > 1 => None,
            _ => return Ok(None),
        });
    }
    Ok(Some(Op::Load {
        space,
        ty,
        d,
        at,
        nc,
    }))
}

/// Decodes `atom` and `red`.
pub fn atomic(names: &Names, parts: &[&str], o: &[Operand]) -> Result<Option<Op>> {
    let [kind, middle @ .., name, ty] = parts else {
        return Ok(None);
    };
    let (mut space, mut order) = (
        None,
        Order {
            acquires: false,
            releases: false,
        },
    );
    for part in middle {
        match *part {
            "global" => space = Some(Space::Global),
            "shared" | "shared::cta" => space = Some(Space::Shared),
            "relaxed" | "gpu" | "sys" => {}
            "acquire" => order.acquires = true,
            "release" => order.releases = true,
            "acq_rel" => {
                order = Order {
                    acquires: true,
                    releases: true,
                }
            }
            _ => return Ok(None),
        }
    }
    let (Some(space), Some(ty)) = (space, Ty::parse(ty)) else {
        return Ok(None);
    };
    let Some(fun) = ops::atomic(name, ty) else {
        return Ok(None);
    };
    let (d, rest) = match (*kind, o) {
        ("atom", [d, rest @ ..]) => (names.target(d, ty)?, rest),
        ("red", rest) => (None, rest),
        _ => return Ok(None),
    };
    let (at, b, c) = match (rest, *name) {
        ([at, b, c], "cas") => (at, b, names.source(c, ty)?),
        ([at, b], n) if n != "cas" => (at, b, Src::Imm(0)),
        _ => return Ok(None),
    };
    let (at, b) = (names.address(at, space)?, names.source(b, ty)?);
    Ok(Some(Op::Atomic {
        space,
        ty,
        fun,
        order,
        d,
        at,
        b,
        c,
    }))
}

/// Decodes `cp.async`.
pub fn copy(names: &Names, parts: &[&str], o: &[Operand]) -> Result<Option<Op>> {
    Ok(Some(match (parts, o) {
        (["cp", "async", "commit_group"], []) => Op::CopyCommit,
        (["cp", "async", "wait_all"], []) => Op::CopyWaitAll,
        (["cp", "async", "wait_group"], [Operand::Imm(n)]) => Op::CopyWait { left: *n as u32 },
        (
            [
                "cp",
                "async",
                cache @ ("ca" | "cg"),
                "shared" | "shared::cta",
                "global",
                hints @ ..,
            ],
            [to, from, Operand::Imm(bytes), valid @ ..],
        ) if hints.iter().all(|h| h.starts_with("L2::") && is_hint(h)) => {
            let bytes = *bytes as u32;
            let right = matches!((*cache, bytes), ("ca", 4 | 8 | 16) | ("cg", 16));
            let valid = match valid {
                [] => None,
                [v] => Some(names.source(v, Ty::U(32))?),
                _ => return Ok(None),
            };
            if !right {
                return Ok(None);
            }
            Op::CopyAsync {
                to: names.address(to, Space::Shared)?,
                from: names.address(from, Space::Global)?,
                bytes,
                valid,
            }
        }
        _ => return Ok(None),
    }))
}

impl Machine<'_> {
    /// The address of each lane.
    pub fn addresses(&self, warp: &Warp, at: Address, mask: u32) -> Result<Lanes, Stop> {
        let base = warp.read(self.program, at.base, mask)?;
        Ok(base.map(|b| b.wrapping_add_signed(at.offset)))
    }

    pub fn load(&mut self, warp: &mut Warp, op: &Op, mask: u32) -> Result<(), Stop> {
        let &Op::Load {
            space,
            ty,
            ref d,
            at,
            nc,
        } = op
        else {
            return Ok(());
        };
        let addresses = self.addresses(warp, at, mask)?;
        let size = ty.bits() as usize / 8;
        for lane in lanes(mask) {
            let (address, who) = (addresses[lane as usize], warp.time.who(warp.index, lane));
            let bytes = size * d.len();
            if nc {
                self.global
                    .constant(&who, address, bytes)
                    .map_err(Stop::at(lane))?;
            }
            let bytes = match space {
                Space::Param => self.params.read(address, bytes),
                Space::Global => self.global.read(&who, address, bytes),
                Space::Shared => self.shared.read(&who, address, bytes),
            };
            let bytes = bytes.map_err(Stop::at(lane))?;
            for (d, element) in d.iter().zip(bytes.chunks_exact(size)) {
                let Some((slot, width)) = *d else { continue };
                let mut x = value(element);
                if matches!(ty, Ty::S(_)) {
                    let top = 64 - ty.bits();
                    x = ((x << top) as i64 >> top) as u64 & (u64::MAX >> (64 - width));
                }
                warp.registers.set_lane(slot, lane, x);
            }
        }
        Ok(())
    }

    pub fn store(&mut self, warp: &mut Warp, op: &Op, mask: u32) -> Result<(), Stop> {
        let &Op::Store {
            space,
            ty,
            ref src,
            at,
        } = op
        else {
            return Ok(());
        };
        let addresses = self.addresses(warp, at, mask)?;
        let size = ty.bits() as usize / 8;
        let mut data = [[0u8; 16]; 32];
        for (i, s) in src.iter().enumerate() {
            let values = warp.read(self.program, *s, mask)?;
            for l in 0..32 {
                let bytes = &values[l].to_le_bytes()[..size];
                data[l][i * size..(i + 1) * size].copy_from_slice(bytes);
            }
        }
        for lane in lanes(mask) {
            let who = warp.time.who(warp.index, lane);
            let bytes = &data[lane as usize][..size * src.len()];
            let memory = match space {
                Space::Shared => &mut self.shared,
                Space::Global | Space::Param => &mut *self.global,
            };
            let done = memory.write(&who, addresses[lane as usize], bytes);
            done.map_err(Stop::at(lane))?;
            if space == Space::Global {
                warp.time.orders.lanes[lane as usize].fenced = None;
                self.published.remove(&addresses[lane as usize]);
            }
        }
        Ok(())
    }

    pub fn atomic(&mut self, warp: &mut Warp, op: &Op, mask: u32) -> Result<(), Stop> {
        let Op::Atomic {
            space,
            ty,
            fun,
            order,
            d,
            at,
            b,
            c,
        } = op
        else {
            return Ok(());
        };
        let addresses = self.addresses(warp, *at, mask)?;
        let b = warp.read(self.program, *b, mask)?;
        let c = warp.read(self.program, *c, mask)?;
        for lane in lanes(mask) {
            let l = lane as usize;
            if *space == Space::Global {
                self.publish(warp, lane, addresses[l], *order);
                self.atomics += 1;
            }
            let who = warp.time.who(warp.index, lane);
            let memory = match space {
                Space::Shared => &mut self.shared,
                Space::Global | Space::Param => &mut *self.global,
            };
            let change = |old| fun(old, b[l], c[l]);
            let old = memory.update(&who, addresses[l], ty.bits() as usize / 8, change);
            let old = old.map_err(Stop::at(lane))?;
            d.iter()
                .for_each(|d| warp.registers.set_lane(*d, lane, old));
        }
        Ok(())
    }

    /// What an atomic on global memory finds with the value there, and leaves with its own.
    fn publish(&mut self, warp: &mut Warp, lane: u32, address: u64, order: Order) {
        let with = self.published.entry(address).or_default();
        let own = &mut warp.time.orders.lanes[lane as usize];
        let to = match order.acquires {
            true => &mut own.acquired,
            false => &mut own.found,
        };
        learn(to, with);
        match (order.releases, &own.fenced) {
            (true, _) => learn(with, &warp.time.release(warp.index, lane)),
            (false, Some(before)) => learn(with, before),
            (false, None) => {}
        }
    }

    pub fn copy(&mut self, warp: &mut Warp, op: &Op, mask: u32) -> Result<(), Stop> {
        let &Op::CopyAsync {
            to,
            from,
            bytes,
            valid,
        } = op
        else {
            return Ok(());
        };
        let bytes = bytes as usize;
        let (to, from) = (
            self.addresses(warp, to, mask)?,
            self.addresses(warp, from, mask)?,
        );
        let valid = match valid {
            Some(v) => warp.read(self.program, v, mask)?,
            None => [bytes as u64; 32],
        };
        for lane in lanes(mask) {
            let (to, from) = (to[lane as usize], from[lane as usize]);
            let n = valid[lane as usize] as usize;
            let who = warp.time.who(warp.index, lane);
            let mut data = [0u8; 16];
            let mut run = || {
                if n > bytes {
                    return Err(Why::Wrong(format!("a copy of {n} of {bytes} bytes")));
                }
                if n > 0 {
                    data[..n].copy_from_slice(self.global.read_at(&who, from, n, bytes)?);
                }
                self.shared.write(&who, to, &data[..bytes])?;
                self.shared.begin(to, bytes)
            };
            run().map_err(Stop::at(lane))?;
            warp.copies[lane as usize].open.push((to, bytes));
        }
        Ok(())
    }

    /// Waits for all but the last groups of copies of each lane, and for `open` ones.
    pub fn arrive(
        &mut self,
        warp: &mut Warp,
        left: usize,
        open: bool,
        mask: u32,
    ) -> Result<(), Stop> {
        for lane in lanes(mask) {
            let who = warp.time.who(warp.index, lane);
            let c = &mut warp.copies[lane as usize];
            let done = c.groups.len().saturating_sub(left);
            let rest = if open {
                std::mem::take(&mut c.open)
            } else {
                Vec::new()
            };
            for (at, bytes) in c.groups.drain(..done).flatten().chain(rest) {
                self.shared
                    .finish(&who, at, bytes)
                    .map_err(Stop::at(lane))?;
            }
        }
        Ok(())
    }
}
