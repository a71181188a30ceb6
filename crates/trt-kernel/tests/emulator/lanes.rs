//! Instructions in which lanes of a warp exchange values: shuffles, votes, reductions.
//!
//! A lane that runs must be among the members, every member that lives must run along, and a
//! value may only come from a lane that does.

use super::error::Why;
use super::inst::*;
use super::names::Names;
use super::ops;
use super::text::Operand;
use super::warp::{Lanes, Stop, Warp, lanes};

/// Decodes `shfl`, `vote`, `redux` and `activemask`.
pub fn decode(names: &Names, parts: &[&str], o: &[Operand]) -> Result<Option<Op>, Why> {
    let u32s = |o: &Operand| names.source(o, Ty::U(32));
    let d32 = |o: &Operand| names.target(o, Ty::U(32));
    Ok(match (parts, o) {
        (["shfl", "sync", mode, "b32"], [d, a, b, c, mask]) => {
            let mode = match *mode {
                "idx" => Shuffle::Idx,
                "up" => Shuffle::Up,
                "down" => Shuffle::Down,
                "bfly" => Shuffle::Bfly,
                _ => return Ok(None),
            };
            let (d, p) = match d {
                Operand::Name(d) => (names.slot(d, Ty::U(32))?, None),
                Operand::Pair(d, p) => (names.slot(d, Ty::U(32))?, Some(names.slot(p, Ty::Pred)?)),
                _ => return Ok(None),
            };
            let (a, b, c, mask) = (u32s(a)?, u32s(b)?, u32s(c)?, u32s(mask)?);
            Some(Op::Shuffle {
                mode,
                d,
                p,
                a,
                b,
                c,
                mask,
            })
        }
        (["vote", "sync", mode, ty], [d, a, mask]) => {
            let (mode, ty) = match (*mode, *ty) {
                ("all", "pred") => (Vote::All, Ty::Pred),
                ("any", "pred") => (Vote::Any, Ty::Pred),
                ("uni", "pred") => (Vote::Uni, Ty::Pred),
                ("ballot", "b32") => (Vote::Ballot, Ty::U(32)),
                _ => return Ok(None),
            };
            let (a, mask) = (names.source(a, Ty::Pred)?, u32s(mask)?);
            names.target(d, ty)?.map(|d| Op::Vote { mode, d, a, mask })
        }
        (["redux", "sync", name, ty], [d, a, mask]) => {
            let Some(fun) = Ty::parse(ty).and_then(|ty| ops::redux(name, ty)) else {
                return Ok(None);
            };
            let (a, mask) = (u32s(a)?, u32s(mask)?);
            d32(d)?.map(|d| Op::Redux { fun, d, a, mask })
        }
        (["activemask", "b32"], [d]) => d32(d)?.map(|d| Op::ActiveMask { d }),
        _ => None,
    })
}

/// Runs one of them.
pub fn run(warp: &mut Warp, program: &Program, op: &Op, mask: u32) -> Result<(), Stop> {
    match op {
        Op::Shuffle {
            mode,
            d,
            p,
            a,
            b,
            c,
            mask: members,
        } => {
            members_agree(warp, program, *members, mask, "a shuffle")?;
            let values = warp.read(program, *a, mask)?;
            let (b, c) = (warp.read(program, *b, mask)?, warp.read(program, *c, mask)?);
            let (mut out, mut inside): (Lanes, Lanes) = ([0; 32], [0; 32]);
            for lane in lanes(mask) {
                let l = lane as usize;
                let from = source(*mode, lane, b[l] as u32, c[l] as u32);
                inside[l] = u64::from(from.is_some());
                let from = from.unwrap_or(lane);
                if mask & (1 << from) == 0 {
                    let what = "a shuffle reads from it";
                    return Err(Stop::at(lane)(Why::Lane { lane: from, what }));
                }
                out[l] = values[from as usize];
            }
            if mask == warp.alive {
                warp.time.beat();
            }
            warp.registers.set(*d, mask, &out);
            p.iter().for_each(|p| warp.registers.set(*p, mask, &inside));
        }
        Op::Vote {
            mode,
            d,
            a,
            mask: members,
        } => {
            members_agree(warp, program, *members, mask, "a vote")?;
            let a = warp.read(program, *a, mask)?;
            let yes = lanes(mask)
                .filter(|l| a[*l as usize] != 0)
                .fold(0u32, |m, l| m | 1 << l);
            let out = match mode {
                Vote::All => u64::from(yes == mask),
                Vote::Any => u64::from(yes != 0),
                Vote::Uni => u64::from(yes == mask || yes == 0),
                Vote::Ballot => u64::from(yes),
            };
            warp.registers.set(*d, mask, &[out; 32]);
        }
        Op::Redux {
            fun,
            d,
            a,
            mask: members,
        } => {
            members_agree(warp, program, *members, mask, "a reduction")?;
            let a = warp.read(program, *a, mask)?;
            let folded = lanes(mask).map(|l| a[l as usize]).reduce(fun).unwrap_or(0);
            warp.registers.set(*d, mask, &[folded; 32]);
        }
        Op::ActiveMask { d } => warp.registers.set(*d, mask, &[u64::from(mask); 32]),
        _ => {}
    }
    Ok(())
}

/// Fails unless the members that live are exactly the lanes that run.
fn members_agree(
    warp: &Warp,
    program: &Program,
    members: Src,
    mask: u32,
    what: &'static str,
) -> Result<(), Stop> {
    let members = warp.read_uniform(program, members, mask)? as u32;
    match (members & warp.alive) ^ mask {
        0 => Ok(()),
        odd => Err(Why::Lane {
            lane: odd.trailing_zeros(),
            what,
        }
        .into()),
    }
}

/// The lane that a shuffle reads from, if it lies in the segment.
fn source(mode: Shuffle, lane: u32, b: u32, c: u32) -> Option<u32> {
    let (b, clamp, segment) = (b & 31, c & 31, c >> 8 & 31);
    let first = lane & segment;
    let last = first | (clamp & !segment);
    let (from, inside) = match mode {
        Shuffle::Up => (lane.wrapping_sub(b), lane as i32 - b as i32 >= last as i32),
        Shuffle::Down => (lane + b, lane + b <= last),
        Shuffle::Bfly => (lane ^ b, lane ^ b <= last),
        Shuffle::Idx => {
            let from = first | (b & !segment & 31);
            (from, from <= last)
        }
    };
    inside.then_some(from)
}
