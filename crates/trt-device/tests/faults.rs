//! What must not hang, race or end the process: panics, threads that the system refuses, files that
//! are cut, and the device's own end.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use trt_device::{Device, Error, Host, HostMode, Memory, Paging, Slice, Stream, Work};
use trt_kernel::{Arg, BodyBuilder, DType, Dim, Env, Kernel, Move, Row, View};

/// Longer than any of these tests takes on a busy machine.
const LONG: Duration = Duration::from_secs(60);

fn read(device: &Host, stream: Stream, slice: &Slice) -> Result<Vec<u8>, Error> {
    let mut out = vec![0; slice.len()];
    device.read(stream, slice, &mut out).map(|()| out)
}

fn write(dst: &Slice, value: u8) -> Work {
    Work::Write {
        dst: dst.clone(),
        bytes: vec![value; dst.len()],
    }
}

/// A mapping of a file of these bytes, and the file to cut.
fn mapped(device: &Host, bytes: &[u8], paging: Paging) -> (Memory, File) {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    // SAFETY: the file is cut by these tests only, which is what they are about: nothing reads the
    // mapping then.
    let map = unsafe { memmap2::Mmap::map(&file).unwrap() };
    let other = file.try_clone().unwrap();
    let name = Path::new("some.weights");
    let memory = device.map(name, Arc::new(file), Arc::new(map), paging);
    (memory.unwrap(), other)
}

fn launch(device: &Host, kernel: &Kernel, args: &[&Slice]) -> Work {
    Work::Launch {
        executable: device.load(kernel).unwrap(),
        env: Env::default(),
        args: args.iter().map(|s| (*s).clone()).collect(),
        tiles: vec![],
        scratch: None,
    }
}

/// `n` elements as f32.
fn widen(dtype: DType, n: i64) -> Kernel {
    let space = vec![Dim::from(1), Dim::from(n)];
    let view = View::contiguous(&space);
    let mut body = BodyBuilder::new();
    let x = body.load(Arg(0), view.clone());
    let x = match dtype.is_float() {
        true => x,
        false => body.push(trt_kernel::Inst::Cast(x, trt_kernel::Ty::F32)),
    };
    body.store(Arg(1), view, x);
    Kernel::Row(Row {
        space,
        args: vec![dtype, DType::F32],
        body: body.finish(),
    })
}

/// `n` elements as they are.
fn copied(dtype: DType, n: i64) -> Kernel {
    let space = vec![Dim::from(n)];
    let view = View::contiguous(&space);
    Kernel::Move(Move {
        dtype,
        src: view.clone(),
        dst: view,
        space,
    })
}

#[test]
fn a_file_that_was_cut_fails_what_needs_it_and_works_again_when_it_is_whole() {
    const LEN: usize = 3 << 20;
    let content: Vec<u8> = (0..LEN).map(|i| (i * 7 + (i >> 12)) as u8).collect();
    for (mode, paging) in [
        (HostMode::Unified, Paging::Exact),
        (HostMode::Unified, Paging::Coarse),
        (HostMode::Discrete, Paging::Exact),
    ] {
        let device = Host::new(mode);
        let stream = device.stream("test").unwrap();
        let (map, file) = mapped(&device, &content, paging);
        let part = map.whole().slice(1 << 20..2 << 20).unwrap();
        let dst = device.allocate(part.len()).unwrap().whole();
        let few = part.slice(0..16).unwrap();
        let out = device.allocate(64).unwrap().whole();
        let works = || {
            let (to, from) = (dst.clone(), part.clone());
            [
                Work::Populate(part.clone()),
                Work::Upload { dst: to, src: from },
                Work::Copy {
                    dst: dst.clone(),
                    src: part.clone(),
                },
                launch(&device, &widen(DType::U8, 16), &[&few, &out]),
                launch(&device, &copied(DType::U8, 16), &[&few, &out]),
            ]
        };
        // Cut in a page, between pages, beyond the part, and all of it.
        for found in [(1 << 20) + 100, 1 << 20, LEN - 1, 0] {
            file.set_len(found as u64).unwrap();
            for work in works() {
                let name = work.name();
                device.submit(stream, work).unwrap();
                let error = device.synchronize(stream).unwrap_err();
                let said = error.to_string();
                let parts = ["some.weights".into(), LEN.to_string(), found.to_string()];
                assert!(parts.iter().all(|p| said.contains(p)), "{name}: {said}");
                assert!(matches!(error, Error::FileCut { .. }), "{name}: {said}");
            }
            assert!(map.intact().is_err());
            for work in [Work::Discard(part.clone()), Work::Trim(part.clone())] {
                device.submit(stream, work).unwrap();
                device.synchronize(stream).unwrap();
            }
            use std::os::unix::fs::FileExt;
            file.write_all_at(&content, 0).unwrap();
            for work in works() {
                device.submit(stream, work).unwrap();
            }
            assert!(read(&device, stream, &dst).unwrap() == content[1 << 20..2 << 20]);
            assert_eq!(
                read(&device, stream, &few).unwrap(),
                content[1 << 20..][..16]
            );
        }
    }
}

#[test]
fn a_part_that_the_file_lost_is_no_data_even_if_the_file_is_read_by_the_caller() {
    let device = Host::discrete();
    let stream = device.stream("test").unwrap();
    let (map, file) = mapped(&device, &[5; 10_000], Paging::Exact);
    file.set_len(9000).unwrap();
    let error = read(&device, stream, &map.whole()).unwrap_err();
    assert!(
        matches!(
            error,
            Error::FileCut {
                needed: 10_000,
                found: 9000,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn elements_of_every_type_are_read_wherever_a_file_has_them() {
    const N: usize = 1000;
    for mode in [HostMode::Unified, HostMode::Discrete] {
        let device = Host::new(mode);
        let stream = device.stream("test").unwrap();
        let all = [
            DType::F32,
            DType::BF16,
            DType::F16,
            DType::U8,
            DType::U32,
            DType::I64,
        ];
        for dtype in all {
            // Small numbers: patterns that are no NaN in any type.
            let len = N * dtype.size();
            let values: Vec<u8> = (0..len).map(|i| (i % 61) as u8).collect();
            let mut expected: Option<Vec<u8>> = None;
            for at in 0..=dtype.size() {
                let bytes = [&vec![0xff; at][..], &values].concat();
                let (map, _file) = mapped(&device, &bytes, Paging::Exact);
                let part = map.whole().slice(at..at + len).unwrap();
                let out = device.allocate(4 * N).unwrap().whole();
                let same = device.allocate(len).unwrap().whole();
                let works = [
                    launch(&device, &widen(dtype, N as i64), &[&part, &out]),
                    launch(&device, &copied(dtype, N as i64), &[&part, &same]),
                ];
                for work in works {
                    device.submit(stream, work).unwrap();
                }
                assert_eq!(
                    read(&device, stream, &same).unwrap(),
                    values,
                    "{dtype} at {at}"
                );
                let found = read(&device, stream, &out).unwrap();
                let first = expected.get_or_insert_with(|| found.clone());
                assert_eq!(*first, found, "{dtype} at {at}");
            }
        }
    }
}

/// Panics when it is dropped, perhaps while a panic is under way.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

#[test]
fn work_that_panics_when_it_is_dropped_neither_ends_its_stream_nor_hangs_who_waits() {
    let device = Host::unified();
    let (first, second) = (device.stream("a").unwrap(), device.stream("b").unwrap());
    let event = device.event().unwrap();
    let slice = device.allocate(64).unwrap().whole();
    slice.memory().tie(Bomb);
    // The stream must hold the last reference.
    let big = device.allocate(8 << 20).unwrap().whole();
    device.submit(first, write(&big, 1)).unwrap();
    device.submit(first, write(&slice, 1)).unwrap();
    device.submit(first, Work::Record(event.clone())).unwrap();
    drop(slice);
    device.submit(second, Work::Wait(event)).unwrap();
    let waited = device.synchronize(second);
    let error = device.synchronize(first).unwrap_err();
    assert!(
        matches!(error, Error::Panicked { work: "write", .. }),
        "{error}"
    );
    assert!(matches!(waited, Err(Error::Upstream { .. })), "{waited:?}");
    device.submit(first, write(&big, 2)).unwrap();
    assert_eq!(
        read(&device, first, &big.slice(0..2).unwrap()).unwrap(),
        [2, 2]
    );
}

/// Says when it is dropped.
struct Says(mpsc::Sender<()>);

impl Drop for Says {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[test]
fn a_device_that_its_own_work_drops_ends_though_its_streams_wait_for_each_other() {
    let device = Arc::new(Host::unified());
    let (first, second) = (device.stream("a").unwrap(), device.stream("b").unwrap());
    let (says, told) = mpsc::channel();
    let last = device.allocate(64).unwrap().whole();
    last.memory().tie(device.clone());
    let end = device.allocate(64).unwrap().whole();
    end.memory().tie(Says(says));
    let event = device.event().unwrap();
    let big = device.allocate(64 << 20).unwrap().whole();
    // Long enough for what follows to be submitted, and for the caller to let go of the device.
    device.submit(first, write(&big, 1)).unwrap();
    device.submit(first, write(&last, 1)).unwrap();
    device.submit(first, Work::Record(event.clone())).unwrap();
    device.submit(second, Work::Wait(event)).unwrap();
    device.submit(second, write(&end, 1)).unwrap();
    drop((last, end, big));
    drop(device);
    told.recv_timeout(LONG).expect("both streams ended");
}

#[test]
fn threads_that_the_system_refuses_are_done_without_or_an_error() {
    const CHILD: &str = "TRT_TEST_WITHOUT_THREADS";
    if std::env::var_os(CHILD).is_some() {
        let team = trt_kernel::host::Team::new(4);
        assert_eq!(team.threads(), 1);
        let sum = std::sync::atomic::AtomicUsize::new(0);
        team.run(5, |i| {
            sum.fetch_add(i, std::sync::atomic::Ordering::Relaxed);
        })
        .unwrap();
        assert_eq!(sum.into_inner(), 10);
        let error = Host::unified()
            .with_threads(3)
            .stream("weights")
            .unwrap_err();
        assert!(
            error.to_string().contains("thread of stream 'weights'"),
            "{error}"
        );
        assert!(trt_device::AnonPeak::start().is_err());
        println!("all of it was looked at");
        return;
    }
    // No system has as much memory for a stack, so no thread can be started.
    let name = "threads_that_the_system_refuses_are_done_without_or_an_error";
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--test-threads=1", "--nocapture"])
        .env(CHILD, "1")
        .env("RUST_MIN_STACK", (1u64 << 46).to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    let why = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{said}{why}");
    assert!(said.contains("all of it was looked at"), "{said}{why}");
}
