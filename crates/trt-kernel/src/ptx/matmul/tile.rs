//! Any product: blocks of 64 x 64 outputs, 16 along `k` at a time through shared memory.
//!
//! The fallback for f32 with many rows, for `sm_75`, and for operands that are strided along `k`
//! or start anywhere: it reads element by element. Bound by the f32 lanes and by shared memory,
//! from which two 16-byte loads feed 16 products.
//! Elements beyond `m`, the range or `k` are zeros, so no product sees what was never loaded. Of a right operand in
//! blocks a thread makes four neighbouring values of a row, which are exact.

use super::out::{self, Sums};
use super::slab::Slab;
use super::{MatmulFrame, in_memory, over, over_rows};
use crate::ptx::asm::{Asm, Class, Int, R};
use crate::ptx::block::Block;
use crate::ptx::emitted::Target;
use crate::ptx::encoded::{Lies, QUAD, Run};
use crate::{BlockType, DType, Dim, Encoding, Matmul};

/// Outputs of a block along `m` and along `n`.
const SIDE: usize = 64;
/// Elements along `k` between two barriers.
const DEPTH: usize = 16;
const THREADS: usize = 256;
/// Elements that a thread brings of each operand.
const EACH: usize = SIDE * DEPTH / THREADS;
const _: () = assert!(EACH == QUAD);
/// Floats from one `k` to the next in shared memory; 16-byte aligned, and off the bank cycle.
const PITCH: usize = SIDE + 4;

pub(super) fn emit(kernel: &Matmul, target: Target, slab: Option<Slab>) -> Block {
    let mut asm = Asm::default();
    let frame = MatmulFrame::begin_slab(&mut asm, kernel, target, slab);
    body(&mut asm, &frame);
    Block {
        name: "tile".into(),
        asm,
        threads: THREADS as u32,
        crowd: Some(2),
        grid: [
            over(&kernel.m, SIDE),
            over_rows(kernel, SIDE),
            over(&kernel.batch, 1),
        ],
        shared: 0,
        order: None,
    }
}

fn body(asm: &mut Asm, frame: &MatmulFrame<'_>) {
    let block = asm.op("mov.u32", Class::B32, &[&"%ctaid.x"]);
    let m0 = asm.op("mul.lo.s32", Class::B32, &[&block, &SIDE]);
    let n0 = frame.block_row(asm, "y", SIDE);
    // One array holds both operands, and after the last product the sums.
    let array = asm.shared(SIDE * PITCH * 4, 16);
    let base = asm.op("mov.u32", Class::B32, &[&array]);
    let sides = [
        Side::begin(asm, frame, true, m0, base),
        Side::begin(asm, frame, false, n0, base),
    ];
    let k = frame.scope.size(asm, &frame.kernel.k);

    let x = asm.op("and.b32", Class::B32, &[&frame.tid, &15]);
    let y = asm.op("shr.u32", Class::B32, &[&frame.tid, &4]);
    let a_at = asm.op("mad.lo.s32", Class::B32, &[&y, &16, &base]);
    let b_at = asm.op("mad.lo.s32", Class::B32, &[&x, &16, &base]);
    let acc: Vec<R> = (0..16).map(|_| asm.f32(0.0)).collect();

    let at = asm.op("mov.b32", Class::B32, &[&0]);
    for side in &sides {
        side.fetch(asm, at, k);
    }
    asm.count(at, k, Int::Imm(DEPTH as i64), |asm| {
        for side in &sides {
            side.put_down(asm);
        }
        asm.put("bar.sync 0");
        let next = asm.op("add.s32", Class::B32, &[&at, &DEPTH]);
        for side in &sides {
            side.fetch(asm, next, k);
        }
        multiply(asm, &acc, a_at, b_at);
        asm.put("bar.sync 0");
    });

    let row = asm.op("mad.lo.s32", Class::B32, &[&y, &(16 * PITCH), &b_at]);
    for (i, four) in acc.chunks(4).enumerate() {
        let list = four.iter().map(R::to_string).collect::<Vec<_>>().join(", ");
        let offset = i * PITCH * 4;
        asm.put(format_args!(
            "st.shared.v4.f32 [{row}+{offset}], {{{list}}}"
        ));
    }
    asm.put("bar.sync 0");
    let sums = Sums {
        base,
        rows: SIDE,
        cols: SIDE,
        pitch: PITCH,
    };
    out::run(asm, frame, &sums, Int::Reg(m0), n0, THREADS as u32);
}

/// `acc[i][j] += a[i] * b[j]` for the 4 x 4 outputs of a thread, `k` by `k`.
fn multiply(asm: &mut Asm, acc: &[R], a_at: R, b_at: R) {
    for k in 0..DEPTH {
        let [a, b] = [(a_at, k), (b_at, DEPTH + k)].map(|(at, k)| {
            let four = asm.regs(Class::F32, 4);
            let list = four.iter().map(R::to_string).collect::<Vec<_>>().join(", ");
            let offset = k * PITCH * 4;
            asm.put(format_args!("ld.shared.v4.f32 {{{list}}}, [{at}+{offset}]"));
            four
        });
        for (i, x) in a.iter().enumerate() {
            for (j, y) in b.iter().enumerate() {
                let sum = acc[4 * i + j];
                asm.op_to("fma.rn.f32", sum, &[x, y, &sum]);
            }
        }
    }
}

/// What a thread brings of one operand.
struct Side {
    encoding: Encoding,
    items: Vec<Item>,
    /// Bytes to the element that is [`DEPTH`] further along `k`, if elements are.
    step: Int,
}

/// One element that a thread brings, again and again, [`DEPTH`] further along `k`.
struct Item {
    /// Its address; of what is not plain, that of its row.
    from: R,
    /// Its `k` in the block.
    k: R,
    /// Whether its row exists.
    row: R,
    /// Where it goes in shared memory.
    to: R,
    /// Its bits on the way, if it is plain: of the class that its dtype loads to.
    bits: R,
}

impl Item {
    /// Whether there is an element so far along `k`.
    fn exists(&self, asm: &mut Asm, at: R, end: Int) -> R {
        let k = asm.op("add.s32", Class::B32, &[&at, &self.k]);
        asm.op("setp.lt.and.s32", Class::Pred, &[&k, &end, &self.row])
    }
}

impl Side {
    fn begin(asm: &mut Asm, frame: &MatmulFrame<'_>, is_a: bool, row0: R, base: R) -> Side {
        let kernel = frame.kernel;
        let operand = if is_a { in_memory(kernel) } else { &kernel.b };
        let encoding = kernel.args[operand.arg.0 as usize];
        let along_k = operand.view.strides[2].is(1);
        let items = (0..EACH)
            .map(|i| {
                let (row, k) = match encoding {
                    Encoding::Plain(_) | Encoding::Packed(_) | Encoding::Code => {
                        place(asm, frame.tid, i, along_k)
                    }
                    Encoding::Blocks(_) => quad(asm, frame.tid, i),
                };
                let block = if is_a { 0 } else { DEPTH };
                let k_block = asm.op("add.s32", Class::B32, &[&k, &block]);
                let to = asm.op("mad.lo.s32", Class::B32, &[&k_block, &PITCH, &row]);
                let to = asm.op("mad.lo.s32", Class::B32, &[&to, &4, &base]);
                let row = asm.op("add.s32", Class::B32, &[&row, &row0]);
                let end = if is_a { frame.m } else { frame.end };
                let exists = asm.op("setp.lt.s32", Class::Pred, &[&row, &end]);
                let last = asm.op("add.s32", Class::B32, &[&end, &-1]);
                let row = asm.op("min.s32", Class::B32, &[&row, &last]);
                let from = match (is_a, encoding) {
                    (true, _) => frame.a_at(asm, Int::Reg(row), Int::Reg(k)),
                    (false, Encoding::Plain(_) | Encoding::Packed(_) | Encoding::Code) => {
                        frame.b_at(asm, row, Int::Reg(k))
                    }
                    (false, Encoding::Blocks(_)) => frame.b_row(asm, row),
                };
                // The address is walked along; it must not be the register of the argument.
                let from = asm.op("mov.b64", Class::B64, &[&from]);
                let bits = asm.reg(match encoding.bytes() {
                    2 => Class::B16,
                    _ => Class::B32,
                });
                Item {
                    from,
                    k,
                    row: exists,
                    to,
                    bits,
                }
            })
            .collect();
        let step = &operand.view.strides[2] * &Dim::from(DEPTH * encoding.dtype().size());
        Side {
            encoding,
            items,
            step: frame.scope.wide(asm, &step),
        }
    }

    /// Loads the elements from `at` on, `k` long in all, and moves on.
    fn fetch(&self, asm: &mut Asm, at: R, end: Int) {
        let dtype = match self.encoding {
            Encoding::Plain(dtype) => dtype,
            Encoding::Packed(_) | Encoding::Code => self.encoding.dtype(),
            Encoding::Blocks(block) => return self.fetch_quad(asm, block, at, end),
        };
        for item in &self.items {
            let p = item.exists(asm, at, end);
            let (bits, from, wide) = (item.bits, item.from, 8 * dtype.size());
            asm.put(format_args!("mov.b{wide} {bits}, 0"));
            asm.put(format_args!("@{p} ld.global.b{wide} {bits}, [{from}]"));
            asm.op_to("add.s64", from, &[&from, &self.step]);
        }
    }

    /// The elements of a thread from a row in blocks: they are neighbours, and all exist or none does.
    fn fetch_quad(&self, asm: &mut Asm, block: BlockType, at: R, end: Int) {
        let Some(first) = self.items.first() else {
            return;
        };
        let p = first.exists(asm, at, end);
        for item in &self.items {
            asm.put(format_args!("mov.b32 {}, 0", item.bits));
        }
        asm.when(p, true, |asm| {
            let k = asm.op("add.s32", Class::B32, &[&at, &first.k]);
            let run = Run::of_row(asm, block, (first.from, k), QUAD, Lies::InTile);
            for (item, value) in self.items.iter().zip(run.values(asm)) {
                asm.put(format_args!("mov.b32 {}, {value}", item.bits));
            }
        });
    }

    /// Writes the elements to shared memory as f32.
    fn put_down(&self, asm: &mut Asm) {
        for item in &self.items {
            let value = match self.encoding.dtype() {
                DType::F16 => asm.op("cvt.f32.f16", Class::F32, &[&item.bits]),
                DType::BF16 => {
                    let wide = asm.op("cvt.u32.u16", Class::B32, &[&item.bits]);
                    asm.op("shl.b32", Class::B32, &[&wide, &16])
                }
                _ => item.bits,
            };
            asm.put(format_args!("st.shared.b32 [{}], {value}", item.to));
        }
    }
}

/// Row and `k` of the `i`-th element of a thread: neighbouring threads read neighbouring
/// elements where they are contiguous along `k`, else neighbouring rows.
fn place(asm: &mut Asm, tid: R, i: usize, along_k: bool) -> (R, R) {
    let inner = if along_k { DEPTH } else { SIDE };
    let low = asm.op("and.b32", Class::B32, &[&tid, &(inner - 1)]);
    let high = asm.op("shr.u32", Class::B32, &[&tid, &inner.trailing_zeros()]);
    let high = asm.op("add.s32", Class::B32, &[&high, &(i * THREADS / inner)]);
    match along_k {
        true => (high, low),
        false => (low, high),
    }
}

/// Row and `k` of the `i`-th of the neighbouring elements of a thread.
fn quad(asm: &mut Asm, tid: R, i: usize) -> (R, R) {
    let low = asm.op("and.b32", Class::B32, &[&tid, &(DEPTH / QUAD - 1)]);
    let k = asm.op("mad.lo.s32", Class::B32, &[&low, &QUAD, &i]);
    let row = asm.op(
        "shr.u32",
        Class::B32,
        &[&tid, &(DEPTH / QUAD).trailing_zeros()],
    );
    (row, k)
}
