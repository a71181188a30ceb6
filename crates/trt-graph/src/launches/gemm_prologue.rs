//! GEMM prologue: row kernels that products of few rows compute for themselves.
//!
//! In a decode step a norm is one short row, and a launch for it costs more than computing it
//! again in each product that reads it. So a row kernel whose one result is nothing but the left
//! operand of ranged products, of few constant rows, becomes part of each of them.
//!
//! Then what the row kernel reads is read later: by each product, and again for each range of its
//! rows while weights arrive. So nothing from the row kernel's place on to that of the last
//! product, nor the products themselves, may write it; and no result may replace it in memory
//! while it is read. Lifetimes in the arena follow from the arguments of launches. The buffer of
//! the result stays declared, and takes no memory since no launch uses it.

use super::leveled::Leveled;
use crate::program::{Buffer, BufferId, BufferKind, Launch, Source};
use trt_kernel::{Arg, Body, DType, Dim, Encoding, Inst, Kernel, Left, Matmul, View, fusible};

/// Fuses what can be; `all` is in the order of levels.
pub(super) fn run(buffers: &[Buffer], mut all: Vec<Leveled>) -> Vec<Leveled> {
    let mut gone = vec![false; all.len()];
    for at in 0..all.len() {
        let Some(rows) = LeftRows::of(buffers, &all[at].launch) else {
            continue;
        };
        let Some(fused) = rows.into_users(&all, at) else {
            continue;
        };
        let (label, ops) = (all[at].launch.label.clone(), all[at].ops.clone());
        for (user, launch) in fused {
            let user = &mut all[user];
            user.ops = ops.iter().chain(&user.ops).cloned().collect();
            let label = format!("{label}+{}", launch.label);
            user.launch = Launch { label, ..launch };
        }
        gone[at] = true;
    }
    let mut gone = gone.into_iter();
    all.retain(|_| !gone.next().unwrap_or(false));
    all
}

/// A row kernel that stores one result, row-major.
struct LeftRows {
    space: Vec<Dim>,
    body: Body,
    dtypes: Vec<DType>,
    args: Vec<Source>,
    /// The axis of more than one row, if there is one.
    axis: Option<usize>,
    stored: BufferId,
    /// What is stored is rounded to this.
    rounded: DType,
}

impl LeftRows {
    fn of(buffers: &[Buffer], launch: &Launch) -> Option<LeftRows> {
        let Kernel::Row(row) = &launch.kernel else {
            return None;
        };
        let (columns, outer) = row.space.split_last()?;
        let mut wide = (0..outer.len()).filter(|a| !outer[*a].is(1));
        let axis = wide.next();
        let mut stores = row.body.insts.iter().filter_map(|inst| match inst {
            Inst::Store(arg, view, _) => Some((arg, view)),
            _ => None,
        });
        let ((arg, view), None, None) = (stores.next()?, stores.next(), wide.next()) else {
            return None;
        };
        let Source::Buffer(stored) = *launch.args.get(arg.0 as usize)? else {
            return None;
        };
        let plain = view.offset.is(0)
            && view.strides.last()?.is(1)
            && axis.is_none_or(|a| view.strides[a] == *columns);
        let result = buffers.get(stored.0 as usize)?;
        // One argument of the rows takes the place of the left operand.
        let reads = row.args.len() > 1;
        let only = reads
            && result.kind == BufferKind::Temp
            && row.args[arg.0 as usize].is_float()
            && !row.body.loads().contains(arg);
        (plain && only).then(|| LeftRows {
            space: row.space.clone(),
            body: row.body.clone(),
            dtypes: row.args.clone(),
            args: launch.args.clone(),
            axis,
            stored,
            rounded: result.dtype,
        })
    }

    /// The launches that take the place of the users, if all of them can compute the rows.
    fn into_users(self, all: &[Leveled], at: usize) -> Option<Vec<(usize, Launch)>> {
        let result = Source::Buffer(self.stored);
        let numbered = || all.iter().enumerate().filter(|(i, _)| *i != at);
        let users = numbered().filter(|(_, l)| l.launch.args.contains(&result));
        let users: Vec<(usize, &Leveled)> = users.collect();
        let fused = users.iter().map(|(i, l)| Some((*i, self.user(&l.launch)?)));
        let fused: Vec<(usize, Launch)> = fused.collect::<Option<_>>()?;
        // Launches of one level may come in any order.
        let levels = all[at].level..=users.last()?.1.level;
        let read: Vec<BufferId> = self.read().collect();
        let mut between = numbered().filter(|(_, l)| levels.contains(&l.level));
        let kept = between.all(|(_, l)| l.writes().iter().all(|b| !read.contains(b)));
        kept.then_some(fused)
    }

    /// The buffers that the rows are computed from.
    fn read(&self) -> impl Iterator<Item = BufferId> {
        self.args.iter().filter_map(|source| match source {
            Source::Buffer(b) if *b != self.stored => Some(*b),
            Source::Buffer(_) | Source::Weight(_) => None,
        })
    }

    /// A product that computes its left operand instead of reading it.
    fn user(&self, launch: &Launch) -> Option<Launch> {
        let Kernel::Matmul(product) = &launch.kernel else {
            return None;
        };
        let a = product.a.stored()?;
        let result = Source::Buffer(self.stored);
        let mut reads = launch
            .args
            .iter()
            .enumerate()
            .filter(|(_, s)| **s == result);
        let (Some((arg, _)), None) = (reads.next(), reads.next()) else {
            return None;
        };
        let columns = self.space.last()?;
        let rows = self.axis.map_or(Dim::from(1), |a| self.space[a].clone());
        let strides = &a.view.strides;
        let same = a.arg == Arg(arg as u16)
            && !product.bodies().any(|b| b.touches(a.arg))
            && rows == product.m
            && *columns == product.k
            && a.view.offset.is(0)
            && strides[2].is(1)
            && (rows.is(1) || strides[1] == *columns);
        (same && product.ranged && fusible::computes_left(product))
            .then(|| self.fused(launch, product, a.arg))
    }

    /// The launch with the arguments of the rows in place of its left operand: the place of that
    /// goes to the last argument of the rows, and the others come at the end.
    fn fused(&self, launch: &Launch, product: &Matmul, a: Arg) -> Launch {
        let (mut args, mut encodings) = (launch.args.clone(), product.args.clone());
        let mut numbers: Vec<Option<Arg>> = vec![None; self.args.len()];
        let mut place = Some(a);
        for (i, (source, dtype)) in self.args.iter().zip(&self.dtypes).enumerate() {
            if *source == Source::Buffer(self.stored) {
                continue;
            }
            let arg = place.take().unwrap_or(Arg(args.len() as u16));
            let encoding = Encoding::Plain(*dtype);
            match args.get_mut(arg.0 as usize) {
                Some(slot) => (*slot, encodings[arg.0 as usize]) = (*source, encoding),
                None => {
                    args.push(*source);
                    encodings.push(encoding);
                }
            }
            numbers[i] = Some(arg);
        }
        let read: Vec<BufferId> = self.read().collect();
        let in_place = launch.in_place.iter();
        let in_place = in_place.filter(|(_, r)| !read.contains(r)).copied();
        let left = Left::Computed {
            dtype: self.rounded,
            body: self.left(&numbers),
        };
        Launch {
            label: launch.label.clone(),
            in_place: in_place.collect(),
            kernel: Kernel::Matmul(Matmul {
                args: encodings,
                a: left,
                ..product.clone()
            }),
            args,
        }
    }

    /// The body over `[batch, m, k]`, with other numbers of arguments.
    fn left(&self, numbers: &[Option<Arg>]) -> Body {
        let last = self.space.len() - 1;
        let zero = || Dim::from(0);
        let view = |v: &View| View {
            offset: v.offset.clone(),
            strides: vec![
                zero(),
                self.axis.map_or_else(zero, |a| v.strides[a].clone()),
                v.strides[last].clone(),
            ],
        };
        let insts = self.body.insts.iter().map(|inst| match inst {
            Inst::Store(_, _, r) => Inst::Yield(*r),
            Inst::Iota(axis) if *axis as usize == last => Inst::Iota(2),
            Inst::Iota(axis) if self.axis == Some(*axis as usize) => Inst::Iota(1),
            Inst::Iota(_) => Inst::I64(zero()),
            other => other.moved(|arg| numbers[arg.0 as usize].unwrap_or(arg), view),
        });
        Body {
            insts: insts.collect(),
        }
    }
}
