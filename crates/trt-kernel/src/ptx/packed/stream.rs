//! A stream of a block: values of 16 bits, piece by piece, from its words and the pieces' plain bytes.
//!
//! A lane holds the next bits of its stream: the words `high` and `low`, of which `at` bits are done, and the word that comes next. Two words
//! of the code are at most 30 bits long, so both are found in what is there; then a word of the stream is left behind if it is
//! done. An entry of the table is where a value has its symbol, so a value is put together by one selection of bits.

use crate::PackedType;
use crate::ptx::asm::{Asm, Class, Int, R};
use crate::ptx::emitted::Target;
use trt_pack::{Arity, Kind, LONGEST};

/// Bytes of a word, and of what is copied at once.
const WORD: usize = 4;
const COPY: usize = 16;
/// Bytes of zeros behind words.
pub(in crate::ptx) const BEHIND: usize = COPY;
/// Marks of escapes in an entry: of its first symbol, and of its second.
const FIRST: u32 = 1 << 15;
const SECOND: u32 = 1 << 31;

/// The words of a block in shared memory.
#[derive(Clone, Copy)]
pub(in crate::ptx) struct Words {
    /// Where they are (u32), and the last word of the zeros behind them.
    base: R,
    last: R,
}

/// Where the words of a stream are.
#[derive(Clone, Copy)]
pub(in crate::ptx) enum Source {
    /// In shared memory, at addresses there.
    Shared,
    /// In the block, whose global address this is, at bytes from there.
    Global(R),
}

/// A stream, in registers that change.
#[derive(Clone)]
pub(in crate::ptx) struct Stream {
    packed: PackedType,
    source: Source,
    /// Where the code's table is in shared memory, once it is.
    table: Option<R>,
    high: R,
    low: R,
    next: R,
    /// Bits of `high` that are done, below 32.
    at: R,
    /// Where the word after `next` is, and where the last word.
    place: R,
    last: R,
}

/// A piece: pairs of values, and what the table says of them.
pub(in crate::ptx) struct Piece {
    pub pairs: Vec<R>,
    entries: Vec<R>,
}

impl Words {
    /// Copies words with all lanes of a warp: so many bytes from a global address to a shared one, which has room for `most` and
    /// what is behind them. They are there once [`Words::wait`] has been passed.
    pub fn copy(
        asm: &mut Asm,
        target: Target,
        (lane, from, to): (R, R, R),
        (bytes, most): (R, usize),
    ) -> Words {
        let bytes = asm.op("min.u32", Class::B32, &[&bytes, &most]);
        let at = asm.op("mul.lo.u32", Class::B32, &[&lane, &COPY]);
        let from = asm.op("mad.wide.u32", Class::B64, &[&lane, &COPY, &from]);
        let into = asm.op("add.u32", Class::B32, &[&at, &to]);
        let end = asm.op("add.u32", Class::B32, &[&to, &bytes]);
        let first = asm.op("setp.eq.u32", Class::Pred, &[&lane, &0]);
        let zero = asm.op("mov.b32", Class::B32, &[&0]);
        asm.put(format_args!(
            "@{first} st.shared.v4.b32 [{end}], {{{zero}, {zero}, {zero}, {zero}}}"
        ));
        let step = 32 * COPY;
        asm.count(at, Int::Reg(bytes), Int::Imm(step as i64), |asm| {
            match target < Target::Sm80 {
                true => {
                    let four = asm.regs(Class::B32, 4);
                    let list = four.iter().map(R::to_string).collect::<Vec<_>>().join(", ");
                    asm.put(format_args!("ld.global.nc.v4.b32 {{{list}}}, [{from}]"));
                    asm.put(format_args!("st.shared.v4.b32 [{into}], {{{list}}}"));
                }
                false => asm.put(format_args!(
                    "cp.async.cg.shared.global [{into}], [{from}], 16"
                )),
            }
            asm.op_to("add.s64", from, &[&from, &step]);
            asm.op_to("add.s32", into, &[&into, &step]);
        });
        Words {
            base: to,
            last: asm.op("add.u32", Class::B32, &[&end, &(BEHIND - WORD)]),
        }
    }

    /// Waits for the warp's copies.
    pub fn wait(asm: &mut Asm, target: Target) {
        if target >= Target::Sm80 {
            asm.put("cp.async.wait_all");
        }
        asm.put("bar.warp.sync 0xffffffff");
    }
}

impl Stream {
    /// A stream of words in shared memory, not begun.
    pub fn new(asm: &mut Asm, packed: PackedType) -> Stream {
        Stream {
            packed,
            source: Source::Shared,
            table: None,
            high: asm.reg(Class::B32),
            low: asm.reg(Class::B32),
            next: asm.reg(Class::B32),
            at: asm.reg(Class::B32),
            place: asm.reg(Class::B32),
            last: asm.reg(Class::B32),
        }
    }

    /// The same, with the code's table in shared memory.
    pub fn with(self, table: R) -> Stream {
        let table = Some(table);
        Stream { table, ..self }
    }

    /// The same registers, with words from elsewhere.
    pub fn from(&self, source: Source) -> Stream {
        Stream {
            source,
            ..self.clone()
        }
    }

    /// From now on these are its words.
    pub fn bind(&self, asm: &mut Asm, words: Words) {
        self.bind_at(asm, words.base, words.last);
    }

    /// From now on its words begin and end with these.
    pub fn bind_at(&self, asm: &mut Asm, first: R, last: R) {
        asm.put(format_args!("mov.b32 {}, {first}", self.place));
        asm.put(format_args!("mov.b32 {}, {last}", self.last));
    }

    /// Begins with a byte among the words.
    pub fn begin(&self, asm: &mut Asm, byte: R) {
        let whole = asm.op("and.b32", Class::B32, &[&byte, &-4]);
        let odd = asm.op("and.b32", Class::B32, &[&byte, &3]);
        asm.op_to("shl.b32", self.at, &[&odd, &3]);
        asm.op_to("add.u32", self.place, &[&self.place, &whole]);
        for to in [self.high, self.low, self.next] {
            asm.op_to("min.u32", self.place, &[&self.place, &self.last]);
            self.word(asm, to);
            asm.op_to("add.u32", self.place, &[&self.place, &WORD]);
        }
        asm.op_to("min.u32", self.place, &[&self.place, &self.last]);
    }

    fn word(&self, asm: &mut Asm, to: R) {
        match self.source {
            Source::Shared => asm.put(format_args!("ld.shared.b32 {to}, [{}]", self.place)),
            Source::Global(block) => {
                let at = asm.op("cvt.u64.u32", Class::B64, &[&self.place]);
                let at = asm.op("add.s64", Class::B64, &[&at, &block]);
                asm.put(format_args!("ld.global.nc.b32 {to}, [{at}]"));
            }
        }
    }

    /// The next 32 bits.
    fn ahead(&self, asm: &mut Asm) -> R {
        let bits = [&self.low as &dyn std::fmt::Display, &self.high, &self.at];
        asm.op("shf.l.wrap.b32", Class::B32, &bits)
    }

    /// Goes to the next word if the first is done. `at` is below 64 in its lowest six bits.
    fn settle(&self, asm: &mut Asm) {
        let Stream {
            high,
            low,
            next,
            at,
            place,
            ..
        } = self;
        let over = asm.op("and.b32", Class::B32, &[at, &32]);
        let over = asm.op("setp.ne.u32", Class::Pred, &[&over, &0]);
        asm.put(format_args!("@{over} mov.b32 {high}, {low}"));
        asm.put(format_args!("@{over} mov.b32 {low}, {next}"));
        match self.source {
            Source::Shared => asm.put(format_args!("@{over} ld.shared.b32 {next}, [{place}]")),
            Source::Global(_) => asm.when(over, true, |asm| self.word(asm, *next)),
        }
        asm.put(format_args!("@{over} add.u32 {place}, {place}, {WORD}"));
        asm.op_to("min.u32", *place, &[place, &self.last]);
        asm.op_to("and.b32", *at, &[at, &31]);
    }

    /// The entries of the next two words.
    fn two(&self, asm: &mut Asm) -> [R; 2] {
        let table = self.table.expect("a stream is read once it has a table");
        let ahead = self.ahead(asm);
        let look = |asm: &mut Asm, bits: R| {
            let index = asm.op("shr.u32", Class::B32, &[&bits, &(32 - LONGEST)]);
            let at = asm.op("mad.lo.u32", Class::B32, &[&index, &WORD, &table]);
            let entry = asm.op("ld.shared.b32", Class::B32, &[&format_args!("[{at}]")]);
            let length = match self.packed.kind() {
                Kind::Bf16 => entry,
                // No symbol has the bit behind the length.
                Kind::F16 => asm.op("shr.u32", Class::B32, &[&entry, &3]),
            };
            (entry, length)
        };
        let (first, length) = look(asm, ahead);
        let rest = [&0 as &dyn std::fmt::Display, &ahead, &length];
        let rest = asm.op("shf.l.wrap.b32", Class::B32, &rest);
        let (second, other) = look(asm, rest);
        asm.op_to("add.u32", self.at, &[&self.at, &length]);
        asm.op_to("add.u32", self.at, &[&self.at, &other]);
        self.settle(asm);
        [first, second]
    }

    /// The next piece, of which these are the plain bytes, into four registers. A value with an escape has no symbol yet.
    pub fn piece(&self, asm: &mut Asm, plain: [R; 2], pairs: &[R]) -> Piece {
        let entries: Vec<R> = match self.packed.arity() {
            Arity::Two => (0..2).flat_map(|_| self.two(asm)).collect(),
            Arity::One => (0..4)
                .map(|_| {
                    let [a, b] = self.two(asm);
                    asm.op("prmt.b32", Class::B32, &[&a, &b, &"0x5410"])
                })
                .collect(),
        };
        for (i, (entry, to)) in entries.iter().zip(pairs).enumerate() {
            let plain = plain[i / 2];
            let (mask, bits) = match self.packed.kind() {
                Kind::Bf16 => {
                    let turned = match i % 2 {
                        0 => plain,
                        _ => asm.op("shf.l.wrap.b32", Class::B32, &[&plain, &plain, &8]),
                    };
                    ("0x807f807f", turned)
                }
                Kind::F16 => {
                    let apart = ["0x4140", "0x4342"][i % 2];
                    let apart = asm.op("prmt.b32", Class::B32, &[&plain, &0, &apart]);
                    let [sign, rest] = [8, 3].map(|n| asm.op("shl.b32", Class::B32, &[&apart, &n]));
                    let both = asm.reg(Class::B32);
                    select(asm, both, "0x80008000", [sign, rest]);
                    ("0x83f883f8", both)
                }
            };
            select(asm, *to, mask, [bits, *entry]);
        }
        let pairs = pairs.to_vec();
        Piece { pairs, entries }
    }

    /// What a step ends with: the symbols of its pieces that were none of the common ones, which are rare.
    pub fn escapes(&self, asm: &mut Asm, pieces: &[&Piece]) {
        let entries = pieces.iter().flat_map(|p| &p.entries).copied();
        let any = entries.reduce(|all, e| asm.op("or.b32", Class::B32, &[&all, &e]));
        let Some(any) = any else { return };
        let any = asm.op("and.b32", Class::B32, &[&any, &(FIRST | SECOND)]);
        let any = asm.op("setp.ne.u32", Class::Pred, &[&any, &0]);
        asm.when(any, true, |asm| {
            for piece in pieces {
                for (pair, entry) in piece.pairs.iter().zip(&piece.entries) {
                    self.escaped(asm, *pair, *entry, FIRST, 0);
                    self.escaped(asm, *pair, *entry, SECOND, 16);
                }
            }
        });
    }

    /// Puts the next 8 bits into a value if its symbol has this mark.
    fn escaped(&self, asm: &mut Asm, pair: R, entry: R, mark: u32, shift: u32) {
        let own = asm.op("and.b32", Class::B32, &[&entry, &mark]);
        let own = asm.op("setp.ne.u32", Class::Pred, &[&own, &0]);
        asm.when(own, true, |asm| {
            let ahead = self.ahead(asm);
            let byte = asm.op("shr.u32", Class::B32, &[&ahead, &24]);
            let symbol = match self.packed.kind() {
                Kind::Bf16 => asm.op("shl.b32", Class::B32, &[&byte, &(7 + shift)]),
                Kind::F16 => {
                    let high = asm.op("and.b32", Class::B32, &[&byte, &0xf8]);
                    let low = asm.op("and.b32", Class::B32, &[&byte, &7]);
                    let high = asm.op("shl.b32", Class::B32, &[&high, &7]);
                    let both = asm.op("or.b32", Class::B32, &[&high, &low]);
                    asm.op("shl.b32", Class::B32, &[&both, &shift])
                }
            };
            asm.op_to("or.b32", pair, &[&pair, &symbol]);
            asm.op_to("add.u32", self.at, &[&self.at, &8]);
            self.settle(asm);
        });
    }
}

/// The bits of the first where the mask has any, else those of the other.
fn select(asm: &mut Asm, to: R, mask: &str, [one, other]: [R; 2]) {
    asm.op_to("lop3.b32", to, &[&mask, &one, &other, &"0xCA"]);
}
