//! Products by packed rows: bit for bit those by the same rows as they are, on every way, in every cut; and whatever bytes
//! a unit has, nothing outside of it is read.

use super::*;
use trt_pack::{Arity, Code, Counts, Kind, Packer, argument, unit_rows};

/// A product by packed rows beside the same by plain ones.
struct Pair {
    plain: Kernel,
    packed: Kernel,
    /// Rows and values of a row.
    size: [usize; 2],
    args: Vec<Buffer>,
    /// Those of the packed one.
    other: Vec<Buffer>,
}

/// Like the values of trained weights, and now and then any others.
fn values(kind: Kind, count: usize, odd: u32) -> Vec<u16> {
    let mut state = count as u64 + 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u32
    };
    let mut value = || {
        let sign = (next() & 1) << 15;
        let small = next().leading_zeros().min(11);
        let low = next();
        let value = match (kind, next() % odd.max(1)) {
            (_, 0) if odd > 0 => low,
            (Kind::Bf16, _) => sign | (124 - small) << 7 | low & 0x7f,
            // As if made of bf16, or not.
            (Kind::F16, _) => {
                sign | (13 - small) << 10 | low & if odd.is_multiple_of(2) { 0x3ff } else { 0x3f8 }
            }
        };
        value as u16
    };
    (0..count).map(|_| value()).collect()
}

/// The units of rows by a code, and where each begins and the last ends.
fn units(kind: Kind, arity: Arity, rows: &[u16], k: usize) -> (PackedType, Vec<u8>, Vec<u8>) {
    let mut counts = Counts::new(kind);
    counts.add(rows);
    let code = Code::of(&counts, arity).expect("there are values");
    let form = PackedType::of(kind, arity);
    let mut packer = Packer::new(form.geometry(k).expect("rows that can be cut"), &code);
    let (mut bytes, mut places) = (Vec::new(), vec![0]);
    for unit in rows.chunks(unit_rows(k) * k) {
        packer.pack(unit, &mut bytes).expect("whole rows");
        places.push((bytes.len() / 16) as u32);
    }
    (form, bytes, argument(&code, &places))
}

/// `out = a w^T`, or with a norm before it, of `rows`.
fn pair([m, n, k]: [usize; 3], left: DType, form: (Kind, Arity), rows: &[u16]) -> Pair {
    let view = |strides: [usize; 3]| View {
        offset: Dim::from(0),
        strides: dims(&strides),
    };
    let operand = |arg| Operand {
        arg: Arg(arg),
        view: view([0, k, 1]),
    };
    let mut e = BodyBuilder::new();
    let sum = e.push(Inst::Input);
    e.store(Arg(2), view([0, n, 1]), sum);
    let (packed, bytes, code) = units(form.0, form.1, rows, k);
    let plain = Matmul {
        batch: Dim::from(1),
        m: Dim::from(m),
        n: Dim::from(n),
        k: Dim::from(k),
        args: Encoding::plain([left, packed.dtype(), DType::F32]),
        a: operand(0).into(),
        b: operand(1),
        ranged: true,
        epilogue: e.finish(),
    };
    let mut other = plain.clone();
    other.args[1] = Encoding::Packed(packed);
    other.args.push(Encoding::Code);
    let buffer = |encoding, bytes| Buffer { encoding, bytes };
    let args = vec![
        Buffer::random(left, m * k, 1),
        buffer(
            packed.dtype().into(),
            rows.iter().flat_map(|v| v.to_le_bytes()).collect(),
        ),
        Buffer::zeros(DType::F32, m * n),
    ];
    let mut others = args.clone();
    others[1] = buffer(Encoding::Packed(packed), bytes);
    others.push(buffer(Encoding::Code, code));
    Pair {
        plain: Kernel::Matmul(plain),
        packed: Kernel::Matmul(other),
        size: [n, k],
        args,
        other: others,
    }
}

impl Pair {
    /// A product of values like those of weights; of one in `odd` of any, if that is not 0.
    fn new(shape: [usize; 3], left: DType, form: (Kind, Arity), odd: u32) -> Pair {
        let rows = values(form.0, shape[1] * shape[2], odd);
        pair(shape, left, form, &rows)
    }

    /// What the plain product gives.
    fn wanted(&self, e: &Emitted) -> Vec<u8> {
        let mut args = self.args.clone();
        launch(&self.plain, e, &Env::default(), &[], 1, &mut args);
        args[2].bytes.clone()
    }

    /// What the packed one gives, launched on some rows that lie in tiles of so many units each.
    fn found(&self, e: &Emitted, launches: &[(Range<usize>, usize)]) -> Vec<u8> {
        let mut args = self.other.clone();
        for (i, (rows, step)) in launches.iter().enumerate() {
            self.launch(e, rows.clone(), *step, i as u64, &mut args);
        }
        args[2].bytes.clone()
    }

    fn launch(
        &self,
        e: &Emitted,
        rows: Range<usize>,
        units: usize,
        seed: u64,
        args: &mut [Buffer],
    ) {
        let [_, k] = self.size;
        let (each, code) = (unit_rows(k), args[3].bytes.clone());
        let place = |unit: usize| trt_pack::place(&code, unit).expect("a unit");
        let step = units * each;
        let tile = |first: usize| {
            let end = (first + step).min(rows.end).div_ceil(each);
            args[1].bytes[place(first / each)..place(end)].to_vec()
        };
        let call = Call {
            written: self.packed.written(),
            tiles: vec![Tiles {
                weight: Arg(1),
                step,
                bytes: rows.clone().step_by(step).map(tile).collect(),
                rows: rows.clone(),
            }],
            seed,
            ..Call::default()
        };
        emulator::run(e, &call, args).unwrap_or_else(|e| panic!("{e}"));
    }

    /// Compares both on a target.
    fn same(&self, target: Target, room: usize, launches: &[(Range<usize>, usize)]) {
        let emit = |kernel| ptx::emit_within(kernel, target, room).expect("a kernel");
        let (plain, packed) = (emit(&self.plain), emit(&self.packed));
        let (wanted, found) = (self.wanted(&plain), self.found(&packed, launches));
        let differ = |(a, b): (&[u8], &[u8])| a != b;
        let at = wanted.chunks(4).zip(found.chunks(4)).position(differ);
        assert!(at.is_none(), "{target} {:?} {at:?}", self.packed);
    }
}

const ROOM: usize = 128 << 20;
const PAIRS: (Kind, Arity) = (Kind::Bf16, Arity::Two);

/// All forms of packing.
const FORMS: [(Kind, Arity); 4] = [
    PAIRS,
    (Kind::Bf16, Arity::One),
    (Kind::F16, Arity::Two),
    (Kind::F16, Arity::One),
];

#[test]
fn rows_are_what_they_were_in_every_form() {
    for form in FORMS {
        for (k, odd) in [(64, 40), (576, 0), (1032, 300), (2048, 9)] {
            let pair = Pair::new([1, 40, k], DType::F32, form, odd);
            pair.same(Target::Sm80, ROOM, &[(0..40, 1)]);
        }
    }
}

#[test]
fn products_of_any_rows_and_left_operands_have_the_bits_of_plain_ones() {
    for (m, left) in [
        (1, DType::BF16),
        (2, DType::BF16),
        (1, DType::F32),
        (2, DType::F32),
        (3, DType::F32),
        (5, DType::F32),
        (8, DType::BF16),
        (9, DType::BF16),
        (70, DType::BF16),
        (9, DType::F32),
    ] {
        let pair = Pair::new([m, 80, 1536], left, PAIRS, 1000);
        for target in [Target::Sm75, Target::Sm80, Target::Sm90aMaps] {
            pair.same(target, ROOM, &[(0..80, 1)]);
        }
    }
}

#[test]
fn any_range_of_units_in_any_tiles_gives_the_same_bits() {
    // Units of 64 and of 1024 rows.
    for (m, n, k) in [(1, 200, 8192), (12, 200, 8192), (1, 3000, 512)] {
        let pair = Pair::new([m, n, k], DType::BF16, PAIRS, 0);
        let unit = unit_rows(k);
        let cuts = [
            vec![(0..n, 1)],
            vec![(0..n, 2)],
            vec![(0..unit, 1), (unit..n, 2)],
        ];
        for launches in cuts {
            pair.same(Target::Sm90, ROOM, &launches);
        }
    }
}

#[test]
fn a_weight_that_is_too_large_is_written_out_slab_by_slab() {
    for (m, k) in [(1, 1024), (16, 1024), (2, 200)] {
        let n = 600;
        let pair = Pair::new([m, n, k], DType::BF16, PAIRS, 500);
        pair.same(Target::Sm80, 2 * k * 256, &[(0..n, 1)]);
    }
}

#[test]
fn damaged_units_are_read_only_inside() {
    for form in FORMS {
        for (m, k) in [(1, 2048), (4, 3072), (1, 200)] {
            let mut pair = Pair::new([m, 48, k], DType::BF16, form, 50);
            let e = ptx::emit(&pair.packed, Target::Sm80).expect("a kernel");
            let good = pair.other[1].bytes.clone();
            for seed in 0..6u64 {
                let mut bytes = good.clone();
                let mut state = seed * 77 + 5;
                let mut next = |most: usize| {
                    state = state
                        .wrapping_mul(6364136223846793005)
                        .wrapping_add(1442695040888963407);
                    (state >> 33) as usize % most
                };
                let len = bytes.len();
                match seed {
                    0 => bytes.fill(0xff),
                    1 => bytes.fill(0),
                    2 => bytes[..64].fill(0x7f),
                    // Of places: few units too long, and not stored.
                    3 => bytes[..64]
                        .as_chunks_mut::<4>()
                        .0
                        .iter_mut()
                        .for_each(|p| p[3] ^= 0x80),
                    _ => (0..len / 4).for_each(|_| bytes[next(len)] ^= 1 << next(8)),
                }
                pair.other[1].bytes = bytes;
                pair.found(&e, &[(0..48, 1)]);
            }
        }
    }
}

#[test]
fn few_rows_meet_long_ones_and_ragged_ones_in_registers() {
    // Segments of one stretch and of several, ends of one to three rounds, and rows of one stretch.
    for k in [1024, 1280, 1792, 3840, 4096, 8192, 14336] {
        for m in [1, 2, 5] {
            let pair = Pair::new([m, 40, k], DType::BF16, PAIRS, 2000);
            for target in [Target::Sm80, Target::Sm90a] {
                let e = ptx::emit(&pair.packed, target).expect("a kernel");
                // The longest rows have no room on every device.
                let alone = e.launches.iter().all(|l| l.entry.starts_with("few"));
                assert_eq!(
                    alone,
                    k < 14336 || target == Target::Sm90a,
                    "{k} {m} {target}"
                );
                pair.same(target, ROOM, &[(0..40, 1)]);
            }
        }
    }
}

#[test]
fn words_that_do_not_fit_and_values_that_are_stored_are_met_too() {
    for form in FORMS {
        // More bits a symbol than there is room for, and than there are.
        for odd in [2, 3, 5, 1] {
            for (m, k) in [(1, 1792), (3, 2048)] {
                let pair = Pair::new([m, 40, k], DType::BF16, form, odd);
                pair.same(Target::Sm90, ROOM, &[(0..40, 1)]);
            }
        }
    }
}

#[test]
fn a_group_of_packed_weights_computes_its_left_operand() {
    for (m, k, form, dtype) in [
        (1, 2048, PackedType::Bf16Pairs, DType::BF16),
        (2, 2048, PackedType::Bf16Singles, DType::BF16),
        (1, 1024, PackedType::Bf16Pairs, DType::F32),
        (5, 1024, PackedType::Bf16Pairs, DType::F32),
    ] {
        let widths = [40, 8, 72];
        let product =
            |n| super::left::product(super::left::What::RmsNorm, [m, n, k], dtype, DType::BF16);
        let kernel = Kernel::Group(Group {
            parts: widths.map(|n| Kernel::Matmul(product(n))).to_vec(),
            order: Order::Side,
        });
        let args = widths
            .map(|n| super::left::args([m, n, k], dtype, DType::BF16))
            .concat();
        let packed = reference::units::packed_kernel(&kernel, form);
        let others = reference::packed::packed_args(&kernel, &args, form);
        for target in [Target::Sm80, Target::Sm90a] {
            let run = |kernel: &Kernel, args: &[Buffer]| {
                let e = ptx::emit(kernel, target).expect("a kernel");
                assert_eq!(e.launches.len(), 1, "{target}");
                let mut args = args.to_vec();
                launch(kernel, &e, &Env::default(), &[], 3, &mut args);
                let written = kernel.written().into_iter();
                written
                    .map(|a| args[a.0 as usize].bytes.clone())
                    .collect::<Vec<_>>()
            };
            assert!(run(&packed, &others) == run(&kernel, &args), "{m} {target}");
        }
    }
}
