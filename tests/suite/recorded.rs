//! What two commits have in common: the bits that models of every family compute at several budgets,
//! and what each budget keeps where. `scripts/same-bits.sh COMMIT` compares this tree with another.

use crate::common::tiny::{self, Tiny, tokens};
use candle_core::DType;
use candle_trt::device::{Host, HostMode};
use candle_trt::models::{Llama, LoadOptions};
use candle_trt::{Compiler, Engine, Profile, Request, TileTarget, Weights};
use std::fmt::Write;
use std::sync::Arc;

const CONTEXT: usize = 96;

fn compile(model: &Tiny, dtype: DType, mode: HostMode) -> Engine {
    let dir = tempfile::tempdir().expect("a folder");
    model.write(dir.path(), dtype, 7, 2).expect("a checkpoint");
    let options = LoadOptions {
        max_positions: Some(CONTEXT),
    };
    Compiler::new(Weights::open(dir.path()).expect("it opens"))
        .shared_device(Arc::new(Host::new(mode)))
        .dtype(dtype)
        .profile(Profile::decoder(CONTEXT, CONTEXT - 4).expect("a profile"))
        .weight_streaming(true)
        .tile_target(TileTarget::Bytes(4 << 10))
        .compile(|vb| Llama::load_with(vb, &model.config(), &options))
        .expect("it compiles")
}

/// A hash (FNV-1a) of the logits of a prompt, of one of few rows, and of tokens one by one.
fn bits(engine: &Engine) -> u64 {
    let mut session = engine.session().expect("a session");
    let all = tokens(40);
    let calls = [&all[..30], &all[30..35]].into_iter();
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for call in calls.chain(all[35..].chunks(1)) {
        for value in session.prefill(call).expect("tokens") {
            for byte in value.to_bits().to_le_bytes() {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
    }
    hash
}

#[test]
fn every_family_has_the_same_bits_at_every_budget_on_both_hosts() {
    let mut record = String::new();
    for model in tiny::all() {
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let mut first = None;
            for mode in [HostMode::Unified, HostMode::Discrete] {
                let engine = compile(&model, dtype, mode);
                let (floor, total) = (engine.minimum_device_budget(), engine.total_device_budget());
                for part in 0..=3 {
                    let request = Request::Bytes(floor + (total - floor) * part / 3);
                    let a = engine.set_device_budget(request).expect("a budget");
                    let hash = bits(&engine);
                    assert_eq!(
                        *first.get_or_insert(hash),
                        hash,
                        "{} {dtype:?} {a:?}",
                        model.name
                    );
                    let _ = writeln!(
                        record,
                        "{} {dtype:?} {mode:?} {hash:016x}: {} of {floor}..{total}, {} pinned, {} resident, {} ring, {} streamed",
                        model.name, a.applied, a.pinned, a.resident, a.ring, a.streamed
                    );
                }
            }
        }
    }
    if let Some(path) = std::env::var_os("TRT_RECORD") {
        std::fs::write(path, record).expect("the record");
    }
}
