//! Packed weights on the GPU: the bits of plain ones at every budget, also while it changes.

use crate::cuda;
use crate::random::{self, Random, Stored};
use candle_core::DType;
use candle_trt::models::{Llama, LoadOptions};
use candle_trt::stream::PackOptions;
use candle_trt::{Compiler, Engine, Profile, Store, TileTarget, Weights};
use std::sync::Arc;

const CONTEXT: usize = 160;
const SHARES: [&str; 7] = ["full", "90%", "75%", "70%", "50%", "30%", "min"];

/// Models whose rows are summed by 32 lanes, and by 8.
fn models() -> [Random; 2] {
    let of = |name, json| Random {
        name,
        json,
        stored: Stored::Bf16,
        shards: 1,
    };
    [
        of(
            "32 lanes",
            random::llama(1024, 4864, 3, (16, 4), 2048, false),
        ),
        of("8 lanes", random::llama(576, 1536, 3, (9, 3), 2048, true)),
    ]
}

/// A prompt of 100 tokens, one of 5, and single ones; `between` is done before each call.
fn bits(engine: &Engine, mut between: impl FnMut(usize)) -> Vec<Vec<u32>> {
    let mut session = engine.session().expect("a session");
    let tokens: Vec<u32> = (0..125).map(|i| i * 37 % 2000).collect();
    let calls = [&tokens[..100], &tokens[100..105]].into_iter();
    let mut run = |(i, call): (usize, &[u32])| {
        between(i);
        let logits = session.prefill(call).expect("tokens");
        logits.iter().map(|v| v.to_bits()).collect()
    };
    let calls = calls.chain(tokens[105..].chunks(1)).enumerate();
    calls.map(&mut run).collect()
}

#[test]
fn packed_weights_give_the_bits_of_plain_ones() {
    let Some(gpu) = cuda() else { return };
    for model in models() {
        let dir = tempfile::tempdir().expect("a folder");
        model.write(dir.path()).expect("a checkpoint");
        let weights = Arc::new(Weights::open(dir.path()).expect("it opens"));
        let packed = weights.pack(&PackOptions::new(Store::Memory));
        let packed = packed.expect("they are packed");
        for dtype in [DType::BF16, DType::F32] {
            let compile = |weights: &Arc<Weights>| {
                let options = LoadOptions {
                    max_positions: Some(CONTEXT),
                };
                let config = model.config();
                let compiler = Compiler::new(weights.clone())
                    .shared_device(gpu.clone())
                    .dtype(dtype)
                    .profile(Profile::decoder(CONTEXT, 128).expect("a profile"))
                    .weight_streaming(true)
                    .tile_target(TileTarget::Bytes(256 << 10));
                let compiled = compiler.compile(|vb| Llama::load_with(vb, &config, &options));
                compiled.expect("it compiles")
            };
            let expected = bits(&compile(&weights), |_| {});
            let engine = compile(&packed);
            let what = format!("{} {dtype:?}", model.name);
            let by_host = engine.report().classes.iter().flat_map(|c| &c.by_host);
            assert_eq!(by_host.count(), 0, "{what}: {}", engine.report());
            for share in SHARES {
                let applied = engine.set_device_budget(share.parse().expect("a share"));
                let applied = applied.expect("it is met");
                assert!(bits(&engine, |_| {}) == expected, "{what} at {share}");
                assert_eq!(engine.last_traffic().bytes, applied.streamed, "{what}");
            }
            let changing = bits(&engine, |call| {
                let share = SHARES[call * 3 % SHARES.len()].parse().expect("a share");
                engine.set_device_budget(share).expect("it is met");
            });
            assert!(changing == expected, "{what} while the budget changes");
        }
    }
}
