//! How much of each argument a launch reaches, so that none can leave its memory.
//!
//! A kernel that reads or writes outside its arguments ends the context for the whole process,
//! so every launch is checked before it is submitted. Views are affine:
//! the extremes lie at corners of the index space. What a kernel reaches depends on the runtime
//! integers alone and is worked out once for launches that agree in them. For recorded launches
//! see [`super::Needs`].

use crate::{LaunchError, Slice};
use std::sync::{Mutex, PoisonError};
use trt_kernel::{Access, Encoding, Env, Kernel, Reach};

/// The accesses of a kernel.
#[derive(Debug)]
pub(crate) struct Bounds {
    args: Vec<Encoding>,
    accesses: Vec<Access<'static>>,
    latest: Mutex<Option<(Env, Vec<Option<Reach>>)>>,
}

impl Bounds {
    pub fn new(kernel: &Kernel) -> Bounds {
        let accesses = kernel.accesses().into_iter().map(Access::into_owned);
        Bounds {
            args: kernel.args(),
            accesses: accesses.collect(),
            latest: Mutex::default(),
        }
    }

    /// Whether every argument that is `used` holds what a launch reaches.
    pub fn check(
        &self,
        env: &Env,
        args: &[Slice],
        used: impl Fn(usize) -> bool,
    ) -> Result<(), LaunchError> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let reaches = match &*latest {
            Some((known, reaches)) if known == env => reaches,
            _ => &latest.insert((*env, self.reaches(env))).1,
        };
        let each = args.iter().zip(reaches).zip(&self.args).enumerate();
        for (arg, ((slice, reach), encoding)) in each {
            if used(arg) {
                inside(arg, *encoding, *reach, slice.len())?;
            }
        }
        Ok(())
    }

    /// Every access of an argument, with what that is written down in.
    pub fn each(&self) -> impl Iterator<Item = (&Access<'static>, Encoding)> {
        let each = self.accesses.iter();
        each.filter_map(|access| Some((access, *self.args.get(access.arg.0 as usize)?)))
    }

    fn reaches(&self, env: &Env) -> Vec<Option<Reach>> {
        let mut reaches: Vec<Option<Reach>> = vec![None; self.args.len()];
        for access in &self.accesses {
            // What is in memory of the launch's own was checked with the kernel.
            if let (Some(total), Some(reach)) =
                (reaches.get_mut(access.arg.0 as usize), access.reach(env))
            {
                *total = Some(total.map_or(reach, |known| known.and(reach)));
            }
        }
        reaches
    }
}

/// Whether an argument of `bytes` bytes holds what is reached.
pub(crate) fn inside(
    arg: usize,
    encoding: Encoding,
    reach: Option<Reach>,
    bytes: usize,
) -> Result<(), LaunchError> {
    let Some(reach) = reach else {
        return Ok(());
    };
    let range = reach.bytes(encoding);
    match range.start >= 0 && u64::try_from(range.end).is_ok_and(|end| end <= bytes as u64) {
        true => Ok(()),
        false => Err(LaunchError::OutOfBounds {
            arg: arg as u16,
            encoding,
            first: reach.first,
            last: reach.last,
            bytes,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DeviceId, Memory};
    use trt_kernel::{
        Arg, Attention, BodyBuilder, DType, Dim, Gather, Inst, Move, Operand, Row, Var, View,
    };

    fn bytes(n: usize) -> Slice {
        Memory::new(DeviceId::unique(), std::ptr::null_mut(), n, ()).whole()
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
            LaunchError::OutOfBounds {
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
            args: Encoding::plain([DType::U32, DType::BF16, DType::F32]),
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
            Err(LaunchError::OutOfBounds {
                arg: 1,
                last: 23,
                ..
            })
        ));
    }
}
