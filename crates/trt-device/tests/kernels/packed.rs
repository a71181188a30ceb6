//! Products by packed rows on devices of the host: where pages are read in place, where tiles are copied, and for a device
//! that has no kernel of its own.

use super::{filled, floats, read, values};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use trt_device::{Device, Error, Host, LaunchError, Paging, Residency, Slice, Stream, Tiles, Work};
use trt_kernel::{
    Arg, BodyBuilder, DType, Dim, Encoding, Env, Inst, Kernel, Matmul, Operand, PackedType, View,
};
use trt_pack::{Code, Counts, Packer, argument, place, unit_rows};

const K: usize = 4096;
/// Units of 128 rows, the last of 44.
const N: usize = 300;
const FORM: PackedType = PackedType::Bf16Pairs;

/// `a2[n] = Σ_k a0[k] * a1[n, k]`, with what unpacks `a1` behind it if that is packed.
fn project(right: Encoding) -> Kernel {
    let view = |strides: [usize; 3]| View {
        offset: Dim::from(0),
        strides: strides.map(Dim::from).to_vec(),
    };
    let mut body = BodyBuilder::new();
    let sum = body.push(Inst::Input);
    body.store(Arg(2), view([N, N, 1]), sum);
    let mut args = vec![DType::F32.into(), right, DType::F32.into()];
    args.extend(right.as_packed().map(|_| Encoding::Code));
    Kernel::Matmul(Matmul {
        batch: Dim::from(1),
        m: Dim::from(1),
        n: Dim::from(N),
        k: Dim::from(K),
        args,
        a: Operand {
            arg: Arg(0),
            view: view([K, K, 1]),
        }
        .into(),
        b: Operand {
            arg: Arg(1),
            view: view([0, K, 1]),
        },
        ranged: true,
        epilogue: body.finish(),
    })
}

fn rows() -> Vec<u16> {
    let halves = values(N * K, 5).into_iter();
    halves.map(|v| (v.to_bits() >> 16) as u16).collect()
}

/// The units of the rows, and what unpacks them.
fn packed() -> (Vec<u8>, Vec<u8>) {
    let rows = rows();
    let mut counts = Counts::new(FORM.kind());
    counts.add(&rows);
    let code = Code::of(&counts, FORM.arity()).unwrap();
    let mut packer = Packer::new(FORM.geometry(K).unwrap(), &code);
    let (mut units, mut places) = (Vec::new(), vec![0]);
    for unit in rows.chunks(unit_rows(K) * K) {
        packer.pack(unit, &mut units).unwrap();
        places.push((units.len() / 16) as u32);
    }
    (units, argument(&code, &places))
}

/// What a launch is given.
struct Given<'a> {
    device: &'a Host,
    stream: Stream,
    x: Slice,
    code: Slice,
    y: Slice,
}

impl<'a> Given<'a> {
    fn on(device: &'a Host, code: &[u8]) -> Given<'a> {
        let stream = device.stream("compute").unwrap();
        let bytes = |bytes: &[u8]| {
            let dst = device.allocate(bytes.len()).unwrap().whole();
            let write = Work::Write {
                dst: dst.clone(),
                bytes: bytes.to_vec(),
            };
            device.submit(stream, write).unwrap();
            dst
        };
        Given {
            x: filled(device, stream, &values(K, 4)),
            code: bytes(code),
            y: bytes(&[0xff; 4 * N]),
            device,
            stream,
        }
    }

    /// The product by rows that lie there; all, unless they are tiles.
    fn run(&self, kernel: &Kernel, weight: &Slice, tiles: Vec<Tiles>) -> Result<Vec<u8>, Error> {
        let executable = self.device.load(kernel)?;
        let mut args = vec![self.x.clone(), weight.clone(), self.y.clone()];
        args.extend((kernel.args().len() == 4).then(|| self.code.clone()));
        let launch = Work::Launch {
            executable,
            env: Env::default(),
            args,
            tiles,
            scratch: None,
        };
        self.device.submit(self.stream, launch)?;
        read(self.device, self.stream, &self.y)
    }

    /// Bytes of a file where kernels of the device read weights.
    fn held(&self, bytes: &[u8]) -> Slice {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        // SAFETY: the file is private to this function and never changed or truncated.
        let map = unsafe { memmap2::Mmap::map(&file).unwrap() };
        let (path, file) = (Path::new("a test"), Arc::new(file));
        let map = self.device.map(path, file, Arc::new(map), Paging::Exact);
        let src = map.unwrap().whole();
        match self.device.info().residency {
            Residency::InPlace => src,
            Residency::Copied => {
                let dst = self.device.allocate(src.len()).unwrap().whole();
                let upload = Work::Upload {
                    dst: dst.clone(),
                    src,
                };
                self.device.submit(self.stream, upload).unwrap();
                dst
            }
        }
    }
}

fn tiles(rows: std::ops::Range<usize>, step: usize, places: Vec<Slice>) -> Vec<Tiles> {
    vec![Tiles { rows, step, places }]
}

#[test]
fn packed_rows_give_the_bits_of_plain_ones_wherever_they_lie() {
    let (units, code) = packed();
    let plain: Vec<u8> = rows().iter().flat_map(|v| v.to_le_bytes()).collect();
    let host = Host::unified();
    let given = Given::on(&host, &code);
    let weight = given.held(&plain);
    let kernel = project(DType::BF16.into());
    let wanted = given.run(&kernel, &weight, Vec::new()).unwrap();
    assert_ne!(wanted, floats(&[0.0; N]));

    let kernel = project(FORM.into());
    let lacks = Host::discrete().without("matmul");
    assert!(lacks.load(&kernel).unwrap().by_host().is_some());
    for device in [Host::unified(), Host::discrete().with_threads(3), lacks] {
        let given = Given::on(&device, &code);
        let whole = given.held(&units);
        assert!(given.run(&kernel, &whole, Vec::new()).unwrap() == wanted);
        let given = Given::on(&device, &code);
        // A launch of one unit, and one of two in tiles of their own.
        let unit = |number: usize| {
            let [start, end] = [number, number + 1].map(|u| place(&code, u).unwrap());
            given.held(&units[start..end])
        };
        let some = tiles(128..N, 128, vec![unit(1), unit(2)]);
        given.run(&kernel, &whole, some).unwrap();
        let first = tiles(0..128, 128, vec![unit(0)]);
        assert!(given.run(&kernel, &whole, first).unwrap() == wanted);
    }
}

#[test]
fn launches_that_do_not_fit_their_units_are_refused_with_numbers() {
    let (units, code) = packed();
    let kernel = project(FORM.into());
    for device in [Host::unified(), Host::discrete().without("matmul")] {
        let refused = |code: &[u8], tile: &[u8], rows: std::ops::Range<usize>| {
            let given = Given::on(&device, code);
            let tile = given.held(tile);
            let tiles = tiles(rows.clone(), rows.len(), vec![tile.clone()]);
            match given.run(&kernel, &tile, tiles) {
                Err(Error::Launch { source, .. }) => source,
                other => panic!("{other:?}"),
            }
        };
        let inside = refused(&code, &units, 64..192);
        assert!(matches!(
            inside,
            LaunchError::Rows {
                start: 64,
                end: 192,
                n: N,
                ..
            }
        ));
        let short = refused(&code, &units[..units.len() - 16], 0..N);
        assert!(matches!(
            short,
            LaunchError::Packed {
                arg: 1,
                unit: 2,
                ..
            }
        ));
        // A table and four places.
        let lacking = refused(&code[..16384], &units, 0..N);
        assert!(matches!(
            lacking,
            LaunchError::OutOfBounds {
                arg: 3,
                last: 4099,
                bytes: 16384,
                ..
            }
        ));
    }
}
