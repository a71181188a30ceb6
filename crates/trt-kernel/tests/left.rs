//! Products that compute their left operand, on the host.

mod reference;

use reference::{Buffer, compare, host};
use trt_kernel::host::{Prepared, Span, Team};
use trt_kernel::*;

fn view(strides: [usize; 3]) -> View {
    View {
        offset: Dim::from(0),
        strides: strides.map(Dim::from).to_vec(),
    }
}

/// `out = (x / |x|) w^T` over arguments `x`, `w`, `out`, the left operand rounded to `dtype`.
fn normed([m, n, k]: [usize; 3], dtype: DType) -> Matmul {
    let mut b = BodyBuilder::new();
    let x = b.load(Arg(0), view([0, k, 1]));
    let square = b.unary(Unary::Sqr, x);
    let sum = b.push(Inst::Reduce(Reduce::Sum, square));
    let root = b.unary(Unary::Sqrt, sum);
    let y = b.binary(Binary::Div, x, root);
    b.push(Inst::Yield(y));
    let mut e = BodyBuilder::new();
    let sum = e.push(Inst::Input);
    e.store(Arg(2), view([0, n, 1]), sum);
    Matmul {
        batch: Dim::from(1),
        m: Dim::from(m),
        n: Dim::from(n),
        k: Dim::from(k),
        args: Encoding::plain([DType::F32, dtype, DType::F32]),
        a: Left::Computed {
            dtype,
            body: b.finish(),
        },
        b: Operand {
            arg: Arg(1),
            view: view([0, k, 1]),
        },
        ranged: true,
        epilogue: e.finish(),
    }
}

fn args([m, n, k]: [usize; 3], dtype: DType) -> Vec<Buffer> {
    vec![
        Buffer::random(DType::F32, m * k, 1),
        Buffer::random(dtype, n * k, 2),
        Buffer::zeros(DType::F32, m * n),
    ]
}

const SHAPES: [[usize; 3]; 4] = [[1, 130, 576], [3, 64, 33], [8, 70, 4096], [20, 100, 96]];

#[test]
fn a_computed_operand_equals_the_reference() {
    for shape in SHAPES {
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let kernel = Kernel::Matmul(normed(shape, dtype));
            let d = compare(&kernel, &Env::default(), &args(shape, dtype));
            // The reference rounds what it computed in f64, so some elements round otherwise.
            let allowed = if dtype == DType::F32 { 20.0 } else { 4000.0 };
            assert!(d <= allowed, "{shape:?} {dtype}: {d}");
        }
    }
}

#[test]
fn it_gives_the_bits_of_the_two_kernels_that_it_stands_for() {
    for shape in SHAPES {
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let product = normed(shape, dtype);
            let (row, plain) = product.split().unwrap();
            let mut fused = args(shape, dtype);
            let mut apart = fused.clone();
            apart.push(Buffer::zeros(dtype, shape[0] * shape[2]));
            let env = Env::default();
            host(&Kernel::Matmul(product), &env, None, &mut fused).unwrap();
            host(&Kernel::Row(row), &env, None, &mut apart).unwrap();
            host(&Kernel::Matmul(plain), &env, None, &mut apart).unwrap();
            assert!(fused[2] == apart[2], "{shape:?} {dtype}");
        }
    }
}

#[test]
fn ranges_of_rows_glue_to_the_whole_launch_bit_for_bit() {
    let (shape, dtype) = ([1, 130, 576], DType::BF16);
    let prepared = Prepared::new(&Kernel::Matmul(normed(shape, dtype))).unwrap();
    let given = args(shape, dtype);
    let run = |ranges: &[std::ops::Range<usize>]| {
        let mut out = given[2].bytes.clone();
        for rows in ranges {
            let weight = rows.start * 576 * 2..rows.end * 576 * 2;
            let mut spans = [
                Span::from_slice(&given[0].bytes),
                Span::from_slice(&given[1].bytes[weight]),
                Span::from_mut(&mut out),
            ];
            let rows = Some(rows.clone());
            // SAFETY: each element of a product or an attention is written once, and nowhere read.
            unsafe {
                prepared
                    .run(&Env::default(), rows, &mut spans, &Team::new(2))
                    .unwrap()
            };
        }
        out
    };
    let whole = run(std::slice::from_ref(&(0..130)));
    assert!(run(&[0..64, 64..128, 128..130]) == whole);
}

#[test]
fn an_operand_that_stores_or_yields_nothing_is_refused() {
    let refused = |change: fn(&mut Body)| {
        let mut product = normed([1, 8, 8], DType::F32);
        if let Left::Computed { body, .. } = &mut product.a {
            change(body);
        }
        assert!(Kernel::Matmul(product).check().is_err());
    };
    refused(|body| drop(body.insts.pop()));
    refused(|body| {
        body.insts
            .push(Inst::Store(Arg(2), view([0, 0, 1]), Reg(0)))
    });
    refused(|body| body.insts.push(Inst::Input));
    // A weight that is launched by rows starts elsewhere in each launch.
    refused(|body| body.insts.push(Inst::Load(Arg(1), view([0, 0, 1]))));
}
