//! What kernels are said to read and write, and where that ends.

use std::borrow::Cow;
use trt_kernel::{
    Access, Arg, Attention, BlockType, Body, BodyBuilder, DType, Dim, Encoding, Env, Gather, Group,
    Inst, Kernel, Matmul, Move, Operand, Order, Reach, Row, Toucher, View,
};

fn whole(sizes: &[usize]) -> (Vec<Dim>, View) {
    let space: Vec<Dim> = sizes.iter().map(|s| Dim::from(*s)).collect();
    let view = View::contiguous(&space);
    (space, view)
}

fn copy(n: usize) -> Kernel {
    let (space, view) = whole(&[n]);
    Kernel::Move(Move {
        dtype: DType::F32,
        src: view.clone(),
        dst: view,
        space,
    })
}

/// A body that stores what the template hands in.
fn stored(arg: u16, view: View) -> Body {
    let mut b = BodyBuilder::new();
    let x = b.push(Inst::Input);
    b.store(Arg(arg), view, x);
    b.finish()
}

/// `a2[3, 128] = a0[3, 64] · a1[128, 64]`.
fn product() -> Matmul {
    let operand = |arg, sizes: &[usize]| Operand {
        arg: Arg(arg),
        view: whole(sizes).1,
    };
    let mut b = operand(1, &[1, 128, 64]);
    b.view.strides[0] = Dim::from(0);
    Matmul {
        batch: Dim::from(1),
        m: Dim::from(3),
        n: Dim::from(128),
        k: Dim::from(64),
        args: Encoding::plain([DType::F32; 3]),
        a: operand(0, &[1, 3, 64]).into(),
        b,
        ranged: true,
        epilogue: stored(2, whole(&[1, 3, 128]).1),
    }
}

/// An attention over one key of one head, whose queries and keys rows store first: `keys` is
/// where the row of keys begins.
fn attention(keys: i64) -> Attention {
    let (space, view) = whole(&[1, 1, 1, 8]);
    let operand = |arg| Operand {
        arg: Arg(arg),
        view: view.clone(),
    };
    let step = |to, at| {
        let mut b = BodyBuilder::new();
        let x = b.load(Arg(0), view.clone());
        let offset = Dim::from(at);
        let strides = view.strides.clone();
        b.store(Arg(to), View { offset, strides }, x);
        Row {
            space: space.clone(),
            args: vec![DType::F32; 5],
            body: b.finish(),
        }
    };
    let mut score = BodyBuilder::new();
    let x = score.push(Inst::Input);
    score.push(Inst::Yield(x));
    Attention {
        batch: Dim::from(1),
        heads: 1,
        kv_heads: 1,
        queries: Dim::from(1),
        keys: Dim::from(1),
        head_dim: 8,
        value_dim: 8,
        args: vec![DType::F32; 4],
        q: operand(4),
        k: operand(1),
        v: operand(2),
        out: operand(3),
        causal: None,
        score: score.finish(),
        before: vec![step(4, 0), step(1, keys)],
    }
}

fn args(accesses: &[Access<'_>], writes: bool) -> Vec<u16> {
    let those = accesses.iter().filter(|a| a.writes == writes);
    those.map(|a| a.arg.0).collect()
}

#[test]
fn a_product_reads_its_operands_and_stores_in_its_epilogue() {
    let kernel = Kernel::Matmul(product());
    let accesses = kernel.accesses();
    assert_eq!(args(&accesses, false), [0, 1]);
    assert_eq!(args(&accesses, true), [2]);
    let sizes: Vec<usize> = accesses.iter().map(|a| a.space.len()).collect();
    assert_eq!(sizes, [3, 3, 3]);
    assert_eq!((kernel.streamed(), kernel.tables()), (vec![Arg(1)], vec![]));
}

#[test]
fn a_group_numbers_the_arguments_of_its_parts() {
    let kernel = Kernel::Group(Group {
        parts: vec![copy(4), Kernel::Matmul(product()), copy(7)],
        order: Order::Side,
    });
    assert_eq!(args(&kernel.accesses(), false), [0, 2, 3, 5]);
    assert_eq!(kernel.written(), [1, 4, 6].map(Arg));
    assert_eq!(kernel.streamed(), [Arg(3)]);
    let last = &kernel.accesses()[6];
    let reach = last.reach(&Env::default());
    assert_eq!(reach, Some(Reach { first: 0, last: 6 }));
}

#[test]
fn rows_before_an_attention_are_told_and_its_result_comes_last() {
    let kernel = Kernel::Attention(attention(0));
    kernel.check().unwrap();
    let accesses = kernel.accesses();
    assert_eq!(args(&accesses, false), [4, 1, 2, 0, 0]);
    assert_eq!(args(&accesses, true), [4, 1, 3]);
    assert_eq!(kernel.written(), [1, 3].map(Arg), "a4 is the launch's own");
}

#[test]
fn rows_before_an_attention_may_not_reach_further_than_any_others() {
    let error = Kernel::Attention(attention(1 << 49)).check().unwrap_err();
    assert!(error.to_string().contains("reaches more than"), "{error}");
}

#[test]
fn a_table_is_read_as_a_whole_whatever_the_ids() {
    let kernel = Kernel::Gather(Gather {
        rows: Dim::from(2),
        cols: 32,
        entries: 10,
        args: Encoding::plain([DType::U32, DType::BF16, DType::F32]),
        ids: Operand {
            arg: Arg(0),
            view: whole(&[2]).1,
        },
        table: Arg(1),
        body: stored(2, whole(&[2, 32]).1),
    });
    assert_eq!(kernel.tables(), [Arg(1)]);
    let accesses = kernel.accesses();
    let table = accesses.iter().find(|a| a.by == Toucher::Table).unwrap();
    let reach = table.reach(&Env::default()).unwrap();
    assert_eq!(reach.bytes(Encoding::Plain(DType::BF16)), 0..640);
    let blocks = Encoding::Blocks(BlockType::Q8_0);
    assert_eq!(reach.bytes(blocks), 0..340);
}

#[test]
fn elements_of_blocks_lie_in_whole_rows_of_blocks() {
    let kernel = Kernel::Matmul(product());
    let right = &kernel.accesses()[1];
    let reach = right.reach(&Env::default()).unwrap();
    let blocks = Encoding::Blocks(BlockType::Q8_0);
    let rows = 128 * blocks.row_bytes(64).unwrap() as i64;
    assert_eq!(reach.bytes(blocks), 0..rows);
    let second = Reach {
        first: 64,
        last: 127,
    };
    assert_eq!(second.bytes(blocks), 68..136);
    let before = Reach { first: -1, last: 0 };
    assert_eq!(before.bytes(blocks), -34..34);
    let far = Reach {
        first: 0,
        last: i64::MAX,
    };
    assert_eq!(far.bytes(Encoding::Plain(DType::F32)).end, i64::MAX);
}

#[test]
fn an_empty_space_reaches_nothing_and_rows_may_run_backwards() {
    let access = |rows: usize| Access {
        arg: Arg(0),
        view: Cow::Owned(View {
            offset: Dim::from(6),
            strides: [-3, 1].map(Dim::from).to_vec(),
        }),
        space: whole(&[rows, 3]).0.into(),
        writes: false,
        by: Toucher::Body,
    };
    let reach = |rows| access(rows).reach(&Env::default());
    assert_eq!(reach(3), Some(Reach { first: 0, last: 8 }));
    assert_eq!(reach(0), None);
}
