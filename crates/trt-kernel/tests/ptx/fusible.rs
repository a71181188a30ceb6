//! What `fusible` says back ends can fuse is emitted for every target, and prepared on the host: the
//! limits are data of their own, so nothing else keeps them from drifting from the emitters.

use crate::corpus::step::{STEP, Step};
use crate::corpus::{dims, view};
use trt_kernel::fusible::{self, GROUP, HEADS, LEFT, MAX_TILES, PartKind};
use trt_kernel::launch::TilesParam;
use trt_kernel::ptx::{Target, emit};
use trt_kernel::*;

const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// Every back end takes the kernel.
fn ready(kernel: &Kernel) {
    for target in Target::ALL {
        emit(kernel, target).unwrap_or_else(|e| panic!("{target}: {e}\n{kernel}"));
    }
    // The host prepares the parts of a group one by one.
    for part in kernel.parts() {
        host::Prepared::new(part).unwrap_or_else(|e| panic!("host: {e}\n{part}"));
    }
}

/// A ranged product of a stored left operand, over arguments `x`, `w`, `out`.
fn product([m, n, k]: [i64; 3], left: DType, right: DType) -> Matmul {
    let whole = view(0, &[0, n, 1]);
    let mut epilogue = BodyBuilder::new();
    let sum = epilogue.push(Inst::Input);
    epilogue.store(Arg(2), whole, sum);
    let operand = |arg| {
        let view = view(0, &[0, k, 1]);
        Operand { arg, view }
    };
    Matmul {
        batch: Dim::from(1),
        m: Dim::from(m),
        n: Dim::from(n),
        k: Dim::from(k),
        args: Encoding::plain([left, right, left]),
        a: operand(Arg(0)).into(),
        b: operand(Arg(1)),
        ranged: true,
        epilogue: epilogue.finish(),
    }
}

/// The same with `x / sqrt(mean(x^2))` in place of `x`.
fn computing(product: &Matmul) -> Matmul {
    let mut b = BodyBuilder::new();
    let x = b.load(Arg(0), product.b.view.clone());
    let square = b.unary(Unary::Sqr, x);
    let sum = b.push(Inst::Reduce(Reduce::Sum, square));
    let root = b.unary(Unary::Sqrt, sum);
    let y = b.binary(Binary::Div, x, root);
    b.push(Inst::Yield(y));
    let a = Left::Computed {
        dtype: product.left_dtype(),
        body: b.finish(),
    };
    Matmul {
        a,
        ..product.clone()
    }
}

/// Products around the limits of left operands.
fn products() -> Vec<Matmul> {
    let rows = LEFT.rows as i64;
    let columns = [1, 8, 96, 100, 576, 2048, 4096, 4104, 8192, 16384, 16392];
    let mut all = Vec::new();
    for (m, k) in (0..=rows + 1).flat_map(|m| columns.map(|k| (m, k))) {
        for (left, right) in FLOATS.into_iter().flat_map(|l| FLOATS.map(|r| (l, r))) {
            all.push(product([m, 70, k], left, right));
        }
    }
    all
}

#[test]
fn a_product_that_may_compute_its_left_operand_has_text_for_every_target() {
    let (can, cannot): (Vec<Matmul>, Vec<Matmul>) =
        products().into_iter().partition(fusible::computes_left);
    can.iter()
        .for_each(|k| ready(&Kernel::Matmul(computing(k))));
    let largest = |k: &Matmul| {
        let bytes = k.k.constant_size().unwrap() * k.left_dtype().size();
        k.m.is(LEFT.rows as i64) && bytes * LEFT.rows == LEFT.bytes
    };
    assert!(can.iter().any(largest), "the limits are reached");
    assert!(can.len() > 100 && cannot.len() > 100);
}

#[test]
fn a_chain_of_products_that_may_be_one_has_text_for_every_target() {
    let all: Vec<Matmul> = products().into_iter().step_by(3).collect();
    let (mut chained, mut apart) = (0, 0);
    for one in &all {
        for right in FLOATS {
            let mut other = one.clone();
            other.args[1] = right.into();
            if !fusible::chains(one, &other) {
                apart += 1;
                continue;
            }
            chained += 1;
            for parts in [[one.clone(), other.clone()], [one, &other].map(computing)] {
                ready(&Kernel::Group(Group {
                    parts: parts.map(Kernel::Matmul).to_vec(),
                    order: Order::Chain,
                }));
            }
        }
    }
    assert!(chained > 30 && apart > 30, "{chained}, {apart}");
}

/// Row kernels, with and without a fold, and a move over `[rows, columns]`.
fn small([rows, columns]: [i64; 2]) -> Vec<Kernel> {
    let space = dims([rows, columns]);
    let row = |folds: bool| {
        let whole = View::contiguous(&space);
        let mut b = BodyBuilder::new();
        let mut x = b.load(Arg(0), whole.clone());
        if folds {
            x = b.push(Inst::Reduce(Reduce::Max, x));
        }
        b.store(Arg(1), whole, x);
        Kernel::Row(Row {
            space: space.clone(),
            args: vec![DType::BF16, DType::F32],
            body: b.finish(),
        })
    };
    let turned = Kernel::Move(Move {
        src: view(0, &[1, rows]),
        dst: View::contiguous(&space),
        dtype: DType::F16,
        space: space.clone(),
    });
    vec![row(false), row(true), turned]
}

#[test]
fn a_group_of_parts_of_one_kind_has_text_for_every_target() {
    let sizes = [
        [1, 1],
        [3, 7],
        [1, GROUP.points],
        [GROUP.points, 1],
        [1 << 8, 1 << 8],
    ];
    let points: Vec<Kernel> = sizes.into_iter().flat_map(small).collect();
    let few = |k: &Kernel| fusible::part_kind(k) == Some(PartKind::FewRows);
    let (pieces, others): (Vec<Matmul>, Vec<Matmul>) = (products().into_iter())
        .filter(|k| few(&Kernel::Matmul(k.clone())))
        .partition(|k| LEFT.read_in_pieces(k));
    let rows: Vec<Kernel> = pieces.into_iter().map(Kernel::Matmul).collect();
    for parts in [points, rows] {
        assert!(parts.len() > GROUP.parts);
        for parts in parts.chunks(GROUP.parts).filter(|c| c.len() > 1) {
            ready(&Kernel::Group(Group {
                parts: parts.to_vec(),
                order: Order::Side,
            }));
        }
    }
    // As many rows as a call has, of any operands.
    let sized = |k: &Matmul| Matmul {
        m: Dim::var(Var(0)),
        ..k.clone()
    };
    let many: Vec<Kernel> = (others.iter().map(sized).step_by(5))
        .map(Kernel::Matmul)
        .collect();
    let kind = Some(PartKind::Rows(Dim::var(Var(0))));
    assert!(many.iter().all(|k| fusible::part_kind(k) == kind));
    for parts in many.chunks(GROUP.parts).filter(|c| c.len() > 1) {
        ready(&Kernel::Group(Group {
            parts: parts.to_vec(),
            order: Order::Side,
        }));
    }
    // These may be launched one by one.
    assert!(!others.is_empty());
    others
        .into_iter()
        .map(Kernel::Matmul)
        .for_each(|k| ready(&k));
    let large = small([GROUP.points, 2]);
    assert!(large.iter().all(|k| fusible::part_kind(k).is_none()));
}

#[test]
fn an_attention_that_may_run_rows_before_it_has_text_for_every_target() {
    let (mut can, mut cannot) = (Vec::new(), 0);
    let widest = HEADS.widest as i64;
    for dim in [2, 4, 8, 12, 64, 128, 248, widest, widest + 8] {
        for (heads, dtype) in [[1, 1], [2, 3], [8, 4], [3, 20]]
            .into_iter()
            .flat_map(|h| FLOATS.map(|d| (h, d)))
        {
            for (batch, values_there) in [(1, false), (1, true), (2, false)] {
                let step = Step {
                    batch,
                    heads,
                    dim,
                    dtype,
                    values_there,
                    ..STEP
                };
                let k = step.attention();
                match fusible::runs_before(&k) {
                    true => can.push(k),
                    false => cannot += 1,
                }
            }
        }
    }
    assert!(can.len() > 50 && cannot > 50, "{}, {cannot}", can.len());
    assert!(can.iter().any(|k| k.head_dim == HEADS.widest));
    for k in can {
        let rows = k.before.len();
        let kernel = Kernel::Attention(k);
        ready(&kernel);
        for target in Target::ALL {
            // Where there are no tensor cores, rows are launches of their own.
            let expected = if target < Target::Sm80 { rows + 1 } else { 1 };
            let launches = emit(&kernel, target).unwrap().launches;
            assert_eq!(launches.len(), expected, "{target}: {kernel}");
        }
    }
}

#[test]
fn a_launch_takes_the_addresses_of_as_many_tiles_as_it_may_cover() {
    let head = 4 * size_of::<u32>();
    assert_eq!(size_of::<TilesParam>(), head + MAX_TILES * size_of::<u64>());
}
