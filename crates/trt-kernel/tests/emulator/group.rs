//! Products of warp groups: `wgmma`, run late.
//!
//! Four warps multiply 64 × 16 by 16 × n elements that they read from shared memory through
//! descriptors; each warp has the sums of its 16 rows. The products of a group run when it is
//! waited for and not before, so that what is overwritten or read too early is found. That the
//! generic writes before them are fenced is not modelled.

use super::error::Why;
use super::float::{get, put};
use super::half::widen;
use super::inst::*;
use super::memory::{Memory, value};
use super::names::Names;
use super::tensor::dot;
use super::text::Operand;
use super::warp::{Stop, Warp};

/// A product that was started.
#[derive(Clone, Debug)]
pub struct Started {
    ty: Ty,
    d: Vec<Slot>,
    a: u64,
    b: u64,
    keep: bool,
}

/// Products that were not waited for, oldest group first; the last group is open.
#[derive(Clone, Debug)]
pub struct Products(Vec<Vec<Started>>);

impl Default for Products {
    fn default() -> Products {
        Products(vec![Vec::new()])
    }
}

/// Decodes `wgmma`.
pub fn decode(names: &Names, parts: &[&str], o: &[Operand]) -> Result<Option<Op>, Why> {
    Ok(match (parts, o) {
        (["wgmma", "fence", "sync", "aligned"], []) => Some(Op::Nop),
        (["wgmma", "commit_group", "sync", "aligned"], []) => Some(Op::GroupCommit),
        (["wgmma", "wait_group", "sync", "aligned"], [Operand::Imm(n)]) => {
            Some(Op::GroupWait { left: *n as usize })
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
            [
                d,
                a,
                b,
                keep,
                Operand::Imm(1),
                Operand::Imm(1),
                Operand::Imm(0),
                Operand::Imm(0),
            ],
        ) if ty == ty2 => {
            let n = shape
                .strip_prefix("m64n")
                .and_then(|s| s.strip_suffix("k16"));
            let n: Option<usize> = n.and_then(|n| n.parse().ok());
            match (n, Ty::parse(ty)) {
                (Some(n), Some(ty @ (Ty::F16 | Ty::Bf16))) if n % 8 == 0 && n <= 256 => {
                    Some(Op::GroupMma {
                        ty,
                        d: names.registers(d, n / 2, Ty::F32)?,
                        a: names.source(a, Ty::U(64))?,
                        b: names.source(b, Ty::U(64))?,
                        keep: names.source(keep, Ty::Pred)?,
                    })
                }
                _ => None,
            }
        }
        _ => None,
    })
}

/// Runs one of them.
pub fn run(
    warp: &mut Warp,
    program: &Program,
    shared: &mut Memory,
    op: &Op,
    mask: u32,
) -> Result<(), Stop> {
    warp.whole(mask, "wgmma")?;
    match op {
        Op::GroupMma { ty, d, a, b, keep } => {
            let started = Started {
                ty: *ty,
                d: d.clone(),
                a: warp.read_uniform(program, *a, mask)?,
                b: warp.read_uniform(program, *b, mask)?,
                keep: warp.read_uniform(program, *keep, mask)? == 1,
            };
            if let Some(open) = warp.products.0.last_mut() {
                open.push(started);
            }
        }
        Op::GroupCommit => warp.products.0.push(Vec::new()),
        Op::GroupWait { left } => {
            while warp.products.0.len() > left + 1 {
                for product in warp.products.0.remove(0) {
                    multiply(warp, program, shared, &product)?;
                }
            }
        }
        _ => {}
    }
    Ok(())
}

fn multiply(
    warp: &mut Warp,
    program: &Program,
    shared: &mut Memory,
    product: &Started,
) -> Result<(), Stop> {
    let first = 16 * (warp.index % 4);
    let a: Vec<[f32; 16]> = (first..first + 16)
        .map(|row| read(warp, shared, product.a, row, product.ty))
        .collect::<Result<_, Stop>>()?;
    let b: Vec<[f32; 16]> = (0..product.d.len() * 2)
        .map(|row| read(warp, shared, product.b, row, product.ty))
        .collect::<Result<_, Stop>>()?;
    for (i, d) in product.d.iter().enumerate() {
        let sums = match product.keep {
            true => *warp.registers.get(program, *d, u32::MAX)?,
            false => [0; 32],
        };
        let out = std::array::from_fn(|lane| {
            let row = lane / 4 + 8 * (i / 2 % 2);
            let col = 8 * (i / 4) + lane % 4 * 2 + i % 2;
            put(dot(&a[row], &b[col], get(sums[lane])))
        });
        warp.registers.set(*d, u32::MAX, &out);
    }
    Ok(())
}

/// A row of 16 elements of a matrix whose descriptor says: a swizzle of 128 bytes, and how far
/// groups of 8 rows are apart.
fn read(
    warp: &Warp,
    shared: &mut Memory,
    descriptor: u64,
    row: usize,
    ty: Ty,
) -> Result<[f32; 16], Stop> {
    let field = |at: u32| (descriptor >> at & 0x3fff) << 4;
    let (start, group) = (field(0), field(32));
    if descriptor >> 62 != 1 || descriptor >> 49 & 7 != 0 {
        let what = format!("a matrix descriptor {descriptor:#x}");
        return Err(Why::Text(what).into());
    }
    let at = start + group * (row as u64 / 8) + 128 * (row as u64 % 8);
    let who = warp.time.who(warp.index, 0);
    let mut out = [0.0; 16];
    for (half, out) in out.chunks_mut(8).enumerate() {
        let at = at + 16 * half as u64;
        let bytes = shared.read(&who, at ^ (at >> 7 & 7) << 4, 16)?;
        for (x, bytes) in out.iter_mut().zip(bytes.chunks_exact(2)) {
            *x = widen(value(bytes), ty);
        }
    }
    Ok(out)
}
