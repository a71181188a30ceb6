//! Random chains of tensor operations, compiled, against the reference evaluator.
//!
//! A recipe is a list of small numbers; each is one operation on tensors made before. What an
//! operation does may depend on symbolic sizes only, so that every sample point of a trace takes
//! the same path. Sizes that are runtime integers stay apart from the constants used here.

use crate::support::{compare, trace_step};
use proptest::prelude::*;
use trt_graph::Call;
use trt_graph::candle::{D, DType, Device, Module, Result, Tensor};
use trt_graph::candle_nn::{self, VarBuilder, ops};
use trt_kernel::{Dim, Env, Var};

const INTS: [(&str, i64, i64); 2] = [("rows", 7, 13), ("cols", 17, 23)];
const LARGEST: i64 = 6000;

#[derive(Clone, Copy, Debug)]
struct Choice {
    op: u8,
    from: u8,
    a: u8,
    b: u8,
}

#[derive(Clone, Debug)]
struct Recipe {
    choices: Vec<Choice>,
    outputs: Vec<u8>,
}

fn recipe() -> impl Strategy<Value = Recipe> {
    let choice = (any::<u8>(), any::<u8>(), any::<u8>(), any::<u8>())
        .prop_map(|(op, from, a, b)| Choice { op, from, a, b });
    (
        prop::collection::vec(choice, 1..9),
        prop::collection::vec(any::<u8>(), 0..3),
    )
        .prop_map(|(choices, outputs)| Recipe { choices, outputs })
}

/// A tensor with its symbolic shape.
#[derive(Clone)]
struct Value {
    t: Tensor,
    shape: Vec<Dim>,
}

fn bound(shape: &[Dim]) -> i64 {
    Dim::product(shape).eval(&Env::new(&[INTS[0].2, INTS[1].2]))
}

fn axis(v: &Value, n: u8) -> usize {
    n as usize % v.shape.len()
}

/// Sums grow; this keeps numbers near 1 so that errors stay comparable.
fn small(t: Tensor) -> Result<Tensor> {
    (t * 0.125)?.tanh()
}

fn leaves(call: &Call<'_>, vb: &VarBuilder) -> Result<Vec<Value>> {
    let (rows, cols) = (call.int("rows")?, call.int("cols")?);
    let (r, c) = (Dim::var(Var(0)), Dim::var(Var(1)));
    let d = |n: i64| Dim::from(n);
    let table = vb.get((6, 4), "w6x4")?;
    let ids = call.input("ids", rows, DType::U32)?;
    let mask: Vec<f32> = (0..rows * rows)
        .map(|i| if i % rows > i / rows { -3.0 } else { 0.0 })
        .collect();
    let line = Tensor::arange(0u32, cols as u32, &Device::Cpu)?.to_dtype(DType::F32)?;
    Ok(vec![
        Value {
            t: call.input("x", (rows, 4), DType::F32)?,
            shape: vec![r.clone(), d(4)],
        },
        Value {
            t: call.input("y", (2, rows, 6), DType::F32)?,
            shape: vec![d(2), r.clone(), d(6)],
        },
        Value {
            t: call.input("z", (1, cols, 3), DType::F32)?,
            shape: vec![d(1), c.clone(), d(3)],
        },
        Value {
            t: table.index_select(&ids, 0)?,
            shape: vec![r.clone(), d(4)],
        },
        Value {
            t: table,
            shape: vec![d(6), d(4)],
        },
        Value {
            t: Tensor::from_vec(mask, (rows, rows), &Device::Cpu)?,
            shape: vec![r.clone(), r],
        },
        Value {
            t: (line * 0.05)?,
            shape: vec![c],
        },
        Value {
            t: Tensor::new(&[[0.5f32, -1.0, 0.25, 2.0]], &Device::Cpu)?,
            shape: vec![d(1), d(4)],
        },
    ])
}

fn unary(t: &Tensor, n: u8) -> Result<Tensor> {
    match n % 9 {
        0 => t.neg(),
        1 => t.abs(),
        2 => t.tanh(),
        3 => t.silu(),
        4 => t.gelu(),
        5 => t.sin(),
        6 => ops::sigmoid(t),
        7 => t.relu(),
        _ => t.affine(-0.5, 0.25),
    }
}

fn binary(a: &Tensor, b: &Tensor, n: u8) -> Result<Tensor> {
    match n % 5 {
        0 => a.broadcast_add(b),
        1 => a.broadcast_sub(b),
        2 => small(a.broadcast_mul(b)?),
        3 => a.broadcast_maximum(b),
        _ => a.broadcast_minimum(b),
    }
}

fn broadcast(a: &[Dim], b: &[Dim]) -> Option<Vec<Dim>> {
    let rank = a.len().max(b.len());
    let get = |s: &[Dim], i: usize| {
        (i + s.len())
            .checked_sub(rank)
            .map_or(Dim::from(1), |i| s[i].clone())
    };
    (0..rank)
        .map(|i| match (get(a, i), get(b, i)) {
            (x, y) if x == y || y.is(1) => Some(x),
            (x, y) if x.is(1) => Some(y),
            _ => None,
        })
        .collect()
}

fn apply(pool: &[Value], v: &Value, k: Choice, vb: &VarBuilder) -> Result<Option<Value>> {
    let rank = v.shape.len();
    let with = |t: Tensor, shape: Vec<Dim>| Ok(Some(Value { t, shape }));
    let mut shape = v.shape.clone();
    match k.op % 16 {
        0 => with(unary(&v.t, k.a)?, shape),
        1 | 2 => {
            let fits = |o: &&Value| broadcast(&v.shape, &o.shape).is_some();
            let others: Vec<&Value> = pool.iter().filter(fits).collect();
            let other = others[k.b as usize % others.len()];
            match broadcast(&v.shape, &other.shape) {
                Some(s) => with(binary(&v.t, &other.t, k.a)?, s),
                None => Ok(None),
            }
        }
        3 => {
            let (i, j) = (axis(v, k.a), axis(v, k.b));
            shape.swap(i, j);
            with(v.t.transpose(i, j)?, shape)
        }
        4 if rank >= 2 => {
            let i = k.a as usize % (rank - 1);
            let next = shape.remove(i + 1);
            shape[i] = &shape[i] * &next;
            // Products of more than two of two runtime integers are not looked for.
            let degree = |(powers, _): &([u8; Var::MAX], i64)| powers.iter().sum::<u8>();
            if shape[i].terms().iter().any(|t| degree(t) > 2) {
                return Ok(None);
            }
            with(v.t.flatten(i, i + 1)?, shape)
        }
        5 => split(v, k),
        6 => narrowed(v, k),
        7 => {
            let i = axis(v, k.a);
            let fits = |o: &&Value| {
                o.shape.len() == rank && (0..rank).all(|x| x == i || o.shape[x] == v.shape[x])
            };
            let others: Vec<&Value> = pool.iter().filter(fits).collect();
            let other = others[k.b as usize % others.len()];
            shape[i] = &shape[i] + &other.shape[i];
            with(Tensor::cat(&[&v.t, &other.t], i)?, shape)
        }
        8 | 9 => {
            let i = axis(v, k.a);
            shape[i] = Dim::from(1);
            let t = match k.b % 3 {
                0 => small(v.t.sum_keepdim(i)?)?,
                1 => v.t.max_keepdim(i)?,
                _ => v.t.mean_keepdim(i)?,
            };
            with(t, shape)
        }
        10 => with(ops::softmax(&v.t, axis(v, k.a))?, shape),
        11 if rank >= 2 && !v.t.dims().is_empty() => {
            let inner = match v.shape[rank - 1].constant_size() {
                Some(n @ (3 | 4 | 6)) => n,
                _ => return Ok(None),
            };
            let bias = k.a.is_multiple_of(2).then(|| vb.get(5, "w5")).transpose()?;
            let linear = candle_nn::Linear::new(vb.get((5, inner), &format!("w5x{inner}"))?, bias);
            shape[rank - 1] = Dim::from(5);
            with(small(linear.forward(&v.t)?)?, shape)
        }
        12 if rank >= 2 => {
            shape[rank - 1] = shape[rank - 2].clone();
            with(small(v.t.matmul(&v.t.t()?)?)?, shape)
        }
        13 => with(v.t.gt(0.0)?.where_cond(&v.t, &v.t.neg()?)?, shape),
        14 if rank >= 2 => {
            let i = axis(v, k.a);
            shape.remove(i);
            with(v.t.mean(i)?, shape)
        }
        15 => {
            let norm = v.t.broadcast_sub(&v.t.mean_keepdim(D::Minus1)?)?;
            let scale = (norm.sqr()?.mean_keepdim(D::Minus1)? + 0.1)?.sqrt()?;
            with(norm.broadcast_div(&scale)?, shape)
        }
        _ => Ok(None),
    }
}

/// An axis as two, or one more of size 1.
fn split(v: &Value, k: Choice) -> Result<Option<Value>> {
    let with = |t: Tensor, shape: Vec<Dim>| Ok(Some(Value { t, shape }));
    let (i, rank, mut shape) = (axis(v, k.a), v.shape.len(), v.shape.clone());
    let factor = [2, 3][k.b as usize % 2];
    match v.shape[i].divide(&Dim::from(factor)).filter(|_| rank < 5) {
        Some(rest) if !rest.is(0) => {
            shape[i] = Dim::from(factor);
            shape.insert(i + 1, rest);
            let mut dims = v.t.dims().to_vec();
            dims[i] = factor as usize;
            dims.insert(i + 1, v.t.dims()[i] / factor as usize);
            with(v.t.reshape(dims)?, shape)
        }
        _ if rank < 5 => {
            shape.insert(i, Dim::from(1));
            with(v.t.unsqueeze(i)?, shape)
        }
        _ => Ok(None),
    }
}

/// A part of an axis.
fn narrowed(v: &Value, k: Choice) -> Result<Option<Value>> {
    let i = axis(v, k.a);
    let n = v.t.dims()[i];
    if n < 3 {
        return Ok(None);
    }
    let (start, len, dim) = match k.b % 3 {
        0 => (1, n - 2, &v.shape[i] - &Dim::from(2)),
        1 => (n - 1, 1, Dim::from(1)),
        _ => (0, 2, Dim::from(2)),
    };
    let mut shape = v.shape.clone();
    shape[i] = dim;
    let t = v.t.narrow(i, start, len)?;
    Ok(Some(Value { t, shape }))
}

fn model(recipe: &Recipe, call: &Call<'_>, vb: &VarBuilder) -> Result<Vec<Tensor>> {
    let mut pool = leaves(call, vb)?;
    for k in &recipe.choices {
        // Late tensors are picked more often, so that chains grow.
        let from = match k.from % 3 {
            0 => k.from as usize % pool.len(),
            _ => pool.len() - 1 - k.from as usize % pool.len().min(3),
        };
        let value = pool[from].clone();
        if let Some(new) = apply(&pool, &value, *k, vb)?
            && bound(&new.shape) <= LARGEST
        {
            pool.push(new);
        }
    }
    let mut outputs = vec![pool[pool.len() - 1].t.clone()];
    outputs.extend(
        recipe
            .outputs
            .iter()
            .map(|o| pool[*o as usize % pool.len()].t.clone()),
    );
    Ok(outputs)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_compiled_graph_computes_what_the_reference_does(recipe in recipe()) {
        let graph = trace_step(&INTS, |call, vb| model(&recipe, call, vb)).unwrap();
        for ints in [[7, 17], [11, 22]] {
            if let Err(e) = compare(&graph, &ints, 2e-4) {
                return Err(TestCaseError::fail(e));
            }
        }
    }
}

fn cases() -> u32 {
    std::env::var("RANDOM_CASES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(150)
}
