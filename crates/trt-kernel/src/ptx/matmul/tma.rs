//! Products of warp groups ([`wgmma`]) whose operands the copy engine brings (TMA).
//!
//! One thread of a warp of its own asks for stages: a box of 128 rows of `a` and boxes of 64 rows
//! of `b`, each swizzled on its way as the products read it. Two groups of four warps do nothing
//! but multiply: no addresses, no copies, and no barrier that all threads meet at. Each stage has
//! two barriers in shared memory instead. *Full* completes when the bytes that were asked for have
//! come; *empty*, when all eight warps are done with the products that read the stage, which they
//! know of the stage before while those of the next are under way. So the copy engine is up to
//! `stages - 1` ahead. The products and their order are those of [`wgmma`], so are the bits.
//!
//! A map of the copy engine has one base and one pitch, but tiles lie at any address. A map of
//! rows of `k` elements from the lowest tile on is the way to all of them: from a base, a tile
//! lies so many whole rows on and so many bytes into a row, both the same for all that the tile's
//! rows are read in: where a row of the tile crosses the end of a row of the map, it goes on at
//! the start of the next. As tiles lie at equal distances modulo 128 bytes, that never happens
//! within a box. Rows are counted in 31 bits, which may be too few from residents to a ring, so
//! there are two maps, each for what lies from its base on.
//!
//! Rows that were written out to working memory lie there one after another, in one map.
//!
//! Everything must be whole: `k` in stages, the rows of a ranged `b` in boxes. No box leaves its
//! tile: blocks that reach beyond the range read its last boxes again. Rows of `a` beyond `m` are
//! zeros.
//!
//! Bound by the tensor cores: 1024 cycles for a stage of 128 x 256, of 48 KiB; and by the
//! second-level cache, from which all multiprocessors together ask 48 bytes a cycle each then. A
//! launch has at least the time of a block's `k / 64` stages, for each time that its blocks fill
//! the device, and of one epilogue.

use super::ring::{DEPTH, ROW, Ring};
use super::slab::Slab;
use super::wgmma::{self, ROWS, WgmmaShape};
use super::{MatmulFrame, in_memory, over, over_rows, right_dtype};
use crate::ptx::asm::{Asm, Class, Int, R, param};
use crate::ptx::block::Block;
use crate::ptx::emitted::{MAP_BYTES, MAP_RANGES, Mapped, Target, TensorMap};
use crate::{Matmul, Operand};

/// Threads that multiply.
const CONSUMERS: usize = wgmma::THREADS;
/// And a warp of which one thread asks for stages.
const THREADS: usize = CONSUMERS + 32;
/// Rows of a box of `b`: those that tiles are whole in.
const PANEL: usize = crate::ROW_PANEL;
/// Elements in which maps begin, and rows of maps follow each other: 16 bytes.
const PIECE: usize = 8;
/// Bytes of a barrier in shared memory.
const BARRIER: usize = 8;

/// Whether both operands can be brought by maps.
pub(super) fn fits(kernel: &Matmul, target: Target) -> bool {
    let Some(left) = kernel.a.stored() else {
        return false;
    };
    let whole = |size: Option<usize>, of: usize| size.is_some_and(|s| s.is_multiple_of(of));
    target.maps()
        && kernel.batch.is(1)
        && whole(kernel.k.constant_size(), DEPTH)
        && pitch(kernel, left).is_some()
        && match kernel.ranged {
            true => whole(kernel.n.constant_size(), PANEL),
            false => pitch(kernel, &kernel.b).is_some(),
        }
}

/// Elements from a row of an operand to the next, if they and the first are known, both are whole
/// pieces of 16 bytes, and rows do not overlap.
fn pitch(kernel: &Matmul, operand: &Operand) -> Option<usize> {
    let offset = operand.view.offset.constant_size()?;
    let pitch = operand.view.strides[1].constant_size()?;
    let whole = offset.is_multiple_of(PIECE) && pitch.is_multiple_of(PIECE);
    let fits = pitch >= kernel.k.constant_size()? && pitch < 1 << 38;
    (whole && fits).then_some(pitch)
}

/// The maps of a kernel: of `a`, then of `b`, of which a slab may be in working memory.
pub(super) fn maps(kernel: &Matmul, slab: Option<Slab>) -> Vec<TensorMap> {
    let columns = kernel.k.constant_size().unwrap_or(0);
    let rows = |operand: &Operand, rows, box_rows: usize| {
        let dtype = kernel.args[operand.arg.0 as usize].dtype();
        TensorMap {
            of: Mapped::Rows {
                arg: operand.arg,
                offset: operand.view.offset.constant_size().unwrap_or(0) * dtype.size(),
                rows,
            },
            dtype,
            columns,
            pitch: pitch(kernel, operand).unwrap_or(columns) * dtype.size(),
            box_rows: box_rows as u32,
        }
    };
    let mut maps = vec![rows(in_memory(kernel), kernel.m.clone(), ROWS)];
    let packed = |of| TensorMap {
        of,
        dtype: right_dtype(kernel),
        columns,
        pitch: columns * right_dtype(kernel).size(),
        box_rows: PANEL as u32,
    };
    match (kernel.ranged, slab) {
        (false, _) => maps.push(rows(&kernel.b, kernel.n.clone(), PANEL)),
        (true, None) => {
            let ranges = (0..MAP_RANGES).map(|range| Mapped::Tiles { weight: 0, range });
            maps.extend(ranges.map(packed));
        }
        (true, Some(slab)) => maps.push(packed(slab.mapped())),
    }
    maps
}

/// An entry of one shape.
pub(super) fn emit(
    kernel: &Matmul,
    target: Target,
    shape: WgmmaShape,
    slab: Option<Slab>,
) -> Block {
    let mut asm = Asm::default();
    let frame = MatmulFrame::begin_slab(&mut asm, kernel, target, slab);
    body(&mut asm, &frame, shape);
    let ring = shape.ring();
    Block {
        name: format!("tma{ROWS}x{}", shape.cols()),
        asm,
        threads: THREADS as u32,
        crowd: Some(1),
        // Blocks of the same rows of `b` run together, so these come from memory once.
        grid: [
            over(&kernel.m, ROWS),
            over_rows(kernel, shape.cols()),
            over(&kernel.batch, 1),
        ],
        shared: (ring.shared() + 2 * BARRIER * ring.stages) as u32,
        order: None,
    }
}

fn body(asm: &mut Asm, frame: &MatmulFrame<'_>, shape: WgmmaShape) {
    let block = asm.op("mov.u32", Class::B32, &[&"%ctaid.x"]);
    let m0 = asm.op("mul.lo.s32", Class::B32, &[&block, &ROWS]);
    let n0 = frame.block_row(asm, "y", shape.cols());
    let base = asm.op("mov.u32", Class::B32, &[&"dynamic"]);
    let stages = FedStages::begin(asm, shape.ring(), base);
    let first = asm.op("setp.eq.u32", Class::Pred, &[&frame.tid, &0]);
    asm.when(first, true, |asm| stages.init(asm));
    // The engine counts bytes at these barriers.
    asm.put("fence.proxy.async.shared::cta");
    asm.put("bar.sync 0");

    let k = frame.kernel.k.constant_size().unwrap_or(0);
    let steps = Int::Imm((k / DEPTH) as i64);
    let multiplies = asm.op("setp.lt.u32", Class::Pred, &[&frame.tid, &CONSUMERS]);
    asm.when(multiplies, false, |asm| {
        let asks = asm.op("setp.eq.u32", Class::Pred, &[&frame.tid, &CONSUMERS]);
        asm.when(asks, true, |asm| {
            bring(asm, frame, &stages, [m0, n0], steps)
        });
        asm.put("ret");
    });
    let acc: Vec<R> = (0..shape.cols() / 2).map(|_| asm.f32(0.0)).collect();
    multiply(asm, frame, &stages, &acc, steps);
    let sync = format!("bar.sync 1, {CONSUMERS}");
    let products = wgmma::Products {
        shape,
        base,
        origin: [m0, n0],
        acc: &acc,
    };
    wgmma::finish(asm, frame, &products, &sync);
}

/// The stages and their barriers, and where in them a thread is.
struct FedStages {
    ring: Ring,
    base: R,
    /// Address of the first stage's full barrier; those of the others follow, then the empty ones.
    barriers: R,
    /// Bytes to the stage.
    stage: R,
    /// Bytes to its barriers from the first ones.
    barrier: R,
    /// The parity of the round through the ring.
    parity: R,
}

impl FedStages {
    fn begin(asm: &mut Asm, ring: Ring, base: R) -> FedStages {
        let mut zero = || asm.op("mov.b32", Class::B32, &[&0]);
        let (stage, barrier, parity) = (zero(), zero(), zero());
        FedStages {
            ring,
            base,
            barriers: asm.op("add.s32", Class::B32, &[&base, &ring.shared()]),
            stage,
            barrier,
            parity,
        }
    }

    /// Bytes from a stage's full barrier to its empty one.
    fn to_empty(&self) -> usize {
        BARRIER * self.ring.stages
    }

    /// Full completes with one thread and the bytes that it announces, empty with all warps that
    /// multiply.
    fn init(&self, asm: &mut Asm) {
        for stage in 0..self.ring.stages {
            let (full, at) = (BARRIER * stage, self.barriers);
            let empty = full + self.to_empty();
            asm.put(format_args!(
                "mbarrier.init.shared::cta.b64 [{at}+{full}], 1"
            ));
            asm.put(format_args!(
                "mbarrier.init.shared::cta.b64 [{at}+{empty}], {}",
                CONSUMERS / 32
            ));
        }
    }

    /// The address of the stage's full barrier.
    fn full(&self, asm: &mut Asm) -> R {
        asm.op("add.s32", Class::B32, &[&self.barriers, &self.barrier])
    }

    /// Goes to the next stage.
    fn turn(&self, asm: &mut Asm) {
        let bytes = self.ring.stage_bytes();
        let (stage, barrier, parity) = (self.stage, self.barrier, self.parity);
        asm.op_to("add.s32", stage, &[&stage, &bytes]);
        asm.op_to("add.s32", barrier, &[&barrier, &BARRIER]);
        let end = bytes * self.ring.stages;
        let end = asm.op("setp.ge.s32", Class::Pred, &[&stage, &end]);
        asm.put(format_args!("@{end} mov.b32 {stage}, 0"));
        asm.put(format_args!("@{end} mov.b32 {barrier}, 0"));
        asm.put(format_args!("@{end} xor.b32 {parity}, {parity}, 1"));
    }
}

/// Waits until the round of this parity is complete at a barrier. A new barrier counts as one
/// that has completed a round of parity 1.
fn wait(asm: &mut Asm, barrier: impl std::fmt::Display, parity: R) {
    let again = asm.label();
    asm.place(&again);
    let done = asm.reg(Class::Pred);
    asm.put(format_args!(
        "mbarrier.try_wait.parity.shared::cta.b64 {done}, [{barrier}], {parity}"
    ));
    asm.put(format_args!("@!{done} bra {again}"));
}

/// Where boxes come from: a map, and the first column and row of the next box.
struct Source {
    map: R,
    at: [R; 2],
    /// Where it lies in a stage.
    to: usize,
    /// Whether its rows may cross the end of a row of the map.
    crosses: bool,
}

/// Brings all stages; for one thread.
fn bring(asm: &mut Asm, frame: &MatmulFrame<'_>, stages: &FedStages, origin: [R; 2], steps: Int) {
    let sources = sources(asm, frame, stages.ring, origin);
    let k = frame.kernel.k.constant_size().unwrap_or(0);
    let (bytes, to_empty) = (stages.ring.stage_bytes(), stages.to_empty());
    let step = asm.op("mov.b32", Class::B32, &[&0]);
    asm.count_rolled(step, steps, Int::Imm(1), |asm| {
        let full = stages.full(asm);
        let before = asm.op("xor.b32", Class::B32, &[&stages.parity, &1]);
        wait(asm, format_args!("{full}+{to_empty}"), before);
        asm.put(format_args!(
            "mbarrier.arrive.expect_tx.shared::cta.b64 _, [{full}], {bytes}"
        ));
        let stage = asm.op("add.s32", Class::B32, &[&stages.base, &stages.stage]);
        for Source { map, at, to, .. } in &sources {
            let [x, y] = at;
            asm.put(format_args!(
                "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes \
                 [{stage}+{to}], [{map}, {{{x}, {y}}}], [{full}]"
            ));
        }
        for Source { at, crosses, .. } in &sources {
            let [x, y] = at;
            asm.op_to("add.s32", *x, &[x, &DEPTH]);
            if *crosses {
                let end = asm.op("setp.ge.s32", Class::Pred, &[x, &k]);
                asm.put(format_args!("@{end} sub.s32 {x}, {x}, {k}"));
                asm.put(format_args!("@{end} add.s32 {y}, {y}, 1"));
            }
        }
        stages.turn(asm);
    });
}

/// The boxes of a stage.
fn sources(asm: &mut Asm, frame: &MatmulFrame<'_>, ring: Ring, [m0, n0]: [R; 2]) -> Vec<Source> {
    let zero = |asm: &mut Asm| asm.op("mov.b32", Class::B32, &[&0]);
    let mut all = vec![Source {
        map: map(asm, 0),
        at: [zero(asm), m0],
        to: 0,
        crosses: false,
    }];
    let count = match (&frame.tiles, frame.unpacked) {
        (Some(_), None) => MAP_RANGES,
        (None, _) | (_, Some(_)) => 1,
    };
    let maps: Vec<R> = (1..=count).map(|i| map(asm, usize::from(i))).collect();
    for panel in 0..ring.cols / PANEL {
        let row = asm.op("add.s32", Class::B32, &[&n0, &(panel * PANEL)]);
        let to = ring.rows * ROW + panel * PANEL * ROW;
        all.push(match &frame.tiles {
            None => Source {
                map: maps[0],
                at: [zero(asm), row],
                to,
                crosses: false,
            },
            Some(_) => {
                let last = asm.op("add.s32", Class::B32, &[&frame.end, &-(PANEL as i64)]);
                let row = asm.op("min.s32", Class::B32, &[&row, &last]);
                if frame.unpacked.is_some() {
                    let row = asm.op("sub.s32", Class::B32, &[&row, &frame.first]);
                    #[rustfmt::skip]
                    let source = Source { map: maps[0], at: [zero(asm), row], to, crosses: false };
                    all.push(source);
                    continue;
                }
                let from = frame.b_at(asm, row, Int::Imm(0));
                let (map, at) = in_maps(asm, frame, &maps, from);
                let crosses = true;
                #[rustfmt::skip]
                let source = Source { map, at, to, crosses };
                source
            }
        });
    }
    all
}

/// The generic address of a map among the parameters.
fn map(asm: &mut Asm, index: usize) -> R {
    let at = asm.op("mov.b64", Class::B64, &[&param(format_args!("map{index}"))]);
    asm.op("cvta.param.u64", Class::B64, &[&at])
}

/// The last of the tiles' maps whose base is not above an address, and the column and row there.
fn in_maps(asm: &mut Asm, frame: &MatmulFrame<'_>, maps: &[R], address: R) -> (R, [R; 2]) {
    let base = |asm: &mut Asm, i: usize| {
        let at = format!("[{}+{MAP_BYTES}]", param(format_args!("map{}", i + 1)));
        asm.op("ld.param.u64", Class::B64, &[&at])
    };
    let (mut map, mut from) = (maps[0], base(asm, 0));
    for (i, other) in maps.iter().enumerate().skip(1) {
        let start = base(asm, i);
        let beyond = asm.op("setp.ge.u64", Class::Pred, &[&address, &start]);
        map = asm.op("selp.b64", Class::B64, &[other, &map, &beyond]);
        from = asm.op("selp.b64", Class::B64, &[&start, &from, &beyond]);
    }
    let size = right_dtype(frame.kernel).size();
    let pitch = frame.kernel.k.constant_size().unwrap_or(1) * size;
    let distance = asm.op("sub.s64", Class::B64, &[&address, &from]);
    let row = asm.op("div.u64", Class::B64, &[&distance, &pitch]);
    let skipped = asm.op("mul.lo.s64", Class::B64, &[&row, &pitch]);
    let within = asm.op("sub.s64", Class::B64, &[&distance, &skipped]);
    let column = asm.op("cvt.u32.u64", Class::B32, &[&within]);
    let column = asm.op("shr.u32", Class::B32, &[&column, &size.trailing_zeros()]);
    let row = asm.op("cvt.u32.u64", Class::B32, &[&row]);
    (map, [column, row])
}

/// Multiplies all stages; for the threads of both groups.
fn multiply(asm: &mut Asm, frame: &MatmulFrame<'_>, stages: &FedStages, acc: &[R], steps: Int) {
    let group_base = wgmma::group_rows(asm, frame, stages.base);
    let lane = asm.op("and.b32", Class::B32, &[&frame.tid, &31]);
    let speaks = asm.op("setp.eq.u32", Class::Pred, &[&lane, &0]);
    let before = asm.op("mov.b32", Class::B32, &[&stages.barriers]);
    let step = asm.op("mov.b32", Class::B32, &[&0]);
    let to_empty = stages.to_empty();
    asm.count_rolled(step, steps, Int::Imm(1), |asm| {
        let full = stages.full(asm);
        wait(asm, full, stages.parity);
        let a = asm.op("add.s32", Class::B32, &[&group_base, &stages.stage]);
        let b = asm.op("add.s32", Class::B32, &[&stages.base, &stages.stage]);
        let b = asm.op("add.s32", Class::B32, &[&b, &(ROWS * ROW)]);
        wgmma::multiply(asm, frame, acc, [a, b]);
        asm.put("wgmma.wait_group.sync.aligned 1");
        // The products of the stage before are done.
        let done = asm.op("setp.gt.and.s32", Class::Pred, &[&step, &0, &speaks]);
        asm.put(format_args!(
            "@{done} mbarrier.arrive.shared::cta.b64 _, [{before}+{to_empty}]"
        ));
        asm.op_to("mov.b32", before, &[&full]);
        stages.turn(asm);
    });
}
