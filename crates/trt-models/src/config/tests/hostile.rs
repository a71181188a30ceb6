//! Numbers and files that would take all memory, or wait for ever.

use super::*;

#[test]
fn numbers_beyond_their_maximum_are_refused_with_field_and_number() {
    for (name, value) in [
        ("num_hidden_layers", 1_000_000_000_000u64),
        ("head_dim", (1 << 63) + 8),
        ("max_position_embeddings", 1_000_000_000_000),
        ("vocab_size", 1 << 40),
        ("hidden_size", 1 << 40),
        ("intermediate_size", 1 << 40),
        ("num_attention_heads", 1 << 40),
        ("num_hidden_layers", u64::MAX),
    ] {
        let said = refusal(serde_json::json!({name: value}));
        assert!(
            said.contains(name) && said.contains(&value.to_string()),
            "{name}: {said}"
        );
    }
    let window =
        serde_json::json!({"model_type": "mistral", "sliding_window": 1_000_000_000_000u64});
    let said = refusal(window);
    assert!(said.contains("sliding_window = 1000000000000"), "{said}");
    let wide = serde_json::json!({"num_attention_heads": 1 << 14, "head_dim": 1 << 14});
    let said = refusal(wide);
    assert!(
        said.contains("num_attention_heads * head_dim = 268435456"),
        "{said}"
    );
}

#[test]
fn a_million_and_ten_thousand_positions_are_within_them() {
    let config = read(serde_json::json!({"max_position_embeddings": 1_010_000}));
    assert_eq!(config.max_positions(), 1_010_000);
}

#[test]
fn only_regular_files_of_a_bounded_length_are_read() {
    let dir = std::env::temp_dir().join(format!("trt-models-config-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a folder");
    let said = DecoderConfig::from_file(&dir)
        .expect_err("a folder")
        .to_string();
    assert!(said.contains("a folder, not a regular file"), "{said}");
    let long = dir.join("config.json");
    std::fs::write(&long, vec![b' '; (4 << 20) + 1]).expect("a file");
    let said = DecoderConfig::from_file(&long)
        .expect_err("too long")
        .to_string();
    assert!(said.contains("4194304 bytes"), "{said}");
    let missing = DecoderConfig::from_file(dir.join("none")).expect_err("no file");
    assert!(missing.to_string().contains("none"), "{missing}");
    // The reason is told once.
    assert!(std::error::Error::source(&missing).is_none());
    let said = DecoderConfig::from_json("[1]").expect_err("no object");
    assert!(said.to_string().contains("does not parse"), "{said}");
    assert!(std::error::Error::source(&said).is_none());
    #[cfg(unix)]
    {
        let device = DecoderConfig::from_file("/dev/zero").expect_err("endless");
        assert!(
            device.to_string().contains("not a regular file"),
            "{device}"
        );
        let pipe = dir.join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.expect("mkfifo runs").success());
        let said = DecoderConfig::from_file(&pipe)
            .expect_err("a pipe")
            .to_string();
        assert!(said.contains("not a regular file"), "{said}");
    }
    std::fs::remove_dir_all(&dir).expect("it goes");
}
