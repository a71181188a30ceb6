//! Packed weights: a code, and a unit of rows by it.

use candle_trt_fuzz::Target;
use trt_pack::{Arity, Code, Counts, Geometry, Kind, Packer, Unpacker};

/// Values of a row, lanes that share it, rows of a unit.
const SHAPES: [(usize, usize, usize); 4] = [(64, 8, 9), (1032, 32, 3), (8, 8, 65), (2048, 32, 1)];

/// A code and behind it a unit of each shape.
fn packed(kind: Kind, arity: Arity, (columns, lanes, rows): (usize, usize, usize)) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(columns as u64);
    // Most are near each other, and some are anything.
    let values: Vec<u16> = (0..rows * columns)
        .map(|i| match i % 61 {
            0 => random.u16(..),
            _ => 0x3c00 ^ random.u16(..) >> random.u32(3..12),
        })
        .collect();
    let mut counts = Counts::new(kind);
    counts.add(&values);
    let code = Code::of(&counts, arity).expect("there are values");
    let mut bytes = code.to_bytes();
    bytes.resize(bytes.len().next_multiple_of(16), 0);
    let geometry = Geometry::new(columns, lanes).expect("whole pieces");
    let packed = Packer::new(geometry, &code).pack(&values, &mut bytes);
    packed.expect("whole rows");
    bytes
}

#[test]
fn packed_units() {
    let mut corpus = Vec::new();
    for kind in Kind::ALL {
        for arity in [Arity::One, Arity::Two] {
            corpus.extend(SHAPES.map(|shape| packed(kind, arity, shape)));
        }
    }
    Target::new("packed units", &corpus).run(|bytes| {
        let Ok((code, end)) = Code::from_bytes(bytes) else {
            return;
        };
        let unit = bytes.get(end.next_multiple_of(16)..).unwrap_or_default();
        for (columns, lanes, rows) in SHAPES {
            let geometry = Geometry::new(columns, lanes).expect("whole pieces");
            let mut values = vec![0; rows * columns];
            drop(Unpacker::new(geometry, &code).unpack(unit, &mut values));
        }
    });
}
