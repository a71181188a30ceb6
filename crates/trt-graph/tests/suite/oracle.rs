//! Candle as the oracle of what is mirrored, on constants.
//!
//! A case is written once and expanded twice: over candle's tensors and over symbolic ones, whose
//! elements the reference evaluates. Results must agree in shape, dtype and elements, and where
//! candle returns an error, so must the mirror.

use crate::support::noise;
use trt_kernel::DType as Kernel;

/// What a case gave: dims, dtype and elements, or that it failed.
pub type Outcome = Option<(Vec<usize>, String, Vec<f64>)>;

pub fn data(name: &str, dims: &[usize]) -> Vec<f32> {
    let n = dims.iter().product();
    noise(name, n, Kernel::F32)
        .into_iter()
        .map(|v| v as f32)
        .collect()
}

pub fn candle_outcome(r: candle_core::Result<candle_core::Tensor>) -> Outcome {
    let t = r.ok()?;
    let flat = t
        .flatten_all()
        .ok()?
        .to_dtype(candle_core::DType::F64)
        .ok()?;
    Some((
        t.dims().to_vec(),
        format!("{:?}", t.dtype()),
        flat.to_vec1::<f64>().ok()?,
    ))
}

pub fn mirror_outcome(r: trt_graph::candle::Result<trt_graph::candle::Tensor>) -> Outcome {
    let t = r.ok()?;
    let flat = t.flatten_all().ok()?;
    let wide: Vec<f64> = match t.dtype() {
        candle_core::DType::U8 => flat
            .to_vec1::<u8>()
            .ok()?
            .into_iter()
            .map(f64::from)
            .collect(),
        candle_core::DType::U32 => flat
            .to_vec1::<u32>()
            .ok()?
            .into_iter()
            .map(f64::from)
            .collect(),
        candle_core::DType::I64 => flat
            .to_vec1::<i64>()
            .ok()?
            .into_iter()
            .map(|v| v as f64)
            .collect(),
        _ => {
            let f = flat.to_dtype(candle_core::DType::F32).ok()?;
            f.to_vec1::<f32>()
                .ok()?
                .into_iter()
                .map(f64::from)
                .collect()
        }
    };
    Some((t.dims().to_vec(), format!("{:?}", t.dtype()), wide))
}

pub fn judge(case: &str, mirror: Outcome, candle: Outcome, failures: &mut Vec<String>) {
    let agree = match (&mirror, &candle) {
        (None, None) => true,
        (Some(m), Some(c)) => {
            let near = |(a, b): (&f64, &f64)| {
                a == b || (a - b).abs() <= 1e-5 * b.abs().max(1.0) || (a.is_nan() && b.is_nan())
            };
            m.0 == c.0 && m.1 == c.1 && m.2.len() == c.2.len() && m.2.iter().zip(&c.2).all(near)
        }
        _ => false,
    };
    if !agree {
        failures.push(format!("{case}\n  mirror {mirror:?}\n  candle {candle:?}"));
    }
}

/// The tensors that cases use, made of candle's or of symbolic tensors.
macro_rules! operands {
    ($tensor:ty, $x:ident $y:ident $z:ident $v:ident $s:ident $p:ident $ids:ident $i:ident $u:ident) => {
        let cpu = &core::Device::Cpu;
        let make = |name: &str, dims: &[usize]| {
            <$tensor>::from_vec($crate::oracle::data(name, dims), dims, cpu).unwrap()
        };
        let ($x, $y, $z) = (
            make("x", &[2, 3, 4]),
            make("y", &[2, 3, 4]),
            make("z", &[3, 1]),
        );
        let ($v, $s, $p) = (
            make("v", &[4]),
            make("s", &[]),
            make("p", &[2, 3]).abs().unwrap(),
        );
        let $ids = <$tensor>::new(&[2u32, 0, 1], cpu).unwrap();
        let $i = <$tensor>::new(&[[3i64, -4, 5], [7, 0, -1]], cpu).unwrap();
        let $u = <$tensor>::new(&[[1u8, 0, 2], [0, 0, 9]], cpu).unwrap();
        let _ = (&$x, &$y, &$z, &$v, &$s, &$p, &$ids, &$i, &$u);
    };
}

macro_rules! cases {
    ($name:ident: |$x:ident $y:ident $z:ident $v:ident $s:ident $p:ident $ids:ident $i:ident $u:ident|
     $($case:expr;)*) => {
        #[test]
        fn $name() {
            let texts = [$(stringify!($case)),*];
            #[allow(
                unused_imports,
                clippy::redundant_closure_call,
                reason = "one list of cases serves both sides; the closure catches `?`"
            )]
            let mirrored: Vec<$crate::oracle::Outcome> = {
                use trt_graph::candle::{self as core, D, DType, IndexOp, Module, ModuleT, Tensor};
                use trt_graph::candle_nn as nn;
                operands!(Tensor, $x $y $z $v $s $p $ids $i $u);
                vec![$($crate::oracle::mirror_outcome((|| -> core::Result<Tensor> { $case })())),*]
            };
            #[allow(
                unused_imports,
                clippy::redundant_closure_call,
                reason = "one list of cases serves both sides; the closure catches `?`"
            )]
            let expected: Vec<$crate::oracle::Outcome> = {
                use candle_core::{self as core, D, DType, IndexOp, Module, ModuleT, Tensor};
                use candle_nn as nn;
                operands!(Tensor, $x $y $z $v $s $p $ids $i $u);
                vec![$($crate::oracle::candle_outcome((|| -> core::Result<Tensor> { $case })())),*]
            };
            let mut failures = Vec::new();
            for ((text, m), c) in texts.into_iter().zip(mirrored).zip(expected) {
                $crate::oracle::judge(text, m, c, &mut failures);
            }
            assert!(failures.is_empty(), "{}", failures.join("\n"));
        }
    };
}
