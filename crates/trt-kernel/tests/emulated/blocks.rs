//! A right operand and a table in blocks of 34 bytes, whose rows are no multiple of 16 bytes: host
//! and PTX against the reference.

use super::*;
use crate::reference;

const Q8: Encoding = Encoding::Blocks(BlockType::Q8_0);

fn view(strides: &[usize]) -> View {
    View {
        offset: Dim::from(0),
        strides: dims(strides),
    }
}

/// `out = (a or silu(a)) w^T + bias` with `w` in blocks.
fn linear([m, n, k]: [usize; 3], left: DType, computed: bool) -> Kernel {
    let mut e = BodyBuilder::new();
    let sum = e.push(Inst::Input);
    let bias = e.load(Arg(2), view(&[0, 0, 1]));
    let y = e.binary(Binary::Add, sum, bias);
    e.store(Arg(3), view(&[0, n, 1]), y);
    let mut silu = BodyBuilder::new();
    let x = silu.load(Arg(0), view(&[0, k, 1]));
    let x = silu.unary(Unary::Silu, x);
    silu.push(Inst::Yield(x));
    let operand = |arg| Operand {
        arg: Arg(arg),
        view: view(&[0, k, 1]),
    };
    Kernel::Matmul(Matmul {
        batch: Dim::from(1),
        m: Dim::from(m),
        n: Dim::from(n),
        k: Dim::from(k),
        args: vec![left.into(), Q8, DType::F32.into(), left.into()],
        a: match computed {
            false => operand(0).into(),
            true => Left::Computed {
                dtype: left,
                body: silu.finish(),
            },
        },
        b: operand(1),
        ranged: true,
        epilogue: e.finish(),
    })
}

fn linear_args([m, n, k]: [usize; 3], left: DType) -> Vec<Buffer> {
    vec![
        Buffer::random(left, m * k, 1),
        Buffer::random(Q8, n * k, 2),
        Buffer::random(DType::F32, n, 3),
        Buffer::zeros(left, m * n),
    ]
}

/// `out[row] = 2 table[ids[row]]` with the table in blocks.
fn gather(rows: usize, cols: usize, entries: usize) -> Kernel {
    let mut body = BodyBuilder::new();
    let x = body.push(Inst::Input);
    let two = body.push(Inst::F32(2.0));
    let y = body.binary(Binary::Mul, x, two);
    body.store(Arg(2), view(&[cols, 1]), y);
    Kernel::Gather(Gather {
        rows: Dim::from(rows),
        cols,
        entries,
        args: vec![DType::U32.into(), Q8, DType::F32.into()],
        ids: Operand {
            arg: Arg(0),
            view: view(&[1]),
        },
        table: Arg(1),
        body: body.finish(),
    })
}

#[test]
fn products_equal_the_reference_on_both_back_ends() {
    for (m, n, k) in [
        (1, 70, 96),
        (2, 64, 32),
        (5, 130, 160),
        (8, 33, 4096),
        (9, 66, 96),
        (70, 65, 64),
    ] {
        for left in [DType::F32, DType::BF16] {
            for computed in [false, true] {
                // What a block computes is at most 8 rows in 32 KiB.
                if computed && (m > 8 || m * k * left.size() > 32 << 10) {
                    continue;
                }
                let kernel = linear([m, n, k], left, computed);
                let args = linear_args([m, n, k], left);
                let ours = distance(&kernel, &Env::default(), &args);
                let host = reference::compare(&kernel, &Env::default(), &args);
                // Of many rows of f32 the host takes 16 bits, 2^8 times as coarse as f32.
                let most = if m > 8 && left == DType::F32 {
                    512.0
                } else {
                    20.0
                };
                assert!(
                    ours <= 20.0 && host <= most,
                    "{m} {n} {k} {left}: {ours}, {host}"
                );
            }
        }
    }
}

#[test]
fn gathers_equal_the_reference_on_both_back_ends() {
    for (rows, cols, entries) in [(3, 96, 20), (1, 32, 1), (5, 1056, 7)] {
        let args = vec![
            Buffer::new(
                DType::U32,
                (0..rows).map(|i| ((i * 7 + 3) % entries) as f64),
            ),
            Buffer::random(Q8, entries * cols, 2),
            Buffer::zeros(DType::F32, rows * cols),
        ];
        let kernel = gather(rows, cols, entries);
        let ours = distance(&kernel, &Env::default(), &args);
        let host = reference::compare(&kernel, &Env::default(), &args);
        assert!(ours == 0.0 && host == 0.0, "{rows} {cols}: {ours}, {host}");
    }
}

#[test]
fn any_cut_into_panels_gives_the_same_bits() {
    let (n, k) = (64 * 3 + 5, 96);
    for m in [1, 8, 9] {
        let (kernel, args) = (
            linear([m, n, k], DType::F32, false),
            linear_args([m, n, k], DType::F32),
        );
        for e in emitted(&kernel) {
            let pieces = |cuts: &[(Range<usize>, usize)]| {
                let mut given = args.clone();
                for (i, rows) in cuts.iter().enumerate() {
                    launch(
                        &kernel,
                        &e,
                        &Env::default(),
                        std::slice::from_ref(rows),
                        i as u64,
                        &mut given,
                    );
                }
                given[3].bytes.clone()
            };
            let whole = pieces(&[(0..n, n)]);
            assert!(
                pieces(&[(0..64, 64), (64..192, 64), (192..n, 64)]) == whole,
                "{m}"
            );
            assert!(pieces(&[(0..n, 128)]) == whole, "{m}");
        }
    }
}

#[test]
fn what_cannot_be_read_in_blocks_is_refused() {
    let Kernel::Matmul(product) = linear([1, 64, 96], DType::F32, false) else {
        unreachable!("a product");
    };
    let refused = |product: Matmul, what: &str| {
        let error = Kernel::Matmul(product).check().unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    };
    let k = Dim::from(100);
    let mut b = product.b.clone();
    b.view.strides[1] = k.clone();
    refused(
        Matmul {
            k,
            b,
            ..product.clone()
        },
        "rows of Some(100) values in q8_0",
    );
    let ranged = false;
    refused(
        Matmul {
            ranged,
            ..product.clone()
        },
        "not a weight's",
    );
    let args = vec![Q8, Q8, DType::F32.into(), DType::F32.into()];
    refused(Matmul { args, ..product }, "a0 is q8_0");
    let Kernel::Gather(mut one) = gather(1, 96, 4) else {
        unreachable!("a gather");
    };
    one.cols = 90;
    assert!(Kernel::Gather(one).check().is_err());
}
