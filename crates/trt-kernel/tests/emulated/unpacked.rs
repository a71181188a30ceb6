//! Products by many rows of halves, whose weight in blocks is written out ahead of tensor cores: they have the bits of a
//! product by the weight's values, rounded to the dtype of the left operand.

use super::types::{product, product_args};
use super::*;

/// The same product by a plain weight.
fn plain(kernel: &Kernel, args: &[Buffer], left: DType) -> (Kernel, Vec<Buffer>) {
    let Kernel::Matmul(mut product) = kernel.clone() else {
        unreachable!("a product");
    };
    product.args[1] = left.into();
    let mut args = args.to_vec();
    args[1] = Buffer::new(left, args[1].values());
    (Kernel::Matmul(product), args)
}

fn run(
    kernel: &Kernel,
    e: &Emitted,
    args: &[Buffer],
    rows: &[(Range<usize>, usize)],
    seed: u64,
) -> Vec<u8> {
    let mut given = args.to_vec();
    for rows in rows {
        let rows = std::slice::from_ref(rows);
        launch(kernel, e, &Env::default(), rows, seed, &mut given);
    }
    given[2].bytes.clone()
}

fn emit(kernel: &Kernel, target: Target) -> Emitted {
    ptx::emit(kernel, target).unwrap_or_else(|e| panic!("{target}: {e}"))
}

fn unpacks(e: &Emitted) -> usize {
    let named = |l: &&trt_kernel::launch::EntryLaunch| l.entry.starts_with("unpack");
    e.launches.iter().filter(named).count()
}

#[test]
fn a_product_by_many_rows_has_the_bits_of_one_by_the_rounded_values() {
    for block in BlockType::ALL {
        for left in [DType::BF16, DType::F16] {
            // Steps of 64 along k of which the last is half, where blocks allow it.
            let shape = [70, 128, 3 * block.values().max(96)];
            let kernel = product(block, shape, left);
            let args = product_args(block, shape, left);
            let (other, others) = plain(&kernel, &args, left);
            let whole = [(0..128, 128)];
            for target in [Target::Sm80, Target::Sm90a, Target::Sm90aMaps] {
                let e = emit(&kernel, target);
                assert_eq!(unpacks(&e), 1, "{target}");
                let wanted = run(&other, &emit(&other, target), &others, &whole, 1);
                let found = run(&kernel, &e, &args, &whole, 2);
                assert!(found == wanted, "{block:?} {left} {target}");
            }
        }
    }
}

/// Rows of results that are wide enough for groups of warps, as little as possible of them.
const WIDE: [usize; 3] = [400, 8192 + 64, 64];

#[test]
fn products_of_warp_groups_read_what_was_written_out() {
    let block = BlockType::Q8_0;
    let [m, n, k] = WIDE;
    let kernel = product(block, WIDE, DType::BF16);
    let args = product_args(block, WIDE, DType::BF16);
    let (other, others) = plain(&kernel, &args, DType::BF16);
    // Of all blocks those at both ends of the weight.
    let rows = [(0..64, 64), (n - 320..n, 128)];
    for target in [Target::Sm90a, Target::Sm90aMaps] {
        let e = emit(&kernel, target);
        let on = |l: &trt_kernel::launch::EntryLaunch| l.entry.contains("128x256");
        assert!(e.launches.iter().any(on), "{m} {k}: {:?}", e.launches);
        let wanted = run(&other, &emit(&other, target), &others, &rows, 1);
        assert!(run(&kernel, &e, &args, &rows, 2) == wanted, "{target}");
        let some = ptx::emit_within(&kernel, target, 256 * 2 * k).unwrap();
        assert_eq!(unpacks(&some), n.div_ceil(256));
        assert!(run(&kernel, &some, &args, &rows, 3) == wanted, "{target}");
    }
}

#[test]
fn any_range_of_rows_in_any_tiles_gives_the_same_bits() {
    let n = 64 * 5 + 17;
    for (block, left) in [(BlockType::Q4K, DType::BF16), (BlockType::Q5_0, DType::F16)] {
        let shape = [9, n, 256];
        let kernel = product(block, shape, left);
        let args = product_args(block, shape, left);
        for e in emitted(&kernel) {
            let whole = run(&kernel, &e, &args, &[(0..n, n)], 0);
            let cuts = [(0..64, 64), (64..256, 64), (256..n, 128)];
            assert!(run(&kernel, &e, &args, &cuts, 3) == whole, "{block:?}");
            assert!(run(&kernel, &e, &args, &[(0..n, 128)], 4) == whole);
        }
    }
}

#[test]
fn a_weight_that_is_too_large_is_written_out_slab_by_slab() {
    let (block, shape) = (BlockType::Q4K, [130, 704, 256]);
    let kernel = product(block, shape, DType::BF16);
    let args = product_args(block, shape, DType::BF16);
    for target in [Target::Sm80, Target::Sm90aMaps] {
        let whole = emit(&kernel, target);
        // Room for less than 512 rows.
        let room = 511 * 512;
        let e = ptx::emit_within(&kernel, target, room).unwrap();
        assert_eq!((unpacks(&whole), unpacks(&e)), (1, 3), "{:?}", e.launches);
        let bytes = e.scratch.constant_size().unwrap();
        assert!(bytes <= room + 256, "{bytes}");
        let cuts: [&[(Range<usize>, usize)]; 3] = [
            &[(0..704, 704)],
            &[(0..704, 192)],
            &[(0..320, 64), (320..384, 64), (384..704, 320)],
        ];
        let wanted = run(&kernel, &whole, &args, cuts[0], 1);
        for rows in cuts {
            let found = run(&kernel, &e, &args, rows, 2);
            assert!(found == wanted, "{target} {rows:?}");
        }
    }
}

#[test]
fn halves_where_tensor_cores_take_none_and_f32_are_exact() {
    let block = BlockType::Q6K;
    for (left, target) in [(DType::BF16, Target::Sm75), (DType::F32, Target::Sm90a)] {
        let shape = [9, 64, 256];
        let kernel = product(block, shape, left);
        let e = emit(&kernel, target);
        assert_eq!((unpacks(&e), e.scratch.is(0)), (0, true));
        let args = product_args(block, shape, left);
        let far = distance_of(&kernel, &[e], &Env::default(), &args);
        assert!(far <= 20.0, "{left} {target}: {far}");
    }
}

#[test]
fn rounding_of_the_values_is_all_that_is_far_from_the_reference() {
    for (left, most) in [(DType::BF16, 1.0 / 256.0), (DType::F16, 1.0 / 2048.0)] {
        let [m, n, k] = [9, 64, 512];
        let kernel = product(BlockType::Q4K, [m, n, k], left);
        let args = product_args(BlockType::Q4K, [m, n, k], left);
        let e = emit(&kernel, Target::Sm80);
        let bytes = run(&kernel, &e, &args, &[(0..n, n)], 1);
        let found = bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()));
        let [a, w] = [0, 1].map(|i| args[i].values());
        for (i, found) in found.enumerate() {
            let (x, y) = (&a[i / n * k..][..k], &w[i % n * k..][..k]);
            let terms = || x.iter().zip(y).map(|(x, y)| x * y);
            let (sum, all) = (terms().sum::<f64>(), terms().map(f64::abs).sum::<f64>());
            // Half a unit in the last place of each value, and what adding in f32 takes.
            let far = (f64::from(found) - sum).abs() / all;
            assert!(far <= most / 2.0 + 1e-6, "{left} {i}: {far}");
        }
    }
}
