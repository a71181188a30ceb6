//! The living definition of every op: each evaluated slowly and obviously.
//!
//! Elements are held as `f64`, and rounded to the node's dtype after every node, so a graph in
//! bf16 has bf16's error here as it would op by op. Everything else is tested against this
//! module; the constant folder runs it.

use crate::Error;
use crate::graph::{AttentionOp, Graph, NodeId, Op};
use half::{bf16, f16};
use trt_kernel::{Binary, Compare, DType, Env, Reduce, Unary};

/// A tensor of the reference: shape and row-major elements.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Array {
    /// Sizes of the axes.
    pub shape: Vec<usize>,
    /// Row-major elements.
    pub data: Vec<f64>,
}

impl Array {
    /// An array from parts; lengths must agree.
    pub fn new(shape: Vec<usize>, data: Vec<f64>) -> Result<Array, Error> {
        match shape.iter().product::<usize>() == data.len() {
            true => Ok(Array { shape, data }),
            false => Err(Error::Reference(format!(
                "{} elements for shape {shape:?}",
                data.len()
            ))),
        }
    }

    /// Every element computed from its index.
    fn from_fn(shape: &[usize], mut f: impl FnMut(&[usize]) -> f64) -> Array {
        let n = shape.iter().product();
        let mut index = vec![0; shape.len()];
        let mut data = Vec::with_capacity(n);
        for _ in 0..n {
            data.push(f(&index));
            for axis in (0..shape.len()).rev() {
                index[axis] += 1;
                if index[axis] < shape[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
        Array {
            shape: shape.to_vec(),
            data,
        }
    }

    fn at(&self, index: &[usize]) -> f64 {
        let flat = index
            .iter()
            .zip(&self.shape)
            .fold(0, |acc, (i, n)| acc * n + i);
        self.data[flat]
    }
}

/// Rounds a value to what the dtype can hold.
pub fn round(value: f64, dtype: DType) -> f64 {
    match dtype {
        DType::F32 => f64::from(value as f32),
        DType::F16 => f16::from_f32(value as f32).to_f64(),
        DType::BF16 => bf16::from_f32(value as f32).to_f64(),
        DType::U8 => f64::from(value as u8),
        DType::U32 => f64::from(value as u32),
        DType::I64 => (value as i64) as f64,
    }
}

/// Elements of little-endian bytes.
pub fn decode(bytes: &[u8], dtype: DType) -> Vec<f64> {
    let chunk = |c: &[u8]| -> [u8; 8] {
        let mut b = [0; 8];
        b[..c.len()].copy_from_slice(c);
        b
    };
    bytes
        .chunks_exact(dtype.size())
        .map(|c| {
            let bits = u64::from_le_bytes(chunk(c));
            match dtype {
                DType::U8 | DType::U32 => bits as f64,
                DType::I64 => bits as i64 as f64,
                DType::BF16 => bf16::from_bits(bits as u16).to_f64(),
                DType::F16 => f16::from_bits(bits as u16).to_f64(),
                DType::F32 => f64::from(f32::from_bits(bits as u32)),
            }
        })
        .collect()
}

/// Little-endian bytes of elements.
pub fn encode(values: &[f64], dtype: DType) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(values.len() * dtype.size());
    for &v in values {
        match dtype {
            DType::U8 => bytes.push(v as u8),
            DType::U32 => bytes.extend((v as u32).to_le_bytes()),
            DType::I64 => bytes.extend((v as i64).to_le_bytes()),
            DType::BF16 => bytes.extend(bf16::from_f32(v as f32).to_le_bytes()),
            DType::F16 => bytes.extend(f16::from_f32(v as f32).to_le_bytes()),
            DType::F32 => bytes.extend((v as f32).to_le_bytes()),
        }
    }
    bytes
}

/// The values that a graph's leaves take in one call.
pub struct Leaves<'a> {
    /// The runtime integers.
    pub env: Env,
    /// Inputs, in the graph's order.
    pub inputs: &'a [Array],
    /// States before the call, in the graph's order.
    pub states: &'a [Array],
    /// Weights by name.
    pub weight: &'a dyn Fn(&str) -> Option<Array>,
}

/// The outputs of a call, and the states after it.
pub fn run(graph: &Graph, leaves: &Leaves<'_>) -> Result<(Vec<Array>, Vec<Array>), Error> {
    let mut values: Vec<Array> = Vec::with_capacity(graph.nodes.len());
    for id in graph.ids() {
        let value = evaluate(graph, id, &values, leaves)?;
        values.push(value);
    }
    let get = |id: &NodeId| values[id.index()].clone();
    let states = graph.states.iter().map(|s| get(&s.update)).collect();
    Ok((graph.outputs.iter().map(get).collect(), states))
}

/// One node from the values of its inputs (indexed by node).
pub fn evaluate(
    graph: &Graph,
    id: NodeId,
    values: &[Array],
    leaves: &Leaves<'_>,
) -> Result<Array, Error> {
    let node = graph.node(id);
    let shape: Vec<usize> = node.shape.iter().map(|d| d.size(&leaves.env)).collect();
    let input = |i: usize| &values[node.inputs[i].index()];
    let missing = |what: String| Error::Reference(format!("no value for {what}"));
    let given = |a: &Array, what: String| match a.shape == shape {
        true => Ok(a.clone()),
        false => Err(Error::Reference(format!(
            "{what} has shape {:?}, expected {shape:?}",
            a.shape
        ))),
    };
    let mut out = match &node.op {
        Op::Input(i) => given(
            leaves
                .inputs
                .get(*i as usize)
                .ok_or_else(|| missing(format!("input {i}")))?,
            format!("input {i}"),
        )?,
        Op::State(i) => given(
            leaves
                .states
                .get(*i as usize)
                .ok_or_else(|| missing(format!("state {i}")))?,
            format!("state {i}"),
        )?,
        Op::Weight(name) => given(
            &(leaves.weight)(name).ok_or_else(|| missing(format!("weight {name}")))?,
            format!("weight {name}"),
        )?,
        Op::Const(l) => Array::new(shape, decode(&l.bytes, node.dtype))?,
        Op::Float(v) => Array {
            shape,
            data: vec![f64::from(*v)],
        },
        Op::Int(d) => Array {
            shape,
            data: vec![d.eval(&leaves.env) as f64],
        },
        Op::Arange { start, step } => {
            let start = start.eval(&leaves.env);
            Array::from_fn(&shape, |i| (start + *step * i[0] as i64) as f64)
        }
        Op::Causal { offset, window } => {
            let offset = offset.eval(&leaves.env);
            Array::from_fn(&shape, |i| {
                f64::from(u8::from(hidden(i[0], i[1], offset, *window)))
            })
        }
        Op::Unary(u) => Array::from_fn(&shape, |i| unary(*u, input(0).at(i))),
        Op::Binary(b) => Array::from_fn(&shape, |i| {
            binary(*b, input(0).at(i), input(1).at(i), node.dtype)
        }),
        Op::Compare(c) => Array::from_fn(&shape, |i| {
            f64::from(u8::from(compare(*c, input(0).at(i), input(1).at(i))))
        }),
        Op::Where => Array::from_fn(&shape, |i| match input(0).at(i) != 0.0 {
            true => input(1).at(i),
            false => input(2).at(i),
        }),
        // Floats saturate, which rounding does; integers wrap.
        Op::Cast => {
            let x = input(0);
            let float = graph.node(node.inputs[0]).dtype.is_float();
            let wrapped = |v: &f64| match node.dtype {
                DType::U8 if !float => f64::from(*v as i64 as u8),
                DType::U32 if !float => f64::from(*v as i64 as u32),
                _ => *v,
            };
            Array {
                shape,
                data: x.data.iter().map(wrapped).collect(),
            }
        }
        Op::Reduce(r, axis) => reduce(*r, *axis, input(0), &shape),
        Op::Softmax => softmax(input(0)),
        Op::Matmul => matmul(input(0), input(1), &shape),
        Op::IndexSelect => {
            let (table, ids) = (input(0), input(1));
            if let Some(bad) = ids
                .data
                .iter()
                .find(|v| **v < 0.0 || **v >= table.shape[0] as f64)
            {
                return Err(Error::Reference(format!(
                    "id {bad} outside a table of {}",
                    table.shape[0]
                )));
            }
            Array::from_fn(&shape, |i| table.at(&[ids.data[i[0]] as usize, i[1]]))
        }
        Op::Reshape => Array {
            shape,
            data: input(0).data.clone(),
        },
        Op::Permute(perm) => Array::from_fn(&shape, |i| {
            let mut source = vec![0; i.len()];
            perm.iter().zip(i).for_each(|(p, x)| source[*p] = *x);
            input(0).at(&source)
        }),
        Op::Broadcast => Array::from_fn(&shape, |i| {
            let source: Vec<usize> = i
                .iter()
                .zip(&input(0).shape)
                .map(|(x, n)| if *n == 1 { 0 } else { *x })
                .collect();
            input(0).at(&source)
        }),
        Op::Narrow { axis, start } => {
            let start = start.size(&leaves.env);
            Array::from_fn(&shape, |i| {
                let mut source = i.to_vec();
                source[*axis] += start;
                input(0).at(&source)
            })
        }
        Op::Cat(axis) | Op::Append(axis) => {
            let parts: Vec<&Array> = node.inputs.iter().map(|i| &values[i.index()]).collect();
            Array::from_fn(&shape, |i| cat_at(&parts, *axis, i))
        }
        Op::Rope => rope(input(0), input(1), input(2)),
        Op::Attention(a) => {
            let bias = a.bias.then(|| input(3));
            attention(a, input(0), input(1), input(2), bias, &leaves.env)
        }
    };
    out.data.iter_mut().for_each(|v| *v = round(*v, node.dtype));
    Ok(out)
}

fn cat_at(parts: &[&Array], axis: usize, index: &[usize]) -> f64 {
    let mut source = index.to_vec();
    for part in parts {
        if source[axis] < part.shape[axis] {
            return part.at(&source);
        }
        source[axis] -= part.shape[axis];
    }
    f64::NAN
}

/// Whether key `j` is hidden from query `i`.
pub fn hidden(i: usize, j: usize, offset: i64, window: Option<usize>) -> bool {
    let last = i as i64 + offset;
    let j = j as i64;
    j > last || window.is_some_and(|w| j <= last - w as i64)
}

/// The definition of every one-operand function.
pub fn unary(f: Unary, x: f64) -> f64 {
    match f {
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Tanh => x.tanh(),
        Unary::Sqr => x * x,
        Unary::Sqrt => x.sqrt(),
        Unary::Recip => 1.0 / x,
        Unary::Erf => erf(x),
        Unary::Relu => x.max(0.0),
        Unary::Silu => x / (1.0 + (-x).exp()),
        Unary::Gelu => {
            0.5 * x
                * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
        }
        Unary::GeluErf => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
        Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Unary::Floor => x.floor(),
        Unary::Ceil => x.ceil(),
        Unary::Round => x.round(),
        Unary::Sign => f64::from(u8::from(x > 0.0)) - f64::from(u8::from(x < 0.0)),
    }
}

/// The error function by its Maclaurin series (|x| < 3) or a continued fraction.
fn erf(x: f64) -> f64 {
    let a = x.abs();
    let value = if a < 3.0 {
        let (mut term, mut sum) = (a, a);
        for n in 1..80 {
            term *= -a * a / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    } else {
        let tail = (1..60)
            .rev()
            .fold(0.0, |acc, n| f64::from(n) / 2.0 / (a + acc));
        1.0 - (-a * a).exp() / std::f64::consts::PI.sqrt() / (a + tail)
    };
    value.copysign(x)
}

/// The definition of every two-operand function; integers divide towards zero.
pub fn binary(f: Binary, a: f64, b: f64, dtype: DType) -> f64 {
    match f {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div if dtype.is_float() => a / b,
        Binary::Div => (a / b).trunc(),
        Binary::Maximum => a.max(b),
        Binary::Minimum => a.min(b),
        Binary::Pow => a.powf(b),
    }
}

/// The definition of every comparison.
pub fn compare(f: Compare, a: f64, b: f64) -> bool {
    match f {
        Compare::Eq => a == b,
        Compare::Ne => a != b,
        Compare::Lt => a < b,
        Compare::Le => a <= b,
        Compare::Gt => a > b,
        Compare::Ge => a >= b,
    }
}

fn reduce(f: Reduce, axis: usize, x: &Array, shape: &[usize]) -> Array {
    Array::from_fn(shape, |i| {
        let mut source = i.to_vec();
        let values = (0..x.shape[axis]).map(|j| {
            source[axis] = j;
            x.at(&source)
        });
        match f {
            Reduce::Sum => values.sum(),
            Reduce::Max => values.fold(f64::NEG_INFINITY, f64::max),
            Reduce::Min => values.fold(f64::INFINITY, f64::min),
        }
    })
}

fn softmax_row(row: &mut [f64]) {
    let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    row.iter_mut().for_each(|v| *v = (*v - max).exp());
    let sum: f64 = row.iter().sum();
    row.iter_mut().for_each(|v| *v /= sum);
}

fn softmax(x: &Array) -> Array {
    let mut out = x.clone();
    let cols = x.shape.last().copied().unwrap_or(1).max(1);
    out.data.chunks_mut(cols).for_each(softmax_row);
    out
}

fn matmul(a: &Array, b: &Array, shape: &[usize]) -> Array {
    let rank = shape.len();
    let k = a.shape[rank - 1];
    Array::from_fn(shape, |i| {
        let (mut ia, mut ib) = (i.to_vec(), i[rank - b.shape.len()..].to_vec());
        let rb = ib.len();
        (0..k)
            .map(|x| {
                ia[rank - 1] = x;
                ib[rb - 2] = x;
                a.at(&ia) * b.at(&ib)
            })
            .sum()
    })
}

fn rope(x: &Array, cos: &Array, sin: &Array) -> Array {
    let half = x.shape[3] / 2;
    Array::from_fn(&x.shape, |i| {
        let (b, h, s, j) = (i[0], i[1], i[2], i[3]);
        let (c, n) = (cos.at(&[s, j % half]), sin.at(&[s, j % half]));
        match j < half {
            true => x.at(i) * c - x.at(&[b, h, s, j + half]) * n,
            false => x.at(i) * c + x.at(&[b, h, s, j - half]) * n,
        }
    })
}

fn attention(
    op: &AttentionOp,
    q: &Array,
    k: &Array,
    v: &Array,
    bias: Option<&Array>,
    env: &Env,
) -> Array {
    let (heads, groups, keys) = (q.shape[1], k.shape[1], k.shape[2]);
    let shape = [q.shape[0], heads, q.shape[2], v.shape[3]];
    let mut row = vec![0.0; keys];
    let mut current = None;
    Array::from_fn(&shape, |i| {
        let (b, h, s) = (i[0], i[1], i[2]);
        let g = h * groups / heads;
        if current != Some((b, h, s)) {
            current = Some((b, h, s));
            for (j, score) in row.iter_mut().enumerate() {
                let dot: f64 = (0..q.shape[3])
                    .map(|d| q.at(&[b, h, s, d]) * k.at(&[b, g, j, d]))
                    .sum();
                *score = dot * f64::from(op.scale);
                if let Some(cap) = op.soft_cap {
                    *score = f64::from(cap) * (*score / f64::from(cap)).tanh();
                }
                *score += bias.map_or(0.0, |m| m.at(&[b, h, s, j]));
                if let Some((offset, window)) = &op.causal
                    && hidden(s, j, offset.eval(env), *window)
                {
                    *score = f64::NEG_INFINITY;
                }
            }
            match row.iter().all(|v| *v == f64::NEG_INFINITY) {
                true => row.fill(0.0),
                false => softmax_row(&mut row),
            }
        }
        row.iter()
            .enumerate()
            .map(|(j, p)| p * v.at(&[b, g, j, i[3]]))
            .sum()
    })
}

/// The value of a node that depends on no input, weight or state; `None` for any other.
pub fn constant(graph: &Graph, id: NodeId, env: &Env) -> Option<Array> {
    let mut needed = vec![false; id.index() + 1];
    needed[id.index()] = true;
    for i in (0..=id.index()).rev() {
        if needed[i] {
            let node = graph.node(NodeId(i as u32));
            if matches!(node.op, Op::Input(_) | Op::Weight(_) | Op::State(_)) {
                return None;
            }
            node.inputs.iter().for_each(|x| needed[x.index()] = true);
        }
    }
    let leaves = Leaves {
        env: *env,
        inputs: &[],
        states: &[],
        weight: &|_| None,
    };
    let mut values = vec![Array::default(); id.index() + 1];
    for i in (0..=id.index()).filter(|i| needed[*i]) {
        values[i] = evaluate(graph, NodeId(i as u32), &values, &leaves).ok()?;
    }
    values.pop()
}
