//! The CUDA device against the trait's promises. Without a GPU everything but the errors of the
//! probe is left out, unless `TRT_REQUIRE_CUDA=1` says that there must be one.

mod uploads;

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use trt_device::{Cuda, Device, Error, Host, Memory, Paging, Slice, Stream, Work};

/// Tests that use the device, one at a time: some look at how much of its memory is free.
static ALONE: Mutex<()> = Mutex::new(());

/// The first device, for as long as the guard lives.
fn cuda() -> Option<(Cuda, MutexGuard<'static, ()>)> {
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    match Cuda::new(0) {
        Ok(device) => Some((device, alone)),
        Err(error) if std::env::var_os("TRT_REQUIRE_CUDA").is_some_and(|v| v == "1") => {
            panic!("TRT_REQUIRE_CUDA=1, but {error}")
        }
        Err(error) => {
            println!("no CUDA device: {error}");
            None
        }
    }
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (i.wrapping_mul(31) / 7 + seed) as u8)
        .collect()
}

fn write(device: &dyn Device, stream: Stream, dst: &Slice, bytes: &[u8]) {
    let work = Work::Write {
        dst: dst.clone(),
        bytes: bytes.to_vec(),
    };
    device.submit(stream, work).unwrap();
}

fn read(device: &dyn Device, stream: Stream, src: &Slice) -> Vec<u8> {
    let mut bytes = vec![0xee; src.len()];
    device.read(stream, src, &mut bytes).unwrap();
    bytes
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

#[test]
fn asking_for_a_device_never_panics_and_says_why_there_is_none() {
    let devices = Cuda::devices();
    match Cuda::new(999) {
        Ok(_) => panic!("nobody has a thousand devices"),
        Err(Error::NoDriver { reason }) => {
            assert!(!reason.is_empty());
            assert!(matches!(devices, Err(Error::NoDriver { .. })));
        }
        Err(Error::NoDevice {
            ordinal,
            devices: n,
        }) => {
            assert_eq!(ordinal, 999);
            assert_eq!(devices.unwrap().len(), n);
        }
        Err(other) => assert!(
            matches!(other, Error::OldDriver { .. } | Error::BrokenDriver { .. }),
            "{other}"
        ),
    }
}

#[test]
fn new_memory_is_zero_and_aligned() {
    let Some((device, _alone)) = cuda() else {
        return;
    };
    let stream = device.stream("s").unwrap();
    for bytes in [0, 1, 300, 5 << 20] {
        let memory = device.allocate(bytes).unwrap();
        assert_eq!(memory.whole().address() % 256, 0);
        write(&device, stream, &memory.whole(), &pattern(bytes, 1));
        assert_eq!(read(&device, stream, &memory.whole()), pattern(bytes, 1));
        drop(memory);
        let again = device.allocate(bytes).unwrap();
        assert!(
            read(&device, stream, &again.whole())
                .iter()
                .all(|b| *b == 0)
        );
    }
}

#[test]
fn freed_memory_goes_back_to_the_driver() {
    let Some((device, _alone)) = cuda() else {
        return;
    };
    let before = device.free_memory().unwrap();
    assert!(before <= device.info().total_memory);
    let memory = device.allocate(256 << 20).unwrap();
    assert!(device.free_memory().unwrap() + (255 << 20) < before);
    drop(memory);
    assert!(device.free_memory().unwrap() + (8 << 20) >= before);
}

#[test]
fn committed_memory_is_real_keeps_its_bytes_and_goes_back() {
    let Some((device, _alone)) = cuda() else {
        return;
    };
    let stream = device.stream("s").unwrap();
    let memory = device.reserve(1 << 30).unwrap();
    let before = device.free_memory().unwrap();
    device.commit(&memory, 64 << 20).unwrap();
    let first = memory.whole().slice(0..1000).unwrap();
    write(&device, stream, &first, &pattern(1000, 5));
    device.commit(&memory, 512 << 20).unwrap();
    assert!(device.free_memory().unwrap() + (511 << 20) < before);
    let last = memory.whole().slice((512 << 20) - 1000..512 << 20).unwrap();
    write(&device, stream, &last, &pattern(1000, 6));
    assert_eq!(read(&device, stream, &last), pattern(1000, 6));
    device.commit(&memory, 64 << 20).unwrap();
    assert!(device.free_memory().unwrap() + (72 << 20) >= before);
    assert_eq!(read(&device, stream, &first), pattern(1000, 5));
    device.commit(&memory, 0).unwrap();
    drop((first, last, memory));
    assert!(device.free_memory().unwrap() + (8 << 20) >= before);
}

#[test]
fn memory_that_is_cut_anywhere_keeps_the_bytes_before_the_cut_and_nothing_behind_it() {
    const MIB: usize = 1 << 20;
    let Some((device, _alone)) = cuda() else {
        return;
    };
    let stream = device.stream("s").unwrap();
    let memory = device.reserve(1 << 30).unwrap();
    let before = device.free_memory().unwrap();
    let marks = || (0..300).step_by(10);
    let mark = |mib: usize| memory.whole().slice(mib * MIB..mib * MIB + 64).unwrap();
    device.commit(&memory, 300 * MIB).unwrap();
    for mib in marks() {
        write(&device, stream, &mark(mib), &pattern(64, mib));
    }
    let mut kept = 300;
    for mib in [291, 256, 142, 130, 200, 141, 300, 63, 3] {
        device.commit(&memory, mib * MIB - 5).unwrap();
        kept = kept.min(mib);
        for mib in marks().filter(|m| *m < kept) {
            assert_eq!(read(&device, stream, &mark(mib)), pattern(64, mib), "{mib}");
        }
        let held = before - device.free_memory().unwrap();
        // Up to the granularity, and a little for the driver's own use.
        assert!(held >= (mib * MIB) as u64 - 5, "{held} of {mib} MiB");
        assert!(held <= ((mib + 8) * MIB) as u64, "{held} of {mib} MiB");
    }
}

#[test]
fn more_memory_than_there_is_is_an_error_with_the_numbers_and_changes_nothing() {
    let Some((device, _alone)) = cuda() else {
        return;
    };
    let total = device.info().total_memory as usize;
    let error = device.allocate(2 * total).unwrap_err();
    assert!(matches!(error, Error::OutOfMemory { bytes, .. } if bytes == 2 * total));
    assert!(error.to_string().contains("are free"), "{error}");
    let memory = device.reserve(2 * total).unwrap();
    let before = device.free_memory().unwrap();
    assert!(device.commit(&memory, 2 * total).is_err());
    assert!(device.free_memory().unwrap() + (32 << 20) >= before);
    let fixed = device.allocate(8).unwrap();
    assert!(matches!(device.commit(&fixed, 0), Err(Error::NotReserved)));
}

#[test]
fn copies_follow_each_other_on_a_stream_and_events_order_two() {
    let Some((device, _alone)) = cuda() else {
        return;
    };
    let (a, b) = (device.stream("a").unwrap(), device.stream("b").unwrap());
    let len = 8 << 20;
    let [x, y, z] = [0; 3].map(|_| device.allocate(len).unwrap().whole());
    let (ready, done) = (device.event().unwrap(), device.event().unwrap());
    device.submit(b, Work::Wait(done.clone())).unwrap();
    for round in 0..50 {
        let copy = |dst: &Slice, src: &Slice| Work::Copy {
            dst: dst.clone(),
            src: src.clone(),
        };
        device.submit(a, Work::Wait(done.clone())).unwrap();
        write(&device, a, &x, &pattern(len, round));
        device.submit(a, copy(&y, &x)).unwrap();
        device.submit(a, Work::Record(ready.clone())).unwrap();
        device.submit(b, Work::Wait(ready.clone())).unwrap();
        device.submit(b, copy(&z, &y)).unwrap();
        device.submit(b, Work::Record(done.clone())).unwrap();
    }
    assert!(read(&device, b, &z) == pattern(len, 49));
}

#[test]
fn work_keeps_its_memory_and_lets_it_go_when_it_is_waited_for() {
    let Some((device, _alone)) = cuda() else {
        return;
    };
    let (busy, other) = (
        device.stream("busy").unwrap(),
        device.stream("other").unwrap(),
    );
    let tied = Arc::new(());
    for _ in 0..200 {
        let src = device.allocate(1 << 20).unwrap();
        src.tie(tied.clone());
        let dst = device.allocate(1 << 20).unwrap().whole();
        write(&device, busy, &src.whole(), &pattern(1 << 20, 9));
        let work = Work::Copy {
            dst: dst.clone(),
            src: src.whole(),
        };
        device.submit(busy, work).unwrap();
    }
    // Whatever the busy stream was known to be done with is gone at the latest now.
    device.synchronize(busy).unwrap();
    assert_eq!(Arc::strong_count(&tied), 1);
    device.synchronize(other).unwrap();
}

#[test]
fn what_is_tied_to_memory_may_read_the_stream_that_held_it() {
    /// Reads its stream when it is dropped.
    struct Reads(Arc<Cuda>, Stream, Slice, Arc<Mutex<Vec<u8>>>);
    impl Drop for Reads {
        fn drop(&mut self) {
            *self.3.lock().unwrap() = read(&*self.0, self.1, &self.2);
        }
    }
    let Some((device, _alone)) = cuda() else {
        return;
    };
    let (device, found) = (Arc::new(device), Arc::new(Mutex::new(Vec::new())));
    let stream = device.stream("s").unwrap();
    let memory = device.allocate(100).unwrap().whole();
    write(&*device, stream, &memory, &pattern(100, 4));
    let held = device.allocate(100).unwrap();
    held.tie(Reads(device.clone(), stream, memory.clone(), found.clone()));
    let (dst, src) = (held.whole(), memory.clone());
    device.submit(stream, Work::Copy { dst, src }).unwrap();
    drop(held);
    assert_eq!(read(&*device, stream, &memory), pattern(100, 4));
    assert_eq!(*found.lock().unwrap(), pattern(100, 4));
}

#[test]
fn what_cannot_be_done_is_refused_with_a_reason() {
    let Some((device, _alone)) = cuda() else {
        return;
    };
    let stream = device.stream("s").unwrap();
    let memory = device.allocate(64).unwrap().whole();
    let part = |range| memory.slice(range).unwrap();
    let host = Host::discrete().allocate(64).unwrap().whole();
    let file = mapped(&device, &pattern(64, 0)).whole();
    let foreign = mapped(&Host::discrete(), &pattern(64, 0)).whole();
    let copy = |dst: Slice, src: Slice| device.submit(stream, Work::Copy { dst, src });
    let upload = |dst: Slice, src: Slice| device.submit(stream, Work::Upload { dst, src });
    assert!(matches!(
        copy(part(0..4), part(8..16)),
        Err(Error::Length { .. })
    ));
    assert!(matches!(
        copy(part(0..8), part(4..12)),
        Err(Error::Overlap { .. })
    ));
    assert!(matches!(
        copy(file.clone(), memory.clone()),
        Err(Error::ReadOnly { .. })
    ));
    assert!(matches!(
        copy(memory.clone(), host.clone()),
        Err(Error::WrongDevice { .. })
    ));
    assert!(matches!(
        upload(memory.clone(), memory.clone()),
        Err(Error::NotMapping { .. })
    ));
    assert!(matches!(
        upload(memory.clone(), foreign),
        Err(Error::WrongDevice { .. })
    ));
    assert!(copy(memory.clone(), file.clone()).is_ok());
    assert_eq!(read(&device, stream, &memory), pattern(64, 0));
    assert_eq!(read(&device, stream, &file), pattern(64, 0));
    let elsewhere = Stream::new(device.info().id, 99);
    assert!(matches!(
        device.synchronize(elsewhere),
        Err(Error::UnknownStream { .. })
    ));
    let to_host = Work::Copy {
        dst: host,
        src: memory.clone(),
    };
    let theirs = Host::discrete();
    let on = theirs.stream("s").unwrap();
    assert!(matches!(
        theirs.submit(on, to_host),
        Err(Error::WrongDevice { .. })
    ));
    device.synchronize(stream).unwrap();
}

#[test]
fn recorded_copies_can_be_replayed_on_any_stream() {
    let Some((device, _alone)) = cuda() else {
        return;
    };
    let streams = [device.stream("a").unwrap(), device.stream("b").unwrap()];
    let [x, y, z] = [0; 3].map(|_| device.allocate(1000).unwrap().whole());
    let copy = |dst: &Slice, src: &Slice| Work::Copy {
        dst: dst.clone(),
        src: src.clone(),
    };
    let graph = device.record(vec![copy(&y, &x), copy(&z, &y)]).unwrap();
    for (round, stream) in streams.into_iter().cycle().take(6).enumerate() {
        write(&device, stream, &x, &pattern(1000, round));
        let work = Work::Replay {
            graph: graph.clone(),
            env: Default::default(),
        };
        device.submit(stream, work).unwrap();
        assert_eq!(read(&device, stream, &z), pattern(1000, round));
    }
    let event = device.event().unwrap();
    let refused = device.record(vec![Work::Record(event)]);
    assert!(matches!(refused, Err(Error::NotRecordable { .. })));
}
