//! Products that follow each other point by point in one launch.

use super::*;
use crate::emulator::Why;

/// Arguments of each product: the left operand's two, the weight, the result, and what the
/// epilogue loads.
const ARGS: usize = 5;

/// `norm(x) * g` as a computed operand, or `x` as it is.
fn left(computed: bool, k: usize, dtype: DType) -> Left {
    let view = |strides: [usize; 3]| View {
        offset: Dim::from(0),
        strides: dims(&strides),
    };
    if !computed {
        let (arg, view) = (Arg(0), view([0, k, 1]));
        return Operand { arg, view }.into();
    }
    let mut b = BodyBuilder::new();
    let x = b.load(Arg(0), view([0, k, 1]));
    let square = b.unary(Unary::Sqr, x);
    let sum = b.push(Inst::Reduce(Reduce::Sum, square));
    let root = b.unary(Unary::Sqrt, sum);
    let y = b.binary(Binary::Div, x, root);
    let g = b.load(Arg(1), view([0, 0, 1]));
    let y = b.binary(Binary::Mul, y, g);
    b.push(Inst::Yield(y));
    Left::Computed {
        dtype,
        body: b.finish(),
    }
}

/// `out = left w^T * silu(other)`, where the first of a chain has ones for the other.
fn product([m, n, k]: [usize; 3], dtype: DType, left: Left) -> Kernel {
    let view = |strides: [usize; 3]| View {
        offset: Dim::from(0),
        strides: dims(&strides),
    };
    let mut e = BodyBuilder::new();
    let sum = e.push(Inst::Input);
    let other = e.load(Arg(4), view([0, n, 1]));
    let other = e.unary(Unary::Silu, other);
    let y = e.binary(Binary::Mul, sum, other);
    e.store(Arg(3), view([0, n, 1]), y);
    Kernel::Matmul(Matmul {
        batch: Dim::from(1),
        m: Dim::from(m),
        n: Dim::from(n),
        k: Dim::from(k),
        args: Encoding::plain([dtype; ARGS]),
        a: left,
        b: Operand {
            arg: Arg(2),
            view: view([0, k, 1]),
        },
        ranged: true,
        epilogue: e.finish(),
    })
}

fn args([m, n, k]: [usize; 3], dtype: DType) -> Vec<Buffer> {
    let one = |seed: u64| {
        let lens = [m * k, k, n * k, m * n, m * n].into_iter().enumerate();
        let each = lens.map(move |(i, len)| {
            // The weights and the addend of the first differ between the products.
            let seed = if i < 2 { i as u64 + 1 } else { seed + i as u64 };
            Buffer::random(dtype, len, seed)
        });
        each.collect::<Vec<_>>()
    };
    [one(10), one(20)].concat()
}

fn chain(parts: [Kernel; 2]) -> Kernel {
    Kernel::Group(Group {
        parts: parts.to_vec(),
        order: Order::Chain,
    })
}

/// Runs a chain on these rows of each weight; the second product loads what the first stores.
fn run(
    kernel: &Kernel,
    e: &Emitted,
    rows: [Range<usize>; 2],
    args: &mut [Buffer],
) -> Result<(), emulator::EmuError> {
    let each = weights(kernel, &Env::default()).into_iter().zip(rows);
    let tiles = each.map(|(weight, rows)| {
        let bytes = weight.bytes(args, rows.clone());
        Tiles {
            weight: weight.arg,
            step: rows.len().max(1),
            bytes: if rows.is_empty() { vec![] } else { vec![bytes] },
            rows,
        }
    });
    let second = kernel.numbered_parts().map(|(first, _)| first).max();
    let other = Arg(second.expect("parts") + 4);
    let call = Call {
        tiles: tiles.collect(),
        written: kernel.written(),
        shared: vec![(other, Arg(3))],
        seed: 1,
        ..Call::default()
    };
    emulator::run(e, &call, args).map(|_| ())
}

#[test]
fn a_chain_gives_the_bits_of_its_products_one_after_the_other() {
    for (shape, dtype, computed) in [
        ([1, 130, 576], DType::BF16, true),
        ([1, 20, 4096], DType::BF16, true),
        ([3, 66, 264], DType::F16, true),
        ([8, 70, 96], DType::F32, true),
        ([1, 130, 576], DType::BF16, false),
    ] {
        let n = shape[1];
        let parts = [0, 1].map(|_| product(shape, dtype, left(computed, shape[2], dtype)));
        let kernel = chain(parts.clone());
        let given = args(shape, dtype);
        for target in Target::ALL {
            let e = ptx::emit(&kernel, target).unwrap();
            let mut together = given.clone();
            run(&kernel, &e, [0..n, 0..n], &mut together).unwrap();
            let mut alone = given.clone();
            for (i, part) in parts.iter().enumerate() {
                let e = ptx::emit(part, target).unwrap();
                let own = &mut alone[ARGS * i..ARGS * (i + 1)];
                launch(part, &e, &Env::default(), &[], 0, own);
                alone[ARGS + 4] = alone[3].clone();
            }
            // While weights arrive, a launch is on rows of one of them.
            let mut cut = given.clone();
            for rows in [[0..64.min(n), 0..0], [64.min(n)..n, 0..0], [0..0, 0..n]] {
                run(&kernel, &e, rows, &mut cut).unwrap();
            }
            for (name, found) in [("together", &together), ("cut", &cut)] {
                let same = [3, ARGS + 3].map(|i| found[i].bytes == alone[i].bytes);
                assert_eq!(same, [true; 2], "{name} {shape:?} {dtype} {target}");
            }
        }
    }
}

#[test]
fn a_second_product_that_loads_other_points_is_a_race() {
    let shape = [1, 130, 64];
    let first = product(shape, DType::F32, left(false, 64, DType::F32));
    let Kernel::Matmul(mut second) = first.clone() else {
        unreachable!()
    };
    for inst in &mut second.epilogue.insts {
        if let Inst::Load(Arg(4), view) = inst {
            view.strides[2] = Dim::from(-1);
            view.offset = Dim::from(129);
        }
    }
    let kernel = chain([first, Kernel::Matmul(second)]);
    let e = ptx::emit(&kernel, Target::Sm80).unwrap();
    let found = run(&kernel, &e, [0..130, 0..130], &mut args(shape, DType::F32)).unwrap_err();
    assert!(matches!(found.why, Why::Race { .. }), "{found}");
}

#[test]
fn products_of_different_shape_or_left_operand_are_no_chain() {
    let one = |n, k, computed| product([1, n, k], DType::F32, left(computed, k, DType::F32));
    for other in [one(128, 64, true), one(64, 128, true), one(64, 64, false)] {
        assert!(chain([one(64, 64, true), other]).check().is_err());
    }
}

#[test]
fn a_chain_by_packed_rows_gives_the_bits_of_plain_ones() {
    let form = PackedType::Bf16Pairs;
    for (shape, computed) in [
        ([1, 20, 4096], true),
        ([4, 70, 1280], true),
        ([2, 40, 2048], false),
        ([1, 70, 576], true),
    ] {
        let (n, dtype) = (shape[1], DType::BF16);
        let parts = [0, 1].map(|_| product(shape, dtype, left(computed, shape[2], dtype)));
        let kernel = chain(parts);
        let packed = reference::units::packed_kernel(&kernel, form);
        let given = args(shape, dtype);
        let others = reference::packed::packed_args(&kernel, &given, form);
        for target in [Target::Sm80, Target::Sm90a] {
            let emit = |kernel: &Kernel| ptx::emit(kernel, target).expect("a kernel");
            let (mut wanted, mut found) = (given.clone(), others.clone());
            run(&kernel, &emit(&kernel), [0..n, 0..n], &mut wanted).unwrap();
            let e = emit(&packed);
            run(&packed, &e, [0..n, 0..n], &mut found).unwrap();
            for (plain, packed) in [(3, 3), (ARGS + 3, ARGS + 4)] {
                let same = wanted[plain].bytes == found[packed].bytes;
                assert!(same, "{shape:?} {target} {plain}");
            }
            // Rows that lanes of a warp share are read as they lie.
            assert_eq!(e.launches.len() == 1, shape[2] >= 1024, "{shape:?}");
        }
    }
}
