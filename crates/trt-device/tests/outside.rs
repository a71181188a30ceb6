//! A device that is implemented outside of the crate: everything is done at once, where it is
//! submitted, and the host computes its kernels on copies.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use trt_device::{
    Call, Claim, Device, DeviceId, Error, Event, Executable, Graph, Host, HostFallback, Info,
    MappedFile, Memory, OverStream, Paging, Residency, Room, Slice, Stream, Work, host_team,
};
use trt_kernel::{Arg, Binary, BodyBuilder, DType, Dim, Env, Kernel, Row, View};

/// Memory is numbers that nobody else knows; addresses only tell bytes apart.
#[derive(Debug)]
struct Sheet {
    info: Info,
    room: Room,
    streams: AtomicU32,
    next: Mutex<usize>,
}

/// What is in memory of a [`Sheet`].
struct Bytes(Mutex<Vec<u8>>);

/// What is in its mappings, events and graphs.
struct Mapped;
struct Reached(AtomicBool);
struct Recorded(Vec<Work>);

impl Sheet {
    fn new(bytes: u64) -> Sheet {
        Sheet {
            info: Info {
                id: DeviceId::unique(),
                name: "a sheet".into(),
                total_memory: bytes,
                residency: Residency::Copied,
            },
            room: Room::new("a sheet", bytes, true),
            streams: AtomicU32::new(0),
            next: Mutex::new(1 << 12),
        }
    }

    fn memory(&self, bytes: usize, real: usize) -> Result<Memory, Error> {
        let claim = self.room.claim(real as u64)?;
        let mut next = self.next.lock().unwrap();
        let start = *next as *mut u8;
        *next += bytes.next_multiple_of(trt_device::ALIGN);
        let own = Bytes(Mutex::new(vec![0; real]));
        let memory = Memory::new(self.info.id, start, bytes, own);
        memory.tie(claim);
        Ok(memory)
    }

    fn get(&self, slice: &Slice, out: &mut [u8]) -> Result<(), Error> {
        if let Some(file) = slice.memory().file() {
            slice.memory().open::<Mapped>(&self.info)?;
            return file.read(slice.offset(), out);
        }
        let Bytes(bytes) = slice.memory().open(&self.info)?;
        out.copy_from_slice(&bytes.lock().unwrap()[slice.offset()..][..slice.len()]);
        Ok(())
    }

    fn put(&self, slice: &Slice, bytes: &[u8]) -> Result<(), Error> {
        let Bytes(own) = slice.memory().open(&self.info)?;
        own.lock().unwrap()[slice.offset()..][..slice.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn copy(&self, dst: &Slice, src: &Slice) -> Result<(), Error> {
        let mut bytes = vec![0; src.len()];
        self.get(src, &mut bytes)?;
        self.put(dst, &bytes)
    }

    /// The number of a stream that there is.
    fn number(&self, stream: Stream) -> Result<u32, Error> {
        let (number, streams) = (
            stream.open(&self.info)?,
            self.streams.load(Ordering::SeqCst),
        );
        match number < streams {
            true => Ok(number),
            false => Err(Error::UnknownStream {
                stream: number,
                streams: streams as usize,
            }),
        }
    }
}

impl Device for Sheet {
    fn info(&self) -> &Info {
        &self.info
    }

    fn free_memory(&self) -> Option<u64> {
        Some(self.room.free())
    }

    fn allocate(&self, bytes: usize) -> Result<Memory, Error> {
        self.memory(bytes, bytes)
    }

    fn reserve(&self, bytes: usize) -> Result<Memory, Error> {
        self.memory(bytes, 0)
    }

    fn commit(&self, memory: &Memory, bytes: usize) -> Result<(), Error> {
        let Bytes(own) = memory.open(&self.info)?;
        own.lock().unwrap().resize(bytes, 0);
        Ok(())
    }

    fn claim(&self, bytes: u64) -> Result<Claim, Error> {
        self.room.claim(bytes)
    }

    fn map(
        &self,
        name: &Path,
        file: Arc<File>,
        map: Arc<memmap2::Mmap>,
        _: Paging,
    ) -> Result<Memory, Error> {
        let file = MappedFile::new(name, file, map);
        Ok(Memory::mapped(self.info.id, file, Mapped))
    }

    fn load(&self, kernel: &Kernel) -> Result<Executable, Error> {
        let own = HostFallback::new(kernel, "a sheet computes nothing".into())?;
        Ok(Executable::new(self.info.id, own.info(), own))
    }

    fn stream(&self, _: &str) -> Result<Stream, Error> {
        let number = self.streams.fetch_add(1, Ordering::SeqCst);
        Ok(Stream::new(self.info.id, number))
    }

    fn retire(&self, _: Stream) {}

    fn event(&self) -> Result<Event, Error> {
        Ok(Event::new(self.info.id, Reached(AtomicBool::new(false))))
    }

    fn record(&self, works: Vec<Work>) -> Result<Graph, Error> {
        works.iter().try_for_each(Work::recordable)?;
        Ok(Graph::new(self.info.id, Recorded(works)))
    }

    fn submit(&self, stream: Stream, work: Work) -> Result<(), Error> {
        self.number(stream)?;
        match &work {
            Work::Launch {
                executable,
                env,
                args,
                tiles,
                scratch,
            } => {
                let own: &HostFallback = executable.open(&self.info)?;
                let call = Call {
                    env,
                    args,
                    tiles,
                    scratch: scratch.as_ref(),
                    stream: "a stream",
                };
                let device = self;
                own.run(call, host_team(), &OverStream { device, stream })
            }
            Work::Replay { graph, env } => {
                let Recorded(works) = graph.open(&self.info)?;
                let mut works = works.iter();
                works.try_for_each(|work| self.submit(stream, work.with_env(*env)))
            }
            Work::Copy { dst, src } | Work::Upload { dst, src } => self.copy(dst, src),
            Work::Write { dst, bytes } => self.put(dst, bytes),
            Work::Populate(_) | Work::Discard(_) | Work::Trim(_) => Ok(()),
            Work::Record(event) => {
                let Reached(reached) = event.open(&self.info)?;
                reached.store(true, Ordering::SeqCst);
                Ok(())
            }
            Work::Wait(event) => event.open::<Reached>(&self.info).map(drop),
        }
    }

    fn synchronize(&self, stream: Stream) -> Result<(), Error> {
        self.number(stream).map(drop)
    }

    fn read(&self, stream: Stream, src: &Slice, dst: &mut [u8]) -> Result<(), Error> {
        self.synchronize(stream)?;
        self.get(src, dst)
    }
}

/// `a2[i] = a0[i] + a1[i]` over `v0` elements.
fn sum() -> Kernel {
    let space = vec![Dim::from(1), Dim::var(trt_kernel::Var(0))];
    let view = View::contiguous(&space);
    let mut body = BodyBuilder::new();
    let a = body.load(Arg(0), view.clone());
    let b = body.load(Arg(1), view.clone());
    let sum = body.binary(Binary::Add, a, b);
    body.store(Arg(2), view, sum);
    Kernel::Row(Row {
        space,
        args: vec![DType::F32; 3],
        body: body.finish(),
    })
}

fn bytes(values: [f32; 3]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

#[test]
fn a_device_from_outside_computes_what_the_host_does() {
    for device in [&Sheet::new(1 << 20) as &dyn Device, &Host::discrete()] {
        let stream = device.stream("s").unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes([1.0, 2.0, 3.0])).unwrap();
        // SAFETY: nobody changes the temporary file while it is mapped.
        let map = unsafe { memmap2::Mmap::map(&file) }.unwrap();
        let (file, map) = (Arc::new(file), Arc::new(map));
        let name = Path::new("a test");
        let weight = device.map(name, file, map, Paging::Exact).unwrap().whole();
        let [a, out] = [0; 2].map(|_| device.allocate(12).unwrap().whole());
        let (dst, src) = (a.clone(), weight.clone());
        device.submit(stream, Work::Upload { dst, src }).unwrap();
        let launch = Work::Launch {
            executable: device.load(&sum()).unwrap(),
            env: Env::new(&[3]),
            args: vec![a.clone(), weight, out.clone()],
            tiles: Vec::new(),
            scratch: None,
        };
        device.submit(stream, launch).unwrap();
        let ready = device.event().unwrap();
        device.submit(stream, Work::Record(ready.clone())).unwrap();
        device.submit(stream, Work::Wait(ready)).unwrap();
        let (dst, src) = (a.clone(), out.clone());
        let graph = device.record(vec![Work::Copy { dst, src }]).unwrap();
        let env = Env::default();
        device.submit(stream, Work::Replay { graph, env }).unwrap();
        let mut found = vec![0; 12];
        device.read(stream, &a, &mut found).unwrap();
        assert_eq!(found, bytes([2.0, 4.0, 6.0]));
    }
}

#[test]
fn memory_from_outside_counts_and_goes_back() {
    let device = Sheet::new(1000);
    let memory = device.allocate(600).unwrap();
    assert!(device.allocate(401).unwrap_err().out_of_memory().is_some());
    let slice = memory.whole().slice(0..1).unwrap();
    drop(memory);
    assert_eq!(device.free_memory(), Some(400));
    drop(slice);
    assert_eq!(device.free_memory(), Some(1000));
}

/// Nobody outside of a device makes a thing that the device takes for its own, whatever id it bears.
#[test]
fn a_handle_that_only_bears_the_id_of_a_device_is_not_its_own() {
    let host = Host::unified();
    let id = host.info().id;
    let stream = host.stream("s").unwrap();
    let memory = Memory::new(id, 0x1000 as *mut u8, 64, Bytes(Mutex::default())).whole();
    let bytes = vec![1; 64];
    let own = host.allocate(64).unwrap().whole();
    let args = vec![own.clone()];
    let graph = Graph::new(id, Recorded(Vec::new()));
    let event = Event::new(id, Reached(AtomicBool::new(true)));
    let works = [
        Work::Write { dst: memory, bytes },
        Work::Replay {
            graph,
            env: Env::default(),
        },
        Work::Record(event.clone()),
        Work::Wait(event),
        Work::Launch {
            executable: Executable::new(id, Default::default(), Mapped),
            env: Env::default(),
            args,
            tiles: Vec::new(),
            scratch: None,
        },
    ];
    for work in works {
        let name = work.name();
        let error = host.submit(stream, work).unwrap_err();
        assert!(
            matches!(error, Error::WrongDevice { .. }),
            "{name}: {error}"
        );
    }
    host.synchronize(stream).unwrap();
}
