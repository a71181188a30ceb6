//! Launches on the CUDA device, against the host device. Without a GPU nothing runs, unless
//! `TRT_REQUIRE_CUDA=1` says that there must be one.

mod by_host;
mod kernels;
mod packed;
mod recorded;
mod refused;

use kernels::{COLS, ENTRIES, K, N, gate, pick, project};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use trt_device::{
    Cuda, Device, Error, Executable, Graph, Host, LaunchError, Memory, Paging, Slice, Stream,
    Tiles, Work,
};
use trt_kernel::{Env, Group, Kernel, Order};

fn cuda() -> Option<Cuda> {
    match Cuda::new(0) {
        Ok(device) => Some(device),
        Err(error) if std::env::var_os("TRT_REQUIRE_CUDA").is_some_and(|v| v == "1") => {
            panic!("TRT_REQUIRE_CUDA=1, but {error}")
        }
        Err(error) => {
            println!("no CUDA device: {error}");
            None
        }
    }
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn values(n: usize, seed: u32) -> Vec<f32> {
    (0..n as u32)
        .map(|i| ((i.wrapping_mul(2_654_435_761).wrapping_add(seed)) >> 8) as f32 / 1e7 - 0.8)
        .collect()
}

fn place(device: &dyn Device, stream: Stream, bytes: Vec<u8>) -> Slice {
    let dst = device.allocate(bytes.len()).unwrap().whole();
    write(device, stream, &dst, bytes);
    dst
}

fn write(device: &dyn Device, stream: Stream, dst: &Slice, bytes: Vec<u8>) {
    let dst = dst.clone();
    device.submit(stream, Work::Write { dst, bytes }).unwrap();
}

fn mapped(device: &dyn Device, bytes: &[u8]) -> Memory {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    // SAFETY: nobody changes the temporary file while it is mapped.
    let map = unsafe { memmap2::Mmap::map(&file) }.unwrap();
    device
        .map(
            Path::new("a test"),
            Arc::new(file),
            Arc::new(map),
            Paging::Exact,
        )
        .unwrap()
}

/// Working memory for a launch, if it needs any.
fn scratch(device: &dyn Device, executable: &Executable, env: &Env) -> Option<Slice> {
    let needed = executable.scratch().size(env);
    (needed > 0).then(|| device.allocate(needed).unwrap().whole())
}

fn launch(device: &dyn Device, executable: &Executable, rows: i64, args: &[&Slice]) -> Work {
    let env = Env::new(&[rows]);
    Work::Launch {
        executable: executable.clone(),
        env,
        args: args.iter().map(|s| (*s).clone()).collect(),
        tiles: Vec::new(),
        scratch: scratch(device, executable, &env),
    }
}

fn read(device: &dyn Device, stream: Stream, slice: &Slice) -> Result<Vec<f32>, Error> {
    let mut out = vec![0; slice.len()];
    device.read(stream, slice, &mut out)?;
    let word = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    Ok(out.chunks_exact(4).map(word).collect())
}

fn close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= 1e-4 * e.abs().max(1.), "{i}: {f} for {e}");
    }
}

#[test]
fn launches_compute_what_the_host_computes_at_every_length() {
    let Some(device) = cuda() else { return };
    let run = |device: &dyn Device| {
        let stream = device.stream("s").unwrap();
        let a = place(device, stream, bytes(&values(1000, 1)));
        let b = place(device, stream, bytes(&values(1000, 2)));
        let executable = device.load(&gate()).unwrap();
        let once = |n: i64| {
            let out = device.allocate(4000).unwrap().whole();
            let work = launch(device, &executable, n, &[&a, &b, &out]);
            device.submit(stream, work).unwrap();
            read(device, stream, &out).unwrap()
        };
        [1, 999, 1000, 0, 7, 1000].map(once)
    };
    for (found, expected) in run(&device).iter().zip(&run(&Host::unified())) {
        close(found, expected);
    }
}

#[test]
fn tiles_of_a_mapped_weight_give_the_bits_of_the_whole() {
    let Some(device) = cuda() else { return };
    let (copies, compute) = (device.stream("w").unwrap(), device.stream("c").unwrap());
    let weight = mapped(&device, &bytes(&values(N * K, 7)));
    let x = place(&device, compute, bytes(&values(K, 8)));
    let executable = device.load(&project()).unwrap();
    let run = |step: usize, tiled: bool| {
        let out = device.allocate(4 * N).unwrap().whole();
        let starts = (0..N).step_by(step);
        let tiles = starts.map(|start| {
            let rows = 4 * K * start..4 * K * (start + step).min(N);
            let src = weight.whole().slice(rows).unwrap();
            let dst = device.allocate(src.len()).unwrap().whole();
            let upload = Work::Upload {
                dst: dst.clone(),
                src,
            };
            device.submit(copies, upload).unwrap();
            dst
        });
        let places: Vec<Slice> = tiles.collect();
        let ready = device.event().unwrap();
        device.submit(copies, Work::Record(ready.clone())).unwrap();
        device.submit(compute, Work::Wait(ready)).unwrap();
        let whole = if tiled {
            weight.whole()
        } else {
            places[0].clone()
        };
        let Work::Launch {
            executable,
            env,
            args,
            scratch,
            ..
        } = launch(&device, &executable, 0, &[&x, &whole, &out])
        else {
            unreachable!()
        };
        let rows = 0..N;
        let tiles = match tiled {
            true => vec![Tiles { rows, step, places }],
            false => Vec::new(),
        };
        let work = Work::Launch {
            executable,
            env,
            args,
            tiles,
            scratch,
        };
        device.submit(compute, work).unwrap();
        read(&device, compute, &out).unwrap()
    };
    let whole = run(N, false);
    for step in [64, 128, 192, 1000] {
        assert_eq!(run(step, true), whole, "tiles of {step}");
    }
    let x = values(K, 8);
    let w = values(N * K, 7);
    let dot = |row: &[f32]| row.iter().zip(&x).map(|(a, b)| a * b).sum();
    close(&whole, &w.chunks_exact(K).map(dot).collect::<Vec<f32>>());
    // Tiles were copied, so nothing was read in place.
    assert_eq!(device.transfers().copied, 0);
}

#[test]
fn of_a_group_with_tiles_only_the_products_with_rows_run() {
    let Some(device) = cuda() else { return };
    let stream = device.stream("s").unwrap();
    let parts = vec![project(), project()];
    let executable = device
        .load(&Kernel::Group(Group {
            parts,
            order: Order::Side,
        }))
        .unwrap();
    let weights = [7, 9].map(|seed| place(&device, stream, bytes(&values(N * K, seed))));
    let x = place(&device, stream, bytes(&values(K, 8)));
    let run = |tiles: Vec<Tiles>| {
        let [y, z] = [0; 2].map(|_| device.allocate(4 * N).unwrap().whole());
        let [v, w] = &weights;
        let mut work = launch(&device, &executable, 0, &[&x, v, &y, &x, w, &z]);
        if let Work::Launch { tiles: t, .. } = &mut work {
            *t = tiles;
        }
        device.submit(stream, work)?;
        [y, z]
            .iter()
            .map(|s| read(&device, stream, s))
            .collect::<Result<Vec<_>, _>>()
    };
    let all = run(Vec::new()).unwrap();
    let tiles = |w: &Slice, step: usize| {
        let cut = |start: usize| {
            w.slice(4 * K * start..4 * K * (start + step).min(N))
                .unwrap()
        };
        Tiles {
            rows: 0..N,
            step,
            places: (0..N).step_by(step).map(cut).collect(),
        }
    };
    let second = run(vec![Tiles::default(), tiles(&weights[1], 64)]).unwrap();
    assert_eq!(second, [vec![0.; N], all[1].clone()]);
    let both = run(vec![tiles(&weights[0], 128), tiles(&weights[1], N)]).unwrap();
    assert_eq!(both, all);
    let few = run(vec![Tiles::default()]);
    assert!(matches!(
        few,
        Err(Error::Weights {
            expected: 2,
            found: 1,
            ..
        })
    ));
}

#[test]
fn parts_of_a_group_compute_what_they_would_alone() {
    let Some(device) = cuda() else { return };
    let stream = device.stream("s").unwrap();
    let parts = vec![gate(), gate()];
    let executable = device
        .load(&Kernel::Group(Group {
            parts,
            order: Order::Side,
        }))
        .unwrap();
    let inputs = [1, 2].map(|seed| place(&device, stream, bytes(&values(1000, seed))));
    let [y, z] = [0; 2].map(|_| device.allocate(4000).unwrap().whole());
    let [a, b] = &inputs;
    let work = launch(&device, &executable, 1000, &[a, a, &y, b, b, &z]);
    device.submit(stream, work).unwrap();
    let gate = |v: &f32| v / (1. + (-v).exp()) * v;
    for (seed, out) in [(1, y), (2, z)] {
        let expected: Vec<f32> = values(1000, seed).iter().map(gate).collect();
        close(&read(&device, stream, &out).unwrap(), &expected);
    }
}

#[test]
fn rows_are_gathered_in_place_and_a_bad_id_is_told_once() {
    let Some(device) = cuda() else { return };
    let (stream, other) = (device.stream("s").unwrap(), device.stream("t").unwrap());
    let rows = values(ENTRIES * COLS, 3);
    let table = mapped(&device, &bytes(&rows)).whole();
    let executable = device.load(&pick()).unwrap();
    let ids = device.allocate(12).unwrap().whole();
    let out = device.allocate(12 * COLS).unwrap().whole();
    let gather = |list: [u32; 3]| {
        let list = list.iter().flat_map(|i| i.to_le_bytes()).collect();
        write(&device, stream, &ids, list);
        let work = launch(&device, &executable, 3, &[&ids, &table, &out]);
        device.submit(stream, work).unwrap();
    };
    let expected = |list: [usize; 3]| list.map(|id| rows[id * COLS..][..COLS].to_vec()).concat();
    gather([4, 0, 49]);
    assert_eq!(read(&device, stream, &out).unwrap(), expected([4, 0, 49]));
    assert!(device.transfers().registered > 0);

    gather([4, 50, 1]);
    let event = device.event().unwrap();
    device.submit(stream, Work::Record(event.clone())).unwrap();
    device.submit(other, Work::Wait(event)).unwrap();
    let told = device.synchronize(other).unwrap_err();
    assert!(matches!(told, Error::Upstream { .. }), "{told}");
    let told = read(&device, stream, &out).unwrap_err();
    let Error::Launch { source, .. } = &told else {
        panic!("{told}")
    };
    let id = LaunchError::Id {
        id: 50,
        row: 1,
        entries: ENTRIES,
    };
    assert_eq!(*source, id);

    device.synchronize(other).unwrap();
    gather([1, 2, 3]);
    assert_eq!(read(&device, stream, &out).unwrap(), expected([1, 2, 3]));
}

#[test]
fn a_text_is_assembled_once_for_as_long_as_it_is_in_use() {
    let Some(device) = cuda() else { return };
    let first = device.load(&gate()).unwrap();
    assert_eq!(device.assembled(), 1);
    let more: Vec<Executable> = (0..100).map(|_| device.load(&gate()).unwrap()).collect();
    assert_eq!(device.assembled(), 1);
    drop(first);
    let last = device.load(&gate()).unwrap();
    assert_eq!(device.assembled(), 1, "others of them are in use");
    drop((more, last));
    let again = device.load(&gate()).unwrap();
    assert_eq!(device.assembled(), 2, "none was in use");
    let other = device.load(&pick()).unwrap();
    assert_eq!(device.assembled(), 3, "another text");
    drop((again, other));
}

/// Far above what a launch costs, and far below what it would if it waited for the one before it,
/// or took memory from the driver.
const CHEAP: Duration = Duration::from_micros(40);

#[test]
fn submitting_a_launch_is_cheap() {
    let Some(device) = cuda() else { return };
    let stream = device.stream("s").unwrap();
    let executable = device.load(&gate()).unwrap();
    let [a, b, out] = [0; 3].map(|_| device.allocate(4000).unwrap().whole());
    let round = || {
        let works: Vec<Work> = (0..500)
            .map(|_| launch(&device, &executable, 1000, &[&a, &b, &out]))
            .collect();
        let start = Instant::now();
        for work in works {
            device.submit(stream, work).unwrap();
        }
        let each = start.elapsed() / 500;
        device.synchronize(stream).unwrap();
        each
    };
    // The first rounds load code; what else the machine does falls on some of the others.
    let rounds: Vec<Duration> = (0..10).map(|_| round()).collect();
    assert!(rounds.iter().min() < Some(&CHEAP), "{rounds:?} a launch");
}
