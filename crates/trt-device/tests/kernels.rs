//! Launches on the host device: results, both modes, and what happens after an error.

#[path = "kernels/packed.rs"]
mod packed;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use trt_device::{Device, Error, Executable, Host, Paging, Residency, Slice, Stream, Tiles, Work};
use trt_kernel::{
    Arg, Binary, BodyBuilder, DType, Dim, Encoding, Env, Inst, Kernel, Matmul, Operand, Row, Unary,
    Var, View,
};

/// `a2[i] = silu(a0[i]) * a1[i]` over `v0` elements.
fn gate() -> Kernel {
    let space = vec![Dim::var(Var(0))];
    let whole = View::contiguous(&space);
    let mut body = BodyBuilder::new();
    let a = body.load(Arg(0), whole.clone());
    let b = body.load(Arg(1), whole.clone());
    let s = body.unary(Unary::Silu, a);
    let p = body.binary(Binary::Mul, s, b);
    body.store(Arg(2), whole, p);
    Kernel::Row(Row {
        space,
        args: vec![DType::F32; 3],
        body: body.finish(),
    })
}

const K: usize = 96;
const N: usize = 256;

/// `a2[n] = Σ_k a0[k] * a1[n, k]`, by row ranges of `a1`.
fn project() -> Kernel {
    let dims = |d: [i64; 3]| d.map(Dim::from).to_vec();
    let view = |strides: [i64; 3]| View {
        offset: Dim::from(0),
        strides: dims(strides),
    };
    let mut body = BodyBuilder::new();
    let sum = body.push(Inst::Input);
    body.store(Arg(2), view([N as i64, N as i64, 1]), sum);
    Kernel::Matmul(Matmul {
        batch: Dim::from(1),
        m: Dim::from(1),
        n: Dim::from(N),
        k: Dim::from(K),
        args: Encoding::plain([DType::F32; 3]),
        a: Operand {
            arg: Arg(0),
            view: view([K as i64, K as i64, 1]),
        }
        .into(),
        b: Operand {
            arg: Arg(1),
            view: view([0, K as i64, 1]),
        },
        ranged: true,
        epilogue: body.finish(),
    })
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn filled(device: &Host, stream: Stream, values: &[f32]) -> Slice {
    let bytes = floats(values);
    let dst = device.allocate(bytes.len()).unwrap().whole();
    let write = Work::Write {
        dst: dst.clone(),
        bytes,
    };
    device.submit(stream, write).unwrap();
    dst
}

fn launch(executable: &Executable, elements: i64, args: &[&Slice]) -> Work {
    Work::Launch {
        executable: executable.clone(),
        env: Env::new(&[elements]),
        args: args.iter().map(|s| (*s).clone()).collect(),
        tiles: vec![],
        scratch: None,
    }
}

fn read(device: &Host, stream: Stream, slice: &Slice) -> Result<Vec<u8>, Error> {
    let mut out = vec![0; slice.len()];
    device.read(stream, slice, &mut out).map(|()| out)
}

fn values(n: usize, seed: u32) -> Vec<f32> {
    (0..n as u32)
        .map(|i| ((i.wrapping_mul(2_654_435_761).wrapping_add(seed)) >> 8) as f32 / 1e7 - 0.8)
        .collect()
}

#[test]
fn a_launch_computes() {
    let device = Host::unified();
    let stream = device.stream("test").unwrap();
    let (a, b) = (values(1000, 1), values(1000, 2));
    let (da, db) = (filled(&device, stream, &a), filled(&device, stream, &b));
    let out = device.allocate(4000).unwrap().whole();
    let gate = device.load(&gate()).unwrap();
    device
        .submit(stream, launch(&gate, 1000, &[&da, &db, &out]))
        .unwrap();
    let got = read(&device, stream, &out).unwrap();
    for ((bytes, a), b) in got.chunks_exact(4).zip(&a).zip(&b) {
        let got = f32::from_le_bytes(bytes.try_into().unwrap());
        let expected = a / (1. + (-a).exp()) * b;
        assert!((got - expected).abs() < 1e-5, "{got} for {expected}");
    }
}

/// Streams a mapped weight through the device in tiles, with a fetch stream a tile ahead.
fn streamed(device: &Host, weight: &[f32], x: &[f32]) -> Vec<u8> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&floats(weight)).unwrap();
    // SAFETY: the file is private to this function and never changed or truncated.
    let map = unsafe { memmap2::Mmap::map(&file).unwrap() };
    let map = device
        .map(
            Path::new("a test"),
            Arc::new(file),
            Arc::new(map),
            Paging::Exact,
        )
        .unwrap()
        .whole();
    let (fetch, compute) = (
        device.stream("fetch").unwrap(),
        device.stream("compute").unwrap(),
    );
    let (project, gate) = (
        device.load(&project()).unwrap(),
        device.load(&gate()).unwrap(),
    );
    let x = filled(device, compute, x);
    let y = device.allocate(N * 4).unwrap().whole();
    let ring = [64 * K * 4; 2].map(|bytes| device.allocate(bytes).unwrap().whole());
    let filled = [0; 2].map(|_| device.event().unwrap());
    let freed = [0; 2].map(|_| device.event().unwrap());
    for (tile, rows) in [0..64, 64..128, 128..192, 192..256].into_iter().enumerate() {
        let slot = tile % 2;
        let src = map.slice(rows.start * K * 4..rows.end * K * 4).unwrap();
        device
            .submit(fetch, Work::Wait(freed[slot].clone()))
            .unwrap();
        let (arrival, weight) = match device.info().residency {
            Residency::InPlace => (Work::Populate(src.clone()), src.clone()),
            Residency::Copied => {
                let dst = ring[slot].clone();
                (
                    Work::Upload {
                        dst: dst.clone(),
                        src: src.clone(),
                    },
                    dst,
                )
            }
        };
        device.submit(fetch, arrival).unwrap();
        device
            .submit(fetch, Work::Record(filled[slot].clone()))
            .unwrap();
        device
            .submit(compute, Work::Wait(filled[slot].clone()))
            .unwrap();
        let work = Work::Launch {
            executable: project.clone(),
            env: Env::default(),
            args: vec![x.clone(), weight.clone(), y.clone()],
            tiles: vec![Tiles {
                step: rows.len(),
                rows,
                places: vec![weight],
            }],
            scratch: None,
        };
        device.submit(compute, work).unwrap();
        device.submit(compute, Work::Discard(src)).unwrap();
        device
            .submit(compute, Work::Record(freed[slot].clone()))
            .unwrap();
    }
    device
        .submit(compute, launch(&gate, N as i64, &[&y, &y, &y]))
        .unwrap();
    let out = read(device, compute, &y).unwrap();
    device.synchronize(fetch).unwrap();
    out
}

#[test]
fn both_modes_and_any_number_of_threads_give_the_same_bits() {
    let (weight, x) = (values(N * K, 3), values(K, 4));
    let unified = streamed(&Host::unified(), &weight, &x);
    assert!(unified.iter().any(|b| *b != 0));
    assert_eq!(unified, streamed(&Host::discrete(), &weight, &x));
    assert_eq!(
        unified,
        streamed(&Host::unified().with_threads(1), &weight, &x)
    );
    assert_eq!(
        unified,
        streamed(&Host::discrete().with_threads(3), &weight, &x)
    );
}

#[test]
fn a_launch_with_wrong_arguments_is_refused() {
    let device = Host::unified();
    let stream = device.stream("test").unwrap();
    let gate = device.load(&gate()).unwrap();
    let slice = device.allocate(64).unwrap().whole();
    let error = device
        .submit(stream, launch(&gate, 1, &[&slice]))
        .unwrap_err();
    assert_eq!(error.to_string(), "row kernel takes 3 arguments, not 1");

    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(64).unwrap();
    // SAFETY: the file is private to this test and never changed or truncated.
    let map = unsafe { memmap2::Mmap::map(file.as_file()).unwrap() };
    let map = device
        .map(
            file.path(),
            Arc::new(file.reopen().unwrap()),
            Arc::new(map),
            Paging::Exact,
        )
        .unwrap()
        .whole();
    device
        .submit(stream, launch(&gate, 1, &[&map, &map, &slice]))
        .unwrap();
    let error = device
        .submit(stream, launch(&gate, 1, &[&slice, &slice, &map]))
        .unwrap_err();
    assert!(matches!(error, Error::ReadOnly { .. }), "{error}");
    device.synchronize(stream).unwrap();
}

#[test]
fn an_error_is_kept_until_it_is_taken_and_work_is_skipped_until_then() {
    let device = Host::unified();
    let stream = device.stream("compute").unwrap();
    let gate = device.load(&gate()).unwrap();
    let short = device.allocate(64).unwrap().whole();
    let marker = filled(&device, stream, &[1.0]);
    device
        .submit(stream, launch(&gate, 20, &[&short, &short, &short]))
        .unwrap();
    let write = |byte| Work::Write {
        dst: marker.clone(),
        bytes: vec![byte; 4],
    };
    device.submit(stream, write(9)).unwrap();
    device
        .submit(stream, launch(&gate, 30, &[&short, &short, &short]))
        .unwrap();
    let error = device.synchronize(stream).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("row kernel on stream 'compute': argument a"),
        "{error}"
    );
    assert!(
        error.to_string().contains("0..=19"),
        "not the first error: {error}"
    );
    // Taken: the stream works again, and the write in between was not done.
    assert_eq!(read(&device, stream, &marker).unwrap(), floats(&[1.0]));
    device.submit(stream, write(5)).unwrap();
    assert_eq!(read(&device, stream, &marker).unwrap(), vec![5; 4]);
}

#[test]
fn a_stream_that_waits_for_a_failed_one_fails_with_it_and_nobody_hangs() {
    let device = Host::unified();
    let streams = ["a", "b", "c"].map(|name| device.stream(name).unwrap());
    let gate = device.load(&gate()).unwrap();
    let short = device.allocate(64).unwrap().whole();
    let (first, second) = (device.event().unwrap(), device.event().unwrap());
    let [a, b, c] = streams;
    device
        .submit(a, launch(&gate, 1000, &[&short, &short, &short]))
        .unwrap();
    device.submit(a, Work::Record(first.clone())).unwrap();
    device.submit(b, Work::Wait(first)).unwrap();
    device.submit(b, Work::Record(second.clone())).unwrap();
    device.submit(c, Work::Wait(second)).unwrap();
    for stream in [c, b] {
        let error = device.synchronize(stream).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("stream 'a' failed: row kernel"),
            "{error}"
        );
        device.synchronize(stream).unwrap();
    }
    assert!(matches!(
        device.synchronize(a).unwrap_err(),
        Error::Launch { .. }
    ));
    for stream in streams {
        device.synchronize(stream).unwrap();
    }
}

/// `out[i] = a[i] + a[i]` with the result over its operand.
#[test]
fn a_kernel_may_write_over_what_it_reads() {
    let space = vec![Dim::from(1), Dim::from(3)];
    let view = View::contiguous(&space);
    let mut body = BodyBuilder::new();
    let a = body.load(Arg(0), view.clone());
    let sum = body.binary(Binary::Add, a, a);
    body.store(Arg(1), view, sum);
    let kernel = Kernel::Row(Row {
        space,
        args: vec![DType::F32; 2],
        body: body.finish(),
    });
    let device = Host::discrete().without("row");
    let executable = device.load(&kernel).unwrap();
    assert!(executable.by_host().is_some_and(|why| why.contains("row")));
    let stream = device.stream("s").unwrap();
    let place = device.allocate(12).unwrap().whole();
    let bytes = |v: [f32; 3]| v.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let dst = place.clone();
    let write = Work::Write {
        dst,
        bytes: bytes([1.0, 2.0, 3.0]),
    };
    device.submit(stream, write).unwrap();
    let launch = Work::Launch {
        executable,
        env: Env::default(),
        args: vec![place.clone(), place.clone()],
        tiles: Vec::new(),
        scratch: None,
    };
    device.submit(stream, launch).unwrap();
    let mut out = vec![0; 12];
    device.read(stream, &place, &mut out).unwrap();
    assert_eq!(out, bytes([2.0, 4.0, 6.0]));
}
