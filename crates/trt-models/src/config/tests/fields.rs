//! Files as people and programs write them.

use super::*;

#[test]
fn whole_numbers_may_have_a_point() {
    let config = read(serde_json::json!({
        "hidden_size": 32.0, "num_attention_heads": 4.0, "max_position_embeddings": 1e3
    }));
    assert_eq!(
        (config.hidden_size, config.max_position_embeddings),
        (32, 1000)
    );
    for bad in [
        serde_json::json!(32.5),
        serde_json::json!("32"),
        serde_json::json!(-32),
    ] {
        let said = refusal(serde_json::json!({"hidden_size": bad}));
        assert!(
            said.contains("hidden_size") && said.contains("32"),
            "{said}"
        );
    }
}

#[test]
fn a_byte_order_mark_is_passed_over() {
    let text = format!("\u{feff}{}", json(serde_json::json!({})));
    assert!(DecoderConfig::from_json(&text).is_ok());
}

#[test]
fn a_missing_field_is_named() {
    let said = refusal(serde_json::json!({"hidden_size": null}));
    assert!(said.contains("hidden_size is missing"), "{said}");
}

#[test]
fn notes_of_all_kinds_change_nothing() {
    let notes = serde_json::json!({
        "torch_dtype": "bfloat16", "dtype": {"": "float16"}, "transformers_version": "5.24.0", "use_cache": true,
        "_name_or_path": "x", "attention_dropout": 0.0, "initializer_range": 0.02, "pretraining_tp": 1,
        "id2label": {"0": "a"}, "unsloth_fixed": true, "tokenizer_class": null, "pad_token_id": -1,
        "auto_map": {"AutoModel": "m.py"}, "_attn_implementation_autoset": true,
        "num_local_experts": 0, "attn_logit_softcapping": null, "alibi": false, "logits_scaling": 1.0,
    });
    assert_eq!(read(notes), read(serde_json::json!({})));
}

#[test]
fn what_would_change_results_is_refused_by_name() {
    let fields = [
        ("attention_multiplier", serde_json::json!(0.0078125)),
        ("embedding_multiplier", serde_json::json!(12.0)),
        ("residual_multiplier", serde_json::json!(0.22)),
        ("logits_scaling", serde_json::json!(16.0)),
        ("logit_scale", serde_json::json!(0.0625)),
        ("scale_emb", serde_json::json!(12)),
        ("final_logit_softcapping", serde_json::json!(30.0)),
        ("attn_logit_softcapping", serde_json::json!(50.0)),
        ("query_pre_attn_scalar", serde_json::json!(256)),
        ("clip_qkv", serde_json::json!(8.0)),
        ("partial_rotary_factor", serde_json::json!(0.5)),
        ("no_rope_layers", serde_json::json!([1, 1, 0, 1])),
        ("qk_norm", serde_json::json!(true)),
        ("use_qk_norm", serde_json::json!(true)),
        ("num_local_experts", serde_json::json!(8)),
        (
            "per_layer_config",
            serde_json::json!({"0": {"hidden_size": 8}}),
        ),
        ("is_encoder_decoder", serde_json::json!(true)),
        ("alibi", serde_json::json!(true)),
        ("position_embedding_type", serde_json::json!("alibi")),
        ("hidden_act", serde_json::json!("relu2")),
        ("hidden_activation", serde_json::json!("gelu")),
        ("qkv_bias", serde_json::json!(true)),
        (
            "architectures",
            serde_json::json!(["LlamaForSequenceClassification"]),
        ),
        ("architectures", serde_json::json!(["LlamaModel"])),
        (
            "rope_parameters",
            serde_json::json!({"full_attention": {"rope_type": "default"}}),
        ),
    ];
    for (name, value) in fields {
        let said = refusal(serde_json::json!({name: value}));
        assert!(
            said.contains(name) && said.contains("not supported"),
            "{name}: {said}"
        );
    }
}

#[test]
fn flags_of_biases_are_obeyed_by_the_families_that_have_them() {
    let llama = read(serde_json::json!({"attention_bias": true, "mlp_bias": true}));
    assert!(llama.qkv_bias && llama.output_bias && llama.mlp_bias);
    let qwen2 = read(serde_json::json!({"model_type": "qwen2", "attention_bias": true}));
    assert!(qwen2.qkv_bias && !qwen2.output_bias);
    for (family, name) in [
        ("mistral", "attention_bias"),
        ("mistral", "mlp_bias"),
        ("qwen3", "mlp_bias"),
    ] {
        let said = refusal(serde_json::json!({"model_type": family, name: true}));
        assert!(said.contains(name), "{said}");
    }
}

#[test]
fn key_heads_that_are_not_stated_are_the_familys() {
    let heads = |family: &str| {
        let text = json(
            serde_json::json!({"model_type": family, "num_attention_heads": 32, "head_dim": 8}),
        );
        let mut file: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        file.as_object_mut()
            .expect("an object")
            .remove("num_key_value_heads");
        let config = DecoderConfig::from_json(&file.to_string()).expect("a valid config");
        config.num_key_value_heads
    };
    assert_eq!(
        [heads("llama"), heads("mistral"), heads("qwen2")],
        [32, 8, 32]
    );
    let null = read(serde_json::json!({"model_type": "mistral", "num_key_value_heads": null}));
    assert_eq!(null.num_key_value_heads, 4);
}

#[test]
fn a_list_of_layer_types_that_a_mistral_would_not_look_at_is_refused() {
    let mixed = [
        "full_attention",
        "sliding_attention",
        "full_attention",
        "full_attention",
    ];
    let said = refusal(serde_json::json!({"model_type": "mistral", "layer_types": mixed}));
    assert!(
        said.contains("layer_types") && said.contains("4096"),
        "{said}"
    );
}
