//! Statements to instructions: every name, modifier and operand is known, or an error.

use super::error::{EmuError, Why};
use super::inst::*;
use super::memory::Params;
use super::names::Names;
use super::text::{Entry, Module, Operand, Statement};
use super::{bulk, ops, reaches};

type Result<T> = std::result::Result<T, Why>;

/// Resolves the entry of a module with this name.
pub fn program(module: &Module, name: &str) -> std::result::Result<Program, EmuError> {
    let Some(entry) = module.entries.iter().find(|e| e.name == name) else {
        return Err(EmuError::text(
            0,
            Why::Text(format!("there is no entry {name}")),
        ));
    };
    resolve(module, entry).map_err(|mut e| {
        e.entry = name.into();
        e
    })
}

fn resolve(module: &Module, entry: &Entry) -> std::result::Result<Program, EmuError> {
    let names = Names::new(module, entry).map_err(|why| EmuError::text(0, why))?;
    let mut code = Vec::with_capacity(entry.body.len() + 1);
    for s in &entry.body {
        code.push(statement(&names, s).map_err(|why| EmuError::text(s.line, why))?);
    }
    // Falling off the end is an exit; labels may stand there.
    let line = entry.body.last().map_or(0, |s| s.line);
    code.push(Inst {
        line,
        guard: None,
        op: Op::Exit,
    });
    let param_bytes = names.params.iter().map(|p| p.1 + p.2).max().unwrap_or(0);
    Ok(Program {
        name: entry.name.clone(),
        params: names.params,
        param_bytes,
        max_threads: entry.max_threads,
        registers: entry.regs.iter().map(|r| r.0.clone()).collect(),
        shared: names.shared,
        dynamic: names.dynamic,
        code,
    })
}

fn statement(names: &Names, s: &Statement) -> Result<Inst> {
    let guard = match &s.guard {
        Some((p, wanted)) => Some((names.slot(p, Ty::Pred)?, *wanted)),
        None => None,
    };
    let parts: Vec<&str> = s.opcode.split('.').collect();
    let line = s.line;
    let op = operation(names, &parts, &s.operands)?;
    Ok(Inst { line, guard, op })
}

fn unknown(parts: &[&str], operands: &[Operand]) -> Why {
    Why::Text(format!(
        "{} with {} operands",
        parts.join("."),
        operands.len()
    ))
}

fn operation(names: &Names, parts: &[&str], o: &[Operand]) -> Result<Op> {
    let found = match parts[0] {
        "mov" if matches!(o, [Operand::Vector(_), _] | [_, Operand::Vector(_)]) => {
            pack(names, parts, o)?
        }
        "setp" => compare(names, parts, o)?,
        "ld" | "ldu" | "st" => reaches::access(names, parts, o)?,
        "atom" | "red" => reaches::atomic(names, parts, o)?,
        "bra" | "ret" | "exit" | "bar" | "barrier" | "membar" | "fence" | "griddepcontrol"
        | "prefetch" => control(names, parts, o)?,
        "cp" if parts.get(2) == Some(&"bulk") => bulk::copy(names, parts, o)?,
        "mbarrier" => bulk::barrier(names, parts, o)?,
        "cp" => reaches::copy(names, parts, o)?,
        "shfl" | "vote" | "redux" | "activemask" => super::lanes::decode(names, parts, o)?,
        "ldmatrix" | "stmatrix" | "mma" => super::tensor::decode(names, parts, o)?,
        "wgmma" => super::wgmma::decode(names, parts, o)?,
        _ => map(names, parts, o)?,
    };
    found.ok_or_else(|| unknown(parts, o))
}

fn map(names: &Names, parts: &[&str], o: &[Operand]) -> Result<Option<Op>> {
    let Some(f) = ops::function(parts) else {
        return Ok(None);
    };
    let [d, sources @ ..] = o else {
        return Ok(None);
    };
    if sources.len() != f.src.len() {
        return Ok(None);
    }
    // Only a conversion takes its source from a wider register and its result to one.
    let converts = parts[0] == "cvt";
    let narrow = |ty: Ty| converts && matches!(ty, Ty::U(_) | Ty::S(_));
    let mut src = [Src::Imm(0); 4];
    for (to, (operand, ty)) in src.iter_mut().zip(sources.iter().zip(&f.src)) {
        *to = match (operand, narrow(*ty)) {
            (Operand::Name(r), true) if names.is_register(r) => Src::Reg(names.at_least(r, *ty)?.0),
            _ => names.source(operand, *ty)?,
        };
    }
    let Operand::Name(d) = d else { return Ok(None) };
    let (d, width) = match narrow(f.d) {
        true => names.at_least(d, f.d)?,
        false => (names.slot(d, f.d)?, f.d.bits()),
    };
    if matches!(f.d, Ty::S(n) if n != width) {
        return Err(Why::Text(format!(
            "{} into a register of {width} bits",
            parts.join(".")
        )));
    }
    let mask = u64::MAX >> (64 - f.d.bits());
    Ok(Some(Op::Map {
        fun: f.fun,
        d,
        src,
        divides: f.divides,
        mask,
    }))
}

fn pack(names: &Names, parts: &[&str], o: &[Operand]) -> Result<Option<Op>> {
    let ["mov", ty] = parts else { return Ok(None) };
    let Some(ty) = Ty::parse(ty) else {
        return Ok(None);
    };
    Ok(match o {
        [Operand::Name(d), Operand::Vector(from)] => {
            let bits = ty.bits() / from.len() as u32;
            let part = |p| names.source(p, Ty::U(bits));
            let parts = from.iter().map(part).collect::<Result<Vec<Src>>>()?;
            Some(Op::Pack {
                d: names.slot(d, ty)?,
                bits,
                parts,
            })
        }
        [Operand::Vector(to), a] => {
            let bits = ty.bits() / to.len() as u32;
            let part = |p| names.target(p, Ty::U(bits));
            let d = to.iter().map(part).collect::<Result<_>>()?;
            Some(Op::Unpack {
                d,
                bits,
                a: names.source(a, ty)?,
            })
        }
        _ => None,
    })
}

fn compare(names: &Names, parts: &[&str], o: &[Operand]) -> Result<Option<Op>> {
    let [_, name, middle @ .., ty] = parts else {
        return Ok(None);
    };
    let (logic, ftz) = match middle {
        [] => (None, false),
        ["ftz"] => (None, true),
        [l] => (Some(*l), false),
        [l, "ftz"] => (Some(*l), true),
        _ => return Ok(None),
    };
    let logic = match logic {
        None => None,
        Some("and") => Some(Logic::And),
        Some("or") => Some(Logic::Or),
        Some("xor") => Some(Logic::Xor),
        Some(_) => return Ok(None),
    };
    let Some(ty) = Ty::parse(ty) else {
        return Ok(None);
    };
    let Some(test) = ops::test(name, ty, ftz) else {
        return Ok(None);
    };
    let (d, a, b, combine) = match (o, logic) {
        ([d, a, b], None) => (d, a, b, None),
        ([d, a, b, c], Some(l)) => (d, a, b, Some((l, names.source(c, Ty::Pred)?))),
        _ => return Ok(None),
    };
    let (p, q) = match d {
        Operand::Name(p) => (names.slot(p, Ty::Pred)?, None),
        Operand::Pair(p, q) => (names.slot(p, Ty::Pred)?, Some(names.slot(q, Ty::Pred)?)),
        _ => return Ok(None),
    };
    let (a, b) = (names.source(a, ty)?, names.source(b, ty)?);
    Ok(Some(Op::Setp {
        test,
        combine,
        p,
        q,
        a,
        b,
    }))
}

fn control(names: &Names, parts: &[&str], o: &[Operand]) -> Result<Option<Op>> {
    let u32s = |o: &Operand| names.source(o, Ty::U(32));
    Ok(Some(match (parts, o) {
        (["bra"], [Operand::Name(l)]) => Op::Branch {
            to: names.label(l)?,
            uniform: false,
        },
        (["bra", "uni"], [Operand::Name(l)]) => Op::Branch {
            to: names.label(l)?,
            uniform: true,
        },
        (["ret" | "exit"], []) => Op::Exit,
        (["bar", "warp", "sync"], [m]) => Op::WarpSync { mask: u32s(m)? },
        (["bar", "sync"] | ["barrier", "sync", "aligned"], [id]) => Op::Barrier {
            id: u32s(id)?,
            threads: None,
            waits: true,
        },
        (["bar", "sync"] | ["barrier", "sync", "aligned"], [id, n]) => Op::Barrier {
            id: u32s(id)?,
            threads: Some(u32s(n)?),
            waits: true,
        },
        (["bar", "arrive"] | ["barrier", "arrive", "aligned"], [id, n]) => Op::Barrier {
            id: u32s(id)?,
            threads: Some(u32s(n)?),
            waits: false,
        },
        (["membar", "gl" | "sys"] | ["fence", "acq_rel" | "sc", "gpu" | "sys"], []) => Op::Fence,
        (["membar", "cta"] | ["fence", "acq_rel" | "sc", "cta"], []) => Op::Nop,
        (["fence", "proxy", "async"] | ["fence", "proxy", "async", "shared::cta"], []) => {
            Op::ProxyFence
        }
        (["griddepcontrol", "wait"], []) => Op::GridWait,
        (["griddepcontrol", "launch_dependents"], []) => Op::Nop,
        (["prefetch", "global", "L2"], [_]) => Op::Nop,
        _ => return Ok(None),
    }))
}

/// Where parameters and shared arrays start.
pub const SHARED_BASE: usize = 0x400;
const _: () = assert!(Params::BASE > SHARED_BASE);
