//! Gathers of table rows and strided copies.

use super::HostError;
use super::call_view::{CallView, MAX_AXES, SAME_AXES, places};
use super::exec::{BodyCall, Registers};
use super::program::Program;
use super::row::cut;
use super::runs::Load;
use super::simd;
use super::span::{Args, Run};
use super::team::Team;
use crate::{Arg, Env, Gather, Move};

/// Lanes of a block of a gathered row.
const LANES: usize = 512;

pub(super) fn gather(
    kernel: &Gather,
    program: &Program,
    env: &Env,
    args: Args,
    team: &Team,
) -> Result<(), HostError> {
    let places = places(program, env);
    let ids = CallView::new(&kernel.ids.view, env);
    let call = BodyCall {
        program,
        args,
        env,
        places: &places,
        iotas: SAME_AXES,
        inner: 1,
    };
    let rows = kernel.rows.size(env);
    let cost = rows * kernel.cols * (program.insts.len() + 1) / 16;
    let list = &program.stages[0].again;
    cut(team, rows, cost, |range| {
        Registers::with(program, LANES, |registers| {
            registers.uniform(&call, 0)?;
            for row in range {
                let mut index = [0; MAX_AXES];
                index[0] = row as i64;
                let mut id = [0i64];
                args.load_i64(kernel.ids.arg, ids.run(&index, 0, 1), &mut id)?;
                let entry = usize::try_from(id[0]).ok().filter(|e| *e < kernel.entries);
                let Some(entry) = entry else {
                    return Err(HostError::Id {
                        id: id[0],
                        row,
                        entries: kernel.entries,
                    });
                };
                for from in (0..kernel.cols).step_by(LANES) {
                    let len = LANES.min(kernel.cols - from);
                    index[1] = from as i64;
                    if let Some(slot) = program.input {
                        let run = Run {
                            offset: (entry * kernel.cols + from) as i64,
                            stride: 1,
                            count: len,
                        };
                        let out = registers.lanes(slot, len);
                        simd::run(Load(&args, kernel.table, run, out))?;
                    }
                    registers.exec(&call, list, &[index], len)?;
                }
            }
            Ok(())
        })
    })
}

/// A run that is too short to be worth its own address.
const SHORT: usize = 16;

fn longest(axes: &[(usize, i64, i64)]) -> Option<usize> {
    let key = |i: &usize| {
        (
            axes[*i].0.min(4 * SHORT),
            std::cmp::Reverse(axes[*i].1.abs()),
        )
    };
    (0..axes.len()).max_by_key(key)
}

/// Copies `dst[i...] = src[i...]`: axes that both sides walk as one are merged, then runs of the
/// last axis are copied.
pub(super) fn copy(kernel: &Move, env: &Env, args: Args, team: &Team) -> Result<(), HostError> {
    let (src, dst) = (
        CallView::new(&kernel.src, env),
        CallView::new(&kernel.dst, env),
    );
    // (size, source stride, destination stride), innermost last.
    let mut axes: Vec<(usize, i64, i64)> = Vec::with_capacity(kernel.space.len());
    for (axis, dim) in kernel.space.iter().enumerate() {
        let (size, s, d) = (dim.size(env), src.strides[axis], dst.strides[axis]);
        match axes.last_mut() {
            _ if size == 1 => {}
            Some(last) if last.1 == s * size as i64 && last.2 == d * size as i64 => {
                *last = (last.0 * size, s, d);
            }
            _ => axes.push((size, s, d)),
        }
    }
    // Copies of single elements cost as much as copies of runs: a longer axis is better.
    if let Some((last, longest)) = axes.len().checked_sub(1).zip(longest(&axes))
        && axes[last].0 < SHORT
        && axes[last].0 < axes[longest].0
    {
        axes.swap(last, longest);
    }
    let (count, s, d) = axes.pop().unwrap_or((1, 1, 1));
    let rows: usize = axes.iter().map(|a| a.0).product();
    if rows * count == 0 {
        return Ok(());
    }
    // A long run is cut too, so that all threads copy.
    const PIECE: usize = 16 * 1024;
    let pieces = count.div_ceil(PIECE);
    let cost = rows * (20 + count * kernel.dtype.size() / 16);
    cut(team, rows * pieces, cost, |range| {
        for unit in range {
            let (mut row, from) = (unit / pieces, unit % pieces * PIECE);
            let (mut at_src, mut at_dst) = (src.offset, dst.offset);
            for (size, s, d) in axes.iter().rev() {
                let i = (row % size) as i64;
                row /= size;
                at_src += i * s;
                at_dst += i * d;
            }
            let run = |at: i64, stride: i64| Run {
                offset: at + from as i64 * stride,
                stride,
                count: PIECE.min(count - from),
            };
            args.copy((Arg(0), run(at_src, s)), (Arg(1), run(at_dst, d)))?;
        }
        Ok(())
    })
}
