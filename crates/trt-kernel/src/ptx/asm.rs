//! An assembler that owns names: registers, labels and shared memory of one entry.
//!
//! Templates write PTX as text with registers filled in; every register is declared once, by its
//! class, and control flow is nested closures, so a label never dangles.

use std::fmt::{Display, Write};

/// The class of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Class {
    Pred,
    B16,
    B32,
    B64,
    F32,
}

impl Class {
    const ALL: [Class; 5] = [Class::Pred, Class::B16, Class::B32, Class::B64, Class::F32];

    fn prefix(self) -> &'static str {
        match self {
            Class::Pred => "%p",
            Class::B16 => "%h",
            Class::B32 => "%r",
            Class::B64 => "%d",
            Class::F32 => "%f",
        }
    }

    /// The instruction that copies a register of bits or a constant.
    pub fn mov(self) -> &'static str {
        match self {
            Class::Pred => "mov.pred",
            Class::B16 => "mov.b16",
            Class::B32 => "mov.b32",
            Class::B64 => "mov.b64",
            Class::F32 => "mov.f32",
        }
    }

    fn ptx(self) -> &'static str {
        match self {
            Class::Pred => ".pred",
            Class::B16 => ".b16",
            Class::B32 => ".b32",
            Class::B64 => ".b64",
            Class::F32 => ".f32",
        }
    }
}

/// A register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct R {
    pub class: Class,
    index: u32,
}

impl Display for R {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.class.prefix(), self.index)
    }
}

/// A 32-bit integer operand: known now, or in a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Int {
    Imm(i64),
    Reg(R),
}

impl Display for Int {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Int::Imm(c) => write!(f, "{c}"),
            Int::Reg(r) => write!(f, "{r}"),
        }
    }
}

impl From<R> for Int {
    fn from(r: R) -> Int {
        Int::Reg(r)
    }
}

/// The text of one entry in the making.
#[derive(Debug, Default)]
pub(super) struct Asm {
    body: String,
    shared: String,
    /// The bytes of them, with what alignment may add.
    shared_bytes: usize,
    counts: [u32; Class::ALL.len()],
    labels: u32,
    arrays: u32,
}

impl Asm {
    /// A fresh register.
    pub fn reg(&mut self, class: Class) -> R {
        let count = &mut self.counts[class as usize];
        *count += 1;
        R {
            class,
            index: *count - 1,
        }
    }

    /// Fresh registers.
    pub fn regs(&mut self, class: Class, n: usize) -> Vec<R> {
        (0..n).map(|_| self.reg(class)).collect()
    }

    /// One instruction, without the semicolon.
    pub fn put(&mut self, line: impl Display) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.body, "\t{line};");
    }

    /// An instruction with a fresh result: `name result, operands...`.
    pub fn op(&mut self, name: &str, class: Class, operands: &[&dyn Display]) -> R {
        let d = self.reg(class);
        self.op_to(name, d, operands);
        d
    }

    /// An instruction into a register: `name d, operands...`.
    pub fn op_to(&mut self, name: &str, d: R, operands: &[&dyn Display]) {
        let mut line = format!("{name} {d}");
        for o in operands {
            let _ = write!(line, ", {o}");
        }
        self.put(line);
    }

    /// A float constant.
    pub fn f32(&mut self, value: f32) -> R {
        self.op("mov.f32", Class::F32, &[&imm(value)])
    }

    /// `if p { then }`, or `if !p` where `p` is not `wanted`.
    pub fn when(&mut self, p: R, wanted: bool, then: impl FnOnce(&mut Asm)) {
        let end = self.label();
        let not = if wanted { "!" } else { "" };
        self.put(format_args!("@{not}{p} bra {end}"));
        then(self);
        self.place(&end);
    }

    /// `while counter < end { each; counter += step }` on signed 32-bit registers. The counter
    /// starts with what it holds.
    pub fn count(&mut self, counter: R, end: Int, step: Int, each: impl FnOnce(&mut Asm)) {
        let top = self.label();
        self.place(&top);
        self.rounds(&top, counter, end, step, each);
    }

    /// As [`Asm::count`], where the assembler is not to unroll: what is in flight from one round
    /// to the next, and so the registers, stay as written.
    pub fn count_rolled(&mut self, counter: R, end: Int, step: Int, each: impl FnOnce(&mut Asm)) {
        let top = self.label();
        self.place(&top);
        self.put(".pragma \"nounroll\"");
        self.rounds(&top, counter, end, step, each);
    }

    fn rounds(&mut self, top: &str, counter: R, end: Int, step: Int, each: impl FnOnce(&mut Asm)) {
        let out = self.label();
        let p = self.op("setp.ge.s32", Class::Pred, &[&counter, &end]);
        self.put(format_args!("@{p} bra {out}"));
        each(self);
        self.put(format_args!("add.s32 {counter}, {counter}, {step}"));
        self.put(format_args!("bra {top}"));
        self.place(&out);
    }

    /// A fresh label, to be placed once.
    pub fn label(&mut self) -> String {
        self.labels += 1;
        format!("$L{}", self.labels - 1)
    }

    /// Places a label here.
    pub fn place(&mut self, label: &str) {
        let _ = writeln!(self.body, "{label}:");
    }

    /// A static array in shared memory; the name is its address.
    pub fn shared(&mut self, bytes: usize, align: usize) -> String {
        self.arrays += 1;
        let name = format!("s{}", self.arrays - 1);
        let _ = writeln!(self.shared, "\t.shared .align {align} .b8 {name}[{bytes}];");
        self.shared_bytes += bytes.next_multiple_of(align.max(1));
        name
    }

    /// The static arrays as text, which [`Asm::finish`] declares, and a bound of their bytes.
    pub fn arrays(&self) -> (&str, usize) {
        (&self.shared, self.shared_bytes)
    }

    /// Leaves the declaration of static arrays to whoever puts the text together.
    pub fn without_arrays(mut self) -> Asm {
        self.shared.clear();
        self
    }

    /// Declarations and instructions, to stand between braces. `name` gives each parameter that
    /// was referred to by [`param`] the name that it has there.
    pub fn finish(self, name: impl Fn(&str) -> String) -> String {
        let mut out = String::new();
        for class in Class::ALL {
            let n = self.counts[class as usize];
            if n > 0 {
                let _ = writeln!(out, "\t.reg {} {}<{n}>;", class.ptx(), class.prefix());
            }
        }
        out += &self.shared;
        let mut rest = self.body.as_str();
        while let Some((before, after)) = rest.split_once(OPEN) {
            let (referred, after) = after.split_once(CLOSE).unwrap_or((after, ""));
            out += before;
            out += &name(referred);
            rest = after;
        }
        out + rest
    }
}

/// What stands around the name of a parameter until it is known.
const OPEN: char = '\u{ab}';
const CLOSE: char = '\u{bb}';

/// A parameter, to be named when the text is put together.
pub(super) fn param(name: impl Display) -> String {
    format!("{OPEN}{name}{CLOSE}")
}

/// A float as PTX writes it, exactly.
pub(super) fn imm(value: f32) -> String {
    format!("0f{:08X}", value.to_bits())
}
