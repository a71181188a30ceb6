//! The order of sums of products by few rows: each launch says it, the text follows it, and it
//! depends on neither number of rows.

use super::*;

const BF16: Encoding = Encoding::Plain(DType::BF16);
const F16: Encoding = Encoding::Plain(DType::F16);
const F32: Encoding = Encoding::Plain(DType::F32);

/// `out = a w^T` over `[m, k]` and `[n, k]`, sums as they are.
fn product([m, n, k]: [usize; 3], left: DType, right: Encoding) -> Kernel {
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
    Kernel::Matmul(Matmul {
        batch: Dim::from(1),
        m: Dim::from(m),
        n: Dim::from(n),
        k: Dim::from(k),
        args: vec![left.into(), right, F32],
        a: operand(0).into(),
        b: operand(1),
        ranged: true,
        epilogue: e.finish(),
    })
}

fn args([m, n, k]: [usize; 3], left: DType, right: Encoding) -> Vec<Buffer> {
    vec![
        Buffer::random(left, m * k, 1),
        Buffer::random(right, n * k, 2),
        Buffer::zeros(DType::F32, m * n),
    ]
}

fn run(kernel: &Kernel, e: &Emitted, args: &[Buffer]) -> Vec<u8> {
    let mut given = args.to_vec();
    launch(kernel, e, &Env::default(), &[], 7, &mut given);
    given[2].bytes.clone()
}

/// The order that all launches of a product say, if any says one.
fn order(e: &Emitted) -> Option<SumOrder> {
    let mut orders = e.launches.iter().flat_map(|l| &l.sums);
    let first = *orders.next().expect("a product says how it sums");
    assert!(orders.all(|o| *o == first), "{:?}", e.launches);
    first
}

/// Rows of few and of many pieces, ragged ones, with one segment and with several.
const DEPTHS: [(usize, Encoding); 9] = [
    (8, BF16),
    (576, BF16),
    (1000, F16),
    (1032, BF16),
    (1536, BF16),
    (2048, BF16),
    (4096, F16),
    (2048, F32),
    (7168, BF16),
];

/// Those, and rows in blocks of each type: of an odd number of blocks, in no whole number of 16 bytes,
/// and in several segments, the last of which is not whole.
fn depths() -> Vec<(usize, Encoding)> {
    let blocks = |block: BlockType| {
        let depths = match block.values() {
            32 => [96, 2144],
            _ => [768, 2304],
        };
        depths.map(|k| (k, Encoding::Blocks(block)))
    };
    let whole = [BlockType::Q4K, BlockType::Q6K, BlockType::Q8_0];
    let whole = whole.map(|block| (4096, Encoding::Blocks(block)));
    let plain = DEPTHS.into_iter().chain(whole);
    plain
        .chain(BlockType::ALL.into_iter().flat_map(blocks))
        .collect()
}

#[test]
fn a_launch_sums_in_the_order_that_it_says() {
    for (k, right) in depths() {
        for m in [1, 2, 3, 8] {
            // So few rows that several warps share each where the order lets them.
            let shape = [m, 11, k];
            let (kernel, args) = (
                product(shape, DType::F32, right),
                args(shape, DType::F32, right),
            );
            for e in emitted(&kernel) {
                let order = order(&e).expect("rows in whole pieces");
                let sums = (0..m * 11).map(|i| {
                    let (row, column) = (i / 11 * k, i % 11);
                    let value = |b: &Buffer, i: usize| b.get(i as i64) as f32;
                    let x = |i: usize| value(&args[0], row + i);
                    match right {
                        Encoding::Plain(_) => {
                            order.sum(|i| (x(i), value(&args[1], column * k + i)))
                        }
                        Encoding::Packed(_) | Encoding::Code => unreachable!("none is asked for"),
                        Encoding::Blocks(_) => {
                            let bytes = right.row_bytes(k).expect("whole rows");
                            order.sum_of_blocks(x, &args[1].bytes[column * bytes..][..bytes])
                        }
                    }
                });
                let wanted: Vec<u8> = sums.flat_map(f32::to_le_bytes).collect();
                let found = run(&kernel, &e, &args);
                assert!(found == wanted, "m={m} k={k} {right} {}: {order}", e.target);
            }
        }
    }
}

/// The last `m` rows of the left operand and the last `n` of the right one, of 8 and 24.
fn last([m, n, k]: [usize; 3], all: &[Buffer]) -> Vec<Buffer> {
    let cut = |of: &Buffer, rows: usize, kept: usize| {
        let row = of.encoding.row_bytes(k).expect("whole rows");
        Buffer {
            encoding: of.encoding,
            bytes: of.bytes[(rows - kept) * row..].to_vec(),
        }
    };
    let out = Buffer::zeros(DType::F32, m * n);
    vec![cut(&all[0], 8, m), cut(&all[1], 24, n), out]
}

#[test]
fn an_output_has_the_same_bits_for_any_number_of_rows_on_either_side() {
    for (k, right) in depths() {
        let left = right.as_plain().unwrap_or(DType::BF16);
        let all = args([8, 24, k], left, right);
        let kernel = product([8, 24, k], left, right);
        for e in emitted(&kernel) {
            let whole = run(&kernel, &e, &all);
            for (m, n) in [(1, 24), (2, 24), (4, 1), (5, 24), (1, 1), (7, 2)] {
                let kernel = product([m, n, k], left, right);
                let one = &ptx::emit(&kernel, e.target).expect("a product");
                assert_eq!(order(one), order(&e));
                let wanted = whole.chunks(24 * 4).skip(8 - m);
                let wanted: Vec<u8> = wanted.flat_map(|r| r[(24 - n) * 4..].to_vec()).collect();
                let found = run(&kernel, one, &last([m, n, k], &all));
                assert!(found == wanted, "{m} x {n} of k={k} {right} {}", e.target);
            }
        }
    }
}

#[test]
fn a_row_that_no_piece_divides_is_summed_alike_for_any_number_of_rows() {
    let (n, k) = (24, 77);
    let all = args([8, n, k], DType::F32, F32);
    let kernel = product([8, n, k], DType::F32, F32);
    for (i, e) in emitted(&kernel).into_iter().enumerate() {
        assert_eq!(order(&e), None);
        let whole = run(&kernel, &e, &all);
        for m in [1, 2, 5] {
            let kernel = product([m, n, k], DType::F32, F32);
            let found = run(&kernel, &emitted(&kernel)[i], &last([m, n, k], &all));
            assert!(found == whole[(8 - m) * n * 4..], "{m}");
        }
    }
}
