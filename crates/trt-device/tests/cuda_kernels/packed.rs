//! Products by packed rows give the bits of those by plain ones, and how fast both are.

use super::*;
use trt_kernel::{Arg, BodyBuilder, DType, Dim, Encoding, Inst, Matmul, Operand, PackedType, View};
use trt_pack::{Code, Counts, Kind, Packer, argument, unit_rows};

/// `out = a w^T` by plain rows and by packed ones, all of bf16.
fn products([m, n, k]: [usize; 3], form: PackedType) -> [Kernel; 2] {
    let view = |strides: [usize; 3]| View {
        offset: Dim::from(0),
        strides: strides.map(Dim::from).to_vec(),
    };
    let operand = |arg| Operand {
        arg: Arg(arg),
        view: view([0, k, 1]),
    };
    let mut body = BodyBuilder::new();
    let sum = body.push(Inst::Input);
    body.store(Arg(2), view([0, n, 1]), sum);
    let epilogue = body.finish();
    let product = |args: Vec<Encoding>| {
        Kernel::Matmul(Matmul {
            batch: Dim::from(1),
            m: Dim::from(m),
            n: Dim::from(n),
            k: Dim::from(k),
            args,
            a: operand(0).into(),
            b: operand(1),
            ranged: true,
            epilogue: epilogue.clone(),
        })
    };
    let [a, w, out] = [DType::BF16, DType::BF16, DType::F32].map(Encoding::Plain);
    [
        product(vec![a, w, out]),
        product(vec![a, Encoding::Packed(form), out, Encoding::Code]),
    ]
}

/// Normal values as bf16, about as those of a trained weight are.
fn normal(count: usize) -> Vec<u16> {
    let mut state = count as u64 + 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let mut one = || {
        let sum: f32 = (0..6).map(|_| next()).sum();
        (sum / 32.0).to_bits()
    };
    (0..count).map(|_| (one() >> 16) as u16).collect()
}

/// The bytes of rows packed by the best code for them, and what unpacks them.
fn packed(rows: &[u16], k: usize) -> (PackedType, Vec<u8>, Vec<u8>) {
    let mut counts = Counts::new(Kind::Bf16);
    counts.add(rows);
    let code = Code::best(&counts).unwrap();
    let form = PackedType::of(Kind::Bf16, code.arity());
    let mut packer = Packer::new(form.geometry(k).unwrap(), &code);
    let (mut units, mut places) = (Vec::new(), vec![0]);
    for unit in rows.chunks(unit_rows(k) * k) {
        packer.pack(unit, &mut units).unwrap();
        places.push((units.len() / 16) as u32);
    }
    (form, units, argument(&code, &places))
}

fn le(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Runs both products; bytes of both weights, and the seconds that a launch of each takes if it is repeated so often.
fn both(device: &Cuda, [m, n, k]: [usize; 3], times: usize) -> ([usize; 2], [f64; 2]) {
    let stream = device.stream("s").unwrap();
    let rows = normal(n * k);
    let (form, units, code) = packed(&rows, k);
    let sizes = [2 * n * k, units.len()];
    let a = place(device, stream, le(&normal(m * k)));
    let code = place(device, stream, code);
    let run = |kernel: &Kernel, weight: Vec<u8>| {
        let executable = device.load(kernel).unwrap();
        // More of them than the second-level cache holds.
        let copies = if times > 1 {
            (256 << 20) / weight.len() + 1
        } else {
            1
        };
        let weights: Vec<Slice> = (0..copies)
            .map(|_| place(device, stream, weight.clone()))
            .collect();
        let out = device.allocate(4 * m * n).unwrap().whole();
        let env = Env::default();
        let scratch = scratch(device, &executable, &env);
        let launch = |i: usize| {
            let mut args = vec![a.clone(), weights[i % copies].clone(), out.clone()];
            if kernel.args().len() > 3 {
                args.push(code.clone());
            }
            let work = Work::Launch {
                executable: executable.clone(),
                env,
                args,
                tiles: Vec::new(),
                scratch: scratch.clone(),
            };
            device.submit(stream, work).unwrap();
        };
        launch(0);
        let found = read(device, stream, &out).unwrap();
        let start = Instant::now();
        (0..times).for_each(launch);
        read(device, stream, &out.slice(0..4).unwrap()).unwrap();
        let bits: Vec<u32> = found.iter().map(|x| x.to_bits()).collect();
        (bits, start.elapsed().as_secs_f64() / times as f64)
    };
    let [plain, other] = products([m, n, k], form);
    let (wanted, plain) = run(&plain, le(&rows));
    let (found, packed) = run(&other, units);
    let differs = wanted.iter().zip(&found).position(|(a, b)| a != b);
    assert_eq!(differs, None, "{m} {n} {k}");
    (sizes, [plain, packed])
}

#[test]
fn packed_rows_give_the_bits_of_plain_ones() {
    let Some(device) = cuda() else { return };
    for [n, k] in [
        [300, 4096],
        [200, 14336],
        [130, 1792],
        [1000, 576],
        [70, 1032],
    ] {
        for m in [1, 2, 3, 4, 8, 9, 70] {
            both(&device, [m, n, k], 1);
        }
    }
}

/// Prints rates, of which nothing is held to.
#[test]
#[ignore = "measures a device that nobody else uses"]
fn rates_of_packed_rows_beside_plain_ones() {
    let Some(device) = cuda() else { return };
    for [n, k] in [
        [6144, 4096],
        [4096, 4096],
        [14336, 4096],
        [4096, 14336],
        [128256, 4096],
    ] {
        for m in [1, 2, 4, 8, 16, 512] {
            let ([whole, less], [plain, packed]) = both(&device, [m, n, k], 400);
            let rate = |seconds: f64| whole as f64 / seconds / 1e9;
            println!(
                "{m:3} x {n:6} x {k:5}, ratio {:.3}: plain {:7.1} us {:5.0} GB/s, packed {:7.1} us {:5.0} GB/s of bf16, {:3.0} % of plain's time",
                less as f64 / whole as f64,
                plain * 1e6,
                rate(plain),
                packed * 1e6,
                rate(packed),
                100.0 * packed / plain
            );
        }
    }
}
