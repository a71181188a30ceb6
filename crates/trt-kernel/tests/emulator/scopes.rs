//! Scopes within an entry: what is declared between braces is known there only.
//!
//! When a scope closes, its names get a suffix that no other has, in its declarations and in
//! the statements between its braces. What is left is one scope for the whole entry.

use super::text::{Entry, Operand};
use std::collections::HashSet;

/// How much of an entry stood before a scope opened.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    regs: usize,
    shared: usize,
    labels: usize,
    body: usize,
}

impl Scope {
    pub fn open(entry: &Entry) -> Scope {
        Scope {
            regs: entry.regs.len(),
            shared: entry.shared.len(),
            labels: entry.labels.len(),
            body: entry.body.len(),
        }
    }

    /// Makes the names of the scope its own. Names of closed scopes within it are already theirs.
    pub fn close(self, entry: &mut Entry, number: usize) {
        let own = |name: &str| format!("{name}@{number}");
        let mut known = HashSet::new();
        let regs = entry.regs[self.regs..].iter_mut().map(|r| &mut r.0);
        let shared = entry.shared[self.shared..].iter_mut().map(|s| &mut s.name);
        let labels = entry.labels[self.labels..].iter_mut().map(|l| &mut l.0);
        for name in regs.chain(shared).chain(labels) {
            if !name.contains('@') {
                known.insert(name.clone());
                *name = own(name);
            }
        }
        let rename = |name: &mut String| {
            if known.contains(name) {
                *name = own(name);
            }
        };
        for s in &mut entry.body[self.body..] {
            s.guard.iter_mut().for_each(|g| rename(&mut g.0));
            s.operands.iter_mut().for_each(|o| each_name(o, &rename));
        }
    }
}

fn each_name(operand: &mut Operand, f: &impl Fn(&mut String)) {
    match operand {
        Operand::Name(n) | Operand::Sum(n, _) | Operand::Address(Some(n), _) | Operand::Not(n) => {
            f(n)
        }
        Operand::Pair(p, q) => {
            f(p);
            f(q);
        }
        Operand::Box(n, parts) => {
            f(n);
            parts.iter_mut().for_each(|p| each_name(p, f));
        }
        Operand::Vector(parts) => parts.iter_mut().for_each(|p| each_name(p, f)),
        Operand::Imm(_)
        | Operand::Float(_)
        | Operand::Double(_)
        | Operand::Address(None, _)
        | Operand::Sink => {}
    }
}
