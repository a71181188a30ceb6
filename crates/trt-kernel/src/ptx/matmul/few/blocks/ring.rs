//! The ring of a warp: its segment of some rows of `b` in each of a few stages, as they lie in the
//! weight.
//!
//! A warp fills its own stages and waits for nobody: what is read of a stage is behind a barrier of the
//! warp before it is filled again. From `sm_90` on the copy engine brings a row's segment in one copy,
//! which a lane asks for, and a barrier in shared memory counts bytes; each row has a lane that arrives
//! there. On `sm_80` lanes copy 16 bytes each and wait for all but the newest group.

use super::super::super::MatmulFrame;
use super::plan::{BARRIER, Fill, RingPlan, UNIT};
use crate::ptx::asm::{Asm, Class, Int, R, param};

/// A warp's ring.
pub(super) struct Ring {
    plan: RingPlan,
    /// Shared address of the warp's part of the first stage.
    base: R,
    /// That of its first barrier, for the copy engine.
    barriers: R,
    /// The lane in the warp.
    lane: R,
    /// The first row of the block, and the end of those that the warp takes of it.
    first: R,
    end: R,
    /// Bytes to the warp's segment in a row, and how many it has.
    segment: R,
    bytes: Int,
    /// The address of the block's first row, and the end of the rows that lie behind it in memory.
    near: R,
    near_end: R,
}

/// Where a warp is in its ring.
pub(super) struct Turn {
    /// Bytes to the stage.
    pub stage: R,
    barrier: R,
    parity: R,
}

impl Ring {
    /// `base` is where stages begin.
    pub fn begin(
        asm: &mut Asm,
        frame: &MatmulFrame<'_>,
        plan: RingPlan,
        [base, warp, lane]: [R; 3],
        rows: [R; 2],
    ) -> Ring {
        let own = plan.warp_rows() * plan.slot();
        let base = asm.op("mad.lo.s32", Class::B32, &[&warp, &own, &base]);
        let barriers = match plan.fill {
            Fill::Bulk => {
                let array = asm.shared(plan.warps() * plan.stages * BARRIER, BARRIER);
                let all = asm.op("mov.u32", Class::B32, &[&array]);
                let bytes = plan.stages * BARRIER;
                asm.op("mad.lo.s32", Class::B32, &[&warp, &bytes, &all])
            }
            Fill::Async | Fill::Words | Fill::Bytes => base,
        };
        let bytes = match plan.segment_bytes() * plan.order.segments == plan.row_bytes {
            true => Int::Imm(plan.segment_bytes() as i64),
            false if plan.order.segments == 1 => Int::Imm(plan.last_bytes() as i64),
            false => Int::Reg(asm.reg(Class::B32)),
        };
        let near = frame.b_row(asm, rows[0]);
        let near_end = near_end(asm, frame, rows);
        Ring {
            segment: asm.reg(Class::B32),
            plan,
            base,
            barriers,
            lane,
            first: rows[0],
            end: asm.reg(Class::B32),
            bytes,
            near,
            near_end,
        }
    }

    /// From now on the ring is filled with this segment, of the rows before an end; with nothing if
    /// there is no such segment.
    pub fn bind(&self, asm: &mut Asm, segment: R, end: R) {
        let plan = &self.plan;
        asm.op_to(
            "mul.lo.s32",
            self.segment,
            &[&segment, &plan.segment_bytes()],
        );
        if let Int::Reg(bytes) = self.bytes {
            let last = plan.order.segments - 1;
            let last = asm.op("setp.eq.s32", Class::Pred, &[&segment, &last]);
            let which = [plan.last_bytes(), plan.segment_bytes()];
            asm.op_to("selp.b32", bytes, &[&which[0], &which[1], &last]);
        }
        let some = asm.op(
            "setp.lt.s32",
            Class::Pred,
            &[&segment, &plan.order.segments],
        );
        asm.op_to("selp.b32", self.end, &[&end, &self.first, &some]);
    }

    /// Groups of rows that the warp takes.
    pub fn groups(&self, asm: &mut Asm) -> R {
        let rows = self.plan.warp_rows();
        let count = asm.op("sub.s32", Class::B32, &[&self.end, &self.first]);
        let up = asm.op("add.s32", Class::B32, &[&count, &(rows - 1)]);
        asm.op("div.u32", Class::B32, &[&up, &rows])
    }

    /// Makes the barriers, which the copy engine counts at.
    pub fn init(&self, asm: &mut Asm) {
        if self.plan.fill != Fill::Bulk {
            return;
        }
        let first = asm.op("setp.eq.s32", Class::Pred, &[&self.lane, &0]);
        asm.when(first, true, |asm| {
            for stage in 0..self.plan.stages {
                let (at, rows) = (stage * BARRIER, self.plan.warp_rows());
                asm.put(format_args!(
                    "mbarrier.init.shared::cta.b64 [{}+{at}], {rows}",
                    self.barriers
                ));
            }
        });
        asm.put("fence.proxy.async.shared::cta");
        asm.put("bar.warp.sync 0xffffffff");
    }

    /// Fills all stages from a turn on, but for `some`, with groups from the first on; the group after
    /// those.
    pub fn fill_all(
        &self,
        asm: &mut Asm,
        frame: &MatmulFrame<'_>,
        from: &Turn,
        (first, some): (R, usize),
    ) -> R {
        let turn = Turn {
            stage: asm.op("mov.b32", Class::B32, &[&from.stage]),
            barrier: asm.op("mov.b32", Class::B32, &[&from.barrier]),
            parity: asm.op("mov.b32", Class::B32, &[&0]),
        };
        let group = asm.op("mov.b32", Class::B32, &[&first]);
        for stage in 0..self.plan.stages {
            if stage >= some {
                self.fill(asm, frame, &turn, group);
            }
            self.next(asm, &turn);
            asm.op_to("add.s32", group, &[&group, &self.plan.across]);
        }
        group
    }

    pub fn turn(&self, asm: &mut Asm) -> Turn {
        let mut zero = || asm.op("mov.b32", Class::B32, &[&0]);
        Turn {
            stage: zero(),
            barrier: zero(),
            parity: zero(),
        }
    }

    /// Goes to the next stage.
    pub fn next(&self, asm: &mut Asm, turn: &Turn) {
        let bytes = self.plan.stage();
        let end = bytes * self.plan.stages;
        asm.op_to("add.s32", turn.stage, &[&turn.stage, &bytes]);
        let end = asm.op("setp.ge.s32", Class::Pred, &[&turn.stage, &end]);
        asm.put(format_args!("@{end} mov.b32 {}, 0", turn.stage));
        if self.plan.fill == Fill::Bulk {
            asm.op_to("add.s32", turn.barrier, &[&turn.barrier, &BARRIER]);
            asm.put(format_args!("@{end} mov.b32 {}, 0", turn.barrier));
            asm.put(format_args!("@{end} xor.b32 {0}, {0}, 1", turn.parity));
        }
    }

    /// Fills a stage with the rows of a group, if there is that group.
    pub fn fill(&self, asm: &mut Asm, frame: &MatmulFrame<'_>, turn: &Turn, group: R) {
        let plan = &self.plan;
        let rows = plan.warp_rows();
        let first = asm.op("mad.lo.s32", Class::B32, &[&group, &rows, &self.first]);
        let to = asm.op("add.s32", Class::B32, &[&self.base, &turn.stage]);
        let some = asm.op("setp.lt.s32", Class::Pred, &[&first, &self.end]);
        if plan.fill == Fill::Bulk {
            let own = [&self.lane, &rows as &dyn std::fmt::Display, &some];
            let asks = asm.op("setp.lt.and.s32", Class::Pred, &own);
            asm.when(asks, true, |asm| {
                let row = asm.op("add.s32", Class::B32, &[&first, &self.lane]);
                let to = asm.op("mad.lo.s32", Class::B32, &[&self.lane, &plan.slot(), &to]);
                self.bulk(asm, frame, turn, row, to);
            });
            return;
        }
        asm.when(some, true, |asm| {
            for i in 0..rows {
                let row = asm.op("add.s32", Class::B32, &[&first, &i]);
                let to = asm.op("add.s32", Class::B32, &[&to, &(i * plan.slot())]);
                self.by_lanes(asm, frame, row, to);
            }
        });
        if plan.fill == Fill::Async {
            asm.put("cp.async.commit_group");
        }
    }

    /// Asks the engine for a row's segment.
    fn bulk(&self, asm: &mut Asm, frame: &MatmulFrame<'_>, turn: &Turn, row: R, to: R) {
        let (from, bytes) = self.source(asm, frame, row);
        let barrier = asm.op("add.s32", Class::B32, &[&self.barriers, &turn.barrier]);
        asm.put(format_args!(
            "mbarrier.arrive.expect_tx.shared::cta.b64 _, [{barrier}], {bytes}"
        ));
        asm.put(format_args!(
            "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes \
             [{to}], [{from}], {bytes}, [{barrier}]"
        ));
    }

    /// Copies a row's segment with all lanes.
    fn by_lanes(&self, asm: &mut Asm, frame: &MatmulFrame<'_>, row: R, to: R) {
        let (from, bytes) = self.source(asm, frame, row);
        let unit = match self.plan.fill {
            Fill::Bytes => 1,
            Fill::Bulk | Fill::Async | Fill::Words => UNIT,
        };
        let from = asm.op("mad.wide.s32", Class::B64, &[&self.lane, &unit, &from]);
        let to = asm.op("mad.lo.s32", Class::B32, &[&self.lane, &unit, &to]);
        let at = asm.op("mul.lo.s32", Class::B32, &[&self.lane, &unit]);
        let step = 32 * unit;
        // Words are read whole, so what is behind the last byte is zeros.
        let end = match (self.plan.fill, bytes) {
            (Fill::Bytes, Int::Imm(bytes)) => Int::Imm((bytes + 15) & -16),
            (Fill::Bytes, Int::Reg(bytes)) => {
                let up = asm.op("add.s32", Class::B32, &[&bytes, &15]);
                Int::Reg(asm.op("and.b32", Class::B32, &[&up, &-16]))
            }
            _ => bytes,
        };
        asm.count_rolled(at, end, Int::Imm(step as i64), |asm| {
            match self.plan.fill {
                Fill::Async => asm.put(format_args!(
                    "cp.async.cg.shared.global [{to}], [{from}], 16"
                )),
                Fill::Bytes => {
                    let byte = asm.op("mov.b32", Class::B32, &[&0]);
                    let inside = asm.op("setp.lt.s32", Class::Pred, &[&at, &bytes]);
                    asm.put(format_args!("@{inside} ld.global.nc.u8 {byte}, [{from}]"));
                    asm.put(format_args!("st.shared.u8 [{to}], {byte}"));
                }
                Fill::Bulk | Fill::Words => {
                    let [a, b, c, d] = [(); 4].map(|()| asm.reg(Class::B32));
                    asm.put(format_args!(
                        "ld.global.nc.v4.b32 {{{a}, {b}, {c}, {d}}}, [{from}]"
                    ));
                    asm.put(format_args!(
                        "st.shared.v4.b32 [{to}], {{{a}, {b}, {c}, {d}}}"
                    ));
                }
            }
            asm.op_to("add.s64", from, &[&from, &step]);
            asm.op_to("add.s32", to, &[&to, &step]);
        });
    }

    /// Where a copy of a row's segment begins, and its bytes. A row beyond the end is the last.
    fn source(&self, asm: &mut Asm, frame: &MatmulFrame<'_>, row: R) -> (R, Int) {
        let last = asm.op("add.s32", Class::B32, &[&frame.end, &-1]);
        let row = asm.op("min.s32", Class::B32, &[&row, &last]);
        let from = asm.op("sub.s32", Class::B32, &[&row, &self.first]);
        let at = asm.op(
            "mad.wide.s32",
            Class::B64,
            &[&from, &self.plan.row_bytes, &self.near],
        );
        let far = asm.op("setp.ge.s32", Class::Pred, &[&row, &self.near_end]);
        asm.when(far, true, |asm| {
            let there = frame.b_row(asm, row);
            asm.op_to("mov.b64", at, &[&there]);
        });
        let segment = asm.op("cvt.s64.s32", Class::B64, &[&self.segment]);
        let at = asm.op("add.s64", Class::B64, &[&at, &segment]);
        if !self.may_misplace() {
            return (at, self.bytes);
        }
        let low = asm.op("cvt.u32.u64", Class::B32, &[&at]);
        let low = asm.op("and.b32", Class::B32, &[&low, &(UNIT - 1)]);
        let end = asm.op("add.s32", Class::B32, &[&low, &self.bytes]);
        let end = asm.op("add.s32", Class::B32, &[&end, &(UNIT - 1)]);
        let bytes = asm.op("and.b32", Class::B32, &[&end, &-(UNIT as i64)]);
        let at = asm.op("and.b64", Class::B64, &[&at, &-(UNIT as i64)]);
        (at, Int::Reg(bytes))
    }

    /// Waits for a stage; the shared address of the warp's part of it.
    pub fn wait(&self, asm: &mut Asm, turn: &Turn) -> R {
        match self.plan.fill {
            Fill::Bulk => {
                let barrier = asm.op("add.s32", Class::B32, &[&self.barriers, &turn.barrier]);
                let again = asm.label();
                asm.place(&again);
                let done = asm.reg(Class::Pred);
                asm.put(format_args!(
                    "mbarrier.try_wait.parity.shared::cta.b64 {done}, [{barrier}], {}",
                    turn.parity
                ));
                asm.put(format_args!("@!{done} bra {again}"));
            }
            Fill::Async => {
                asm.put(format_args!("cp.async.wait_group {}", self.plan.stages - 1));
                asm.put("bar.warp.sync 0xffffffff");
            }
            Fill::Words | Fill::Bytes => asm.put("bar.warp.sync 0xffffffff"),
        }
        asm.op("add.s32", Class::B32, &[&self.base, &turn.stage])
    }

    /// Whether rows begin anywhere in their slots.
    pub fn may_misplace(&self) -> bool {
        self.plan.unaligned() && self.plan.fill != Fill::Bytes
    }

    /// The first row of the block.
    pub fn first(&self) -> R {
        self.first
    }

    /// How far from 16 bytes a row begins that is so many behind the first of the launch: tiles begin
    /// there, and all but the last are whole panels of 64 rows.
    pub fn misplaced(&self, asm: &mut Asm, row: R) -> R {
        let at = asm.op("mul.lo.s32", Class::B32, &[&row, &self.plan.row_bytes]);
        asm.op("and.b32", Class::B32, &[&at, &(UNIT - 1)])
    }
}

/// The end of the rows that follow a block's first one in memory: those of its tile.
fn near_end(asm: &mut Asm, frame: &MatmulFrame<'_>, [first, end]: [R; 2]) -> R {
    let Some(tiles) = &frame.tiles else {
        return end;
    };
    let step = asm.reg(Class::B32);
    asm.put(format_args!("ld.param.u32 {step}, [{}+8]", param("tiles")));
    let from = asm.op("sub.s32", Class::B32, &[&first, &tiles.first]);
    let within = asm.op("rem.u32", Class::B32, &[&from, &step]);
    let start = asm.op("sub.s32", Class::B32, &[&first, &within]);
    asm.op("add.s32", Class::B32, &[&start, &step])
}
