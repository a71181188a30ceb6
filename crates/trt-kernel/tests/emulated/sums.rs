//! The order of sums of products by few rows: each launch says it, the text follows it, and it
//! depends on neither number of rows.

use super::*;

/// `out = a w^T` over `[m, k]` and `[n, k]`, sums as they are.
fn product([m, n, k]: [usize; 3], left: DType, right: DType) -> Kernel {
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
        args: vec![left, right, DType::F32],
        a: operand(0).into(),
        b: operand(1),
        ranged: true,
        epilogue: e.finish(),
    })
}

fn args([m, n, k]: [usize; 3], left: DType, right: DType) -> Vec<Buffer> {
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
const DEPTHS: [(usize, DType); 9] = [
    (8, DType::BF16),
    (576, DType::BF16),
    (1000, DType::F16),
    (1032, DType::BF16),
    (1536, DType::BF16),
    (2048, DType::BF16),
    (4096, DType::F16),
    (2048, DType::F32),
    (7168, DType::BF16),
];

#[test]
fn a_launch_sums_in_the_order_that_it_says() {
    for (k, dtype) in DEPTHS {
        for m in [1, 2, 3, 8] {
            // So few rows that several warps share each where the order lets them.
            let n = 11;
            let (kernel, args) = (
                product([m, n, k], DType::F32, dtype),
                args([m, n, k], DType::F32, dtype),
            );
            for e in emitted(&kernel) {
                let order = order(&e).expect("rows in whole pieces");
                let sums = (0..m * n).map(|i| {
                    let (row, column) = (i / n * k, i % n * k);
                    let value = |b: &Buffer, i: usize| b.get(i as i64) as f32;
                    order.sum(|i| (value(&args[0], row + i), value(&args[1], column + i)))
                });
                let wanted: Vec<u8> = sums.flat_map(f32::to_le_bytes).collect();
                let found = run(&kernel, &e, &args);
                assert!(found == wanted, "m={m} k={k} {dtype} {}: {order}", e.target);
            }
        }
    }
}

#[test]
fn an_output_has_the_same_bits_for_any_number_of_rows_on_either_side() {
    for (k, dtype) in DEPTHS {
        let most = [8, 24, k];
        let all = args(most, dtype, dtype);
        let bytes = k * dtype.size();
        let [rows, columns] = [0, 1].map(|i: usize| all[i].bytes.chunks(bytes).collect::<Vec<_>>());
        let kernel = product(most, dtype, dtype);
        for (i, e) in emitted(&kernel).into_iter().enumerate() {
            let whole = run(&kernel, &e, &all);
            for (m, n) in [(1, 24), (2, 24), (4, 1), (5, 24), (1, 1), (7, 2)] {
                let buffer = |dtype, bytes: Vec<u8>| Buffer { dtype, bytes };
                // The last rows of both.
                let given = [
                    buffer(dtype, rows[8 - m..].concat()),
                    buffer(dtype, columns[24 - n..].concat()),
                    Buffer::zeros(DType::F32, m * n),
                ];
                let kernel = product([m, n, k], dtype, dtype);
                let one = &emitted(&kernel)[i];
                assert_eq!(order(one), order(&e));
                let wanted = whole.chunks(24 * 4).skip(8 - m);
                let wanted: Vec<u8> = wanted.flat_map(|r| r[(24 - n) * 4..].to_vec()).collect();
                assert!(
                    run(&kernel, one, &given) == wanted,
                    "{m} x {n} of k={k} {dtype} {}",
                    e.target
                );
            }
        }
    }
}

#[test]
fn a_row_that_no_piece_divides_is_summed_alike_for_any_number_of_rows() {
    let (n, k) = (5, 77);
    let all = args([8, n, k], DType::F32, DType::F32);
    let kernel = product([8, n, k], DType::F32, DType::F32);
    for (i, e) in emitted(&kernel).into_iter().enumerate() {
        assert_eq!(order(&e), None);
        let whole = run(&kernel, &e, &all);
        for (row, wanted) in all[0].bytes.chunks(k * 4).zip(whole.chunks(n * 4)) {
            let row = Buffer {
                dtype: DType::F32,
                bytes: row.to_vec(),
            };
            let given = [row, all[1].clone(), Buffer::zeros(DType::F32, n)];
            let kernel = product([1, n, k], DType::F32, DType::F32);
            assert!(run(&kernel, &emitted(&kernel)[i], &given) == wanted);
        }
    }
}
