//! Kernels side by side in one launch.

use super::*;
use crate::emulator::Why;

/// `out = a w^T + bias`, over arguments `a`, `w`, `bias`, `out`.
fn product(m: usize, n: usize, k: usize, dtype: DType) -> Kernel {
    let view = |strides: &[usize]| View {
        offset: Dim::from(0),
        strides: dims(strides),
    };
    let mut e = BodyBuilder::new();
    let sum = e.push(Inst::Input);
    let bias = e.load(Arg(2), view(&[0, 0, 1]));
    let y = e.binary(Binary::Add, sum, bias);
    e.store(Arg(3), view(&[0, n, 1]), y);
    let operand = |arg: u16, strides: &[usize]| Operand {
        arg: Arg(arg),
        view: view(strides),
    };
    Kernel::Matmul(Matmul {
        batch: Dim::from(1),
        m: Dim::from(m),
        n: Dim::from(n),
        k: Dim::from(k),
        args: Encoding::plain([dtype, dtype, DType::F32, dtype]),
        a: operand(0, &[0, k, 1]).into(),
        b: operand(1, &[0, k, 1]),
        ranged: true,
        epilogue: e.finish(),
    })
}

fn group(parts: &[Kernel]) -> Kernel {
    Kernel::Group(Group {
        parts: parts.to_vec(),
        order: Order::Side,
    })
}

fn args(parts: &[Kernel]) -> Vec<Buffer> {
    let one = |(i, part): (usize, &Kernel)| {
        let Kernel::Matmul(p) = part else {
            return vec![];
        };
        let [m, n, k] = [&p.m, &p.n, &p.k].map(|d| d.size(&Env::default()));
        let lens = [m * k, n * k, n, m * n];
        let each = lens.iter().zip(&p.args).enumerate();
        each.map(|(j, (len, e))| Buffer::random(e.dtype(), *len, (4 * i + j) as u64 + 1))
            .collect()
    };
    parts.iter().enumerate().flat_map(one).collect()
}

/// Queries, keys and values of different widths, as a decode step has them.
fn heads(m: usize, k: usize, dtype: DType) -> Vec<Kernel> {
    [200, 70, 64].map(|n| product(m, n, k, dtype)).to_vec()
}

#[test]
fn products_side_by_side_equal_the_reference_and_themselves_alone() {
    for (m, k, dtype) in [
        (1, 96, DType::BF16),
        (1, 2048, DType::BF16),
        (3, 264, DType::F16),
        (8, 64, DType::F32),
    ] {
        let parts = heads(m, k, dtype);
        let (whole, given) = (group(&parts), args(&parts));
        let d = distance(&whole, &Env::default(), &given);
        assert!(d <= 10.0, "{m} {k} {dtype}: {d}");
        for target in Target::ALL {
            let mut together = given.clone();
            let e = ptx::emit(&whole, target).unwrap();
            launch(&whole, &e, &Env::default(), &[], 1, &mut together);
            for (i, part) in parts.iter().enumerate() {
                let mut own = given[4 * i..4 * i + 4].to_vec();
                let e = ptx::emit(part, target).unwrap();
                launch(part, &e, &Env::default(), &[], 0, &mut own);
                let same = own[3].bytes == together[4 * i + 3].bytes;
                assert!(same, "part {i} of m={m} k={k} {dtype} {target}");
            }
        }
    }
}

#[test]
fn rows_of_a_group_glue_to_the_whole_launch_bit_for_bit() {
    for (m, k, dtype) in [
        (1, 96, DType::BF16),
        (1, 1040, DType::F16),
        (4, 64, DType::F32),
    ] {
        let parts = heads(m, k, dtype);
        let (kernel, mut given) = (group(&parts), args(&parts));
        poison(&kernel, &mut given);
        for e in emitted(&kernel) {
            let run = |launches: &[[(Range<usize>, usize); 3]]| {
                let mut args = given.clone();
                for rows in launches {
                    launch(&kernel, &e, &Env::default(), rows, 2, &mut args);
                }
                [3, 7, 11].map(|i| args[i].bytes.clone())
            };
            let whole = run(&[[(0..200, 200), (0..70, 70), (0..64, 64)]]);
            // A launch may bring rows of some weights only.
            let cut = run(&[
                [(0..64, 64), (0..0, 64), (0..64, 64)],
                [(64..200, 64), (0..70, 64), (64..64, 64)],
            ]);
            assert!(whole == cut, "m={m} k={k} {dtype} {}", e.target);
        }
    }
}

#[test]
fn rows_and_moves_side_by_side_equal_the_reference() {
    // A norm of 3 rows, a scaled copy, and an append into a cache.
    let view = |offset: usize, strides: &[usize]| View {
        offset: Dim::from(offset),
        strides: dims(strides),
    };
    for cols in [8, 100, 576, 2000] {
        let mut b = BodyBuilder::new();
        let x = b.load(Arg(0), view(0, &[cols, 1]));
        let square = b.unary(Unary::Sqr, x);
        let sum = b.push(Inst::Reduce(Reduce::Sum, square));
        let root = b.unary(Unary::Sqrt, sum);
        let y = b.binary(Binary::Div, x, root);
        b.store(Arg(1), view(0, &[cols, 1]), y);
        let norm = Kernel::Row(Row {
            space: dims(&[3, cols]),
            args: vec![DType::F32, DType::BF16],
            body: b.finish(),
        });
        let mut b = BodyBuilder::new();
        let x = b.load(Arg(0), view(0, &[1]));
        let y = b.unary(Unary::Silu, x);
        b.store(Arg(1), view(0, &[1]), y);
        let silu = Kernel::Row(Row {
            space: dims(&[1000]),
            args: vec![DType::F32; 2],
            body: b.finish(),
        });
        let append = Kernel::Move(Move {
            space: dims(&[2, 5, 64]),
            dtype: DType::BF16,
            src: view(0, &[320, 64, 1]),
            dst: View {
                offset: &Dim::var(Var(0)) * &Dim::from(64),
                strides: dims(&[64 * 20, 64, 1]),
            },
        });
        let kernel = group(&[norm, silu, append]);
        let args = [
            Buffer::random(DType::F32, 3 * cols, 1),
            Buffer::zeros(DType::BF16, 3 * cols),
            Buffer::random(DType::F32, 1000, 2),
            Buffer::zeros(DType::F32, 1000),
            Buffer::random(DType::BF16, 2 * 5 * 64, 3),
            Buffer::zeros(DType::BF16, 2 * 20 * 64),
        ];
        let d = distance(&kernel, &Env::new(&[7]), &args);
        assert!(d <= 2.0, "{cols}: {d}");
    }
}

#[test]
fn parts_that_write_one_argument_are_found() {
    let parts = heads(1, 64, DType::F32);
    let (kernel, mut args) = (group(&parts), args(&parts));
    let e = ptx::emit(&kernel, Target::Sm80).unwrap();
    let tiles = weights(&kernel, &Env::default())
        .into_iter()
        .map(|weight| Tiles {
            weight: weight.arg,
            rows: 0..weight.rows,
            step: weight.rows,
            bytes: vec![weight.bytes(&args, 0..weight.rows)],
        });
    let call = Call {
        tiles: tiles.collect(),
        written: kernel.written(),
        shared: vec![(Arg(7), Arg(3))],
        ..Call::default()
    };
    let found = emulator::run(&e, &call, &mut args).unwrap_err();
    assert!(matches!(found.why, Why::Race { .. }), "{found}");
}
