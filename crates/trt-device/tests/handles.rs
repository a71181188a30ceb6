//! What one device made is refused by every other, whatever it is. With a GPU, that is one too.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use trt_device::{Cuda, Device, Error, Host, Memory, Paging, Slice, Work};
use trt_kernel::{Arg, BodyBuilder, DType, Dim, Env, Kernel, Row, View};

const LEN: usize = 4096;

/// Pairs of devices, of all kinds that there are here.
fn pairs() -> Vec<[Arc<dyn Device>; 2]> {
    let mut pairs: Vec<[Arc<dyn Device>; 2]> = vec![
        [Arc::new(Host::unified()), Arc::new(Host::unified())],
        [Arc::new(Host::unified()), Arc::new(Host::discrete())],
        [Arc::new(Host::discrete()), Arc::new(Host::unified())],
    ];
    match Cuda::new(0) {
        Ok(_) => {
            let cuda = || Arc::new(Cuda::new(0).unwrap());
            pairs.push([cuda(), Arc::new(Host::discrete())]);
            pairs.push([Arc::new(Host::discrete()), cuda()]);
            pairs.push([cuda(), cuda()]);
        }
        Err(error) if std::env::var_os("TRT_REQUIRE_CUDA").is_some_and(|v| v == "1") => {
            panic!("TRT_REQUIRE_CUDA=1, but {error}")
        }
        Err(_) => {}
    }
    pairs
}

/// `a1[i] = a0[i]`.
fn copied() -> Kernel {
    let space = vec![Dim::from(1), Dim::from(LEN / 4)];
    let view = View::contiguous(&space);
    let mut body = BodyBuilder::new();
    let x = body.load(Arg(0), view.clone());
    body.store(Arg(1), view, x);
    Kernel::Row(Row {
        space,
        args: vec![DType::F32; 2],
        body: body.finish(),
    })
}

fn mapped(device: &dyn Device) -> Memory {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[7; LEN]).unwrap();
    // SAFETY: nobody changes the temporary file while it is mapped.
    let map = unsafe { memmap2::Mmap::map(&file) }.unwrap();
    let (file, map) = (Arc::new(file), Arc::new(map));
    let name = Path::new("a test");
    device.map(name, file, map, Paging::Exact).unwrap()
}

fn place(device: &dyn Device) -> Slice {
    device.allocate(LEN).unwrap().whole()
}

fn copy(dst: &Slice, src: &Slice) -> Work {
    let (dst, src) = (dst.clone(), src.clone());
    Work::Copy { dst, src }
}

/// An error that names the device which was given the thing.
fn refused(device: &dyn Device, result: Result<(), Error>, what: &str) {
    let error = result.expect_err(what);
    let Error::WrongDevice { device: named, .. } = &error else {
        panic!("{what}: {error}")
    };
    assert!(
        *named == device.info().name || named == "this device",
        "{what}: {error}"
    );
}

#[test]
fn an_executable_of_another_device_is_refused() {
    for [device, other] in pairs() {
        let stream = device.stream("s").unwrap();
        for lacking in [false, true] {
            let theirs = match lacking {
                false => other.load(&copied()).unwrap(),
                true => Host::discrete().without("row").load(&copied()).unwrap(),
            };
            let work = Work::Launch {
                executable: theirs,
                env: Env::default(),
                args: vec![place(&*device), place(&*device)],
                tiles: Vec::new(),
                scratch: None,
            };
            let recorded = device.record(vec![work.clone()]).map(drop);
            if !lacking {
                refused(&*device, recorded, "recording it");
            }
            refused(&*device, device.submit(stream, work), "launching it");
        }
        device.synchronize(stream).unwrap();
    }
}

#[test]
fn an_event_of_another_device_is_refused() {
    for [device, other] in pairs() {
        let stream = device.stream("s").unwrap();
        let theirs = other.event().unwrap();
        for work in [Work::Record(theirs.clone()), Work::Wait(theirs.clone())] {
            refused(&*device, device.submit(stream, work), "an event");
        }
        device.synchronize(stream).unwrap();
    }
}

#[test]
fn a_graph_of_another_device_is_refused() {
    for [device, other] in pairs() {
        let stream = device.stream("s").unwrap();
        let (dst, src) = (place(&*other), place(&*other));
        let graph = other.record(vec![copy(&dst, &src)]).unwrap();
        let env = Env::default();
        let replayed = device.submit(stream, Work::Replay { graph, env });
        refused(&*device, replayed, "a graph");
        device.synchronize(stream).unwrap();
    }
}

#[test]
fn memory_of_another_device_is_refused_wherever_it_is_used() {
    for [device, other] in pairs() {
        let stream = device.stream("s").unwrap();
        let (own, theirs) = (place(&*device), place(&*other));
        let executable = device.load(&copied()).unwrap();
        let launch = |args: [&Slice; 2]| Work::Launch {
            executable: executable.clone(),
            env: Env::default(),
            args: args.map(Slice::clone).to_vec(),
            tiles: Vec::new(),
            scratch: None,
        };
        let bytes = vec![1; LEN];
        let dst = theirs.clone();
        let works = [
            copy(&own, &theirs),
            copy(&theirs, &own),
            Work::Write { dst, bytes },
            launch([&theirs, &own]),
            launch([&own, &theirs]),
        ];
        for work in works {
            let what = format!("{} on {device:?}", work.name());
            if !matches!(work, Work::Write { .. }) {
                let recorded = device.record(vec![work.clone()]).map(drop);
                refused(&*device, recorded, &format!("recording {what}"));
            }
            refused(&*device, device.submit(stream, work), &what);
        }
        let mut bytes = vec![0; LEN];
        let read = device.read(stream, &theirs, &mut bytes);
        refused(&*device, read, "a read");
        let reserved = other.reserve(1 << 20).unwrap();
        refused(&*device, device.commit(&reserved, 4096), "a commit");
        device.synchronize(stream).unwrap();
    }
}

#[test]
fn a_mapping_of_another_device_is_refused_wherever_it_is_used() {
    for [device, other] in pairs() {
        let stream = device.stream("s").unwrap();
        let (own, theirs) = (place(&*device), mapped(&*other).whole());
        let executable = device.load(&copied()).unwrap();
        let (dst, src) = (own.clone(), theirs.clone());
        let works = [
            Work::Upload { dst, src },
            copy(&own, &theirs),
            Work::Populate(theirs.clone()),
            Work::Discard(theirs.clone()),
            Work::Trim(theirs.clone()),
            Work::Launch {
                executable,
                env: Env::default(),
                args: vec![theirs.clone(), own.clone()],
                tiles: Vec::new(),
                scratch: None,
            },
        ];
        for work in works {
            let what = format!("{} on {device:?}", work.name());
            refused(&*device, device.submit(stream, work), &what);
        }
        let mut bytes = vec![0; LEN];
        let read = device.read(stream, &theirs, &mut bytes);
        refused(&*device, read, "a read");
        device.synchronize(stream).unwrap();
    }
}

/// Two devices that map the very same pages still have a mapping each.
#[test]
fn the_same_pages_mapped_by_another_device_are_its_own() {
    for [device, other] in pairs() {
        let stream = device.stream("s").unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; LEN]).unwrap();
        // SAFETY: nobody changes the temporary file while it is mapped.
        let map = Arc::new(unsafe { memmap2::Mmap::map(&file) }.unwrap());
        let file = Arc::new(file);
        let map_on = |device: &dyn Device| {
            let (file, map) = (file.clone(), map.clone());
            let name = Path::new("a test");
            let memory = device.map(name, file, map, Paging::Exact);
            memory.unwrap().whole()
        };
        let (ours, theirs) = (map_on(&*device), map_on(&*other));
        let upload = |src: &Slice| {
            let (dst, src) = (place(&*device), src.clone());
            device.submit(stream, Work::Upload { dst, src })
        };
        refused(&*device, upload(&theirs), "an upload");
        upload(&ours).unwrap();
        device.synchronize(stream).unwrap();
    }
}

#[test]
fn a_stream_of_another_device_is_refused_and_not_taken_back() {
    for [device, other] in pairs() {
        let own = device.stream("own").unwrap();
        let theirs = other.stream("theirs").unwrap();
        let dst = place(&*device);
        let bytes = vec![1; LEN];
        let write = Work::Write {
            dst: dst.clone(),
            bytes,
        };
        refused(&*device, device.submit(theirs, write), "a submission");
        refused(&*device, device.synchronize(theirs), "a wait");
        let read = device.read(theirs, &dst, &mut vec![0; LEN]);
        refused(&*device, read, "a read");
        device.retire(theirs);
        let next = device.stream("next").unwrap();
        assert!(next != theirs && next != own);
        let mut bytes = vec![1; LEN];
        device.read(own, &dst, &mut bytes).unwrap();
        assert!(bytes.iter().all(|b| *b == 0), "nothing was written");
    }
}

#[test]
fn no_two_devices_are_the_same() {
    for [device, other] in pairs() {
        assert_ne!(device.info().id, other.info().id);
        assert_eq!(device.info().id, device.info().id);
    }
}
