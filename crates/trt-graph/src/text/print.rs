//! Prints graphs.

use crate::graph::{Graph, Literal, Node, Op};
use crate::ints::Floor;
use crate::reference;
use std::fmt;
use trt_kernel::{DType, Dim};

/// The most elements of a constant that are written out.
const INLINE: usize = 8;

fn shape_text(dtype: DType, shape: &[Dim]) -> String {
    let dims: Vec<String> = shape.iter().map(Dim::to_string).collect();
    format!("{dtype}[{}]", dims.join(", "))
}

impl Op {
    /// The op's name in printed graphs, in candle's words where candle has one.
    pub fn name(&self) -> String {
        match self {
            Op::Input(_) => "input".into(),
            Op::Weight(..) => "weight".into(),
            Op::State(_) => "state".into(),
            Op::Const(_) => "const".into(),
            Op::Float(_) => "float".into(),
            Op::Int(_) => "int".into(),
            Op::Arange { .. } => "arange".into(),
            Op::Causal { .. } => "causal".into(),
            Op::Unary(f) => f.to_string(),
            Op::Binary(f) => f.to_string(),
            Op::Compare(f) => f.to_string(),
            Op::Where => "where".into(),
            Op::Cast => "cast".into(),
            Op::Reduce(f, _) => format!("reduce_{f}"),
            Op::Softmax => "softmax".into(),
            Op::Matmul => "matmul".into(),
            Op::IndexSelect => "index_select".into(),
            Op::Gather(_) => "gather".into(),
            Op::Within(_) => "within".into(),
            Op::Experts => "experts".into(),
            Op::ArgSort { .. } => "arg_sort".into(),
            Op::Reshape => "reshape".into(),
            Op::Permute(_) => "permute".into(),
            Op::Broadcast => "broadcast".into(),
            Op::Narrow { .. } => "narrow".into(),
            Op::Unfold { .. } => "unfold".into(),
            Op::Pad(_) => "pad".into(),
            Op::Cat(_) => "cat".into(),
            Op::Append(_) => "append".into(),
            Op::Rope => "rope".into(),
            Op::Attention(_) => "attention".into(),
        }
    }

    /// `key=value` parameters, in the order they are printed.
    fn params(&self, node: &Node) -> Vec<(&'static str, String)> {
        let window = |w: &Option<usize>| w.map(|w| ("window", w.to_string()));
        match self {
            Op::Input(i) | Op::State(i) => vec![("index", i.to_string())],
            Op::Weight(name, encoding) => {
                let mut p = vec![("name", name.to_string())];
                // Of a plain one the node's dtype tells it.
                if encoding.as_plain().is_none() {
                    p.push(("encoding", encoding.to_string()));
                }
                p
            }
            Op::Const(l) => vec![("data", literal_text(l, node.dtype))],
            Op::Float(v) => vec![("value", format!("{v:?}"))],
            Op::Int(d) => vec![("value", compact(d))],
            Op::Arange { start, step } => {
                vec![("start", compact(start)), ("step", step.to_string())]
            }
            Op::Causal { offset, window: w } => {
                let mut p = vec![("offset", compact(offset))];
                p.extend(window(w));
                p
            }
            Op::Reduce(_, axis) | Op::Cat(axis) | Op::Append(axis) | Op::Gather(axis) => {
                vec![("axis", axis.to_string())]
            }
            Op::Within(size) => vec![("size", compact(size))],
            Op::ArgSort { asc } => vec![("asc", asc.to_string())],
            Op::Permute(perm) => {
                let p: Vec<String> = perm.iter().map(usize::to_string).collect();
                vec![("axes", p.join(","))]
            }
            Op::Narrow { axis, start } => {
                vec![("axis", axis.to_string()), ("start", compact(start))]
            }
            Op::Unfold {
                axis,
                step,
                dilation,
            } => vec![
                ("axis", axis.to_string()),
                ("step", step.to_string()),
                ("dilation", dilation.to_string()),
            ],
            Op::Pad(margins) => {
                let each = margins
                    .iter()
                    .map(|m| format!("{}:{}:{}", m.before, m.between, m.after));
                vec![("zeros", each.collect::<Vec<_>>().join(","))]
            }
            Op::Attention(a) => {
                let mut p = vec![("scale", format!("{:?}", a.scale))];
                p.extend(a.soft_cap.map(|c| ("cap", format!("{c:?}"))));
                if let Some((offset, w)) = &a.causal {
                    p.push(("offset", compact(offset)));
                    p.extend(window(w));
                }
                if a.bias {
                    p.push(("bias", "yes".into()));
                }
                p
            }
            Op::Unary(_)
            | Op::Binary(_)
            | Op::Compare(_)
            | Op::Where
            | Op::Cast
            | Op::Softmax
            | Op::Matmul
            | Op::IndexSelect
            | Op::Experts
            | Op::Reshape
            | Op::Broadcast
            | Op::Rope => vec![],
        }
    }
}

fn compact(d: &Dim) -> String {
    d.to_string().replace(' ', "")
}

fn literal_text(l: &Literal, dtype: DType) -> String {
    let values = reference::decode(&l.bytes, dtype);
    match values.len() <= INLINE {
        true => values
            .iter()
            .map(|v| format!("{v:?}"))
            .collect::<Vec<_>>()
            .join(","),
        false => format!("@{:016x}", l.hash()),
    }
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (v, int) in self.ints.iter().enumerate() {
            writeln!(
                f,
                "int v{v} {} {}..={}",
                int.name, int.range.min, int.range.max
            )?;
        }
        for (i, Floor { of, by }) in self.floors.iter().enumerate() {
            writeln!(f, "floor v{} {by} : {of}", self.ints.len() + i)?;
        }
        if let Some(limit) = self.max_context {
            writeln!(f, "context {limit}")?;
        }
        for input in &self.inputs {
            writeln!(
                f,
                "input {} : {}",
                input.name,
                shape_text(input.dtype, &input.shape)
            )?;
        }
        for id in self.ids() {
            let node = self.node(id);
            write!(f, "%{} = {}", id.0, node.op.name())?;
            for i in &node.inputs {
                write!(f, " %{}", i.0)?;
            }
            for (key, value) in node.op.params(node) {
                write!(f, " {key}={value}")?;
            }
            writeln!(f, " : {}", shape_text(node.dtype, &node.shape))?;
        }
        for s in &self.states {
            write!(f, "state %{}", s.update.0)?;
            if let Some(initial) = &s.initial {
                write!(f, " initial={}", literal_text(initial, s.dtype))?;
            }
            if !s.least.is_empty() {
                let least: Vec<String> = s.least.iter().map(usize::to_string).collect();
                write!(f, " least={}", least.join(","))?;
            }
            writeln!(f, " : {}", shape_text(s.dtype, &s.shape))?;
        }
        for o in &self.outputs {
            writeln!(f, "return %{}", o.0)?;
        }
        Ok(())
    }
}
