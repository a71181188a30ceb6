//! Programs of hand-picked graphs: what random chains reach rarely.

use crate::support::{compare, trace_in, trace_step};
use trt_graph::candle::{D, DType, Device, Module, Result, Tensor};
use trt_graph::candle_nn::{self, Linear, VarBuilder, kv_cache::KvCache, ops, rotary_emb};
use trt_graph::{Call, Profile};

const SEQ: [(&str, i64, i64); 1] = [("n", 2, 9)];

/// Compiles a step over `n` and compares it with the reference at several lengths.
fn holds(step: impl Fn(&Tensor, &VarBuilder) -> Result<Vec<Tensor>>) {
    let graph = trace_step(&SEQ, |call, vb| {
        step(&call.input("x", (call.int("n")?, 4), DType::F32)?, vb)
    })
    .unwrap();
    for n in [2, 6, 9] {
        if let Err(e) = compare(&graph, &[n], 1e-5) {
            panic!("{e}");
        }
    }
}

#[test]
fn a_value_with_several_users_is_computed_for_each() {
    holds(|x, vb| {
        let h = x.silu()?;
        let a = Linear::new(vb.get((5, 4), "w5x4")?, None).forward(&h)?;
        let b = h.sum_keepdim(1)?;
        Ok(vec![a.broadcast_add(&b)?, h.clone(), (h * 2.0)?])
    });
}

#[test]
fn outputs_may_be_views_of_inputs_and_of_results() {
    holds(|x, _| {
        Ok(vec![
            x.t()?,
            x.narrow(0, 1, 1)?,
            x.exp()?.t()?,
            x.exp()?.flatten_all()?,
        ])
    });
}

#[test]
fn outputs_may_be_inputs_weights_constants_and_repeats() {
    holds(|x, vb| {
        let c = Tensor::new(&[1f32, 2., 3.], &Device::Cpu)?;
        let fill = Tensor::full(0.5f32, x.shape(), &Device::Cpu)?;
        let y = x.neg()?;
        Ok(vec![
            x.clone(),
            vb.get((5, 4), "w5x4")?,
            c,
            fill,
            y.clone(),
            y,
        ])
    });
}

#[test]
fn joined_parts_may_repeat() {
    holds(|x, _| {
        let y = x.abs()?;
        let twice = Tensor::cat(&[&y, x, &y], 0)?;
        Ok(vec![
            twice,
            Tensor::cat(&[x, x, x], 1)?,
            Tensor::cat(&[&y, &y], 1)?,
        ])
    });
}

#[test]
fn a_joined_tensor_may_be_part_of_another() {
    holds(|x, _| {
        let inner = Tensor::cat(&[&x.neg()?, x], 1)?;
        Ok(vec![Tensor::cat(&[&inner, &inner.abs()?], 0)?])
    });
}

#[test]
fn reductions_run_over_any_axis() {
    holds(|x, vb| {
        let y = vb.get((3, 4), "w3x4")?.unsqueeze(1)?.broadcast_add(x)?;
        Ok(vec![
            y.sum_keepdim(0)?,
            y.max(1)?,
            y.min_keepdim(2)?,
            y.mean((0, 1))?,
            y.sum_all()?,
            ops::softmax(&y, 1)?,
        ])
    });
}

#[test]
fn a_table_serves_a_gather_and_a_product() {
    let graph = trace_step(&SEQ, |call, vb| {
        let ids = call.input("ids", (1, call.int("n")?), DType::U32)?;
        let table = vb.get((6, 4), "w6x4")?;
        let x = candle_nn::Embedding::new(table.clone(), 4).forward(&ids)?;
        Ok(vec![Linear::new(table, None).forward(&x)?])
    })
    .unwrap();
    let (program, _) = trt_graph::compile(graph.clone()).unwrap();
    assert_eq!(program.weights[0].roles.to_string(), "rows+table");
    compare(&graph, &[5], 1e-5).unwrap();
}

#[test]
fn a_weight_may_be_added_to_its_own_product() {
    let graph = trace_step(&[("m", 4, 4)], |call, vb| {
        let w = vb.get((4, 4), "w4x4")?;
        let x = call.input("x", (call.int("m")?, 4), DType::F32)?;
        Ok(vec![(Linear::new(w.clone(), None).forward(&x)? + &w)?])
    })
    .unwrap();
    compare(&graph, &[4], 1e-5).unwrap();
}

#[test]
fn a_table_may_be_read_along_its_second_axis() {
    holds(|x, vb| {
        let ids = Tensor::new(&[2u32, 0, 3], &Device::Cpu)?;
        let picked = vb.get((6, 4), "w6x4")?.index_select(&ids, 1)?;
        Ok(vec![picked, x.clone()])
    });
}

#[test]
fn one_matrix_serves_several_leading_axes() {
    holds(|x, vb| {
        let y = Tensor::stack(&[x, &x.neg()?], 0)?;
        let fixed = Tensor::new(&[[1f32, 2.], [3., 4.], [5., 6.], [7., 8.]], &Device::Cpu)?;
        let made = vb.get((5, 4), "w5x4")?.tanh()?;
        Ok(vec![
            y.broadcast_matmul(&fixed)?,
            Linear::new(made, None).forward(&y)?,
        ])
    });
}

#[test]
fn products_take_several_batch_axes() {
    holds(|x, _| {
        let a = Tensor::stack(&[x, &x.neg()?, &x.sin()?], 0)?.unsqueeze(0)?;
        let a = Tensor::cat(&[&a, &a.cos()?], 0)?;
        Ok(vec![a.matmul(&a.t()?)?, a.t()?.matmul(&a)?])
    });
}

#[test]
fn axes_of_size_one_cost_nothing() {
    holds(|x, _| {
        let y = x.unsqueeze(1)?.unsqueeze(0)?;
        let z = (y.squeeze(2)? * 2.0)?.transpose(0, 1)?;
        Ok(vec![
            z.clone(),
            z.sum_keepdim(1)?,
            z.broadcast_add(&y.squeeze(0)?)?,
        ])
    });
}

#[test]
fn row_sums_that_are_turned_into_columns_are_no_softmax() {
    let graph = trace_step(&[("n", 2, 9)], |call, _| {
        let n = call.int("n")?;
        let x = call.input("x", (n, n), DType::F32)?;
        let e = x.broadcast_sub(&x.max_keepdim(1)?)?.exp()?;
        Ok(vec![e.broadcast_div(&e.sum(1)?)?])
    })
    .unwrap();
    compare(&graph, &[5], 1e-5).unwrap();
}

#[test]
fn masks_and_comparisons_are_numbers_too() {
    holds(|x, _| {
        let above = x.gt(0.0)?;
        let count = above.to_dtype(DType::F32)?.sum_keepdim(1)?;
        let both = x.ge(&x.neg()?)?.to_dtype(DType::U32)?;
        Ok(vec![above, count, both, x.clamp(-0.5, 0.5)?])
    });
}

#[test]
fn half_precision_keeps_its_own_error_only() {
    for dtype in [DType::BF16, DType::F16] {
        let graph = trace_step(&SEQ, |call, vb| {
            let x = call.input("x", (call.int("n")?, 4), dtype)?;
            let w = vb.get((5, 4), "h5x4")?.to_dtype(dtype)?;
            let y = Linear::new(w, None).forward(&x)?.silu()?;
            Ok(vec![ops::softmax(&y, D::Minus1)?, y])
        })
        .unwrap();
        compare(&graph, &[6], 2e-2).unwrap();
    }
}

/// A decoder layer in small: grouped heads, rope tables, a causal mask and a cache.
struct Layer {
    vb: VarBuilder<'static>,
    cache: KvCache,
    cos: Tensor,
    sin: Tensor,
    slow: bool,
}

const HEADS: usize = 4;
const GROUPS: usize = 2;
const SIZE: usize = 8;

impl Layer {
    fn load(vb: VarBuilder<'static>, slow: bool) -> Result<Layer> {
        let inverse: Vec<f32> = (0..SIZE / 2).map(|i| 0.3f32.powi(i as i32)).collect();
        let inverse = Tensor::new(inverse.as_slice(), &Device::Cpu)?.reshape((1, SIZE / 2))?;
        let positions = Tensor::arange(0u32, 64, &Device::Cpu)?.to_dtype(DType::F32)?;
        let angles = positions.reshape((64, 1))?.matmul(&inverse)?;
        let (cos, sin) = (angles.cos()?, angles.sin()?);
        Ok(Layer {
            vb,
            cache: KvCache::new(2, 64),
            cos,
            sin,
            slow,
        })
    }

    fn heads(&self, x: &Tensor, n: usize, weight: &str, seq: usize) -> Result<Tensor> {
        let w = self
            .vb
            .pp(format!("{weight}{n}"))
            .get((n * SIZE, 16), &format!("w{}x16", n * SIZE))?;
        Linear::new(w, None)
            .forward(x)?
            .reshape((1, seq, n, SIZE))?
            .transpose(1, 2)
    }

    fn rope(&self, x: &Tensor, past: usize, seq: usize) -> Result<Tensor> {
        let (cos, sin) = (
            self.cos.narrow(0, past, seq)?,
            self.sin.narrow(0, past, seq)?,
        );
        match self.slow {
            true => rotary_emb::rope_slow(x, &cos, &sin),
            false => rotary_emb::rope(&x.contiguous()?, &cos, &sin),
        }
    }

    fn step(&mut self, call: &Call<'_>) -> Result<Vec<Tensor>> {
        let (past, seq) = (call.int("past")?, call.int("seq")?);
        let x = call.input("x", (1, seq, 16), DType::F32)?;
        let q = self.rope(&self.heads(&x, HEADS, "q", seq)?, past, seq)?;
        let k = self.rope(&self.heads(&x, GROUPS, "k", seq)?, past, seq)?;
        let (k, v) = self.cache.append(&k, &self.heads(&x, GROUPS, "v", seq)?)?;
        let repeat = |t: Tensor| {
            let n = HEADS / GROUPS;
            Tensor::cat(&vec![&t; n], 2)?.reshape((1, HEADS, past + seq, SIZE))
        };
        let (k, v) = (repeat(k)?, repeat(v)?);
        let mask: Vec<f32> = (0..seq * (past + seq))
            .map(|i| {
                if i % (past + seq) > i / (past + seq) + past {
                    f32::NEG_INFINITY
                } else {
                    0.
                }
            })
            .collect();
        let mask = Tensor::from_vec(mask, (1, 1, seq, past + seq), &Device::Cpu)?;
        let scores = (q.matmul(&k.t()?)? / (SIZE as f64).sqrt())?.broadcast_add(&mask)?;
        let p = if self.slow {
            let e = scores
                .broadcast_sub(&scores.max_keepdim(D::Minus1)?)?
                .exp()?;
            e.broadcast_div(&e.sum_keepdim(D::Minus1)?)?
        } else {
            ops::softmax_last_dim(&scores)?
        };
        let y = p
            .matmul(&v)?
            .transpose(1, 2)?
            .reshape((1, seq, HEADS * SIZE))?;
        let alpha = self.vb.get(HEADS * SIZE, "w32")?;
        let y = if self.slow {
            let scale = (y.sqr()?.mean_keepdim(D::Minus1)? + 1e-5)?.sqrt()?;
            y.broadcast_div(&scale)?.broadcast_mul(&alpha)?
        } else {
            ops::rms_norm(&y, &alpha, 1e-5)?
        };
        Ok(vec![y])
    }
}

pub fn decoder(class: usize, slow: bool) -> trt_graph::Graph {
    let mut profile = Profile::decoder(64, 16).unwrap();
    profile.classes.swap(0, class);
    trace_in(&profile, |vb| {
        let mut layer = Layer::load(vb, slow)?;
        Ok(move |call: &Call<'_>| layer.step(call))
    })
    .unwrap()
}

#[test]
fn a_decoder_layer_appends_to_its_cache_at_every_length() {
    for (class, calls) in [
        (0, [[0, 1], [1, 1], [63, 1]]),
        (1, [[0, 16], [5, 2], [40, 16]]),
    ] {
        let graph = decoder(class, false);
        assert_eq!(graph.states.len(), 2);
        for ints in calls {
            if let Err(e) = compare(&graph, &ints, 1e-5) {
                panic!("{e}");
            }
        }
    }
}

#[test]
fn hand_spelled_rope_softmax_and_norm_compile_to_the_named_kernels() {
    for class in [0, 1] {
        let kernels = |slow| {
            let (program, _) = trt_graph::compile(decoder(class, slow)).unwrap();
            program
                .launches
                .into_iter()
                .map(|l| (l.label, l.kernel))
                .collect::<Vec<_>>()
        };
        let (named, spelled) = (kernels(false), kernels(true));
        let labels =
            |k: &[(String, trt_kernel::Kernel)]| k.iter().map(|k| k.0.clone()).collect::<Vec<_>>();
        assert_eq!(labels(&named), labels(&spelled));
        assert_eq!(named, spelled);
    }
}

#[test]
fn the_same_call_of_a_cache_is_the_same_whether_it_is_spelled_by_hand() {
    let graph = decoder(1, true);
    compare(&graph, &[7, 5], 1e-5).unwrap();
}
