//! Models with vision: the text model inside counts.

use super::*;

fn llava(text: serde_json::Value) -> String {
    serde_json::json!({
        "model_type": "llava", "architectures": ["LlavaForConditionalGeneration"], "eos_token_id": 7,
        "text_config": text, "vision_config": {"model_type": "clip_vision_model", "hidden_size": 1024},
    })
    .to_string()
}

#[test]
fn a_text_model_lists_only_what_differs_from_its_family() {
    // As llava-1.5-7b-hf has it.
    let config = DecoderConfig::from_json(&llava(serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "max_position_embeddings": 4096, "model_type": "llama",
        "rms_norm_eps": 1e-5, "torch_dtype": "float16", "vocab_size": 32064,
    })))
    .expect("a llama inside");
    let sizes = (
        config.hidden_size,
        config.intermediate_size,
        config.num_hidden_layers,
    );
    assert_eq!((config.family, sizes), (Family::Llama, (4096, 11008, 32)));
    assert_eq!((config.vocab_size, config.head_dim), (32064, 128));
    assert_eq!(config.eos_token_ids, vec![7]);
    // Without a name it is what transformers takes it for.
    let unnamed = DecoderConfig::from_json(&llava(serde_json::json!({"vocab_size": 32064})));
    assert_eq!(unnamed.expect("a llama inside").family, Family::Llama);
}

#[test]
fn a_text_model_of_another_family_is_refused_with_both_names() {
    let file = serde_json::json!({
        "model_type": "qwen2_5_vl", "text_config": {"model_type": "qwen2_5_vl_text", "hidden_size": 2048}
    });
    let said = DecoderConfig::from_json(&file.to_string())
        .expect_err("refused")
        .to_string();
    assert!(
        said.contains("\"qwen2_5_vl\"") && said.contains("\"qwen2_5_vl_text\""),
        "{said}"
    );
}

#[test]
fn what_is_refused_says_where_it_stands() {
    let said = DecoderConfig::from_json(&llava(serde_json::json!({
        "model_type": "mistral", "logits_scaling": 8.0
    })));
    let said = said.expect_err("refused").to_string();
    assert!(said.contains("text_config.logits_scaling = 8"), "{said}");
}
