//! The invariants of a graph, checked between any two passes.

use crate::Error;
use crate::graph::{Graph, Node, Op};
use trt_kernel::{DType, Dim};

/// Checks order, arity, shapes and dtypes of every node; `pass` is named in the error.
pub fn verify(graph: &Graph, pass: &'static str) -> Result<(), Error> {
    for id in graph.ids() {
        let node = graph.node(id);
        let fail = |what: String| Error::Verify {
            pass,
            node: id,
            op: node.op.name(),
            what,
        };
        if let Some(late) = node.inputs.iter().find(|i| **i >= id) {
            return Err(fail(format!("uses %{}, which is not earlier", late.0)));
        }
        check(graph, node).map_err(fail)?;
    }
    let len = graph.nodes.len() as u32;
    for (state, s) in graph.states.iter().enumerate() {
        if s.update.0 >= len || graph.node(s.update).dtype != s.dtype {
            return Err(Error::State {
                state,
                what: format!("its update %{} does not exist as {}", s.update.0, s.dtype),
            });
        }
    }
    match graph.outputs.iter().find(|o| o.0 >= len) {
        Some(o) => Err(Error::Verify {
            pass,
            node: *o,
            op: "return".into(),
            what: "no such node".into(),
        }),
        None => Ok(()),
    }
}

fn list(shape: &[Dim]) -> String {
    format!(
        "[{}]",
        shape
            .iter()
            .map(Dim::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    )
}

type Checked = Result<(), String>;

fn ensure(ok: bool, what: impl FnOnce() -> String) -> Checked {
    if ok { Ok(()) } else { Err(what()) }
}

fn check(graph: &Graph, node: &Node) -> Checked {
    let inputs: Vec<&Node> = node.inputs.iter().map(|i| graph.node(*i)).collect();
    let arity = |n: usize| {
        ensure(inputs.len() == n, || {
            format!("{} inputs, expected {n}", inputs.len())
        })
    };
    let same_shape = |n: &Node| {
        ensure(n.shape == node.shape, || {
            format!(
                "operand {} for result {}",
                list(&n.shape),
                list(&node.shape)
            )
        })
    };
    let same_dtype = |n: &Node| {
        ensure(n.dtype == node.dtype, || {
            format!("operand {} for result {}", n.dtype, node.dtype)
        })
    };
    let rank = |n: &Node, r: usize| {
        ensure(n.shape.len() == r, || {
            format!("operand {} must have rank {r}", list(&n.shape))
        })
    };
    let axis = |a: usize| {
        ensure(a < node.shape.len(), || {
            format!("axis {a} of {}", list(&node.shape))
        })
    };
    match &node.op {
        Op::Input(i) => {
            arity(0)?;
            let d = graph
                .inputs
                .get(*i as usize)
                .ok_or_else(|| format!("input {i} is not declared"))?;
            ensure(d.shape == node.shape && d.dtype == node.dtype, || {
                format!("declared as {}{}", d.dtype, list(&d.shape))
            })
        }
        Op::State(i) => {
            arity(0)?;
            let d = graph
                .states
                .get(*i as usize)
                .ok_or_else(|| format!("state {i} is not declared"))?;
            ensure(d.shape == node.shape && d.dtype == node.dtype, || {
                format!("declared as {}{}", d.dtype, list(&d.shape))
            })
        }
        Op::Weight(_) => {
            arity(0)?;
            ensure(
                node.shape.iter().all(|d| d.constant_size().is_some()),
                || format!("shape {} is not constant", list(&node.shape)),
            )
        }
        Op::Const(l) => {
            arity(0)?;
            let bytes = Dim::product(&node.shape)
                .constant_size()
                .map(|n| n * node.dtype.size());
            ensure(bytes == Some(l.bytes.len()), || {
                format!(
                    "{} bytes for {}{}",
                    l.bytes.len(),
                    node.dtype,
                    list(&node.shape)
                )
            })
        }
        Op::Float(_) => arity(0)
            .and(rank(node, 0))
            .and(ensure(node.dtype.is_float(), || {
                format!("dtype {}", node.dtype)
            })),
        Op::Int(_) => arity(0)
            .and(rank(node, 0))
            .and(ensure(!node.dtype.is_float(), || {
                format!("dtype {}", node.dtype)
            })),
        Op::Arange { .. } => arity(0).and(rank(node, 1)),
        Op::Causal { .. } => arity(0)
            .and(rank(node, 2))
            .and(ensure(node.dtype == DType::U8, || {
                format!("dtype {}", node.dtype)
            })),
        Op::Unary(_) => {
            arity(1)?;
            same_shape(inputs[0]).and(same_dtype(inputs[0]))
        }
        Op::Binary(_) => {
            arity(2)?;
            inputs
                .iter()
                .try_for_each(|i| same_shape(i).and(same_dtype(i)))
        }
        Op::Compare(_) => {
            arity(2)?;
            inputs.iter().try_for_each(|i| same_shape(i))?;
            ensure(
                node.dtype == DType::U8 && inputs[0].dtype == inputs[1].dtype,
                || format!("compares {} with {}", inputs[0].dtype, inputs[1].dtype),
            )
        }
        Op::Where => {
            arity(3)?;
            inputs.iter().try_for_each(|i| same_shape(i))?;
            ensure(!inputs[0].dtype.is_float(), || {
                format!("condition of {}", inputs[0].dtype)
            })?;
            inputs[1..].iter().try_for_each(|i| same_dtype(i))
        }
        Op::Cast => {
            arity(1)?;
            same_shape(inputs[0])
        }
        Op::Reduce(_, a) => {
            arity(1)?;
            axis(*a)?;
            let mut kept = inputs[0].shape.clone();
            ensure(kept.len() > *a, || format!("axis {a} of {}", list(&kept)))?;
            kept[*a] = Dim::from(1);
            ensure(kept == node.shape, || {
                format!("result {} of {}", list(&node.shape), list(&inputs[0].shape))
            })?;
            same_dtype(inputs[0])
        }
        Op::Softmax => {
            arity(1)?;
            same_shape(inputs[0]).and(same_dtype(inputs[0]))
        }
        Op::Matmul => {
            arity(2)?;
            check_matmul(inputs[0], inputs[1], node)
        }
        Op::IndexSelect => {
            arity(2)?;
            rank(inputs[0], 2)
                .and(rank(inputs[1], 1))
                .and(same_dtype(inputs[0]))?;
            let expected = [inputs[1].shape[0].clone(), inputs[0].shape[1].clone()];
            ensure(node.shape == expected, || {
                format!("result {}, expected {}", list(&node.shape), list(&expected))
            })
        }
        Op::Reshape => {
            arity(1)?;
            same_dtype(inputs[0])?;
            let (a, b) = (Dim::product(&inputs[0].shape), Dim::product(&node.shape));
            ensure(a == b, || format!("{a} elements become {b}"))
        }
        Op::Permute(perm) => {
            arity(1)?;
            same_dtype(inputs[0])?;
            let mut sorted = perm.clone();
            sorted.sort_unstable();
            let valid = sorted.iter().copied().eq(0..inputs[0].shape.len())
                && perm
                    .iter()
                    .zip(&node.shape)
                    .all(|(p, d)| inputs[0].shape[*p] == *d);
            ensure(valid, || {
                format!(
                    "axes {perm:?} of {} give {}",
                    list(&inputs[0].shape),
                    list(&node.shape)
                )
            })
        }
        Op::Broadcast => {
            arity(1)?;
            same_dtype(inputs[0]).and(rank(inputs[0], node.shape.len()))?;
            let fits = inputs[0]
                .shape
                .iter()
                .zip(&node.shape)
                .all(|(a, b)| a == b || a.is(1));
            ensure(fits, || {
                format!("{} to {}", list(&inputs[0].shape), list(&node.shape))
            })
        }
        Op::Narrow { axis: a, .. } => {
            arity(1)?;
            axis(*a)
                .and(same_dtype(inputs[0]))
                .and(rank(inputs[0], node.shape.len()))?;
            let others =
                (0..node.shape.len()).all(|i| i == *a || inputs[0].shape[i] == node.shape[i]);
            ensure(others, || {
                format!("{} from {}", list(&node.shape), list(&inputs[0].shape))
            })
        }
        Op::Unfold {
            axis: a,
            step,
            dilation,
        } => {
            arity(1)?;
            axis(*a + 1).and(same_dtype(inputs[0]))?;
            check_unfold(graph, inputs[0], node, *a, (*step, *dilation))
        }
        Op::Pad(margins) => {
            arity(1)?;
            same_dtype(inputs[0])?;
            let padded: Vec<Dim> = margins
                .iter()
                .zip(&inputs[0].shape)
                .map(|(m, d)| m.around(d))
                .collect();
            let each = margins.len() == inputs[0].shape.len() && padded == node.shape;
            ensure(each, || {
                format!("{} from {}", list(&node.shape), list(&inputs[0].shape))
            })
        }
        Op::Cat(a) | Op::Append(a) => {
            axis(*a)?;
            let mut total = Dim::from(0);
            for i in &inputs {
                rank(i, node.shape.len()).and(same_dtype(i))?;
                let others = (0..node.shape.len()).all(|x| x == *a || i.shape[x] == node.shape[x]);
                ensure(others, || {
                    format!("part {} of {}", list(&i.shape), list(&node.shape))
                })?;
                total = &total + &i.shape[*a];
            }
            ensure(total == node.shape[*a], || {
                format!("parts sum to {total}, result {}", list(&node.shape))
            })?;
            let state = inputs.first().is_some_and(|i| matches!(i.op, Op::State(_)));
            ensure(
                matches!(node.op, Op::Cat(_)) || (inputs.len() == 2 && state),
                || "appends to no state".into(),
            )
        }
        Op::Rope => {
            arity(3)?;
            rank(node, 4)
                .and(same_shape(inputs[0]))
                .and(same_dtype(inputs[0]))?;
            inputs[1..].iter().try_for_each(|t| {
                rank(t, 2)?;
                let fits =
                    t.shape[0] == node.shape[2] && &t.shape[1] * &Dim::from(2) == node.shape[3];
                ensure(fits, || {
                    format!("table {} for {}", list(&t.shape), list(&node.shape))
                })
            })
        }
        Op::Attention(a) => {
            arity(3 + usize::from(a.bias))?;
            inputs.iter().try_for_each(|i| rank(i, 4))?;
            let (q, k, v) = (&inputs[0].shape, &inputs[1].shape, &inputs[2].shape);
            let fits = q[0] == k[0]
                && k[..3] == v[..3]
                && q[3] == k[3]
                && q[1].divide(&k[1]).is_some()
                && node.shape == [q[0].clone(), q[1].clone(), q[2].clone(), v[3].clone()];
            ensure(fits, || {
                format!(
                    "q {} k {} v {} give {}",
                    list(q),
                    list(k),
                    list(v),
                    list(&node.shape)
                )
            })
        }
    }
}

/// The last element of the last window is inside of the axis in every call.
fn check_unfold(
    graph: &Graph,
    x: &Node,
    node: &Node,
    axis: usize,
    (step, dilation): (usize, usize),
) -> Checked {
    let mut others = node.shape.clone();
    let window = others.remove(axis + 1);
    let one = Dim::from(1);
    let span = |n: &Dim, by: usize| &(n - &one) * &Dim::from(by);
    let reach = &(&span(&others[axis], step) + &span(&window, dilation)) + &one;
    let fits = others.len() == x.shape.len()
        && (0..others.len()).all(|i| i == axis || others[i] == x.shape[i])
        && step > 0
        && dilation > 0
        && (&x.shape[axis] - &reach).bounds(&graph.ranges()).min >= 0;
    ensure(fits, || {
        format!(
            "{} from {}: windows along axis {axis} reach {reach} elements",
            list(&node.shape),
            list(&x.shape)
        )
    })
}

fn check_matmul(a: &Node, b: &Node, out: &Node) -> Checked {
    let r = a.shape.len();
    let fits = r >= 2
        && out.shape.len() == r
        && (b.shape.len() == 2 || (b.shape.len() == r && a.shape[..r - 2] == b.shape[..r - 2]))
        && a.shape[r - 1] == b.shape[b.shape.len() - 2]
        && out.shape[..r - 1] == a.shape[..r - 1]
        && out.shape[r - 1] == b.shape[b.shape.len() - 1];
    ensure(fits, || {
        format!(
            "{} x {} gives {}",
            list(&a.shape),
            list(&b.shape),
            list(&out.shape)
        )
    })?;
    let dtypes = a.dtype.is_float() && b.dtype.is_float() && out.dtype.is_float();
    ensure(dtypes, || {
        format!("{} x {} gives {}", a.dtype, b.dtype, out.dtype)
    })
}
