//! Experts that values pick, through the whole house: their weights stream, and no budget changes a bit.

use candle_core::{DType, Device, Tensor};
use candle_trt::device::{Host, HostMode};
use candle_trt::{Compiler, Engine, FromTensors, Profile, Request, TileTarget, Weights};
use std::collections::HashMap;
use trt_graph::Call;
use trt_graph::candle::{self, D, Tensor as Traced};
use trt_graph::candle_nn::{VarBuilder, moe, ops};

const HIDDEN: usize = 64;
const WIDTH: usize = 160;
const EXPERTS: usize = 6;
const PICKED: usize = 2;
const TOKENS: usize = 12;

fn numbers(seed: u64, dims: (usize, usize), dtype: DType) -> Tensor {
    let mut state = seed | 1;
    let data: Vec<f32> = (0..dims.0 * dims.1)
        .map(|_| {
            state = state
                .wrapping_mul(0x5851_f42d_4c95_7f2d)
                .wrapping_add(0x1405_7b7e_f767_814f);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect();
    let tensor = Tensor::from_vec(data, dims, &Device::Cpu).expect("a tensor");
    let scaled = (tensor * 0.25).expect("floats");
    scaled.to_dtype(dtype).expect("a float")
}

fn tensors(dtype: DType) -> HashMap<String, Tensor> {
    let mut all = HashMap::from([("gate".to_string(), numbers(1, (EXPERTS, HIDDEN), dtype))]);
    for e in 0..EXPERTS as u64 {
        for (i, name) in ["w1", "w3"].into_iter().enumerate() {
            let weight = numbers(10 * e + 2 + i as u64, (WIDTH, HIDDEN), dtype);
            all.insert(format!("{e}.{name}"), weight);
        }
        all.insert(
            format!("{e}.w2"),
            numbers(10 * e + 5, (HIDDEN, WIDTH), dtype),
        );
    }
    all
}

/// What mixtral's block does, with rows by ids in place of a loop over what `to_vec2` gives.
fn block(x: &Traced, gate: &Traced, [w1, w2, w3]: [&[Traced]; 3]) -> candle::Result<Traced> {
    let (tokens, hidden) = x.dims2()?;
    let logits = x.matmul(&gate.t()?)?.to_dtype(DType::F32)?;
    let weights = ops::softmax_last_dim(&logits)?;
    let ids = weights
        .arg_sort_last_dim(false)?
        .narrow(D::Minus1, 0, PICKED)?;
    let ids = ids.contiguous()?;
    let scales = weights.gather(&ids, D::Minus1)?;
    let scales = scales.broadcast_div(&scales.sum_keepdim(D::Minus1)?)?;
    let ids = ids.flatten_all()?;
    let pairs = x.unsqueeze(1)?.broadcast_as((tokens, PICKED, hidden))?;
    let pairs = pairs.reshape((tokens * PICKED, hidden))?;
    let gate = moe::experts(&pairs, &ids, w1)?.silu()?;
    let y = (gate * moe::experts(&pairs, &ids, w3)?)?;
    let y = moe::experts(&y, &ids, w2)?.reshape((tokens, PICKED, hidden))?;
    y.to_dtype(DType::F32)?
        .broadcast_mul(&scales.unsqueeze(2)?)?
        .sum(1)
}

fn compile(dtype: DType, mode: HostMode) -> Engine {
    Compiler::new(Weights::from_tensors(tensors(dtype)).expect("they are copied"))
        .device(Host::new(mode))
        .profile(Profile::single(&[("n", 1, TOKENS as i64)]).expect("a profile"))
        .weight_streaming(true)
        .tile_target(TileTarget::Bytes(8 << 10))
        .compile(|vb: VarBuilder| {
            let gate = vb.get((EXPERTS, HIDDEN), "gate")?;
            let each = |shape: (usize, usize), name: &str| -> candle::Result<Vec<Traced>> {
                (0..EXPERTS).map(|e| vb.pp(e).get(shape, name)).collect()
            };
            let (w1, w3) = (each((WIDTH, HIDDEN), "w1")?, each((WIDTH, HIDDEN), "w3")?);
            let w2 = each((HIDDEN, WIDTH), "w2")?;
            Ok(move |call: &Call<'_>| {
                let x = call.input("x", (call.int("n")?, HIDDEN), dtype)?;
                Ok(vec![block(&x, &gate, [&w1, &w2, &w3])?])
            })
        })
        .expect("it compiles")
}

fn run(engine: &Engine, x: &Tensor) -> Vec<f32> {
    let mut session = engine.session().expect("a session");
    let all = session.run(std::slice::from_ref(x)).expect("it runs");
    all[0]
        .flatten_all()
        .expect("elements")
        .to_vec1()
        .expect("floats")
}

/// The same with candle, token by token.
fn by_token(x: &Tensor) -> Vec<f32> {
    let all = tensors(DType::F32);
    let times = |x: &Tensor, name: &str| {
        let weight = all[name].t().expect("a matrix");
        x.matmul(&weight).expect("they fit")
    };
    let mut out = Vec::new();
    for token in 0..x.dims()[0] {
        let x = x.narrow(0, token, 1).expect("a row");
        let logits = candle_nn::ops::softmax_last_dim(&times(&x, "gate")).expect("a row");
        let logits = logits
            .flatten_all()
            .expect("a row")
            .to_vec1::<f32>()
            .expect("floats");
        let mut order: Vec<usize> = (0..EXPERTS).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        let total: f32 = order[..PICKED].iter().map(|e| logits[*e]).sum();
        let mut sum = x.zeros_like().expect("a row");
        for e in &order[..PICKED] {
            let gate = times(&x, &format!("{e}.w1")).silu().expect("floats");
            let y = (gate * times(&x, &format!("{e}.w3"))).expect("they fit");
            let y = times(&y, &format!("{e}.w2"));
            let scale = f64::from(logits[*e] / total);
            sum = (sum + (y * scale).expect("floats")).expect("they fit");
        }
        out.extend(
            sum.flatten_all()
                .expect("a row")
                .to_vec1::<f32>()
                .expect("floats"),
        );
    }
    out
}

#[test]
fn tokens_meet_their_experts_at_every_budget_with_the_same_bits() {
    for dtype in [DType::F32, DType::BF16] {
        for mode in [HostMode::Unified, HostMode::Discrete] {
            let engine = compile(dtype, mode);
            let total = engine.total_device_budget();
            // Rows of experts stream as those of any linear layer.
            assert!(engine.minimum_device_budget() < total / 4, "{total}");
            for n in [1, 5, TOKENS] {
                let x = numbers(99 + n as u64, (n, HIDDEN), dtype);
                let x = (x * 4.0).expect("floats");
                engine.set_device_budget(Request::Full).expect("a budget");
                let whole = run(&engine, &x);
                // Which experts are picked of nearly equal ones, a rounded router may say otherwise.
                if dtype == DType::F32 {
                    let want = by_token(&x);
                    let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-4 * b.abs().max(1.0);
                    assert_eq!(whole.len(), want.len());
                    assert!(
                        whole.iter().zip(&want).all(near),
                        "{n}\n{whole:?}\n{want:?}"
                    );
                }
                for budget in ["min", "25%", "60%"] {
                    let budget: Request = budget.parse().expect("a request");
                    engine.set_device_budget(budget).expect("a budget");
                    let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                    assert!(
                        bits(&run(&engine, &x)) == bits(&whole),
                        "{dtype:?} {n} at {budget}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_report_says_that_all_experts_are_fetched() {
    let report = compile(DType::F32, HostMode::Unified).report().to_string();
    assert!(report.contains("weights of all experts"), "{report}");
}
