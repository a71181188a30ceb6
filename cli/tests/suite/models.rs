//! A model as small as they come, as the files of a folder.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

/// Files by name.
pub type Files = BTreeMap<String, Vec<u8>>;

const HIDDEN: usize = 64;
const VOCABULARY: usize = 8;

/// `config.json`.
pub fn config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": 128,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": VOCABULARY,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
        "tie_word_embeddings": true, "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "float32",
    })
}

/// `tokenizer.json`: words that stand for themselves.
pub fn tokenizer() -> Value {
    let words = ["<s>", "</s>", "a", "b", "c", "d", "e", "[UNK]"];
    let vocabulary: serde_json::Map<_, _> = words
        .iter()
        .zip(0..)
        .map(|(w, i)| (w.to_string(), json!(i)))
        .collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    })
}

/// The tensors of [`config`] with this intermediate size, by name.
fn tensors(intermediate: usize) -> Vec<(String, Vec<usize>)> {
    let mut all = vec![
        (
            "model.embed_tokens.weight".to_string(),
            vec![VOCABULARY, HIDDEN],
        ),
        ("model.norm.weight".to_string(), vec![HIDDEN]),
    ];
    for layer in 0..2 {
        let mut add = |name: &str, shape: &[usize]| {
            all.push((
                format!("model.layers.{layer}.{name}.weight"),
                shape.to_vec(),
            ));
        };
        add("input_layernorm", &[HIDDEN]);
        add("post_attention_layernorm", &[HIDDEN]);
        for (name, rows, columns) in [
            ("self_attn.q_proj", 64, 64),
            ("self_attn.k_proj", 32, 64),
            ("self_attn.v_proj", 32, 64),
            ("self_attn.o_proj", 64, 64),
            ("mlp.gate_proj", intermediate, 64),
            ("mlp.up_proj", intermediate, 64),
            ("mlp.down_proj", 64, intermediate),
        ] {
            add(name, &[rows, columns]);
        }
    }
    all
}

/// A safetensors file of f32 values that are always the same.
fn safetensors(tensors: &[(String, Vec<usize>)]) -> Vec<u8> {
    let (mut header, mut values) = (serde_json::Map::new(), Vec::new());
    let mut random = 1u32;
    for (name, shape) in tensors {
        let begin = values.len();
        for _ in 0..shape.iter().product() {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            values.extend(((random >> 8) as f32 / (1 << 24) as f32 - 0.5).to_le_bytes());
        }
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, values.len()]});
        header.insert(name.clone(), entry);
    }
    let header = Value::Object(header).to_string();
    let padded = header.len().next_multiple_of(8);
    let mut file = (padded as u64).to_le_bytes().to_vec();
    file.extend(format!("{header:padded$}").bytes());
    file.extend(values);
    file
}

fn text(json: &Value) -> Vec<u8> {
    json.to_string().into_bytes()
}

/// A whole model with one file of weights.
pub fn model() -> Files {
    Files::from([
        ("config.json".into(), text(&config())),
        ("tokenizer.json".into(), text(&tokenizer())),
        ("model.safetensors".into(), safetensors(&tensors(128))),
    ])
}

/// The same with matrices that are large enough to be packed.
pub fn wide() -> Files {
    let mut files = model();
    let mut config = config();
    config["intermediate_size"] = json!(1024);
    files.insert("config.json".into(), text(&config));
    files.insert("model.safetensors".into(), safetensors(&tensors(1024)));
    files
}

/// The same in two shards, and the index that names them.
pub fn sharded() -> Files {
    let mut files = model();
    files.remove("model.safetensors");
    let tensors = tensors(128);
    let mut map = serde_json::Map::new();
    for (name, part) in ["one.safetensors", "sub/two.safetensors"]
        .into_iter()
        .zip(tensors.chunks(10))
    {
        map.extend(part.iter().map(|(tensor, _)| (tensor.clone(), name.into())));
        files.insert(name.into(), safetensors(part));
    }
    files.insert(
        "model.safetensors.index.json".into(),
        text(&json!({"weight_map": map})),
    );
    files
}

/// Writes files below a folder.
pub fn write(folder: &Path, files: &Files) {
    for (name, bytes) in files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("it is made");
        std::fs::write(path, bytes).expect("it is written");
    }
}
