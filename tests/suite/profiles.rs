//! What profiles promise: any sizes, to their very ends, and integers that are never guessed.

use crate::common::tiny::{self, Tiny};
use crate::families::{assert_close, oracle, tokens};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_trt::models::{Llama, LoadOptions};
use candle_trt::{Compiler, Engine, Error, Profile, Weights};
use serde_json::json;
use std::collections::HashMap;
use trt_graph::{Call, candle, candle_nn as nn};

const CPU: Device = Device::Cpu;

fn try_compile(model: &Tiny, context: usize, longest: usize) -> Result<Engine, Error> {
    let dir = tempfile::tempdir().expect("a folder");
    model
        .write(dir.path(), DType::F32, 7, 1)
        .expect("a checkpoint");
    let config = model.config();
    let load = LoadOptions {
        max_positions: Some(context),
    };
    Compiler::new(Weights::open(dir.path()).expect("it opens"))
        .profile(Profile::decoder(context, longest).expect("a profile"))
        .compile(|vb| Llama::load_with(vb, &config, &load))
}

fn one_layer(mut model: Tiny) -> Tiny {
    model.json["num_hidden_layers"] = json!(1);
    model
}

/// Prompts of each length, then tokens one at a time up to the last position.
fn follows_to_the_end(model: &Tiny, context: usize, longest: usize) {
    let engine = try_compile(model, context, longest).expect("it compiles");
    let all = tokens(context);
    for prompt in 1..=context {
        let mut oracle = oracle(model);
        let mut session = engine.session().expect("a session");
        let at = |n: usize| {
            format!(
                "{} decoder({context}, {longest}), {n} of {prompt}",
                model.name
            )
        };
        let want = oracle(&all[..prompt], 0).expect("the oracle runs");
        let got = session.prefill(&all[..prompt]).expect("a prompt");
        assert_close(&at(prompt), &got, &want);
        for pos in prompt..context {
            let want = oracle(&all[pos..=pos], pos).expect("the oracle runs");
            assert_close(&at(pos), &session.decode(all[pos]).expect("a token"), &want);
        }
        let full = session.decode(1).expect_err("the context is full");
        assert!(
            matches!(full, Error::ContextFull { max, .. } if max == context),
            "{full}"
        );
    }
}

#[test]
fn contexts_of_any_few_positions_follow_candle_with_tables_of_just_as_many_rows() {
    let model = one_layer(tiny::llama3());
    for context in 1..=9 {
        for longest in [1, 2, 3, 4, context, 512] {
            follows_to_the_end(&model, context, longest);
        }
    }
}

#[test]
fn a_window_wider_than_any_near_sample_hides_what_is_behind_it() {
    let (window, context) = (4609, 4640);
    let mut model = one_layer(tiny::mistral());
    model.json["sliding_window"] = json!(window);
    model.json["max_position_embeddings"] = json!(context);
    let engine = try_compile(&model, context, 512).expect("it compiles");
    let all = tokens(context);
    let tensors: HashMap<_, _> = model.tensors(7).into_iter().collect();
    let vb = VarBuilder::from_tensors(tensors, DType::F32, &CPU);
    let mut candle = crate::common::on_candle::Llama::load(vb, &model.config()).expect("it loads");
    let mut session = engine.session().expect("a session");
    let mut position = 0;
    let chunks = all[..context - 3]
        .chunks(512)
        .chain(all[context - 3..].chunks(1));
    for chunk in chunks {
        let ids = Tensor::new(chunk, &CPU)
            .and_then(|t| t.unsqueeze(0))
            .expect("ids");
        let want = candle.forward(&ids, position).expect("candle runs");
        let want: Vec<f32> = want
            .flatten_all()
            .and_then(|t| t.to_vec1())
            .expect("logits");
        let got = session.prefill(chunk).expect("it runs");
        position += chunk.len();
        assert_close(&format!("{position} positions"), &got, &want);
    }
    assert!(position > window);
}

/// An engine over one weight of ones, `[16]`.
fn with_ones<S: trt_graph::Step>(
    profile: Profile,
    load: impl FnMut(nn::VarBuilder) -> candle::Result<S>,
) -> Result<Engine, Error> {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("model.safetensors");
    let ones = Tensor::ones(16, DType::F32, &CPU).expect("ones");
    candle_core::safetensors::save(&HashMap::from([("ones", ones)]), &path).expect("a file");
    let weights = Weights::open(&path).expect("it opens");
    Compiler::new(weights).profile(profile).compile(load)
}

fn row(n: usize) -> Tensor {
    Tensor::arange(0f32, n as f32, &CPU)
        .and_then(|t| t.reshape((1, n)))
        .expect("a row")
}

#[test]
fn an_integer_that_no_input_shows_is_asked_for_and_never_guessed() {
    let profile = Profile::single(&[("n", 2, 9)]).expect("a profile");
    let engine = with_ones(profile, |vb: nn::VarBuilder| {
        let ones = vb.get(16, "ones")?;
        Ok(move |call: &Call<'_>| {
            let x = call.input("x", (1, 16), DType::F32)?.broadcast_mul(&ones)?;
            Ok(vec![x.narrow(1, 0, call.int("n")?)?])
        })
    });
    let engine = engine.expect("it compiles");
    let mut session = engine.session().expect("a session");
    let error = session.run(&[row(16)]).expect_err("n is not known");
    assert!(
        matches!(error, Error::Integer { min: 2, max: 9, .. }),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("run_with(inputs, &[(\"n\", value)])"),
        "{error}"
    );
    for n in 2..=9 {
        let out = session
            .run_with(&[row(16)], &[("n", n as i64)])
            .expect("it runs");
        assert_eq!(
            out[0].to_vec2::<f32>().expect("a row"),
            row(n).to_vec2::<f32>().expect("a row")
        );
    }
    for (given, words) in [
        (vec![("n", 10)], vec!["n=10", "n in 2..=9"]),
        (vec![("n", i64::MIN)], vec!["n in 2..=9"]),
        (vec![("m", 3)], vec!["no runtime integer 'm'", "it has n"]),
        (vec![("n", 3), ("n", 4)], vec!["'n' cannot be both 3 and 4"]),
    ] {
        let error = session
            .run_with(&[row(16)], &given)
            .expect_err("refused")
            .to_string();
        assert!(words.iter().all(|w| error.contains(w)), "{error}");
    }
}

#[test]
fn integers_are_solved_from_sizes_that_are_sums_of_them() {
    let profile = Profile::single(&[("n", 1, 9), ("m", 1, 9)]).expect("a profile");
    let engine = with_ones(profile, |vb: nn::VarBuilder| {
        let one = vb.get(16, "ones")?.narrow(0, 0, 1)?;
        Ok(move |call: &Call<'_>| {
            let (n, m) = (call.int("n")?, call.int("m")?);
            let x = call.input("x", (1, 2 * n + m + 1), DType::F32)?;
            let y = call.input("y", (1, n + m), DType::F32)?;
            let x = x.broadcast_mul(&one)?;
            Ok(vec![x.narrow(1, m, n)?, (y + 1.0)?])
        })
    });
    let engine = engine.expect("it compiles");
    let mut session = engine.session().expect("a session");
    for (n, m) in [(1, 1), (3, 5), (9, 2), (4, 9)] {
        let out = session
            .run(&[row(2 * n + m + 1), row(n + m)])
            .expect("it runs");
        let expected: Vec<f32> = (m..m + n).map(|v| v as f32).collect();
        assert_eq!(out[0].to_vec2::<f32>().expect("a row"), [expected]);
        // What is given may be shown too, if it is the same.
        let given = [("m", m as i64), ("n", n as i64)];
        session
            .run_with(&[row(2 * n + m + 1), row(n + m)], &given)
            .expect("it runs");
    }
    let refused = |x: Tensor, y: Tensor, given: &[(&str, i64)], words: &[&str]| {
        let mut session = engine.session().expect("a session");
        let error = session
            .run_with(&[x, y], given)
            .expect_err("refused")
            .to_string();
        assert!(words.iter().all(|w| error.contains(w)), "{error}");
    };
    // 2n + m + 1 = 8 and n + m = 4: n = 3, m = 1; given another n, y is not what it must be.
    refused(
        row(8),
        row(4),
        &[("n", 2)],
        &[
            "input 'y'",
            "f32[1, n + m]",
            "[1, 5] with n=2 m=3",
            "[1, 4]",
        ],
    );
    refused(row(8), row(20), &[], &["no class"]);
    let flat = Tensor::zeros(8, DType::F32, &CPU).expect("zeros");
    refused(
        flat,
        row(4),
        &[],
        &["input 'x'", "f32[1, 2*n + m + 1]", "[8]"],
    );
    let ints = Tensor::zeros((1, 4), DType::U32, &CPU).expect("zeros");
    refused(row(8), ints, &[], &["input 'y'", "U32[1, 4]"]);
}

#[test]
fn integers_are_solved_from_products_where_another_input_shows_a_factor() {
    let profile = Profile::single(&[("batch", 1, 8), ("length", 1, 128)]).expect("a profile");
    let engine = with_ones(profile, |vb: nn::VarBuilder| {
        let one = vb.get(16, "ones")?.narrow(0, 0, 1)?;
        Ok(move |call: &Call<'_>| {
            let (b, l) = (call.int("batch")?, call.int("length")?);
            let x = call.input("x", (1, b * l + b), DType::F32)?;
            let y = call.input("y", (1, b), DType::F32)?;
            let rows = x.broadcast_mul(&one)?.narrow(1, b, b * l)?;
            Ok(vec![rows.reshape((b, l))?.broadcast_add(&y.t()?)?])
        })
    });
    let engine = engine.expect("it compiles");
    let mut session = engine.session().expect("a session");
    for (b, l) in [(1, 1), (3, 5), (8, 128), (7, 1), (1, 77)] {
        let out = session.run(&[row(b * l + b), row(b)]).expect("it runs");
        let at = |i: usize, j: usize| (b + i * l + j + i) as f32;
        let expected: Vec<Vec<f32>> = (0..b).map(|i| (0..l).map(|j| at(i, j)).collect()).collect();
        assert_eq!(out[0].to_vec2::<f32>().expect("rows"), expected);
    }
    let error = session
        .run(&[row(17), row(3)])
        .expect_err("17 is no multiple of 3");
    let words = ["input 'x'", "f32[1, batch*length + batch]", "[1, 17]"];
    let text = error.to_string();
    assert!(words.iter().all(|w| text.contains(w)), "{text}");
}

#[test]
fn shapes_that_contradict_each_other_are_named() {
    let profile = Profile::single(&[("n", 1, 9)]).expect("a profile");
    let engine = with_ones(profile, |vb: nn::VarBuilder| {
        let one = vb.get(16, "ones")?.narrow(0, 0, 1)?;
        Ok(move |call: &Call<'_>| {
            let n = call.int("n")?;
            let x = call.input("x", (1, n), DType::F32)?;
            let y = call.input("y", (1, 2 * n + 1), DType::F32)?;
            Ok(vec![x.broadcast_mul(&one)?, y.broadcast_mul(&one)?])
        })
    });
    let engine = engine.expect("it compiles");
    let mut session = engine.session().expect("a session");
    session.run(&[row(3), row(7)]).expect("it runs");
    for y in [6, 8, 9] {
        let error = session
            .run(&[row(3), row(y)])
            .expect_err("refused")
            .to_string();
        let words = [
            "input 'y'",
            "f32[1, 2*n + 1], which is [1, 7] with n=3",
            &format!("[1, {y}]"),
        ];
        assert!(words.iter().all(|w| error.contains(w)), "{error}");
    }
}

/// The chain of an error as `anyhow` prints it.
fn chain(error: Error) -> String {
    format!("{:#}", anyhow::Error::from(error))
}

#[test]
fn what_fails_while_a_model_loads_is_told_as_that_and_once() {
    let profile = || Profile::decoder(64, 16).expect("a profile");
    let step = |_: &Call<'_>| -> candle::Result<Vec<candle::Tensor>> { Ok(Vec::new()) };
    let missing = with_ones(profile(), |vb: nn::VarBuilder| {
        vb.get(16, "onse").map(|_| step)
    });
    let shape = with_ones(profile(), |vb: nn::VarBuilder| {
        vb.get(17, "ones").map(|_| step)
    });
    let own = with_ones(profile(), |_: nn::VarBuilder| {
        let refused: candle::Result<()> = Err(candle::Error::Msg("hidden size 7 is odd".into()));
        refused.map(|()| step)
    });
    for (failed, what) in [
        (
            missing,
            "the model does not load: no weight 'onse' in the files",
        ),
        (
            shape,
            "the model does not load: weight 'ones' has shape [16] in the file",
        ),
        (own, "the model does not load: hidden size 7 is odd"),
    ] {
        let text = chain(failed.expect_err(what));
        assert!(text.starts_with(what), "{text}");
        assert!(!text.contains("past="), "{text}");
        let told = what.trim_start_matches("the model does not load: ");
        assert_eq!(text.matches(told).count(), 1, "{text}");
    }
}

#[test]
fn what_fails_in_a_call_is_told_with_the_call_and_once() {
    let profile = Profile::single(&[("n", 2, 9)]).expect("a profile");
    let failed = with_ones(profile, |vb: nn::VarBuilder| {
        let ones = vb.get(16, "ones")?;
        Ok(move |call: &Call<'_>| Ok(vec![ones.narrow(0, 10, 5 + call.int("n")?)?]))
    });
    let text = chain(failed.expect_err("too far"));
    let what = "the model failed at n=2: narrow: 10..17 is outside of axis 0 of [16]";
    assert!(text.starts_with(what), "{text}");
    assert_eq!(text.matches("narrow: 10..17").count(), 1, "{text}");
}

#[test]
fn no_error_prints_its_cause_twice() {
    let cause = || candle_core::Error::Msg("the cause".into());
    let graph = |e: trt_graph::Error| Error::Graph(e);
    let point = || "past=5 seq=2".to_string();
    let member = |source| Error::Member {
        engine: 1,
        engines: 2,
        source: Box::new(source),
    };
    let saved = candle_trt::SavedError::Io {
        action: "read",
        error: std::io::Error::other("the cause"),
    };
    let all = [
        graph(trt_graph::Error::Load {
            line: trt_graph::Line::default(),
            source: cause(),
        }),
        graph(trt_graph::Error::Model {
            line: trt_graph::Line::default(),
            point: point(),
            source: cause(),
        }),
        graph(trt_graph::Error::Program("the cause".into())),
        Error::Candle(cause()),
        Error::NotADecoder("the cause".into()),
        member(Error::NotADecoder("the cause".into())),
        member(graph(trt_graph::Error::Load {
            line: trt_graph::Line::default(),
            source: cause(),
        })),
        Error::Saved {
            path: "a.engine".into(),
            source: saved,
        },
    ];
    for error in all {
        let (alone, text) = (error.to_string(), chain(error));
        assert_eq!(text.matches("the cause").count(), 1, "{text}");
        assert_eq!(alone, text);
    }
}
