//! How streams, events, memory and pages of the host device behave.

mod pages;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use trt_device::{
    Device, Error, Event, Host, Memory, OwnedStream, Paging, ProcessMemory, Residency, Slice,
    Stream, Work,
};

fn bytes(value: u8, len: usize) -> Vec<u8> {
    vec![value; len]
}

fn write(dst: &Slice, value: u8) -> Work {
    Work::Write {
        dst: dst.clone(),
        bytes: bytes(value, dst.len()),
    }
}

fn copy(dst: &Slice, src: &Slice) -> Work {
    Work::Copy {
        dst: dst.clone(),
        src: src.clone(),
    }
}

/// Work that takes a few milliseconds.
fn slow(device: &Host, stream: Stream) {
    let big = device.allocate(8 << 20).unwrap().whole();
    device.submit(stream, write(&big, 1)).unwrap();
}

fn read(device: &Host, stream: Stream, slice: &Slice) -> Result<Vec<u8>, Error> {
    let mut out = vec![0; slice.len()];
    device.read(stream, slice, &mut out).map(|()| out)
}

fn mapped(device: &Host, len: usize) -> (Memory, Vec<u8>) {
    let content: Vec<u8> = (0..len).map(|i| (i * 7 + (i >> 12)) as u8).collect();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&content).unwrap();
    // SAFETY: the file is private to this test and never changed or truncated.
    let map = unsafe { memmap2::Mmap::map(&file).unwrap() };
    (
        device
            .map(
                Path::new("a test"),
                Arc::new(file),
                Arc::new(map),
                Paging::Exact,
            )
            .unwrap(),
        content,
    )
}

#[test]
fn a_device_says_what_it_is() {
    let (unified, discrete) = (Host::unified(), Host::discrete());
    assert_eq!(unified.info().residency, Residency::InPlace);
    assert_eq!(discrete.info().residency, Residency::Copied);
    assert!(unified.info().total_memory > 1 << 28);
    assert_ne!(unified.info().name, discrete.info().name);
}

#[test]
fn memory_starts_as_zeros() {
    let device = Host::unified();
    let stream = device.stream("test").unwrap();
    for len in [1, 1000, 1 << 20] {
        let slice = device.allocate(len).unwrap().whole();
        assert_eq!(read(&device, stream, &slice).unwrap(), bytes(0, len));
    }
}

#[test]
fn a_stream_works_in_order() {
    let device = Host::unified();
    let stream = device.stream("test").unwrap();
    let (a, b) = (
        device.allocate(64).unwrap().whole(),
        device.allocate(64).unwrap().whole(),
    );
    for round in 0..200 {
        device.submit(stream, write(&a, round)).unwrap();
        device.submit(stream, copy(&b, &a)).unwrap();
        device.submit(stream, write(&a, 255)).unwrap();
    }
    assert_eq!(read(&device, stream, &b).unwrap(), bytes(199, 64));
    assert_eq!(read(&device, stream, &a).unwrap(), bytes(255, 64));
}

#[test]
fn an_event_orders_two_streams() {
    let device = Host::unified();
    let (first, second) = (
        device.stream("first").unwrap(),
        device.stream("second").unwrap(),
    );
    let (a, b) = (
        device.allocate(64).unwrap().whole(),
        device.allocate(64).unwrap().whole(),
    );
    let event = device.event().unwrap();
    slow(&device, first);
    device.submit(first, write(&a, 7)).unwrap();
    device.submit(first, Work::Record(event.clone())).unwrap();
    device.submit(second, Work::Wait(event)).unwrap();
    device.submit(second, copy(&b, &a)).unwrap();
    assert_eq!(read(&device, second, &b).unwrap(), bytes(7, 64));
}

#[test]
fn a_retired_stream_serves_the_next_owner_after_the_work_of_the_first() {
    let device: Arc<dyn Device> = Arc::new(Host::unified());
    let first = OwnedStream::new(&device, "first").unwrap();
    let (id, other) = (first.id(), device.stream("other").unwrap());
    assert_ne!(id, other);
    let a = device.allocate(64).unwrap().whole();
    device.submit(id, write(&a, 7)).unwrap();
    drop(first);
    device.retire(Stream::new(device.info().id, 99));
    let second = OwnedStream::new(&device, "second").unwrap();
    assert_eq!(second.id(), id);
    let mut found = bytes(0, 64);
    device.read(second.id(), &a, &mut found).unwrap();
    assert_eq!(found, bytes(7, 64));
    let third = device.stream("third").unwrap();
    let number = third.open(device.info()).unwrap();
    assert!(third != id && number < 99, "{third:?}");
}

#[test]
fn an_event_that_was_never_recorded_holds_nobody() {
    let device = Host::unified();
    let stream = device.stream("test").unwrap();
    device
        .submit(stream, Work::Wait(device.event().unwrap()))
        .unwrap();
    device.synchronize(stream).unwrap();
}

#[test]
fn a_wait_refers_to_the_latest_record_before_it() {
    let device = Host::unified();
    let (first, second) = (
        device.stream("first").unwrap(),
        device.stream("second").unwrap(),
    );
    let event = device.event().unwrap();
    device.submit(first, Work::Record(event.clone())).unwrap();
    device.submit(second, Work::Wait(event.clone())).unwrap();
    // Recorded again behind work that itself waits for the second stream: if the wait above
    // referred to this record, neither stream would ever end.
    let back = device.event().unwrap();
    device.submit(second, Work::Record(back.clone())).unwrap();
    device.submit(first, Work::Wait(back)).unwrap();
    device.submit(first, Work::Record(event)).unwrap();
    device.synchronize(second).unwrap();
    device.synchronize(first).unwrap();
}

/// Bounces a counter between streams; each hop is ordered by nothing but its event.
#[test]
fn many_records_and_waits_keep_their_order() {
    let device = Host::unified();
    let streams: Vec<Stream> = (0..3)
        .map(|i| device.stream(&format!("s{i}")).unwrap())
        .collect();
    let cells: Vec<Slice> = (0..3)
        .map(|_| device.allocate(8).unwrap().whole())
        .collect();
    let events: Vec<Event> = (0..3).map(|_| device.event().unwrap()).collect();
    let hops = 30_000;
    for hop in 0..hops {
        let (here, before) = (hop % 3, (hop + 2) % 3);
        device
            .submit(streams[here], Work::Wait(events[before].clone()))
            .unwrap();
        let work = match hop % 1000 {
            0 => write(&cells[here], (hop / 1000) as u8),
            _ => copy(&cells[here], &cells[before]),
        };
        device.submit(streams[here], work).unwrap();
        device
            .submit(streams[here], Work::Record(events[here].clone()))
            .unwrap();
    }
    let last = (hops - 1) % 3;
    assert_eq!(
        read(&device, streams[last], &cells[last]).unwrap(),
        bytes(29, 8)
    );
}

#[test]
fn what_can_be_refused_at_once_is_refused_at_submission() {
    let device = Host::unified();
    let stream = device.stream("test").unwrap();
    let (map, _) = mapped(&device, 4096);
    let memory = device.allocate(64).unwrap().whole();
    let refused = |work: Work| device.submit(stream, work).unwrap_err();
    let longer = device.allocate(65).unwrap().whole();
    assert!(matches!(
        refused(copy(&memory, &longer)),
        Error::Length {
            src: 65,
            dst: 64,
            ..
        }
    ));
    assert!(matches!(
        refused(write(&map.whole(), 1)),
        Error::ReadOnly { .. }
    ));
    assert!(matches!(
        refused(Work::Populate(memory.clone())),
        Error::NotMapping { .. }
    ));
    assert!(matches!(
        refused(Work::Discard(memory.clone())),
        Error::NotMapping { .. }
    ));
    let upload = Work::Upload {
        dst: memory.clone(),
        src: memory.clone(),
    };
    assert!(matches!(
        refused(upload),
        Error::NotMapping { work: "upload" }
    ));
    let unknown = device.submit(Stream::new(device.info().id, 9), write(&memory, 1));
    let unknown = unknown.unwrap_err();
    assert!(matches!(
        unknown,
        Error::UnknownStream {
            stream: 9,
            streams: 1
        }
    ));
    device.synchronize(stream).unwrap();
}

#[test]
fn queued_work_keeps_its_memory_alive() {
    struct Noted(std::sync::mpsc::Sender<()>);
    impl Drop for Noted {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let device = Host::unified();
    let stream = device.stream("test").unwrap();
    let (freed, is_freed) = std::sync::mpsc::channel();
    slow(&device, stream);
    let memory = device.allocate(64).unwrap();
    memory.tie(Noted(freed));
    device.submit(stream, write(&memory.whole(), 3)).unwrap();
    let out = device.allocate(64).unwrap().whole();
    device.submit(stream, copy(&out, &memory.whole())).unwrap();
    drop(memory);
    assert_eq!(read(&device, stream, &out).unwrap(), bytes(3, 64));
    // Work is dropped before it counts as done, so nothing needs to be waited for here.
    is_freed.try_recv().unwrap();
}

#[test]
fn dropping_a_busy_device_finishes_what_is_queued() {
    let device = Host::unified();
    let (first, second) = (
        device.stream("first").unwrap(),
        device.stream("second").unwrap(),
    );
    let tied = Arc::new(());
    let event = device.event().unwrap();
    for _ in 0..20 {
        slow(&device, first);
        device.submit(first, Work::Record(event.clone())).unwrap();
        let memory = device.allocate(64).unwrap();
        memory.tie(tied.clone());
        device.submit(second, Work::Wait(event.clone())).unwrap();
        device.submit(second, write(&memory.whole(), 1)).unwrap();
    }
    drop(device);
    assert_eq!(Arc::strong_count(&tied), 1);
}

#[test]
fn a_sleeping_stream_wakes_up() {
    let device = Host::unified();
    let (first, second) = (
        device.stream("first").unwrap(),
        device.stream("second").unwrap(),
    );
    let event = device.event().unwrap();
    let (a, b) = (
        device.allocate(8).unwrap().whole(),
        device.allocate(8).unwrap().whole(),
    );
    for round in 1..20 {
        device.submit(first, write(&a, round)).unwrap();
        device.submit(first, Work::Record(event.clone())).unwrap();
        device.submit(second, Work::Wait(event.clone())).unwrap();
        device.submit(second, copy(&b, &a)).unwrap();
        assert_eq!(read(&device, second, &b).unwrap(), bytes(round, 8));
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_process_knows_its_memory() {
    let now = ProcessMemory::now().unwrap();
    assert!(now.resident_peak >= now.resident);
    assert!(now.resident >= now.anonymous.max(now.file));
    assert!(now.anonymous > 0 && now.file > 0);
}
