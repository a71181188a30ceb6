//! Rope and KV-append prologue: row kernels that attention of one query runs for itself.
//!
//! In a decode step rope and appends are a few rows, and a launch for them costs more than
//! computing them where they are read. So the row kernel that makes the queries of an attention,
//! if nobody else reads them, and those that store this call's key and value in what it reads,
//! become the first part of its launch.
//!
//! Then what they read is read later, and so is what they store stored later: nothing from their
//! place on to that of the attention may write the one or touch the other. What the launch reads is
//! alive while it runs, so its results take other memory. The buffer of the queries stays declared,
//! and takes no memory since no launch uses it.

use super::leveled::Leveled;
use crate::program::{Buffer, BufferId, BufferKind, Launch, Source};
use trt_kernel::{Arg, Attention, Body, DType, Inst, Kernel, Operand, Row, View, fusible};

/// Fuses what can be; `all` is in the order of levels.
pub(super) fn run(buffers: &[Buffer], mut all: Vec<Leveled>) -> Vec<Leveled> {
    let mut at = 0;
    while at < all.len() {
        if let Some((first, launch)) = with_rows(buffers, &all, at) {
            let ops = first.iter().flat_map(|i| all[*i].ops.clone());
            let ops: Vec<String> = ops.chain(all[at].ops.clone()).collect();
            all[at].launch = launch;
            all[at].ops = ops;
            let mut number = 0..;
            all.retain(|_| number.next().is_none_or(|i| !first.contains(&i)));
            at -= first.len();
        }
        at += 1;
    }
    all
}

/// The launches that become part of an attention, in their order, and the launch that takes the
/// place of all: with what is made of values, or without where that cannot be.
fn with_rows(buffers: &[Buffer], all: &[Leveled], at: usize) -> Option<(Vec<usize>, Launch)> {
    let launch = &all[at].launch;
    let Kernel::Attention(k) = &launch.kernel else {
        return None;
    };
    let of = |o: &Operand| match launch.args.get(o.arg.0 as usize)? {
        Source::Buffer(b) => writer(all, at, *b),
        Source::Weight(_) => None,
    };
    let (queries, key) = (of(&k.q)?, of(&k.k)?);
    let mine = queries_of(buffers, all, at, queries)?;
    let value = of(&k.v).filter(|v| ![queries, key].contains(v));
    let with = |parts: Vec<usize>| {
        let mut parts = parts;
        parts.sort_unstable();
        parts.dedup();
        let moved = parts.iter().all(|i| moves(all, *i, at, &parts));
        let fused = moved
            .then(|| fused(buffers, all, at, mine, &parts))
            .flatten()?;
        Some((parts, fused))
    };
    let most = value.and_then(|value| with(vec![queries, key, value]));
    most.or_else(|| with(vec![queries, key]))
}

/// The last launch before another one that writes a buffer.
fn writer(all: &[Leveled], at: usize, buffer: BufferId) -> Option<usize> {
    let writes = |l: &Leveled| l.writes().contains(&buffer);
    all[..at].iter().rposition(writes)
}

/// The buffer of the queries, if only their maker and the attention use it.
fn queries_of(buffers: &[Buffer], all: &[Leveled], at: usize, maker: usize) -> Option<BufferId> {
    let launch = &all[at].launch;
    let Kernel::Attention(k) = &launch.kernel else {
        return None;
    };
    let source = *launch.args.get(k.q.arg.0 as usize)?;
    let Source::Buffer(buffer) = source else {
        return None;
    };
    let once = |l: &Launch| l.args.iter().filter(|s| **s == source).count() == 1;
    let users = all.iter().map(|l| &l.launch).enumerate();
    let mut users = users.filter(|(_, l)| l.args.contains(&source));
    let only = users.all(|(i, l)| [maker, at].contains(&i) && once(l));
    let temp = buffers.get(buffer.0 as usize)?.kind == BufferKind::Temp;
    let free = temp && !k.score.touches(k.q.arg);
    (only && free).then_some(buffer)
}

/// Whether a launch may as well be done where a later one stands, if `parts` are too.
fn moves(all: &[Leveled], from: usize, to: usize, parts: &[usize]) -> bool {
    let (reads, writes) = (all[from].reads(), all[from].writes());
    // Launches of one level may come in any order.
    let levels = all[from].level..=all[to].level;
    let mut between = all
        .iter()
        .enumerate()
        .filter(|(i, l)| *i != to && !parts.contains(i) && levels.contains(&l.level));
    between.all(|(_, l)| {
        !l.writes().iter().any(|b| reads.contains(b))
            && !l.reads().iter().any(|b| writes.contains(b))
    })
}

/// One launch of an attention and what comes before it, if its blocks can run that.
fn fused(
    buffers: &[Buffer],
    all: &[Leveled],
    at: usize,
    queries: BufferId,
    parts: &[usize],
) -> Option<Launch> {
    let launch = &all[at].launch;
    let Kernel::Attention(k) = &launch.kernel else {
        return None;
    };
    let mut args = Sources::default();
    let members = parts.iter().map(|i| &all[*i].launch).chain([launch]);
    for (source, dtype) in members
        .clone()
        .flat_map(|l| l.args.iter().zip(l.kernel.args()))
    {
        if *source != Source::Buffer(queries) {
            args.number(*source, dtype.dtype());
        }
    }
    let own = Arg(args.sources.len() as u16);
    let renamed = |launch: &Launch, arg: Arg| match launch.args.get(arg.0 as usize) {
        Some(Source::Buffer(b)) if *b == queries => Some(own),
        Some(source) => args.find(source),
        None => None,
    };
    let with_own = [&args.dtypes[..], &[buffers.get(queries.0 as usize)?.dtype]].concat();
    let rows = parts.iter().map(|i| {
        let part = &all[*i].launch;
        let (space, body) = fusible::rows_of(&part.kernel)?;
        Some(Row {
            space,
            args: with_own.clone(),
            body: renumbered(&body, |arg| renamed(part, arg))?,
        })
    });
    let before = rows.collect::<Option<Vec<Row>>>()?;
    let operand = |o: &Operand| {
        let (arg, view) = (renamed(launch, o.arg)?, o.view.clone());
        Some(Operand { arg, view })
    };
    let attention = Attention {
        q: operand(&k.q)?,
        k: operand(&k.k)?,
        v: operand(&k.v)?,
        out: operand(&k.out)?,
        score: renumbered(&k.score, |arg| renamed(launch, arg))?,
        args: args.dtypes.clone(),
        before,
        ..k.clone()
    };
    let labels: Vec<&str> = members.map(|l| l.label.as_str()).collect();
    let label = labels.join("+");
    let fits = fusible::runs_before(&attention);
    let kernel = Kernel::Attention(attention);
    (fits && kernel.check().is_ok()).then(|| Launch {
        label,
        kernel,
        args: args.sources,
        in_place: Vec::new(),
    })
}

/// A body with other numbers of arguments.
fn renumbered(body: &Body, number: impl Fn(Arg) -> Option<Arg>) -> Option<Body> {
    let insts = body.insts.iter().map(|inst| {
        let new = match inst.access() {
            Some((arg, ..)) => Some(number(arg)?),
            None => None,
        };
        Some(inst.moved(|arg| new.unwrap_or(arg), View::clone))
    });
    let insts = insts.collect::<Option<Vec<Inst>>>()?;
    Some(Body { insts })
}

/// Arguments of one launch, each source once.
#[derive(Default)]
struct Sources {
    sources: Vec<Source>,
    dtypes: Vec<DType>,
}

impl Sources {
    fn find(&self, source: &Source) -> Option<Arg> {
        let at = self.sources.iter().position(|s| s == source)?;
        Some(Arg(at as u16))
    }

    fn number(&mut self, source: Source, dtype: DType) {
        if self.find(&source).is_none() {
            self.sources.push(source);
            self.dtypes.push(dtype);
        }
    }
}
