//! How much of each argument a launch reaches, so that none can leave its memory.
//!
//! A kernel that reads or writes outside its arguments ends the context for the whole process,
//! so every launch is checked before it is submitted, with the host's errors. Views are affine:
//! the extremes lie at corners of the index space. What a kernel reaches depends on the runtime
//! integers alone and is worked out once for launches that agree in them. For recorded launches
//! see [`super::needs`].

use crate::Slice;
use std::sync::{Mutex, PoisonError};
use trt_kernel::host::HostError;
use trt_kernel::{Arg, Body, DType, Dim, Env, Inst, Kernel, Left, Var, View};

/// First and last element, or nothing.
pub(super) type Reach = Option<(i64, i64)>;

/// The accesses of a kernel.
#[derive(Debug)]
pub(super) struct Bounds {
    dtypes: Vec<DType>,
    accesses: Vec<Access>,
    latest: Mutex<Option<(Env, Vec<Reach>)>>,
}

/// A view of an argument over an index space.
#[derive(Clone, Debug)]
pub(super) struct Access {
    arg: usize,
    view: View,
    space: Vec<Dim>,
}

impl Bounds {
    pub fn new(kernel: &Kernel) -> Bounds {
        Bounds {
            dtypes: kernel.args().iter().map(|e| e.dtype()).collect(),
            accesses: accesses(kernel),
            latest: Mutex::default(),
        }
    }

    /// Whether every argument that is `used` holds what a launch reaches.
    pub fn check(
        &self,
        env: &Env,
        args: &[Slice],
        used: impl Fn(usize) -> bool,
    ) -> Result<(), HostError> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let reaches = match &*latest {
            Some((known, reaches)) if known == env => reaches,
            _ => &latest.insert((*env, self.reaches(env))).1,
        };
        for (arg, (slice, reach)) in args.iter().zip(reaches).enumerate() {
            if used(arg) {
                self.inside(arg, *reach, slice.len())?;
            }
        }
        Ok(())
    }

    /// Every access of an argument, with its dtype.
    pub fn each(&self) -> impl Iterator<Item = (&Access, DType)> {
        let each = self.accesses.iter();
        each.filter_map(|access| Some((access, *self.dtypes.get(access.arg)?)))
    }

    fn inside(&self, arg: usize, reach: Reach, bytes: usize) -> Result<(), HostError> {
        let dtype = self.dtypes.get(arg);
        dtype.map_or(Ok(()), |dtype| inside(arg, *dtype, reach, bytes))
    }

    fn reaches(&self, env: &Env) -> Vec<Reach> {
        let mut reaches: Vec<Reach> = vec![None; self.dtypes.len()];
        for access in &self.accesses {
            if let (Some(total), Some((first, last))) =
                (reaches.get_mut(access.arg), access.reach(env))
            {
                let (f, l) = total.unwrap_or((first, last));
                *total = Some((f.min(first), l.max(last)));
            }
        }
        reaches
    }
}

/// Whether an argument of `bytes` bytes holds what is reached.
pub(super) fn inside(
    arg: usize,
    dtype: DType,
    reach: Reach,
    bytes: usize,
) -> Result<(), HostError> {
    let Some((first, last)) = reach else {
        return Ok(());
    };
    let end = last.saturating_add(1).saturating_mul(dtype.size() as i64);
    match first >= 0 && u64::try_from(end).is_ok_and(|end| end <= bytes as u64) {
        true => Ok(()),
        false => Err(HostError::OutOfBounds {
            arg: arg as u16,
            dtype,
            first,
            last,
            bytes,
        }),
    }
}

impl Access {
    /// The argument.
    pub fn arg(&self) -> usize {
        self.arg
    }

    /// Whether it reaches the same elements in every call, be it of another argument.
    pub fn is_like(&self, other: &Access) -> bool {
        self.view == other.view && self.space == other.space
    }

    /// The runtime integers that decide what is reached.
    pub fn vars(&self) -> impl Iterator<Item = Var> {
        let view = std::iter::once(&self.view.offset).chain(&self.view.strides);
        view.chain(&self.space).flat_map(Dim::vars)
    }

    /// What is reached in a call.
    pub fn reach(&self, env: &Env) -> Reach {
        let start = self.view.offset.eval(env);
        let (mut first, mut last) = (start, start);
        for (size, stride) in self.space.iter().zip(&self.view.strides) {
            let size = size.eval(env);
            if size <= 0 {
                return None;
            }
            let far = (size - 1).saturating_mul(stride.eval(env));
            first = first.saturating_add(far.min(0));
            last = last.saturating_add(far.max(0));
        }
        Some((first, last))
    }
}

fn accesses(kernel: &Kernel) -> Vec<Access> {
    let mut out = Vec::new();
    let dims = |sizes: &[&Dim]| sizes.iter().copied().cloned().collect::<Vec<Dim>>();
    let mut add = |arg: Arg, view: &View, space: Vec<Dim>| {
        out.push(Access {
            arg: arg.0 as usize,
            view: view.clone(),
            space,
        });
    };
    match kernel {
        Kernel::Row(k) => body(&k.body, &k.space, &mut add),
        Kernel::Matmul(k) => {
            let left = dims(&[&k.batch, &k.m, &k.k]);
            match &k.a {
                Left::Stored(a) => add(a.arg, &a.view, left),
                Left::Computed { body: b, .. } => body(b, &left, &mut add),
            }
            add(k.b.arg, &k.b.view, dims(&[&k.batch, &k.n, &k.k]));
            body(&k.epilogue, &dims(&[&k.batch, &k.m, &k.n]), &mut add);
        }
        Kernel::Attention(k) => {
            let (heads, kv_heads) = (Dim::from(k.heads), Dim::from(k.kv_heads));
            let (dim, value) = (Dim::from(k.head_dim), Dim::from(k.value_dim));
            let queries = dims(&[&k.batch, &heads, &k.queries]);
            let keys = dims(&[&k.batch, &kv_heads, &k.keys]);
            let with = |space: &[Dim], last: &Dim| [space, std::slice::from_ref(last)].concat();
            add(k.q.arg, &k.q.view, with(&queries, &dim));
            add(k.k.arg, &k.k.view, with(&keys, &dim));
            add(k.v.arg, &k.v.view, with(&keys, &value));
            add(k.out.arg, &k.out.view, with(&queries, &value));
            body(&k.score, &with(&queries, &k.keys), &mut add);
            // What is in memory of the launch's own was checked with the kernel.
            for row in &k.before {
                body(&row.body, &row.space, &mut add);
            }
        }
        Kernel::Gather(k) => {
            add(k.ids.arg, &k.ids.view, dims(&[&k.rows]));
            let table = [Dim::from(k.entries), Dim::from(k.cols)];
            add(k.table, &View::contiguous(&table), table.to_vec());
            body(&k.body, &dims(&[&k.rows, &Dim::from(k.cols)]), &mut add);
        }
        Kernel::Move(k) => {
            add(Arg(0), &k.src, k.space.clone());
            add(Arg(1), &k.dst, k.space.clone());
        }
        Kernel::Group(_) => {
            for (first, part) in kernel.numbered_parts() {
                out.extend(accesses(part).into_iter().map(|access| Access {
                    arg: access.arg + first as usize,
                    ..access
                }));
            }
        }
    }
    out
}

fn body(body: &Body, space: &[Dim], add: &mut impl FnMut(Arg, &View, Vec<Dim>)) {
    for inst in &body.insts {
        if let Inst::Load(arg, view) | Inst::Store(arg, view, _) = inst {
            add(*arg, view, space.to_vec());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Memory;
    use trt_kernel::{Attention, BodyBuilder, Gather, Move, Operand, Row, Var};

    fn bytes(n: usize) -> Slice {
        Memory::host(n, "host").unwrap().whole()
    }

    fn seq() -> Dim {
        Dim::var(Var(0))
    }

    #[test]
    fn the_corners_of_the_space_are_what_is_reached() {
        // Rows run backwards through the source: elements 6, 3, 0, each three long.
        let view = |offset: i64, row: i64| View {
            offset: Dim::from(offset),
            strides: vec![Dim::from(row), Dim::from(1)],
        };
        let bounds = Bounds::new(&Kernel::Move(Move {
            space: vec![Dim::from(3), Dim::from(3)],
            dtype: DType::F32,
            src: view(6, -3),
            dst: view(0, 3),
        }));
        let env = Env::default();
        assert!(
            bounds
                .check(&env, &[bytes(36), bytes(36)], |_| true)
                .is_ok()
        );
        let error = bounds
            .check(&env, &[bytes(32), bytes(36)], |_| true)
            .unwrap_err();
        assert!(matches!(
            error,
            HostError::OutOfBounds {
                arg: 0,
                first: 0,
                last: 8,
                ..
            }
        ));
        assert!(
            bounds
                .check(&env, &[bytes(0), bytes(36)], |arg| arg != 0)
                .is_ok()
        );
    }

    #[test]
    fn runtime_integers_change_the_reach_and_an_empty_space_reaches_nothing() {
        let space = vec![seq(), Dim::from(4)];
        let mut body = BodyBuilder::new();
        let x = body.load(Arg(0), View::contiguous(&space));
        body.store(Arg(1), View::contiguous(&space), x);
        let bounds = Bounds::new(&Kernel::Row(Row {
            space,
            args: vec![DType::F32; 2],
            body: body.finish(),
        }));
        let args = [bytes(64), bytes(64)];
        for (rows, fits) in [(4, true), (5, false), (4, true), (0, true)] {
            let checked = bounds.check(&Env::new(&[rows]), &args, |_| true);
            assert_eq!(checked.is_ok(), fits, "{rows} rows");
        }
        assert!(
            bounds
                .check(&Env::new(&[0]), &[bytes(0), bytes(0)], |_| true)
                .is_ok()
        );
    }

    #[test]
    fn a_table_must_hold_all_its_entries() {
        let mut body = BodyBuilder::new();
        let x = body.push(Inst::Input);
        body.store(Arg(2), View::contiguous(&[seq(), Dim::from(8)]), x);
        let bounds = Bounds::new(&Kernel::Gather(Gather {
            rows: seq(),
            cols: 8,
            entries: 100,
            args: vec![DType::U32, DType::BF16, DType::F32],
            ids: Operand {
                arg: Arg(0),
                view: View::contiguous(&[seq()]),
            },
            table: Arg(1),
            body: body.finish(),
        }));
        let env = Env::new(&[2]);
        assert!(
            bounds
                .check(&env, &[bytes(8), bytes(1600), bytes(64)], |_| true)
                .is_ok()
        );
        assert!(
            bounds
                .check(&env, &[bytes(8), bytes(1599), bytes(64)], |_| true)
                .is_err()
        );
    }

    #[test]
    fn rows_before_an_attention_stay_inside_of_its_caches() {
        let row = |at: i64| View {
            offset: Dim::from(at),
            strides: vec![Dim::from(0), Dim::from(8), Dim::from(0), Dim::from(1)],
        };
        let operand = |arg, at| Operand {
            arg: Arg(arg),
            view: row(at),
        };
        let one_key = |stored: i64| {
            let args = vec![DType::F32; 4];
            let with_own = vec![DType::F32; 5];
            let step = |from, to, at| {
                let mut b = BodyBuilder::new();
                let x = b.load(Arg(from), row(0));
                b.store(Arg(to), row(at), x);
                Row {
                    space: [1, 2, 1, 8].map(Dim::from).to_vec(),
                    args: with_own.clone(),
                    body: b.finish(),
                }
            };
            let mut score = BodyBuilder::new();
            let x = score.push(Inst::Input);
            score.push(Inst::Yield(x));
            Bounds::new(&Kernel::Attention(Attention {
                batch: Dim::from(1),
                heads: 2,
                kv_heads: 2,
                queries: Dim::from(1),
                keys: Dim::from(1),
                head_dim: 8,
                value_dim: 8,
                before: vec![step(0, 4, 0), step(0, 1, stored)],
                args,
                q: operand(4, 0),
                k: operand(1, 0),
                v: operand(2, 0),
                out: operand(3, 0),
                causal: None,
                score: score.finish(),
            }))
        };
        let args = [bytes(64), bytes(64), bytes(64), bytes(64)];
        let check = |at| one_key(at).check(&Env::default(), &args, |_| true);
        assert!(check(0).is_ok());
        assert!(matches!(
            check(8),
            Err(HostError::OutOfBounds {
                arg: 1,
                last: 23,
                ..
            })
        ));
    }
}
