//! What the names of an entry stand for: registers, special registers, symbols, labels.

use super::decode::SHARED_BASE;
use super::error::Why;
use super::inst::*;
use super::memory::Params;
use super::text::{Entry, Module, Operand};
use std::collections::HashMap;

type Result<T> = std::result::Result<T, Why>;

/// The names of an entry.
#[derive(Debug)]
pub struct Names {
    registers: HashMap<String, (Slot, Ty)>,
    symbols: HashMap<String, (Space, u64)>,
    labels: HashMap<String, u32>,
    /// Name, offset, bytes.
    pub params: Vec<(String, usize, usize)>,
    /// Name, address, bytes.
    pub shared: Vec<(String, usize, usize)>,
    /// The address of dynamic shared memory.
    pub dynamic: usize,
}

/// Between shared arrays, so that running out of one is found.
const GAP: usize = 64;

impl Names {
    pub fn new(module: &Module, entry: &Entry) -> Result<Names> {
        let mut names = Names {
            registers: HashMap::new(),
            symbols: HashMap::new(),
            labels: HashMap::new(),
            params: Vec::new(),
            shared: Vec::new(),
            dynamic: 0,
        };
        for (i, (name, ty)) in entry.regs.iter().enumerate() {
            let Some(ty) = ty.strip_prefix('.').and_then(Ty::parse) else {
                return Err(Why::Text(format!("registers of type {ty}")));
            };
            if names
                .registers
                .insert(name.clone(), (i as Slot, ty))
                .is_some()
            {
                return Err(Why::Text(format!("{name} is declared twice")));
            }
        }
        for (label, at) in &entry.labels {
            if names.labels.insert(label.clone(), *at as u32).is_some() {
                return Err(Why::Text(format!("{label} is placed twice")));
            }
        }
        let mut at = 0usize;
        for p in &entry.params {
            at = at.next_multiple_of(p.align);
            names.params.push((p.name.clone(), at, p.bytes));
            names.symbol(&p.name, Space::Param, Params::BASE + at)?;
            at += p.bytes;
        }
        let mut at = SHARED_BASE;
        for s in &entry.shared {
            at = at.next_multiple_of(s.align);
            names.shared.push((s.name.clone(), at, s.bytes));
            names.symbol(&s.name, Space::Shared, at)?;
            at += s.bytes + GAP;
        }
        let align = module.dynamic.iter().map(|d| d.1).max().unwrap_or(1);
        names.dynamic = at.next_multiple_of(align);
        for (name, _) in &module.dynamic {
            names.symbol(name, Space::Shared, names.dynamic)?;
        }
        Ok(names)
    }

    fn symbol(&mut self, name: &str, space: Space, at: usize) -> Result<()> {
        match self.symbols.insert(name.into(), (space, at as u64)) {
            None => Ok(()),
            Some(_) => Err(Why::Text(format!("{name} is declared twice"))),
        }
    }

    pub fn is_register(&self, name: &str) -> bool {
        self.registers.contains_key(name)
    }

    fn register(&self, name: &str) -> Result<(Slot, Ty)> {
        let found = self.registers.get(name).copied();
        found.ok_or_else(|| Why::Text(format!("{name} is no register")))
    }

    /// A register of the type's width.
    pub fn slot(&self, name: &str, ty: Ty) -> Result<Slot> {
        let (slot, declared) = self.register(name)?;
        if declared.bits() == ty.bits() {
            return Ok(slot);
        }
        let (has, wants) = (declared.bits(), ty.bits());
        Err(Why::Text(format!(
            "{name} has {has} bits where {wants} are needed"
        )))
    }

    /// A register of the type's width or wider, and its width.
    pub fn at_least(&self, name: &str, ty: Ty) -> Result<(Slot, u32)> {
        let (slot, declared) = self.register(name)?;
        let (has, wants) = (declared.bits(), ty.bits());
        if declared != Ty::Pred && has >= wants && (declared != Ty::F32 || wants == 32) {
            return Ok((slot, has));
        }
        Err(Why::Text(format!(
            "{name} has {has} bits where {wants} are needed"
        )))
    }

    pub fn label(&self, name: &str) -> Result<u32> {
        let found = self.labels.get(name).copied();
        found.ok_or_else(|| Why::Text(format!("label {name} is placed nowhere")))
    }

    /// A destination, or none for `_`.
    pub fn target(&self, operand: &Operand, ty: Ty) -> Result<Option<Slot>> {
        match operand {
            Operand::Name(r) => self.slot(r, ty).map(Some),
            Operand::Sink => Ok(None),
            other => Err(Why::Text(format!("{other:?} as a result"))),
        }
    }

    /// A source of a type.
    pub fn source(&self, operand: &Operand, ty: Ty) -> Result<Src> {
        let wrong = |what: &str| Err(Why::Text(format!("{operand:?} {what} as {ty:?}")));
        match operand {
            Operand::Name(n) if self.is_register(n) => self.slot(n, ty).map(Src::Reg),
            Operand::Name(n) if n.starts_with('%') => match special(n) {
                Some(s) if ty.bits() == 32 => Ok(Src::Special(s)),
                _ => wrong("is unknown"),
            },
            Operand::Name(n) => self.value_of(n, 0, ty),
            Operand::Sum(n, c) => self.value_of(n, *c, ty),
            Operand::Not(n) if ty == Ty::Pred => self.slot(n, ty).map(Src::Not),
            Operand::Imm(c) if matches!(ty, Ty::U(_) | Ty::S(_)) => immediate(*c, ty),
            Operand::Imm(c @ (0 | 1)) if ty == Ty::Pred => Ok(Src::Imm(*c as u64)),
            Operand::Float(bits) if matches!(ty, Ty::F32 | Ty::U(32)) => {
                Ok(Src::Imm(u64::from(*bits)))
            }
            Operand::Double(bits) if matches!(ty, Ty::F64 | Ty::U(64)) => Ok(Src::Imm(*bits)),
            _ => wrong("does not fit"),
        }
    }

    fn value_of(&self, symbol: &str, offset: i64, ty: Ty) -> Result<Src> {
        match self.symbols.get(symbol) {
            Some((_, at)) if ty.bits() >= 32 && ty != Ty::F32 => {
                Ok(Src::Imm(at.wrapping_add_signed(offset)))
            }
            _ => Err(Why::Text(format!("{symbol} stands for nothing here"))),
        }
    }

    /// `[base + offset]` in a space. Shared addresses have 32 or 64 bits, others 64.
    pub fn address(&self, operand: &Operand, space: Space) -> Result<Address> {
        let Operand::Address(Some(base), offset) = operand else {
            return Err(Why::Text(format!("{operand:?} as an address")));
        };
        let offset = *offset;
        if let Ok((slot, ty)) = self.register(base) {
            let fits = ty.bits() == 64 || ty.bits() == 32 && space == Space::Shared;
            if fits && ty != Ty::F32 {
                return Ok(Address {
                    base: Src::Reg(slot),
                    offset,
                });
            }
        }
        match self.symbols.get(base) {
            Some((s, at)) if *s == space => Ok(Address {
                base: Src::Imm(*at),
                offset,
            }),
            _ => Err(Why::Text(format!("{base} is no {} address", space.name()))),
        }
    }

    /// The registers of `{a, b, ...}`, `n` of them, of one type.
    pub fn registers(&self, operand: &Operand, n: usize, ty: Ty) -> Result<Vec<Slot>> {
        let parts = match operand {
            Operand::Vector(v) => v.as_slice(),
            one => std::slice::from_ref(one),
        };
        if parts.len() != n {
            return Err(Why::Text(format!(
                "{} registers where {n} are needed",
                parts.len()
            )));
        }
        let slot = |p: &Operand| match p {
            Operand::Name(r) => self.slot(r, ty),
            other => Err(Why::Text(format!("{other:?} where a register is needed"))),
        };
        parts.iter().map(slot).collect()
    }
}

/// A constant that fits a type, signed or unsigned.
fn immediate(c: i64, ty: Ty) -> Result<Src> {
    let bits = ty.bits();
    let low = -(1i128 << (bits - 1));
    // A constant above the signed range of 64 bits was read as negative.
    if bits < 64 && !(low..1i128 << bits).contains(&i128::from(c)) {
        return Err(Why::Text(format!("{c} does not fit {bits} bits")));
    }
    Ok(Src::Imm(c as u64 & (u64::MAX >> (64 - bits))))
}

fn special(name: &str) -> Option<Special> {
    let (name, axis) = match name.split_once('.') {
        Some((n, a)) => (n, ["x", "y", "z"].iter().position(|x| *x == a)?),
        None if name == "%laneid" => return Some(Special::Lane),
        None if name == "%warpid" => return Some(Special::Warp),
        None => return None,
    };
    Some(match name {
        "%tid" => Special::Tid(axis),
        "%ntid" => Special::Ntid(axis),
        "%ctaid" => Special::Ctaid(axis),
        "%nctaid" => Special::Nctaid(axis),
        _ => return None,
    })
}
