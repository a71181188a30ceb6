//! Elements that values pick: what a block reads where each lane says so.

use super::HostError;
use super::call_view::Index;
use super::exec::{BodyCall, Registers};
use super::program::Slot;
use super::simd::Simd;
use super::span::Run;
use crate::Arg;

impl Registers {
    /// Reads what a pick has in each lane of a block: `stride` elements further for each that the lane's
    /// index counts. Indices were held against a size, and every read is held against the argument.
    #[inline(always)]
    pub(super) fn pick<S: Simd>(
        &mut self,
        call: &BodyCall,
        (arg, stride): (Arg, i64),
        at: usize,
        by: Slot,
        (rows, len): (&[Index], usize),
    ) -> Result<(), HostError> {
        let w = self.width;
        let Slot::I64(by) = by else { return Ok(()) };
        for (r, index) in rows.iter().enumerate() {
            let run = call.places[at].run(index, call.inner, len);
            let first = r * len;
            let picks = &self.i64s[by * w + first..][..len];
            // All lanes of a picked row read neighbours.
            let same = picks.iter().all(|p| *p == picks[0]);
            let (step, each) = if same { (len.max(1), len) } else { (1, 1) };
            for lane in (0..len).step_by(step) {
                let ahead = self.i64s[by * w + first + lane].wrapping_mul(stride);
                let along = (lane as i64).wrapping_mul(run.stride);
                let run = Run {
                    offset: run.offset.wrapping_add(along).wrapping_add(ahead),
                    stride: run.stride,
                    count: each,
                };
                match call.program.slots[at] {
                    Slot::F32(o) => {
                        let out = &mut self.f32s[o * w + first + lane..][..each];
                        call.args.load_f32::<S>(arg, run, out)?;
                    }
                    Slot::I64(o) => {
                        let out = &mut self.i64s[o * w + first + lane..][..each];
                        call.args.load_i64(arg, run, out)?;
                    }
                    Slot::Bool(_) | Slot::None => {}
                }
            }
        }
        Ok(())
    }

    /// Copies integers, none of which may be outside of a size.
    #[inline(always)]
    pub(super) fn within(
        &mut self,
        x: Slot,
        o: usize,
        size: i64,
        n: usize,
    ) -> Result<(), HostError> {
        let w = self.width;
        let Slot::I64(x) = x else { return Ok(()) };
        let values = &self.i64s[x * w..][..n];
        match values.iter().find(|v| !(0..size).contains(*v)) {
            Some(index) => Err(HostError::Index {
                index: *index,
                size,
            }),
            None => {
                self.i64s.copy_within(x * w..x * w + n, o * w);
                Ok(())
            }
        }
    }
}
