//! Headers of safetensors files: what they promise lies in the file, or opening is an error.

use crate::files::{folder, put, safetensors};
use candle_trt::Weights;
use candle_trt_fuzz::Target;
use std::path::Path;

const WORDS: [&str; 12] = [
    "\"dtype\":\"F32\"",
    "\"BF16\"",
    "\"F4\"",
    "\"F8_E4M3\"",
    "\"I64\"",
    "\"shape\":[0]",
    "[4294967296,4294967296]",
    "\"data_offsets\":[0,8]",
    "\"data_offsets\":[18446744073709551615,0]",
    "\"__metadata__\":{}",
    "version https://git-lfs",
    "\"\":",
];

fn headers() -> Vec<Vec<u8>> {
    [
        "{}",
        r#"{"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}"#,
        r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[4],"data_offsets":[0,8]},"model.b":{"dtype":"F16","shape":[2,2],"data_offsets":[8,16]},"ids":{"dtype":"I64","shape":[1],"data_offsets":[16,24]}}"#,
        r#"{"s":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"none":{"dtype":"F32","shape":[0,7],"data_offsets":[4,4]},"f8":{"dtype":"F8_E5M2","shape":[3],"data_offsets":[4,7]}}   "#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// Opens a file, and looks at all that it is said to hold.
fn look(path: &Path) {
    match Weights::open(path) {
        Ok(weights) => {
            for (id, info) in weights.iter() {
                let bytes = weights.bytes(id).expect("an id of these weights");
                let elements: usize = info.shape.iter().product();
                assert_eq!(bytes.len(), elements * info.encoding.bytes(), "{info:?}");
                assert_eq!(weights.find(&info.name).expect("its name"), id);
            }
            std::hint::black_box(weights.fingerprint());
            for name in ["w", "b", "model.model.b", "ids"] {
                std::hint::black_box(weights.find(name).map_err(|e| e.to_string()).ok());
            }
        }
        Err(error) => drop(error.to_string()),
    }
}

fn target<'a>(name: &'a str, corpus: &'a [Vec<u8>]) -> Target<'a> {
    Target {
        words: &WORDS,
        // A few kilobytes at most go in.
        bytes: 4 << 20,
        ..Target::new(name, corpus)
    }
}

#[test]
fn a_header_of_any_text_is_read_or_refused() {
    let (dir, corpus) = (folder(), headers());
    let path = dir.path().join("model.safetensors");
    target("header", &corpus).run(|bytes| look(&put(&path, &safetensors(bytes, 24))));
}

#[test]
fn a_weight_file_of_any_bytes_is_opened_or_refused() {
    let dir = folder();
    let whole: Vec<Vec<u8>> = headers().iter().map(|h| safetensors(h, 24)).collect();
    let path = dir.path().join("model.safetensors");
    target("header-bytes", &whole).run(|bytes| look(&put(&path, bytes)));
}
