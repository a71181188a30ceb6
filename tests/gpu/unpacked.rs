//! Products by many rows of halves whose weight is in blocks, on a GPU.

use crate::{cuda, cuda_alone, numbers};
use candle_trt::device::{Cuda, Device, Slice, Stream, Work};
use candle_trt::kernel::{
    Arg, BlockType, BodyBuilder, DType, Dim, Encoding, Env, Inst, Kernel, Matmul, Operand, View,
};
use half::{bf16, f16};
use std::sync::Arc;
use std::time::Instant;

/// `out = a w^T`.
pub(crate) fn product([m, n, k]: [usize; 3], left: DType, right: Encoding) -> Kernel {
    let view = |strides: [usize; 3]| View {
        offset: Dim::from(0),
        strides: strides.map(Dim::from).to_vec(),
    };
    let operand = |arg| Operand {
        arg: Arg(arg),
        view: view([0, k, 1]),
    };
    let mut epilogue = BodyBuilder::new();
    let sum = epilogue.push(Inst::Input);
    epilogue.store(Arg(2), view([0, n, 1]), sum);
    Kernel::Matmul(Matmul {
        batch: Dim::from(1),
        m: Dim::from(m),
        n: Dim::from(n),
        k: Dim::from(k),
        args: vec![left.into(), right, left.into()],
        a: operand(0).into(),
        b: operand(1),
        ranged: true,
        epilogue: epilogue.finish(),
    })
}

/// The values of blocks, each rounded.
fn rounded(block: BlockType, bytes: &[u8], dtype: DType) -> Vec<u8> {
    let mut values = vec![0.0; block.values()];
    let each = bytes.chunks_exact(block.bytes()).flat_map(|bytes| {
        block.decode(bytes, &mut values);
        let half = |x: &f32| match dtype {
            DType::BF16 => bf16::from_f32(*x).to_le_bytes(),
            _ => f16::from_f32(*x).to_le_bytes(),
        };
        values.iter().flat_map(half).collect::<Vec<u8>>()
    });
    each.collect()
}

struct Queue {
    device: Arc<dyn Device>,
    stream: Stream,
}

impl Queue {
    fn of(device: Arc<dyn Device>) -> Queue {
        let stream = device.stream("products").expect("a stream");
        Queue { device, stream }
    }

    fn put(&self, bytes: Vec<u8>) -> Slice {
        let dst = self.device.allocate(bytes.len()).expect("memory").whole();
        let work = Work::Write {
            dst: dst.clone(),
            bytes,
        };
        self.device.submit(self.stream, work).expect("a write");
        dst
    }

    /// What launches a product by each of several weights.
    fn products(&self, kernel: &Kernel, left: &Slice, rights: &[Slice], out: &Slice) -> Vec<Work> {
        let executable = self.device.load(kernel).expect("a kernel");
        let bytes = executable.scratch().constant_size().expect("a number");
        let scratch = (bytes > 0).then(|| self.device.allocate(bytes).expect("memory").whole());
        let each = rights.iter().map(|right| Work::Launch {
            executable: executable.clone(),
            env: Env::default(),
            args: vec![left.clone(), right.clone(), out.clone()],
            tiles: Vec::new(),
            scratch: scratch.clone(),
        });
        each.collect()
    }

    fn run(&self, kernel: &Kernel, left: &Slice, right: Vec<u8>, len: usize) -> Vec<u8> {
        let out = self.put(vec![0xff; len]);
        for work in self.products(kernel, left, &[self.put(right)], &out) {
            self.device.submit(self.stream, work).expect("a launch");
        }
        let mut bytes = vec![0; len];
        let read = self.device.read(self.stream, &out, &mut bytes);
        read.expect("numbers");
        bytes
    }
}

/// The first device, and with tensor maps where it has some.
fn forms() -> Vec<Queue> {
    let Some(plain) = cuda() else {
        return Vec::new();
    };
    let mut all = vec![Queue::of(plain)];
    let mapped = Cuda::new(0).and_then(Cuda::with_tensor_maps);
    let mapped = mapped.ok().filter(Cuda::tensor_maps);
    all.extend(mapped.map(|d| Queue::of(Arc::new(d))));
    all
}

#[test]
fn products_by_many_rows_have_the_bits_of_those_by_the_rounded_values() {
    for queue in forms() {
        for block in BlockType::ALL {
            for dtype in [DType::BF16, DType::F16] {
                for shape @ [m, n, k] in [[9, 320, 768], [130, 1024, 512], [600, 4096, 256]] {
                    let left = queue.put(numbers::fill(dtype, m * k, 1, 100));
                    let blocks = numbers::blocks(block, n * k, 7);
                    let plain = rounded(block, &blocks, dtype);
                    let run = |right: Encoding, bytes| {
                        queue.run(&product(shape, dtype, right), &left, bytes, 2 * m * n)
                    };
                    let wanted = run(dtype.into(), plain);
                    let found = run(block.into(), blocks);
                    assert!(found == wanted, "{block:?} {dtype} {shape:?}");
                }
            }
        }
    }
}

/// Rows that a weight is multiplied by, as in prompts.
const ROWS: [usize; 5] = [16, 64, 128, 512, 2048];

/// Weights of a layer of 8e9, and how many of each there are in it: queries and output, keys and values, gate and up,
/// down.
const SHAPES: [([usize; 2], usize); 4] = [
    ([4096, 4096], 2),
    ([1024, 4096], 2),
    ([14336, 4096], 2),
    ([4096, 14336], 1),
];

#[test]
#[ignore = "prints rates; the device must be idle"]
fn rates_of_products_by_many_rows() {
    let Some(_) = cuda_alone() else { return };
    for queue in forms() {
        println!("-- a device {}", queue.device.info().name);
        let encodings = [
            DType::BF16.into(),
            BlockType::Q4K.into(),
            BlockType::Q6K.into(),
            BlockType::Q8_0.into(),
            BlockType::Q4_0.into(),
            BlockType::Iq4Xs.into(),
            BlockType::Mxfp4.into(),
        ];
        for m in ROWS {
            let mut plain = 0.0;
            for encoding in encodings {
                let each = SHAPES.map(|(shape, count)| {
                    let micros = micros(&queue, [m, shape[0], shape[1]], encoding);
                    (micros, micros * count as f64)
                });
                let layer: f64 = each.iter().map(|e| e.1).sum();
                if let Encoding::Plain(_) = encoding {
                    plain = layer;
                }
                let list = each.map(|e| format!("{:8.1}", e.0)).join(" ");
                println!(
                    "{m:5} rows by {encoding:6}: {list} us; 32 layers {:7.2} ms, {:4.2} of bf16",
                    32.0 * layer / 1e3,
                    layer / plain
                );
            }
        }
    }
}

/// Microseconds of a product by one of several weights, which together are more than caches hold.
fn micros(queue: &Queue, [m, n, k]: [usize; 3], encoding: Encoding) -> f64 {
    let row = encoding.row_bytes(k).expect("whole blocks");
    let copies = (256usize << 20).div_ceil(n * row).max(2);
    let left = queue.put(numbers::fill(DType::BF16, m * k, 1, 100));
    let bytes = numbers::fill_encoded(encoding, n * k, 2, 100);
    let rights: Vec<Slice> = (0..copies).map(|_| queue.put(bytes.clone())).collect();
    let out = queue.put(vec![0; 2 * m * n]);
    let kernel = product([m, n, k], DType::BF16, encoding);
    let works = queue.products(&kernel, &left, &rights, &out);
    let round = || {
        for work in &works {
            let work = work.clone();
            queue.device.submit(queue.stream, work).expect("a launch");
        }
    };
    let done = || queue.device.synchronize(queue.stream).expect("it runs");
    let times = (200usize).div_ceil(copies);
    round();
    done();
    let best = (0..3).map(|_| {
        let start = Instant::now();
        (0..times).for_each(|_| round());
        done();
        start.elapsed().as_secs_f64() * 1e6 / (times * copies) as f64
    });
    best.fold(f64::INFINITY, f64::min)
}
