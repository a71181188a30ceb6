//! Products by packed rows: few and many, of each dtype, side by side, in a chain and behind a norm.

use super::matmul;
use crate::units::packed_kernel;
use trt_kernel::*;

const BF16: PackedType = PackedType::Bf16Pairs;
const F16: PackedType = PackedType::F16Singles;

pub fn kernels() -> Vec<(String, Kernel)> {
    let mut all = Vec::new();
    let mut add = |name: String, form: PackedType, kernel: Kernel| {
        all.push((
            // Names are those of entries.
            format!("{name}_{}", form.name().replace('-', "_")),
            packed_kernel(&kernel, form),
        ));
    };
    for (m, n, k) in [
        (1, 4096, 4096),
        (1, 4096, 14336),
        (1, 192, 576),
        (2, 4096, 4096),
        (4, 4096, 4096),
        (8, 4096, 4096),
        (64, 4096, 4096),
    ] {
        let name = format!("linear_{m}x{n}x{k}");
        let linear = |d| matmul::linear(Dim::from(m), n, k, d);
        add(name.clone(), BF16, linear(DType::BF16));
        if k == 4096 && [1, 8, 64].contains(&m) {
            add(name, F16, linear(DType::F16));
        }
    }
    let seq = matmul::linear(super::seq(), 576, 1544, DType::BF16);
    add("linear_seqx576x1544".into(), PackedType::Bf16Singles, seq);
    add(
        "normed_1x14336x4096".into(),
        BF16,
        matmul::normed(1, 14336, 4096, DType::BF16),
    );
    for (hidden, kv) in [(576, 192), (4096, 1024)] {
        add(
            format!("normed_qkv_1x{hidden}"),
            BF16,
            matmul::normed_heads(1, hidden, kv, DType::BF16),
        );
    }
    for (m, n, k) in [(1, 14336, 4096), (3, 1536, 576)] {
        add(
            format!("normed_gate_up_{m}x{n}x{k}"),
            PackedType::F16Pairs,
            matmul::normed_gate_up(m, n, k, DType::F16),
        );
    }
    all
}
