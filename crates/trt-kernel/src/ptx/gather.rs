//! Rows of a table, picked by ids.
//!
//! A block takes a part of one row; of a row in blocks of values each thread takes 32 neighbours. The table may lie anywhere: it is read in wide accesses where
//! the row turns out to be aligned, else element by element with neighbouring threads on
//! neighbouring elements, since it is mapped host memory that comes in whole lines. An id outside
//! of the table reads nothing: it counts as a row of zeros, and the first to meet one says so in
//! the fault record.

use super::PtxError;
use super::access;
use super::asm::{Asm, Class, Int, R};
use super::block::Block;
use super::divide;
use super::emitted::{Emitted, Target};
use super::encoded::{self, Lies, RUN, Run};
use super::lanes::{self, Point};
use super::pick;
use super::scope::Scope;
use super::space;
use crate::launch::Extent;
use crate::{BlockType, DType, Dim, Encoding, Gather, View};

/// The most threads of a block.
const BLOCK: usize = 128;
/// The fewest columns that a thread takes.
const COLUMNS: usize = 4;

pub(super) fn emit(kernel: &Gather, target: Target) -> Result<Emitted, PtxError> {
    let (ids, table) = (arg(kernel, kernel.ids.arg.0), arg(kernel, kernel.table.0));
    if ids.is_float() || !table.is_float() {
        return Err(PtxError::Unsupported {
            kernel: "gather",
            what: format!("ids of {ids} into a table of {table}"),
        });
    }
    let GatherCut {
        lanes,
        each,
        threads,
        parts,
    } = cut(kernel);

    let mut asm = Asm::default();
    let mut vars = kernel.body.vars();
    vars.extend(space::vars([&kernel.rows], [&kernel.ids.view]));
    let scope = Scope::begin(&mut asm, target, kernel.args.len(), &vars);
    let block = asm.op("mov.u32", Class::B32, &[&"%ctaid.x"]);
    let (row, part) = divide::div_rem(&mut asm, block, parts as u32);
    let mut job = GatherJob {
        kernel,
        types: kernel.dtypes(),
        scope: &scope,
        lanes,
        each,
        threads,
        row,
        first: asm.op("mul.lo.s32", Class::B32, &[&part, &(threads * each)]),
        tid: asm.op("mov.u32", Class::B32, &[&"%tid.x"]),
        start: row, // until the id is known
        valid: row,
    };
    let id = job.id(&mut asm);
    job.check(&mut asm, id, part);
    if kernel.cols > 0 {
        job.columns(&mut asm);
    }
    let grid = Extent::Of {
        dim: &kernel.rows * &Dim::from(if kernel.cols > 0 { parts } else { 0 }),
        per: 1,
    };
    let block = Block {
        // Registers for all values of a thread.
        crowd: kernel.table().as_plain().is_none().then_some(4),
        ..Block::new("gather", asm, threads as u32, grid)
    };
    Ok(block.module(target, kernel.args.len()))
}

/// How the work is cut.
pub(super) struct GatherCut {
    /// Columns of a wide access.
    lanes: usize,
    /// Columns of a thread.
    each: usize,
    threads: usize,
    /// Blocks of a row.
    pub parts: usize,
}

pub(super) fn cut(kernel: &Gather) -> GatherCut {
    let along = View::contiguous(&[Dim::from(1), Dim::from(kernel.cols)]);
    // Of rows in blocks nobody reads single elements.
    let plain = kernel.table().as_plain();
    let rows = plain.map(|dtype| (&along, dtype.size()));
    let dtypes = kernel.dtypes();
    let accesses = space::accesses(&kernel.body, &dtypes).chain(rows);
    let lanes = access::lanes(&Dim::from(kernel.cols), accesses);
    let each = match kernel.table() {
        Encoding::Plain(_) | Encoding::Packed(_) | Encoding::Code => lanes.max(COLUMNS),
        Encoding::Blocks(_) => RUN,
    };
    let threads = (kernel.cols.div_ceil(each).next_multiple_of(32)).clamp(32, BLOCK);
    GatherCut {
        lanes,
        each,
        threads,
        parts: kernel.cols.div_ceil(threads * each).max(1),
    }
}

fn arg(kernel: &Gather, arg: u16) -> DType {
    kernel.args[arg as usize].dtype()
}

struct GatherJob<'a> {
    kernel: &'a Gather,
    /// The dtypes of the arguments' values.
    types: Vec<DType>,
    scope: &'a Scope,
    /// Columns of a wide access.
    lanes: usize,
    /// Columns of a thread.
    each: usize,
    threads: usize,
    row: R,
    /// First column of the block.
    first: R,
    tid: R,
    /// Address of the table's row.
    start: R,
    /// Whether there is such a row.
    valid: R,
}

impl GatherJob<'_> {
    /// The id of the row (s64).
    fn id(&self, asm: &mut Asm) -> R {
        let ids = &self.kernel.ids;
        let dtype = arg(self.kernel, ids.arg.0);
        let at = [Int::Reg(self.row)];
        let size = dtype.size();
        let address = self.scope.address(asm, ids.arg, &ids.view, &at, size);
        let bits = access::load(asm, address, 0, size, size);
        access::decode(asm, dtype, &bits, 1)[0]
    }

    /// Finds the table's row, or reports the id.
    fn check(&mut self, asm: &mut Asm, id: R, part: R) {
        // Checked with the kernel: rows are whole blocks.
        let bytes = self.kernel.table().row_bytes(self.kernel.cols).unwrap_or(0);
        // A negative id is a large unsigned one.
        self.valid = asm.op("setp.lt.u64", Class::Pred, &[&id, &self.kernel.entries]);
        let table = self.scope.arg(self.kernel.table);
        self.start = asm.op("mad.lo.s64", Class::B64, &[&id, &bytes, &table]);
        let number = asm.op("or.b32", Class::B32, &[&part, &self.tid]);
        let first = asm.op("setp.eq.u32", Class::Pred, &[&number, &0]);
        let not = asm.op("not.pred", Class::Pred, &[&self.valid]);
        let reports = asm.op("and.pred", Class::Pred, &[&first, &not]);
        asm.when(reports, true, |asm| {
            let row = asm.op("cvt.u64.u32", Class::B64, &[&self.row]);
            let entries = asm.op("mov.b64", Class::B64, &[&self.kernel.entries]);
            pick::report(asm, self.scope, id, (Int::Reg(row), entries));
        });
    }

    fn columns(&self, asm: &mut Asm) {
        if let Encoding::Blocks(block) = self.kernel.table() {
            return self.blocks(asm, block);
        }
        if self.lanes < COLUMNS {
            return self.narrow(asm);
        }
        let bytes = self.lanes * arg(self.kernel, self.kernel.table.0).size();
        let rest = asm.op("and.b64", Class::B64, &[&self.start, &(bytes - 1)]);
        let aligned = asm.op("setp.eq.s64", Class::Pred, &[&rest, &0]);
        asm.when(aligned, true, |asm| self.wide(asm));
        asm.when(aligned, false, |asm| self.narrow(asm));
    }

    /// Each thread takes neighbouring columns.
    fn wide(&self, asm: &mut Asm) {
        let column = asm.op(
            "mad.lo.s32",
            Class::B32,
            &[&self.tid, &self.lanes, &self.first],
        );
        self.points(asm, &[column], self.lanes);
    }

    /// Neighbouring threads take neighbouring columns.
    fn narrow(&self, asm: &mut Asm) {
        let column = asm.op("add.s32", Class::B32, &[&self.first, &self.tid]);
        let columns: Vec<R> = (0..self.each)
            .map(|i| asm.op("add.s32", Class::B32, &[&column, &(i * self.threads)]))
            .collect();
        self.points(asm, &columns, 1);
    }

    /// Each thread takes a run of values of the row's blocks, in wide accesses where the table turns out to
    /// be aligned.
    fn blocks(&self, asm: &mut Asm, block: BlockType) {
        let column = asm.op("mad.lo.s32", Class::B32, &[&self.tid, &RUN, &self.first]);
        let values: Vec<R> = (0..RUN).map(|_| asm.f32(0.0)).collect();
        let inside = asm.op("setp.lt.s32", Class::Pred, &[&column, &self.kernel.cols]);
        let reads = asm.op("and.pred", Class::Pred, &[&inside, &self.valid]);
        let read = |asm: &mut Asm, lies: Lies| {
            let run = Run::of_row(asm, block, (self.start, column), RUN, lies);
            for (to, x) in values.iter().zip(run.values(asm)) {
                asm.op_to("mov.f32", *to, &[&x]);
            }
        };
        asm.when(reads, true, |asm| {
            let (least, most) = (block.alignment(), encoded::alignment(block));
            if most == least {
                return read(asm, Lies::Anywhere);
            }
            let rest = asm.op("and.b64", Class::B64, &[&self.start, &(most - 1)]);
            let aligned = asm.op("setp.eq.s64", Class::Pred, &[&rest, &0]);
            asm.when(aligned, true, |asm| read(asm, Lies::Aligned));
            asm.when(aligned, false, |asm| read(asm, Lies::Anywhere));
        });
        asm.when(inside, true, |asm| {
            for (i, input) in values.chunks(self.lanes).enumerate() {
                let column = asm.op("add.s32", Class::B32, &[&column, &(i * self.lanes)]);
                let at = [Int::Reg(self.row), Int::Reg(column)];
                let (at, lanes) = (&at[..], self.lanes);
                let point = Point { at, lanes, input };
                lanes::run(asm, self.scope, &self.kernel.body, &self.types, point);
            }
        });
    }

    /// Reads neighbouring elements from each column on: all are on their way before the first is decoded.
    fn read(&self, asm: &mut Asm, columns: &[R], values: &[Vec<R>]) {
        let lanes = values.first().map_or(1, Vec::len);
        let dtype = arg(self.kernel, self.kernel.table.0);
        let size = dtype.size();
        // Columns beyond the end read what the last one does.
        let last = self.kernel.cols - lanes;
        let load = |asm: &mut Asm, column: &R| {
            let column = asm.op("min.s32", Class::B32, &[column, &last]);
            let at = asm.op("mad.wide.s32", Class::B64, &[&column, &size, &self.start]);
            access::load(asm, at, 0, lanes * size, size)
        };
        let bits: Vec<Vec<R>> = columns.iter().map(|c| load(asm, c)).collect();
        for (bits, to) in bits.iter().zip(values) {
            let read = access::decode(asm, dtype, bits, lanes);
            for (to, x) in to.iter().zip(read) {
                asm.op_to("mov.f32", *to, &[&x]);
            }
        }
    }

    /// Reads all points, then runs the body at those inside of the row.
    fn points(&self, asm: &mut Asm, columns: &[R], lanes: usize) {
        let values: Vec<Vec<R>> = (columns.iter())
            .map(|_| (0..lanes).map(|_| asm.f32(0.0)).collect())
            .collect();
        asm.when(self.valid, true, |asm| {
            self.read(asm, columns, &values);
        });
        for (column, input) in columns.iter().zip(&values) {
            let inside = asm.op("setp.lt.s32", Class::Pred, &[column, &self.kernel.cols]);
            asm.when(inside, true, |asm| {
                let point = Point {
                    at: &[Int::Reg(self.row), Int::Reg(*column)],
                    lanes,
                    input,
                };
                lanes::run(asm, self.scope, &self.kernel.body, &self.types, point);
            });
        }
    }
}
