//! Gathers and strided copies.

use super::{dims, past, seq, view};
use trt_kernel::*;

pub fn kernels() -> Vec<(String, Kernel)> {
    let mut all = copies();
    all.extend(gathers());
    all
}

fn copy(space: Vec<Dim>, dtype: DType, src: View, dst: View) -> Kernel {
    Kernel::Move(Move {
        space,
        dtype,
        src,
        dst,
    })
}

/// `[1, heads, seq, size]` of a product into `[1, heads, capacity, size]` after `past` rows.
fn append(heads: i64, size: i64, capacity: i64, dtype: DType) -> Kernel {
    let into = View {
        offset: &past() * &Dim::from(size),
        strides: dims([0, capacity * size, size, 1]),
    };
    let space = vec![Dim::from(1), Dim::from(heads), seq(), Dim::from(size)];
    copy(space, dtype, view(0, &[0, size, heads * size, 1]), into)
}

fn copies() -> Vec<(String, Kernel)> {
    let mut all = Vec::new();
    for d in DType::ALL {
        all.push((format!("append_3x64_{d}"), append(3, 64, 2048, d)));
        let whole = View::contiguous(&dims([7, 5, 3]));
        let kernel = copy(dims([7, 5, 3]), d, view(1, &[1, 7, 35]), whole);
        all.push((format!("transpose_7x5x3_{d}"), kernel));
        let whole = view(0, &[1]);
        let kernel = copy(dims([65536]), d, whole.clone(), whole);
        all.push((format!("copy_65536_{d}"), kernel));
    }
    all.push((
        "append_8x128_bf16".into(),
        append(8, 128, 4096, DType::BF16),
    ));
    all.push(("append_9x66_bf16".into(), append(9, 66, 100, DType::BF16)));
    let keys = &past() + &seq();
    let window = View {
        offset: past(),
        strides: vec![keys.clone(), Dim::from(1)],
    };
    let kernel = copy(
        vec![seq(), keys.clone()],
        DType::F32,
        window,
        View::contiguous(&[seq(), keys]),
    );
    all.push(("copy_keys_f32".into(), kernel));
    all
}

fn gather(rows: Dim, cols: usize, entries: usize, args: [DType; 3]) -> Kernel {
    let mut b = BodyBuilder::new();
    let x = b.push(Inst::Input);
    let c = b.push(Inst::F32(3.0));
    let y = b.binary(Binary::Mul, x, c);
    b.store(Arg(2), view(0, &[cols as i64, 1]), y);
    Kernel::Gather(Gather {
        rows,
        cols,
        entries,
        args: Encoding::plain(args.to_vec()),
        ids: Operand {
            arg: Arg(0),
            view: view(1, &[2]),
        },
        table: Arg(1),
        body: b.finish(),
    })
}

fn gathers() -> Vec<(String, Kernel)> {
    use DType::{BF16, F16, F32, I64, U8, U32};
    let shapes = [(576, 49_152), (4096, 128_256), (33, 10), (8, 10), (6, 10)];
    let mut all = Vec::new();
    for (cols, entries) in shapes {
        for args in [[U32, BF16, BF16], [I64, F16, F32], [U8, F32, F32]] {
            let name = format!("gather_{cols}_{}_{}_{}", args[0], args[1], args[2]);
            all.push((name, gather(seq(), cols, entries, args)));
        }
    }
    all
}
