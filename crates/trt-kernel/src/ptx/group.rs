//! Several kernels in one launch, each in a scope of its own with the parameters that are its own.
//!
//! Independent parts stand side by side along the grid's z axis. A block of a part that is smaller
//! than the largest ends at once where the part has no block, and so do threads that a part does
//! not have. Products over blocks take a multiprocessor for each of theirs, so parts with such follow each
//! other along x, and no block is launched to end at once.
//!
//! Parts of a chain follow each other in every block. They are cut alike, so the thread that
//! stores a point in one epilogue is the one that loads it in the next: its own program order is
//! all that this takes. Before the first part, the second's first pieces are sent for; and the
//! left operand, where it is computed, is left in shared memory by whichever part comes first.

use super::PtxError;
use super::block::Block;
use super::emitted::{Emitted, Target};
use super::matmul::{self, STAGED};
use super::scope::{head, params, wrapped_entry};
use super::{moves, row};
use crate::launch::{EntryLaunch, Extent};
use crate::{Dim, Env, Group, Kernel, Order};
use std::fmt::Write;

pub(super) fn emit(kernel: &Group, target: Target) -> Result<Emitted, PtxError> {
    let whole = Kernel::Group(kernel.clone());
    let order = kernel.order;
    let flat = order == Order::Side && kernel.parts.iter().any(over_blocks);
    let among = kernel.parts.iter().map(weights).sum();
    let blocks = kernel.parts.iter();
    let blocks = blocks.map(|part| block(part, order, (target, among)));
    let blocks = blocks.collect::<Result<Vec<Block>, _>>()?;
    if order == Order::Chain {
        alike(kernel, &blocks)?;
    }
    let threads = blocks.iter().map(|b| b.threads).max().unwrap_or(1);
    let shared = blocks.iter().map(|b| b.shared).max().unwrap_or(0);
    let crowd = blocks.iter().filter_map(|b| b.crowd).min();
    let products = blocks.iter().zip(&kernel.parts);
    let products = products.filter(|(_, part)| matches!(part, Kernel::Matmul(_)));
    let sums = products.map(|(block, _)| block.order).collect();
    let mut grid = Vec::with_capacity(blocks.len());
    let mut text = String::from("\t.reg .pred %part;\n\t.reg .b32 %which, %have, %mine;\n");
    if order == Order::Chain {
        start_chain(&mut text, &whole, &blocks, target)?;
    }
    if flat {
        text += "\t.reg .b32 %block;\n\tmov.u32 %block, %ctaid.x;\n";
    }
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
        let body = block.asm.finish(|name| renamed(name, first, &tiles));
        // Writing to a string cannot fail.
        let _ = match order {
            Order::Side if flat => {
                flat_guard(&mut text, i, &x, &tiles, block.threads)?;
                let body = body.replace("%ctaid.x", "%block");
                writeln!(text, "\t{{\n{body}\t}}\n\tret;\n$Part{i}:")
            }
            Order::Side => {
                guard(&mut text, i, &x, &tiles, block.threads)?;
                writeln!(text, "\t{{\n{body}\t}}\n\tret;\n$Part{i}:")
            }
            Order::Chain => {
                having(&mut text, i, &x, &tiles)?;
                let staged = format!("setp.eq.u32 {STAGED}, %mine, %mine");
                writeln!(text, "\t{{\n{body}\t}}\n\t{staged};\n$Part{i}:")
            }
        };
        grid.push(x);
        ranged += u8::from(!part.streamed().is_empty());
    }
    let params = params(whole.args().len(), usize::from(ranged));
    let mut module = head(target);
    if shared > 0 {
        module += ".extern .shared .align 1024 .b8 dynamic[];\n\n";
    }
    module += &wrapped_entry("group", &params, threads, crowd, &text);
    let parts = match order {
        Order::Side if !flat => grid.len() as u32,
        Order::Side | Order::Chain => 1,
    };
    let grid = match flat {
        true => Extent::Sum(grid),
        false => Extent::Most(grid),
    };
    Ok(Emitted {
        text: module,
        target,
        params,
        launches: vec![EntryLaunch {
            entry: "group".into(),
            when: vec![],
            grid: [grid, Extent::Fixed(1), Extent::Fixed(parts)],
            block: threads,
            shared,
            mapped: false,
            sums,
        }],
        maps: Vec::new(),
        scratch: Dim::from(0),
        limits: Vec::new(),
    })
}

/// The name of a parameter of a part whose arguments begin with number `first`.
fn renamed(name: &str, first: u16, tiles: &str) -> String {
    match (name, name.strip_prefix('a').map(str::parse::<u16>)) {
        (_, Some(Ok(arg))) => format!("a{}", first + arg),
        ("tiles", _) => tiles.to_string(),
        (other, _) => other.to_string(),
    }
}

/// Whether each point is one thread's in all parts of a chain.
fn alike(kernel: &Group, blocks: &[Block]) -> Result<(), PtxError> {
    let cut = |b: &Block| (b.threads, b.grid.clone());
    let right = |part: &Kernel| match part {
        Kernel::Matmul(k) => Some(k.right()),
        _ => None,
    };
    let same = blocks.windows(2).all(|pair| cut(&pair[0]) == cut(&pair[1]));
    let parts = kernel.parts.windows(2);
    match same && parts.into_iter().all(|p| right(&p[0]) == right(&p[1])) {
        true => Ok(()),
        false => Err(PtxError::Unsupported {
            kernel: "group",
            what: "a chain of products that are cut in different ways".into(),
        }),
    }
}

/// What comes before the first part of a chain.
fn start_chain(
    text: &mut String,
    whole: &Kernel,
    blocks: &[Block],
    target: Target,
) -> Result<(), PtxError> {
    let _ = writeln!(
        text,
        "\t.reg .pred {STAGED};\n\tmov.u32 %mine, %ctaid.x;\n\tsetp.ne.u32 {STAGED}, %mine, %mine;"
    );
    for (i, (first, part)) in whole.numbered_parts().enumerate().skip(1) {
        let (Kernel::Matmul(product), Some(block)) = (part, blocks.get(i)) else {
            continue;
        };
        let Some(asm) = matmul::prefetch(product, target) else {
            continue;
        };
        let tiles = format!("tiles{i}");
        having(text, blocks.len() + i, &block.grid[0], &tiles)?;
        let body = asm.finish(|name| renamed(name, first, &tiles));
        let _ = writeln!(text, "\t{{\n{body}\t}}\n$Part{}:", blocks.len() + i);
    }
    Ok(())
}

/// Whether it is a product over blocks.
fn over_blocks(part: &Kernel) -> bool {
    matches!(part, Kernel::Matmul(k) if k.right().as_plain().is_none())
}

/// Weights of a product.
fn weights(part: &Kernel) -> usize {
    match part {
        Kernel::Matmul(k) => {
            let size = |dim: &Dim| dim.constant_size().unwrap_or(0);
            size(&k.n).saturating_mul(size(&k.k))
        }
        _ => 0,
    }
}

/// A part, among so many weights of the launch.
fn block(part: &Kernel, order: Order, (target, among): (Target, usize)) -> Result<Block, PtxError> {
    match part {
        Kernel::Matmul(k) if order == Order::Chain => matmul::link(k, target),
        Kernel::Row(k) => row::block(k, target),
        Kernel::Move(k) => Ok(moves::block(k, target)),
        Kernel::Matmul(k) => matmul::part(k, target, among),
        Kernel::Attention(_) | Kernel::Gather(_) | Kernel::Group(_) | Kernel::Routed(_) => {
            Err(PtxError::Unsupported {
                kernel: "group",
                what: format!("a part of kind {}", part.kind()),
            })
        }
    }
}

/// Whether there is one block along an axis in every call.
fn one(extent: &Extent) -> bool {
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
    number(text, i, x, tiles)?;
    let mut put = |line: &str| {
        let _ = writeln!(text, "\t{line};");
    };
    put("@%part ret");
    put("mov.u32 %mine, %tid.x");
    put(&format!("setp.ge.u32 %part, %mine, {threads}"));
    put("@%part ret");
    Ok(())
}

/// As [`guard`], for parts along x: `%block` is the number in the part of the block.
fn flat_guard(
    text: &mut String,
    i: usize,
    x: &Extent,
    tiles: &str,
    threads: u32,
) -> Result<(), PtxError> {
    number(text, i, x, tiles)?;
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
fn having(text: &mut String, i: usize, x: &Extent, tiles: &str) -> Result<(), PtxError> {
    number(text, i, x, tiles)?;
    let _ = writeln!(text, "\t@%part bra $Part{i};");
    Ok(())
}

/// Sets `%part` where part `i` does not have this block.
fn number(text: &mut String, i: usize, x: &Extent, tiles: &str) -> Result<(), PtxError> {
    let mut put = |line: String| {
        let _ = writeln!(text, "\t{line};");
    };
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
        Extent::Of { .. } | Extent::Slab { .. } | Extent::Most(_) | Extent::Sum(_) => {
            return Err(PtxError::Unsupported {
                kernel: "group",
                what: format!("part {i} has a grid of {x} blocks, which no call fixes"),
            });
        }
    }
    put("mov.u32 %mine, %ctaid.x".into());
    put("setp.ge.u32 %part, %mine, %have".into());
    Ok(())
}
