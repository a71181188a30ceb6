//! Rates of packing and unpacking on one core, in bytes of what is packed, and what is left of them.

use std::time::Instant;
use trt_pack::{Code, Counts, Geometry, Kind, Packer, Unpacker};

/// Rows of a unit.
const ROWS: usize = 128;
const COLUMNS: usize = 4096;
const UNITS: usize = 64;

fn main() {
    let mut random = fastrand::Rng::with_seed(1);
    let mut next = || {
        let (u, v) = (1.0 - random.f32(), random.f32());
        0.02 * (-2.0 * u.ln()).sqrt() * (std::f32::consts::TAU * v).cos()
    };
    let values: Vec<f32> = (0..UNITS * ROWS * COLUMNS).map(|_| next()).collect();
    let bf16 = |v: &f32| ((v.to_bits() + 0x7fff) >> 16) as u16;
    // Of numbers as small as f16 has normal ones: others become 0.
    let f16 = |v: &f32| {
        let bits = v.to_bits();
        let exponent = (bits >> 23 & 0xff) as i32 - 112;
        let sign = (bits >> 16) as u16 & 0x8000;
        match exponent {
            1..=30 => sign | (exponent as u16) << 10 | (bits >> 13) as u16 & 0x3ff,
            _ => sign,
        }
    };
    told("bf16", Kind::Bf16, values.iter().map(bf16).collect());
    told("f16", Kind::F16, values.iter().map(f16).collect());
    told(
        "f16 that was bf16",
        Kind::F16,
        values.iter().map(|v| f16(v) & !7).collect(),
    );
}

fn told(name: &str, kind: Kind, values: Vec<u16>) {
    let bytes = 2.0 * values.len() as f64;
    let mut best = [f64::INFINITY; 3];
    let mut packed = 0;
    for _ in 0..5 {
        let start = Instant::now();
        let mut counts = Counts::new(kind);
        counts.add(&values);
        best[0] = best[0].min(start.elapsed().as_secs_f64());
        let code = Code::best(&counts).expect("there are values");
        let geometry = Geometry::new(COLUMNS, 32).expect("whole pieces");
        let mut packer = Packer::new(geometry, &code);
        let start = Instant::now();
        let units: Vec<Vec<u8>> = values
            .chunks(ROWS * COLUMNS)
            .map(|rows| {
                let mut unit = Vec::with_capacity(2 * rows.len());
                packer.pack(rows, &mut unit).expect("whole rows");
                unit
            })
            .collect();
        best[1] = best[1].min(start.elapsed().as_secs_f64());
        packed = units.iter().map(Vec::len).sum();
        let unpacker = Unpacker::new(geometry, &code);
        let mut again = vec![0; ROWS * COLUMNS];
        let start = Instant::now();
        for unit in &units {
            unpacker.unpack(unit, &mut again).expect("a unit");
        }
        best[2] = best[2].min(start.elapsed().as_secs_f64());
    }
    let [count, pack, unpack] = best.map(|s| bytes / s / 1e9);
    let ratio = packed as f64 / bytes;
    println!(
        "{name}: counting {count:.2} GB/s, packing {pack:.2} GB/s, unpacking {unpack:.2} GB/s, ratio {ratio:.4}"
    );
}
