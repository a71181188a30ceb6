//! Parses what is printed.

use crate::graph::{AttentionOp, Graph, InputDecl, Literal, Margin, Node, NodeId, Op, StateDecl};
use crate::ints::{Floor, IntVar};
use crate::{Error, reference};
use trt_kernel::{DType, Dim, Interval};

impl Graph {
    /// Parses what `Display` prints. `literal` finds constants that are written as `@hash`.
    ///
    /// # Errors
    ///
    /// [`Error::Parse`] with the first line that is not understood.
    pub fn parse(text: &str, literal: &dyn Fn(u64) -> Option<Literal>) -> Result<Graph, Error> {
        let mut graph = Graph::default();
        for (at, raw) in text.lines().enumerate() {
            let line = raw.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            parse_line(&mut graph, line, literal)
                .map_err(|what| Error::Parse { line: at + 1, what })?;
        }
        Ok(graph)
    }
}

type Parsed<T> = Result<T, String>;

fn number<T: std::str::FromStr>(text: &str) -> Parsed<T> {
    text.parse().map_err(|_| format!("bad number '{text}'"))
}

fn parse_shape(text: &str) -> Parsed<(DType, Vec<Dim>)> {
    let (dtype, dims) = text
        .trim()
        .strip_suffix(']')
        .and_then(|t| t.split_once('['))
        .ok_or_else(|| format!("expected dtype[dims], found '{text}'"))?;
    let dims = match dims.trim() {
        "" => vec![],
        d => d
            .split(',')
            .map(|d| d.trim().parse::<Dim>())
            .collect::<Result<_, _>>()?,
    };
    Ok((dtype.parse()?, dims))
}

fn parse_id(text: &str, limit: usize) -> Parsed<NodeId> {
    let id = text
        .strip_prefix('%')
        .ok_or_else(|| format!("expected %id, found '{text}'"))?;
    match number::<u32>(id)? {
        id if (id as usize) < limit => Ok(NodeId(id)),
        id => Err(format!("%{id} is not an earlier node")),
    }
}

fn parse_line(
    graph: &mut Graph,
    line: &str,
    literal: &dyn Fn(u64) -> Option<Literal>,
) -> Parsed<()> {
    if let Some(floor) = line.strip_prefix("floor ") {
        graph.floors.push(parse_floor(floor)?);
        return Ok(());
    }
    let (head, tail) = match line.split_once(" : ") {
        Some((h, t)) => (h, Some(parse_shape(t)?)),
        None => (line, None),
    };
    let words: Vec<&str> = head.split_whitespace().collect();
    let seen = graph.nodes.len();
    match (words.as_slice(), tail) {
        (["int", _, name, range], None) => {
            let (min, max) = range.split_once("..=").ok_or("expected min..=max")?;
            let range = Interval {
                min: number(min)?,
                max: number(max)?,
            };
            graph.ints.push(IntVar {
                name: (*name).into(),
                range,
            });
        }
        (["context", limit], None) => graph.max_context = Some(number(limit)?),
        (["input", name], Some((dtype, shape))) => {
            graph.inputs.push(InputDecl {
                name: (*name).into(),
                shape,
                dtype,
            });
        }
        (["state", id, rest @ ..], Some((dtype, shape))) => {
            let params = Params(rest.iter().filter_map(|w| w.split_once('=')).collect());
            let initial = params.find("initial");
            let least = params.find("least");
            graph.states.push(StateDecl {
                shape,
                dtype,
                update: parse_id(id, seen)?,
                initial: initial
                    .map(|t| parse_literal(t, dtype, literal))
                    .transpose()?,
                least: least.map_or(Ok(Vec::new()), |t| t.split(',').map(number).collect())?,
            });
        }
        (["return", id], None) => graph.outputs.push(parse_id(id, seen)?),
        ([_, "=", op, rest @ ..], Some((dtype, shape))) => {
            let split = rest
                .iter()
                .position(|w| !w.starts_with('%'))
                .unwrap_or(rest.len());
            let inputs = rest[..split]
                .iter()
                .map(|w| parse_id(w, seen))
                .collect::<Parsed<_>>()?;
            let params = Params(
                rest[split..]
                    .iter()
                    .filter_map(|w| w.split_once('='))
                    .collect(),
            );
            let op = parse_op(op, &params, dtype, literal)?;
            graph.push(Node {
                op,
                inputs,
                shape,
                dtype,
            });
        }
        _ => return Err(format!("not understood: '{line}'")),
    }
    Ok(())
}

/// `v1 2 : v0 + 1` behind `floor`.
fn parse_floor(text: &str) -> Parsed<Floor> {
    let (head, of) = text.split_once(" : ").ok_or("expected v <by> : <of>")?;
    let by = head.split_whitespace().nth(1).ok_or("expected v <by>")?;
    match number(by)? {
        by if by >= 2 => Ok(Floor {
            of: of.parse()?,
            by,
        }),
        by => Err(format!("{by} divides")),
    }
}

struct Params<'a>(Vec<(&'a str, &'a str)>);

impl Params<'_> {
    fn find(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|p| p.0 == key).map(|p| p.1)
    }
    fn get(&self, key: &str) -> Parsed<&str> {
        self.find(key).ok_or_else(|| format!("missing {key}="))
    }
    fn dim(&self, key: &str) -> Parsed<Dim> {
        self.get(key)?.replace('-', " - ").trim().parse()
    }
    fn window(&self) -> Parsed<Option<usize>> {
        self.find("window").map(number).transpose()
    }
}

fn parse_op(
    name: &str,
    p: &Params<'_>,
    dtype: DType,
    literal: &dyn Fn(u64) -> Option<Literal>,
) -> Parsed<Op> {
    if let Ok(f) = name.parse() {
        return Ok(Op::Unary(f));
    }
    if let Ok(f) = name.parse() {
        return Ok(Op::Binary(f));
    }
    if let Ok(f) = name.parse() {
        return Ok(Op::Compare(f));
    }
    if let Some(Ok(f)) = name.strip_prefix("reduce_").map(str::parse) {
        return Ok(Op::Reduce(f, number(p.get("axis")?)?));
    }
    Ok(match name {
        "input" => Op::Input(number(p.get("index")?)?),
        "state" => Op::State(number(p.get("index")?)?),
        "weight" => {
            let encoding = p.find("encoding").map(str::parse).transpose()?;
            Op::Weight(p.get("name")?.into(), encoding.unwrap_or(dtype.into()))
        }
        "const" => Op::Const(parse_literal(p.get("data")?, dtype, literal)?),
        "float" => Op::Float(number(p.get("value")?)?),
        "int" => Op::Int(p.dim("value")?),
        "arange" => Op::Arange {
            start: p.dim("start")?,
            step: number(p.get("step")?)?,
        },
        "causal" => Op::Causal {
            offset: p.dim("offset")?,
            window: p.window()?,
        },
        "where" => Op::Where,
        "cast" => Op::Cast,
        "softmax" => Op::Softmax,
        "matmul" => Op::Matmul,
        "index_select" => Op::IndexSelect,
        "experts" => Op::Experts,
        "gather" => Op::Gather(number(p.get("axis")?)?),
        "within" => Op::Within(p.dim("size")?),
        "arg_sort" => Op::ArgSort {
            asc: number(p.get("asc")?)?,
        },
        "reshape" => Op::Reshape,
        "permute" => Op::Permute(
            p.get("axes")?
                .split(',')
                .map(number)
                .collect::<Parsed<_>>()?,
        ),
        "broadcast" => Op::Broadcast,
        "narrow" => Op::Narrow {
            axis: number(p.get("axis")?)?,
            start: p.dim("start")?,
        },
        "unfold" => Op::Unfold {
            axis: number(p.get("axis")?)?,
            step: number(p.get("step")?)?,
            dilation: number(p.get("dilation")?)?,
        },
        "pad" => Op::Pad(
            p.get("zeros")?
                .split(',')
                .map(parse_margin)
                .collect::<Parsed<_>>()?,
        ),
        "cat" => Op::Cat(number(p.get("axis")?)?),
        "append" => Op::Append(number(p.get("axis")?)?),
        "rope" => Op::Rope,
        "attention" => Op::Attention(AttentionOp {
            scale: number(p.get("scale")?)?,
            soft_cap: p.find("cap").map(number).transpose()?,
            causal: match p.find("offset") {
                Some(_) => Some((p.dim("offset")?, p.window()?)),
                None => None,
            },
            bias: p.find("bias").is_some(),
        }),
        _ => return Err(format!("unknown op '{name}'")),
    })
}

fn parse_margin(text: &str) -> Parsed<Margin> {
    let parts: Vec<&str> = text.split(':').collect();
    let &[before, between, after] = parts.as_slice() else {
        return Err(format!("expected before:between:after, found '{text}'"));
    };
    Ok(Margin {
        before: number(before)?,
        between: number(between)?,
        after: number(after)?,
    })
}

fn parse_literal(
    text: &str,
    dtype: DType,
    literal: &dyn Fn(u64) -> Option<Literal>,
) -> Parsed<Literal> {
    if let Some(hash) = text.strip_prefix('@') {
        let hash = u64::from_str_radix(hash, 16).map_err(|_| format!("bad hash '{hash}'"))?;
        return literal(hash).ok_or_else(|| format!("no constant with hash {hash:016x}"));
    }
    let values: Vec<f64> = match text {
        "" => vec![],
        t => t.split(',').map(number).collect::<Parsed<_>>()?,
    };
    Ok(Literal::new(reference::encode(&values, dtype)))
}
