//! What was packed comes back, takes as little as it should, and bytes that were not packed harm nobody.

use proptest::prelude::*;
use trt_pack::{Arity, Code, Counts, Geometry, Kind, Packer, Unpacker, check};

fn counts(kind: Kind, values: &[u16]) -> Counts {
    let mut counts = Counts::new(kind);
    counts.add(values);
    counts
}

fn pack(geometry: Geometry, code: &Code, values: &[u16]) -> Vec<u8> {
    let mut unit = Vec::new();
    let packed = Packer::new(geometry, code).pack(values, &mut unit);
    packed.expect("whole rows");
    assert!(unit.len().is_multiple_of(16));
    check(&geometry, &unit, values.len() / geometry.columns()).expect("a unit");
    unit
}

fn comes_back(geometry: Geometry, code: &Code, values: &[u16]) -> usize {
    let unit = pack(geometry, code, values);
    let mut again = vec![0x1234; values.len()];
    let unpacked = Unpacker::new(geometry, code).unpack(&unit, &mut again);
    unpacked.expect("a unit");
    assert!(again == values, "{geometry:?} {code:?}");
    unit.len()
}

/// Rows of a normal distribution of this deviation, in the bits of a kind.
fn normal(kind: Kind, n: usize, deviation: f64, seed: u64) -> Vec<u16> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut next = || {
        let (u, v) = (1.0 - random.f64(), random.f64());
        deviation * (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    };
    (0..n).map(|_| rounded(kind, next() as f32)).collect()
}

/// The nearest value of a kind; of normal numbers.
fn rounded(kind: Kind, value: f32) -> u16 {
    let bits = value.to_bits();
    match kind {
        Kind::Bf16 => ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16,
        Kind::F16 => {
            let near = bits + 0xfff + (bits >> 13 & 1);
            let exponent = (near >> 23 & 0xff) as i32 - 112;
            let sign = (bits >> 16) as u16 & 0x8000;
            match exponent {
                1..=30 => sign | (exponent as u16) << 10 | (near >> 13) as u16 & 0x3ff,
                // Small ones are 0: it is not about them.
                _ => sign,
            }
        }
    }
}

fn geometries() -> impl Strategy<Value = Geometry> {
    let short = (1usize..=128).prop_map(|pieces| (8 * pieces, 8));
    let long = (1usize..=400).prop_map(|pieces| (8 * pieces, 32));
    prop_oneof![short, long]
        .prop_map(|(columns, lanes)| Geometry::new(columns, lanes).expect("pieces"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_values_come_back_by_any_code(
        geometry in geometries(),
        rows in 1usize..40,
        seed: u64,
        spread in 0u32..16,
        kind in prop::sample::select(&Kind::ALL[..]),
        two: bool,
    ) {
        let mut random = fastrand::Rng::with_seed(seed);
        let n = rows * geometry.columns();
        // Some are near each other, some are anything, and the code was made from others.
        let near = random.u16(..);
        let values: Vec<u16> = (0..n).map(|i| match i % 97 {
            0 => random.u16(..),
            _ => near ^ random.u16(..) >> spread,
        }).collect();
        let seen: Vec<u16> = (0..200).map(|_| near ^ random.u16(..) >> spread).collect();
        let arity = if two { Arity::Two } else { Arity::One };
        let code = Code::of(&counts(kind, &seen), arity).expect("values");
        comes_back(geometry, &code, &values);
    }
}

#[test]
fn all_bit_patterns_come_back() {
    let all: Vec<u16> = (0..=u16::MAX).collect();
    for kind in Kind::ALL {
        let own = counts(kind, &all);
        let others = counts(kind, &normal(kind, 4096, 0.02, 1));
        for counts in [own, others] {
            for arity in [Arity::One, Arity::Two] {
                let code = Code::of(&counts, arity).expect("values");
                for (columns, lanes) in [(64, 8), (512, 8), (4096, 32), (65536, 32)] {
                    comes_back(Geometry::new(columns, lanes).expect("pieces"), &code, &all);
                }
            }
        }
    }
}

#[test]
fn weights_of_trained_models_take_two_thirds() {
    let unit = |kind: Kind, values: &[u16], columns: usize, lanes: usize| {
        let code = Code::best(&counts(kind, values)).expect("values");
        let geometry = Geometry::new(columns, lanes).expect("pieces");
        comes_back(geometry, &code, values) as f64 / (2 * values.len()) as f64
    };
    // Llama 8B's rows, SmolLM2's and MiniLM's.
    for (columns, rows, lanes, most) in [
        (4096, 128, 32, 0.67),
        (14336, 64, 32, 0.67),
        (576, 896, 8, 0.67),
        (384, 1344, 8, 0.67),
    ] {
        let values = normal(Kind::Bf16, rows * columns, 0.02, 7);
        let ratio = unit(Kind::Bf16, &values, columns, lanes);
        assert!(ratio <= most, "bf16, {columns} columns: {ratio}");
    }
    let half = normal(Kind::F16, 128 * 4096, 0.05, 8);
    let ratio = unit(Kind::F16, &half, 4096, 32);
    assert!(ratio <= 0.87, "f16: {ratio}");
    // The lowest bits of what was bf16 are 0.
    let was: Vec<u16> = half.iter().map(|v| v & !7).collect();
    let ratio = unit(Kind::F16, &was, 4096, 32);
    assert!(ratio <= 0.67, "f16 that was bf16: {ratio}");
}

#[test]
fn what_does_not_pay_is_stored() {
    let mut random = fastrand::Rng::with_seed(5);
    let values: Vec<u16> = (0..32 * 4096).map(|_| random.u16(..)).collect();
    let code = Code::best(&counts(Kind::Bf16, &values)).expect("values");
    let bytes = comes_back(Geometry::new(4096, 32).expect("pieces"), &code, &values);
    assert!(bytes <= 2 * values.len() + 64, "{bytes}");
}

#[test]
fn damaged_units_are_refused_or_give_values_and_harm_nobody() {
    let mut random = fastrand::Rng::with_seed(9);
    for (columns, lanes) in [(2056, 32), (136, 8)] {
        let geometry = Geometry::new(columns, lanes).expect("pieces");
        let values = normal(Kind::Bf16, 20 * columns, 0.02, 11);
        let code = Code::best(&counts(Kind::Bf16, &values)).expect("values");
        let unit = pack(geometry, &code, &values);
        let unpacker = Unpacker::new(geometry, &code);
        let mut again = vec![0; values.len()];
        let mut refused = 0;
        for _ in 0..3000 {
            let mut damaged = unit.clone();
            for _ in 0..random.usize(1..8) {
                let end = if random.bool() { 64 } else { damaged.len() };
                let at = random.usize(0..end.min(damaged.len()));
                damaged[at] = random.u8(..);
            }
            if random.u8(..) < 40 {
                damaged.truncate(random.usize(0..damaged.len()));
            }
            refused += usize::from(unpacker.unpack(&damaged, &mut again).is_err());
        }
        assert!(refused > 300, "{refused}");
    }
}

#[test]
fn values_that_are_no_rows_are_refused() {
    let geometry = Geometry::new(64, 8).expect("pieces");
    let code = Code::best(&counts(Kind::Bf16, &[1; 64])).expect("values");
    let error = Packer::new(geometry, &code).pack(&[0; 65], &mut Vec::new());
    assert_eq!(
        error.unwrap_err().to_string(),
        "65 values are not 1 rows of 64"
    );
    let error = Unpacker::new(geometry, &code).unpack(&[0; 3], &mut [0; 64]);
    assert_eq!(
        error.unwrap_err().to_string(),
        "the places of 1 blocks take 16 bytes, the unit has 3"
    );
}
