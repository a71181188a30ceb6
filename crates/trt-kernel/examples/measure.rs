//! Figures of the host back end on this machine: memory speed of the few-row matmul, the
//! many-row matmul against one call of the `gemm` crate, and what a launch costs.
//!
//! `cargo run --release -p trt-kernel --example measure`

use std::hint::black_box;
use std::time::Instant;
use trt_kernel::host::{Prepared, Span, Team};
use trt_kernel::*;

/// The least seconds of one call.
fn best(times: usize, mut f: impl FnMut()) -> f64 {
    f();
    (0..times)
        .map(|_| {
            let start = Instant::now();
            f();
            start.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min)
}

/// The median of the mean seconds of a few hundred calls.
fn typical(mut f: impl FnMut()) -> f64 {
    let mut means: Vec<f64> = (0..15)
        .map(|_| {
            let start = Instant::now();
            (0..200).for_each(|_| f());
            start.elapsed().as_secs_f64() / 200.0
        })
        .collect();
    means.sort_by(f64::total_cmp);
    means[7]
}

fn view(strides: &[usize]) -> View {
    View {
        offset: Dim::from(0),
        strides: strides.iter().map(|s| Dim::from(*s)).collect(),
    }
}

fn linear(m: usize, n: usize, k: usize, weight: DType, other: DType) -> Kernel {
    let mut e = BodyBuilder::new();
    let sum = e.push(Inst::Input);
    e.store(Arg(2), view(&[0, n, 1]), sum);
    Kernel::Matmul(Matmul {
        batch: Dim::from(1),
        m: Dim::from(m),
        n: Dim::from(n),
        k: Dim::from(k),
        args: Encoding::plain([other, weight, other]),
        a: Operand {
            arg: Arg(0),
            view: view(&[0, k, 1]),
        }
        .into(),
        b: Operand {
            arg: Arg(1),
            view: view(&[0, k, 1]),
        },
        ranged: true,
        epilogue: e.finish(),
    })
}

fn rms_norm(cols: usize, dtype: DType) -> Kernel {
    let mut b = BodyBuilder::new();
    let x = b.load(Arg(0), view(&[cols, 1]));
    let w = b.load(Arg(1), view(&[0, 1]));
    let sq = b.unary(Unary::Sqr, x);
    let sum = b.push(Inst::Reduce(Reduce::Sum, sq));
    let n = b.push(Inst::F32(1.0 / cols as f32));
    let mean = b.binary(Binary::Mul, sum, n);
    let eps = b.push(Inst::F32(1e-5));
    let mean = b.binary(Binary::Add, mean, eps);
    let root = b.unary(Unary::Sqrt, mean);
    let y = b.binary(Binary::Div, x, root);
    let y = b.binary(Binary::Mul, y, w);
    b.store(Arg(2), view(&[cols, 1]), y);
    Kernel::Row(Row {
        space: vec![Dim::from(1), Dim::from(cols)],
        args: vec![dtype; 3],
        body: b.finish(),
    })
}

fn silu_mul(n: usize, dtype: DType) -> Kernel {
    let mut b = BodyBuilder::new();
    let x = b.load(Arg(0), view(&[1]));
    let y = b.load(Arg(1), view(&[1]));
    let s = b.unary(Unary::Silu, x);
    let p = b.binary(Binary::Mul, s, y);
    b.store(Arg(2), view(&[1]), p);
    Kernel::Row(Row {
        space: vec![Dim::from(n)],
        args: vec![dtype; 3],
        body: b.finish(),
    })
}

fn attention(queries: usize, keys: usize, dtype: DType) -> Kernel {
    let (heads, kv_heads, dim) = (9, 3, 64);
    let mut b = BodyBuilder::new();
    let x = b.push(Inst::Input);
    let c = b.push(Inst::F32(0.125));
    let y = b.binary(Binary::Mul, x, c);
    b.push(Inst::Yield(y));
    let operand = |arg, rows: usize| Operand {
        arg: Arg(arg),
        view: view(&[0, rows * dim, dim, 1]),
    };
    Kernel::Attention(Attention {
        batch: Dim::from(1),
        heads,
        kv_heads,
        queries: Dim::from(queries),
        keys: Dim::from(keys),
        head_dim: dim,
        value_dim: dim,
        before: Vec::new(),
        args: vec![dtype; 4],
        q: operand(0, queries),
        k: operand(1, keys),
        v: operand(2, keys),
        out: operand(3, queries),
        causal: Some(Causal {
            offset: Dim::from(keys - queries),
            window: None,
        }),
        score: b.finish(),
    })
}

/// Bytes for a kernel's arguments, all ones in every float dtype's sense of small.
fn run(kernel: &Kernel, lens: &[usize], team: &Team) -> impl FnMut() {
    let prepared = Prepared::new(kernel).expect("the kernel is right");
    let mut buffers: Vec<Vec<u8>> = (kernel.args().iter().zip(lens))
        .map(|(d, n)| vec![0x3c; n * d.bytes() / d.values()])
        .collect();
    move || {
        let mut spans: Vec<Span> = Vec::with_capacity(5);
        for b in &mut buffers {
            spans.push(Span::from_mut(b));
        }
        // SAFETY: products and attentions write each element once, into a buffer of its own.
        unsafe { prepared.run(&Env::default(), None, &mut spans, team) }
            .expect("the launch is right");
    }
}

fn read_speed(team: &Team) -> f64 {
    let data = vec![1u64; 64 << 20];
    let chunks: Vec<&[u64]> = data.chunks(1 << 14).collect();
    let seconds = best(4, || {
        team.run(chunks.len(), |i| {
            let (lanes, _) = chunks[i].as_chunks::<32>();
            let mut sums = [0u64; 32];
            for l in lanes {
                (sums.iter_mut().zip(l)).for_each(|(s, x)| *s = s.wrapping_add(*x));
            }
            black_box(sums);
        })
        .expect("no part panics");
    });
    (data.len() * 8) as f64 / seconds / 1e9
}

fn gemm_seconds(m: usize, n: usize, k: usize, threads: usize) -> f64 {
    let (a, b) = (vec![0.5f32; m * k], vec![0.25f32; n * k]);
    let mut c = vec![0f32; m * n];
    best(12, || {
        // SAFETY: row-major [m, n], [m, k] and transposed [n, k] matrices of these sizes.
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                c.as_mut_ptr(),
                1,
                n as isize,
                false,
                a.as_ptr(),
                1,
                k as isize,
                b.as_ptr(),
                k as isize,
                1,
                0.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::Rayon(threads),
            );
        }
    })
}

fn main() {
    let team = &Team::new(std::thread::available_parallelism().map_or(1, |n| n.get()));
    let threads = team.threads();
    println!("{threads} threads");
    let read = read_speed(team);
    println!("plain read            {read:6.1} GB/s");
    for dtype in [DType::BF16, DType::F16, DType::F32] {
        for (n, k) in [(49152, 576), (14336, 4096)] {
            for m in [1, 4, 8] {
                let kernel = linear(m, n, k, dtype, DType::F32);
                let seconds = best(6, run(&kernel, &[m * k, n * k, m * n], team));
                let speed = (n * k * dtype.size()) as f64 / seconds / 1e9;
                let share = 100.0 * speed / read;
                println!("matmul {dtype} {m}x{n}x{k}: {speed:6.1} GB/s, {share:3.0} % of read");
            }
        }
    }
    for (n, k) in [(576, 576), (1536, 576), (576, 1536)] {
        let kernel = linear(1, n, k, DType::BF16, DType::BF16);
        let seconds = typical(run(&kernel, &[k, n * k, n], team));
        let speed = (n * k * 2) as f64 / seconds / 1e9;
        println!(
            "matmul bf16 1x{n}x{k} in cache: {:5.1} us, {speed:.1} GB/s",
            seconds * 1e6
        );
    }
    for (m, n, k) in [
        (512, 1536, 576),
        (512, 576, 1536),
        (512, 576, 576),
        (64, 576, 576),
        (16, 1536, 576),
    ] {
        let theirs = gemm_seconds(m, n, k, threads);
        for (dtype, other) in [
            (DType::F32, DType::F32),
            (DType::BF16, DType::F32),
            (DType::BF16, DType::BF16),
        ] {
            let kernel = linear(m, n, k, dtype, other);
            let ours = best(12, run(&kernel, &[m * k, n * k, m * n], team));
            let rate = 2.0 * (m * n * k) as f64 / ours / 1e9;
            println!(
                "matmul {dtype} ({other}) {m}x{n}x{k}: {:6.2} ms, {rate:.0} GFLOP/s, gemm f32 {:.2} ms, ratio {:.2}",
                ours * 1e3,
                theirs * 1e3,
                ours / theirs
            );
        }
    }
    for dtype in [DType::F32, DType::BF16] {
        let norm = typical(run(&rms_norm(576, dtype), &[576; 3], team));
        let silu = typical(run(&silu_mul(1536, dtype), &[1536; 3], team));
        let tiny = typical(run(&silu_mul(1, dtype), &[1; 3], team));
        let small = typical(run(&linear(1, 64, 64, dtype, dtype), &[64, 4096, 64], team));
        println!(
            "{dtype}: rms_norm 1x576 {:.2} us, silu*mul 1536 {:.2} us, one element {:.2} us, matmul 1x64x64 {:.2} us",
            norm * 1e6,
            silu * 1e6,
            tiny * 1e6,
            small * 1e6
        );
        let big = best(5, run(&silu_mul(512 * 1536, dtype), &[512 * 1536; 3], team));
        println!("{dtype}: silu*mul 512x1536 {:.0} us", big * 1e6);
        for (queries, keys) in [(1, 128), (1, 1024), (1, 8192), (512, 512)] {
            let lens = [
                9 * queries * 64,
                3 * keys * 64,
                3 * keys * 64,
                9 * queries * 64,
            ];
            let seconds = best(20, run(&attention(queries, keys, dtype), &lens, team));
            println!(
                "{dtype}: attention 9/3 heads, {queries} queries, {keys} keys {:.1} us",
                seconds * 1e6
            );
        }
    }
    let empty = typical(|| team.run(2 * threads, |_| {}).expect("no part panics"));
    println!("an empty run of the team {:.2} us", empty * 1e6);
}
