//! Experts as layers: what a loop over the experts' modules gives, in one call, or an error.

use crate::support::{inputs, trace_step, weight};
use trt_graph::candle::{D, DType, Result, Tensor};
use trt_graph::candle_nn::{Linear, Module, VarBuilder, moe, ops};
use trt_graph::reference::{Array, Leaves, run};
use trt_graph::{Error, Graph};
use trt_kernel::{Env, Kernel};

const EXPERTS: usize = 4;
const PICKED: usize = 2;

/// An expert: two layers with biases, between them an activation.
struct Layers {
    up: Linear,
    down: Linear,
}

impl Layers {
    fn new(vb: VarBuilder<'_>) -> Result<Layers> {
        let layer = |vb: VarBuilder<'_>, n: usize, k: usize| {
            let weight = vb.get((n, k), &format!("w{n}x{k}"))?;
            Ok::<_, trt_graph::candle::Error>(Linear::new(
                weight,
                Some(vb.get(n, &format!("w{n}"))?),
            ))
        };
        Ok(Layers {
            up: layer(vb.pp("up"), 6, 4)?,
            down: layer(vb.pp("down"), 4, 6)?,
        })
    }
}

impl Module for Layers {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let inner = (self.up.forward(x)?.silu()? * 1.5)?;
        self.down.forward(&inner)? + x
    }
}

/// Tokens, the experts of each and their shares.
fn traced(
    layer: impl Fn(usize, &Tensor, &[Layers]) -> Result<Tensor>,
) -> std::result::Result<Graph, Error> {
    trace_step(&[("n", 1, 9)], |call, vb| {
        let n = call.int("n")?;
        let each = (0..EXPERTS).map(|e| Layers::new(vb.clone().root().pp(format!("e{e}"))));
        let each = each.collect::<Result<Vec<_>>>()?;
        let x = call.input("x", (n, 4), DType::F32)?;
        let scores = call.input("scores", (n, EXPERTS), DType::F32)?;
        let ids = scores
            .arg_sort_last_dim(false)?
            .narrow(D::Minus1, 0, PICKED)?
            .contiguous()?;
        let shares = ops::softmax_last_dim(&scores)?.gather(&ids, D::Minus1)?;
        let ys = moe::routed(&x, &ids, &shares, EXPERTS, |e, rows| layer(e, rows, &each))?;
        Ok(vec![ys, ids, shares])
    })
}

/// What an expert makes of one row.
fn one(expert: usize, x: &[f64]) -> Vec<f64> {
    let of = |name: &str| weight(&format!("e{expert}.{name}")).expect("a weight").data;
    let layer = |x: &[f64], w: Vec<f64>, b: Vec<f64>| -> Vec<f64> {
        let row = |(w, b): (&[f64], &f64)| w.iter().zip(x).map(|(w, x)| w * x).sum::<f64>() + b;
        w.chunks(x.len()).zip(&b).map(row).collect()
    };
    let up = layer(x, of("up.w6x4"), of("up.w6"));
    let up: Vec<f64> = up.iter().map(|v| 1.5 * v / (1.0 + (-v).exp())).collect();
    let down = layer(&up, of("down.w4x6"), of("down.w4"));
    down.iter().zip(x).map(|(y, x)| y + x).collect()
}

#[test]
fn each_token_gets_what_a_loop_over_the_experts_gives() {
    let graph = traced(|e, rows, each| each[e].forward(rows)).expect("it traces");
    for n in [1, 5, 9] {
        let env = Env::new(&[n]);
        let given = inputs(&graph, &env);
        let leaves = Leaves {
            env,
            inputs: &given,
            states: &[],
            weight: &weight,
        };
        let (out, _) = run(&graph, &leaves).expect("it runs");
        let [ys, ids, shares]: [Array; 3] = out.try_into().expect("three results");
        for (t, y) in ys.data.chunks(4).enumerate() {
            let mut want = [0.0; 4];
            for i in PICKED * t..PICKED * (t + 1) {
                let got = one(ids.data[i] as usize, &given[0].data[4 * t..][..4]);
                want.iter_mut()
                    .zip(got)
                    .for_each(|(w, y)| *w += shares.data[i] * y);
            }
            for (y, want) in y.iter().zip(want) {
                assert!((y - want).abs() < 1e-5, "token {t} of {n}: {y} for {want}");
            }
        }
    }
    let (program, _) = trt_graph::compile(graph).expect("it compiles");
    let routed = program
        .launches
        .iter()
        .filter(|l| matches!(l.kernel, Kernel::Routed(_)));
    assert_eq!(routed.count(), 2 * EXPERTS);
    assert_eq!(program.ranged_uses().count(), 2 * EXPERTS);
}

/// What an expert does with rows, given all experts' layers.
type Expert = dyn Fn(usize, &Tensor, &[Layers]) -> Result<Tensor>;

/// A loop gives each expert its own rows only, so what looks at other rows would be something else here.
#[test]
fn experts_that_mix_rows_or_differ_otherwise_are_refused() {
    let refused: [(&str, &Expert); 5] = [
        ("row by row", &|e, x, each| {
            each[e].forward(x)?.broadcast_sub(&x.mean_keepdim(0)?)
        }),
        ("row by row", &|e, x, each| each[e].forward(x)?.cumsum(0)),
        ("where another computes", &|e, x, each| match e {
            0 => each[e].forward(x),
            _ => each[e].up.forward(x)?.narrow(1, 0, 4),
        }),
        ("experts differ", &|e, x, _| x.affine(2.0 + e as f64, 0.0)),
        ("a row of its own", &|e, x, each| {
            let places = Tensor::arange(0f32, x.dims()[0] as f32, x.device())?;
            each[e].forward(x)?.broadcast_add(&places.unsqueeze(1)?)
        }),
    ];
    for (what, layer) in refused {
        let said = traced(layer).expect_err(what).to_string();
        assert!(said.contains("routed: ") && said.contains(what), "{said}");
    }
}
