//! Products by packed rows give the bits of products by the same rows as they are.

use crate::reference::packed::packed_args;
use crate::reference::units::{packed_kernel, packed_rows, units_of};
use crate::reference::{Buffer, compare, host};
use crate::{dims, linear, linear_args};
use trt_kernel::host::{HostError, Prepared, Span, Team};
use trt_kernel::*;

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
                let found = run(
                    &packed_kernel(&kernel, form),
                    &units,
                    Some(&code),
                    [m, k, n],
                );
                assert!(found.unwrap() == plain, "{m} {n} {k} {form:?}");
            }
        }
    }
}

#[test]
fn units_that_are_not_there_are_errors() {
    let (m, n, k) = (2, 700, 1024);
    let (form, units, code) = packed_rows(DType::BF16, &rows(n, k), k);
    let kernel = packed_kernel(&linear(m, n, k, DType::BF16, DType::BF16), form);
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
    assert!(matches!(short, Err(HostError::OutOfBounds { arg: 4, .. })));
    let mut damaged = units.clone();
    damaged[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    let damaged = run(&kernel, &damaged, Some(&code), [m, k, n]);
    assert!(matches!(damaged, Err(HostError::Packed { unit: 0, .. })));
}

/// Both by plain rows and by packed ones, which is to give the same bits.
fn alike(kernel: &Kernel, args: &[Buffer], form: PackedType) {
    let (packed, mut ours) = (packed_kernel(kernel, form), packed_args(kernel, args, form));
    packed.check().unwrap();
    let mut wanted = args.to_vec();
    host(kernel, &Env::default(), None, &mut wanted).unwrap();
    host(&packed, &Env::default(), None, &mut ours).unwrap();
    let written = |k: &Kernel, args: &[Buffer]| -> Vec<Vec<u8>> {
        let all = k.written().into_iter();
        all.map(|arg| args[arg.0 as usize].bytes.clone()).collect()
    };
    assert!(
        written(&packed, &ours) == written(kernel, &wanted),
        "{packed}"
    );
}

#[test]
fn every_form_of_packing_equals_the_reference() {
    for form in PackedType::ALL {
        for [m, n, k] in [[1, 70, 576], [9, 64, 1024], [3, 40, 8]] {
            let plain = linear(m, n, k, form.dtype(), DType::F32);
            let args = linear_args(m, n, k, form.dtype(), DType::F32);
            alike(&plain, &args, form);
            let (packed, args) = (
                packed_kernel(&plain, form),
                packed_args(&plain, &args, form),
            );
            let far = compare(&packed, &Env::default(), &args);
            assert!(far <= 10.0, "{form:?} {m} {n} {k}: {far}");
        }
    }
}

#[test]
fn ranges_of_units_have_the_bits_of_the_whole() {
    // Units of 128 rows, the last of 44.
    let (n, k, form) = (300, 4096, PackedType::Bf16Pairs);
    for m in [1, 8, 20] {
        let plain = linear(m, n, k, DType::BF16, DType::BF16);
        let args = linear_args(m, n, k, DType::BF16, DType::BF16);
        let (kernel, given) = (
            packed_kernel(&plain, form),
            packed_args(&plain, &args, form),
        );
        let mut whole = given.clone();
        host(&kernel, &Env::default(), None, &mut whole).unwrap();
        let mut found = given.clone();
        for (rows, units) in [(128..256, 1..2), (256..300, 2..3), (0..128, 0..1)] {
            let bytes = units_of(&given[4].bytes, units);
            found[1].bytes = given[1].bytes[bytes].to_vec();
            host(&kernel, &Env::default(), Some(rows), &mut found).unwrap();
        }
        assert!(found[3].bytes == whole[3].bytes, "{m}");
        let inside = host(&kernel, &Env::default(), Some(64..128), &mut found);
        assert!(matches!(inside, Err(HostError::Rows { start: 64, .. })));
    }
}

#[test]
fn groups_chains_and_prologues_have_the_bits_of_plain_rows() {
    let form = PackedType::F16Singles;
    let parts = [1, 2].map(|seed| {
        let (n, k) = (64 * seed, 1032);
        (
            linear(3, n, k, DType::F16, DType::F32),
            linear_args(3, n, k, DType::F16, DType::F32),
        )
    });
    let args: Vec<Buffer> = parts.iter().flat_map(|(_, args)| args.clone()).collect();
    let group = Kernel::Group(Group {
        parts: parts.map(|(kernel, _)| kernel).to_vec(),
        order: Order::Side,
    });
    alike(&group, &args, form);
    let part = linear(1, 192, 576, DType::F16, DType::F32);
    let own = linear_args(1, 192, 576, DType::F16, DType::F32);
    let chain = Kernel::Group(Group {
        parts: vec![part.clone(), part],
        order: Order::Chain,
    });
    alike(&chain, &[own.clone(), own].concat(), form);
    let prologue = computed(5, 200, 576);
    let args = linear_args(5, 200, 576, DType::F16, DType::F32);
    alike(&prologue, &args, form);
}

/// As [`linear`] with the left operand squared.
fn computed(m: usize, n: usize, k: usize) -> Kernel {
    let Kernel::Matmul(mut product) = linear(m, n, k, DType::F16, DType::F32) else {
        panic!("a product");
    };
    let mut b = BodyBuilder::new();
    let x = b.load(Arg(0), View::contiguous(&dims(&[1, m, k])));
    let x = b.unary(Unary::Sqr, x);
    b.push(Inst::Yield(x));
    product.a = Left::Computed {
        dtype: DType::F16,
        body: b.finish(),
    };
    Kernel::Matmul(product)
}

#[test]
fn damaged_units_give_values_or_an_error_and_read_nothing_else() {
    let (m, n, k, form) = (2, 200, 1032, PackedType::Bf16Pairs);
    let plain = linear(m, n, k, DType::BF16, DType::BF16);
    let args = linear_args(m, n, k, DType::BF16, DType::BF16);
    let (kernel, given) = (
        packed_kernel(&plain, form),
        packed_args(&plain, &args, form),
    );
    let mut random = fastrand::Rng::with_seed(11);
    let mut errors = 0;
    for round in 0..200 {
        let mut damaged = given.clone();
        let arg = if round % 4 == 0 { 4 } else { 1 };
        let bytes = &mut damaged[arg].bytes;
        // Most of what is first are places of blocks.
        let end = if round % 2 == 0 { 128 } else { bytes.len() };
        for _ in 0..random.usize(1..20) {
            let at = random.usize(0..end);
            bytes[at] = random.u8(..);
        }
        let cut = random.usize(0..64).saturating_sub(48);
        bytes.truncate(bytes.len() - cut);
        match host(&kernel, &Env::default(), None, &mut damaged) {
            Ok(()) => {}
            Err(HostError::Packed { .. } | HostError::OutOfBounds { .. }) => errors += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!((20..180).contains(&errors), "{errors}");
}

#[test]
fn what_unpacks_a_weight_has_its_length_from_the_weight() {
    let (m, n, k) = (1, 300, 4096);
    let plain = linear(m, n, k, DType::BF16, DType::BF16);
    let args = linear_args(m, n, k, DType::BF16, DType::BF16);
    let form = PackedType::Bf16Pairs;
    let (kernel, mut given) = (
        packed_kernel(&plain, form),
        packed_args(&plain, &args, form),
    );
    // A table, and places of three units.
    assert_eq!(given[4].bytes.len(), 16384 + 16);
    given[4].bytes.truncate(16384 + 12);
    let wrong = host(&kernel, &Env::default(), None, &mut given).unwrap_err();
    let told = matches!(
        wrong,
        HostError::OutOfBounds {
            arg: 4,
            last: 4099,
            bytes: 16396,
            ..
        }
    );
    assert!(told, "{wrong}");
}

#[test]
fn packed_rows_are_read_by_products_alone_and_with_what_unpacks_them() {
    let plain = linear(1, 64, 64, DType::BF16, DType::F32);
    let Kernel::Matmul(right) = packed_kernel(&plain, PackedType::Bf16Pairs) else {
        panic!("a product");
    };
    let refused = |change: &dyn Fn(&mut Matmul), says: &str| {
        let mut wrong = right.clone();
        change(&mut wrong);
        let error = Kernel::Matmul(wrong).check().unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    };
    refused(
        &|k| k.args[4] = DType::U32.into(),
        "0 arguments that unpack a1",
    );
    refused(
        &|k| k.args.push(Encoding::Code),
        "2 arguments that unpack a1",
    );
    refused(
        &|k| k.args[1] = DType::BF16.into(),
        "1 arguments that unpack a1",
    );
    refused(
        &|k| k.args[2] = PackedType::F16Pairs.into(),
        "a2 is f16-packed",
    );
    refused(
        &|k| k.a = crate::strided(1, [64, 64, 1]).into(),
        "a1 is also used otherwise",
    );
    refused(
        &|k| k.a = crate::strided(4, [64, 64, 1]).into(),
        "a4 is also used otherwise",
    );
    refused(&|k| k.n = Dim::var(Var(0)), "rows of bf16-packed");
    let odd = |k: &mut Matmul| {
        k.k = Dim::from(60);
        k.b.view.strides[1] = Dim::from(60);
    };
    refused(&odd, "rows of Some(60) values in bf16-packed");
    refused(&|k| k.ranged = false, "not a weight's");
    let ids = Operand {
        arg: Arg(2),
        view: View {
            offset: Dim::from(0),
            strides: vec![Dim::from(1)],
        },
    };
    let routed = Kernel::Routed(Routed {
        product: right.clone(),
        ids,
        first: 0,
    });
    let error = routed.check().unwrap_err().to_string();
    assert!(error.contains("experts of bf16-packed"), "{error}");
}
