//! How fast the host multiplies by rows of blocks: GB/s of stored bytes, of one row of activations (or
//! `--rows`) by weights of every type, against plain bf16 and a read of memory. Of more than 8 rows, which are
//! bf16 unless `--f32`, GFLOP/s.
//!
//! `cargo run --release -p trt-kernel --example block_rates -- [TYPE...] [--rows M] [--f32] [--cached] [--busy]`
//!
//! Each weight is there as often as it takes to be larger than caches, and is used in turn; with `--cached`
//! it is there once. With `--busy`, where others use the machine too, one thread is measured by the time that it ran.

use std::hint::black_box;
use std::time::Instant;
use trt_kernel::host::{Prepared, Span, Team};
use trt_kernel::*;

/// Bytes that no cache holds.
const CACHES: usize = 128 << 20;

fn view(strides: &[usize]) -> View {
    View {
        offset: Dim::from(0),
        strides: strides.iter().map(|s| Dim::from(*s)).collect(),
    }
}

fn product(m: usize, n: usize, k: usize, weight: Encoding, other: DType) -> Kernel {
    let mut e = BodyBuilder::new();
    let sum = e.push(Inst::Input);
    e.store(Arg(2), view(&[0, n, 1]), sum);
    let operand = |arg| Operand {
        arg: Arg(arg),
        view: view(&[0, k, 1]),
    };
    Kernel::Matmul(Matmul {
        batch: Dim::from(1),
        m: Dim::from(m),
        n: Dim::from(n),
        k: Dim::from(k),
        args: vec![other.into(), weight, other.into()],
        a: operand(0).into(),
        b: operand(1),
        ranged: true,
        epilogue: e.finish(),
    })
}

/// Seconds that this thread has run, as Linux counts them.
fn ran() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux counts it");
    let ran = text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok());
    ran.expect("nanoseconds come first") * 1e-9
}

/// The seconds that a tenth of all launches takes at most, over several turns of all copies: others
/// were interrupted. Of a busy machine, what this thread ran for a launch.
fn seconds(
    kernel: &Kernel,
    copies: &[&[u8]],
    sizes: (usize, usize),
    team: &Team,
    busy: bool,
) -> f64 {
    let prepared = Prepared::new(kernel).expect("the kernel is right");
    let (x, mut out) = (vec![0x3c_u8; sizes.0], vec![0u8; sizes.1]);
    let (mut all, before) = (Vec::new(), busy.then(ran));
    for _ in 0..6 {
        for copy in copies {
            let start = Instant::now();
            let mut spans = [
                Span::from_slice(&x),
                Span::from_slice(copy),
                Span::from_mut(&mut out),
            ];
            // SAFETY: a product writes each element once, into a buffer of its own.
            unsafe { prepared.run(&Env::default(), None, &mut spans, team) }
                .expect("the launch is right");
            all.push(start.elapsed().as_secs_f64());
        }
    }
    if let Some(before) = before {
        return (ran() - before) / all.len() as f64;
    }
    all.sort_by(f64::total_cmp);
    all[all.len() / 10]
}

/// As [`seconds`], of a plain read of a megabyte by each thread.
fn read(bytes: &[u8], team: &Team) -> f64 {
    let mut all = Vec::new();
    for _ in 0..4 {
        for copy in bytes.chunks_exact(team.threads() << 20) {
            let start = Instant::now();
            let chunks: Vec<&[u8]> = copy.chunks(1 << 17).collect();
            team.run(chunks.len(), |i| {
                let mut sums = [0u64; 32];
                for lanes in bytemuck::cast_slice::<u8, [u64; 32]>(chunks[i]) {
                    (sums.iter_mut().zip(lanes)).for_each(|(s, x)| *s = s.wrapping_add(*x));
                }
                black_box(sums);
            })
            .expect("no part panics");
            all.push(start.elapsed().as_secs_f64());
        }
    }
    all.sort_by(f64::total_cmp);
    all[all.len() / 10] / (team.threads() << 20) as f64
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let rows = words.iter().position(|w| w == "--rows");
    let m: usize = rows
        .and_then(|at| words.get(at + 1))
        .map_or(1, |w| w.parse().expect("a number of rows"));
    let left = match m > 8 && !words.iter().any(|w| w == "--f32") {
        true => DType::BF16,
        false => DType::F32,
    };
    let cached = words.iter().any(|w| w == "--cached");
    let named = words.iter().filter_map(|w| w.parse::<Encoding>().ok());
    let mut encodings: Vec<Encoding> = named.collect();
    if encodings.is_empty() {
        encodings = vec![DType::BF16.into()];
        encodings.extend(BlockType::ALL.map(Encoding::Blocks));
    }
    let memory = vec![0x2b_u64; 2 * CACHES / 8];
    let memory: &[u8] = bytemuck::cast_slice(&memory);
    let busy = words.iter().any(|w| w == "--busy");
    for threads in 1..=if busy { 1 } else { 2 } {
        let team = Team::new(threads);
        let rate = 1e-9 / read(memory, &team);
        println!("{threads} threads: read {rate:5.1} GB/s");
        for (n, k) in [
            (1536, 576),
            (1536, 768),
            (576, 1536),
            (49152, 576),
            (14336, 4096),
        ] {
            let mut line = format!("  {m} x {n} x {k}:");
            for encoding in &encodings {
                let Some(row) = encoding.row_bytes(k) else {
                    continue;
                };
                let bytes = n * row;
                let copies: Vec<&[u8]> = memory.chunks_exact(bytes).collect();
                let most = if cached { 1 } else { CACHES.div_ceil(bytes) };
                let copies = &copies[..copies.len().min(most)];
                let kernel = product(m, n, k, *encoding, left);
                let seconds = seconds(&kernel, copies, (4 * m * k, 4 * m * n), &team, busy);
                let rate = match m {
                    0..=8 => bytes as f64 / seconds / 1e9,
                    _ => 2e-9 * (m * n * k) as f64 / seconds,
                };
                line += &format!(" {encoding} {rate:.1}");
            }
            println!("{line}");
        }
    }
}
