//! Experts that values pick: each row meets its own, and candle's functions for that are spelled in it.

use crate::support::{compare, noise, trace_step};
use candle_core::Tensor as Theirs;
use trt_graph::candle::{D, DType, Device::Cpu, Result, Tensor};
use trt_graph::candle_nn::{VarBuilder, moe, ops};
use trt_graph::{Call, Graph};
use trt_kernel::{DType as Stored, Kernel, Role};

const EXPERTS: usize = 4;

/// A weight of each expert, by its name and shape.
fn weights(vb: &VarBuilder, shape: (usize, usize), name: &str) -> Result<Vec<Tensor>> {
    let each = (0..EXPERTS).map(|e| vb.pp(format!("e{e}")).get(shape, name));
    each.collect()
}

fn traced(step: impl Fn(&Call<'_>, &VarBuilder) -> Result<Tensor>) -> Graph {
    trace_step(&[("n", 1, 20)], |call, vb| Ok(vec![step(call, vb)?])).unwrap()
}

fn agrees(graph: &Graph, tolerance: f64) {
    for n in [1, 7, 20] {
        compare(graph, &[n], tolerance).unwrap_or_else(|e| panic!("{e}"));
    }
}

fn rows(call: &Call<'_>, columns: usize, dtype: DType) -> Result<[Tensor; 2]> {
    let n = call.int("n")?;
    let x = call.input("x", (n, columns), dtype)?;
    // Below 4.
    Ok([x, call.input("ids", n, DType::U32)?])
}

#[test]
fn each_row_meets_the_weight_of_its_expert_which_streams() {
    for (name, shape, dtype, tolerance) in [
        ("w6x4", (6, 4), DType::F32, 1e-5),
        ("h70x16", (70, 16), DType::BF16, 1e-2),
        ("b5x64", (5, 64), DType::F32, 1e-5),
    ] {
        let graph = traced(|call, vb| {
            let [x, ids] = rows(call, shape.1, dtype)?;
            moe::experts(&x, &ids, &weights(vb, shape, name)?)
        });
        agrees(&graph, tolerance);
        let (program, _) = trt_graph::compile(graph).unwrap();
        let routed = |l: &&trt_graph::program::Launch| matches!(l.kernel, Kernel::Routed(_));
        assert_eq!(program.launches.iter().filter(routed).count(), EXPERTS);
        assert_eq!(program.ranged_uses().count(), EXPERTS);
        let only = |w: &trt_graph::program::Weight| w.roles == Role::Rows.into();
        assert!(program.weights.iter().all(only), "{program}");
    }
}

#[test]
fn weights_that_lie_together_are_one_launch() {
    let graph = traced(|call, vb| {
        let [x, ids] = rows(call, 8, DType::F32)?;
        let all = vb.get((4, 6, 8), "w4x6x8")?;
        let (experts, pairs) = ids.sort_last_dim(true)?;
        moe::moe_gemm(&x, &all, &None, &pairs, &experts, 1, false)
    });
    agrees(&graph, 1e-5);
    let (program, _) = trt_graph::compile(graph).unwrap();
    let names: Vec<&str> = program.launches.iter().map(|l| l.kernel.kind()).collect();
    // What the ids were sorted for is not computed.
    assert_eq!(names, ["row", "routed"]);
}

/// What candle-transformers' `FusedMoe` does, over weights that are stacked of two each.
fn fused(x: &Tensor, gate: &Tensor, up: &[[Tensor; 2]], down: &[Tensor]) -> Result<Tensor> {
    let (tokens, hidden) = x.dims2()?;
    let logits = ops::softmax_last_dim(&x.matmul(&gate.t()?)?.to_dtype(DType::F32)?)?;
    let ids = logits.arg_sort_last_dim(false)?.narrow(D::Minus1, 0, 2)?;
    let ids = ids.contiguous()?;
    let scales = logits.gather(&ids, D::Minus1)?;
    let scales = scales.broadcast_div(&scales.sum_keepdim(D::Minus1)?)?;
    let (experts, pairs) = ids.flatten_all()?.sort_last_dim(true)?;
    let joined = up.iter().map(|pair| Tensor::cat(pair, 0));
    let joined = Tensor::stack(&joined.collect::<Result<Vec<_>>>()?, 0)?;
    let down = Tensor::stack(down, 0)?;
    let width = joined.dim(1)? / 2;
    let y = moe::moe_gemm(x, &joined, &None, &pairs, &experts, 2, true)?;
    let gate = y.narrow(D::Minus1, 0, width)?;
    let up = y.narrow(D::Minus1, width, width)?;
    let y = (up * gate.silu()?)?.reshape(((), width))?;
    let y = moe::moe_gemm(&y, &down, &Some(scales), &pairs, &experts, 2, true)?;
    y.reshape((tokens, (), hidden))?.sum(D::Minus2)
}

#[test]
fn candles_fused_experts_compile_and_all_weights_stream() {
    let graph = traced(|call, vb| {
        let [x, _] = rows(call, 8, DType::F32)?;
        let [gates, ups] = ["gate", "up"].map(|p| weights(&vb.pp(p), (6, 8), "w6x8"));
        let (gates, ups) = (gates?.into_iter(), ups?);
        let pairs: Vec<[Tensor; 2]> = gates.zip(ups).map(|(g, u)| [g, u]).collect();
        let down = weights(&vb.pp("down"), (8, 6), "w8x6")?;
        fused(&x, &vb.get((EXPERTS, 8), "w4x8")?, &pairs, &down)
    });
    agrees(&graph, 1e-4);
    let (program, _) = trt_graph::compile(graph).unwrap();
    let rows = |w: &trt_graph::program::Weight| w.roles == Role::Rows.into();
    assert!(program.weights.iter().all(rows), "{program}");
    assert_eq!(program.weights.len(), 3 * EXPERTS + 1);
}

/// The same, token by token, with candle.
fn by_token(x: &Theirs, gate: &Theirs, up: &[[Theirs; 2]], down: &[Theirs]) -> Vec<f32> {
    let logits = candle_nn::ops::softmax_last_dim(&x.matmul(&gate.t().unwrap()).unwrap()).unwrap();
    let logits = logits.to_vec2::<f32>().unwrap();
    let mut all = Vec::new();
    for (token, logits) in logits.iter().enumerate() {
        let x = x.narrow(0, token, 1).unwrap();
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        let total = logits[order[0]] + logits[order[1]];
        let mut sum = x.zeros_like().unwrap();
        for expert in &order[..2] {
            let [g, u] = [0, 1].map(|i| x.matmul(&up[*expert][i].t().unwrap()).unwrap());
            let y = (g.silu().unwrap() * u).unwrap();
            let y = y.matmul(&down[*expert].t().unwrap()).unwrap();
            let scale = f64::from(logits[*expert] / total);
            sum = (sum + (y * scale).unwrap()).unwrap();
        }
        all.extend(sum.flatten_all().unwrap().to_vec1::<f32>().unwrap());
    }
    all
}

#[test]
fn fused_experts_give_what_a_loop_over_tokens_gives() {
    let data = |name: &str, dims: (usize, usize)| -> Vec<f32> {
        let values = noise(name, dims.0 * dims.1, Stored::F32).into_iter();
        values.map(|v| v as f32).collect()
    };
    macro_rules! make {
        ($tensor:ty, $device:expr) => {{
            let of = |name: &str, dims: (usize, usize)| {
                <$tensor>::from_vec(data(name, dims), dims, $device).unwrap()
            };
            let up =
                (0..EXPERTS).map(|e| [of(&format!("g{e}"), (6, 8)), of(&format!("u{e}"), (6, 8))]);
            let down = (0..EXPERTS).map(|e| of(&format!("d{e}"), (8, 6)));
            (
                of("x", (5, 8)),
                of("gate", (EXPERTS, 8)),
                up.collect::<Vec<_>>(),
                down.collect::<Vec<_>>(),
            )
        }};
    }
    let (x, gate, up, down) = make!(Tensor, &Cpu);
    let ours = fused(&x, &gate, &up, &down).unwrap();
    let ours = ours.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (x, gate, up, down) = make!(Theirs, &candle_core::Device::Cpu);
    let theirs = by_token(&x, &gate, &up, &down);
    assert_eq!(ours.len(), theirs.len());
    let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 * b.abs().max(1.0);
    assert!(ours.iter().zip(&theirs).all(near), "{ours:?} {theirs:?}");
}

#[test]
fn what_does_not_fit_is_refused() {
    let make = |dims: &[usize]| Tensor::ones(dims, DType::F32, &Cpu).unwrap();
    let ids = Tensor::new(&[0u32, 1, 0], &Cpu).unwrap();
    let (x, w) = (make(&[3, 4]), make(&[6, 4]));
    assert!(moe::experts(&x, &ids, &[]).is_err());
    assert!(moe::experts(&x, &ids, &[w.clone(), make(&[5, 4])]).is_err());
    assert!(moe::experts(&make(&[3, 5]), &ids, std::slice::from_ref(&w)).is_err());
    assert!(moe::experts(&make(&[2, 4]), &ids, std::slice::from_ref(&w)).is_err());
    assert!(moe::experts(&x, &make(&[3]), std::slice::from_ref(&w)).is_err());
    // The second expert is none.
    let one = moe::experts(&x, &ids, std::slice::from_ref(&w)).unwrap();
    assert!(one.to_vec2::<f32>().is_err());
}
