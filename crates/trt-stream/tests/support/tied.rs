//! A tied table in two forms, through real kernels: its rows are gathered plain, and it is multiplied
//! in packed blocks whose rows are no multiple of 16 bytes, behind a plain weight. What is right on
//! every device is told here once.

use crate::made::{self, Made};
use std::sync::Arc;
use trt_alloc::Pool;
use trt_device::{Device, Executable, Memory, Slice, Stream, Work};
use trt_kernel::{
    Arg, BodyBuilder, DType, Dim, Encoding, Env, Gather, Inst, Kernel, Matmul, Operand, Role,
    SumOrder, View,
};
use trt_stream::{Config, Error, ProgramId, Request, Streamer, TileTarget, Turning, WeightId};

const WIDTH: usize = 96;
const ENTRIES: usize = 700;
const MIDDLE: Made = Made::new("middle", [1, WIDTH, WIDTH], false);
const TABLE: Made = Made::new("table", [1, ENTRIES, WIDTH], true);
const IDS: [u32; 3] = [3, 699, 64];

/// How results are compared with what is computed here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sums {
    /// The device sums in the [`SumOrder`]: bit for bit.
    InOrder,
    /// It sums otherwise: to a part in 10^4, since two products follow each other.
    Close,
}

fn view(strides: &[usize]) -> View {
    View {
        offset: Dim::from(0),
        strides: strides.iter().map(|s| Dim::from(*s)).collect(),
    }
}

/// `out[m, n] = Σ_k a[m, k] w[n, k]`.
fn product(n: usize, encoding: Encoding) -> Kernel {
    let mut epilogue = BodyBuilder::new();
    let sum = epilogue.push(Inst::Input);
    epilogue.store(Arg(2), view(&[0, n, 1]), sum);
    let operand = |arg| Operand {
        arg: Arg(arg),
        view: view(&[0, WIDTH, 1]),
    };
    Kernel::Matmul(Matmul {
        batch: Dim::from(1),
        m: Dim::from(IDS.len()),
        n: Dim::from(n),
        k: Dim::from(WIDTH),
        args: vec![DType::F32.into(), encoding, DType::F32.into()],
        a: operand(0).into(),
        b: operand(1),
        ranged: true,
        epilogue: epilogue.finish(),
    })
}

/// `out[row] = table[ids[row]]`.
fn gather() -> Kernel {
    let mut body = BodyBuilder::new();
    let x = body.push(Inst::Input);
    body.store(Arg(2), view(&[WIDTH, 1]), x);
    Kernel::Gather(Gather {
        rows: Dim::from(IDS.len()),
        cols: WIDTH,
        entries: ENTRIES,
        args: Encoding::plain([DType::U32, DType::F32, DType::F32]),
        ids: Operand {
            arg: Arg(0),
            view: view(&[1]),
        },
        table: Arg(1),
        body: body.finish(),
    })
}

/// `a w^T` in the order of sums that the encoding has.
fn multiply(a: &[f32], w: &[f32], encoding: Encoding) -> Vec<f32> {
    let order = SumOrder::new(WIDTH, encoding).unwrap();
    let rows = a
        .chunks(WIDTH)
        .flat_map(|a| w.chunks(WIDTH).map(move |w| (a, w)));
    rows.map(|(a, w)| order.sum(|i| (a[i], w[i]))).collect()
}

/// The same with rows in blocks.
fn multiply_blocks(a: &[f32], blocks: &[u8]) -> Vec<f32> {
    let order = SumOrder::new(WIDTH, made::BLOCKS).unwrap();
    let bytes = made::BLOCKS.row_bytes(WIDTH).unwrap();
    let rows = a
        .chunks(WIDTH)
        .flat_map(|a| blocks.chunks(bytes).map(move |row| (a, row)));
    rows.map(|(a, row)| order.sum_of_blocks(|i| a[i], row))
        .collect()
}

fn expected() -> Vec<f32> {
    let table = TABLE.values();
    let x: Vec<f32> = IDS
        .iter()
        .flat_map(|id| table[*id as usize * WIDTH..][..WIDTH].to_vec())
        .collect();
    let middle = multiply(&x, &MIDDLE.values(), DType::F32.into());
    multiply_blocks(&middle, &TABLE.held())
}

struct Step {
    device: Arc<dyn Device>,
    compute: Stream,
    gather: Executable,
    products: [Executable; 2],
    ids: Slice,
    values: [Memory; 3],
}

impl Step {
    fn new(device: &Arc<dyn Device>, compute: Stream) -> Step {
        let load = |kernel: Kernel| device.load(&kernel).unwrap();
        let room = |values: usize| device.allocate(IDS.len() * values * 4).unwrap();
        let ids = room(1).whole();
        let bytes = IDS.iter().flat_map(|id| id.to_le_bytes()).collect();
        let dst = ids.clone();
        device.submit(compute, Work::Write { dst, bytes }).unwrap();
        Step {
            gather: load(gather()),
            products: [
                load(product(WIDTH, DType::F32.into())),
                load(product(ENTRIES, made::BLOCKS)),
            ],
            values: [WIDTH, WIDTH, ENTRIES].map(room),
            device: device.clone(),
            compute,
            ids,
        }
    }

    fn launch(
        &self,
        executable: &Executable,
        args: Vec<Slice>,
        tiles: Vec<trt_device::Tiles>,
    ) -> Result<(), Error> {
        let work = Work::Launch {
            executable: executable.clone(),
            env: Env::default(),
            args,
            tiles,
            scratch: None,
        };
        Ok(self.device.submit(self.compute, work)?)
    }

    /// One pass; returns its result.
    fn run(&self, streamer: &mut Streamer) -> Vec<f32> {
        let [x, middle, out] = [0, 1, 2].map(|i: usize| self.values[i].whole());
        let mut pass = streamer.begin(ProgramId(0)).unwrap();
        let table = pass.mapped(WeightId(1)).unwrap();
        self.launch(
            &self.gather,
            vec![self.ids.clone(), table, x.clone()],
            vec![],
        )
        .unwrap();
        for (i, [from, to]) in [[&x, &middle], [&middle, &out]].into_iter().enumerate() {
            pass.next_use(|tiles| {
                let args = vec![from.clone(), tiles.places[0].clone(), to.clone()];
                self.launch(&self.products[i], args, vec![tiles])
            })
            .unwrap();
        }
        pass.finish().unwrap();
        let mut bytes = vec![0; out.len()];
        self.device.read(self.compute, &out, &mut bytes).unwrap();
        let values = bytes.as_chunks().0.iter();
        values.map(|v| f32::from_le_bytes(*v)).collect()
    }
}

/// A table in two forms gives what its values say, with the same bits at every budget.
pub fn a_table_in_two_forms_is_right_at_every_budget(device: Arc<dyn Device>, sums: Sums) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    let (files, mut weights) = made::write(&path, &[MIDDLE, TABLE]);
    weights[1].roles.add(Role::Table);
    let compute = device.stream("compute").unwrap();
    let pool = Pool::new(device.clone(), u64::MAX);
    let mut streamer = Streamer::new(Config {
        pool: pool.clone(),
        files: Arc::new(files),
        weights,
        compute,
        programs: vec![vec![WeightId(0).into(), WeightId(1).into()]],
        turning: Turning::default(),
        tile_target: TileTarget::Bytes(8 << 10),
        request: Request::Minimum,
        free: 0,
    })
    .unwrap();
    let step = Step::new(&device, compute);
    let wanted = expected();
    let mut first: Option<Vec<u32>> = None;
    let (floor, total) = (streamer.floor(), streamer.total());
    for budget in [floor, (floor + total) / 2, total, floor] {
        let applied = streamer.set_budget(Request::Bytes(budget), 0).unwrap();
        assert_eq!(pool.in_use(), applied.used());
        for _ in 0..3 {
            let found = step.run(&mut streamer);
            let far = |(a, b): (&f32, &f32)| (a - b).abs() > 1e-4 * b.abs().max(1.0);
            assert!(
                !found.iter().zip(&wanted).any(far),
                "at {budget} of {total}"
            );
            let bits: Vec<u32> = found.iter().map(|v| v.to_bits()).collect();
            let exact = wanted.iter().zip(&bits).all(|(w, b)| w.to_bits() == *b);
            assert!(sums == Sums::Close || exact, "at {budget} of {total}");
            assert!(*first.get_or_insert_with(|| bits.clone()) == bits);
        }
        let streams = streamer.last_pass().bytes;
        assert_eq!(streams > 0, budget < total, "{streams} bytes at {budget}");
    }
}
