//! Elements that values pick.
//!
//! An index outside of its size is told in the fault record, once for all launches that share one; then
//! it is 0, and nothing is read where there is no element at all.

use super::access;
use super::asm::{Asm, Class, Int, R};
use super::scope::Scope;
use crate::{DType, Dim};

/// What the fault record has in place of an id's row, where it has none.
const NO_ROW: i64 = -1;

/// What an index picks from.
pub(super) struct Picked<'a> {
    pub scope: &'a Scope,
    pub dtype: DType,
    /// The elements that there are along the index.
    pub size: Option<&'a Dim>,
    /// Elements between two of them.
    pub stride: &'a Dim,
}

impl Picked<'_> {
    /// Whether there is an element to pick, at a point where `p` holds; none if there always is.
    pub fn some(&self, asm: &mut Asm, p: Option<R>) -> Option<R> {
        let size = self.size.map(|size| self.scope.wide(asm, size));
        let none = match size {
            Some(Int::Imm(n)) if n > 0 => return p,
            Some(size) => asm.op("mov.b64", Class::B64, &[&size]),
            None => asm.op("mov.b64", Class::B64, &[&0]),
        };
        let some = asm.op("setp.gt.s64", Class::Pred, &[&none, &0]);
        Some(match p {
            Some(p) => asm.op("and.pred", Class::Pred, &[&some, &p]),
            None => some,
        })
    }

    /// Reads the element that an index (s64) picks from an address and a constant on; 0 where `some`
    /// does not hold.
    pub fn load(&self, asm: &mut Asm, (from, offset): (R, i64), index: R, some: Option<R>) -> R {
        let size = self.dtype.size();
        let at = match self.scope.wide(asm, self.stride) {
            Int::Imm(s) => {
                let bytes = s * size as i64;
                asm.op("mad.lo.s64", Class::B64, &[&index, &bytes, &from])
            }
            Int::Reg(s) => {
                let bytes = asm.op("mul.lo.s64", Class::B64, &[&s, &size]);
                asm.op("mad.lo.s64", Class::B64, &[&index, &bytes, &from])
            }
        };
        let bits = match some {
            None => access::load(asm, at, offset, size, size),
            Some(p) => access::load_if(asm, p, at, offset, size, size),
        };
        access::decode(asm, self.dtype, &bits, 1)[0]
    }
}

/// An integer (s64) that is below a size; 0 if it is not, which is told where `p` holds.
pub(super) fn within(asm: &mut Asm, scope: &Scope, (x, size): (R, Int), p: Option<R>) -> R {
    let size = match size {
        Int::Reg(r) => r,
        Int::Imm(n) => asm.op("mov.b64", Class::B64, &[&n]),
    };
    // A negative one is a large unsigned one.
    let outside = asm.op("setp.ge.u64", Class::Pred, &[&x, &size]);
    let told = match p {
        Some(p) => asm.op("and.pred", Class::Pred, &[&outside, &p]),
        None => outside,
    };
    asm.when(told, true, |asm| {
        report(asm, scope, x, (Int::Imm(NO_ROW), size))
    });
    asm.op("selp.b64", Class::B64, &[&0, &x, &outside])
}

/// Writes the fault record unless it is written: what id, at what row (s64), of how many (s64).
pub(super) fn report(asm: &mut Asm, scope: &Scope, id: R, (row, of): (Int, R)) {
    let fault = scope.fault;
    let at = format!("[{fault}]");
    let mark = asm.op("atom.global.cas.b64", Class::B64, &[&at, &0, &1]);
    let wins = asm.op("setp.eq.s64", Class::Pred, &[&mark, &0]);
    asm.when(wins, true, |asm| {
        let row = asm.op("mov.b64", Class::B64, &[&row]);
        asm.put(format_args!("st.global.b64 [{fault}+8], {id}"));
        asm.put(format_args!("st.global.b64 [{fault}+16], {row}"));
        asm.put(format_args!("st.global.b64 [{fault}+24], {of}"));
    });
}
