//! The way of a block's warps: what is met comes to them, they go through rows, and put down the sums of
//! their segments.

use super::super::super::MatmulFrame;
use super::super::left::Prologue;
use super::meets;
use super::plan::{Fill, RingPlan};
use super::products::{self, Met};
use super::ring::{Ring, Turn};
use super::unpack::Unpacker;
use crate::ptx::asm::{Asm, Class, Int, R};

/// A lane's place in its warp's segment.
#[derive(Clone, Copy)]
pub(super) struct InWarp {
    pub segment: R,
    /// The lane's piece in the segment, and whether it has one if not all do.
    piece: R,
    has: Option<R>,
}

fn place(asm: &mut Asm, plan: RingPlan, segment: R, lane: R) -> InWarp {
    let mut piece = asm.op("and.b32", Class::B32, &[&lane, &(plan.order.lanes - 1)]);
    let mut has = None;
    let last = plan.last_pieces();
    if last < plan.order.lanes {
        let is_last = asm.op(
            "setp.ge.s32",
            Class::Pred,
            &[&segment, &(plan.order.segments - 1)],
        );
        let beyond = asm.op("setp.ge.and.s32", Class::Pred, &[&piece, &last, &is_last]);
        let p = asm.reg(Class::Pred);
        asm.put(format_args!("not.pred {p}, {beyond}"));
        // Who has none takes the first, and its sums are not used.
        piece = asm.op("selp.b32", Class::B32, &[&piece, &0, &p]);
        has = Some(p);
    }
    InWarp {
        segment,
        piece,
        has,
    }
}

/// What a pass over the block's rows needs.
pub(super) struct Work<'a> {
    pub frame: &'a MatmulFrame<'a>,
    pub plan: RingPlan,
    pub ring: &'a Ring,
    pub turn: Turn,
    pub lane: R,
    /// The team in the warp.
    pub team: R,
    /// Which of the warps with a segment.
    pub across: R,
    /// Shared addresses of what is met, and of sums: `[segment][m][row of b]`.
    pub meets: R,
    pub sums: R,
}

/// What rows of `b` meet in a pass: how many rows of `a`, from which one on, and the lane's pieces.
pub(super) struct Pass<'a> {
    pub m: usize,
    pub first: Int,
    met: &'a Met,
    pub place: InWarp,
    unpacker: Unpacker,
}

impl Work<'_> {
    /// One row of `a`, whose pieces stay in registers; the first stage is on its way.
    pub fn held(&self, asm: &mut Asm, prologue: Option<&Prologue>, segment: R) {
        let plan = self.plan;
        let place = place(asm, plan, segment, self.lane);
        let later = |asm: &mut Asm| {
            let from = (self.across, 1);
            self.ring.fill_all(asm, self.frame, &self.turn, from)
        };
        let (met, next) = match plan.apart {
            true => self.take(asm, prologue, place, later),
            false => {
                let met = self.hold(asm, prologue, place);
                (met, later(asm))
            }
        };
        let pass = Pass {
            m: 1,
            first: Int::Imm(0),
            met: &met,
            place,
            unpacker: unpacker(asm, plan, place),
        };
        self.rows(asm, &pass, next);
    }

    /// Brings what the lane's piece meets to a place of its own and takes it. The other stages are filled
    /// as soon as it is on its way; a later part of a chain finds it there.
    fn take(
        &self,
        asm: &mut Asm,
        prologue: Option<&Prologue>,
        place: InWarp,
        later: impl FnOnce(&mut Asm) -> R,
    ) -> (Met, R) {
        let plan = self.plan;
        let once = |asm: &mut Asm, what: &dyn Fn(&mut Asm)| match prologue {
            Some(prologue) => prologue.once(asm, what),
            None => what(asm),
        };
        let stretch = self.all_pieces();
        once(asm, &|asm| {
            meets::bring(asm, self.frame, plan, prologue, stretch)
        });
        let next = later(asm);
        once(asm, &|asm| asm.put("bar.sync 0"));
        let piece = asm.op(
            "mad.lo.s32",
            Class::B32,
            &[&place.segment, &plan.order.lanes, &place.piece],
        );
        let pitch = meets::PITCH;
        let at = asm.op("mad.lo.s32", Class::B32, &[&piece, &pitch, &self.meets]);
        (Met::hold(asm, plan, at), next)
    }

    fn all_pieces(&self) -> meets::Stretch {
        meets::Stretch {
            row: Int::Imm(0),
            first: Int::Imm(0),
            end: Int::Imm(self.plan.order.pieces as i64),
            to: self.meets,
        }
    }

    /// Brings what the lane's piece meets and takes it, some segments at a time.
    fn hold(&self, asm: &mut Asm, prologue: Option<&Prologue>, place: InWarp) -> Met {
        let plan = self.plan;
        let some = plan.brought * plan.order.lanes;
        let own = asm.op("rem.u32", Class::B32, &[&place.segment, &plan.brought]);
        let piece = asm.op(
            "mad.lo.s32",
            Class::B32,
            &[&own, &plan.order.lanes, &place.piece],
        );
        let at = asm.op(
            "mad.lo.s32",
            Class::B32,
            &[&piece, &meets::PITCH, &self.meets],
        );
        let stretch = self.all_pieces();
        if plan.brought >= plan.order.segments {
            self.bring(asm, prologue, &[stretch]);
            let met = Met::hold(asm, plan, at);
            self.hand_over(asm);
            return met;
        }
        let turn = asm.op("div.u32", Class::B32, &[&place.segment, &plan.brought]);
        let rounds = plan.order.segments.div_ceil(plan.brought);
        let round = asm.op("mov.b32", Class::B32, &[&0]);
        let mut met = None;
        asm.count_rolled(round, Int::Imm(rounds as i64), Int::Imm(1), |asm| {
            let (first, end) = stretch_of(asm, plan, round, some);
            let stretch = meets::Stretch {
                first,
                end,
                ..stretch
            };
            self.bring(asm, prologue, &[stretch]);
            let own = asm.op("setp.eq.s32", Class::Pred, &[&turn, &round]);
            asm.when(own, true, |asm| met = Some(Met::hold(asm, plan, at)));
            self.hand_over(asm);
        });
        met.unwrap_or_else(|| Met::hold(asm, plan, at))
    }

    /// Several rows of `a`, which are met from shared memory: some rows and some segments at a time. All
    /// stages of the first are on their way, up to the group `next`.
    pub fn shared(
        &self,
        asm: &mut Asm,
        prologue: Option<&Prologue>,
        (own, next): (R, R),
        rows: [R; 2],
    ) {
        let plan = self.plan;
        let sets = plan.order.segments.div_ceil(plan.brought);
        let passes = plan.m.div_ceil(plan.at_once);
        let pass = asm.op("mov.b32", Class::B32, &[&0]);
        let next = asm.op("mov.b32", Class::B32, &[&next]);
        let all = sets * passes;
        let segment = |asm: &mut Asm, pass: R| {
            let set = asm.op("rem.u32", Class::B32, &[&pass, &sets]);
            asm.op("mad.lo.s32", Class::B32, &[&set, &plan.brought, &own])
        };
        asm.count_rolled(pass, Int::Imm(all as i64), Int::Imm(1), |asm| {
            let number = segment(asm, pass);
            let set = asm.op("rem.u32", Class::B32, &[&pass, &sets]);
            let first = asm.op("div.u32", Class::B32, &[&pass, &sets]);
            let first = asm.op("mul.lo.s32", Class::B32, &[&first, &plan.at_once]);
            let some = plan.brought * plan.order.lanes;
            let (from, end) = stretch_of(asm, plan, set, some);
            let stretch = |asm: &mut Asm, m: usize| {
                // Rows beyond m are read as the last, and their sums are not used.
                let row = asm.op("add.s32", Class::B32, &[&first, &m]);
                let last = asm.op("mov.b32", Class::B32, &[&self.frame.m]);
                let last = asm.op("add.s32", Class::B32, &[&last, &-1]);
                meets::Stretch {
                    row: Int::Reg(asm.op("min.s32", Class::B32, &[&row, &last])),
                    first: from,
                    end,
                    to: asm.op("add.s32", Class::B32, &[&self.meets, &(m * plan.met_row())]),
                }
            };
            let stretches: Vec<_> = (0..plan.at_once).map(|m| stretch(asm, m)).collect();
            self.bring(asm, prologue, &stretches);
            let place = place(asm, plan, number, self.lane);
            let piece = asm.op(
                "mad.lo.s32",
                Class::B32,
                &[&own, &plan.order.lanes, &place.piece],
            );
            let at = asm.op(
                "mad.lo.s32",
                Class::B32,
                &[&piece, &meets::PITCH, &self.meets],
            );
            let met = Met::Shared(at, plan.met_row());
            let own_pass = Pass {
                m: plan.at_once,
                first: Int::Reg(first),
                met: &met,
                place,
                unpacker: unpacker(asm, plan, place),
            };
            self.rows(asm, &own_pass, next);
            let later = asm.op("add.s32", Class::B32, &[&pass, &1]);
            let more = asm.op("setp.lt.s32", Class::Pred, &[&later, &all]);
            let end = asm.op("selp.b32", Class::B32, &[&rows[1], &rows[0], &more]);
            let number = segment(asm, later);
            self.ring.bind(asm, number, end);
            let after = self
                .ring
                .fill_all(asm, self.frame, &self.turn, (self.across, 0));
            asm.op_to("mov.b32", next, &[&after]);
            asm.put("bar.sync 0");
        });
    }

    /// Brings pieces of some rows of `a`, all threads may read them after that.
    fn bring(&self, asm: &mut Asm, prologue: Option<&Prologue>, stretches: &[meets::Stretch]) {
        for stretch in stretches {
            meets::bring(asm, self.frame, self.plan, prologue, *stretch);
        }
        asm.put("bar.sync 0");
    }

    /// Lets the place of what was met be used for stages.
    fn hand_over(&self, asm: &mut Asm) {
        if self.plan.fill == Fill::Bulk {
            asm.put("fence.proxy.async.shared::cta");
        }
        asm.put("bar.sync 0");
    }

    /// Goes through the rows of the block; stages are on their way up to the group `next`.
    fn rows(&self, asm: &mut Asm, pass: &Pass<'_>, next: R) {
        let plan = &self.plan;
        let group = asm.op("mov.b32", Class::B32, &[&self.across]);
        let next = asm.op("mov.b32", Class::B32, &[&next]);
        let teams = plan.rows * plan.slot();
        let team = asm.op("mul.lo.s32", Class::B32, &[&self.team, &teams]);
        let end = Int::Reg(self.ring.groups(asm));
        asm.count_rolled(group, end, Int::Imm(plan.across as i64), |asm| {
            let at = self.ring.wait(asm, &self.turn);
            let at = match plan.teams() {
                1 => at,
                _ => asm.op("add.s32", Class::B32, &[&at, &team]),
            };
            let source = |r: usize| ((at, r * plan.slot()), self.misplaced(asm, group, r));
            let sources: Vec<products::Source> = (0..plan.rows).map(source).collect();
            let what = (*plan, pass.m);
            let sums = products::multiply(asm, what, &pass.unpacker, &sources, pass.met);
            asm.put("bar.warp.sync 0xffffffff");
            self.ring.fill(asm, self.frame, &self.turn, next);
            self.ring.next(asm, &self.turn);
            asm.op_to("add.s32", next, &[&next, &plan.across]);
            let sums = match pass.place.has {
                None => sums,
                Some(has) => {
                    let zero = asm.f32(0.0);
                    let own = |s: &R| asm.op("selp.f32", Class::F32, &[s, &zero, &has]);
                    sums.iter().map(own).collect()
                }
            };
            self.fold(asm, sums, group, pass);
        });
    }

    /// How far from 16 bytes a row of a group lies.
    fn misplaced(&self, asm: &mut Asm, group: R, r: usize) -> Option<R> {
        if !self.ring.may_misplace() {
            return None;
        }
        let row = self.number(asm, group);
        let row = asm.op("add.s32", Class::B32, &[&row, &r]);
        let first = asm.op(
            "sub.s32",
            Class::B32,
            &[&self.ring.first(), &self.frame.first],
        );
        let row = asm.op("add.s32", Class::B32, &[&row, &first]);
        let last = asm.op("sub.s32", Class::B32, &[&self.frame.end, &self.frame.first]);
        let last = asm.op("add.s32", Class::B32, &[&last, &-1]);
        let row = asm.op("min.s32", Class::B32, &[&row, &last]);
        Some(self.ring.misplaced(asm, row))
    }
}

fn unpacker(asm: &mut Asm, plan: RingPlan, place: InWarp) -> Unpacker {
    let second = plan.halved().then(|| {
        // The last piece of a row has one block.
        let last = plan.order.segments - 1;
        let is_last = asm.op("setp.ne.s32", Class::Pred, &[&place.segment, &last]);
        let piece = plan.last_pieces() - 1;
        asm.op(
            "setp.ne.or.s32",
            Class::Pred,
            &[&place.piece, &piece, &is_last],
        )
    });
    Unpacker::begin(asm, plan, place.piece, second)
}

/// The first of some pieces in a round, and their end.
fn stretch_of(asm: &mut Asm, plan: RingPlan, round: R, some: usize) -> (Int, Int) {
    let first = asm.op("mul.lo.s32", Class::B32, &[&round, &some]);
    let end = asm.op("add.s32", Class::B32, &[&first, &some]);
    let end = asm.op("min.s32", Class::B32, &[&end, &plan.order.pieces]);
    (Int::Reg(first), Int::Reg(end))
}
