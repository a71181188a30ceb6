//! Kernels as text: one line an instruction, as golden files and errors show them.

use crate::{Body, Dim, Encoding, Inst, Kernel, Left, Operand, Order, View};
use std::fmt;

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}", self.offset)?;
        for (axis, s) in self.strides.iter().enumerate() {
            if !s.is(0) {
                write!(f, "; i{axis}*({s})")?;
            }
        }
        f.write_str("]")
    }
}

impl fmt::Display for Inst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Inst::Load(a, v) => write!(f, "load a{}{v}", a.0),
            Inst::Pick(a, v, s, r) => write!(f, "pick a{}{v} + %{}*({s})", a.0, r.0),
            Inst::Within(r, size) => write!(f, "within %{} {size}", r.0),
            Inst::Input => f.write_str("input"),
            Inst::F32(c) => write!(f, "f32 {c:?}"),
            Inst::I64(d) => write!(f, "i64 {d}"),
            Inst::Iota(a) => write!(f, "iota i{a}"),
            Inst::Unary(u, a) => write!(f, "{u} %{}", a.0),
            Inst::Binary(b, x, y) => write!(f, "{b} %{} %{}", x.0, y.0),
            Inst::Compare(c, x, y) => write!(f, "{c} %{} %{}", x.0, y.0),
            Inst::Select(c, x, y) => write!(f, "select %{} %{} %{}", c.0, x.0, y.0),
            Inst::Cast(a, ty) => {
                let ty = format!("{ty:?}").to_lowercase();
                write!(f, "cast %{} {ty}", a.0)
            }
            Inst::Reduce(r, a) => write!(f, "reduce_{r} %{}", a.0),
            Inst::Store(a, v, r) => write!(f, "store a{}{v} %{}", a.0, r.0),
            Inst::Yield(r) => write!(f, "yield %{}", r.0),
        }
    }
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, inst) in self.insts.iter().enumerate() {
            match inst {
                Inst::Store(..) | Inst::Yield(_) => writeln!(f, "    {inst}")?,
                _ => writeln!(f, "    %{i} = {inst}")?,
            }
        }
        Ok(())
    }
}

fn list(dims: &[Dim]) -> String {
    dims.iter()
        .map(Dim::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

fn encodings(args: &[Encoding]) -> String {
    args.iter().map(|e| e.name()).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a{}{}", self.arg.0, self.view)
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let args = self.args();
        match self {
            Kernel::Row(k) => {
                writeln!(f, "row [{}] ({})", list(&k.space), encodings(&args))?;
                write!(f, "{}", k.body)
            }
            Kernel::Matmul(k) => {
                let ranged = if k.ranged { " ranged" } else { "" };
                writeln!(
                    f,
                    "matmul{ranged} batch={} m={} n={} k={} ({})",
                    k.batch,
                    k.m,
                    k.n,
                    k.k,
                    encodings(&args)
                )?;
                match &k.a {
                    Left::Stored(a) => writeln!(f, "    a = {a}")?,
                    Left::Computed { dtype, body } => write!(f, "  a = {dtype} of\n{body}")?,
                }
                writeln!(f, "    b = {}", k.b)?;
                write!(f, "{}", k.epilogue)
            }
            Kernel::Attention(k) => {
                writeln!(
                    f,
                    "attention batch={} heads={}/{} queries={} keys={} dim={}/{} ({})",
                    k.batch,
                    k.heads,
                    k.kv_heads,
                    k.queries,
                    k.keys,
                    k.head_dim,
                    k.value_dim,
                    encodings(&args)
                )?;
                for row in &k.before {
                    write!(f, "  before it [{}]\n{}", list(&row.space), row.body)?;
                }
                for (name, o) in [("q", &k.q), ("k", &k.k), ("v", &k.v), ("out", &k.out)] {
                    writeln!(f, "    {name} = {o}")?;
                }
                if let Some(c) = &k.causal {
                    let window = c.window.map(|w| format!(" window={w}")).unwrap_or_default();
                    writeln!(f, "    causal offset={}{window}", c.offset)?;
                }
                write!(f, "{}", k.score)
            }
            Kernel::Gather(k) => {
                writeln!(
                    f,
                    "gather rows={} cols={} entries={} ids={} table=a{} ({})",
                    k.rows,
                    k.cols,
                    k.entries,
                    k.ids,
                    k.table.0,
                    encodings(&args)
                )?;
                write!(f, "{}", k.body)
            }
            Kernel::Move(k) => {
                writeln!(
                    f,
                    "move [{}] {} {} -> {}",
                    list(&k.space),
                    k.dtype,
                    k.src,
                    k.dst
                )
            }
            Kernel::Routed(k) => {
                let product = Kernel::Matmul(k.product.clone());
                write!(f, "routed by {} from {} {product}", k.ids, k.first)
            }
            Kernel::Group(k) => {
                let name = match k.order {
                    Order::Side => "group",
                    Order::Chain => "chain",
                };
                writeln!(f, "{name} of {}", k.parts.len())?;
                k.parts.iter().try_for_each(|part| write!(f, "  {part}"))
            }
        }
    }
}
