//! What the reader of `config.json` promises.

use super::*;

mod fields;
mod hostile;
mod rope;
mod wrapped;

/// A small valid file with `extra` keys added or replaced.
fn json(extra: serde_json::Value) -> String {
    let mut base = serde_json::json!({
        "model_type": "llama", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    });
    let base_map = base.as_object_mut().expect("an object");
    base_map.extend(extra.as_object().expect("an object").clone());
    base.to_string()
}

fn read(extra: serde_json::Value) -> DecoderConfig {
    DecoderConfig::from_json(&json(extra)).expect("a valid config")
}

fn refusal(extra: serde_json::Value) -> String {
    DecoderConfig::from_json(&json(extra))
        .expect_err("an invalid config")
        .to_string()
}

#[test]
fn the_architecture_names_the_family_where_model_type_is_missing() {
    let config =
        read(serde_json::json!({"model_type": null, "architectures": ["Qwen3ForCausalLM"]}));
    assert_eq!(config.family, Family::Qwen3);
    assert!(config.qk_norm && !config.qkv_bias);
    assert_eq!(config.head_dim, 128);
}

#[test]
fn an_unknown_family_is_named_in_the_refusal() {
    let said = refusal(serde_json::json!({"model_type": "gemma2"}));
    assert!(
        said.contains("\"gemma2\"") && said.contains("mistral"),
        "{said}"
    );
    // Its fields have other names: the family is looked at first.
    let gpt2 = r#"{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 768, "vocab_size": "x"}"#;
    let said = DecoderConfig::from_json(gpt2)
        .expect_err("another family")
        .to_string();
    assert!(said.contains("\"gpt2\" is not one of llama"), "{said}");
    let said = DecoderConfig::from_json("{}")
        .expect_err("no family")
        .to_string();
    assert!(said.contains("no model_type"), "{said}");
}

#[test]
fn qwen2_has_biases_on_q_k_v_only_and_no_window_unless_asked() {
    let config = read(
        serde_json::json!({"model_type": "qwen2", "sliding_window": 8, "max_window_layers": 2}),
    );
    assert!(config.qkv_bias && !config.output_bias);
    assert_eq!(config.layer_windows, vec![None; 4]);
    let windowed = read(serde_json::json!({
        "model_type": "qwen2", "use_sliding_window": true, "sliding_window": 8, "max_window_layers": 2
    }));
    assert_eq!(windowed.layer_windows, vec![None, None, Some(8), Some(8)]);
}

#[test]
fn mistral_has_a_window_unless_the_file_says_null() {
    let absent = read(serde_json::json!({"model_type": "mistral"}));
    assert_eq!(absent.layer_windows, vec![Some(4096); 4]);
    let null = read(serde_json::json!({"model_type": "mistral", "sliding_window": null}));
    assert_eq!(null.layer_windows, vec![None; 4]);
}

#[test]
fn layer_types_override_the_family_rule() {
    let types = [
        "full_attention",
        "sliding_attention",
        "full_attention",
        "sliding_attention",
    ];
    let config = read(serde_json::json!({
        "model_type": "qwen3", "use_sliding_window": true, "sliding_window": 5, "layer_types": types
    }));
    assert_eq!(config.layer_windows, vec![None, Some(5), None, Some(5)]);
}

#[test]
fn rope_scaling_is_read_from_old_and_new_keys() {
    let old = read(
        serde_json::json!({"rope_theta": 5000.0, "rope_scaling": {"type": "linear", "factor": 4.0}}),
    );
    assert_eq!(old.rope_scaling, RopeScaling::Linear { factor: 4.0 });
    assert_eq!(old.rope_theta, 5000.0);
    let new = read(
        serde_json::json!({"rope_parameters": {"rope_type": "default", "rope_theta": 7000.0}}),
    );
    assert_eq!(new.rope_scaling, RopeScaling::None);
    assert_eq!(new.rope_theta, 7000.0);
}

#[test]
fn an_unsupported_rope_type_is_named() {
    for name in ["longrope", "su", "mrope", "proportional"] {
        for key in ["rope_type", "type"] {
            let said = refusal(serde_json::json!({"rope_scaling": {key: name, "factor": 4.0}}));
            assert!(said.contains(name) && said.contains("yarn"), "{said}");
        }
    }
}

#[test]
fn a_missing_scaling_number_is_named() {
    let said = refusal(serde_json::json!({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}));
    assert!(said.contains("low_freq_factor is missing"), "{said}");
}

#[test]
fn heads_that_do_not_divide_are_refused_with_both_numbers() {
    let said = refusal(serde_json::json!({"num_key_value_heads": 3}));
    assert!(
        said.contains("num_attention_heads 4") && said.contains("num_key_value_heads 3"),
        "{said}"
    );
    let said = refusal(serde_json::json!({"hidden_size": 30}));
    assert!(said.contains("hidden_size 30"), "{said}");
}

#[test]
fn quantised_checkpoints_and_other_activations_are_refused() {
    let said = refusal(serde_json::json!({"quantization_config": {"quant_method": "gptq"}}));
    assert!(said.contains("gptq"), "{said}");
    let said = refusal(serde_json::json!({"hidden_act": "gelu"}));
    assert!(said.contains("gelu") && said.contains("silu"), "{said}");
}

#[test]
fn eos_is_one_number_or_several() {
    assert_eq!(
        read(serde_json::json!({"eos_token_id": 2})).eos_token_ids,
        vec![2]
    );
    assert_eq!(
        read(serde_json::json!({"eos_token_id": [2, 7]})).eos_token_ids,
        vec![2, 7]
    );
    for none in [
        serde_json::json!({}),
        serde_json::json!({"eos_token_id": null, "bos_token_id": null}),
        serde_json::json!({"eos_token_id": -1, "bos_token_id": -1}),
        serde_json::json!({"eos_token_id": [-1, null]}),
        serde_json::json!({"eos_token_id": []}),
    ] {
        let config = read(none);
        assert!(config.eos_token_ids.is_empty() && config.bos_token_id.is_none());
    }
    let config = read(serde_json::json!({"eos_token_id": [2.0, -1, 7], "bos_token_id": 1.0}));
    assert_eq!(
        (config.bos_token_id, config.eos_token_ids),
        (Some(1), vec![2, 7])
    );
    for bad in [
        serde_json::json!("2"),
        serde_json::json!(1u64 << 32),
        serde_json::json!(2.5),
    ] {
        let said = refusal(serde_json::json!({"eos_token_id": bad}));
        assert!(
            said.contains("eos_token_id") && said.contains("token id"),
            "{said}"
        );
    }
}
