//! What each step of a run takes of the device's memory, by the driver's count.
//!
//! The driver counts more than the pool holds: code, page tables, recorded graphs, rounding. Each
//! suspect is first made alone, so that it shows what it costs by itself, and then the model is run
//! step by step. A line shows the change since the line before, what is held above the open
//! device, what of it was asked for, and the rest. Host memory that is registered should cost
//! nothing on the device but page tables.

use super::CurveArgs;
use super::measure::{Bench, prompt};
use super::open::Opened;
use anyhow::{Context, Result};
use candle_trt::device::{Device, Executable, Memory, Paging, Work};
use candle_trt::kernel::{
    Arg, Binary, BodyBuilder, DType, Dim, Env, Inst, Kernel, Row, Unary, View,
};
use candle_trt::models::DecoderConfig;
use candle_trt::{Request, Weights};
use std::sync::Arc;

const MIB: u64 = 1 << 20;

/// Bytes of files between two lines of the step that registers them.
const REGISTERED: usize = 1 << 30;

/// Pieces of which one byte each is copied, so that all of a file is registered.
const TOUCHED: usize = 16 << 20;

/// Prints every step.
pub fn print(
    opened: &Opened,
    weights: Arc<Weights>,
    config: &DecoderConfig,
    args: &CurveArgs,
) -> Result<()> {
    let device = opened.device.clone();
    let mut meter = Meter::new(&device)?;
    streams(&mut meter)?;
    memory(&mut meter)?;
    kernels(&mut meter)?;
    files(&mut meter, &weights)?;
    model(&mut meter, opened, weights, config, args)
}

/// Follows what the driver counts as free.
struct Meter {
    device: Arc<dyn Device>,
    bare: u64,
    last: u64,
}

impl Meter {
    fn new(device: &Arc<dyn Device>) -> Result<Meter> {
        let (device, total) = (device.clone(), device.info().total_memory);
        let bare = device.free_memory().context("the device does not tell")?;
        println!(
            "{}: the open device and others hold {:.1} of {:.0} MiB",
            device.info().name,
            mib(total as i64 - bare as i64),
            mib(total as i64)
        );
        println!(
            "{:<64} {:>9} {:>10} {:>10} {:>9}",
            "MiB after", "change", "held", "asked for", "rest"
        );
        Ok(Meter {
            device,
            bare,
            last: bare,
        })
    }

    /// A line; `asked` bytes of what is held are what was asked for.
    fn line(&mut self, what: &str, asked: u64) -> Result<()> {
        let free = self
            .device
            .free_memory()
            .context("the device does not tell")?;
        let change = self.last as i64 - free as i64;
        let held = self.bare as i64 - free as i64;
        println!(
            "{what:<64} {:>9.1} {:>10.1} {:>10.1} {:>9.1}",
            mib(change),
            mib(held),
            mib(asked as i64),
            mib(held - asked as i64)
        );
        self.last = free;
        Ok(())
    }
}

fn mib(bytes: i64) -> f64 {
    bytes as f64 / MIB as f64
}

/// Streams cannot be given back before the device, so what they take stays.
fn streams(meter: &mut Meter) -> Result<()> {
    for n in 0..4 {
        let stream = meter.device.stream("memory")?;
        meter.device.synchronize(stream)?;
        meter.line(&format!("stream {}", n + 1), 0)?;
    }
    let events: Vec<_> = (0..2000)
        .map(|_| meter.device.event())
        .collect::<Result<_, _>>()?;
    meter.line("2000 events", 0)?;
    drop(events);
    meter.line("2000 events gone", 0)
}

fn memory(meter: &mut Meter) -> Result<()> {
    let device = meter.device.clone();
    let small: Vec<Memory> = (0..64)
        .map(|_| device.allocate(100 << 10))
        .collect::<Result<_, _>>()?;
    meter.line("64 allocations of 100 KiB", 64 * (100 << 10))?;
    drop(small);
    meter.line("allocations gone", 0)?;
    let most = usize::try_from(meter.bare / 2).unwrap_or(usize::MAX);
    let space = device.reserve(most)?;
    meter.line(&format!("{:.0} MiB of addresses", mib(most as i64)), 0)?;
    for bytes in [
        1,
        64 * MIB as usize,
        1 << 30,
        most / 2,
        most,
        most / 3,
        1 << 30,
    ] {
        let bytes = bytes.min(most);
        device.commit(&space, bytes)?;
        let what = format!("of them backed by memory: {:.0} MiB", mib(bytes as i64));
        meter.line(&what, bytes as u64)?;
    }
    drop(space);
    meter.line("addresses gone", 0)
}

/// A kernel with a text of its own.
fn kernel(number: u32) -> Kernel {
    let space = [Dim::from(4), Dim::from(256)];
    let mut body = BodyBuilder::new();
    let x = body.load(Arg(0), View::contiguous(&space));
    let constant = body.push(Inst::F32(number as f32));
    let y = body.push(Inst::Unary(Unary::Exp, x));
    let z = body.push(Inst::Binary(Binary::Add, y, constant));
    body.store(Arg(1), View::contiguous(&space), z);
    Kernel::Row(Row {
        space: space.to_vec(),
        args: vec![DType::F32; 2],
        body: body.finish(),
    })
}

fn kernels(meter: &mut Meter) -> Result<()> {
    let device = meter.device.clone();
    let stream = device.stream("kernels")?;
    let data = device.allocate(4096)?.whole();
    let out = device.allocate(4096)?.whole();
    let launch = |executable: &Executable| Work::Launch {
        executable: executable.clone(),
        env: Env::default(),
        args: vec![data.clone(), out.clone()],
        tiles: Vec::new(),
        scratch: None,
    };
    let mut loaded = Vec::new();
    for count in [1, 16, 64] {
        for number in loaded.len() as u32..count {
            loaded.push(device.load(&kernel(number))?);
        }
        meter.line(&format!("{count} small kernels loaded"), 0)?;
        for executable in &loaded {
            device.submit(stream, launch(executable))?;
        }
        device.synchronize(stream)?;
        meter.line(&format!("{count} small kernels launched"), 0)?;
    }
    graphs(meter, loaded.iter().cycle().map(launch))?;
    drop(loaded);
    meter.line("kernels gone", 0)
}

fn graphs(meter: &mut Meter, works: impl Iterator<Item = Work> + Clone) -> Result<()> {
    let device = meter.device.clone();
    let stream = device.stream("graphs")?;
    let mut graphs = Vec::new();
    for n in [64, 400, 400] {
        let graph = device.record(works.clone().take(n).collect())?;
        graphs.push(graph.clone());
        meter.line(&format!("graph of {n} launches recorded"), 0)?;
        let env = Env::default();
        device.submit(stream, Work::Replay { graph, env })?;
        device.synchronize(stream)?;
        meter.line(&format!("graph of {n} launches replayed"), 0)?;
    }
    drop(graphs);
    meter.line("graphs gone", 0)
}

fn files(meter: &mut Meter, weights: &Weights) -> Result<()> {
    let device = meter.device.clone();
    let stream = device.stream("files")?;
    let byte = device.allocate(1)?.whole();
    let (mut maps, mut bytes, mut told) = (Vec::new(), 0, 0);
    for file in weights.files() {
        let map = device.map(
            &file.path,
            file.file.clone(),
            file.map.clone(),
            Paging::Exact,
        )?;
        for start in (0..map.len()).step_by(TOUCHED) {
            let (dst, src) = (byte.clone(), map.whole().slice(start..start + 1)?);
            device.submit(stream, Work::Upload { dst, src })?;
            bytes += TOUCHED.min(map.len() - start);
            if bytes - told >= REGISTERED {
                told = bytes;
                device.synchronize(stream)?;
                let what = format!("{:.0} MiB of files registered", mib(bytes as i64));
                meter.line(&what, 0)?;
            }
        }
        maps.push(map);
    }
    device.synchronize(stream)?;
    meter.line("all files registered", 0)?;
    drop(maps);
    meter.line("files unregistered", 0)
}

fn model(
    meter: &mut Meter,
    opened: &Opened,
    weights: Arc<Weights>,
    config: &DecoderConfig,
    args: &CurveArgs,
) -> Result<()> {
    let request = Request::Minimum;
    let bench = Bench::new(opened.device.clone(), weights, config, args, request)?;
    let engine = &bench.engine;
    let registered = || opened.transfers().map_or(0, |t| t.registered);
    let line = |meter: &mut Meter, what: &str| {
        let what = format!("{what} ({:.0} MiB registered)", mib(registered() as i64));
        meter.line(&what, engine.memory().in_use)
    };
    line(meter, "engine, least budget")?;
    let mut session = engine.session()?;
    line(meter, "session")?;
    session.decode(1)?;
    line(meter, "one token")?;
    for _ in 0..3 {
        session.decode(1)?;
    }
    line(meter, "three more tokens")?;
    session.prefill(&prompt(args.context))?;
    line(meter, &format!("prompt of {}", args.context))?;
    if let Some(longest) = args.prefill.iter().max() {
        session.reset();
        session.prefill(&prompt(*longest))?;
        line(meter, &format!("prompt of {longest}"))?;
    }
    for budget in &args.budgets {
        engine.set_device_budget(*budget)?;
        line(meter, &format!("budget {budget}"))?;
        session.reset();
        session.decode(1)?;
        line(meter, "  one token")?;
        for _ in 0..3 {
            session.decode(1)?;
        }
        line(meter, "  three more tokens")?;
        engine.set_replay(false);
        line(meter, "  what was recorded is gone")?;
        engine.set_replay(true);
    }
    drop(session);
    line(meter, "session gone")?;
    drop(bench);
    meter.line("engine gone", 0)
}
