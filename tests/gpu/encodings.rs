//! Encodings that are not plain, and the order of sums, on a GPU.

use crate::cuda;
use crate::tied::{self, Sums};
use crate::unpacked::product;
use candle_trt::device::{Device, Work};
use candle_trt::kernel::{BlockType, DType, Encoding, Env, Kernel, SumOrder};
use std::sync::Arc;

#[test]
fn a_table_in_two_forms_sums_in_order_at_every_budget() {
    let Some(gpu) = cuda() else { return };
    tied::a_table_in_two_forms_is_right_at_every_budget(gpu, Sums::InOrder);
}

#[test]
fn a_batch_gives_what_its_rows_give_alone() {
    let Some(gpu) = cuda() else { return };
    crate::matrix::a_batch_gives_what_its_rows_give_alone_on(gpu);
}

/// Numbers between -1 and 1, a function of their place.
fn value(i: usize) -> f32 {
    (i as f32 * 0.618).sin()
}

/// Rows of the right operand as they lie in memory, and their values.
fn right(n: usize, k: usize, encoding: Encoding) -> (Vec<u8>, Vec<f32>) {
    let all = (0..n * k).map(|i| value(i + 7));
    match encoding {
        Encoding::Plain(DType::BF16) => {
            let values = all.map(half::bf16::from_f32);
            let values: Vec<half::bf16> = values.collect();
            let bytes = values.iter().flat_map(|v| v.to_le_bytes());
            (bytes.collect(), values.iter().map(|v| v.to_f32()).collect())
        }
        Encoding::Plain(_) => {
            let values: Vec<f32> = all.collect();
            let bytes = values.iter().flat_map(|v| v.to_le_bytes());
            (bytes.collect(), values)
        }
        Encoding::Packed(_) | Encoding::Code => unreachable!("packed rows are made of plain ones"),
        Encoding::Blocks(block) => {
            let bytes = crate::made::blocks(&all.collect::<Vec<f32>>());
            let mut values = vec![0.0; n * k];
            let blocks = bytes
                .chunks(block.bytes())
                .zip(values.chunks_mut(block.values()));
            blocks.for_each(|(bytes, values)| block.decode(bytes, values));
            (bytes, values)
        }
    }
}

fn run(gpu: &Arc<dyn Device>, kernel: &Kernel, left: &[f32], right: &[u8], out: usize) -> Vec<u32> {
    let stream = gpu.stream("products").expect("a stream");
    let put = |bytes: Vec<u8>| {
        let dst = gpu.allocate(bytes.len()).expect("memory").whole();
        let work = Work::Write {
            dst: dst.clone(),
            bytes,
        };
        gpu.submit(stream, work).expect("a write");
        dst
    };
    let left = put(left.iter().flat_map(|v| v.to_le_bytes()).collect());
    let right = put(right.to_vec());
    let result = gpu.allocate(out * 4).expect("memory").whole();
    let work = Work::Launch {
        executable: gpu.load(kernel).expect("a kernel"),
        env: Env::default(),
        args: vec![left, right, result.clone()],
        tiles: Vec::new(),
        scratch: None,
    };
    gpu.submit(stream, work).expect("a launch");
    let mut bytes = vec![0; out * 4];
    gpu.read(stream, &result, &mut bytes).expect("numbers");
    gpu.retire(stream);
    let words = bytes.as_chunks().0.iter();
    words.map(|w| u32::from_le_bytes(*w)).collect()
}

#[test]
fn products_of_few_rows_sum_in_the_order_that_k_and_the_encoding_say() {
    let Some(gpu) = cuda() else { return };
    for (n, k, encoding) in [
        (192, 576, Encoding::Plain(DType::BF16)),
        (1024, 4096, Encoding::Plain(DType::BF16)),
        (4096, 4096, Encoding::Plain(DType::BF16)),
        (256, 14336, Encoding::Plain(DType::BF16)),
        (100, 1000, Encoding::Plain(DType::F32)),
        (130, 4096, Encoding::Blocks(BlockType::Q8_0)),
    ] {
        let order = SumOrder::new(k, encoding).expect("whole pieces");
        let (bytes, rows) = right(n, k, encoding);
        let left: Vec<f32> = (0..8 * k).map(value).collect();
        for m in 1..=8 {
            let kernel = product([m, n, k], DType::F32, encoding);
            let found = run(&gpu, &kernel, &left[..m * k], &bytes, m * n);
            // All of the last row, and some of the others.
            for at in (0..m * n).filter(|at| at / n == m - 1 || at % 61 == 0) {
                let (a, b) = (&left[at / n * k..], &rows[at % n * k..]);
                let wanted = match encoding {
                    Encoding::Plain(_) => order.sum(|i| (a[i], b[i])),
                    Encoding::Packed(_) | Encoding::Code => unreachable!("none is asked for"),
                    Encoding::Blocks(_) => {
                        let row = encoding.row_bytes(k).expect("whole rows");
                        order.sum_of_blocks(|i| a[i], &bytes[at % n * row..][..row])
                    }
                };
                let same = found[at] == wanted.to_bits();
                assert!(same, "{m} x {n}, k={k} {encoding}, output {at}: {order}");
            }
        }
    }
}
