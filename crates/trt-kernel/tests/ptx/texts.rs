//! The text of a few kernels, as golden files: what changes in them is seen.

use crate::corpus;
use trt_kernel::ptx::{Target, emit, pull};

fn golden(name: &str, target: Target) {
    let (_, kernel) = (corpus::kernels().into_iter())
        .find(|(n, _)| n == name)
        .unwrap_or_else(|| panic!("no kernel {name}"));
    let text = emit(&kernel, target).unwrap().to_string();
    crate::golden(&format!("{name}.{target}.ptx"), &text);
}

#[test]
fn a_norm_of_one_row() {
    golden("rms_norm_1x576_bf16", Target::Sm80);
}

#[test]
fn a_pointwise_kernel_over_a_runtime_length() {
    golden("silu_mul_seqx1536_bf16", Target::Sm75);
}

#[test]
fn an_append_to_a_cache() {
    golden("append_8x128_bf16", Target::Sm80);
}

#[test]
fn rows_of_an_embedding() {
    golden("gather_576_u32_bf16_bf16", Target::Sm80);
}

#[test]
fn words_that_threads_copy() {
    crate::golden("pull.sm_75.ptx", &pull(Target::Sm75).text);
}
