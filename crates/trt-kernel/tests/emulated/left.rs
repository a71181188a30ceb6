//! Products that compute their left operand in shared memory.

use super::*;

/// What the left operand is, over arguments `x` (0) and `g` (1).
#[derive(Clone, Copy, Debug)]
pub enum What {
    /// Two folds, one after the other.
    LayerNorm,
    RmsNorm,
    /// No fold.
    Silu,
}

/// `out = what(x, g) w^T + out`, over arguments `x`, `g`, `w`, `out`.
pub fn product(what: What, [m, n, k]: [usize; 3], left: DType, weight: DType) -> Matmul {
    let view = |strides: [usize; 3]| View {
        offset: Dim::from(0),
        strides: dims(&strides),
    };
    let mut b = BodyBuilder::new();
    let x = b.load(Arg(0), view([0, k, 1]));
    let share = b.push(Inst::F32(1.0 / k as f32));
    let mean = |b: &mut BodyBuilder, x| {
        let sum = b.push(Inst::Reduce(Reduce::Sum, x));
        b.binary(Binary::Mul, sum, share)
    };
    let y = match what {
        What::Silu => b.unary(Unary::Silu, x),
        What::RmsNorm | What::LayerNorm => {
            let mut x = x;
            if let What::LayerNorm = what {
                let middle = mean(&mut b, x);
                x = b.binary(Binary::Sub, x, middle);
            }
            let square = b.unary(Unary::Sqr, x);
            let square = mean(&mut b, square);
            let root = b.unary(Unary::Sqrt, square);
            b.binary(Binary::Div, x, root)
        }
    };
    let g = b.load(Arg(1), view([0, 0, 1]));
    let y = b.binary(Binary::Mul, y, g);
    b.push(Inst::Yield(y));
    let mut e = BodyBuilder::new();
    let sum = e.push(Inst::Input);
    let old = e.load(Arg(3), view([0, n, 1]));
    let y = e.binary(Binary::Add, sum, old);
    e.store(Arg(3), view([0, n, 1]), y);
    Matmul {
        batch: Dim::from(1),
        m: Dim::from(m),
        n: Dim::from(n),
        k: Dim::from(k),
        args: Encoding::plain([left, DType::F32, weight, left]),
        a: Left::Computed {
            dtype: left,
            body: b.finish(),
        },
        b: Operand {
            arg: Arg(2),
            view: view([0, k, 1]),
        },
        ranged: true,
        epilogue: e.finish(),
    }
}

pub fn args([m, n, k]: [usize; 3], left: DType, weight: DType) -> Vec<Buffer> {
    vec![
        Buffer::random(left, m * k, 1),
        Buffer::random(DType::F32, k, 2),
        Buffer::random(weight, n * k, 3),
        Buffer::random(left, m * n, 4),
    ]
}

const CASES: [(What, [usize; 3], DType, DType); 9] = [
    (What::RmsNorm, [1, 70, 576], DType::BF16, DType::BF16),
    (What::RmsNorm, [1, 20, 4096], DType::BF16, DType::BF16),
    (What::RmsNorm, [3, 66, 576], DType::F16, DType::F16),
    (What::LayerNorm, [8, 40, 576], DType::BF16, DType::BF16),
    (What::LayerNorm, [1, 65, 96], DType::F32, DType::F32),
    (What::LayerNorm, [3, 24, 2048], DType::F32, DType::BF16),
    (What::RmsNorm, [8, 13, 1024], DType::F32, DType::F32),
    (What::Silu, [1, 130, 200], DType::BF16, DType::F32),
    (What::Silu, [5, 64, 264], DType::F16, DType::F16),
];

#[test]
fn computed_left_operands_equal_the_reference() {
    for (what, shape, left, weight) in CASES {
        let kernel = Kernel::Matmul(product(what, shape, left, weight));
        let d = distance(&kernel, &Env::default(), &args(shape, left, weight));
        assert!(d <= 12.0, "{what:?} {shape:?} {left} {weight}: {d}");
    }
}

#[test]
fn rows_and_tiles_glue_to_the_whole_launch_bit_for_bit() {
    for (what, [m, _, k], left, weight) in CASES {
        let shape = [m, 150, k.min(600)];
        let kernel = Kernel::Matmul(product(what, shape, left, weight));
        let given = args(shape, left, weight);
        for e in emitted(&kernel) {
            let run = |launches: &[(Range<usize>, usize)]| {
                let mut args = given.clone();
                for rows in launches {
                    let rows = std::slice::from_ref(rows);
                    launch(&kernel, &e, &Env::default(), rows, 3, &mut args);
                }
                args.pop().map(|out| out.bytes)
            };
            let whole = run(&[(0..150, 150)]);
            let cut = run(&[(0..64, 64), (64..150, 64)]);
            assert!(whole == cut, "{what:?} {shape:?} {left} {}", e.target);
        }
    }
}

#[test]
fn a_group_computes_the_operand_for_each_part() {
    for (m, k, dtype) in [(1, 576, DType::BF16), (3, 264, DType::F32)] {
        let widths = [130, 64, 66];
        let parts = widths.map(|n| Kernel::Matmul(product(What::RmsNorm, [m, n, k], dtype, dtype)));
        let kernel = Kernel::Group(Group {
            parts: parts.to_vec(),
            order: Order::Side,
        });
        let given = widths.map(|n| args([m, n, k], dtype, dtype)).concat();
        let d = distance(&kernel, &Env::default(), &given);
        assert!(d <= 12.0, "{m} {k} {dtype}: {d}");
    }
}

#[test]
fn an_operand_of_too_many_rows_or_bytes_has_no_text() {
    let refused = |shape| {
        let kernel = product(What::RmsNorm, shape, DType::F32, DType::BF16);
        assert!(!fusible::computes_left(&kernel), "{shape:?}");
        let error = ptx::emit(&Kernel::Matmul(kernel), Target::Sm80).unwrap_err();
        assert!(
            error.to_string().contains("computed left operand"),
            "{error}"
        );
    };
    refused([9, 64, 64]);
    refused([3, 64, 4096]);
    refused([1, 64, 100]);
}

#[test]
fn the_weight_of_a_norm_is_sent_for_before_the_wait() {
    let product = product(What::RmsNorm, [1, 70, 576], DType::BF16, DType::BF16);
    let emitted = ptx::emit(&Kernel::Matmul(product), Target::Sm90).expect("a kernel");
    let (ahead, _) = (emitted.text.split_once("griddepcontrol.wait")).expect("it waits");
    // 2304 bytes are 18 lines, one for each of as many threads.
    assert_eq!(ahead.matches("prefetch.global.L2").count(), 1, "{ahead}");
    assert!(ahead.contains(", 18;"), "{ahead}");
}
