//! Products by packed rows give the bits of products by the same rows as they are.

use crate::linear;
use crate::reference::Buffer;
use crate::reference::packed::packed_rows;
use trt_kernel::host::{HostError, Prepared, Span, Team};
use trt_kernel::*;

/// The product with its right operand packed.
fn packed(kernel: &Kernel, packed: PackedType) -> Kernel {
    let Kernel::Matmul(mut k) = kernel.clone() else {
        panic!("a product");
    };
    k.args[k.b.arg.0 as usize] = Encoding::Packed(packed);
    k.args.push(Encoding::Code);
    Kernel::Matmul(k)
}

/// Values of all kinds: normal ones, and everything that 16 bits can say.
fn rows(n: usize, k: usize) -> Vec<u16> {
    let mut random = fastrand::Rng::with_seed((n * k) as u64);
    let mut next = |i: usize| match i % 97 {
        0 => random.u16(..),
        _ => (0x3c00 + random.u16(..) % 0x400) | (random.u16(..) & 0x8000),
    };
    (0..n * k).map(&mut next).collect()
}

fn run(
    kernel: &Kernel,
    right: &[u8],
    code: Option<&[u8]>,
    rows: [usize; 3],
) -> Result<Vec<u8>, HostError> {
    let [m, k, n] = rows;
    let team = Team::new(3);
    let left = Buffer::random(DType::BF16, m * k, 1);
    let bias = Buffer::random(DType::F32, n, 3);
    let mut out = vec![0u8; 2 * m * n];
    let mut spans = vec![
        Span::from_slice(&left.bytes),
        Span::from_slice(right),
        Span::from_slice(&bias.bytes),
        Span::from_mut(&mut out),
    ];
    spans.extend(code.map(Span::from_slice));
    // SAFETY: each element of a product is written once, and nowhere read.
    unsafe { Prepared::new(kernel)?.run(&Env::default(), None, &mut spans, &team)? };
    drop(spans);
    Ok(out)
}

#[test]
fn packed_rows_give_the_bits_of_plain_ones() {
    for dtype in [DType::BF16, DType::F16] {
        for (n, k) in [(70, 64), (130, 576), (200, 1032), (64, 4096), (300, 5128)] {
            let values = rows(n, k);
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            let (form, units, code) = packed_rows(dtype, &values, k);
            for m in [1, 3, 8, 9, 70] {
                let kernel = linear(m, n, k, dtype, DType::BF16);
                let plain = run(&kernel, &bytes, None, [m, k, n]).unwrap();
                let found = run(&packed(&kernel, form), &units, Some(&code), [m, k, n]);
                assert!(found.unwrap() == plain, "{m} {n} {k} {form:?}");
            }
        }
    }
}

#[test]
fn units_that_are_not_there_are_errors() {
    let (m, n, k) = (2, 700, 1024);
    let (form, units, code) = packed_rows(DType::BF16, &rows(n, k), k);
    let kernel = packed(&linear(m, n, k, DType::BF16, DType::BF16), form);
    let cut = run(&kernel, &units[..units.len() - 16], Some(&code), [m, k, n]);
    let unit = |error: &HostError| {
        matches!(
            error,
            HostError::Packed {
                arg: 1,
                unit: 1,
                ..
            }
        )
    };
    assert!(cut.is_err_and(|e| unit(&e)));
    let short = run(&kernel, &units, Some(&code[..1024]), [m, k, n]);
    assert!(matches!(short, Err(HostError::Packed { arg: 4, .. })));
    let mut damaged = units.clone();
    damaged[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    let damaged = run(&kernel, &damaged, Some(&code), [m, k, n]);
    assert!(matches!(damaged, Err(HostError::Packed { unit: 0, .. })));
}
