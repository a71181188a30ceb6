//! Independent kernels in one launch.
//!
//! The parts stand side by side along the grid's z axis, each in a scope of its own with the
//! parameters that are its own. A block of a part that is smaller than the largest ends at
//! once where the part has no block, and so do threads that a part does not have.

use super::PtxError;
use super::block::Block;
use super::emitted::{Emitted, Extent, Launch, Target};
use super::scope::{head, params, wrapped_entry};
use super::{matmul, moves, row};
use crate::{Dim, Env, Group, Kernel};
use std::fmt::Write;

pub(super) fn emit(kernel: &Group, target: Target) -> Result<Emitted, PtxError> {
    let whole = Kernel::Group(kernel.clone());
    let blocks = kernel.parts.iter().map(|part| block(part, target));
    let blocks = blocks.collect::<Result<Vec<Block>, _>>()?;
    let threads = blocks.iter().map(|b| b.threads).max().unwrap_or(1);
    let shared = blocks.iter().map(|b| b.shared).max().unwrap_or(0);
    let crowd = blocks.iter().filter_map(|b| b.crowd).min();
    let mut grid = Vec::with_capacity(blocks.len());
    let mut text = String::from("\t.reg .pred %part;\n\t.reg .b32 %which, %have, %mine;\n");
    let mut ranged = 0;
    for (i, (block, (first, part))) in blocks.into_iter().zip(whole.numbered_parts()).enumerate() {
        let [x, y, z] = &block.grid;
        if !(one(y) && one(z)) {
            return Err(PtxError::Unsupported {
                kernel: "group",
                what: format!("part {i} has a grid of [{x}, {y}, {z}]"),
            });
        }
        let x = match x {
            Extent::Rows { per, .. } => Extent::Rows {
                weight: ranged,
                per: *per,
            },
            other => other.clone(),
        };
        let tiles = format!("tiles{ranged}");
        guard(&mut text, i, &x, &tiles, block.threads)?;
        grid.push(x);
        let name = |name: &str| match (name, name.strip_prefix('a').map(str::parse::<u16>)) {
            (_, Some(Ok(arg))) => format!("a{}", first + arg),
            ("tiles", _) => tiles.clone(),
            (other, _) => other.to_string(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "\t{{\n{}\t}}\n\tret;\n$Part{i}:",
            block.asm.finish(name)
        );
        ranged += u8::from(!part.streamed().is_empty());
    }
    let params = params(whole.args().len(), usize::from(ranged));
    let mut module = head(target);
    if shared > 0 {
        module += ".extern .shared .align 1024 .b8 dynamic[];\n\n";
    }
    module += &wrapped_entry("group", &params, threads, crowd, &text);
    let parts = grid.len() as u32;
    Ok(Emitted {
        text: module,
        target,
        params,
        launches: vec![Launch {
            entry: "group".into(),
            when: vec![],
            grid: [Extent::Most(grid), Extent::Fixed(1), Extent::Fixed(parts)],
            block: threads,
            shared,
        }],
        scratch: Dim::from(0),
    })
}

fn block(part: &Kernel, target: Target) -> Result<Block, PtxError> {
    match part {
        Kernel::Row(k) => row::block(k, target),
        Kernel::Move(k) => Ok(moves::block(k, target)),
        Kernel::Matmul(k) => matmul::block(k, target),
        Kernel::Attention(_) | Kernel::Gather(_) | Kernel::Group(_) => Err(PtxError::Unsupported {
            kernel: "group",
            what: format!("a part of kind {}", part.kind()),
        }),
    }
}

/// Whether there is one block along an axis in every call.
fn one(extent: &Extent) -> bool {
    match extent {
        Extent::Fixed(n) => *n == 1,
        Extent::Of { dim, .. } => {
            dim.constant().is_some() && extent.blocks(&Env::default(), &[]) == 1
        }
        Extent::Rows { .. } | Extent::Most(_) => false,
    }
}

/// Lets only those blocks and threads go on that part `i` has; the others of its blocks end, and
/// those of other parts go to the next label.
fn guard(
    text: &mut String,
    i: usize,
    x: &Extent,
    tiles: &str,
    threads: u32,
) -> Result<(), PtxError> {
    let mut put = |line: String| {
        let _ = writeln!(text, "\t{line};");
    };
    put("mov.u32 %which, %ctaid.z".into());
    put(format!("setp.ne.u32 %part, %which, {i}"));
    put(format!("@%part bra $Part{i}"));
    match x {
        Extent::Rows { per, .. } => {
            put(format!("ld.param.u32 %have, [{tiles}+4]"));
            put(format!("ld.param.u32 %mine, [{tiles}]"));
            put("sub.u32 %have, %have, %mine".into());
            put(format!("add.u32 %have, %have, {}", per - 1));
            put(format!("div.u32 %have, %have, {per}"));
        }
        Extent::Fixed(n) => put(format!("mov.u32 %have, {n}")),
        Extent::Of { dim, .. } if dim.constant().is_some() => {
            let n = x.blocks(&Env::default(), &[]);
            put(format!("mov.u32 %have, {n}"));
        }
        Extent::Of { .. } | Extent::Most(_) => {
            return Err(PtxError::Unsupported {
                kernel: "group",
                what: format!("part {i} has a grid of {x} blocks, which no call fixes"),
            });
        }
    }
    put("mov.u32 %mine, %ctaid.x".into());
    put("setp.ge.u32 %part, %mine, %have".into());
    put("@%part ret".into());
    put("mov.u32 %mine, %tid.x".into());
    put(format!("setp.ge.u32 %part, %mine, {threads}"));
    put("@%part ret".into());
    Ok(())
}
