//! Products of warp groups: `wgmma`, whose operands lie in shared memory and which run on their
//! own until they are waited for.
//!
//! Each of the four warps of a group computes 16 of the 64 rows. A product is done at once here,
//! but until a wait its sums may not be touched, its registers not be written, and the shared
//! bytes that it reads not be overwritten. What it reads must have been handed from threads to
//! the hardware's own agent (`fence.proxy.async`), and registers that threads wrote by
//! `wgmma.fence`.

use super::error::Why;
use super::float::{get, put};
use super::half::widen;
use super::inst::*;
use super::memory::{Memory, value};
use super::names::Names;
use super::tensor::{dot, left};
use super::text::Operand;
use super::warp::{Lanes, Stop, Warp};
use std::collections::VecDeque;

/// Elements along `k` of a product.
const DEPTH: usize = 16;

/// What products use until they are waited for.
#[derive(Debug, Default)]
pub struct Group {
    /// Shared bytes: address and length.
    reads: Vec<(u64, usize)>,
    sums: Vec<Slot>,
    sources: Vec<Slot>,
}

/// Products of a warp that are under way.
#[derive(Debug, Default)]
pub struct Products {
    open: Group,
    groups: VecDeque<Group>,
    /// How many were started; all warps of a group start the same.
    pub started: u64,
}

/// Decodes `wgmma`.
pub fn decode(names: &Names, parts: &[&str], o: &[Operand]) -> Result<Option<Op>, Why> {
    Ok(match (parts, o) {
        (["wgmma", "fence", "sync", "aligned"], []) => Some(Op::ProductFence),
        (["wgmma", "commit_group", "sync", "aligned"], []) => Some(Op::ProductCommit),
        (["wgmma", "wait_group", "sync", "aligned"], [Operand::Imm(n)]) => {
            Some(Op::ProductWait { left: *n as usize })
        }
        (
            [
                "wgmma",
                "mma_async",
                "sync",
                "aligned",
                shape,
                "f32",
                ty,
                ty2,
            ],
            o,
        ) if ty == ty2 => {
            let ty = match Ty::parse(ty) {
                Some(ty @ (Ty::F16 | Ty::Bf16)) => ty,
                _ => return Ok(None),
            };
            let n = shape
                .strip_prefix("m64n")
                .and_then(|s| s.strip_suffix("k16"));
            let n: usize = match n.and_then(|n| n.parse().ok()) {
                Some(n) if n % 8 == 0 && (8..=256).contains(&n) => n,
                _ => return Ok(None),
            };
            let bit = |o: &Operand| match o {
                Operand::Imm(b @ (0 | 1)) => Some(*b == 1),
                _ => None,
            };
            let (d, a, b, scale, trans) = match o {
                [
                    d,
                    a @ Operand::Vector(_),
                    b,
                    p,
                    Operand::Imm(1),
                    Operand::Imm(1),
                    tb,
                ] => (d, a, b, p, [Some(false), bit(tb)]),
                [d, a, b, p, Operand::Imm(1), Operand::Imm(1), ta, tb] => {
                    (d, a, b, p, [bit(ta), bit(tb)])
                }
                _ => return Ok(None),
            };
            let [Some(ta), Some(tb)] = trans else {
                return Ok(None);
            };
            let a = match a {
                Operand::Vector(_) => Left::Registers(names.registers(a, 4, Ty::U(32))?),
                _ => {
                    let descriptor = names.source(a, Ty::U(64))?;
                    Left::Shared {
                        descriptor,
                        transposed: ta,
                    }
                }
            };
            Some(Op::Product {
                n,
                ty,
                d: names.registers(d, n / 2, Ty::F32)?,
                a,
                b: names.source(b, Ty::U(64))?,
                transposed: tb,
                adds: names.source(scale, Ty::Pred)?,
            })
        }
        _ => None,
    })
}

/// Runs one of them.
pub fn run(
    warp: &mut Warp,
    program: &Program,
    shared: &mut Memory,
    fenced: &[u32],
    op: &Op,
    mask: u32,
) -> Result<(), Stop> {
    warp.whole(mask, "wgmma")?;
    match op {
        Op::ProductFence => warp.registers.hand_over(),
        Op::ProductCommit => {
            let group = std::mem::take(&mut warp.products.open);
            warp.products.groups.push_back(group);
        }
        Op::ProductWait { left } => wait(warp, shared, *left)?,
        Op::Product {
            n,
            ty,
            d,
            a,
            b,
            transposed,
            adds,
        } => {
            let index = warp.index % 4;
            let mut reads = Vec::new();
            let mut fetch = |source: Src, rows, transposed, warp: &Warp| {
                let bits = warp.read_uniform(program, source, mask)?;
                let matrix = Matrix::new(bits, transposed)?;
                let (values, at) = matrix.fetch(warp, shared, fenced, rows, *ty)?;
                reads.extend(at);
                Ok::<_, Stop>(values)
            };
            let right = fetch(*b, 0..*n, *transposed, warp)?;
            let (rows, sources) = match a {
                Left::Shared {
                    descriptor,
                    transposed,
                } => {
                    let rows = 16 * index..16 * index + 16;
                    (fetch(*descriptor, rows, *transposed, warp)?, vec![])
                }
                Left::Registers(slots) => {
                    warp.registers.handed_over(program, slots)?;
                    let values: Result<Vec<Lanes>, Stop> = slots
                        .iter()
                        .map(|s| warp.read(program, Src::Reg(*s), mask))
                        .collect();
                    (left(&values?, *ty).to_vec(), slots.clone())
                }
            };
            let adds = warp.read_uniform(program, *adds, mask)? != 0;
            warp.registers.handed_over(program, d)?;
            for (i, slot) in d.iter().enumerate() {
                let before = match adds {
                    true => *warp.registers.sum(program, *slot)?,
                    false => [0; 32],
                };
                let after = std::array::from_fn(|lane| {
                    let row = lane / 4 + 8 * (i / 2 % 2);
                    let col = 8 * (i / 4) + 2 * (lane % 4) + i % 2;
                    put(dot(&rows[row], &right[col], get(before[lane])))
                });
                warp.registers.set_sum(*slot, &after);
            }
            let products = &mut warp.products;
            products.started += 1;
            products.open.reads.extend(reads);
            products.open.sums.extend(d);
            products.open.sources.extend(sources);
            hold(warp, shared)?;
        }
        _ => {}
    }
    Ok(())
}

/// Waits for all groups but the last `left`.
fn wait(warp: &mut Warp, shared: &mut Memory, left: usize) -> Result<(), Stop> {
    let done = warp.products.groups.len().saturating_sub(left);
    let done: Vec<Group> = warp.products.groups.drain(..done).collect();
    for group in &done {
        for (at, len) in &group.reads {
            shared.release(&warp.time.who(warp.index, 0), *at, *len)?;
        }
    }
    warp.registers.release();
    hold(warp, shared)
}

/// Marks what products under way use.
fn hold(warp: &mut Warp, shared: &mut Memory) -> Result<(), Stop> {
    let products = &warp.products;
    for group in products.groups.iter().chain([&products.open]) {
        for (at, len) in &group.reads {
            shared.hold(&warp.time.who(warp.index, 0), *at, *len)?;
        }
        warp.registers.hold(&group.sums, &group.sources);
    }
    Ok(())
}

/// A matrix in shared memory, as a descriptor says.
struct Matrix {
    start: u64,
    /// Bytes to the next group along the leading dimension, and along the other one.
    leading: u64,
    stride: u64,
    /// Bytes of a row of the swizzle; 16 is none.
    swizzle: u64,
    /// Whether rows are the contiguous axis, instead of `k`.
    transposed: bool,
}

impl Matrix {
    fn new(bits: u64, transposed: bool) -> Result<Matrix, Why> {
        let field = |at: u32| (bits >> at & 0x3fff) << 4;
        let wrong = |what: &str| Err(Why::Wrong(format!("descriptor {bits:#x}: {what}")));
        let reserved = 3 << 14 | 3 << 30 | 7 << 46 | 0x3ff << 52;
        if bits & reserved != 0 || bits >> 49 & 7 != 0 {
            return wrong("reserved bits or a base offset");
        }
        let swizzle = [16, 128, 64, 32][(bits >> 62) as usize];
        let m = Matrix {
            start: field(0),
            leading: field(16),
            stride: field(32),
            swizzle,
            transposed,
        };
        if transposed && swizzle != 128 {
            return wrong("rows contiguous, but not swizzled by 128 bytes");
        }
        // Steps along k move the start within the first row of the pattern.
        let row = m.start % (8 * swizzle) / swizzle;
        if swizzle > 16 && (row != 0 || !m.stride.is_multiple_of(8 * swizzle)) {
            return wrong("the pattern does not start at a multiple of its size");
        }
        if !transposed && swizzle > 16 && m.start % swizzle + 2 * DEPTH as u64 > swizzle {
            return wrong("the elements along k do not lie in one row of the pattern");
        }
        Ok(m)
    }

    /// The address of 8 elements: `row` and 8 along `k`, or 8 rows from `row` at `k`.
    fn piece(&self, row: u64, k: u64) -> u64 {
        let s = self.swizzle;
        let at = match (self.transposed, s) {
            (true, _) => {
                let within = k % 8 * 128 + row % 64 * 2;
                self.start + row / 64 * self.leading + k / 8 * self.stride + within
            }
            (false, 16) => self.start + row / 8 * self.stride + k / 8 * self.leading + row % 8 * 16,
            (false, _) => self.start + row / 8 * self.stride + row % 8 * s + k * 2,
        };
        // The pattern permutes the 16-byte pieces of a row by the lines of 128 bytes.
        at ^ (at >> 3 & (s - 16))
    }

    /// Rows of the matrix, and what was read for them.
    #[allow(clippy::type_complexity, reason = "values and places")]
    fn fetch(
        &self,
        warp: &Warp,
        shared: &mut Memory,
        fenced: &[u32],
        rows: std::ops::Range<usize>,
        ty: Ty,
    ) -> Result<(Vec<[f32; DEPTH]>, Vec<(u64, usize)>), Stop> {
        let mut out = vec![[0.0; DEPTH]; rows.len()];
        let mut places = Vec::new();
        let (down, along) = if self.transposed { (8, 1) } else { (1, 8) };
        for row in rows.clone().step_by(down) {
            for k in (0..DEPTH).step_by(along) {
                let at = self.piece(row as u64, k as u64);
                let who = warp.time.who(warp.index, 0);
                let fence = |warp: usize, clock: u32| {
                    clock <= fenced[warp] || who.proxied.get(warp).is_some_and(|c| clock <= *c)
                };
                shared.handed_over(&who, at, 16, &fence)?;
                let bytes = shared.read(&who, at, 16)?;
                for (i, e) in bytes.chunks_exact(2).enumerate() {
                    let (r, k) = if self.transposed {
                        (row + i, k)
                    } else {
                        (row, k + i)
                    };
                    out[r - rows.start][k] = widen(value(e), ty);
                }
                places.push((at, 16));
            }
        }
        Ok((out, places))
    }
}
