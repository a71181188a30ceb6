//! Compiled models whose rope candle-transformers does not have.

use crate::common::tiny;
use crate::engine::{CONTEXT, compile};
use crate::families::{assert_close, ours_on_candle, run, tokens};
use candle_core::DType;
use candle_trt::device::HostMode;

/// The same code on candle is held to formulas in `trt-models`.
#[test]
fn compiled_yarn_and_dynamic_rope_follow_the_same_code_on_candle() {
    let mut beyond = tiny::dynamic();
    beyond.json["max_position_embeddings"] = 64.into();
    for model in [tiny::yarn(), tiny::dynamic(), beyond] {
        let engine = compile(&model, DType::F32, HostMode::Unified);
        for length in [1, 7, 63, 100] {
            let all = tokens(length + 8);
            let mut session = engine.session().expect("a session");
            let mut theirs = ours_on_candle(&model, CONTEXT);
            let want = run(&mut theirs, &all[..length], 0);
            let got = session.prefill(&all[..length]).expect("a prompt");
            assert_close(&format!("{} prompt {length}", model.name), &got, &want);
            for pos in length..all.len() {
                let want = run(&mut theirs, &all[pos..=pos], pos);
                let got = session.decode(all[pos]).expect("a token");
                assert_close(&format!("{} position {pos}", model.name), &got, &want);
            }
        }
    }
}
