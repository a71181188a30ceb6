//! Every kernel of the corpus on the GPU against the host's back end, on random input.

use crate::{corpus, cuda, extent};
use candle_trt::device::{Device, Host, Tiles, Work};
use candle_trt::kernel::{Arg, DType, Env, Kernel};
use half::{bf16, f16};
use std::ops::Range;

/// What is launched of a ranged product.
#[derive(Clone, Debug)]
enum Rows {
    All,
    /// Launches, each of rows in tiles of this height.
    Cut(Vec<(Range<usize>, usize)>),
}

/// Past and new positions, batch sizes: small odd ones, and those of a decoding step.
const ENVS: [[i64; 4]; 3] = [[5, 3, 2, 2], [128, 1, 1, 1], [70, 67, 3, 1]];

/// Kernels with larger arguments are left to the benchmarks.
const MOST_BYTES: usize = 160 << 20;

fn random(n: usize, seed: u64) -> impl Iterator<Item = f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..n).map(move |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    })
}

/// Random bytes of an argument; integers stay below `below`.
fn fill(dtype: DType, n: usize, seed: u64, below: usize) -> Vec<u8> {
    let values = random(n, seed);
    let int = |v: f32| ((v.abs() * below as f32) as i64).min(below as i64 - 1);
    match dtype {
        DType::F32 => values.flat_map(f32::to_le_bytes).collect(),
        DType::BF16 => values
            .flat_map(|v| bf16::from_f32(v).to_le_bytes())
            .collect(),
        DType::F16 => values
            .flat_map(|v| f16::from_f32(v).to_le_bytes())
            .collect(),
        DType::U8 => values.map(|v| int(v) as u8).collect(),
        DType::U32 => values.flat_map(|v| (int(v) as u32).to_le_bytes()).collect(),
        DType::I64 => values.flat_map(|v| int(v).to_le_bytes()).collect(),
    }
}

fn floats(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    match dtype {
        DType::F32 => bytes
            .as_chunks()
            .0
            .iter()
            .map(|c| f64::from(f32::from_le_bytes(*c)))
            .collect(),
        DType::BF16 => bytes
            .as_chunks()
            .0
            .iter()
            .map(|c| bf16::from_le_bytes(*c).to_f64())
            .collect(),
        DType::F16 => bytes
            .as_chunks()
            .0
            .iter()
            .map(|c| f16::from_le_bytes(*c).to_f64())
            .collect(),
        DType::U8 | DType::U32 | DType::I64 => bytes.iter().map(|b| f64::from(*b)).collect(),
    }
}

/// Runs a kernel on a device and returns the bytes of every argument after it.
fn run(
    device: &dyn Device,
    kernel: &Kernel,
    env: Env,
    args: &[Vec<u8>],
    rows: &Rows,
) -> Result<Vec<Vec<u8>>, candle_trt::device::Error> {
    let executable = device.load(kernel)?;
    let stream = device.stream("test")?;
    let mut slices = Vec::new();
    for bytes in args {
        let dst = device
            .allocate(bytes.len().max(1))?
            .whole()
            .slice(0..bytes.len())?;
        let bytes = bytes.clone();
        device.submit(
            stream,
            Work::Write {
                dst: dst.clone(),
                bytes,
            },
        )?;
        slices.push(dst);
    }
    let scratch = executable.scratch().size(&env);
    let scratch = match scratch {
        0 => None,
        bytes => {
            let dst = device.allocate(bytes)?.whole();
            let bytes = vec![0xFF; bytes];
            device.submit(
                stream,
                Work::Write {
                    dst: dst.clone(),
                    bytes,
                },
            )?;
            Some(dst)
        }
    };
    let launch = |tiles: Vec<Tiles>| Work::Launch {
        executable: executable.clone(),
        env,
        args: slices.clone(),
        tiles,
        scratch: scratch.clone(),
    };
    match rows {
        Rows::All => device.submit(stream, launch(vec![]))?,
        Rows::Cut(cuts) => {
            let Kernel::Matmul(m) = kernel else {
                unreachable!("only products are cut")
            };
            let weight = &slices[m.b.arg.0 as usize];
            let row = m.k.size(&env) * m.args[m.b.arg.0 as usize].size();
            for (rows, step) in cuts {
                let starts = rows.clone().step_by(*step);
                let places = starts.map(|s| {
                    let end = (s + step).min(rows.end);
                    // Each tile in memory of its own, as in a ring.
                    let part = weight.slice(s * row..end * row)?;
                    let own = device.allocate(part.len())?.whole();
                    device.submit(
                        stream,
                        Work::Copy {
                            dst: own.clone(),
                            src: part,
                        },
                    )?;
                    Ok(own)
                });
                let places = places.collect::<Result<Vec<_>, candle_trt::device::Error>>()?;
                let tiles = Tiles {
                    rows: rows.clone(),
                    step: *step,
                    places,
                };
                device.submit(stream, launch(vec![tiles]))?;
            }
        }
    }
    slices
        .iter()
        .map(|s| {
            let mut out = vec![0; s.len()];
            device.read(stream, s, &mut out).map(|()| out)
        })
        .collect()
}

/// How far results may be apart, relative to their norm.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 2e-5,
        DType::F16 => 1e-3,
        DType::BF16 => 6e-3,
        DType::U8 | DType::U32 | DType::I64 => 0.0,
    }
}

fn apart(dtype: DType, want: &[u8], got: &[u8]) -> Result<(), String> {
    let (want, got) = (floats(dtype, want), floats(dtype, got));
    let mut norm = 0.0;
    let mut error = 0.0;
    for (i, (w, g)) in want.iter().zip(&got).enumerate() {
        let same = w == g || (w.is_nan() && g.is_nan());
        if !(same || w.is_finite() && g.is_finite()) {
            return Err(format!("element {i} is {g}, not {w}"));
        }
        if w.is_finite() {
            norm += w * w;
            error += if same { 0.0 } else { (w - g) * (w - g) };
        }
    }
    let error = (error / norm.max(f64::MIN_POSITIVE)).sqrt();
    match error <= tolerance(dtype) {
        true => Ok(()),
        false => Err(format!("relative error {error:.2e}")),
    }
}

/// Random arguments of a kernel in a call; none if they would be too large.
fn arguments(kernel: &Kernel, env: &Env, seed: u64) -> Option<Vec<Vec<u8>>> {
    let below = match kernel {
        Kernel::Gather(k) => k.entries,
        _ => 100,
    };
    let lengths = extent::lengths(kernel, env);
    let dtypes = kernel.args();
    let bytes: usize = lengths.iter().zip(&dtypes).map(|(n, d)| n * d.size()).sum();
    let filled = lengths.iter().zip(dtypes).enumerate();
    (bytes <= MOST_BYTES).then(|| {
        filled
            .map(|(i, (n, d))| fill(d, *n, seed + i as u64, below))
            .collect()
    })
}

#[test]
fn every_kernel_computes_what_the_host_computes() {
    let Some(gpu) = cuda() else { return };
    let host = Host::discrete();
    let mut failures = Vec::new();
    let mut runs = 0;
    for (name, kernel) in corpus::kernels() {
        let mut done: Vec<Vec<usize>> = Vec::new();
        for (i, values) in ENVS.iter().enumerate() {
            let env = Env::new(values);
            let lengths = extent::lengths(&kernel, &env);
            if done.contains(&lengths) {
                continue;
            }
            done.push(lengths);
            let Some(args) = arguments(&kernel, &env, 100 * i as u64 + 1) else {
                continue;
            };
            runs += 1;
            let want = run(&host, &kernel, env, &args, &Rows::All).expect("the host runs it");
            let got = match run(&*gpu, &kernel, env, &args, &Rows::All) {
                Ok(got) => got,
                Err(e) => {
                    failures.push(format!("{name} {values:?}: {e}"));
                    continue;
                }
            };
            for Arg(a) in kernel.written() {
                let dtype = kernel.args()[a as usize];
                if let Err(e) = apart(dtype, &want[a as usize], &got[a as usize]) {
                    failures.push(format!("{name} {values:?} a{a}: {e}"));
                }
            }
        }
    }
    println!("{runs} runs");
    assert!(
        runs > 20 && failures.is_empty(),
        "{} of {runs}:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

/// Cuts of `n` rows that keep to the law: tiles of one height, and launches of several.
fn cuts(n: usize) -> Vec<Rows> {
    let half = (n / 2).next_multiple_of(64).min(n);
    let whole = |step: usize| Rows::Cut(vec![(0..n, step)]);
    let mut all = vec![whole(n.max(1))];
    if n > 64 && n.div_ceil(64) <= 64 {
        all.push(whole(64));
    }
    if half < n {
        all.push(Rows::Cut(vec![
            (half..n, n - half),
            (0..half, 128.max(half / 3 / 64 * 64)),
        ]));
    }
    all
}

#[test]
fn a_product_has_the_same_bits_however_its_weight_is_cut() {
    let Some(gpu) = cuda() else { return };
    let mut cases = 0;
    for (name, kernel) in corpus::kernels() {
        let Kernel::Matmul(m) = &kernel else { continue };
        if !m.ranged {
            continue;
        }
        for values in &ENVS {
            let env = Env::new(values);
            let Some(args) = arguments(&kernel, &env, 7) else {
                continue;
            };
            let n = m.n.size(&env);
            let want = run(&*gpu, &kernel, env, &args, &Rows::All).expect("it runs");
            for rows in cuts(n) {
                let got = run(&*gpu, &kernel, env, &args, &rows).expect("it runs in parts");
                for Arg(a) in kernel.written() {
                    let same = want[a as usize] == got[a as usize];
                    assert!(same, "{name} {values:?} cut as {rows:?}");
                }
                cases += 1;
            }
        }
    }
    assert!(cases > 10, "{cases} cases");
}
