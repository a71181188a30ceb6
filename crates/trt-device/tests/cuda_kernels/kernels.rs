//! A pointwise kernel, a product with a weight that may come in tiles, and a gather.

use trt_kernel::{
    Arg, Binary, BodyBuilder, DType, Dim, Encoding, Gather, Inst, Kernel, Matmul, Operand, Row,
    Unary, Var, View,
};

/// `a2[i] = silu(a0[i]) * a1[i]` over `v0` elements.
pub fn gate() -> Kernel {
    let space = vec![Dim::var(Var(0))];
    let whole = View::contiguous(&space);
    let mut body = BodyBuilder::new();
    let a = body.load(Arg(0), whole.clone());
    let b = body.load(Arg(1), whole.clone());
    let s = body.unary(Unary::Silu, a);
    let p = body.binary(Binary::Mul, s, b);
    body.store(Arg(2), whole, p);
    Kernel::Row(Row {
        space,
        args: vec![DType::F32; 3],
        body: body.finish(),
    })
}

pub const K: usize = 96;
pub const N: usize = 200;

/// `a2[n] = Σ_k a0[k] * a1[n, k]`, by row ranges of `a1`.
pub fn project() -> Kernel {
    let view = |strides: [usize; 3]| View {
        offset: Dim::from(0),
        strides: strides.map(Dim::from).to_vec(),
    };
    let operand = |arg: u16, strides| Operand {
        arg: Arg(arg),
        view: view(strides),
    };
    let mut body = BodyBuilder::new();
    let sum = body.push(Inst::Input);
    body.store(Arg(2), view([N, N, 1]), sum);
    Kernel::Matmul(Matmul {
        batch: Dim::from(1),
        m: Dim::from(1),
        n: Dim::from(N),
        k: Dim::from(K),
        args: Encoding::plain([DType::F32; 3]),
        a: operand(0, [K, K, 1]).into(),
        b: operand(1, [0, K, 1]),
        ranged: true,
        epilogue: body.finish(),
    })
}

pub const ENTRIES: usize = 50;
pub const COLS: usize = 64;

/// `a2[r, c] = a1[a0[r], c]` for `v0` rows.
pub fn pick() -> Kernel {
    let rows = Dim::var(Var(0));
    let space = [rows.clone(), Dim::from(COLS)];
    let mut body = BodyBuilder::new();
    let element = body.push(Inst::Input);
    body.store(Arg(2), View::contiguous(&space), element);
    Kernel::Gather(Gather {
        ids: Operand {
            arg: Arg(0),
            view: View::contiguous(std::slice::from_ref(&rows)),
        },
        rows,
        cols: COLS,
        entries: ENTRIES,
        args: Encoding::plain([DType::U32, DType::F32, DType::F32]),
        table: Arg(1),
        body: body.finish(),
    })
}
