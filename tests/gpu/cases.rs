//! Which kernels of the corpus run, and in which calls.
//!
//! Tools that watch every access slow a kernel by tens of times, so there are two sizes of a run:
//! `TRT_GPU_SMALL=1` cuts weights and tables to a few hundred rows and leaves calls out that reach
//! nothing new. Invariant, held by tests: in both sizes, on every target, every entry of every
//! kernel of the corpus is launched, and cutting does not change which entries a kernel has.

use crate::numbers::fill_encoded;
use crate::{corpus, extent, units};
use candle_trt::kernel::launch::EntryLaunch;
use candle_trt::kernel::ptx::{self, Target};
use candle_trt::kernel::{
    Body, Dim, Env, Gather, Group, Inst, Kernel, Left, Matmul, Order, Routed, View,
};
use std::collections::BTreeSet;

/// Past and new positions, batch sizes: small odd ones, and those of a decoding step.
const ENVS: [[i64; 4]; 3] = [[5, 3, 2, 2], [128, 1, 1, 1], [70, 67, 3, 1]];

/// New positions for entries that none of these reach: products choose theirs by rows.
const MORE: [i64; 10] = [2, 8, 16, 130, 260, 520, 1100, 2200, 4400, 8800];

/// Kernels with larger arguments are cut in every run.
const MOST_BYTES: usize = 160 << 20;

/// What may be left of the rows of a weight that is cut: several tiles, and several blocks.
const ROWS: [i64; 3] = [320, 1024, 4096];

/// What is left of the inner size of a product that is cut: more where its blocks share it.
const INNER: [i64; 2] = [576, 1536];

/// What is left of the entries of a table that is cut.
const ENTRIES: usize = 1000;

/// A kernel in one call.
pub struct Case {
    pub name: String,
    pub kernel: Kernel,
    pub env: Env,
    /// The entries that the call launches.
    pub entries: Vec<String>,
}

/// How much a run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    Full,
    Small,
}

impl Size {
    /// What the environment asks for.
    pub fn wanted() -> Size {
        match std::env::var_os("TRT_GPU_SMALL").is_some_and(|v| v == "1") {
            true => Size::Small,
            false => Size::Full,
        }
    }

    /// One of two things.
    pub fn pick<T>(self, full: T, small: T) -> T {
        match self {
            Size::Full => full,
            Size::Small => small,
        }
    }
}

/// The calls of all kernels of a kind.
pub fn cases(kind: &str, target: Target, size: Size) -> Vec<Case> {
    let all = corpus::kernels().into_iter();
    all.filter(|(_, kernel)| kernel.kind() == kind)
        .flat_map(|(name, kernel)| of(&name, &kernel, target, size))
        .collect()
}

/// The usual calls, and others of the cut kernel that reach what those do not.
fn of(name: &str, kernel: &Kernel, target: Target, size: Size) -> Vec<Case> {
    let cut = cut(kernel, target);
    let most = ENVS.iter().map(|values| bytes(kernel, &Env::new(values)));
    let usual = match size == Size::Small || most.max() > Some(MOST_BYTES) {
        true => &cut,
        false => kernel,
    };
    let wanted = all_entries(kernel, target);
    let (mut reached, mut seen, mut all) = (BTreeSet::<String>::new(), Vec::new(), Vec::new());
    let usual = ENVS.iter().map(|values| (usual, *values, size));
    let more = MORE.map(|seq| (&cut, [3, seq, 1, 1], Size::Small));
    for (kernel, values, size) in usual.chain(more) {
        let env = Env::new(&values);
        let entries = entries(kernel, target, &env);
        let new = entries
            .iter()
            .any(|e| wanted.contains(e) && !reached.contains(e))
            || all.is_empty();
        let lengths = extent::lengths(kernel, &env);
        if new || size == Size::Full && !seen.contains(&lengths) {
            reached.extend(entries.iter().cloned());
            seen.push(lengths);
            all.push(Case {
                name: format!("{name} in {values:?}"),
                kernel: kernel.clone(),
                env,
                entries,
            });
        }
    }
    all
}

/// All entries of a kernel; none if the target has no text for it.
fn all_entries(kernel: &Kernel, target: Target) -> BTreeSet<String> {
    let launches = ptx::emit(kernel, target).map(|e| e.launches);
    let launches = launches.unwrap_or_default().into_iter();
    launches.map(|l| l.entry).collect()
}

/// The entries that a call launches; none if the target has none for the kernel.
fn entries(kernel: &Kernel, target: Target, env: &Env) -> Vec<String> {
    let rows: Vec<usize> = kernel
        .parts()
        .iter()
        .filter_map(|part| match part {
            Kernel::Matmul(m) | Kernel::Routed(Routed { product: m, .. }) if m.ranged => {
                Some(m.n.size(env))
            }
            _ => None,
        })
        .collect();
    let holds = |launch: &EntryLaunch| {
        let mut when = launch.when.iter();
        when.all(|w| (w.min..=w.max).contains(&(w.dim.size(env) as u32)))
            && launch.grid.iter().all(|e| e.blocks(env, &rows) > 0)
    };
    let launches = ptx::emit(kernel, target).map(|e| e.launches);
    let launches = launches.unwrap_or_default().into_iter();
    launches.filter(holds).map(|l| l.entry).collect()
}

/// Bytes of a kernel's arguments in a call.
fn bytes(kernel: &Kernel, env: &Env) -> usize {
    let lengths = extent::lengths(kernel, env);
    let each = lengths.iter().zip(kernel.args());
    each.map(|(n, e)| n.div_ceil(e.values()) * e.bytes()).sum()
}

/// The same kernel with fewer rows of its weight or table, and at least the same entries.
fn cut(kernel: &Kernel, target: Target) -> Kernel {
    // The smallest that has at least the same entries.
    let smallest = |of: &dyn Fn(i64, i64) -> Kernel| {
        let all = all_entries(kernel, target);
        let sizes = INNER.iter();
        let sizes = sizes.flat_map(|k| ROWS.iter().map(move |n| (*n, *k)));
        let each = sizes.map(|(n, k)| of(n, k));
        let mut same = each.filter(|k| all_entries(k, target).is_superset(&all));
        same.next().unwrap_or_else(|| kernel.clone())
    };
    match kernel {
        Kernel::Matmul(m) if m.ranged => smallest(&|n, k| Kernel::Matmul(cut_product(m, n, k))),
        Kernel::Gather(g) => Kernel::Gather(Gather {
            entries: g.entries.min(ENTRIES),
            ..g.clone()
        }),
        Kernel::Group(g) => {
            let part = |part: &Kernel, n, k| match part {
                Kernel::Matmul(m) if m.ranged => Kernel::Matmul(cut_product(m, n, k)),
                other => other.clone(),
            };
            smallest(&|n, k| {
                Kernel::Group(Group {
                    parts: g.parts.iter().map(|p| part(p, n, k)).collect(),
                    order: g.order,
                })
            })
        }
        Kernel::Row(_)
        | Kernel::Matmul(_)
        | Kernel::Attention(_)
        | Kernel::Routed(_)
        | Kernel::Move(_) => kernel.clone(),
    }
}

fn cut_product(product: &Matmul, rows: i64, inner: i64) -> Matmul {
    let mut m = product.clone();
    let least = |d: &Dim, most: i64| match d.constant() {
        Some(n) if n > most => Dim::from(most),
        _ => d.clone(),
    };
    m.n = least(&m.n, rows);
    let block = m.right().values() as i64;
    m.k = least(&m.k, inner / block * block);
    // Rows lie close on both sides and in the result: strides from one to the next are sizes.
    restride(&mut m.b.view, &product.k, &m.k);
    match &mut m.a {
        Left::Stored(a) => restride(&mut a.view, &product.k, &m.k),
        Left::Computed { body, .. } => restride_all(body, &product.k, &m.k),
    }
    restride_all(&mut m.epilogue, &product.n, &m.n);
    m
}

fn restride_all(body: &mut Body, from: &Dim, to: &Dim) {
    for inst in &mut body.insts {
        if let Inst::Load(_, view) | Inst::Store(_, view, _) = inst {
            restride(view, from, to);
        }
    }
}

fn restride(view: &mut View, from: &Dim, to: &Dim) {
    let strides = view.strides.iter_mut().filter(|s| *s == from);
    strides.for_each(|s| *s = to.clone());
}

/// Random arguments of a kernel in a call.
pub fn arguments(case: &Case, seed: u64) -> Vec<Vec<u8>> {
    let below = match &case.kernel {
        Kernel::Gather(k) => k.entries,
        // Most rows have an expert.
        Kernel::Routed(k) => k.first + k.product.batch.size(&case.env) + 1,
        Kernel::Row(k) => {
            let sizes = k.body.insts.iter().filter_map(|inst| match inst {
                Inst::Within(_, size) => Some(size.size(&case.env)),
                _ => None,
            });
            sizes.min().unwrap_or(100)
        }
        _ => 100,
    };
    let lengths = extent::lengths(&case.kernel, &case.env);
    let filled = lengths.iter().zip(case.kernel.args()).enumerate();
    let mut args: Vec<Vec<u8>> = filled
        .map(|(i, (n, d))| fill_encoded(d, *n, seed + i as u64, below))
        .collect();
    for (one, other) in shared_lefts(&case.kernel) {
        args[other] = args[one].clone();
    }
    units::pack(&case.kernel, &mut args);
    args
}

/// Arguments of a chain that are to be equal, since its parts have one left operand.
fn shared_lefts(kernel: &Kernel) -> Vec<(usize, usize)> {
    let Kernel::Group(group) = kernel else {
        return Vec::new();
    };
    let lefts = kernel.numbered_parts().map(|(first, part)| match part {
        Kernel::Matmul(m) if group.order == Order::Chain => {
            let own = m.a.args().into_iter();
            own.map(|a| (first + a.0) as usize).collect()
        }
        _ => Vec::new(),
    });
    let lefts: Vec<Vec<usize>> = lefts.collect();
    let later = lefts.iter().skip(1);
    later
        .flat_map(|l| lefts[0].iter().copied().zip(l.iter().copied()))
        .collect()
}

#[test]
fn the_calls_reach_every_entry_of_every_kernel_on_every_target() {
    let mut missing = Vec::new();
    for target in Target::ALL {
        for size in [Size::Full, Size::Small] {
            for (name, kernel) in corpus::kernels() {
                let all = all_entries(&kernel, target);
                let calls = of(&name, &kernel, target, size).into_iter();
                let reached: BTreeSet<String> = calls.flat_map(|c| c.entries).collect();
                if !reached.is_superset(&all) {
                    missing.push(format!(
                        "{name}, {target}, {size:?}: {reached:?} of {all:?}"
                    ));
                }
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn every_kind_of_kernel_has_calls() {
    let of = |kind: &&str| !cases(kind, Target::Sm90a, Size::Small).is_empty();
    assert!(super::kernels::KINDS.iter().all(of));
    let kinds: BTreeSet<_> = corpus::kernels().iter().map(|(_, k)| k.kind()).collect();
    assert_eq!(kinds, super::kernels::KINDS.into_iter().collect());
}

/// Bytes of the arguments of a call in the small run, at most.
const MOST_SMALL_BYTES: usize = 64 << 20;

#[test]
fn small_calls_are_small() {
    for target in Target::ALL {
        for kind in super::kernels::KINDS {
            for case in cases(kind, target, Size::Small) {
                let bytes = bytes(&case.kernel, &case.env);
                assert!(bytes <= MOST_SMALL_BYTES, "{}: {bytes}", case.name);
            }
        }
    }
}
