//! Indices of models in several files: whatever they say, nothing outside of the folder is opened.

use crate::files::{folder, put, safetensors};
use candle_trt::{Weights, plain_name};
use candle_trt_fuzz::Target;

const WORDS: [&str; 18] = [
    "\"weight_map\":",
    "\"a\":\"1.safetensors\"",
    "1.safetensors",
    "./",
    "../",
    "/",
    "//",
    "../outside.safetensors",
    "sub/../../outside.safetensors",
    "\\\\",
    "%2e%2e/",
    "NUL",
    "pipe",
    "sub",
    "\\u002e",
    "\\u0000",
    "3.safetensors",
    "\"outside\":",
];

fn weights(name: &str) -> Vec<u8> {
    let header = format!(r#"{{"{name}":{{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}}}"#);
    safetensors(header.as_bytes(), 8)
}

#[test]
fn an_index_of_any_text_is_read_or_refused_and_stays_in_its_folder() {
    let around = folder();
    let dir = around.path().join("model");
    std::fs::create_dir_all(dir.join("sub")).expect("folders");
    put(
        &around.path().join("outside.safetensors"),
        &weights("outside"),
    );
    put(&dir.join("1.safetensors"), &weights("a"));
    put(&dir.join("sub/2.safetensors"), &weights("b"));
    let pipe = std::process::Command::new("mkfifo")
        .arg(dir.join("pipe"))
        .status();
    assert!(pipe.expect("it runs").success());
    let corpus = [
        r#"{"metadata":{"total_size":16},"weight_map":{"a":"1.safetensors","b":"sub/2.safetensors"}}"#,
        r#"{"weight_map":{"a":"./1.safetensors","mtp.fc.weight":"3.safetensors"}}"#,
        r#"{"weight_map":{"a":"1.safetensors","outside":"../outside.safetensors"}}"#,
        r#"{"weight_map":{"a":"1.safetensors","x":"pipe"}}"#,
    ]
    .map(|text| text.as_bytes().to_vec());
    let path = dir.join("model.safetensors.index.json");
    let target = Target {
        words: &WORDS,
        bytes: 4 << 20,
        ..Target::new("index", &corpus)
    };
    target.run(|bytes| {
        put(&path, bytes);
        let Ok(weights) = Weights::open(&dir) else {
            return;
        };
        for file in weights.files() {
            assert!(file.path.starts_with(&dir), "{:?}", file.path);
        }
        for name in ["a", "b", "outside", "mtp.fc.weight", "other"] {
            match weights.find(name) {
                Ok(id) => assert_eq!(weights.bytes(id).map(<[u8]>::len), Some(8)),
                Err(error) => drop(error.to_string()),
            }
        }
        assert_eq!(weights.lookup("outside"), None);
    });
}

#[test]
fn a_plain_name_of_any_text_is_below_the_folder() {
    let corpus = [
        "1.safetensors",
        "./sub//2.safetensors",
        "../x",
        "C:\\x",
        "NUL.txt",
    ];
    let corpus = corpus.map(|text| text.as_bytes().to_vec());
    let target = Target {
        words: &WORDS,
        bytes: 1 << 20,
        ..Target::new("name", &corpus)
    };
    target.run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        if let Ok(path) = plain_name(&text) {
            use std::path::Component;
            let mut parts = path.components();
            assert!(parts.all(|p| matches!(p, Component::Normal(_))), "{path:?}");
            assert!(path.file_name().is_some() && !text.contains(['\\', '?', '#', '\0']));
        }
    });
}
