//! A copy into device memory that threads make: words of memory that the host has mapped for the
//! device, which copy engines read one request at a time, are asked for by many threads at once.
//!
//! It is no kernel of the language: nothing is computed, and what is copied is known only when it
//! is launched.

use super::asm::{Asm, Class, R, param};
use super::emitted::Target;
use super::scope::head;

/// Threads of a block.
const BLOCK: u32 = 256;
/// Words that a thread has on their way at a time.
const IN_FLIGHT: usize = 4;

/// A module that copies words. Its entry takes three u64 by value: the address to copy to, the
/// address to copy from, both multiples of 8, and how many words of 8 bytes. It may be launched
/// with any number of blocks along x, and does not wait for the launch ahead by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pull {
    /// The module.
    pub text: String,
    /// The entry.
    pub entry: &'static str,
    /// Threads of a block, along x.
    pub block: u32,
}

/// The copy for a target.
pub fn pull(target: Target) -> Pull {
    let mut asm = Asm::default();
    copy(&mut asm);
    let (entry, names) = ("pull", ["to", "from", "words"]);
    let params = names
        .map(|name| format!("\t.param .u64 {name}"))
        .join(",\n");
    let body = asm.finish(str::to_string);
    let text = format!(
        "{}.visible .entry {entry}(\n{params}\n)\n.maxntid {BLOCK}, 1, 1\n{{\n{body}\tret;\n}}\n",
        head(target)
    );
    Pull {
        text,
        entry,
        block: BLOCK,
    }
}

/// Each thread takes every word whose number is its own, up to a multiple of the number of threads.
fn copy(asm: &mut Asm) {
    let global = |asm: &mut Asm, name| {
        let address = value(asm, name);
        asm.op("cvta.to.global.u64", Class::B64, &[&address])
    };
    let (to, from) = (global(asm, "to"), global(asm, "from"));
    let words = value(asm, "words");
    let special = |asm: &mut Asm, name: &str| asm.op("mov.u32", Class::B32, &[&name]);
    let (block, blocks) = (special(asm, "%ctaid.x"), special(asm, "%nctaid.x"));
    let thread = special(asm, "%tid.x");
    let thread = asm.op("cvt.u64.u32", Class::B64, &[&thread]);
    let number = asm.op("mad.wide.u32", Class::B64, &[&block, &BLOCK, &thread]);
    let threads = asm.op("mul.wide.u32", Class::B64, &[&blocks, &BLOCK]);
    let step = asm.op("shl.b64", Class::B64, &[&threads, &3]);
    let all = asm.op("mul.lo.s64", Class::B64, &[&threads, &IN_FLIGHT]);
    asm.op_to("mad.lo.s64", to, &[&number, &8, &to]);
    asm.op_to("mad.lo.s64", from, &[&number, &8, &from]);
    // Words from this thread's next to the end. Signed: the last round goes beyond it.
    let left = asm.op("sub.s64", Class::B64, &[&words, &number]);
    let (top, out) = (asm.label(), asm.label());
    asm.place(&top);
    let done = asm.op("setp.le.s64", Class::Pred, &[&left, &0]);
    asm.put(format_args!("@{done} bra {out}"));
    round(asm, to, from, step, left, threads);
    asm.put(format_args!("sub.s64 {left}, {left}, {all}"));
    asm.put(format_args!("bra {top}"));
    asm.place(&out);
}

/// Reads some words, those behind the end left out, and then writes them; moves both addresses on.
fn round(asm: &mut Asm, to: R, from: R, step: R, left: R, threads: R) {
    let mut words = Vec::new();
    let rest = asm.op("mov.b64", Class::B64, &[&left]);
    for _ in 0..IN_FLIGHT {
        let inside = asm.op("setp.gt.s64", Class::Pred, &[&rest, &0]);
        let word = asm.reg(Class::B64);
        asm.put(format_args!("@{inside} ld.global.u64 {word}, [{from}]"));
        asm.put(format_args!("add.s64 {from}, {from}, {step}"));
        asm.put(format_args!("sub.s64 {rest}, {rest}, {threads}"));
        words.push((inside, word));
    }
    for (inside, word) in words {
        asm.put(format_args!("@{inside} st.global.u64 [{to}], {word}"));
        asm.put(format_args!("add.s64 {to}, {to}, {step}"));
    }
}

/// The value of a parameter.
fn value(asm: &mut Asm, name: &str) -> R {
    let at = format!("[{}]", param(name));
    asm.op("ld.param.u64", Class::B64, &[&at])
}
