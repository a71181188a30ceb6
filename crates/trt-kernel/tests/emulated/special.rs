//! Functions at the edges of their arguments: the device gives what the host gives.

use super::row::{row, view};
use super::*;

/// What the host gives for values at the edges, the device gives as well.
#[test]
fn functions_of_special_values_equal_the_host() {
    use Unary::*;
    let values = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        -0.5,
        1.5,
        2.5,
        -2.5,
        1e-40,
        -1e-40,
        3e38,
        -3e38,
        88.0,
        89.5,
        -87.5,
        -103.0,
        -105.0,
        1e6,
        12_345.678,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
    ];
    let n = values.len();
    for f in [
        Neg, Abs, Exp, Log, Sin, Cos, Tanh, Sqr, Sqrt, Recip, Erf, Relu, Silu, Gelu, GeluErf,
        Sigmoid, Floor, Ceil, Round, Sign,
    ] {
        let whole = View::contiguous(&dims(&[n]));
        let mut b = BodyBuilder::new();
        let x = b.load(Arg(0), whole.clone());
        let y = b.unary(f, x);
        b.store(Arg(1), whole.clone(), y);
        let truth = b.push(Inst::Cast(y, Ty::Bool));
        b.store(Arg(2), whole.clone(), truth);
        let integer = b.push(Inst::Cast(x, Ty::I64));
        b.store(Arg(3), whole, integer);
        let dtypes = [DType::F32, DType::F32, DType::U8, DType::I64];
        let kernel = row(dims(&[n]), &dtypes, b);
        let mut host: Vec<Buffer> = dtypes.iter().map(|d| Buffer::zeros(*d, n)).collect();
        host[0] = Buffer::new(DType::F32, values.iter().map(|v| f64::from(*v)));
        let given = host.clone();
        reference::host(&kernel, &Env::default(), None, &mut host).unwrap();
        for e in emitted(&kernel) {
            let mut ours = given.clone();
            launch(&kernel, &e, &Env::default(), &[], 0, &mut ours);
            for i in 0..n as i64 {
                let (a, b) = (ours[1].get(i), host[1].get(i));
                let near = (a - b).abs() <= 3e-6 * b.abs() + 1e-44;
                let same = a == b || near || a.is_nan() && b.is_nan();
                assert!(
                    same,
                    "{f:?}({:?}) = {a}, the host says {b}",
                    values[i as usize]
                );
            }
            assert_eq!(ours[2].values(), host[2].values(), "{f:?} as truths");
            assert_eq!(ours[3].values(), host[3].values(), "{f:?} as integers");
        }
    }
}

#[test]
fn functions_of_two_special_values_equal_the_host() {
    use Binary::*;
    let values = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        -2.0,
        3.0,
        -3.0,
        1e-40,
        3e38,
        -3e38,
        16_777_217.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
    ];
    let n = values.len();
    for f in [Add, Sub, Mul, Div, Maximum, Minimum, Pow] {
        let mut b = BodyBuilder::new();
        let x = b.load(Arg(0), view(0, &[1, 0]));
        let y = b.load(Arg(0), view(0, &[0, 1]));
        let z = b.binary(f, x, y);
        let whole = View::contiguous(&dims(&[n, n]));
        b.store(Arg(1), whole.clone(), z);
        for (i, c) in [
            Compare::Eq,
            Compare::Ne,
            Compare::Lt,
            Compare::Le,
            Compare::Gt,
            Compare::Ge,
        ]
        .into_iter()
        .enumerate()
        {
            let c = b.push(Inst::Compare(c, x, y));
            b.store(Arg(2 + i as u16), whole.clone(), c);
        }
        let mut dtypes = vec![DType::F32; 2];
        dtypes.extend([DType::U8; 6]);
        let kernel = row(dims(&[n, n]), &dtypes, b);
        let mut host: Vec<Buffer> = dtypes.iter().map(|d| Buffer::zeros(*d, n * n)).collect();
        host[0] = Buffer::new(DType::F32, values.iter().map(|v| f64::from(*v)));
        let given = host.clone();
        reference::host(&kernel, &Env::default(), None, &mut host).unwrap();
        for e in emitted(&kernel) {
            let mut ours = given.clone();
            launch(&kernel, &e, &Env::default(), &[], 0, &mut ours);
            for i in 0..n * n {
                let (a, b) = (ours[1].get(i as i64), host[1].get(i as i64));
                let same = a == b || (a - b).abs() <= 3e-6 * b.abs() || a.is_nan() && b.is_nan();
                let (x, y) = (values[i / n], values[i % n]);
                assert!(same, "{f:?}({x:?}, {y:?}) = {a}, the host says {b}");
            }
            assert_eq!(ours[2..], host[2..], "{f:?}");
        }
    }
}
