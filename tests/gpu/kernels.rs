//! Every kernel of the corpus on the GPU against the host's back end, on random input.

use crate::cases::{self, Case, Size, arguments};
use crate::{cuda, numbers, units};
use candle_trt::device::{Cuda, Device, Error, Executable, Host, Slice, Stream, Tiles, Work};
use candle_trt::kernel::ptx::Target;
use candle_trt::kernel::{Arg, Kernel, Matmul};
use std::ops::Range;

/// The kinds of kernels in the corpus, each a test of its own.
pub const KINDS: [&str; 7] = [
    "row",
    "move",
    "gather",
    "matmul",
    "attention",
    "group",
    "routed",
];

/// What is launched of a ranged product.
#[derive(Clone, Debug)]
pub enum Rows {
    All,
    /// Launches, each of rows in tiles of this height.
    Cut(Vec<(Range<usize>, usize)>),
}

/// A kernel on a device with its arguments.
pub struct OnDevice<'a> {
    device: &'a dyn Device,
    stream: Stream,
    case: &'a Case,
    executable: Executable,
    pub args: Vec<Slice>,
    /// What unpacks its weight, if one product's is packed.
    code: Vec<u8>,
    scratch: Option<Slice>,
}

impl<'a> OnDevice<'a> {
    pub fn new(
        device: &'a dyn Device,
        stream: Stream,
        case: &'a Case,
        args: &[Vec<u8>],
    ) -> Result<OnDevice<'a>, Error> {
        let executable = device.load(&case.kernel)?;
        let place = |bytes: &Vec<u8>| {
            let dst = device.allocate(bytes.len().max(1))?.whole();
            let dst = dst.slice(0..bytes.len())?;
            write(device, stream, &dst, bytes)?;
            Ok(dst)
        };
        let places: Result<_, Error> = args.iter().map(place).collect();
        let scratch = match executable.scratch().size(&case.env) {
            0 => None,
            bytes => Some(place(&vec![0xFF; bytes])?),
        };
        let code = match &case.kernel {
            Kernel::Matmul(m) => m.code().map(|code| args[code.0 as usize].clone()),
            _ => None,
        };
        Ok(OnDevice {
            code: code.unwrap_or_default(),
            device,
            stream,
            case,
            executable,
            args: places?,
            scratch,
        })
    }

    fn written(&self) -> impl Iterator<Item = usize> {
        self.case
            .kernel
            .written()
            .into_iter()
            .map(|Arg(a)| a as usize)
    }

    pub fn launch(&self, tiles: Vec<Tiles>) -> Result<(), Error> {
        let work = Work::Launch {
            executable: self.executable.clone(),
            env: self.case.env,
            args: self.args.clone(),
            tiles,
            scratch: self.scratch.clone(),
        };
        self.device.submit(self.stream, work)
    }

    /// The bytes of the arguments that it writes, after it; before it they are those of `args`.
    pub fn run(&self, args: &[Vec<u8>], rows: &Rows) -> Result<Vec<Vec<u8>>, Error> {
        for a in self.written() {
            write(self.device, self.stream, &self.args[a], &args[a])?;
        }
        match rows {
            Rows::All => self.launch(vec![])?,
            Rows::Cut(cuts) => {
                for (rows, step) in cuts {
                    self.launch(vec![self.tiles(rows, *step)?])?;
                }
            }
        }
        self.read()
    }

    /// The bytes of the arguments that it writes.
    pub fn read(&self) -> Result<Vec<Vec<u8>>, Error> {
        let read = |a: usize| {
            let mut out = vec![0; self.args[a].len()];
            self.device.read(self.stream, &self.args[a], &mut out)?;
            Ok(out)
        };
        self.written().map(read).collect()
    }

    /// Rows of the weight, each tile in memory of its own, as in a ring.
    pub fn tiles(&self, rows: &Range<usize>, step: usize) -> Result<Tiles, Error> {
        let Kernel::Matmul(m) = &self.case.kernel else {
            unreachable!("only products are cut")
        };
        let weight = &self.args[m.b.arg.0 as usize];
        let k = m.k.size(&self.case.env);
        let bytes = |rows: Range<usize>| match m.code() {
            Some(_) => units::rows_of(&self.code, k, rows),
            None => {
                let row = m.right().row_bytes(k).expect("whole blocks");
                rows.start * row..rows.end * row
            }
        };
        let place = |start: usize| {
            let end = (start + step).min(rows.end);
            let src = weight.slice(bytes(start..end))?;
            let dst = self.device.allocate(src.len())?.whole();
            let own = dst.clone();
            self.device.submit(self.stream, Work::Copy { dst, src })?;
            Ok(own)
        };
        let places: Result<_, Error> = rows.clone().step_by(step).map(place).collect();
        Ok(Tiles {
            rows: rows.clone(),
            step,
            places: places?,
        })
    }
}

fn write(device: &dyn Device, stream: Stream, dst: &Slice, bytes: &[u8]) -> Result<(), Error> {
    let (dst, bytes) = (dst.clone(), bytes.to_vec());
    device.submit(stream, Work::Write { dst, bytes })
}

/// What the first device runs.
pub fn target() -> Target {
    let all = Cuda::devices().expect("the driver tells");
    let (major, minor) = all[0].capability;
    Target::of(major, minor).expect("a device that is supported")
}

fn follows_the_host(kind: &str) {
    let Some(gpu) = cuda() else { return };
    let host = Host::discrete();
    let streams = [
        gpu.stream("test").expect("a stream"),
        host.stream("test").expect("a stream"),
    ];
    let mut failures = Vec::new();
    let cases = cases::cases(kind, target(), Size::wanted());
    for (i, case) in cases.iter().enumerate() {
        let args = arguments(case, 100 * i as u64 + 1);
        let on_host = OnDevice::new(&host, streams[1], case, &args);
        let want = on_host.and_then(|h| h.run(&args, &Rows::All));
        let want = want.expect("the host runs it");
        let on_gpu = OnDevice::new(&*gpu, streams[0], case, &args);
        let got = match on_gpu.and_then(|g| g.run(&args, &Rows::All)) {
            Ok(got) => got,
            Err(e) => {
                failures.push(format!("{}: {e}", case.name));
                continue;
            }
        };
        let written = case.kernel.written().into_iter();
        for (Arg(a), (want, got)) in written.zip(want.iter().zip(&got)) {
            let dtype = case.kernel.args()[a as usize].dtype();
            if let Err(e) = numbers::close(dtype, want, got) {
                failures.push(format!("{} a{a}: {e}", case.name));
            }
        }
    }
    println!("{} {kind} kernels in calls", cases.len());
    let (all, failed) = (cases.len(), failures.len());
    assert!(
        all > 0 && failed == 0,
        "{failed} of {all}:\n{}",
        failures.join("\n")
    );
}

#[test]
fn every_row_kernel_computes_what_the_host_computes() {
    follows_the_host("row");
}

#[test]
fn every_move_computes_what_the_host_computes() {
    follows_the_host("move");
}

#[test]
fn every_gather_computes_what_the_host_computes() {
    follows_the_host("gather");
}

#[test]
fn every_product_computes_what_the_host_computes() {
    follows_the_host("matmul");
}

#[test]
fn every_attention_computes_what_the_host_computes() {
    follows_the_host("attention");
}

#[test]
fn every_group_computes_what_the_host_computes() {
    follows_the_host("group");
}

#[test]
fn every_routed_product_computes_what_the_host_computes() {
    follows_the_host("routed");
}

/// Cuts of a weight's rows that keep to the law: tiles of one height, and launches of several.
pub fn cuts(case: &Case, product: &Matmul) -> Vec<Rows> {
    let [n, k] = [&product.n, &product.k].map(|d| d.size(&case.env));
    let step = product.right().row_step(k);
    let half = (n / 2).next_multiple_of(step).min(n);
    let whole = |step: usize| Rows::Cut(vec![(0..n, step)]);
    let mut all = vec![whole(n.max(1))];
    if n > step && n.div_ceil(step) <= 64 {
        all.push(whole(step));
    }
    if half < n {
        all.push(Rows::Cut(vec![
            (half..n, n - half),
            (0..half, (2 * step).max(half / 3 / step * step)),
        ]));
    }
    all
}

#[test]
fn a_product_has_the_same_bits_however_its_weight_is_cut() {
    let Some(gpu) = cuda() else { return };
    let stream = gpu.stream("test").expect("a stream");
    let mut runs = 0;
    for case in cases::cases("matmul", target(), Size::wanted()) {
        let Kernel::Matmul(m) = &case.kernel else {
            continue;
        };
        if !m.ranged {
            continue;
        }
        let args = arguments(&case, 7);
        let loaded = OnDevice::new(&*gpu, stream, &case, &args).expect("it loads");
        let want = loaded.run(&args, &Rows::All).expect("it runs");
        for rows in cuts(&case, m) {
            let got = loaded.run(&args, &rows).expect("it runs in parts");
            assert!(want == got, "{} cut as {rows:?}", case.name);
            runs += 1;
        }
    }
    assert!(runs > 10, "{runs} runs");
}
