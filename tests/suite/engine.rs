//! Compiled models against candle-transformers, at every budget.

use crate::common::tiny::{self, Tiny};
use crate::families::{assert_close, oracle, tokens};
use candle_core::DType;
use candle_trt::device::{Host, HostMode};
use candle_trt::models::{Llama, LoadOptions};
use candle_trt::{Compiler, Engine, Error, Profile, Request, TileTarget, Weights};

const LENGTHS: [usize; 5] = [1, 2, 7, 64, 513];
/// Positions that [`compile`] compiles for.
pub const CONTEXT: usize = 640;

/// An engine for a prompt of 512 tokens and 640 positions.
pub fn compile(model: &Tiny, dtype: DType, mode: HostMode) -> Engine {
    let dir = tempfile::tempdir().expect("a folder");
    model.write(dir.path(), dtype, 7, 2).expect("a checkpoint");
    let config = model.config();
    let options = LoadOptions {
        max_positions: Some(CONTEXT),
    };
    Compiler::new(Weights::open(dir.path()).expect("it opens"))
        .device(Host::new(mode))
        .dtype(dtype)
        .profile(Profile::decoder(CONTEXT, 512).expect("a profile"))
        .weight_streaming(true)
        .tile_target(TileTarget::Bytes(8 << 10))
        .compile(|vb| Llama::load_with(vb, &config, &options))
        .expect("it compiles")
}

/// A prompt of each length, then eight more tokens one at a time.
fn follows_its_oracle(model: &Tiny) {
    let engine = compile(model, DType::F32, HostMode::Unified);
    for length in LENGTHS {
        let all = tokens(length + 8);
        let mut session = engine.session().expect("a session");
        let mut oracle = oracle(model);
        let want = oracle(&all[..length], 0).expect("the oracle runs");
        let got = session.prefill(&all[..length]).expect("a prompt");
        assert_close(&format!("{} prompt {length}", model.name), &got, &want);
        for pos in length..all.len() {
            let want = oracle(&all[pos..=pos], pos).expect("the oracle runs");
            let got = session.decode(all[pos]).expect("a token");
            assert_close(&format!("{} position {pos}", model.name), &got, &want);
        }
    }
}

#[test]
fn compiled_llama_follows_candle() {
    follows_its_oracle(&tiny::llama());
}

#[test]
fn compiled_llama3_with_rope_scaling_follows_candle() {
    follows_its_oracle(&tiny::llama3());
}

#[test]
fn compiled_mistral_follows_candle_within_its_window() {
    let mut model = tiny::mistral();
    model.json["sliding_window"] = serde_json::Value::Null;
    follows_its_oracle(&model);
}

#[test]
fn compiled_qwen2_follows_candle() {
    follows_its_oracle(&tiny::qwen2());
}

#[test]
fn compiled_qwen3_follows_candle() {
    follows_its_oracle(&tiny::qwen3());
}

/// candle-transformers counts its window one key wider and ignores it for cached keys, so it is
/// given one less and asked for a full recompute.
#[test]
fn a_compiled_sliding_window_reaches_exactly_its_keys() {
    let model = tiny::mistral();
    let mut narrower = model.clone();
    narrower.json["sliding_window"] =
        (model.json["sliding_window"].as_u64().expect("a number") - 1).into();
    let engine = compile(&model, DType::F32, HostMode::Unified);
    let all = tokens(100);
    let mut session = engine.session().expect("a session");
    for end in [64, 65, 66, 70, 100] {
        let got = session
            .prefill(&all[session.position()..end])
            .expect("tokens");
        let want = oracle(&narrower)(&all[..end], 0).expect("the oracle runs");
        assert_close(&format!("window, up to {end}"), &got, &want);
    }
}

/// Logits of a prompt and some tokens, as bits, with a budget before each call.
fn bits(engine: &Engine, budgets: &[Request]) -> Vec<Vec<u32>> {
    let all = tokens(30);
    let mut session = engine.session().expect("a session");
    let mut calls = vec![&all[..20]];
    calls.extend(all[20..].chunks(1));
    let mut next = budgets.iter().cycle();
    let run = |call: &[u32]| {
        let budget = *next.next().expect("a budget");
        engine
            .set_device_budget(budget)
            .expect("a budget above the floor");
        session
            .prefill(call)
            .expect("tokens")
            .iter()
            .map(|v| v.to_bits())
            .collect()
    };
    calls.into_iter().map(run).collect()
}

fn budgets(engine: &Engine) -> Vec<Request> {
    let (floor, total) = (engine.minimum_device_budget(), engine.total_device_budget());
    let share = |n: u64| Request::Bytes((total / n).max(floor));
    vec![
        Request::Minimum,
        share(8),
        share(4),
        share(2),
        Request::Full,
    ]
}

#[test]
fn logits_are_the_same_bits_at_every_budget_dtype_and_mode() {
    for model in [tiny::llama(), tiny::qwen3()] {
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let mut first: Option<Vec<Vec<u32>>> = None;
            for mode in [HostMode::Unified, HostMode::Discrete] {
                let engine = compile(&model, dtype, mode);
                for budget in budgets(&engine) {
                    let found = bits(&engine, &[budget]);
                    let expected = first.get_or_insert_with(|| found.clone());
                    assert!(
                        *expected == found,
                        "{} {dtype:?} {mode:?} at {budget}",
                        model.name
                    );
                }
                let changing = bits(&engine, &budgets(&engine));
                assert!(
                    first == Some(changing),
                    "{} {dtype:?} {mode:?} changing every token",
                    model.name
                );
            }
        }
    }
}

#[test]
fn the_pool_never_holds_more_weights_than_the_budget() {
    for mode in [HostMode::Unified, HostMode::Discrete] {
        let engine = compile(&tiny::llama(), DType::F32, mode);
        for budget in budgets(&engine) {
            let applied = engine.set_device_budget(budget).expect("a budget");
            let mut session = engine.session().expect("a session");
            session.prefill(&tokens(9)).expect("a prompt");
            session.decode(3).expect("a token");
            let memory = engine.memory();
            assert!(
                memory.weights <= applied.applied,
                "{mode:?} {budget}: {memory:?} {applied:?}"
            );
            assert_eq!(
                engine.last_traffic().bytes,
                applied.streamed,
                "{mode:?} {budget}"
            );
        }
    }
}

#[test]
fn at_full_budget_nothing_is_fetched() {
    let engine = compile(&tiny::llama(), DType::F32, HostMode::Discrete);
    engine.set_device_budget(Request::Full).expect("a budget");
    let mut session = engine.session().expect("a session");
    session.prefill(&tokens(9)).expect("a prompt");
    session.decode(3).expect("a token");
    assert_eq!(engine.last_traffic().bytes, 0);
}

#[test]
fn sessions_do_not_see_each_other() {
    let engine = compile(&tiny::llama(), DType::F32, HostMode::Unified);
    let (mut a, mut b) = (
        engine.session().expect("a session"),
        engine.session().expect("a session"),
    );
    let alone = a.prefill(&tokens(5)).expect("a prompt");
    let one = a.decode(7).expect("a token");
    a.reset();
    a.prefill(&tokens(5)).expect("a prompt");
    b.prefill(&tokens(40)).expect("another prompt");
    assert_eq!(a.decode(7).expect("a token"), one);
    a.truncate(0);
    assert_eq!(a.prefill(&tokens(5)).expect("a prompt"), alone);
}

#[test]
fn a_guard_restores_the_budget() {
    let engine = compile(&tiny::llama(), DType::F32, HostMode::Unified);
    let before = engine
        .set_device_budget(Request::Full)
        .expect("a budget")
        .applied;
    {
        let mut guard = engine.weight_streaming().expect("streaming is on");
        guard.set_device_budget(Request::Minimum).expect("a budget");
        assert_eq!(
            guard.device_budget().expect("a budget").applied,
            guard.minimum_device_budget()
        );
    }
    assert_eq!(engine.device_budget().expect("a budget").applied, before);
}

#[test]
fn a_guard_restores_the_limit_whichever_way_it_was_changed() {
    let engine = compile(&tiny::llama(), DType::F32, HostMode::Discrete);
    let _session = engine.session().expect("a session");
    engine
        .set_device_budget(Request::Minimum)
        .expect("a budget");
    let memory = engine.memory();
    let tight = memory.in_use - memory.weights + engine.minimum_device_budget();
    engine.set_device_limit(tight).expect("room for the floor");
    let before = engine.device_budget().expect("a budget").applied;
    {
        let mut guard = engine.weight_streaming().expect("streaming is on");
        guard.set_device_limit(tight * 4).expect("more room");
        assert!(guard.device_budget().expect("a budget").applied > before);
    }
    assert_eq!(engine.device_limit(), tight);
    assert_eq!(engine.device_budget().expect("a budget").applied, before);
    let error = engine
        .set_device_limit(tight - 1)
        .expect_err("below the floor");
    assert!(matches!(error, Error::LimitTooSmall { .. }), "{error}");
    assert_eq!(engine.device_limit(), tight);
    assert_eq!(engine.device_budget().expect("a budget").applied, before);
}

#[test]
fn a_budget_below_the_floor_changes_nothing() {
    let engine = compile(&tiny::llama(), DType::F32, HostMode::Unified);
    let before = engine.device_budget().expect("a budget");
    let floor = engine.minimum_device_budget();
    let error = engine
        .set_device_budget(Request::Bytes(floor - 1))
        .expect_err("below the floor");
    assert!(error.to_string().contains(&floor.to_string()), "{error}");
    assert_eq!(
        engine.device_budget().expect("a budget").applied,
        before.applied
    );
}

#[test]
fn a_limit_bounds_everything_and_sets_the_budget() {
    let engine = compile(&tiny::llama(), DType::F32, HostMode::Discrete);
    let session = engine.session().expect("a session");
    engine
        .set_device_budget(Request::Minimum)
        .expect("a budget");
    let memory = engine.memory();
    let other = memory.in_use - memory.weights;
    let limit = other + engine.minimum_device_budget() + 40_000;
    let applied = engine.set_device_limit(limit).expect("room for the floor");
    assert_eq!(applied.applied, engine.minimum_device_budget() + 40_000);
    drop(session);
    let mut session = engine.session().expect("a session");
    session.prefill(&tokens(9)).expect("a prompt");
    assert!(engine.memory().in_use <= limit);
    let error = engine
        .set_device_limit(other)
        .expect_err("nothing left for weights");
    assert!(matches!(error, Error::LimitTooSmall { .. }), "{error}");
}

#[test]
fn budgets_need_streaming() {
    let dir = tempfile::tempdir().expect("a folder");
    tiny::llama()
        .write(dir.path(), DType::F32, 7, 1)
        .expect("a checkpoint");
    let config = tiny::llama().config();
    let engine = Compiler::new(Weights::open(dir.path()).expect("it opens"))
        .device(Host::unified())
        .profile(Profile::decoder(64, 16).expect("a profile"))
        .compile(|vb| {
            Llama::load_with(
                vb,
                &config,
                &LoadOptions {
                    max_positions: Some(64),
                },
            )
        })
        .expect("it compiles");
    assert_eq!(engine.total_device_budget(), 0);
    assert!(matches!(
        engine.set_device_budget(Request::Full),
        Err(Error::NoStreaming)
    ));
    assert!(matches!(
        engine.weight_streaming().err(),
        Some(Error::NoStreaming)
    ));
    engine
        .session()
        .expect("a session")
        .prefill(&tokens(3))
        .expect("it runs all the same");
}

#[test]
fn a_full_context_is_an_error_and_keeps_the_session() {
    let engine = compile(&tiny::llama(), DType::F32, HostMode::Unified);
    let mut session = engine.session().expect("a session");
    session
        .prefill(&tokens(CONTEXT - 1))
        .expect("a long prompt");
    let error = session.prefill(&tokens(2)).expect_err("one too many");
    assert!(
        matches!(
            error,
            Error::ContextFull {
                past: 639,
                new: 2,
                max: 640
            }
        ),
        "{error}"
    );
    session.decode(1).expect("one more fits");
    assert!(session.prefill(&[]).is_err());
}

#[test]
fn a_token_outside_the_vocabulary_is_an_error_and_the_engine_goes_on() {
    let engine = compile(&tiny::llama(), DType::F32, HostMode::Discrete);
    engine
        .set_device_budget(Request::Minimum)
        .expect("a budget");
    let mut session = engine.session().expect("a session");
    let want = session.prefill(&tokens(5)).expect("a prompt");
    session.reset();
    let error = session.prefill(&[3, 5000, 1]).expect_err("no such token");
    assert!(error.to_string().contains("5000"), "{error}");
    assert_eq!(session.position(), 0);
    assert_eq!(session.prefill(&tokens(5)).expect("a prompt"), want);
}

#[test]
fn plans_are_near_the_largest_live_set() {
    for model in tiny::all() {
        let engine = compile(&model, DType::F32, HostMode::Unified);
        for class in &engine.report().classes {
            let ratio = class.arena_bytes as f64 / class.largest_live_bytes as f64;
            assert!(ratio <= 1.05, "{} {}: {ratio}", model.name, class.class);
        }
    }
}

#[test]
fn a_wrong_shape_names_the_weight() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut model = tiny::llama();
    model
        .write(dir.path(), DType::F32, 7, 1)
        .expect("a checkpoint");
    model.json["intermediate_size"] = 96.into();
    let config = model.config();
    let error = Compiler::new(Weights::open(dir.path()).expect("it opens"))
        .device(Host::unified())
        .profile(Profile::decoder(64, 16).expect("a profile"))
        .compile(|vb| {
            Llama::load_with(
                vb,
                &config,
                &LoadOptions {
                    max_positions: Some(64),
                },
            )
        })
        .expect_err("the file has another shape");
    assert!(
        error.to_string().contains("mlp.gate_proj.weight"),
        "{error}"
    );
}
