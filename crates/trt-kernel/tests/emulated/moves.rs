//! Gathers and strided copies as PTX.

use super::*;
use crate::emulator::{Call, run};
use proptest::prelude::*;

fn view(offset: i64, strides: &[i64]) -> View {
    View {
        offset: Dim::from(offset),
        strides: strides.iter().map(|s| Dim::from(*s)).collect(),
    }
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

#[test]
fn gather_picks_rows_and_runs_its_body() {
    for ids in [DType::U8, DType::U32, DType::I64] {
        for table in [DType::F32, DType::BF16, DType::F16] {
            for (rows, cols) in [(1, 576), (40, 33), (3, 1100), (2, 6), (0, 8)] {
                let args = [
                    Buffer::random(ids, 2 * rows + 1, 1),
                    Buffer::random(table, 10 * cols, 2),
                    Buffer::zeros(DType::F32, rows * cols),
                ];
                let kernel = gather(Dim::var(Var(0)), cols, 10, [ids, table, DType::F32]);
                assert!(distance(&kernel, &Env::new(&[rows as i64]), &args) <= 1.0);
            }
        }
    }
}

/// A launch whose table lies `skew` bytes after an aligned address.
fn skewed(kernel: &Kernel, e: &Emitted, skew: u64, args: &mut [Buffer]) -> Done {
    let call = Call {
        written: kernel.written(),
        skew: Some((Arg(1), skew)),
        ..Call::default()
    };
    run(e, &call, args).unwrap_or_else(|e| panic!("{skew}: {e}"))
}

#[test]
fn a_table_may_start_at_any_element() {
    for dtype in [DType::F32, DType::BF16] {
        for cols in [576, 1100] {
            let kernel = gather(Dim::from(3), cols, 5, [DType::U32, dtype, dtype]);
            let given = [
                Buffer::new(DType::U32, [0.0, 4.0, 0.0, 0.0, 0.0, 2.0, 0.0]),
                Buffer::random(dtype, 5 * cols, 2),
                Buffer::zeros(dtype, 3 * cols),
            ];
            let mut exact = given.clone();
            reference::run(&kernel, &Env::default(), &mut exact);
            for e in emitted(&kernel) {
                for skew in [0, 8, dtype.size() as u64] {
                    let mut ours = given.clone();
                    skewed(&kernel, &e, skew, &mut ours);
                    assert!(ours[2].distance(&exact[2]) <= 1.0, "{dtype} {cols} {skew}");
                }
            }
        }
    }
}

#[test]
fn an_id_outside_of_the_table_is_recorded_and_its_row_is_zero() {
    for (ids, bad) in [
        (DType::I64, -1.0),
        (DType::I64, 10.0),
        (DType::U32, 4e9),
        (DType::U8, 200.0),
    ] {
        let kernel = gather(Dim::from(3), 576, 10, [ids, DType::BF16, DType::F32]);
        let given = [
            Buffer::new(ids, [0.0, 9.0, 0.0, bad, 0.0, 1.0, 0.0]),
            Buffer::random(DType::BF16, 5760, 2),
            Buffer::random(DType::F32, 3 * 576, 3),
        ];
        for e in emitted(&kernel) {
            let mut ours = given.clone();
            let done = launch(&kernel, &e, &Env::default(), &[], 0, &mut ours);
            let [mark, id, row, of] = done.fault.0;
            assert!(mark != 0);
            assert_eq!((id, row, of), (bad as i64, 1, 10));
            let out = ours[2].values();
            assert!(out[576..1152].iter().all(|x| *x == 0.0));
            assert_eq!(out[0], 3.0 * ours[1].get(9 * 576));
            assert_eq!(out[1152], 3.0 * ours[1].get(576));
        }
    }
}

#[test]
fn of_several_bad_ids_one_is_recorded_whole() {
    let kernel = gather(Dim::from(5), 8, 10, [DType::I64, DType::F32, DType::F32]);
    let ids = [0, 10, 0, 11, 0, 12, 0, 13, 0, 14, 0];
    let given = [
        Buffer::new(DType::I64, ids.map(f64::from)),
        Buffer::random(DType::F32, 80, 2),
        Buffer::zeros(DType::F32, 40),
    ];
    for e in emitted(&kernel) {
        let done = launch(&kernel, &e, &Env::default(), &[], 3, &mut given.to_vec());
        let [mark, id, row, of] = done.fault.0;
        assert!(mark != 0 && id == row + 10 && of == 10, "{:?}", done.fault);
    }
}

fn copy(space: Vec<Dim>, dtype: DType, src: View, dst: View) -> Kernel {
    Kernel::Move(Move {
        space,
        dtype,
        src,
        dst,
    })
}

#[test]
fn a_copy_appends_into_a_cache() {
    // [heads, seq, dim] into [heads, capacity, dim] after `past` rows.
    let (heads, capacity) = (3, 20);
    let (past, seq) = (Dim::var(Var(0)), Dim::var(Var(1)));
    for dim in [8, 24, 5] {
        for dtype in DType::ALL {
            let space = vec![Dim::from(heads), seq.clone(), Dim::from(dim)];
            let dst = View {
                offset: &past * &Dim::from(dim),
                strides: [capacity * dim, dim, 1].map(Dim::from).to_vec(),
            };
            let src = View::contiguous(&space);
            let kernel = copy(space, dtype, src, dst);
            for (past, seq) in [(7, 5), (0, 20), (19, 1), (3, 0)] {
                let args = [
                    Buffer::random(dtype, (heads * seq * dim) as usize, 1),
                    Buffer::zeros(dtype, (heads * capacity * dim) as usize),
                ];
                let d = distance(&kernel, &Env::new(&[past, seq]), &args);
                assert_eq!(d, 0.0, "{dtype} {dim}");
            }
        }
    }
}

#[test]
fn a_copy_keeps_every_bit() {
    // All of bf16, NaNs with their payloads too.
    let kernel = copy(dims(&[65536]), DType::BF16, view(0, &[1]), view(0, &[1]));
    let mut from = Buffer::zeros(DType::BF16, 65536);
    from.bytes = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    for e in emitted(&kernel) {
        let mut args = [from.clone(), Buffer::zeros(DType::BF16, 65536)];
        launch(&kernel, &e, &Env::default(), &[], 0, &mut args);
        assert_eq!(args[1].bytes, from.bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_permutation_equals_the_reference(
        sizes in prop::collection::vec(1usize..9, 1..5),
        order in any::<u32>(),
        offset in 0i64..9,
        dtype in prop::sample::select(DType::ALL.to_vec()),
    ) {
        let rank = sizes.len();
        let mut axes: Vec<usize> = (0..rank).collect();
        (0..rank).for_each(|i| axes.swap(i, (order >> (8 * i)) as usize % rank));
        let mut strides = vec![0i64; rank];
        let mut step = 1i64;
        for &a in axes.iter().rev() {
            strides[a] = step;
            step *= sizes[a] as i64;
        }
        let n: usize = sizes.iter().product();
        let whole = View::contiguous(&dims(&sizes));
        let args = [Buffer::random(dtype, n + 9, 5), Buffer::zeros(dtype, n)];
        let kernel = copy(dims(&sizes), dtype, view(offset, &strides), whole);
        prop_assert_eq!(distance(&kernel, &Env::default(), &args), 0.0);
    }
}
