//! Emitted kernels, run without a GPU: every kind against the reference, for every target.

#[path = "../emulator/mod.rs"]
mod emulator;
#[path = "../reference/mod.rs"]
mod reference;

mod attention;
mod before;
mod blocks;
mod chain;
mod corpus;
mod cut;
mod group;
mod left;
mod matmul;
mod matrices;
mod mistakes;
mod moves;
mod packed;
mod picks;
mod pull;
mod routed;
mod row;
mod sized;
mod special;
mod subset;
mod sums;
mod tma;
mod together;
mod types;
mod unpacked;
mod wide;

use emulator::{Call, Done, Tiles};
use reference::{Buffer, units};
use std::ops::Range;
use trt_kernel::ptx::{self, Emitted, Target};
use trt_kernel::*;

/// Sizes as `Dim`s.
fn dims(sizes: &[usize]) -> Vec<Dim> {
    sizes.iter().map(|s| Dim::from(*s)).collect()
}

/// The kernel for each target whose instructions differ.
fn emitted(kernel: &Kernel) -> Vec<Emitted> {
    let mut all: Vec<Emitted> = Vec::new();
    for target in Target::ALL {
        let e = ptx::emit(kernel, target).unwrap_or_else(|e| panic!("{target}: {e}"));
        let same = |x: &Emitted| body(x) == body(&e) && x.launches == e.launches;
        if !all.iter().any(same) {
            all.push(e);
        }
    }
    all
}

/// The text without the lines that name the target.
fn body(e: &Emitted) -> String {
    let names_it = |l: &&str| !l.starts_with(".target") && !l.starts_with(".version");
    e.text
        .lines()
        .filter(names_it)
        .collect::<Vec<_>>()
        .join("\n")
}

/// A ranged weight of a kernel.
struct RangedWeight {
    arg: Arg,
    /// How many there are.
    rows: usize,
    lie: Lie,
}

/// Where rows lie.
enum Lie {
    /// So many bytes apart.
    Apart(usize),
    /// Packed, of so many values each; where units are is in an argument.
    Packed(usize, Arg),
}

impl RangedWeight {
    /// The bytes of some rows.
    fn bytes(&self, args: &[Buffer], rows: Range<usize>) -> Vec<u8> {
        let range = match self.lie {
            Lie::Apart(bytes) => rows.start * bytes..rows.end * bytes,
            Lie::Packed(k, code) => units::rows_of(&args[code.0 as usize].bytes, k, rows),
        };
        args[self.arg.0 as usize].bytes[range].to_vec()
    }
}

/// The ranged weights.
fn weights(kernel: &Kernel, env: &Env) -> Vec<RangedWeight> {
    let each = kernel.numbered_parts().filter_map(|(first, part)| {
        let (Kernel::Matmul(k) | Kernel::Routed(Routed { product: k, .. })) = part else {
            return None;
        };
        let depth = k.k.size(env);
        let lie = match k.code() {
            Some(code) => Lie::Packed(depth, Arg(first + code.0)),
            None => Lie::Apart(k.right().row_bytes(depth)?),
        };
        k.ranged.then_some(RangedWeight {
            arg: Arg(first + k.b.arg.0),
            rows: k.n.size(env),
            lie,
        })
    });
    each.collect()
}

/// Launches a kernel, its ranged weights on some rows that lie in tiles of so many; all rows in
/// one tile where none are given.
fn launch(
    kernel: &Kernel,
    emitted: &Emitted,
    env: &Env,
    rows: &[(Range<usize>, usize)],
    seed: u64,
    args: &mut [Buffer],
) -> Done {
    let each = weights(kernel, env).into_iter().enumerate();
    let tiles = each.map(|(i, weight)| {
        let n = weight.rows;
        let (rows, step) = rows.get(i).cloned().unwrap_or((0..n, n.max(1)));
        let tile = |start: usize| weight.bytes(args, start..(start + step).min(rows.end));
        let bytes = rows.clone().step_by(step).map(tile).collect();
        Tiles {
            weight: weight.arg,
            rows,
            step,
            bytes,
        }
    });
    let (tiles, written) = (tiles.collect(), kernel.written());
    let call = Call {
        env: *env,
        written,
        tiles,
        seed,
        ..Call::default()
    };
    emulator::run(emitted, &call, args)
        .unwrap_or_else(|e| panic!("{}: {e}\n{kernel}", emitted.target))
}

/// Fills the arguments that a kernel writes and does not read with what no kernel computes.
fn poison(kernel: &Kernel, args: &mut [Buffer]) {
    let accesses = kernel.accesses();
    let read = |arg: Arg| accesses.iter().any(|a| a.arg == arg && !a.writes);
    for arg in kernel.written().into_iter().filter(|arg| !read(*arg)) {
        args[arg.0 as usize].bytes.fill(0xff);
    }
}

/// The largest distance to the reference, over all targets and two orders of turns.
fn distance(kernel: &Kernel, env: &Env, args: &[Buffer]) -> f64 {
    distance_of(kernel, &emitted(kernel), env, args)
}

/// The largest distance of some emitted forms of a kernel.
fn distance_of(kernel: &Kernel, emitted: &[Emitted], env: &Env, args: &[Buffer]) -> f64 {
    let mut given = args.to_vec();
    poison(kernel, &mut given);
    let mut exact = given.clone();
    reference::run(kernel, env, &mut exact);
    let mut worst = 0f64;
    for (i, e) in emitted.iter().enumerate() {
        let mut ours = given.clone();
        launch(kernel, e, env, &[], i as u64, &mut ours);
        for (a, b) in ours.iter().zip(&exact) {
            let d = a.distance(b);
            worst = if d.is_nan() { d } else { worst.max(d) };
        }
    }
    worst
}
