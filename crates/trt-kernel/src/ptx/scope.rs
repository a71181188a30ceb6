//! What an entry knows from its parameters: addresses of arguments and the runtime integers.

use super::asm::{Asm, Class, Int, R, param};
use super::emitted::{MAP_BYTES, Target};
use crate::fusible::MAX_TILES;
use crate::launch::Param;
use crate::{Arg, Dim, Var, View};
use std::fmt::Write;

/// Registers that hold the parameters; loaded at the start of the entry, so they are valid
/// everywhere in it.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    pub target: Target,
    args: Vec<R>,
    /// An argument that is in shared memory, if one is; it is only stored to.
    shared: Option<Arg>,
    vars: [Option<R>; Var::MAX],
    /// The address of working memory.
    pub scratch: R,
    /// The address of the fault record.
    pub fault: R,
}

/// The rows of a ranged launch, loaded at the start of the entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiles {
    /// First row (u32).
    pub first: R,
    /// End of the range (u32).
    pub end: R,
    step: R,
}

/// The parameters of a kernel with this many arguments, of which so many are ranged.
pub(super) fn params(args: usize, ranged: usize) -> Vec<Param> {
    let mut params: Vec<Param> = (0..args).map(|a| Param::Arg(Arg(a as u16))).collect();
    params.extend((0..ranged).map(|i| Param::Tiles(i as u8)));
    params.extend([Param::Env, Param::Scratch, Param::Fault]);
    params
}

impl Scope {
    /// Starts an entry: loads the addresses of `args` arguments and the runtime integers `vars`,
    /// and waits for the launch ahead.
    pub fn begin(asm: &mut Asm, target: Target, args: usize, vars: &[Var]) -> Scope {
        let scope = Scope::begin_early(asm, target, args, vars);
        scope.wait(asm);
        scope
    }

    /// As [`Scope::begin`], but does not wait yet: until [`Scope::wait`] the entry may touch no
    /// memory but streamed weights. (Runtime integers are written between whole calls.)
    pub fn begin_early(asm: &mut Asm, target: Target, args: usize, vars: &[Var]) -> Scope {
        if target.overlaps() {
            asm.put("griddepcontrol.launch_dependents");
        }
        let regs = (0..args).map(|a| pointer(asm, &format!("a{a}"))).collect();
        let scratch = pointer(asm, "scratch");
        let fault = pointer(asm, "fault");
        let mut scope = Scope {
            target,
            args: regs,
            shared: None,
            vars: [None; Var::MAX],
            scratch,
            fault,
        };
        if !vars.is_empty() {
            let env = pointer(asm, "env");
            for v in vars {
                let at = format!("[{env}+{}]", 8 * v.0);
                let r = asm.op("ld.global.u64", Class::B64, &[&at]);
                scope.vars[v.0 as usize] = Some(r);
            }
        }
        scope
    }

    /// The address of the counters, of which no other launch knows after [`Scope::wait`].
    pub fn counters(&self, asm: &mut Asm) -> R {
        pointer(asm, "counters")
    }

    /// Waits until the launch ahead, which may still run, has ended.
    pub fn wait(&self, asm: &mut Asm) {
        if self.target.overlaps() {
            asm.put("griddepcontrol.wait");
        }
    }

    /// The same with one more argument, at a shared address (u32).
    pub fn with_shared(&self, asm: &mut Asm, address: R) -> Scope {
        let mut scope = self.clone();
        scope.shared = Some(Arg(scope.args.len() as u16));
        let wide = asm.op("cvt.u64.u32", Class::B64, &[&address]);
        scope.args.push(wide);
        scope
    }

    /// The state space of an argument.
    pub fn space(&self, arg: Arg) -> &'static str {
        match self.shared == Some(arg) {
            true => "shared",
            false => "global",
        }
    }

    /// The address of an argument in its space.
    pub fn arg(&self, arg: Arg) -> R {
        self.args[arg.0 as usize]
    }

    /// A size as a signed 32-bit value.
    pub fn size(&self, asm: &mut Asm, dim: &Dim) -> Int {
        match self.wide(asm, dim) {
            Int::Imm(c) => Int::Imm(c),
            Int::Reg(r) => Int::Reg(asm.op("cvt.u32.u64", Class::B32, &[&r])),
        }
    }

    /// A size or offset as a signed 64-bit value.
    pub fn wide(&self, asm: &mut Asm, dim: &Dim) -> Int {
        if let Some(c) = dim.constant() {
            return Int::Imm(c);
        }
        let mut sum: Option<R> = None;
        for (powers, coefficient) in dim.terms() {
            let mut product = asm.op("mov.b64", Class::B64, &[coefficient]);
            for (v, &power) in powers.iter().enumerate() {
                for _ in 0..power {
                    // Every runtime integer of the kernel was loaded by `begin`.
                    let var = self.vars[v].expect("a kernel's runtime integers are all loaded");
                    product = asm.op("mul.lo.s64", Class::B64, &[&product, &var]);
                }
            }
            sum = Some(match sum {
                None => product,
                Some(s) => asm.op("add.s64", Class::B64, &[&s, &product]),
            });
        }
        sum.map_or(Int::Imm(0), Int::Reg)
    }

    /// The global address of the element that `view` has at `index` (signed 32-bit values, one
    /// for each axis), for elements of `size` bytes.
    pub fn address(&self, asm: &mut Asm, arg: Arg, view: &View, index: &[Int], size: usize) -> R {
        let base = self.arg(arg);
        self.address_from(asm, base, view, index, size)
    }

    /// As [`Scope::address`], from another base.
    pub fn address_from(
        &self,
        asm: &mut Asm,
        base: R,
        view: &View,
        index: &[Int],
        size: usize,
    ) -> R {
        let size = size as i64;
        let mut address = match self.wide(asm, &view.offset) {
            Int::Imm(0) => base,
            Int::Imm(c) => asm.op("add.s64", Class::B64, &[&base, &(c * size)]),
            Int::Reg(r) => asm.op("mad.lo.s64", Class::B64, &[&r, &size, &base]),
        };
        for (stride, at) in view.strides.iter().zip(index) {
            address = match (self.wide(asm, stride), *at) {
                (Int::Imm(0), _) | (_, Int::Imm(0)) => address,
                (Int::Imm(s), Int::Imm(i)) => {
                    asm.op("add.s64", Class::B64, &[&address, &(s * i * size)])
                }
                (Int::Imm(s), Int::Reg(i)) if i32::try_from(s * size).is_ok() => {
                    asm.op("mad.wide.s32", Class::B64, &[&i, &(s * size), &address])
                }
                (Int::Imm(s), Int::Reg(i)) => {
                    let i = asm.op("cvt.s64.s32", Class::B64, &[&i]);
                    asm.op("mad.lo.s64", Class::B64, &[&i, &(s * size), &address])
                }
                (Int::Reg(s), Int::Imm(i)) => {
                    asm.op("mad.lo.s64", Class::B64, &[&s, &(i * size), &address])
                }
                (Int::Reg(s), Int::Reg(i)) => {
                    let i = asm.op("cvt.s64.s32", Class::B64, &[&i]);
                    let i = asm.op("mul.lo.s64", Class::B64, &[&i, &size]);
                    asm.op("mad.lo.s64", Class::B64, &[&s, &i, &address])
                }
            };
        }
        address
    }
}

/// The global address that a parameter holds.
fn pointer(asm: &mut Asm, name: &str) -> R {
    let at = format!("[{}]", param(name));
    let generic = asm.op("ld.param.u64", Class::B64, &[&at]);
    asm.op("cvta.to.global.u64", Class::B64, &[&generic])
}

impl Tiles {
    /// Loads the range of a ranged launch.
    pub fn begin(asm: &mut Asm) -> Tiles {
        let mut field = |at: usize| {
            let at = format!("[{}+{at}]", param("tiles"));
            asm.op("ld.param.u32", Class::B32, &[&at])
        };
        Tiles {
            first: field(0),
            end: field(4),
            step: field(8),
        }
    }

    /// The global address of a row of the weight, `row_bytes` bytes each. `row` (u32) is in the
    /// range of the launch.
    pub fn row(&self, asm: &mut Asm, row: R, row_bytes: &Int) -> R {
        let (within, base) = self.tile(asm, row);
        let within = asm.op("cvt.u64.u32", Class::B64, &[&within]);
        let row_bytes = match row_bytes {
            Int::Imm(c) => asm.op("mov.b64", Class::B64, &[c]),
            Int::Reg(r) => asm.op("cvt.u64.u32", Class::B64, &[r]),
        };
        asm.op("mad.lo.s64", Class::B64, &[&within, &row_bytes, &base])
    }

    /// Which row of its tile a row of the weight is, and the global address of the tile.
    pub fn tile(&self, asm: &mut Asm, row: R) -> (R, R) {
        let from = asm.op("sub.u32", Class::B32, &[&row, &self.first]);
        let tile = asm.op("div.u32", Class::B32, &[&from, &self.step]);
        let skipped = asm.op("mul.lo.u32", Class::B32, &[&tile, &self.step]);
        let within = asm.op("sub.u32", Class::B32, &[&from, &skipped]);
        let table = asm.op("mov.b64", Class::B64, &[&param("tiles")]);
        let slot = asm.op("mad.wide.u32", Class::B64, &[&tile, &8, &table]);
        let at = format!("[{slot}+16]");
        let base = asm.op("ld.param.u64", Class::B64, &[&at]);
        (within, asm.op("cvta.to.global.u64", Class::B64, &[&base]))
    }
}

/// The text of an entry of `threads` threads, around what was assembled. An argument that is no
/// parameter is at the start of working memory. Registers are bounded so
/// that a multiprocessor holds that many `blocks`. It is a goal too: without it the assembler
/// saves registers by loading late, with it it loads ahead.
pub(super) fn crowded_entry(
    name: &str,
    params: &[Param],
    threads: u32,
    blocks: Option<u32>,
    asm: Asm,
) -> String {
    let given = |arg| params.contains(&Param::Arg(Arg(arg)));
    let own = |name: &str| match (name, name.strip_prefix('a').map(str::parse)) {
        ("tiles", _) => "tiles0".to_string(),
        (_, Some(Ok(arg))) if !given(arg) => "scratch".to_string(),
        (other, _) => other.to_string(),
    };
    wrapped_entry(name, params, threads, blocks, &asm.finish(own))
}

/// An entry around finished text.
pub(super) fn wrapped_entry(
    name: &str,
    params: &[Param],
    threads: u32,
    blocks: Option<u32>,
    text: &str,
) -> String {
    let lines: Vec<String> = params
        .iter()
        .map(|p| match p {
            Param::Arg(a) => format!("\t.param .u64 a{}", a.0),
            Param::Tiles(i) => {
                let bytes = 16 + 8 * MAX_TILES;
                format!("\t.param .align 8 .b8 tiles{i}[{bytes}]")
            }
            Param::Env => "\t.param .u64 env".into(),
            Param::Scratch => "\t.param .u64 scratch".into(),
            Param::Fault => "\t.param .u64 fault".into(),
            Param::Counters => "\t.param .u64 counters".into(),
            Param::Map(i) => {
                let bytes = MAP_BYTES + 8;
                format!("\t.param .align 64 .b8 map{i}[{bytes}]")
            }
        })
        .collect();
    let mut out = String::new();
    let _ = writeln!(out, ".visible .entry {name}(\n{}\n)", lines.join(",\n"));
    let _ = writeln!(out, ".maxntid {threads}, 1, 1");
    if let Some(blocks) = blocks {
        let _ = writeln!(out, ".minnctapersm {blocks}");
    }
    let _ = writeln!(out, "{{\n{text}\tret;\n}}");
    out
}

/// The head of a module.
pub(super) fn head(target: Target) -> String {
    format!(
        ".version {}\n.target {}\n.address_size 64\n\n",
        target.version(),
        target.name()
    )
}
