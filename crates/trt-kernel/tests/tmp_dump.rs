#![allow(missing_docs, dead_code)]
#[path = "ptx/corpus/mod.rs"]
mod corpus;
use trt_kernel::ptx::{Target, emit};
#[test]
fn dump() {
    for name in ["linear_512x4096x4096_bf16", "linear_seqx4096x14336_bf16"] {
        let (_, k) = corpus::kernels().into_iter().find(|(n, _)| n == name).unwrap();
        for t in [Target::Sm90a, Target::Sm90aMaps] {
            std::fs::write(format!("/tmp/tma/{name}.{t}.ptx"), emit(&k, t).unwrap().text).unwrap();
        }
    }
}
