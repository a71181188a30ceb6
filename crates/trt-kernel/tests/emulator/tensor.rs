//! Matrices spread over a warp: `ldmatrix`, `stmatrix`, `mma.sync`.
//!
//! Lane `l` has group `g = l / 4` and place `t = l % 4`. An 8×8 matrix of 16-bit elements gives
//! it row `g`, columns `2t` and `2t + 1` in one register. A product `16×8×k` takes A as such
//! matrices (rows 0–7, 8–15, then the next 8 columns), B by columns, and has C in four floats:
//! rows `g` and `g + 8`, columns `2t` and `2t + 1`.

use super::error::Why;
use super::float::{get, put};
use super::half::widen;
use super::inst::*;
use super::memory::{Memory, value};
use super::names::Names;
use super::text::Operand;
use super::warp::{Lanes, Stop, Warp};

/// Decodes `ldmatrix`, `stmatrix` and `mma`.
pub fn decode(names: &Names, parts: &[&str], o: &[Operand]) -> Result<Option<Op>, Why> {
    let sources = |o: &Operand, n: usize, ty: Ty| -> Result<Vec<Src>, Why> {
        Ok(names
            .registers(o, n, ty)?
            .into_iter()
            .map(Src::Reg)
            .collect())
    };
    let (count, rest) = match parts {
        [
            kind @ ("ldmatrix" | "stmatrix"),
            "sync",
            "aligned",
            "m8n8",
            count,
            rest @ ..,
        ] => {
            let count = match *count {
                "x1" => 1,
                "x2" => 2,
                "x4" => 4,
                _ => return Ok(None),
            };
            (count, (*kind, rest))
        }
        [
            "mma",
            "sync",
            "aligned",
            shape,
            "row",
            "col",
            "f32",
            ty,
            ty2,
            "f32",
        ] if ty == ty2 => {
            let (k, ty) = match (*shape, Ty::parse(ty)) {
                ("m16n8k16", Some(ty @ (Ty::F16 | Ty::Bf16))) => (16, ty),
                ("m16n8k8", Some(ty @ (Ty::F16 | Ty::Bf16))) => (8, ty),
                _ => return Ok(None),
            };
            let [d, a, b, c] = o else { return Ok(None) };
            return Ok(Some(Op::Mma {
                product: Product { k, ty },
                d: names.registers(d, 4, Ty::F32)?,
                a: sources(a, k / 4, Ty::U(32))?,
                b: sources(b, k / 8, Ty::U(32))?,
                c: sources(c, 4, Ty::F32)?,
            }));
        }
        _ => return Ok(None),
    };
    let trans = match rest.1 {
        ["shared" | "shared::cta", "b16"] => false,
        ["trans", "shared" | "shared::cta", "b16"] => true,
        _ => return Ok(None),
    };
    Ok(match (rest.0, o) {
        ("ldmatrix", [d, at]) => {
            let d = names.registers(d, count, Ty::U(32))?;
            Some(Op::LoadMatrix {
                trans,
                d,
                at: names.address(at, Space::Shared)?,
            })
        }
        ("stmatrix", [at, src]) => {
            let src = sources(src, count, Ty::U(32))?;
            Some(Op::StoreMatrix {
                trans,
                src,
                at: names.address(at, Space::Shared)?,
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
    op: &Op,
    mask: u32,
) -> Result<(), Stop> {
    match op {
        Op::LoadMatrix { trans, d, at } => {
            warp.whole(mask, "ldmatrix")?;
            let rows = u32::MAX >> (32 - 8 * d.len());
            let base = warp.read(program, at.base, rows)?;
            for (i, d) in d.iter().enumerate() {
                let mut matrix = [[0u64; 8]; 8];
                for (r, row) in matrix.iter_mut().enumerate() {
                    let lane = i * 8 + r;
                    let who = warp.time.who(warp.index, lane as u32);
                    let at = base[lane].wrapping_add_signed(at.offset);
                    let bytes = shared.read(&who, at, 16).map_err(Stop::at(lane as u32))?;
                    (0..8).for_each(|c| row[c] = value(&bytes[2 * c..2 * c + 2]));
                }
                warp.registers.set(*d, mask, &fragment(&matrix, *trans));
            }
        }
        Op::StoreMatrix { trans, src, at } => {
            warp.whole(mask, "stmatrix")?;
            let rows = u32::MAX >> (32 - 8 * src.len());
            let base = warp.read(program, at.base, rows)?;
            for (i, s) in src.iter().enumerate() {
                let values = warp.read(program, *s, mask)?;
                for r in 0..8 {
                    let lane = i * 8 + r;
                    let mut row = [0u8; 16];
                    for c in 0..8 {
                        let (r, c) = if *trans { (c, r) } else { (r, c) };
                        let x = values[r * 4 + c / 2] >> (16 * (c % 2)) & 0xffff;
                        let at = if *trans { r } else { c };
                        row[2 * at..2 * at + 2].copy_from_slice(&(x as u16).to_le_bytes());
                    }
                    let who = warp.time.who(warp.index, lane as u32);
                    let at = base[lane].wrapping_add_signed(at.offset);
                    shared
                        .write(&who, at, &row)
                        .map_err(Stop::at(lane as u32))?;
                }
            }
        }
        Op::Mma {
            product,
            d,
            a,
            b,
            c,
        } => {
            warp.whole(mask, "mma")?;
            mma(warp, program, *product, d, [a, b, c])?;
        }
        _ => {}
    }
    Ok(())
}

/// What each lane holds of an 8×8 matrix.
fn fragment(matrix: &[[u64; 8]; 8], trans: bool) -> Lanes {
    std::array::from_fn(|lane| {
        let (g, t) = (lane / 4, lane % 4);
        let at = |c: usize| if trans { matrix[c][g] } else { matrix[g][c] };
        at(2 * t) | at(2 * t + 1) << 16
    })
}

/// The two elements in a register.
pub fn halves(bits: u64, ty: Ty) -> [f32; 2] {
    [widen(bits & 0xffff, ty), widen(bits >> 16, ty)]
}

/// The left factor, `16 × k`, from the registers of a warp.
pub fn left(values: &[Lanes], ty: Ty) -> [[f32; 16]; 16] {
    let mut out = [[0.0; 16]; 16];
    for (i, lanes) in values.iter().enumerate() {
        for (lane, bits) in lanes.iter().enumerate() {
            let (row, col) = (lane / 4 + 8 * (i % 2), lane % 4 * 2 + 8 * (i / 2));
            out[row][col..col + 2].copy_from_slice(&halves(*bits, ty));
        }
    }
    out
}

fn mma(
    warp: &mut Warp,
    program: &Program,
    product: Product,
    d: &[Slot],
    [a, b, c]: [&[Src]; 3],
) -> Result<(), Stop> {
    let read = |s: &[Src]| -> Result<Vec<Lanes>, Stop> {
        s.iter().map(|s| warp.read(program, *s, u32::MAX)).collect()
    };
    let a = left(&read(a)?, product.ty);
    let mut columns = [[0f32; 16]; 8];
    for (i, lanes) in read(b)?.iter().enumerate() {
        for (lane, bits) in lanes.iter().enumerate() {
            let k = lane % 4 * 2 + 8 * i;
            columns[lane / 4][k..k + 2].copy_from_slice(&halves(*bits, product.ty));
        }
    }
    for (i, c) in read(c)?.iter().enumerate() {
        let out = std::array::from_fn(|lane| {
            let (row, col) = (lane / 4 + 8 * (i / 2), lane % 4 * 2 + i % 2);
            put(dot(
                &a[row][..product.k],
                &columns[col][..product.k],
                get(c[lane]),
            ))
        });
        warp.registers.set(d[i], u32::MAX, &out);
    }
    Ok(())
}

/// Products are exact and so, nearly, is their sum: rounded once.
pub fn dot(a: &[f32], b: &[f32], c: f32) -> f32 {
    let sum: f64 = a
        .iter()
        .zip(b)
        .map(|(a, b)| f64::from(*a) * f64::from(*b))
        .sum();
    (sum + f64::from(c)) as f32
}
