//! Opening weights: what works, and what each kind of broken file says.

mod support;

use support::{write_f32, write_raw};
use tempfile::TempDir;
use trt_kernel::{BlockType, DType, Encoding};
use trt_stream::{TensorId, Weights, WeightsError};

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn raw(dir: &TempDir, header: &str, data: usize) -> Result<Weights, WeightsError> {
    let path = write_raw(&dir.path().join("w.safetensors"), header, &vec![0; data]);
    Weights::open(path)
}

/// The error and that its text names the file and the given parts.
#[track_caller]
fn refused(result: Result<Weights, WeightsError>, parts: &[&str]) -> WeightsError {
    let error = result.expect_err("a broken file was opened");
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "'{part}' is not in: {text}");
    }
    error
}

fn tensor(dtype: &str, shape: &str, begin: u64, end: u64) -> String {
    format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}"#)
}

#[test]
fn a_file_is_indexed_in_file_order() {
    let dir = dir();
    let path = write_f32(
        &dir.path().join("w.safetensors"),
        &[("b", &[2, 3]), ("a", &[4])],
    );
    let weights = Weights::open(path).unwrap();
    assert_eq!(weights.names().collect::<Vec<_>>(), ["b", "a"]);
    assert_eq!(weights.total_bytes(), 40);
    let id = weights.require("a", &[4], Some(DType::F32.into())).unwrap();
    assert_eq!(weights.get(id).unwrap().rows(), 4);
    assert_eq!(
        weights.bytes(id).unwrap()[..4],
        (6f32 * 0.37 + 1.0).to_le_bytes()
    );
}

#[test]
fn metadata_and_unordered_headers_are_fine() {
    let dir = dir();
    let header = format!(
        r#"{{"__metadata__":{{"format":"pt"}},"y":{},"x":{}}}"#,
        tensor("BF16", "[2]", 8, 12),
        tensor("F16", "[2,2]", 0, 8)
    );
    let weights = raw(&dir, &header, 12).unwrap();
    assert_eq!(weights.names().collect::<Vec<_>>(), ["x", "y"]);
    let y = weights.lookup("y").unwrap();
    assert_eq!(weights.get(y).unwrap().encoding, DType::BF16.into());
}

#[test]
fn scalars_and_empty_tensors_are_fine() {
    let dir = dir();
    let header = format!(
        r#"{{"s":{},"e":{}}}"#,
        tensor("F32", "[]", 0, 4),
        tensor("F32", "[0,7]", 4, 4)
    );
    let weights = raw(&dir, &header, 4).unwrap();
    assert_eq!(
        weights.bytes(weights.lookup("s").unwrap()).unwrap().len(),
        4
    );
    assert_eq!(
        weights.bytes(weights.lookup("e").unwrap()).unwrap().len(),
        0
    );
}

#[test]
fn a_missing_path_is_named() {
    let error = refused(Weights::open("/no/such/model"), &["/no/such/model"]);
    assert!(matches!(error, WeightsError::Io { .. }));
}

#[test]
fn an_empty_directory_is_named() {
    let dir = dir();
    let error = refused(Weights::open(dir.path()), &["holds no safetensors"]);
    assert!(matches!(error, WeightsError::Empty { .. }));
    std::fs::write(dir.path().join("pytorch_model.bin"), "").unwrap();
    refused(Weights::open(dir.path()), &["pytorch_model.bin", "convert"]);
}

#[test]
fn a_file_too_short_for_a_length_is_truncated() {
    let dir = dir();
    let path = dir.path().join("w.safetensors");
    for bytes in [&b""[..], b"abc"] {
        std::fs::write(&path, bytes).unwrap();
        let error = refused(Weights::open(&path), &["w.safetensors", "truncated"]);
        assert!(matches!(error, WeightsError::Truncated { needed: 8, .. }));
    }
}

#[test]
fn a_header_longer_than_the_file_is_truncated() {
    let dir = dir();
    let path = dir.path().join("w.safetensors");
    let mut bytes = 1000u64.to_le_bytes().to_vec();
    bytes.extend_from_slice(b"{}");
    std::fs::write(&path, bytes).unwrap();
    refused(
        Weights::open(&path),
        &["truncated", "the header", "1008", "10"],
    );
}

#[test]
fn an_absurd_header_length_is_refused() {
    let dir = dir();
    let path = dir.path().join("w.safetensors");
    std::fs::write(&path, u64::MAX.to_le_bytes()).unwrap();
    let error = refused(
        Weights::open(&path),
        &["bad header", "18446744073709551615"],
    );
    assert!(matches!(error, WeightsError::BadHeader { .. }));
}

#[test]
fn a_header_that_is_no_json_is_refused() {
    let dir = dir();
    for header in ["{", "[1, 2]", "\"x\"", r#"{"a":{"dtype":"F32"}}"#, "\u{1}"] {
        let error = refused(raw(&dir, header, 0), &["w.safetensors", "bad header"]);
        assert!(matches!(error, WeightsError::BadHeader { .. }), "{header}");
    }
}

#[test]
fn a_tensor_beyond_the_end_is_truncated() {
    let dir = dir();
    let header = format!(r#"{{"layer.w":{}}}"#, tensor("F32", "[4]", 0, 16));
    refused(
        raw(&dir, &header, 15),
        &["w.safetensors", "truncated", "tensor 'layer.w'"],
    );
}

#[test]
fn offsets_that_make_no_range_are_refused() {
    let dir = dir();
    let header = format!(r#"{{"w":{}}}"#, tensor("F32", "[4]", 16, 0));
    refused(raw(&dir, &header, 16), &["tensor 'w'", "16..0"]);
    let header = format!(r#"{{"w":{}}}"#, tensor("F32", "[4]", 0, u64::MAX));
    let error = refused(raw(&dir, &header, 16), &["tensor 'w'", "overflow"]);
    assert!(matches!(error, WeightsError::BadOffsets { .. }));
}

#[test]
fn overlapping_tensors_are_named() {
    let dir = dir();
    let header = format!(
        r#"{{"p":{},"q":{}}}"#,
        tensor("F32", "[4]", 0, 16),
        tensor("F32", "[2]", 12, 20)
    );
    let error = refused(raw(&dir, &header, 20), &["'p' at 0..16", "'q' at 12..20"]);
    assert!(matches!(error, WeightsError::Overlap { .. }));
}

#[test]
fn a_length_that_is_not_shape_times_dtype_is_refused() {
    let dir = dir();
    for (dtype, shape, expected) in [
        ("F32", "[3]", "12"),
        ("BF16", "[3]", "6"),
        ("F32", "[4294967296,4294967296,4294967296]", ""),
        // No bytes, but more elements than can be counted on the way to none.
        ("F32", "[4294967296,4294967296,0]", "18446744073709551615"),
    ] {
        let header = format!(r#"{{"w":{}}}"#, tensor(dtype, shape, 0, 16));
        let error = refused(
            raw(&dir, &header, 16),
            &["tensor 'w'", "16 bytes", expected],
        );
        assert!(matches!(error, WeightsError::WrongLength { .. }));
    }
}

#[test]
fn a_name_twice_in_one_header_is_refused() {
    let dir = dir();
    let t = tensor("F32", "[1]", 0, 4);
    let u = tensor("F32", "[1]", 4, 8);
    let error = refused(raw(&dir, &format!(r#"{{"w":{t},"w":{u}}}"#), 8), &["'w'"]);
    assert!(matches!(error, WeightsError::Duplicate { .. }));
}

#[test]
fn an_unsupported_dtype_is_an_error_only_when_asked_for() {
    let dir = dir();
    let header = format!(
        r#"{{"ids":{},"odd":{},"w":{}}}"#,
        tensor("I64", "[1]", 0, 8),
        tensor("Q9", "[3]", 8, 12),
        tensor("F32", "[1]", 12, 16)
    );
    let weights = raw(&dir, &header, 16).unwrap();
    assert_eq!(weights.names().collect::<Vec<_>>(), ["w"]);
    assert_eq!(weights.lookup("ids"), None);
    assert!(weights.contains("ids") && !weights.contains("nothing"));
    for (name, dtype) in [("ids", "I64"), ("odd", "Q9")] {
        let error = weights.find(name).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(dtype), "{error}");
    }
}

#[test]
fn what_a_model_requires_is_checked() {
    let dir = dir();
    let path = write_f32(&dir.path().join("w.safetensors"), &[("norm.weight", &[8])]);
    let weights = Weights::open(path).unwrap();
    let missing = weights.require("norm.wieght", &[8], None).unwrap_err();
    assert!(
        missing.to_string().contains("near names: norm.weight"),
        "{missing}"
    );
    let shape = weights.require("norm.weight", &[9], None).unwrap_err();
    assert!(
        shape.to_string().contains("shape [8], the model needs [9]"),
        "{shape}"
    );
    let dtype = weights.require("norm.weight", &[8], Some(DType::F16.into()));
    let dtype = dtype.unwrap_err().to_string();
    assert!(dtype.contains("is f32, the model needs f16"), "{dtype}");
    let blocks = Encoding::Blocks(BlockType::Q8_0);
    let blocks = weights.require("norm.weight", &[8], Some(blocks));
    let blocks = blocks.unwrap_err().to_string();
    assert!(blocks.contains("is f32, the model needs q8_0"), "{blocks}");
}

#[test]
fn without_an_index_every_file_counts() {
    let dir = dir();
    write_f32(&dir.path().join("x.safetensors"), &[("a", &[2])]);
    write_f32(&dir.path().join("y.safetensors"), &[("b", &[3])]);
    std::fs::write(dir.path().join("._y.safetensors"), "what a system left").unwrap();
    assert_eq!(Weights::open(dir.path()).unwrap().len(), 2);
}

#[test]
fn a_tensor_in_two_shards_is_refused() {
    let dir = dir();
    write_f32(&dir.path().join("x.safetensors"), &[("a", &[2])]);
    write_f32(&dir.path().join("y.safetensors"), &[("a", &[2])]);
    let error = refused(
        Weights::open(dir.path()),
        &["'a'", "x.safetensors", "y.safetensors"],
    );
    assert!(matches!(error, WeightsError::Duplicate { .. }));
}

#[test]
fn the_fingerprint_depends_on_what_is_where_and_not_on_the_path() {
    let (one, two) = (dir(), dir());
    let open = |d: &TempDir, tensors: &[(&str, &[usize])]| {
        Weights::open(write_f32(&d.path().join("w.safetensors"), tensors))
            .unwrap()
            .fingerprint()
    };
    let same = open(&one, &[("a", &[2, 3]), ("b", &[1])]);
    assert_eq!(same, open(&two, &[("a", &[2, 3]), ("b", &[1])]));
    assert_ne!(same, open(&two, &[("a", &[3, 2]), ("b", &[1])]));
    assert_ne!(same, open(&two, &[("a", &[2, 3]), ("c", &[1])]));
}

#[test]
fn an_id_of_other_weights_gives_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = write_f32(&dir.path().join("w.safetensors"), &[("a", &[4, 2])]);
    let weights = Weights::open(path).unwrap();
    let (known, foreign) = (weights.find("a").unwrap(), TensorId(1));
    assert_eq!(weights.get(known).map(|w| w.rows()), Some(4));
    assert_eq!(weights.bytes(known).map(<[u8]>::len), Some(32));
    assert!(weights.get(foreign).is_none() && weights.bytes(foreign).is_none());
}
