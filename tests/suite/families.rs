//! The Llama family's model file against candle-transformers, on tiny random weights in f32.
//!
//! Both sides run on candle, so what is compared is the model code alone: what each family computes at every
//! prompt length and position.

use std::collections::HashMap;

use crate::common::on_candle::{Llama, LoadOptions};
pub use crate::common::tiny::tokens;
use crate::common::tiny::{self, Tiny};
use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models as theirs;

const LENGTHS: [usize; 5] = [1, 2, 7, 64, 513];
const TOLERANCE: f32 = 2e-4;

fn builder(model: &Tiny) -> VarBuilder<'static> {
    let tensors: HashMap<_, _> = model.tensors(7).into_iter().collect();
    VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu)
}

fn ours(model: &Tiny) -> Llama {
    Llama::load(builder(model), &model.config()).expect("the model loads")
}

fn batch(tokens: &[u32]) -> Tensor {
    Tensor::new(tokens, &Device::Cpu)
        .and_then(|t| t.unsqueeze(0))
        .expect("a row of tokens")
}

fn row(logits: Tensor) -> Vec<f32> {
    logits
        .flatten_all()
        .and_then(|t| t.to_vec1())
        .expect("a row of f32")
}

/// Our model on candle, for so many positions.
pub fn ours_on_candle(model: &Tiny, positions: usize) -> Llama {
    let options = LoadOptions {
        max_positions: Some(positions),
    };
    Llama::load_with(builder(model), &model.config(), &options).expect("the model loads")
}

/// The last logits of a call.
pub fn run(model: &mut Llama, tokens: &[u32], index_pos: usize) -> Vec<f32> {
    row(model
        .forward(&batch(tokens), index_pos)
        .expect("a forward pass"))
}

/// A reference: tokens and the position of the first one in, last logits out, remembering its own cache.
pub type Oracle = Box<dyn FnMut(&[u32], usize) -> Result<Vec<f32>>>;

/// candle-transformers' model of the same family. Keys that its strict configs want and ours do not are in
/// the tiny files already.
pub fn oracle(model: &Tiny) -> Oracle {
    let vb = builder(model);
    let json = model.json.clone();
    let parse = "candle-transformers reads the tiny config";
    match json["model_type"].as_str() {
        Some("llama") => {
            let config: theirs::llama::LlamaConfig = serde_json::from_value(json).expect(parse);
            let config = config.into_config(false);
            let llama = theirs::llama::Llama::load(vb, &config).expect("it loads");
            let mut cache = theirs::llama::Cache::new(true, DType::F32, &config, &Device::Cpu)
                .expect("a cache");
            Box::new(move |t, pos| Ok(row(llama.forward(&batch(t), pos, &mut cache)?)))
        }
        Some("mistral") => {
            let config: theirs::mistral::Config = serde_json::from_value(json).expect(parse);
            let mut m = theirs::mistral::Model::new(&config, vb).expect("it loads");
            Box::new(move |t, pos| Ok(row(m.forward(&batch(t), pos)?)))
        }
        Some("qwen2") => {
            let mut config: theirs::qwen2::Config = serde_json::from_value(json).expect(parse);
            // Its mask applies the window even where the file switches it off.
            config.sliding_window = config.max_position_embeddings;
            let mut m = theirs::qwen2::ModelForCausalLM::new(&config, vb).expect("it loads");
            Box::new(move |t, pos| Ok(row(m.forward(&batch(t), pos)?)))
        }
        Some("qwen3") => {
            let config: theirs::qwen3::Config = serde_json::from_value(json).expect(parse);
            let mut m = theirs::qwen3::ModelForCausalLM::new(&config, vb).expect("it loads");
            Box::new(move |t, pos| Ok(row(m.forward(&batch(t), pos)?)))
        }
        other => panic!("no oracle for {other:?}"),
    }
}

pub fn assert_close(what: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{what}: number of logits");
    let worst = got
        .iter()
        .zip(want)
        .map(|(g, w)| (g - w).abs())
        .fold(0.0, f32::max);
    assert!(worst <= TOLERANCE, "{what}: off by {worst}");
    assert!(
        want.iter().any(|w| w.abs() > 0.1),
        "{what}: logits near zero compare nothing"
    );
}

/// A prompt of each length, then eight more tokens one at a time.
fn follows_its_oracle(model: &Tiny) {
    for length in LENGTHS {
        let all = tokens(length + 8);
        let (mut ours, mut oracle) = (ours(model), oracle(model));
        let want = oracle(&all[..length], 0).expect("the oracle runs");
        assert_close(
            &format!("{} prompt {length}", model.name),
            &run(&mut ours, &all[..length], 0),
            &want,
        );
        for pos in length..all.len() {
            let token = &all[pos..=pos];
            let want = oracle(token, pos).expect("the oracle runs");
            assert_close(
                &format!("{} position {pos}", model.name),
                &run(&mut ours, token, pos),
                &want,
            );
        }
    }
}

#[test]
fn llama_with_a_tied_head() {
    follows_its_oracle(&tiny::llama());
}

#[test]
fn llama_with_llama3_rope_scaling() {
    follows_its_oracle(&tiny::llama3());
}

#[test]
fn mistral_within_its_window() {
    let mut model = tiny::mistral();
    model.json["sliding_window"] = serde_json::Value::Null;
    follows_its_oracle(&model);
}

#[test]
fn qwen2_with_biases() {
    follows_its_oracle(&tiny::qwen2());
}

#[test]
fn qwen3_with_head_norms() {
    follows_its_oracle(&tiny::qwen3());
}

/// candle-transformers counts its window one key wider and ignores it for cached keys, so it is given one less and
/// asked for a full recompute.
#[test]
fn a_sliding_window_reaches_exactly_its_keys_at_every_position() {
    let model = tiny::mistral();
    let mut narrower = model.clone();
    narrower.json["sliding_window"] =
        (model.json["sliding_window"].as_u64().expect("a number") - 1).into();
    let all = tokens(100);
    let mut ours = ours(&model);
    run(&mut ours, &all[..64], 0);
    for end in [65, 66, 70, 100] {
        let start = if end == 65 {
            64
        } else if end == 66 {
            65
        } else if end == 70 {
            66
        } else {
            70
        };
        let got = run(&mut ours, &all[start..end], start);
        let want = oracle(&narrower)(&all[..end], 0).expect("the oracle runs");
        assert_close(&format!("window, positions {start}..{end}"), &got, &want);
    }
}

/// Linear scaling has no oracle in candle-transformers: dividing a position by 4 is what it means.
#[test]
fn linear_rope_scaling_divides_positions() {
    let config = tiny::linear_rope().config();
    let mut plain = config.clone();
    plain.rope_scaling = trt_models::RopeScaling::None;
    let rotary = |c| {
        crate::common::on_candle::rope::RotaryEmbedding::new(c, 64, DType::F32, &Device::Cpu)
            .expect("tables")
    };
    let x = Tensor::arange(0f32, 6.0 * 8.0, &Device::Cpu)
        .and_then(|x| x.reshape((1, 6, 1, 8)))
        .expect("x");
    let turn = |c, position| {
        let rows = rotary(c).rows(position, 1).expect("a row");
        row(rows.apply(&x).expect("turned"))
    };
    let (got, want) = (turn(&config, 28), turn(&plain, 7));
    assert_close("position 28 / 4", &got, &want);
}

/// candle-transformers has no dynamic rope; a text of one call is what plain rope with the grown base makes of it.
#[test]
fn dynamic_rope_is_plain_rope_with_the_base_of_the_length() {
    let mut model = tiny::dynamic();
    model.json["max_position_embeddings"] = 64.into();
    assert_eq!(ours(&model).dynamic_beyond(), Some(64));
    assert_eq!(ours(&tiny::yarn()).dynamic_beyond(), None);
    for length in [1, 64, 65, 100, 128] {
        let mut grown = model.clone();
        let stretch = (2.0 * length.max(64) as f64 / 64.0 - 1.0).powf(16.0 / 14.0);
        grown.json["rope_theta"] = (10_000.0 * stretch).into();
        grown.json["rope_scaling"] = serde_json::Value::Null;
        grown.json["max_position_embeddings"] = 640.into();
        // The oracle's heads are `hidden / heads` wide.
        for json in [&mut model.json, &mut grown.json] {
            json["hidden_size"] = 96.into();
        }
        let all = tokens(length);
        let want = oracle(&grown)(&all, 0).expect("the oracle runs");
        assert_close(
            &format!("dynamic, {length} tokens"),
            &run(&mut ours(&model), &all, 0),
            &want,
        );
    }
}

#[test]
fn a_prompt_in_pieces_gives_what_it_gives_whole() {
    for model in tiny::all() {
        let all = tokens(70);
        let whole = run(&mut ours(&model), &all, 0);
        let mut pieces = ours(&model);
        run(&mut pieces, &all[..20], 0);
        run(&mut pieces, &all[20..21], 20);
        assert_close(model.name, &run(&mut pieces, &all[21..], 21), &whole);
    }
}

#[test]
fn rows_of_a_batch_do_not_see_each_other() {
    for model in tiny::all() {
        let (a, b) = (tokens(9), tokens(18)[9..].to_vec());
        let both = Tensor::new(vec![a.clone(), b.clone()], &Device::Cpu).expect("two rows");
        let logits = ours(&model).forward(&both, 0).expect("a forward pass");
        for (i, tokens) in [a, b].iter().enumerate() {
            assert_close(
                model.name,
                &row(logits.get(i).expect("a row")),
                &run(&mut ours(&model), tokens, 0),
            );
        }
    }
}

#[test]
fn clearing_the_cache_starts_over() {
    let mut model = ours(&tiny::llama());
    let first = run(&mut model, &tokens(5), 0);
    model.clear_kv_cache();
    assert_eq!(run(&mut model, &tokens(5), 0), first);
}

#[test]
fn shorter_rope_tables_change_nothing_within_them() {
    let model = tiny::llama3();
    let options = LoadOptions {
        max_positions: Some(8),
    };
    let mut short = Llama::load_with(builder(&model), &model.config(), &options).expect("it loads");
    assert_eq!(
        run(&mut short, &tokens(8), 0),
        run(&mut ours(&model), &tokens(8), 0)
    );
    assert!(
        short.forward(&batch(&tokens(1)), 8).is_err(),
        "position 8 is beyond the tables"
    );
}

#[test]
fn a_missing_head_is_an_error_that_names_it() {
    let mut model = tiny::llama();
    let tied = builder(&model);
    model.json["tie_word_embeddings"] = false.into();
    let error = Llama::load(tied, &model.config()).expect_err("no lm_head in the file");
    assert!(error.to_string().contains("lm_head.weight"), "{error}");
}

/// The model as it is, with tensors and a configuration of one's own.
fn with_tensors(model: &Tiny, tensors: impl IntoIterator<Item = (String, Tensor)>) -> Llama {
    let tensors: HashMap<_, _> = tensors.into_iter().collect();
    let vb = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    Llama::load(vb, &model.config()).expect("the model loads")
}

#[test]
fn the_head_is_the_one_in_the_file_or_the_table_where_there_is_none() {
    let (tied, mut untied) = (tiny::llama(), tiny::llama());
    untied.json["tie_word_embeddings"] = false.into();
    for (model, flags) in [(&tied, [None, Some(true)]), (&untied, [None, Some(true)])] {
        let want = run(&mut ours(model), &tokens(7), 0);
        for flag in flags {
            let mut said = model.clone();
            said.json["tie_word_embeddings"] = flag.into();
            let got = run(&mut with_tensors(&said, model.tensors(7)), &tokens(7), 0);
            assert_eq!(got, want, "{flag:?}");
        }
    }
    // A file that holds the head only.
    let head_only = tied.tensors(7).into_iter().map(|(name, tensor)| {
        (
            name.replace("model.embed_tokens.weight", "lm_head.weight"),
            tensor,
        )
    });
    let got = run(&mut with_tensors(&tied, head_only), &tokens(7), 0);
    assert_eq!(got, run(&mut ours(&tied), &tokens(7), 0));
}

#[test]
fn a_text_model_inside_another_is_found_by_its_names() {
    let model = tiny::llama3();
    let want = run(&mut ours(&model), &tokens(7), 0);
    for (body, head) in [
        ("language_model.model.", "language_model.lm_head."),
        ("model.language_model.", "lm_head."),
        ("model.text_model.", "lm_head."),
    ] {
        let renamed = model.tensors(7).into_iter().map(|(name, tensor)| {
            let renamed = match name.strip_prefix("model.") {
                Some(rest) => format!("{body}{rest}"),
                None => name.replace("lm_head.", head),
            };
            (renamed, tensor)
        });
        let got = run(&mut with_tensors(&model, renamed), &tokens(7), 0);
        assert_eq!(got, want, "{body}");
    }
}

#[test]
fn calls_without_tokens_and_configurations_that_do_not_fit_are_errors() {
    let model = tiny::llama();
    let none = Tensor::zeros((1, 0), DType::U32, &Device::Cpu).expect("no tokens");
    let said = ours(&model).forward(&none, 0).expect_err("no tokens");
    assert!(said.to_string().contains("at least one token"), "{said}");
    let mut config = model.config();
    config.layer_windows.pop();
    let said = Llama::load(builder(&model), &config).expect_err("one window is missing");
    assert!(
        said.to_string().contains("num_hidden_layers is 3"),
        "{said}"
    );
}
