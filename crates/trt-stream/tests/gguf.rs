//! GGUF files: what is found in them.

#[path = "support/gguf.rs"]
mod gguf;

use gguf::{Gguf, list, text};
use tempfile::TempDir;
use trt_kernel::{BlockType, DType, Encoding};
use trt_stream::{RowOrder, Value, Weights, WeightsError};

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn opened(file: &Gguf) -> Weights {
    let dir = dir();
    Weights::open(file.write(&dir.path().join("m.gguf"))).unwrap()
}

/// A model of one layer with 2 query heads and 1 key head of width 4.
fn llama() -> Gguf {
    Gguf::new()
        .text("general.architecture", "llama")
        .u32("llama.attention.head_count", 2)
        .u32("llama.attention.head_count_kv", 1)
        .f32s("token_embd.weight", &[3, 8])
        .f32s("blk.0.attn_norm.weight", &[8])
        .f32s("blk.0.attn_q.weight", &[8, 8])
        .f32s("blk.0.attn_k.weight", &[4, 8])
        .f32s("blk.0.attn_v.weight", &[4, 8])
}

#[test]
fn tensors_of_all_types_have_their_shape_rows_first_and_their_bytes() {
    let types = [
        (0, Encoding::Plain(DType::F32)),
        (1, Encoding::Plain(DType::F16)),
        (2, Encoding::Blocks(BlockType::Q4_0)),
        (3, Encoding::Blocks(BlockType::Q4_1)),
        (6, Encoding::Blocks(BlockType::Q5_0)),
        (7, Encoding::Blocks(BlockType::Q5_1)),
        (8, Encoding::Blocks(BlockType::Q8_0)),
        (10, Encoding::Blocks(BlockType::Q2K)),
        (11, Encoding::Blocks(BlockType::Q3K)),
        (12, Encoding::Blocks(BlockType::Q4K)),
        (13, Encoding::Blocks(BlockType::Q5K)),
        (14, Encoding::Blocks(BlockType::Q6K)),
        (20, Encoding::Blocks(BlockType::Iq4Nl)),
        (23, Encoding::Blocks(BlockType::Iq4Xs)),
        (30, Encoding::Plain(DType::BF16)),
        (39, Encoding::Blocks(BlockType::Mxfp4)),
    ];
    for version in [2, 3] {
        let mut file = Gguf::new();
        file.version = version;
        for (number, encoding) in types {
            let bytes = 3 * encoding.row_bytes(512).unwrap() as u64;
            file = file.tensor(encoding.name(), &[3, 512], number, bytes);
        }
        let weights = opened(&file);
        assert_eq!(weights.len(), types.len());
        for (tensor, (_, encoding)) in file.tensors.iter().zip(types) {
            let id = weights
                .require(encoding.name(), &[3, 512], Some(encoding))
                .unwrap();
            let info = weights.get(id).unwrap();
            assert_eq!((info.rows(), info.columns()), (3, 512));
            let bytes = weights.bytes(id).unwrap();
            assert_eq!(bytes.len() as u64, tensor.bytes, "{encoding}");
            assert_eq!(bytes[0], tensor.offset as u8, "{encoding}");
        }
    }
}

#[test]
fn shapes_of_up_to_four_axes_are_turned_around() {
    let file = Gguf::new()
        .f32s("s", &[])
        .f32s("v", &[5])
        .f32s("e", &[2, 3, 4])
        .f32s("c", &[2, 3, 4, 5])
        .tensor("q", &[64], 8, 68);
    let weights = opened(&file);
    let shape = |name: &str| &weights.get(weights.find(name).unwrap()).unwrap().shape[..];
    assert_eq!(shape("s"), [0usize; 0]);
    assert_eq!(shape("v"), [5]);
    assert_eq!(shape("e"), [2, 3, 4]);
    assert_eq!(shape("c"), [2, 3, 4, 5]);
    let q = weights.get(weights.find("q").unwrap()).unwrap();
    assert_eq!((q.rows(), q.columns()), (1, 64), "a block is not cut");
}

#[test]
fn a_type_that_is_not_read_is_an_error_only_where_it_is_asked_for() {
    let file = Gguf::new()
        .f32s("a", &[4])
        .tensor("iq2", &[1, 256], 16, 66)
        .tensor("ids", &[4], 26, 16)
        .tensor("new", &[4], 99, 16);
    let weights = opened(&file);
    assert_eq!(weights.names().collect::<Vec<_>>(), ["a"]);
    for (name, kind) in [("iq2", "IQ2_XXS"), ("ids", "I32"), ("new", "GGUF type 99")] {
        assert!(weights.contains(name) && weights.lookup(name).is_none());
        let error = weights.find(name).unwrap_err();
        assert!(matches!(error, WeightsError::UnsupportedDType { .. }));
        let text = error.to_string();
        for part in ["m.gguf", name, kind, "Q4_K"] {
            assert!(text.contains(part), "'{part}' is not in: {text}");
        }
    }
}

#[test]
fn values_are_read_when_they_are_asked_for() {
    let nested = list(9, &[list(4, &[vec![1, 0, 0, 0]]), list(8, &[text("x")])]);
    let file = Gguf::new()
        .text("name", "größe")
        .u32("count", 7)
        .i32("below", -7)
        .f32("eps", 1e-5)
        .value("yes", 7, vec![1])
        .value("long", 12, 0.1f64.to_le_bytes().to_vec())
        .value("words", 9, list(8, &[text("a"), text("")]))
        .value("kinds", 9, list(5, &[vec![1, 0, 0, 0], vec![255; 4]]))
        .value("scores", 9, list(6, &[0.5f32.to_le_bytes().to_vec()]))
        .value("nested", 9, nested);
    let weights = opened(&file);
    let metadata = weights.metadata().unwrap();
    assert_eq!(metadata.text("name").unwrap().unwrap(), "größe");
    assert_eq!(metadata.count("count").unwrap(), Some(7));
    assert_eq!(metadata.get("below"), Some(Value::Signed(-7)));
    assert_eq!(metadata.number("eps").unwrap(), Some(1e-5), "as written");
    assert_eq!(metadata.number("long").unwrap(), Some(0.1));
    assert_eq!(metadata.flag("yes").unwrap(), Some(true));
    assert_eq!(metadata.texts("words").unwrap().unwrap(), ["a", ""]);
    assert_eq!(metadata.integers("kinds").unwrap().unwrap(), [1, -1]);
    assert_eq!(metadata.floats("scores").unwrap().unwrap(), [0.5]);
    let nested = metadata.list("nested").unwrap().unwrap();
    let inner: Vec<_> = nested.iter().collect();
    assert!(matches!(inner[..], [Value::Array(a), Value::Array(b)] if a.len() + b.len() == 2));
    assert_eq!(metadata.iter().count(), 10);
    assert_eq!(metadata.text("absent").unwrap(), None);
    for wrong in [
        metadata.text("count").map(drop),
        metadata.count("below").map(drop),
        metadata.count("eps").map(drop),
        metadata.flag("count").map(drop),
        metadata.texts("kinds").map(drop),
        metadata.integers("words").map(drop),
    ] {
        let error = wrong.unwrap_err();
        assert!(matches!(error, WeightsError::BadValue { .. }), "{error}");
        assert!(error.to_string().contains("m.gguf"), "{error}");
    }
}

#[test]
fn a_folder_with_one_gguf_model_is_that_model() {
    let dir = dir();
    llama().write(&dir.path().join("model-Q4_1.gguf"));
    std::fs::write(dir.path().join("README.md"), "").unwrap();
    assert_eq!(Weights::open(dir.path()).unwrap().len(), 5);
    llama().write(&dir.path().join("model-Q8_0.gguf"));
    let error = Weights::open(dir.path()).unwrap_err();
    assert!(matches!(error, WeightsError::SeveralModels { .. }));
    let text = error.to_string();
    assert!(text.contains("model-Q4_1.gguf, model-Q8_0.gguf"), "{text}");
}

#[test]
fn tensors_are_found_by_their_hugging_face_names_too() {
    let weights = opened(&llama());
    let (q, k) = ("blk.0.attn_q.weight", "blk.0.attn_k.weight");
    let view = |name: &str| weights.view(name).unwrap();
    assert_eq!(view(q).rows, RowOrder::AsStored, "by its name in the file");
    let hf = view("model.layers.0.self_attn.q_proj.weight");
    assert_eq!(hf.id, weights.find(q).unwrap());
    assert_eq!(hf.rows, RowOrder::Interleaved { heads: 2 });
    let hf = view("model.layers.0.self_attn.k_proj.weight");
    assert_eq!(hf.id, weights.find(k).unwrap());
    assert_eq!(hf.rows, RowOrder::Interleaved { heads: 1 });
    for name in [
        "model.embed_tokens.weight",
        "model.layers.0.input_layernorm.weight",
        "model.layers.0.self_attn.v_proj.weight",
    ] {
        let view = view(name);
        assert_eq!((view.rows, view.added), (RowOrder::AsStored, 0.0), "{name}");
    }
    for name in ["lm_head.weight", "model.layers.1.mlp.up_proj.weight"] {
        assert!(!weights.contains(name), "{name}");
    }
}

#[test]
fn tensors_are_listed_by_their_hugging_face_names_in_the_order_of_use() {
    let file = llama()
        .f32s("output.weight", &[3, 8])
        .f32s("blk.10.attn_q.bias", &[8])
        .f32s("blk.2.ffn_down.weight", &[8, 8])
        .f32s("output_norm.weight", &[8])
        .f32s("rope_freqs.weight", &[4]);
    let weights = opened(&file);
    let all = weights.hugging_face().unwrap();
    let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
    let layer = |rest: &str| format!("model.layers.{rest}");
    let expected = [
        "model.embed_tokens.weight",
        &layer("0.input_layernorm.weight"),
        &layer("0.self_attn.q_proj.weight"),
        &layer("0.self_attn.k_proj.weight"),
        &layer("0.self_attn.v_proj.weight"),
        &layer("2.mlp.down_proj.weight"),
        &layer("10.self_attn.q_proj.bias"),
        "model.norm.weight",
        "lm_head.weight",
    ];
    assert_eq!(names, expected);
    for (name, id) in &all {
        assert_eq!(weights.find(name).unwrap(), *id, "{name}");
    }
}

#[test]
fn rows_that_are_no_heads_of_pairs_are_refused() {
    let mut file = llama();
    file.values[1].2 = 3u32.to_le_bytes().to_vec();
    let weights = opened(&file);
    let error = weights.view("model.layers.0.self_attn.q_proj.weight");
    let text = error.unwrap_err().to_string();
    assert!(
        text.contains("blk.0.attn_q.weight") && text.contains("8 rows are not 3 heads"),
        "{text}"
    );
}

#[test]
fn the_norms_of_gemma_say_what_was_added() {
    let file = Gguf::new()
        .text("general.architecture", "gemma2")
        .f32s("blk.0.post_ffw_norm.weight", &[8])
        .f32s("blk.0.attn_q.weight", &[8, 8])
        .f32s("output_norm.weight", &[8]);
    let weights = opened(&file);
    let added = |name: &str| weights.view(name).unwrap().added;
    assert_eq!(added("model.norm.weight"), 1.0);
    assert_eq!(
        added("model.layers.0.post_feedforward_layernorm.weight"),
        1.0
    );
    assert_eq!(added("model.layers.0.self_attn.q_proj.weight"), 0.0);
    assert_eq!(added("output_norm.weight"), 0.0, "by its name in the file");
}
