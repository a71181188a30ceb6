//! A size that may be 1 is a size like any other: what is recorded does not depend on how shapes meet.
//!
//! Each case is written once and expanded twice. Over symbolic tensors it is traced for `n` in 1..=4 and run as a
//! program at each `n`; over candle's it says what that must give.

use crate::support::{compare, difference, inputs, noise, reference, trace_step};
use trt_graph::reference::Array;
use trt_kernel::{DType as Kernel, Env};

const RANGE: [(&str, i64, i64); 1] = [("n", 1, 4)];

fn floats(name: &str, dims: &[usize]) -> Vec<f32> {
    let all = noise(name, dims.iter().product(), Kernel::F32);
    all.into_iter().map(|v| v as f32).collect()
}

/// The shapes of what cases get: rows, one number a row, one number a row in a vector, images, heads.
fn shapes(n: usize) -> [(&'static str, Vec<usize>); 5] {
    [
        ("x", vec![n, 8]),
        ("c", vec![n, 1]),
        ("v", vec![n]),
        ("g", vec![n, 2, 4, 4]),
        ("h", vec![1, 2, n, 4]),
    ]
}

fn judge(
    text: &str,
    graph: Result<trt_graph::Graph, trt_graph::Error>,
    expected: impl Fn(usize) -> candle_core::Result<candle_core::Tensor>,
) -> Result<(), String> {
    let graph = graph.map_err(|e| format!("{text}\n  {e}"))?;
    for n in 1..=4i64 {
        let env = Env::new(&[n]);
        let (found, _) = reference(&graph, &env);
        let flat = |t: candle_core::Tensor| -> candle_core::Result<Array> {
            let values = t.to_dtype(candle_core::DType::F64)?.flatten_all()?;
            let array = Array::new(t.dims().to_vec(), values.to_vec1()?);
            array.map_err(candle_core::Error::wrap)
        };
        let expected = expected(n as usize).and_then(flat);
        let expected = expected.map_err(|e| format!("{text} at n={n}: candle says {e}"))?;
        if let Some(d) = difference(&found[0], &expected, 1e-5) {
            return Err(format!("{text} at n={n}: {d}\n{graph}"));
        }
        assert!(inputs(&graph, &env).iter().all(|i| !i.data.is_empty()));
        compare(&graph, &[n], 1e-4).map_err(|e| format!("{text} at n={n}: {e}"))?;
    }
    Ok(())
}

macro_rules! cases {
    ($name:ident: |$n:ident $x:ident $c:ident $v:ident $g:ident $h:ident| $($case:expr;)*) => {
        #[test]
        #[allow(
            unused_imports,
            unused_variables,
            clippy::redundant_closure_call,
            reason = "one list of cases serves both sides; the closure catches `?`"
        )]
        fn $name() {
            let mut failures = Vec::new();
            $({
                let graph = {
                    use trt_graph::candle::{self as core, D, DType, IndexOp, Module, ModuleT, Tensor};
                    use trt_graph::candle_nn as nn;
                    trace_step(&RANGE, |call, _| {
                        let $n = call.int("n")?;
                        let [$x, $c, $v, $g, $h] = shapes($n);
                        let $x = call.input($x.0, $x.1, DType::F32)?;
                        let $c = call.input($c.0, $c.1, DType::F32)?;
                        let $v = call.input($v.0, $v.1, DType::F32)?;
                        let $g = call.input($g.0, $g.1, DType::F32)?;
                        let $h = call.input($h.0, $h.1, DType::F32)?;
                        Ok(vec![(|| -> core::Result<Tensor> { $case })()?])
                    })
                };
                let expected = |n: usize| {
                    use candle_core::{self as core, D, DType, IndexOp, Module, ModuleT, Tensor};
                    use candle_nn as nn;
                    let $n = n;
                    let made = shapes(n).map(|(name, dims)| {
                        let data = floats(name, &dims);
                        Tensor::from_vec(data, dims, &core::Device::Cpu)
                    });
                    let [$x, $c, $v, $g, $h] = made;
                    let ($x, $c, $v, $g, $h) = ($x?, $c?, $v?, $g?, $h?);
                    (|| -> core::Result<Tensor> { $case })()
                };
                if let Err(e) = judge(stringify!($case), graph, expected) {
                    failures.push(e);
                }
            })*
            assert!(failures.is_empty(), "{}", failures.join("\n"));
        }
    };
}

cases! { broadcasting: |n x c v g h|
    x.broadcast_add(&x.narrow(0, 0, 1)?); x.broadcast_add(&Tensor::new(&[[1f32, 2., 3., 4., 5., 6., 7., 8.]], x.device())?);
    x.broadcast_mul(&Tensor::new(&[1f32, 2., 3., 4., 5., 6., 7., 8.], x.device())?); x.broadcast_sub(&c); c.broadcast_div(&x);
    x.narrow(0, 0, 1)?.broadcast_mul(&c); x.broadcast_maximum(&c); x.broadcast_lt(&c); c.broadcast_as((n, 8)); c.broadcast_left(n); v.broadcast_left(3);
    c.expand((n, 5)); x.broadcast_matmul(&x.t()?); x.unsqueeze(0)?.broadcast_matmul(&g.narrow(1, 0, 1)?.reshape((n, 8, 2))?);
    v.unsqueeze(1)?.broadcast_add(&v.unsqueeze(0)?);
}

cases! { layout: |n x c v g h|
    x.reshape((n, 2, 4)); x.reshape(((), 4)); x.flatten_all(); x.flatten(0, 1); g.flatten(0, 1); g.flatten_to(1); g.flatten_from(2); c.squeeze(1); x.unsqueeze(0); x.unsqueeze(2); x.t();
    x.transpose(0, 1); g.permute((1, 0, 3, 2)); h.transpose(1, 2); x.narrow(0, 0, n); x.narrow(0, n - 1, 1); x.get(n - 1); x.get_on_dim(1, 3);
    x.i(n - 1); x.i(0..n); x.i(n - 1..); x.i(..n); x.i((.., 2..)); x.i((n - 1.., ..3)); x.i(..=n - 1); v.i(n - 1..); Ok(x.chunk(4, 1)?[3].clone()); x.contiguous();
}

cases! { parts: |n x c v g h|
    x.repeat((2, 1)); x.narrow(0, 0, 1)?.repeat((n, 1)); x.repeat((1, n)); v.narrow(0, 0, 1)?.repeat(n); v.repeat((n, 1)); x.narrow(0, 0, 1)?.repeat((n, n)); c.repeat((1, 3));
    x.narrow(0, 0, 1)?.repeat((3, n, 1)); x.narrow(0, 0, 1)?.repeat(n); x.repeat((n, 1, 1)); x.repeat((1, 1));
    x.pad_with_zeros(0, 1, 2); x.pad_with_zeros(0, n, 0); x.pad_with_zeros(0, 0, n); x.pad_with_zeros(1, n - 1, 4 - n); x.pad_with_zeros(0, n - 1, 0); x.pad_with_zeros(0, 0, 0);
    Tensor::cat(&[&x, &x], 0); Tensor::cat(&[&x.narrow(0, 0, 1)?, &x], 0); Tensor::cat(&[&x], 0); Tensor::stack(&[&x, &x], 0); Tensor::stack(&[&v, &v], 1);
}

cases! { places: |n x c v g h|
    Tensor::tril2(n, DType::F32, x.device()); Tensor::triu2(n, DType::U8, x.device()); Tensor::eye(n, DType::F32, x.device()); x.roll(-1, 0); x.roll(n as i32, 0); x.roll(1, 1);
    x.pad_with_same(0, 1, 2); x.pad_with_same(1, n - 1, 4 - n); x.pad_with_same(0, 0, n); x.slice_scatter(&x.narrow(0, n - 1, 1)?, 0, 0); x.slice_scatter(&x, 0, 0);
    x.slice_assign(&[n - 1..n, 0..8], &x.narrow(0, 0, 1)?); x.slice_assign(&[0..1, 2..5], &x.narrow(0, n - 1, 1)?.narrow(1, 1, 3)?);
    Ok(Tensor::meshgrid(&[&v, &x.get(0)?], true)?[0].clone()); Ok(Tensor::meshgrid(&[&v, &x.get(0)?], false)?[1].clone()); v.unfold(0, 1, 1); x.unfold(1, 3, 2);
    nn::ops::pixel_shuffle(&g.reshape((n, 8, 2, 2))?, 2); nn::ops::replication_pad2d(&g, 1);
}

cases! { reductions: |n x c v g h|
    x.sum(0); x.sum(1); x.sum_keepdim(0); x.sum_keepdim((0, 1)); x.sum_all(); x.mean(0); x.mean((0, 1)); x.mean_keepdim(1); x.mean_all(); x.max(0); x.max_keepdim(1); x.min(0); x.max_all();
    c.sum(1); c.max_keepdim(1); x.var(1); x.log_sum_exp(0); nn::ops::softmax(&x, 0); nn::ops::softmax(&x, 1); nn::ops::log_softmax(&x, 0); v.mean(0);
}

cases! { numbers: |n x c v g h|
    &x + 2.0; &x * 1.0; x.affine(1.0, 0.5); x.powf(2.0); x.clamp(-0.5f32, 0.5f32); x.zeros_like()? + &x; x.gt(0f32)?.where_cond(&x, &x.neg()?);
    Tensor::ones((n, 8), DType::F32, x.device())? + &x; Tensor::arange(0f32, n as f32, x.device())? + &v; Tensor::full(2f32, n, x.device())? * &v;
}

cases! { layers: |n x c v g h|
    nn::Linear::new(x.narrow(0, 0, 1)?.broadcast_as((3, 8))?.contiguous()?, None).forward(&x); nn::LayerNorm::new_no_bias(x.get(0)?, 1e-5).forward(&x);
    nn::GroupNorm::new(v.narrow(0, 0, 1)?.broadcast_as(2)?.contiguous()?, v.narrow(0, 0, 1)?.broadcast_as(2)?.contiguous()?, 2, 1, 1e-5)?.forward(&g);
    g.avg_pool2d(2); g.max_pool2d_with_stride(3, 1); g.upsample_nearest2d(8, 8); g.upsample_nearest2d(4, 4); g.conv2d(&g.narrow(0, 0, 1)?.narrow(2, 0, 3)?.narrow(3, 0, 3)?.contiguous()?, 1, 1, 1, 1);
    x.unsqueeze(1)?.conv1d(&c.narrow(0, 0, 1)?.unsqueeze(0)?.broadcast_as((1, 1, 3))?.contiguous()?, 1, 1, 1, 1); h.matmul(&h.t()?); x.matmul(&x.t()?); nn::ops::softmax_last_dim(&h.matmul(&h.t()?)?)?.matmul(&h);
    nn::attention::flash_attn::<f32>(&h.transpose(1, 2)?.contiguous()?, &h.transpose(1, 2)?.contiguous()?, &h.transpose(1, 2)?.contiguous()?, 0.5, nn::attention::AttnMask::causal(), None, None);
    nn::attention::flash_attn::<f32>(&h.transpose(1, 2)?.contiguous()?, &h.transpose(1, 2)?.contiguous()?, &h.transpose(1, 2)?.contiguous()?, 0.5, nn::attention::AttnMask::None, None, None);
    nn::rotary_emb::rope(&h, &x.narrow(1, 0, 2)?.contiguous()?, &x.narrow(1, 2, 2)?.contiguous()?); nn::rotary_emb::rope_i(&h, &x.narrow(1, 0, 2)?.contiguous()?, &x.narrow(1, 2, 2)?.contiguous()?);
    nn::rotary_emb::rope_slow(&h, &x.narrow(1, 0, 2)?.contiguous()?, &x.narrow(1, 2, 2)?.contiguous()?);
}
