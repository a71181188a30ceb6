//! Layers and functions that are composed of others, against candle; and what a compiled model cannot do.

use crate::support::{compare, difference, noise, reference, trace_step, weights};
use std::collections::HashMap;
use trt_graph::candle::{
    CpuStorage, CustomOp1, D, DType, Device, Layout, Result, Shape, StreamTensor, StreamingBinOp,
    Tensor, streaming::BinOp,
};
use trt_graph::candle_nn::{self as nn, RNN, VarBuilder, kv_cache::RotatingKvCache};
use trt_graph::reference::Array;
use trt_kernel::{DType as Kernel, Env};

const CPU: Device = Device::Cpu;

cases! { places: |x y z v s p ids i u|
    Tensor::eye(3, DType::F32, x.device()); Tensor::eye(1, DType::I64, x.device()); Tensor::tril2(4, DType::F32, x.device()); Tensor::tril2(1, DType::U32, x.device());
    Tensor::triu2(4, DType::U8, x.device()); Tensor::triu2(1, DType::F32, x.device()); Tensor::triu2(3, DType::BF16, x.device());
    Ok(Tensor::meshgrid(&[&v, &ids.to_dtype(DType::F32)?], false)?[0].clone()); Ok(Tensor::meshgrid(&[&v, &ids.to_dtype(DType::F32)?], false)?[1].clone());
    Ok(Tensor::meshgrid(&[&v, &ids.to_dtype(DType::F32)?], true)?[0].clone()); Ok(Tensor::meshgrid(&[&v, &ids.to_dtype(DType::F32)?], true)?[1].clone());
    Ok(Tensor::meshgrid(&[&v, &v, &ids.to_dtype(DType::F32)?], true)?[1].clone()); Ok(Tensor::meshgrid(&[&v, &ids, &v], true)?[2].clone());
    Ok(Tensor::meshgrid(&[&v], true)?[0].clone()); Ok(Tensor::meshgrid(&[&v, &x], true)?[0].clone()); Ok(Tensor::meshgrid(&[&v, &s], false)?[0].clone());
}

cases! { parts_in_place: |x y z v s p ids i u|
    x.slice_scatter(&y.narrow(1, 0, 2)?, 1, 1); x.slice_scatter(&y, 0, 0); x.slice_scatter0(&y.narrow(0, 0, 1)?, 1); x.slice_scatter(&y.narrow(2, 1, 1)?.contiguous()?, D::Minus1, 3);
    x.slice_scatter(&y, 0, 1); x.slice_scatter(&y.narrow(1, 0, 2)?, 0, 0); x.slice_scatter(&p, 0, 0); x.slice_scatter(&y.to_dtype(DType::F16)?, 0, 0); x.slice_scatter(&y, 3, 0);
    x.slice_assign(&[0..1, 1..3, 2..4], &y.narrow(0, 0, 1)?.narrow(1, 0, 2)?.narrow(2, 0, 2)?); x.slice_assign(&[.., .., ..], &y); p.slice_assign(&[1..=1, 0..=2], &p.narrow(0, 0, 1)?.neg()?);
    p.slice_assign(&[1.., 1..], &p.narrow(0, 0, 1)?.narrow(1, 0, 2)?); p.slice_assign(&[0..1, 1..3], &p); p.slice_assign(&[0..3, 0..3], &p); p.slice_assign(std::slice::from_ref(&(0..2)), &p); p.slice_assign(&[1..1, 0..3], &p.narrow(0, 0, 0)?);
    x.pad_with_same(1, 2, 1); x.pad_with_same(D::Minus1, 0, 3); x.pad_with_same(0, 1, 0); x.pad_with_same(0, 0, 0); x.pad_with_same(3, 1, 1); x.narrow(1, 0, 0)?.pad_with_same(1, 1, 0);
    x.roll(1, 1); x.roll(-1, D::Minus1); x.roll(7, 2); x.roll(0, 0); x.roll(-5, 1); x.roll(1, 3); p.roll(2, 0); x.flip(&[0]); x.flip(&[1, 2]); x.flip(&[]); x.flip(&[3]); i.flip(&[1]);
    x.unfold(2, 2, 1); x.unfold(2, 2, 2); x.unfold(1, 3, 1); x.unfold(0, 1, 1); x.unfold(2, 5, 1); x.unfold(D::Minus2, 2, 1); x.unfold(3, 1, 1);
}

cases! { interpolation: |x y z v s p ids i u|
    x.reshape((1, 2, 3, 4))?.upsample_bilinear2d(6, 8, false); x.reshape((1, 2, 3, 4))?.upsample_bilinear2d(6, 8, true); x.reshape((2, 1, 3, 4))?.upsample_bilinear2d(5, 7, false);
    x.reshape((1, 2, 3, 4))?.upsample_bilinear2d(5, 4, true); x.reshape((1, 2, 3, 4))?.upsample_bilinear2d(2, 3, false); x.reshape((1, 2, 3, 4))?.upsample_bilinear2d(3, 4, false);
    x.reshape((1, 2, 3, 4))?.upsample_bilinear2d(1, 1, true); x.reshape((2, 12, 1, 1))?.upsample_bilinear2d(3, 2, false); x.reshape((2, 12, 1, 1))?.upsample_bilinear2d(3, 2, true);
    x.reshape((1, 2, 3, 4))?.upsample_bilinear2d_with_scale(2.0, 2.0, false); x.reshape((1, 2, 3, 4))?.upsample_bilinear2d_with_scale(1.5, 1.3, false); x.reshape((1, 2, 3, 4))?.upsample_bilinear2d_with_scale(1.1, 1.1, true);
    x.upsample_bilinear2d(4, 4, false); x.to_dtype(DType::F16)?.reshape((1, 2, 3, 4))?.upsample_bilinear2d(6, 8, false);
    nn::ops::pixel_shuffle(&x.reshape((1, 4, 2, 3))?, 2); nn::ops::pixel_shuffle(&x.reshape((2, 1, 3, 4))?, 1); nn::ops::pixel_shuffle(&x.reshape((1, 6, 2, 2))?, 2); nn::ops::pixel_shuffle(&x, 2);
    nn::ops::pixel_unshuffle(&x.reshape((1, 1, 4, 6))?, 2); nn::ops::pixel_unshuffle(&x.reshape((1, 2, 3, 4))?, 2); nn::ops::pixel_unshuffle(&x.reshape((1, 1, 6, 4))?, 1); nn::ops::pixel_unshuffle(&x, 1);
    nn::ops::replication_pad2d(&x.reshape((1, 2, 3, 4))?, 1); nn::ops::replication_pad2d(&x, 0); nn::ops::replication_pad2d(&x, 1); nn::ops::replication_pad2d(&x.reshape((1, 2, 3, 4))?, 2);
}

cases! { small_layers: |x y z v s p ids i u|
    nn::func(|t: &Tensor| t.neg()).forward(&x); nn::Func::new(|t: &Tensor| t * 2.0).forward(&x); nn::func_t(|t: &Tensor, train| t.affine(1.0, f64::from(u8::from(train)))).forward_t(&x, false);
    nn::seq().forward(&x); nn::seq().add_fn(|t: &Tensor| t.exp()).add(nn::Activation::Relu).forward(&x); nn::seq().add(nn::func(|t: &Tensor| t.sqr())).add_fn(|t| t + 1.0).forward(&x);
    Ok(nn::seq().add_fn(|t: &Tensor| t.exp()).add_fn(|t| t + 1.0).forward_all(&x)?[1].clone()); nn::Dropout::new(0.5).forward(&x, false); nn::Dropout::new(0.5).forward_t(&x, false);
    nn::ops::Identity::new().forward(&x); nn::ops::mish(&x); nn::ops::selu(&x, 1.5, 0.9); nn::PReLU::new(v.narrow(0, 0, 1)?, true).forward(&x); nn::PReLU::new(v.narrow(0, 0, 3)?, false).forward(&x);
    nn::PReLU::new(v.clone(), false).forward(&x); nn::PReLU::new(v.clone(), false).forward(&v); nn::PReLU::new(y.clone(), false).forward(&x);
    nn::Conv2d::new(y.reshape((3, 2, 2, 2))?, None, Default::default()).absorb_bn(&nn::BatchNorm::new(3, p.get(0)?, p.get(1)?, p.get(1)?, p.get(0)?, 1e-3)?)?.forward(&x.reshape((1, 2, 3, 4))?);
    nn::Conv2d::new(y.reshape((3, 2, 2, 2))?, Some(p.get(1)?), Default::default()).absorb_bn(&nn::BatchNorm::new(3, p.get(0)?, p.get(1)?, p.get(1)?, p.get(0)?, 1e-3)?)?.forward(&x.reshape((1, 2, 3, 4))?);
    nn::Conv2d::new(y.reshape((3, 2, 2, 2))?, None, Default::default()).absorb_bn(&nn::BatchNorm::new_no_bias(3, p.get(0)?, p.get(1)?, 1e-3)?)?.forward(&x.reshape((1, 2, 3, 4))?);
}

cases! { numbers: |x y z v s p ids i u|
    Tensor::try_from(2.5f32); Tensor::try_from(7u32); Tensor::try_from(-3i64); Tensor::try_from(1u8); Tensor::try_from(vec![1f32, 2.0]); Tensor::try_from(&[1i64, 2, 3][..]);
    Tensor::try_from(f32::try_from(&s)?); Tensor::try_from(Vec::<f32>::try_from(&v)?); Tensor::try_from(Vec::<Vec<i64>>::try_from(&i)?.concat()); Tensor::try_from(Vec::<Vec<Vec<f32>>>::try_from(x.clone())?[1].concat());
    Tensor::try_from(f32::try_from(&x)?); Tensor::try_from(u32::try_from(&s)?);
}

/// A rotating cache that gets parts of so many rows, by what each append returns.
macro_rules! rotated {
    ($tensor:ty, $cache:ty, $device:expr, $most:expr, $parts:expr) => {{
        let mut cache = <$cache>::new(0, $most);
        let mut all: Vec<(Vec<Vec<f32>>, Option<Vec<Vec<u8>>>, Vec<usize>, [usize; 2])> =
            Vec::new();
        let mut next = 0u32;
        for rows in $parts {
            let data: Vec<f32> = (0..2 * rows as u32)
                .map(|i| (next * 2 + i) as f32)
                .collect();
            next += rows as u32;
            let new = <$tensor>::from_vec(data, (rows, 2), &$device).unwrap();
            let mask = cache.attn_mask(rows, &$device).unwrap();
            let mask = mask.map(|m| m.to_vec2::<u8>().unwrap());
            let positions = cache.positions(rows);
            let (k, v) = cache.append(&new, &new.neg().unwrap()).unwrap();
            assert_eq!(
                k.neg().unwrap().to_vec2::<f32>().unwrap(),
                v.to_vec2::<f32>().unwrap()
            );
            let kept = cache.k().unwrap().unwrap().to_vec2::<f32>().unwrap();
            let place = [cache.offset(), cache.current_seq_len()];
            all.push((k.to_vec2::<f32>().unwrap(), mask, positions, place));
            all.push((kept, None, vec![], [0, 0]));
        }
        all
    }};
}

#[test]
fn rotating_caches_return_what_candles_do() {
    for most in [1usize, 4, 5, 7] {
        for parts in [
            vec![1usize; 17],
            vec![3, 1, 1, 1, 1, 1, 2, 1, 3, 1],
            vec![2, 2, 2, 2, 2],
            vec![9, 1, 1, 3, 6, 1],
            vec![4, 4, 1, 5, 5, 7, 2],
        ] {
            let ours = rotated!(Tensor, RotatingKvCache, CPU, most, parts.clone());
            let theirs = rotated!(
                candle_core::Tensor,
                candle_nn::kv_cache::RotatingKvCache,
                candle_core::Device::Cpu,
                most,
                parts.clone()
            );
            assert_eq!(ours, theirs, "{most} places, {parts:?}");
        }
    }
}

/// The states of a recurrent layer over 3 steps, traced and run, and candle's.
macro_rules! recurrent {
    ($layer:ident, $config:expr) => {{
        let graph = trace_step(&[("b", 1, 4)], |call, vb| {
            let names = |name: &str| {
                let rows = if stringify!($layer) == "lstm" { 20 } else { 15 };
                match name {
                    n if n.starts_with("weight_ih") => format!("w{rows}x4"),
                    n if n.starts_with("weight_hh") => format!("w{rows}x5"),
                    _ => format!("w{rows}"),
                }
            };
            let layer = nn::$layer(4, 5, $config, vb.clone().rename_f(names))?;
            let x = call.input("x", (call.int("b")?, 3, 4), DType::F32)?;
            Ok(vec![layer.states_to_tensor(&layer.seq(&x)?)?])
        })
        .unwrap();
        for b in [1i64, 3] {
            let (found, _) = reference(&graph, &Env::new(&[b]));
            compare(&graph, &[b], 1e-4).unwrap();
            let rows = if stringify!($layer) == "lstm" { 20 } else { 15 };
            let cpu = &candle_core::Device::Cpu;
            let of = |name: &str, dims: &[usize]| {
                let all = noise(name, dims.iter().product(), Kernel::F32);
                let all: Vec<f32> = all.into_iter().map(|v| v as f32).collect();
                candle_core::Tensor::from_vec(all, dims, cpu).unwrap()
            };
            let mut tensors = HashMap::new();
            tensors.insert(
                "weight_ih_l0".to_string(),
                of(&format!("w{rows}x4"), &[rows, 4]),
            );
            tensors.insert(
                "weight_hh_l0".to_string(),
                of(&format!("w{rows}x5"), &[rows, 5]),
            );
            tensors.insert("bias_ih_l0".to_string(), of(&format!("w{rows}"), &[rows]));
            tensors.insert("bias_hh_l0".to_string(), of(&format!("w{rows}"), &[rows]));
            let vb = candle_nn::VarBuilder::from_tensors(tensors, candle_core::DType::F32, cpu);
            let layer = candle_nn::$layer(4, 5, Default::default(), vb).unwrap();
            let x = of("x", &[b as usize, 3, 4]);
            let states = candle_nn::RNN::seq(&layer, &x).unwrap();
            let out = candle_nn::RNN::states_to_tensor(&layer, &states).unwrap();
            let flat = out
                .to_dtype(candle_core::DType::F64)
                .unwrap()
                .flatten_all()
                .unwrap();
            let expected = Array::new(out.dims().to_vec(), flat.to_vec1().unwrap()).unwrap();
            assert_eq!(difference(&found[0], &expected, 1e-5), None);
        }
    }};
}

#[test]
fn recurrent_layers_step_as_candles_do() {
    recurrent!(lstm, nn::LSTMConfig::default());
    recurrent!(gru, nn::GRUConfig::default());
}

#[test]
fn streams_of_unequal_parts_wait_for_each_other() {
    let row = |v: &[f32]| Tensor::from_slice(v, (1, v.len()), &CPU).unwrap();
    let mut sum = StreamingBinOp::new(BinOp::Add, D::Minus1);
    let part = |s: &StreamTensor| s.as_option().map(|t| t.to_vec2::<f32>().unwrap().concat());
    let first = sum
        .step(&row(&[1., 2., 3.]).into(), &row(&[10.]).into())
        .unwrap();
    assert_eq!(part(&first), Some(vec![11.]));
    let second = sum.step(&().into(), &row(&[20., 30., 40.]).into()).unwrap();
    assert_eq!(part(&second), Some(vec![22., 33.]));
    assert_eq!(
        part(
            &sum.step(&StreamTensor::empty(), &StreamTensor::empty())
                .unwrap()
        ),
        None
    );
    let last = sum.step(&row(&[4.]).into(), &().into()).unwrap();
    assert_eq!(part(&last), Some(vec![44.]));
    let all = StreamTensor::from_tensor(row(&[1., 2., 3.]));
    assert_eq!(part(&all.narrow(1, 1, 9).unwrap()), Some(vec![2., 3.]));
    assert_eq!(
        (part(&all.narrow(1, 3, 1).unwrap()), all.seq_len(1).unwrap()),
        (None, 3)
    );
}

#[test]
fn builders_over_tensors_give_these() {
    let mut tensors = HashMap::new();
    tensors.insert("a.b".to_string(), Tensor::new(&[1f32, 2.], &CPU).unwrap());
    let vb = VarBuilder::from_tensors(tensors, DType::BF16, &CPU);
    let got = vb.pp("a").get(2, "b").unwrap();
    assert_eq!((got.dims(), got.dtype()), (&[2][..], DType::BF16));
    assert_eq!(
        vb.get_with_hints_dtype(2, "a.b", nn::Init::Const(0.), DType::F32)
            .unwrap()
            .dtype(),
        DType::F32
    );
    assert!(vb.contains_tensor("a.b") && !vb.contains_tensor("b"));
    assert!(vb.pp("a").get(3, "b").is_err() && vb.get(2, "b").is_err());
    let renamed = weights().rename_f(|name: &str| name.replace("mine", "w5x4"));
    assert_eq!(renamed.pp("x").get((5, 4), "mine").unwrap().dims(), [5, 4]);
    assert!(renamed.contains_tensor("mine"));
    let files = VarBuilder::from_mmaped_safetensors(&["model.safetensors"], DType::F32, &CPU);
    let text = files.unwrap_err().to_string();
    assert!(
        text.contains("model.safetensors") && text.contains("Weights::open"),
        "{text}"
    );
}

/// Every second element.
struct Second;

impl CustomOp1 for Second {
    fn name(&self) -> &'static str {
        "second"
    }
    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let all = storage.as_slice::<f32>()?;
        let (start, end) = layout.contiguous_offsets().expect("it is contiguous");
        let half: Vec<f32> = all[start..end].iter().copied().step_by(2).collect();
        let n = half.len();
        Ok((CpuStorage::F32(half), n.into()))
    }
}

#[test]
fn custom_operations_run_on_what_is_known_and_are_refused_elsewhere() {
    let known = (Tensor::arange(0f32, 6., &CPU).unwrap() * 2.0).unwrap();
    let half = known.apply_op1(Second).unwrap();
    assert_eq!(half.to_vec1::<f32>().unwrap(), [0., 4., 8.]);
    let error = trace_step(&[("n", 2, 9)], |call, _| {
        let x = call.input("x", call.int("n")?, DType::F32)?;
        Ok(vec![x.apply_op1_no_bwd(&Second)?])
    });
    let text = error.unwrap_err().to_string();
    assert!(
        text.contains("'second'") && text.contains("spell it in tensor operations"),
        "{text}"
    );
}

#[test]
fn what_no_compiled_model_can_do_is_refused_with_a_way_out() {
    let x = Tensor::zeros((2, 3), DType::F32, &CPU).unwrap();
    let cases: Vec<(Result<Tensor>, &[&str])> = vec![
        (
            Tensor::randn(0f32, 1f32, (2, 3), &CPU),
            &["randn", "[2, 3]", "input"],
        ),
        (Tensor::rand(0f32, 1f32, 7, &CPU), &["rand", "[7]", "input"]),
        (x.randn_like(0., 1.), &["randn_like", "[2, 3]", "input"]),
        (x.rand_like(0., 1.), &["rand_like", "[2, 3]", "input"]),
        (
            x.slice_set(&x, 0, 0).map(|()| x.clone()),
            &["slice_set", "slice_scatter"],
        ),
        (
            nn::Dropout::new(0.5).forward(&x, true),
            &["dropout", "does not train"],
        ),
        (nn::ops::dropout(&x, 0.5), &["dropout", "does not train"]),
        (
            nn::BatchNorm::new_no_bias(3, x.get(0).unwrap(), x.get(0).unwrap(), 0.1)
                .unwrap()
                .forward_train(&x),
            &["batch-norm", "does not train"],
        ),
    ];
    for (made, words) in cases {
        let text = made.unwrap_err().to_string();
        assert!(words.iter().all(|w| text.contains(w)), "{text}");
    }
}
