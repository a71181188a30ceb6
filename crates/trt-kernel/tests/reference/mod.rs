//! Kernels executed slowly and obviously, in f64: what the host back end is compared with.
#![allow(dead_code, reason = "each test binary uses its own part")]

mod buffer;
pub mod packed;
pub mod units;

pub use buffer::Buffer;

use trt_kernel::host::Span;
use trt_kernel::*;

/// The larger of two distances; a NaN is the worst.
fn worse(a: f64, b: f64) -> f64 {
    if b.is_nan() || b > a { b } else { a }
}

/// Runs a kernel on the host.
pub fn host(
    kernel: &Kernel,
    env: &Env,
    rows: Option<std::ops::Range<usize>>,
    args: &mut [Buffer],
) -> Result<(), host::HostError> {
    let mut spans: Vec<Span> = args
        .iter_mut()
        .map(|b| Span::from_mut(&mut b.bytes))
        .collect();
    static TEAM: std::sync::OnceLock<host::Team> = std::sync::OnceLock::new();
    let team = TEAM.get_or_init(|| host::Team::new(2));
    // SAFETY: kernels of these tests write no element twice, and read none that another writes.
    unsafe { host::run_with(kernel, env, rows, &mut spans, team) }
}

/// Runs a kernel on the host and by the reference, and returns the largest distance.
pub fn compare(kernel: &Kernel, env: &Env, args: &[Buffer]) -> f64 {
    let (mut ours, mut exact) = (args.to_vec(), args.to_vec());
    host(kernel, env, None, &mut ours).unwrap();
    run(kernel, env, &mut exact);
    (ours.iter().zip(&exact))
        .map(|(a, b)| a.distance(b))
        .fold(0.0, worse)
}

fn at(view: &View, env: &Env, index: &[usize]) -> i64 {
    let steps = index.iter().zip(&view.strides);
    view.offset.eval(env) + steps.map(|(i, s)| *i as i64 * s.eval(env)).sum::<i64>()
}

fn points(sizes: &[usize]) -> Vec<Vec<usize>> {
    sizes.iter().fold(vec![vec![]], |all, n| {
        (all.iter())
            .flat_map(|p| (0..*n).map(|i| [&p[..], &[i]].concat()))
            .collect()
    })
}

fn unary(f: Unary, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let erf = |x: f64| {
        let (mut term, mut sum) = (x, x);
        for n in 1..100 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        if x.abs() > 4.0 {
            x.signum()
        } else {
            sum * std::f64::consts::FRAC_2_SQRT_PI
        }
    };
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
        Unary::Silu => x * sigmoid(x),
        Unary::Gelu => 0.5 * x * (1.0 + (0.7978845608028654 * x * (1.0 + 0.044715 * x * x)).tanh()),
        Unary::GeluErf => 0.5 * x * (1.0 + erf(x / 2f64.sqrt())),
        Unary::Sigmoid => sigmoid(x),
        Unary::Floor => x.floor(),
        Unary::Ceil => x.ceil(),
        Unary::Round => x.round(),
        Unary::Sign => f64::from(i8::from(x > 0.0) - i8::from(x < 0.0)),
    }
}

/// Runs a body over the points of one row (all sharing `outer`), column by column.
fn body(
    body: &Body,
    env: &Env,
    args: &mut [Buffer],
    outer: &[usize],
    cols: std::ops::Range<usize>,
    input: &dyn Fn(usize) -> f64,
) -> Vec<f64> {
    let dtypes: Vec<DType> = args.iter().map(Buffer::dtype).collect();
    let types = body.types(&dtypes).unwrap();
    let mut regs: Vec<Vec<f64>> = Vec::new();
    let mut yielded = Vec::new();
    for inst in &body.insts {
        let index = |c: usize| [outer, &[c]].concat();
        let each = |f: &dyn Fn(usize) -> f64| cols.clone().map(f).collect::<Vec<f64>>();
        let reg = |r: &Reg, c: usize| regs[r.0 as usize][c - cols.start];
        let integer = |r: &Reg| types[r.0 as usize] == Some(Ty::I64);
        let value = match inst {
            Inst::Load(a, v) => each(&|c| args[a.0 as usize].get(at(v, env, &index(c)))),
            Inst::Pick(a, v, s, by) => each(&|c| {
                let ahead = reg(by, c) as i64 * s.eval(env);
                args[a.0 as usize].get(at(v, env, &index(c)) + ahead)
            }),
            Inst::Within(x, size) => each(&|c| {
                let (x, size) = (reg(x, c), size.eval(env) as f64);
                assert!((0.0..size).contains(&x), "{x} of {size}");
                x
            }),
            Inst::Input => each(input),
            Inst::F32(x) => each(&|_| f64::from(*x)),
            Inst::I64(d) => each(&|_| d.eval(env) as f64),
            Inst::Iota(axis) => each(&|c| index(c)[*axis as usize] as f64),
            Inst::Unary(f, x) => each(&|c| unary(*f, reg(x, c))),
            Inst::Binary(f, x, y) => each(&|c| {
                let (a, b) = (reg(x, c), reg(y, c));
                match f {
                    Binary::Add => a + b,
                    Binary::Sub => a - b,
                    Binary::Mul => a * b,
                    Binary::Div if integer(x) => (a / b).trunc(),
                    Binary::Div => a / b,
                    Binary::Maximum if a < b => b,
                    Binary::Minimum if a > b => b,
                    Binary::Maximum | Binary::Minimum => a,
                    Binary::Pow => a.powf(b),
                }
            }),
            Inst::Compare(f, x, y) => each(&|c| {
                let (a, b) = (reg(x, c), reg(y, c));
                f64::from(match f {
                    Compare::Eq => a == b,
                    Compare::Ne => a != b,
                    Compare::Lt => a < b,
                    Compare::Le => a <= b,
                    Compare::Gt => a > b,
                    Compare::Ge => a >= b,
                })
            }),
            Inst::Select(p, x, y) => each(&|c| {
                if reg(p, c) != 0.0 {
                    reg(x, c)
                } else {
                    reg(y, c)
                }
            }),
            Inst::Cast(x, Ty::F32) => each(&|c| reg(x, c)),
            Inst::Cast(x, Ty::I64) => each(&|c| reg(x, c).trunc()),
            Inst::Cast(x, Ty::Bool) => each(&|c| f64::from(reg(x, c) != 0.0)),
            Inst::Reduce(f, x) => {
                let all = cols.clone().map(|c| reg(x, c));
                let folded = match f {
                    Reduce::Sum => all.sum(),
                    Reduce::Max => all.fold(f64::NEG_INFINITY, f64::max),
                    Reduce::Min => all.fold(f64::INFINITY, f64::min),
                };
                each(&|_| folded)
            }
            Inst::Store(a, v, x) => {
                for c in cols.clone() {
                    let (i, value) = (at(v, env, &index(c)), reg(x, c));
                    args[a.0 as usize].set(i, value);
                }
                vec![]
            }
            Inst::Yield(x) => {
                yielded = each(&|c| reg(x, c));
                vec![]
            }
        };
        regs.push(value);
    }
    yielded
}

/// Runs a kernel.
pub fn run(kernel: &Kernel, env: &Env, args: &mut [Buffer]) {
    match kernel {
        Kernel::Group(_) => {
            for (first, part) in kernel.numbered_parts() {
                let own = first as usize..first as usize + part.args().len();
                run(part, env, &mut args[own]);
            }
        }
        Kernel::Row(k) => {
            let sizes: Vec<usize> = k.space.iter().map(|d| d.size(env)).collect();
            let (cols, outer) = sizes.split_last().unwrap();
            for p in points(outer) {
                body(&k.body, env, args, &p, 0..*cols, &|_| 0.0);
            }
        }
        Kernel::Matmul(k) => {
            if let Some((product, rows)) = packed::plain(k, args) {
                let b = k.b.arg.0 as usize;
                let units = std::mem::replace(&mut args[b], rows);
                run(&Kernel::Matmul(product), env, args);
                args[b] = units;
                return;
            }
            if let Some((row, product)) = k.split() {
                let elements = row.space.iter().map(|d| d.size(env)).product();
                let mut all = args.to_vec();
                all.push(Buffer::zeros(k.left_dtype(), elements));
                run(&Kernel::Row(row), env, &mut all);
                run(&Kernel::Matmul(product), env, &mut all);
                return args.clone_from_slice(&all[..args.len()]);
            }
            product(k, env, args, |_, _| true);
        }
        Kernel::Routed(k) => {
            let ids = args[k.ids.arg.0 as usize].clone();
            product(&k.product, env, args, |batch, m| {
                ids.get(at(&k.ids.view, env, &[m])) == (k.first + batch) as f64
            });
        }
        Kernel::Attention(k) => {
            let Some((rows, inner)) = k.split() else {
                return attention(k, env, args);
            };
            let mut all = args.to_vec();
            let own = *inner.args.last().unwrap();
            all.push(Buffer::zeros(own, k.own_elements().unwrap()));
            for row in rows {
                run(&Kernel::Row(row.clone()), env, &mut all);
            }
            attention(&inner, env, &mut all);
            args.clone_from_slice(&all[..args.len()]);
        }
        Kernel::Gather(k) => {
            for r in 0..k.rows.size(env) {
                let id = args[k.ids.arg.0 as usize].get(at(&k.ids.view, env, &[r])) as usize;
                let row: Vec<f64> = (0..k.cols)
                    .map(|c| args[k.table.0 as usize].get((id * k.cols + c) as i64))
                    .collect();
                body(&k.body, env, args, &[r], 0..k.cols, &|c| row[c]);
            }
        }
        Kernel::Move(k) => {
            let sizes: Vec<usize> = k.space.iter().map(|d| d.size(env)).collect();
            for p in points(&sizes) {
                let x = args[0].get(at(&k.src, env, &p));
                args[1].set(at(&k.dst, env, &p), x);
            }
        }
    }
}

/// A product at the batches and rows that are wanted.
fn product(k: &Matmul, env: &Env, args: &mut [Buffer], wanted: impl Fn(usize, usize) -> bool) {
    let a = k.a.stored().unwrap();
    let [b, m, n, inner] = [&k.batch, &k.m, &k.n, &k.k].map(|d| d.size(env));
    let right = args[k.b.arg.0 as usize].plain();
    for p in points(&[b, m]) {
        if !wanted(p[0], p[1]) {
            continue;
        }
        let sum = |c: usize| {
            (0..inner)
                .map(|i| {
                    args[a.arg.0 as usize].get(at(&a.view, env, &[p[0], p[1], i]))
                        * right.get(at(&k.b.view, env, &[p[0], c, i]))
                })
                .sum::<f64>()
        };
        let sums: Vec<f64> = (0..n).map(sum).collect();
        body(&k.epilogue, env, args, &p, 0..n, &|c| sums[c]);
    }
}

fn attention(k: &Attention, env: &Env, args: &mut [Buffer]) {
    let (queries, keys) = (k.queries.size(env), k.keys.size(env));
    let group = k.heads / k.kv_heads;
    for p in points(&[k.batch.size(env), k.heads, queries]) {
        let (b, h, i) = (p[0], p[1], p[2]);
        let get =
            |o: &Operand, index: &[usize]| args[o.arg.0 as usize].get(at(&o.view, env, index));
        let dots: Vec<f64> = (0..keys)
            .map(|j| {
                (0..k.head_dim)
                    .map(|d| get(&k.q, &[b, h, i, d]) * get(&k.k, &[b, h / group, j, d]))
                    .sum()
            })
            .collect();
        let values: Vec<Vec<f64>> = (0..keys)
            .map(|j| {
                (0..k.value_dim)
                    .map(|d| get(&k.v, &[b, h / group, j, d]))
                    .collect()
            })
            .collect();
        let mut scores = body(&k.score, env, args, &p, 0..keys, &|j| dots[j]);
        if let Some(c) = &k.causal {
            let last = i as i64 + c.offset.eval(env);
            for (j, s) in scores.iter_mut().enumerate() {
                let hidden =
                    j as i64 > last || c.window.is_some_and(|w| j as i64 <= last - w as i64);
                if hidden {
                    *s = f64::NEG_INFINITY;
                }
            }
        }
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
        let sum: f64 = weights.iter().sum();
        for d in 0..k.value_dim {
            let x: f64 = weights.iter().zip(&values).map(|(w, v)| w * v[d]).sum();
            let x = if max == f64::NEG_INFINITY {
                0.0
            } else {
                x / sum
            };
            args[k.out.arg.0 as usize].set(at(&k.out.view, env, &[b, h, i, d]), x);
        }
    }
}
