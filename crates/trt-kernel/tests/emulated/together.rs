//! Products with weights in blocks in one launch: side by side with weights of different types, and as a
//! chain, with a left operand that is in memory or computed. Each gives the bits that it gives alone.

use super::*;

fn view(strides: [usize; 3]) -> View {
    View {
        offset: Dim::from(0),
        strides: dims(&strides),
    }
}

/// `out = (x or x / |x|) w^T * other` over arguments `x`, `w`, `out`, `other`.
fn product([m, n, k]: [usize; 3], block: BlockType, computed: bool) -> Kernel {
    let mut e = BodyBuilder::new();
    let sum = e.push(Inst::Input);
    let other = e.load(Arg(3), view([0, n, 1]));
    let y = e.binary(Binary::Mul, sum, other);
    e.store(Arg(2), view([0, n, 1]), y);
    let mut norm = BodyBuilder::new();
    let x = norm.load(Arg(0), view([0, k, 1]));
    let square = norm.unary(Unary::Sqr, x);
    let sum = norm.push(Inst::Reduce(Reduce::Sum, square));
    let root = norm.unary(Unary::Sqrt, sum);
    let y = norm.binary(Binary::Div, x, root);
    norm.push(Inst::Yield(y));
    let operand = |arg| Operand {
        arg: Arg(arg),
        view: view([0, k, 1]),
    };
    Kernel::Matmul(Matmul {
        batch: Dim::from(1),
        m: Dim::from(m),
        n: Dim::from(n),
        k: Dim::from(k),
        args: vec![
            DType::BF16.into(),
            Encoding::Blocks(block),
            DType::BF16.into(),
            DType::BF16.into(),
        ],
        a: match computed {
            false => operand(0).into(),
            true => Left::Computed {
                dtype: DType::BF16,
                body: norm.finish(),
            },
        },
        b: operand(1),
        ranged: true,
        epilogue: e.finish(),
    })
}

fn args([m, n, k]: [usize; 3], block: BlockType, seed: u64) -> Vec<Buffer> {
    vec![
        Buffer::random(DType::BF16, m * k, 1),
        Buffer::random(Encoding::Blocks(block), n * k, seed),
        Buffer::zeros(DType::BF16, m * n),
        Buffer::random(DType::BF16, m * n, seed + 1),
    ]
}

const ARGS: usize = 4;

/// Whether parts give alone what they give in one launch, the second loading what the first stores if
/// they are a chain.
fn alike(parts: &[([usize; 3], BlockType)], computed: bool, order: Order) {
    let kernels: Vec<Kernel> = parts
        .iter()
        .map(|(s, b)| product(*s, *b, computed))
        .collect();
    let group = Kernel::Group(Group {
        parts: kernels.clone(),
        order,
    });
    let given = parts.iter().enumerate();
    let given: Vec<Buffer> = given
        .flat_map(|(i, (s, b))| args(*s, *b, 10 * i as u64 + 5))
        .collect();
    let chain = order == Order::Chain;
    for target in Target::ALL {
        let e = ptx::emit(&group, target).unwrap_or_else(|e| panic!("{target}: {e}"));
        let mut alone = given.clone();
        for (i, part) in kernels.iter().enumerate() {
            if chain && i > 0 {
                alone[ARGS * i + 3] = alone[ARGS * (i - 1) + 2].clone();
            }
            let one = ptx::emit(part, target).expect("a product");
            let own = &mut alone[ARGS * i..ARGS * (i + 1)];
            launch(part, &one, &Env::default(), &[], 0, own);
        }
        let mut together = given.clone();
        let tiles = weights(&group, &Env::default()).into_iter();
        let tiles = tiles.map(|weight| Tiles {
            weight: weight.arg,
            rows: 0..weight.rows,
            step: weight.rows,
            bytes: vec![weight.bytes(&together, 0..weight.rows)],
        });
        let call = Call {
            tiles: tiles.collect(),
            written: group.written(),
            shared: if chain {
                vec![(Arg(7), Arg(2))]
            } else {
                Vec::new()
            },
            seed: 1,
            ..Call::default()
        };
        emulator::run(&e, &call, &mut together).unwrap_or_else(|e| panic!("{target}: {e}"));
        for i in 0..parts.len() {
            let out = ARGS * i + 2;
            assert!(
                together[out].bytes == alone[out].bytes,
                "{i} {parts:?} {target}"
            );
        }
    }
}

#[test]
fn weights_of_different_types_side_by_side_give_what_each_gives_alone() {
    for computed in [false, true] {
        for m in [1, 3] {
            let parts = [
                ([m, 136, 2304], BlockType::Q4K),
                ([m, 40, 2304], BlockType::Q4K),
                ([m, 40, 2304], BlockType::Q6K),
            ];
            alike(&parts, computed, Order::Side);
        }
    }
    alike(
        &[
            ([1, 72, 96], BlockType::Q8_0),
            ([1, 9, 96], BlockType::Q4_1),
        ],
        true,
        Order::Side,
    );
}

#[test]
fn a_chain_gives_the_bits_of_its_products_one_after_the_other() {
    for (shape, block) in [
        ([1, 136, 2304], BlockType::Q4K),
        ([2, 40, 768], BlockType::Q6K),
        ([1, 40, 544], BlockType::Q8_0),
    ] {
        for computed in [false, true] {
            alike(&[(shape, block); 2], computed, Order::Chain);
        }
    }
}
