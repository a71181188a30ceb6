//! How fast single products of few rows are on a device, by type and shape.
//!
//! Each product is launched over enough copies of its weight that no cache holds them, all launches as one
//! graph, and the fastest of some replays counts. Beside it stands a product with a plain bf16 weight of as
//! many bytes. Weights are random bits; results are looked at by nobody (tests do that).

use anyhow::{Context, Result, bail};
use candle_trt::device::{Device, Slice, Work, open};
use candle_trt::kernel::{
    Arg, BlockType, BodyBuilder, DType, Dim, Encoding, Env, Inst, Kernel, Matmul, Operand, View,
};
use clap::Parser;
use std::time::Instant;

/// Time products.
#[derive(Debug, Parser)]
struct Args {
    /// Where to run.
    #[arg(long, default_value = "cuda:0")]
    device: String,
    /// Types of the weight: names of blocks, or bf16.
    #[arg(long = "type", value_delimiter = ',', default_value = "q4_k,q6_k,q8_0")]
    types: Vec<String>,
    /// Shapes `NxK`: rows of the weight, and columns.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "14336x4096,4096x14336,4096x4096,1024x4096,28672x4096,128256x4096"
    )]
    shapes: Vec<String>,
    /// Rows of the left operand.
    #[arg(short, long, value_delimiter = ',', default_value = "1")]
    m: Vec<usize>,
    /// Bytes of all copies of a weight together, in MiB.
    #[arg(long, default_value_t = 1024)]
    mib: usize,
    /// What the device reads, in GB/s, for a column of shares.
    #[arg(long, default_value_t = 4520.0)]
    peak: f64,
}

/// `out = a w^T`, in bf16 but for the weight.
fn product([m, n, k]: [usize; 3], right: Encoding) -> Kernel {
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
        args: vec![DType::BF16.into(), right, DType::BF16.into()],
        a: operand(0).into(),
        b: operand(1),
        ranged: true,
        epilogue: epilogue.finish(),
    })
}

/// Launches of a graph at least.
const LAUNCHES: usize = 64;
/// Replays, of which the fastest counts.
const REPLAYS: usize = 12;

/// Microseconds of one launch.
fn time(device: &dyn Device, shape: [usize; 3], right: Encoding, mib: usize) -> Result<f64> {
    let [m, n, k] = shape;
    let executable = device.load(&product(shape, right))?;
    if let Some(why) = executable.by_host() {
        bail!("the device has no kernel for it: {why:?}");
    }
    let row = right.row_bytes(k).context("rows of whole blocks")?;
    let bytes = n * row;
    let copies = ((mib << 20) / bytes).max(2);
    let stream = device.stream("rates")?;
    let place = |bytes: usize, seed: u64| -> Result<Slice> {
        let slice = device.allocate(bytes)?.whole();
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let word = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // Numbers of 16 bits below 2, so that sums stay finite.
            (state & 0x3f3f_3f3f_3f3f_3f3f).to_le_bytes()
        };
        let random: Vec<u8> = (0..bytes.div_ceil(8)).flat_map(word).take(bytes).collect();
        let dst = slice.slice(0..bytes)?;
        let work = Work::Write {
            dst: dst.clone(),
            bytes: random,
        };
        device.submit(stream, work)?;
        Ok(dst)
    };
    let left = place(m * k * 2, 1)?;
    let out = place(m * n * 2, 2)?;
    let first = place(bytes, 3)?;
    let mut weights = vec![first.clone()];
    for _ in 1..copies {
        let dst = device.allocate(bytes)?.whole().slice(0..bytes)?;
        let src = first.clone();
        device.submit(
            stream,
            Work::Copy {
                dst: dst.clone(),
                src,
            },
        )?;
        weights.push(dst);
    }
    let rounds = LAUNCHES.div_ceil(copies);
    let launch = |i: usize| Work::Launch {
        executable: executable.clone(),
        env: Env::default(),
        args: vec![left.clone(), weights[i % copies].clone(), out.clone()],
        tiles: Vec::new(),
        scratch: None,
    };
    let launches = rounds * copies;
    let graph = device.record((0..launches).map(launch).collect())?;
    let mut best = f64::INFINITY;
    for _ in 0..REPLAYS {
        device.synchronize(stream)?;
        let start = Instant::now();
        let (graph, env) = (graph.clone(), Env::default());
        device.submit(stream, Work::Replay { graph, env })?;
        device.synchronize(stream)?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    device.retire(stream);
    Ok(best * 1e6 / launches as f64)
}

fn main() -> Result<()> {
    let args = Args::parse();
    let device = open(&args.device)?;
    println!(
        "{:8} {:>2} {:>14} {:>9} {:>7} {:>6} {:>9} {:>6}",
        "type", "m", "shape", "us", "GB/s", "%peak", "bf16 us", "%bf16"
    );
    for name in &args.types {
        let block = BlockType::ALL.into_iter().find(|b| b.name() == name);
        let right = match (block, name.as_str()) {
            (Some(block), _) => Encoding::Blocks(block),
            (None, "bf16") => Encoding::Plain(DType::BF16),
            (None, other) => bail!("no type {other}"),
        };
        for shape in &args.shapes {
            let (n, k) = shape.split_once('x').context("shapes are NxK")?;
            let (n, k): (usize, usize) = (n.parse()?, k.parse()?);
            for m in &args.m {
                let row = right.row_bytes(k).context("rows of whole blocks")?;
                let us = time(&*device, [*m, n, k], right, args.mib)?;
                let plain_rows = (n * row / (2 * k)).next_multiple_of(8);
                let bf16 = Encoding::Plain(DType::BF16);
                let plain = time(&*device, [*m, plain_rows, k], bf16, args.mib)?;
                let rate = (n * row) as f64 / us / 1e3;
                println!(
                    "{name:8} {m:>2} {shape:>14} {us:>9.2} {rate:>7.0} {:>6.1} {plain:>9.2} {:>6.1}",
                    100.0 * rate / args.peak,
                    100.0 * plain / us,
                );
            }
        }
    }
    Ok(())
}
