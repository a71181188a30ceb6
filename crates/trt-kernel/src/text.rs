//! Bodies as text: one line an instruction, as golden files and errors show them.

use crate::{Body, Inst, View};
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
        let name = |debug: &dyn fmt::Debug| format!("{debug:?}").to_lowercase();
        match self {
            Inst::Load(a, v) => write!(f, "load a{}{v}", a.0),
            Inst::Input => f.write_str("input"),
            Inst::F32(c) => write!(f, "f32 {c:?}"),
            Inst::I64(d) => write!(f, "i64 {d}"),
            Inst::Iota(a) => write!(f, "iota i{a}"),
            Inst::Unary(u, a) => write!(f, "{} %{}", name(u), a.0),
            Inst::Binary(b, x, y) => write!(f, "{} %{} %{}", name(b), x.0, y.0),
            Inst::Compare(c, x, y) => write!(f, "{} %{} %{}", name(c), x.0, y.0),
            Inst::Select(c, x, y) => write!(f, "select %{} %{} %{}", c.0, x.0, y.0),
            Inst::Cast(a, ty) => write!(f, "cast %{} {}", a.0, name(ty)),
            Inst::Reduce(r, a) => write!(f, "reduce_{} %{}", name(r), a.0),
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
