//! Blocks of products that only wide results take: some rows of a weight of many.

use super::*;

/// Rows of the weight: enough that 65 rows of `a` are worth large blocks.
const N: usize = 12_804;

/// `out = a w^T`.
pub fn product(m: usize, n: usize, k: usize, dtype: DType) -> Kernel {
    let mut e = BodyBuilder::new();
    let sum = e.push(Inst::Input);
    let space = dims(&[1, m, n]);
    e.store(Arg(2), View::contiguous(&space), sum);
    let operand = |arg: u16, strides: [usize; 3]| Operand {
        arg: Arg(arg),
        view: View {
            offset: Dim::from(0),
            strides: dims(&strides),
        },
    };
    Kernel::Matmul(Matmul {
        batch: Dim::from(1),
        m: Dim::from(m),
        n: Dim::from(n),
        k: Dim::from(k),
        args: Encoding::plain([dtype, dtype, DType::F32]),
        a: operand(0, [m * k, k, 1]).into(),
        b: operand(1, [0, k, 1]),
        ranged: true,
        epilogue: e.finish(),
    })
}

/// Runs some rows of the wide weight and compares them with the reference; the largest distance.
pub fn distance_of_rows(
    entry: &str,
    target: Target,
    [m, all, k]: [usize; 3],
    dtype: DType,
    rows: Range<usize>,
    step: usize,
) -> f64 {
    let kernel = product(m, all, k, dtype);
    let emitted = ptx::emit(&kernel, target).unwrap();
    assert_eq!(emitted.launches[0].entry, entry);
    let a = Buffer::random(dtype, m * k, 1);
    let weight = Buffer::random(dtype, rows.len() * k, 2);
    let mut whole = Buffer::zeros(dtype, all * k);
    let start = rows.start * k * dtype.size();
    whole.bytes[start..start + weight.bytes.len()].copy_from_slice(&weight.bytes);
    let mut ours = [a.clone(), whole, Buffer::zeros(DType::F32, m * all)];
    let (env, part) = (Env::default(), [(rows.clone(), step)]);
    launch(&kernel, &emitted, &env, &part, 1, &mut ours);

    let n = rows.len();
    let mut exact = [a, weight, Buffer::zeros(DType::F32, m * n)];
    reference::run(&product(m, n, k, dtype), &env, &mut exact);
    let at = |i: usize| (i / n * all + rows.start + i % n) as i64;
    let values = (0..m * n).map(|i| ours[2].get(at(i)));
    Buffer::new(DType::F32, values).distance(&exact[2])
}

#[test]
fn large_blocks_equal_the_reference() {
    for (m, k, dtype) in [(70, 264, DType::BF16), (129, 72, DType::F16)] {
        let rows = 12_672..N;
        let d = distance_of_rows("mma128x128", Target::Sm80, [m, N, k], dtype, rows, 64);
        assert!(d <= 20.0, "{m} {k} {dtype}: {d}");
    }
}

#[test]
fn blocks_of_warp_groups_equal_the_reference() {
    let (narrow, wide) = ("wgmma128x128", "wgmma128x256");
    for (entry, m, k, dtype) in [
        (narrow, 70, 584, DType::BF16),
        (narrow, 128, 8, DType::F16),
        (wide, 130, 328, DType::BF16),
        (wide, 129, 128, DType::F16),
    ] {
        let rows = 12_672..N;
        let d = distance_of_rows(entry, Target::Sm90a, [m, N, k], dtype, rows, 64);
        assert!(d <= 20.0, "{entry} {m} {k} {dtype}: {d}");
    }
}
