//! Gathers and strided copies on the host.

mod reference;

use proptest::prelude::*;
use reference::{Buffer, compare, host};
use trt_kernel::host::HostError;
use trt_kernel::*;

fn view(offset: i64, strides: &[i64]) -> View {
    View {
        offset: Dim::from(offset),
        strides: strides.iter().map(|s| Dim::from(*s)).collect(),
    }
}

fn gather(rows: usize, cols: usize, entries: usize, args: [DType; 3]) -> Kernel {
    let mut b = BodyBuilder::new();
    let x = b.push(Inst::Input);
    let c = b.push(Inst::F32(3.0));
    let y = b.binary(Binary::Mul, x, c);
    b.store(Arg(2), view(0, &[cols as i64, 1]), y);
    Kernel::Gather(Gather {
        rows: Dim::from(rows),
        cols,
        entries,
        args: Encoding::plain(args.iter().copied()),
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
            for (rows, cols) in [(1, 576), (40, 33), (0, 8)] {
                let args = [
                    Buffer::random(ids, 2 * rows + 1, 1),
                    Buffer::random(table, 10 * cols, 2),
                    Buffer::zeros(DType::F32, rows * cols),
                ];
                let kernel = gather(rows, cols, 10, [ids, table, DType::F32]);
                assert!(compare(&kernel, &Env::default(), &args) <= 1.0);
            }
        }
    }
}

#[test]
fn an_id_outside_the_table_is_an_error_with_numbers() {
    for bad in [10.0, -1.0] {
        let mut args = [
            Buffer::new(DType::I64, [0.0, 9.0, 0.0, bad]),
            Buffer::random(DType::F32, 80, 2),
            Buffer::zeros(DType::F32, 16),
        ];
        let kernel = gather(2, 8, 10, [DType::I64, DType::F32, DType::F32]);
        let error = host(&kernel, &Env::default(), None, &mut args).unwrap_err();
        assert_eq!(
            error,
            HostError::Id {
                id: bad as i64,
                row: 1,
                entries: 10
            }
        );
    }
}

#[test]
fn a_gather_needs_integer_ids_and_a_float_table() {
    for args in [
        [DType::F32, DType::F32, DType::F32],
        [DType::U32, DType::U32, DType::F32],
    ] {
        let kernel = gather(1, 8, 10, args);
        assert!(host::Prepared::new(&kernel).is_err());
    }
}

fn copy(space: &[usize], dtype: DType, src: View, dst: View) -> Kernel {
    Kernel::Move(Move {
        space: space.iter().map(|s| Dim::from(*s)).collect(),
        dtype,
        src,
        dst,
    })
}

#[test]
fn a_copy_appends_into_a_cache() {
    // [heads, seq, dim] into [heads, capacity, dim] after `past` rows.
    let (heads, seq, dim, capacity, past) = (3i64, 5i64, 8i64, 20i64, 7i64);
    let src = view(0, &[seq * dim, dim, 1]);
    let dst = view(past * dim, &[capacity * dim, dim, 1]);
    for dtype in DType::ALL {
        let args = [
            Buffer::random(dtype, (heads * seq * dim) as usize, 1),
            Buffer::zeros(dtype, (heads * capacity * dim) as usize),
        ];
        let kernel = copy(&[3, 5, 8], dtype, src.clone(), dst.clone());
        assert_eq!(compare(&kernel, &Env::default(), &args), 0.0);
    }
}

#[test]
fn a_copy_outside_its_destination_is_an_error() {
    let kernel = copy(&[4, 8], DType::F32, view(0, &[8, 1]), view(1, &[8, 1]));
    let mut args = [Buffer::zeros(DType::F32, 32), Buffer::zeros(DType::F32, 32)];
    let error = host(&kernel, &Env::default(), None, &mut args).unwrap_err();
    assert!(
        matches!(error, HostError::OutOfBounds { arg: 1, .. }),
        "{error}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_permutation_equals_the_reference(
        sizes in prop::collection::vec(1usize..7, 1..5),
        order in any::<u32>(),
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
        let whole = View::contiguous(&sizes.iter().map(|s| Dim::from(*s)).collect::<Vec<_>>());
        let args = [Buffer::random(dtype, n, 5), Buffer::zeros(dtype, n)];
        let kernel = copy(&sizes, dtype, view(0, &strides), whole);
        prop_assert_eq!(compare(&kernel, &Env::default(), &args), 0.0);
    }
}
