//! Which blocks and threads go on in a part: text ahead of it.
//!
//! `%which`, `%have`, `%mine`, `%part` and, where parts follow each other along an axis, `%block` are
//! registers of the entry.

use super::unsupported;
use crate::launch::Extent;
use crate::ptx::PtxError;
use crate::{Dim, Env};
use std::fmt::Write;

/// Whether there is one block along an axis in every call.
pub(super) fn one(extent: &Extent) -> bool {
    match extent {
        Extent::Fixed(n) => *n == 1,
        Extent::Of { dim, .. } => {
            dim.constant().is_some() && extent.blocks(&Env::default(), &[]) == 1
        }
        Extent::Rows { .. } | Extent::Slab { .. } | Extent::Most(_) | Extent::Sum(_) => false,
    }
}

/// Lets only those blocks and threads go on that part `i` has; the others of its blocks end, and
/// those of other parts go to the next label.
pub(super) fn beside(
    text: &mut String,
    i: usize,
    extent: &Extent,
    tiles: &str,
    threads: u32,
) -> Result<(), PtxError> {
    let mut put = |line: String| {
        let _ = writeln!(text, "\t{line};");
    };
    put("mov.u32 %which, %ctaid.z".into());
    put(format!("setp.ne.u32 %part, %which, {i}"));
    put(format!("@%part bra $Part{i}"));
    number(text, i, extent, tiles)?;
    let mut put = |line: &str| {
        let _ = writeln!(text, "\t{line};");
    };
    put("@%part ret");
    put("mov.u32 %mine, %tid.x");
    put(&format!("setp.ge.u32 %part, %mine, {threads}"));
    put("@%part ret");
    Ok(())
}

/// As [`beside`], for parts along an axis: `%block` is the number in the part of the block.
pub(super) fn behind(
    text: &mut String,
    i: usize,
    extent: &Extent,
    tiles: &str,
    threads: u32,
) -> Result<(), PtxError> {
    number(text, i, extent, tiles)?;
    let mut put = |line: &str| {
        let _ = writeln!(text, "\t{line};");
    };
    put("setp.ge.u32 %part, %block, %have");
    put("@%part sub.u32 %block, %block, %have");
    put(&format!("@%part bra $Part{i}"));
    put("mov.u32 %mine, %tid.x");
    put(&format!("setp.ge.u32 %part, %mine, {threads}"));
    put("@%part ret");
    Ok(())
}

/// Lets blocks that part `i` of a chain does not have go to its label.
pub(super) fn having(
    text: &mut String,
    i: usize,
    extent: &Extent,
    tiles: &str,
) -> Result<(), PtxError> {
    number(text, i, extent, tiles)?;
    let _ = writeln!(text, "\t@%part bra $Part{i};");
    Ok(())
}

/// Sets `%have` to the blocks of part `i`, and `%part` where it does not have this block.
fn number(text: &mut String, i: usize, extent: &Extent, tiles: &str) -> Result<(), PtxError> {
    let mut put = |line: String| {
        let _ = writeln!(text, "\t{line};");
    };
    match extent {
        Extent::Rows { per, .. } => {
            put(format!("ld.param.u32 %have, [{tiles}+4]"));
            put(format!("ld.param.u32 %mine, [{tiles}]"));
            put("sub.u32 %have, %have, %mine".into());
            put(format!("add.u32 %have, %have, {}", per - 1));
            put(format!("div.u32 %have, %have, {per}"));
        }
        Extent::Fixed(n) => put(format!("mov.u32 %have, {n}")),
        Extent::Of { dim, .. } if dim.constant().is_some() => {
            let n = extent.blocks(&Env::default(), &[]);
            put(format!("mov.u32 %have, {n}"));
        }
        Extent::Of { dim, per } => size(text, dim, *per),
        Extent::Slab { .. } | Extent::Most(_) | Extent::Sum(_) => {
            let what = format!("part {i} has a grid of {extent} blocks, which no call fixes");
            return Err(unsupported(what));
        }
    }
    let mut put = |line: &str| {
        let _ = writeln!(text, "\t{line};");
    };
    put("mov.u32 %mine, %ctaid.x");
    put("setp.ge.u32 %part, %mine, %have");
    Ok(())
}

/// Sets `%have` to a size of the call over `per`, rounded up. Whoever launches has found that it is a number of 31 bits.
fn size(text: &mut String, dim: &Dim, per: u32) {
    let mut put = |line: String| {
        let _ = writeln!(text, "\t{line};");
    };
    put("{\n\t.reg .b64 %ints, %sum, %term, %int".into());
    put("ld.param.u64 %ints, [env]".into());
    put("cvta.to.global.u64 %ints, %ints".into());
    put("mov.b64 %sum, 0".into());
    for (powers, coefficient) in dim.terms() {
        put(format!("mov.b64 %term, {coefficient}"));
        for (v, power) in powers.iter().enumerate().filter(|(_, power)| **power > 0) {
            put(format!("ld.global.u64 %int, [%ints+{}]", 8 * v));
            (0..*power).for_each(|_| put("mul.lo.s64 %term, %term, %int".into()));
        }
        put("add.s64 %sum, %sum, %term".into());
    }
    put("cvt.u32.u64 %have, %sum".into());
    let _ = writeln!(text, "\t}}");
    let mut put = |line: String| {
        let _ = writeln!(text, "\t{line};");
    };
    put(format!("add.u32 %have, %have, {}", per - 1));
    put(format!("div.u32 %have, %have, {per}"));
}
