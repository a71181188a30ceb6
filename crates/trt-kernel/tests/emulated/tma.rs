//! Products whose operands the copy engine brings.

use super::wide::{distance_of_rows, product};
use super::*;
use crate::emulator::{EmuError, Why};

/// Rows of the weight: whole boxes, and enough that 65 rows of `a` are worth large blocks.
const N: usize = 12_800;
const NARROW: &str = "tma128x128";
const WIDE: &str = "tma128x256";

/// Five boxes of 64 rows: the last block reaches beyond the range. Every other tile is far away.
#[test]
fn they_equal_the_reference_wherever_tiles_lie() {
    for (entry, m, k, dtype, step) in [
        (NARROW, 70, 576, DType::BF16, 64),
        (NARROW, 128, 64, DType::F16, 320),
        (WIDE, 130, 320, DType::BF16, 128),
        (WIDE, 129, 128, DType::F16, 64),
    ] {
        let rows = 12_480..N;
        let target = Target::Sm90aMaps;
        let d = distance_of_rows(entry, target, [m, N, k], dtype, rows, step);
        assert!(d <= 20.0, "{entry} {m} {k} {dtype}: {d}");
    }
}

/// A product of few blocks, by its only entry of this name.
fn entry(kernel: &Kernel, target: Target, name: &str) -> Emitted {
    let mut e = ptx::emit(kernel, target).unwrap();
    e.launches.retain(|l| l.entry == name);
    e.launches.iter_mut().for_each(|l| l.when.clear());
    assert_eq!(e.launches.len(), 1, "{name}");
    e
}

/// `a w^T` with a runtime number of rows.
fn small(n: usize, k: usize, ranged: bool) -> Kernel {
    let Kernel::Matmul(mut product) = product(1, n, k, DType::BF16) else {
        panic!("not a product");
    };
    product.m = Dim::var(Var(0));
    product.ranged = ranged;
    Kernel::Matmul(product)
}

fn args(m: usize, n: usize, k: usize) -> Vec<Buffer> {
    vec![
        Buffer::random(DType::BF16, m * k, 1),
        Buffer::random(DType::BF16, n * k, 2),
        Buffer::zeros(DType::F32, m * n),
    ]
}

#[test]
fn they_have_the_bits_of_products_that_threads_feed() {
    let (m, n, k) = (150, 320, 384);
    let kernel = small(n, k, true);
    for cols in [128, 256] {
        let [ours, theirs] = [
            (Target::Sm90aMaps, format!("tma128x{cols}")),
            (Target::Sm90a, format!("wgmma128x{cols}")),
        ]
        .map(|(target, name)| {
            let e = entry(&kernel, target, &name);
            let mut all = args(m, n, k);
            let rows = [(0..n, 64)];
            launch(&kernel, &e, &Env::new(&[m as i64]), &rows, 3, &mut all);
            all.swap_remove(2).bytes
        });
        assert!(ours == theirs, "{cols}");
    }
}

#[test]
fn rows_of_a_weight_that_is_not_ranged_need_not_be_whole() {
    let (m, n, k) = (40, 200, 128);
    let kernel = small(n, k, false);
    let e = entry(&kernel, Target::Sm90aMaps, WIDE);
    let d = distance_of(&kernel, &[e], &Env::new(&[m as i64]), &args(m, n, k));
    assert!(d <= 20.0, "{d}");
}

#[test]
fn what_is_not_whole_is_fed_by_threads() {
    let uses = |n, k| {
        let e = ptx::emit(&small(n, k, true), Target::Sm90aMaps).unwrap();
        let mapped = e.launches.iter().any(|l| l.mapped);
        assert_eq!(mapped, !e.maps.is_empty());
        mapped
    };
    assert!(uses(320, 128));
    assert!(!uses(321, 128), "a row more than whole boxes");
    assert!(!uses(320, 136), "more along k than whole stages");
}

/// Runs the text after a change; a change of nothing is a mistake of the test.
fn changed(from: &str, to: &str) -> EmuError {
    let (m, n, k) = (20, 256, 448);
    let kernel = small(n, k, true);
    let mut e = entry(&kernel, Target::Sm90aMaps, WIDE);
    let start = e.text.find(&format!(".entry {WIDE}")).unwrap();
    let (head, body) = e.text.split_at(start);
    assert!(body.contains(from), "{from}");
    e.text = format!("{head}{}", body.replacen(from, to, 1));
    let all = &mut args(m, n, k);
    let weight = all[1].bytes.clone();
    let env = Env::new(&[m as i64]);
    let mut last = None;
    for seed in 0..4 {
        let tiles = vec![Tiles {
            weight: Arg(1),
            rows: 0..n,
            step: n,
            bytes: vec![weight.clone()],
        }];
        let written = vec![Arg(2)];
        #[rustfmt::skip]
        let call = Call { env, written, tiles, seed, ..Call::default() };
        last = emulator::run(&e, &call, all).err().or(last);
    }
    last.unwrap_or_else(|| panic!("{from} -> {to:?} goes unnoticed"))
}

#[test]
fn a_stage_that_is_read_or_filled_without_a_wait_is_found() {
    let kernel = ptx::emit(&small(256, 448, true), Target::Sm90aMaps).unwrap();
    let start = kernel.text.find(&format!(".entry {WIDE}")).unwrap();
    let waits = kernel.text[start..]
        .lines()
        .enumerate()
        .filter_map(|(i, l)| {
            let wait = l.contains("mbarrier.try_wait");
            wait.then(|| kernel.text[start..].lines().nth(i + 1).unwrap())
        });
    let waits: Vec<&str> = waits.collect();
    assert_eq!(waits.len(), 2, "of who brings, and of who multiplies");
    for wait in waits {
        let found = changed(wait, "").why;
        let named = matches!(found, Why::Race { .. } | Why::Pending { .. });
        assert!(named || matches!(found, Why::Unwritten { .. }), "{found}");
    }
}

#[test]
fn barriers_that_count_wrongly_are_found() {
    let found = changed("], 49152", "], 49168").why;
    assert!(matches!(found, Why::Deadlock(_)), "{found}");
    let found = changed("], 49152", "], 40960").why;
    let named = matches!(found, Why::Race { .. } | Why::Pending { .. });
    assert!(named || matches!(found, Why::Unwritten { .. }), "{found}");
    let found = changed("], 8;", "], 9;").why;
    assert!(matches!(found, Why::Deadlock(_)), "{found}");
    let found = changed("], 8;", "], 7;").why;
    let named = matches!(found, Why::Race { .. } | Why::Pending { .. });
    assert!(named || matches!(found, Why::Wrong(_)), "{found}");
}

#[test]
fn a_barrier_that_is_not_handed_to_the_copy_engine_is_found() {
    let found = changed("fence.proxy.async.shared::cta;", "").why;
    assert!(found.to_string().contains("fence.proxy.async"), "{found}");
}
