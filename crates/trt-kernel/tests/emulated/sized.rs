//! Groups whose products have as many rows, or whose row kernels as many points, as a call has: each part
//! gives the bits that it gives alone, whichever of its ways the call takes.

use super::*;

const ARGS: usize = 4;

fn rows() -> Dim {
    Dim::var(Var(0))
}

fn view(strides: [usize; 3]) -> View {
    View {
        offset: Dim::from(0),
        strides: dims(&strides),
    }
}

/// `out = x w^T * other` over arguments `x`, `w`, `out`, `other`, with the rows of a call.
fn product([n, k]: [usize; 2], left: DType, right: Encoding) -> Kernel {
    let mut e = BodyBuilder::new();
    let sum = e.push(Inst::Input);
    let other = e.load(Arg(3), view([0, n, 1]));
    let y = e.binary(Binary::Mul, sum, other);
    e.store(Arg(2), view([0, n, 1]), y);
    let operand = |arg| Operand {
        arg: Arg(arg),
        view: view([0, k, 1]),
    };
    Kernel::Matmul(Matmul {
        batch: Dim::from(1),
        m: rows(),
        n: Dim::from(n),
        k: Dim::from(k),
        args: vec![left.into(), right, left.into(), left.into()],
        a: operand(0).into(),
        b: operand(1),
        ranged: true,
        epilogue: e.finish(),
    })
}

fn args(parts: &[Kernel], m: usize) -> Vec<Buffer> {
    let one = |(i, part): (usize, &Kernel)| {
        let Kernel::Matmul(p) = part else {
            return vec![];
        };
        let [n, k] = [&p.n, &p.k].map(|d| d.size(&Env::default()));
        let lens = [m * k, n * k, m * n, m * n];
        let each = lens.iter().zip(&p.args).enumerate();
        each.map(|(j, (len, e))| Buffer::random(*e, *len, (4 * i + j) as u64 + 1))
            .collect()
    };
    parts.iter().enumerate().flat_map(one).collect()
}

/// The whole group against each part alone, all of whose weights are in tiles of so many rows.
fn alike(parts: &[Kernel], order: Order, m: usize, step: usize) {
    let group = Kernel::Group(Group {
        parts: parts.to_vec(),
        order,
    });
    let (env, given) = (Env::new(&[m as i64]), args(parts, m));
    let tiles = |kernel: &Kernel, args: &[Buffer]| -> Vec<Tiles> {
        let each = weights(kernel, &env).into_iter();
        each.map(|weight| Tiles {
            weight: weight.arg,
            rows: 0..weight.rows,
            step,
            bytes: (0..weight.rows)
                .step_by(step)
                .map(|at| weight.bytes(args, at..(at + step).min(weight.rows)))
                .collect(),
        })
        .collect()
    };
    for target in Target::ALL {
        let e = ptx::emit(&group, target).unwrap_or_else(|e| panic!("{target}: {e}"));
        let mut alone = given.clone();
        for (i, part) in parts.iter().enumerate() {
            if order == Order::Chain && i > 0 {
                alone[ARGS * i + 3] = alone[ARGS * (i - 1) + 2].clone();
            }
            let one = ptx::emit(part, target).expect("a product");
            launch(
                part,
                &one,
                &env,
                &[],
                0,
                &mut alone[ARGS * i..ARGS * (i + 1)],
            );
        }
        let mut together = given.clone();
        let call = Call {
            env,
            tiles: tiles(&group, &given),
            written: group.written(),
            shared: match order {
                Order::Chain => vec![(Arg(7), Arg(2))],
                Order::Side => Vec::new(),
            },
            seed: 1,
            ..Call::default()
        };
        emulator::run(&e, &call, &mut together).unwrap_or_else(|e| panic!("{target} {m}: {e}"));
        for i in 0..parts.len() {
            let out = ARGS * i + 2;
            assert!(
                together[out].bytes == alone[out].bytes,
                "part {i} of {m} rows, {target}: {group}"
            );
        }
    }
}

const ROWS: [usize; 6] = [1, 2, 7, 9, 70, 130];

#[test]
fn queries_keys_and_values_of_a_prompt_give_what_each_gives_alone() {
    for (k, left, right) in [
        (128, DType::BF16, DType::BF16),
        (72, DType::F16, DType::F16),
        (64, DType::F32, DType::BF16),
        (13, DType::F32, DType::F32),
    ] {
        let parts = [192, 64, 70].map(|n| product([n, k], left, right.into()));
        for m in ROWS {
            alike(&parts, Order::Side, m, 64);
        }
    }
}

#[test]
fn parts_of_different_encodings_have_entries_of_their_own() {
    let q4 = Encoding::Blocks(BlockType::Q4K);
    let parts = [
        product([128, 256], DType::BF16, q4),
        product([64, 256], DType::BF16, Encoding::Blocks(BlockType::Q6K)),
        product([64, 256], DType::BF16, DType::BF16.into()),
    ];
    for m in [1, 5, 9, 66] {
        alike(&parts, Order::Side, m, 64);
    }
}

#[test]
fn a_chain_of_many_rows_gives_the_bits_of_its_products_one_after_the_other() {
    for (k, left, right) in [
        (128, DType::BF16, Encoding::from(DType::BF16)),
        (256, DType::F16, Encoding::Blocks(BlockType::Q4K)),
        (64, DType::F32, DType::F32.into()),
    ] {
        let parts = [0, 1].map(|_| product([130, k], left, right));
        for m in [1, 3, 9, 66] {
            alike(&parts, Order::Chain, m, 64);
        }
    }
}

#[test]
fn products_share_an_entry_wherever_their_blocks_are_alike() {
    let parts = [192, 64, 64].map(|n| product([n, 128], DType::BF16, DType::BF16.into()));
    let side = Kernel::Group(Group {
        parts: parts.to_vec(),
        order: Order::Side,
    });
    for target in Target::ALL {
        let e = ptx::emit(&side, target).unwrap();
        let named = |prefix: &str| {
            let each = e.launches.iter();
            each.filter(|l| l.entry.starts_with(prefix)).count()
        };
        assert_eq!(named("part"), 0, "{target}: {:?}", e.launches);
        let fed = e.launches.iter().filter(|l| l.mapped).count();
        assert_eq!(fed > 0, target.maps(), "{target}");
        for m in ROWS {
            let env = Env::new(&[m as i64]);
            let runs = |l: &&trt_kernel::launch::EntryLaunch| l.when.iter().all(|w| w.holds(&env));
            assert_eq!(e.launches.iter().filter(runs).count(), 1, "{target} {m}");
        }
    }
}

#[test]
fn row_kernels_and_moves_of_a_prompt_share_a_launch() {
    let scaled = |heads: usize, width: usize| {
        let space = vec![Dim::from(heads), rows(), Dim::from(width)];
        let from = View {
            offset: Dim::from(0),
            strides: vec![Dim::from(width), Dim::from(heads * width), Dim::from(1)],
        };
        let mut b = BodyBuilder::new();
        let x = b.load(Arg(0), from);
        let y = b.unary(Unary::Silu, x);
        b.store(Arg(1), View::contiguous(&space), y);
        Kernel::Row(Row {
            space,
            args: vec![DType::BF16, DType::F32],
            body: b.finish(),
        })
    };
    let cached = Kernel::Move(Move {
        space: vec![rows(), Dim::from(40)],
        dtype: DType::BF16,
        src: View {
            offset: Dim::from(0),
            strides: dims(&[40, 1]),
        },
        dst: View {
            offset: &rows() * &Dim::from(40),
            strides: dims(&[40, 1]),
        },
    });
    let kernel = Kernel::Group(Group {
        parts: vec![scaled(6, 32), scaled(2, 32), cached],
        order: Order::Side,
    });
    for target in Target::ALL {
        assert_eq!(ptx::emit(&kernel, target).unwrap().launches.len(), 1);
    }
    for m in [1, 5, 70] {
        let args = [
            Buffer::random(DType::BF16, 6 * m * 32, 1),
            Buffer::zeros(DType::F32, 6 * m * 32),
            Buffer::random(DType::BF16, 2 * m * 32, 2),
            Buffer::zeros(DType::F32, 2 * m * 32),
            Buffer::random(DType::BF16, 40 * m, 3),
            Buffer::zeros(DType::BF16, 80 * m),
        ];
        let d = distance(&kernel, &Env::new(&[m as i64]), &args);
        assert!(d <= 2.0, "{m}: {d}");
    }
}
