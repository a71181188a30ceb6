//! `rope_theta`, `rope_scaling`, `rope_parameters`.

use super::*;

#[test]
fn both_names_of_the_type_may_stand_there_if_they_agree() {
    let both = read(serde_json::json!({
        "rope_scaling": {"type": "linear", "rope_type": "linear", "factor": 4.0}
    }));
    assert_eq!(both.rope_scaling, RopeScaling::Linear { factor: 4.0 });
    let said = refusal(serde_json::json!({
        "rope_scaling": {"type": "linear", "rope_type": "yarn", "factor": 4.0}
    }));
    assert!(said.contains("disagree"), "{said}");
}

#[test]
fn what_stands_inside_counts_before_what_stands_beside() {
    let config = read(serde_json::json!({
        "rope_theta": 5000.0, "rope_parameters": {"rope_type": "default", "rope_theta": 7000.0}
    }));
    assert_eq!(config.rope_theta, 7000.0);
    let beside = read(serde_json::json!({"rope_theta": 5000, "rope_parameters": {}}));
    assert_eq!(
        (beside.rope_theta, beside.rope_scaling),
        (5000.0, RopeScaling::None)
    );
    let neither = read(serde_json::json!({"rope_scaling": null}));
    assert_eq!(
        (neither.rope_theta, neither.rope_scaling),
        (10_000.0, RopeScaling::None)
    );
}

#[test]
fn yarn_has_transformers_defaults() {
    let config = read(serde_json::json!({
        "max_position_embeddings": 32768, "rope_scaling": {"type": "yarn", "factor": 4}
    }));
    let yarn = RopeScaling::Yarn {
        factor: 4.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        attention_factor: 0.1 * 4f64.ln() + 1.0,
        original_max_positions: 32768,
        truncate: true,
    };
    assert_eq!(config.rope_scaling, yarn);
    assert_eq!(config.max_positions(), 131_072);
    let ratio = read(serde_json::json!({
        "max_position_embeddings": 131072, "original_max_position_embeddings": 32768,
        "rope_scaling": {"type": "yarn", "factor": null}
    }));
    assert_eq!(ratio.rope_scaling, yarn);
}

#[test]
fn several_positions_for_a_token_are_refused_by_name() {
    for kind in ["default", "mrope"] {
        let said = refusal(serde_json::json!({
            "rope_scaling": {"type": kind, "mrope_section": [16, 24, 24]}
        }));
        assert!(said.contains("mrope"), "{said}");
    }
}

#[test]
fn fields_that_a_type_does_not_have_are_refused_by_name() {
    for (kind, name) in [
        ("default", "factor"),
        ("linear", "beta_fast"),
        ("dynamic", "alpha"),
    ] {
        let said = refusal(serde_json::json!({
            "rope_scaling": {"type": kind, "factor": 2.0, name: 3.0}
        }));
        assert!(said.contains(&format!("rope_scaling.{name} = 3")), "{said}");
    }
}

#[test]
fn factors_that_stretch_nothing_are_refused_with_their_number() {
    for factor in [0.0, -2.0, 1e300] {
        let said = refusal(serde_json::json!({
            "rope_scaling": {"type": "linear", "factor": factor}
        }));
        assert!(said.contains("factor is"), "{said}");
    }
    let said = refusal(serde_json::json!({"rope_theta": 0.0}));
    assert!(said.contains("rope_theta is 0"), "{said}");
}
