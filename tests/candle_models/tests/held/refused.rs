//! What a ported model cannot have, and what it is told.

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::{Content, Value};
use candle_models::blocks::file::{File, Parts};
use candle_models_ported::models::quantized_llama::ModelWeights;
use candle_trt::candle::quantized::{GgmlDType as Ours, gguf_file};
use candle_trt::candle::{DType, Device, Result, Tensor};
use candle_trt::candle_nn::VarBuilder;
use candle_trt::candle_transformers::quantized_var_builder;
use candle_trt::graph::{Profile, trace};
use candle_trt::{Call, Compiler, Weights};
use std::io::{Cursor, empty};
use std::sync::Arc;

/// A llama of one layer, whose feed-forward may be of experts.
fn llama(experts: u32) -> File {
    let mut parts = Parts::default()
        .say("general.architecture", Value::String("llama".into()))
        .say("llama.attention.head_count", Value::U32(4))
        .say("llama.attention.head_count_kv", Value::U32(4))
        .say("llama.block_count", Value::U32(1))
        .say("llama.embedding_length", Value::U32(64))
        .say("llama.rope.dimension_count", Value::U32(16))
        .say("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5))
        .say("llama.expert_count", Value::U32(experts))
        .say("llama.expert_used_count", Value::U32(1));
    for name in ["token_embd", "output"] {
        parts.matrix(&format!("{name}.weight"), (32, 64), GgmlDType::Q8_0);
    }
    parts.vector("output_norm.weight", 64, 1.0);
    let mut matrices = ["attn_q", "attn_k", "attn_v", "attn_output"]
        .map(String::from)
        .to_vec();
    for part in ["ffn_gate", "ffn_down", "ffn_up"] {
        match experts {
            0 => matrices.push(part.into()),
            n => matrices.extend((0..n).map(|i| format!("{part}.{i}"))),
        }
    }
    for name in matrices {
        parts.matrix(&format!("blk.0.{name}.weight"), (64, 64), GgmlDType::Q4_0);
    }
    parts.matrix("blk.0.ffn_gate_inp.weight", (2, 64), GgmlDType::F32);
    parts.vector("blk.0.attn_norm.weight", 64, 1.0);
    parts.vector("blk.0.ffn_norm.weight", 64, 1.0);
    parts.write()
}

fn traced(vb: &VarBuilder) -> String {
    let mut load = |vb: VarBuilder| {
        let mut model = ModelWeights::from_gguf(vb.gguf()?, &mut empty(), &Device::Cpu)?;
        Ok(move |call: &Call<'_>| -> Result<Vec<Tensor>> {
            let (past, seq) = call.positions()?;
            let ids = call.input("ids", (1, seq), DType::U32)?;
            Ok(vec![model.forward(&ids, past)?])
        })
    };
    let profile = Profile::decoder(8, 1).expect("a profile");
    match trace(&mut load, vb, &profile.classes[0]) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

/// candle's code takes the table for a head that is missing. One that is there and cannot be read is not missing.
#[test]
fn a_head_that_cannot_be_read_is_not_taken_for_a_missing_one() {
    assert_eq!(traced(&llama(0).builder()), "");
    let mut source = llama(0).source();
    source.unusable = Some("output.weight".into());
    let said = traced(&VarBuilder::new(Arc::new(source), DType::F32));
    assert!(
        said.contains("'output.weight' is of a type that nothing reads"),
        "{said}"
    );
}

#[test]
fn experts_that_values_pick_are_an_error() {
    let said = traced(&llama(2).builder());
    assert!(said.contains("not known while a model is traced"), "{said}");
}

#[test]
fn files_are_opened_by_whoever_compiles() {
    let read = gguf_file::Content::read(&mut empty()).expect_err("nothing is read");
    assert!(read.to_string().contains("VarBuilder::gguf"), "{read}");
    let opened = quantized_var_builder::VarBuilder::from_gguf("model.gguf", &Device::Cpu);
    let Err(error) = opened else {
        panic!("nothing is opened")
    };
    assert!(
        error
            .to_string()
            .contains("give model.gguf to Weights::open"),
        "{error}"
    );
}

#[test]
fn a_tensor_that_is_not_there_or_has_another_shape_is_named() {
    let vb = llama(0).builder();
    let content = vb.gguf().expect("it is a GGUF file");
    let missing = content.tensor(&mut empty(), "blk.1.attn_q.weight", &Device::Cpu);
    let said = missing.expect_err("there is one layer").to_string();
    assert!(
        said.contains("cannot find tensor info for blk.1.attn_q.weight"),
        "{said}"
    );
    let vb = quantized_var_builder::VarBuilder::from(vb).pp("blk").pp(0);
    assert!(vb.contains_key("output.weight") && !vb.contains_key("attn_q.weight"));
    let q = vb.get((64, 64), "attn_q.weight").expect("a matrix");
    assert_eq!(
        (q.dtype(), q.rank(), q.storage_size_in_bytes()),
        (Ours::Q4_0, 2, 64 * 2 * 18)
    );
    let said = vb
        .get((32, 64), "attn_q.weight")
        .expect_err("another shape")
        .to_string();
    assert!(
        said.contains("'blk.0.attn_q.weight' has shape [64, 64]"),
        "{said}"
    );
    let said = vb
        .get(64, "attn_z.weight")
        .expect_err("no such tensor")
        .to_string();
    assert!(said.contains("no weight 'blk.0.attn_z.weight'"), "{said}");
}

/// The content that model code sees in an engine of a file, if it compiles.
fn content(path: &std::path::Path) -> Result<gguf_file::Content> {
    let mut seen = None;
    let weights = Weights::open(path).expect("the file opens");
    let compiled = Compiler::new(weights).compile(|vb: VarBuilder| {
        seen = Some(vb.gguf());
        Err::<fn(&Call<'_>) -> Result<Vec<Tensor>>, _>(candle_core::Error::Msg("enough".into()))
    });
    assert!(compiled.is_err());
    seen.expect("the model was loaded")
}

#[test]
fn what_a_file_says_is_what_candle_reads_in_it() {
    let parts = [
        ("a", Value::U8(1)),
        ("b", Value::I8(-2)),
        ("c", Value::U16(3)),
        ("d", Value::I16(-4)),
        ("e", Value::U32(5)),
        ("f", Value::I32(-6)),
        ("g", Value::U64(7)),
        ("h", Value::I64(-8)),
        ("i", Value::F32(0.5)),
        ("j", Value::F64(-0.25)),
        ("k", Value::Bool(true)),
        ("l", Value::String("tea".into())),
        ("m", Value::Array(vec![Value::I32(1), Value::I32(-1)])),
        (
            "n",
            Value::Array(vec![Value::String("x".into()), Value::String("y".into())]),
        ),
        ("o", Value::Array(vec![Value::Array(vec![Value::U8(9)])])),
        ("p", Value::Array(Vec::new())),
    ];
    let mut file = parts
        .into_iter()
        .fold(Parts::default(), |f, (key, value)| f.say(key, value));
    file.matrix("w", (3, 64), GgmlDType::Q8_0);
    let file = file.write();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, &file.bytes).expect("the file is written");
    let (ours, theirs) = (
        content(&path).expect("a GGUF file"),
        Content::read(&mut Cursor::new(&file.bytes)),
    );
    let theirs = theirs.expect("candle reads it");
    assert_eq!(ours.metadata.len(), theirs.metadata.len());
    for (key, value) in &theirs.metadata {
        let found = format!("{:?}", ours.metadata.get(key));
        assert_eq!(found, format!("{:?}", Some(value)), "{key}");
    }
    let names: Vec<_> = ours
        .tensor_infos
        .iter()
        .map(|(n, i)| (n.as_str(), i.shape.dims(), i.ggml_dtype))
        .collect();
    assert_eq!(names, [("w", &[3, 64][..], Ours::Q8_0)]);
}

#[test]
fn weights_of_other_files_have_no_content() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    let w = candle_core::Tensor::ones((2, 4), DType::F32, &candle_core::Device::Cpu).expect("ones");
    let saved = candle_core::safetensors::save(&[("w".to_string(), w)].into(), &path);
    saved.expect("a file");
    let error = content(&path).expect_err("that is no GGUF file");
    assert!(error.to_string().contains("from no GGUF file"), "{error}");
}
