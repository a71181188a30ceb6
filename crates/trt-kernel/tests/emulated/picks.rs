//! Elements that values pick, and folds of integers, as PTX.

use super::row::{row, view};
use super::*;

/// `a2[i, j] = a0[i, a1[i, j]]` of so many columns.
fn pick(dtype: DType, ids: DType, columns: usize) -> Kernel {
    let mut b = BodyBuilder::new();
    let id = b.load(Arg(1), view(0, &[8, 1]));
    let id = b.push(Inst::Within(id, Dim::from(columns)));
    let from = view(0, &[columns as i64, 0]);
    let x = b.push(Inst::Pick(Arg(0), from, Dim::from(1), id));
    b.store(Arg(2), view(0, &[8, 1]), x);
    row(dims(&[5, 8]), &[dtype, ids, dtype], b)
}

#[test]
fn elements_are_picked_in_every_dtype() {
    for dtype in DType::ALL {
        for ids in [DType::U8, DType::U32, DType::I64] {
            let args = [
                Buffer::random(dtype, 5 * 10, 1),
                Buffer::random(ids, 40, 2),
                Buffer::zeros(dtype, 40),
            ];
            assert_eq!(distance(&pick(dtype, ids, 10), &Env::default(), &args), 0.0);
        }
    }
}

#[test]
fn an_index_outside_is_recorded_and_picks_the_first_element() {
    for (ids, bad) in [
        (DType::I64, -1.0),
        (DType::I64, 10.0),
        (DType::U32, 4e9),
        (DType::U8, 200.0),
    ] {
        let kernel = pick(DType::F32, ids, 10);
        let mut places = [3.0; 40];
        places[13] = bad;
        let given = [
            Buffer::random(DType::F32, 50, 1),
            Buffer::new(ids, places),
            Buffer::zeros(DType::F32, 40),
        ];
        for e in emitted(&kernel) {
            let mut ours = given.clone();
            let done = launch(&kernel, &e, &Env::default(), &[], 0, &mut ours);
            let [mark, id, row, of] = done.fault.0;
            assert!(mark != 0);
            assert_eq!((id, row, of), (bad as i64, -1, 10));
            assert_eq!(ours[2].get(13), ours[0].get(10));
        }
        let error = reference::host(&kernel, &Env::default(), None, &mut given.to_vec());
        let (index, size) = (bad as i64, 10);
        assert_eq!(error, Err(host::HostError::Index { index, size }));
    }
}

#[test]
fn of_no_elements_none_is_read() {
    let kernel = pick(DType::F32, DType::U32, 0);
    let given = [
        Buffer::zeros(DType::F32, 0),
        Buffer::zeros(DType::U32, 40),
        Buffer::zeros(DType::F32, 40),
    ];
    for e in emitted(&kernel) {
        let mut ours = given.clone();
        let done = launch(&kernel, &e, &Env::default(), &[], 0, &mut ours);
        assert_ne!(done.fault.0[0], 0);
    }
    let error = reference::host(&kernel, &Env::default(), None, &mut given.to_vec());
    let (index, size) = (0, 0);
    assert_eq!(error, Err(host::HostError::Index { index, size }));
}

#[test]
fn what_picks_must_have_been_held_against_a_size() {
    let mut b = BodyBuilder::new();
    let id = b.load(Arg(1), view(0, &[1]));
    let x = b.push(Inst::Pick(Arg(0), view(0, &[0]), Dim::from(1), id));
    b.store(Arg(2), view(0, &[1]), x);
    let kernel = row(dims(&[4]), &[DType::F32, DType::U32, DType::F32], b);
    let error = kernel.check().expect_err("nothing bounds it").to_string();
    assert!(error.contains("%1 picks by %0"), "{error}");
}

#[test]
fn what_is_picked_is_held_against_the_argument() {
    let kernel = pick(DType::F32, DType::U32, 10);
    let mut given = [
        Buffer::zeros(DType::F32, 49),
        Buffer::zeros(DType::U32, 40),
        Buffer::zeros(DType::F32, 40),
    ];
    let reach = kernel.accesses().into_iter().filter(|a| a.arg == Arg(0));
    let last = reach
        .filter_map(|a| a.reach(&Env::default()))
        .map(|r| r.last);
    assert_eq!(last.max(), Some(49));
    given[1] = Buffer::new(DType::U32, [9.0; 40]);
    let error = reference::host(&kernel, &Env::default(), None, &mut given);
    assert!(
        matches!(error, Err(host::HostError::OutOfBounds { .. })),
        "{error:?}"
    );
}

#[test]
fn integers_are_folded_by_a_thread_a_warp_and_a_block() {
    for dtype in [DType::U8, DType::U32, DType::I64] {
        for columns in [1, 5, 33, 200, 3000, 9000] {
            for fold in [Reduce::Sum, Reduce::Max, Reduce::Min] {
                let mut b = BodyBuilder::new();
                let x = b.load(Arg(0), view(0, &[columns as i64, 1]));
                let folded = b.push(Inst::Reduce(fold, x));
                b.store(Arg(1), view(0, &[1, 0]), folded);
                let kernel = row(dims(&[3, columns]), &[dtype, DType::I64], b);
                let args = [
                    Buffer::random(dtype, 3 * columns, 1),
                    Buffer::zeros(DType::I64, 3),
                ];
                assert_eq!(distance(&kernel, &Env::default(), &args), 0.0);
            }
        }
    }
}

#[test]
fn floats_and_integers_are_folded_together() {
    let columns = 3000;
    let mut b = BodyBuilder::new();
    let x = b.load(Arg(0), view(0, &[columns as i64, 1]));
    let i = b.push(Inst::Iota(1));
    let most = b.push(Inst::Reduce(Reduce::Max, x));
    let sum = b.push(Inst::Reduce(Reduce::Sum, i));
    let least = b.push(Inst::Reduce(Reduce::Min, x));
    for (arg, value) in [(1, most), (2, sum), (3, least)] {
        b.store(Arg(arg), view(0, &[1, 0]), value);
    }
    let types = [DType::F32, DType::F32, DType::I64, DType::F32];
    let kernel = row(dims(&[2, columns]), &types, b);
    let mut args = vec![Buffer::random(DType::F32, 2 * columns, 1)];
    args.extend(types[1..].iter().map(|d| Buffer::zeros(*d, 2)));
    assert_eq!(distance(&kernel, &Env::default(), &args), 0.0);
}
