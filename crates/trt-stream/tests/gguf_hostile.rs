//! GGUF files that are not what they should be: what each fault is called, and that none does harm.

#[path = "support/gguf.rs"]
mod gguf;

use gguf::{Gguf, list, text};
use trt_stream::{Weights, WeightsError};

fn open(bytes: &[u8]) -> Result<Weights, WeightsError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    std::fs::write(&path, bytes).unwrap();
    Weights::open(&path)
}

/// The error and that its text names the file and the given parts.
#[track_caller]
fn refused(bytes: &[u8], parts: &[&str]) -> WeightsError {
    let error = open(bytes).expect_err("a broken file was opened");
    let text = error.to_string();
    for part in ["m.gguf"].iter().chain(parts) {
        assert!(text.contains(part), "'{part}' is not in: {text}");
    }
    error
}

fn two() -> Gguf {
    Gguf::new()
        .text("general.architecture", "llama")
        .u32("general.alignment", 32)
        .f32s("a", &[2, 8])
        .f32s("b", &[8])
}

#[test]
fn other_versions_and_byte_orders_are_named() {
    for version in [0, 1, 4, 77] {
        let mut file = two();
        file.version = version;
        refused(&file.bytes(), &[&format!("version {version};"), "2 and 3"]);
    }
    let mut file = two();
    file.version = 3u32.swap_bytes();
    refused(&file.bytes(), &["version 3", "big-endian"]);
}

#[test]
fn a_file_that_ends_anywhere_is_truncated() {
    let whole = two().bytes();
    for len in 4..whole.len() {
        let error = refused(&whole[..len], &["truncated", &len.to_string()]);
        assert!(matches!(error, WeightsError::Truncated { .. }), "{len}");
    }
    assert_eq!(open(&whole).unwrap().len(), 2);
    let mut file = two();
    file.data = Some(95);
    refused(&file.bytes(), &["the bytes of tensor 'b'"]);
}

#[test]
fn counts_beyond_the_file_are_refused_before_anything_is_reserved() {
    for count in [1 << 20, u64::MAX / 24, u64::MAX] {
        let mut file = two();
        file.tensor_count = Some(count);
        refused(&file.bytes(), &["the list of tensors"]);
        let mut file = two();
        file.value_count = Some(count);
        refused(&file.bytes(), &["the list of named values"]);
        for kind in [0u32, 5, 6, 7, 8, 9, 12] {
            let mut lies = kind.to_le_bytes().to_vec();
            lies.extend(count.to_le_bytes());
            let file = two().value("some.list", 9, lies);
            refused(&file.bytes(), &["the value of 'some.list'"]);
        }
        let file = two().value("some.text", 8, count.to_le_bytes().to_vec());
        refused(&file.bytes(), &["the value of 'some.text'"]);
    }
}

#[test]
fn types_of_values_and_depths_of_lists_that_are_not_known_are_refused() {
    for kind in [13u32, 255, u32::MAX] {
        let file = two().value("odd", kind, vec![0; 8]);
        refused(
            &file.bytes(),
            &["'odd'", &format!("type {kind} is not known")],
        );
        let file = two().value("odd", 9, list(kind, &[]));
        refused(
            &file.bytes(),
            &["'odd'", &format!("type {kind} is not known")],
        );
    }
    let nested = |depth: u32| (0..depth).fold(list(0, &[]), |inner, _| list(9, &[inner]));
    let file = two().value("deep", 9, nested(3));
    let weights = open(&file.bytes()).unwrap();
    let deep = weights.metadata().unwrap().list("deep").unwrap().unwrap();
    assert_eq!(deep.iter().count(), 1);
    let file = two().value("deep", 9, nested(4));
    refused(&file.bytes(), &["'deep'", "nested more than 4 deep"]);
    let file = two().value("deep", 9, nested(1_000));
    refused(&file.bytes(), &["'deep'", "nested more than 4 deep"]);
}

#[test]
fn names_that_come_twice_or_are_no_text_are_refused() {
    let file = two().u32("x", 1).u32("x", 2);
    refused(&file.bytes(), &["'x'", "twice"]);
    let mut file = two();
    file.tensors[1].name = "a".into();
    let error = refused(&file.bytes(), &["'a'"]);
    assert!(matches!(error, WeightsError::Duplicate { .. }));
    let mut bytes = two().bytes();
    let at = bytes.windows(7).position(|w| w == b"general").unwrap();
    bytes[at] = 0xff;
    refused(&bytes, &["the name of a value", "UTF-8"]);
}

#[test]
fn an_alignment_is_a_power_of_two() {
    for (alignment, why) in [(0, "0 is no power"), (3, "3 is no power"), (48, "48 is")] {
        let mut file = two();
        file.values[1].2 = u32::to_le_bytes(alignment).to_vec();
        refused(&file.bytes(), &["'general.alignment'", why]);
    }
    let mut file = two();
    file.values[1] = ("general.alignment".into(), 8, text("32"));
    refused(&file.bytes(), &["'general.alignment'", "no whole number"]);
    let mut file = two();
    file.values[1].1 = 10;
    file.values[1].2 = (1u64 << 63).to_le_bytes().to_vec();
    refused(&file.bytes(), &["truncated"]);
    for alignment in [1, 8, 64, 4096] {
        let mut file = Gguf::new().u32("general.alignment", alignment);
        file.alignment = alignment as usize;
        let file = file.f32s("a", &[3]).f32s("b", &[5]);
        let weights = open(&file.bytes()).unwrap();
        let b = weights.bytes(weights.find("b").unwrap()).unwrap();
        assert_eq!((b.len(), b[0]), (20, file.tensors[1].offset as u8));
    }
}

#[test]
fn offsets_are_in_the_file_aligned_and_apart() {
    let with = |offset: u64| {
        let mut file = two();
        file.tensors[1].offset = offset;
        file.data = Some(256);
        file.bytes()
    };
    refused(&with(65), &["'b'", "offset 65", "multiple of 32"]);
    let error = refused(&with(32), &["'a' at 0..64", "'b' at 32..64"]);
    assert!(matches!(error, WeightsError::Overlap { .. }));
    refused(&with(256), &["truncated", "tensor 'b'"]);
    refused(&with(u64::MAX - 31), &["truncated", "tensor 'b'"]);
    assert!(open(&with(224)).is_ok());
}

#[test]
fn shapes_are_whole_blocks_that_can_be_counted() {
    let with = |sizes: &[u64], kind: u32| {
        let mut file = two();
        file.tensors[1].sizes = sizes.to_vec();
        file.tensors[1].kind = kind;
        file.bytes()
    };
    refused(&with(&[1; 5], 0), &["'b'", "5 axes"]);
    refused(&with(&[8, 0], 0), &["'b'", "[0, 8]", "no value"]);
    refused(&with(&[33], 8), &["'b'", "33", "blocks of 32 (q8_0)"]);
    refused(&with(&[128, 2], 12), &["'b'", "128", "256 (q4_k)"]);
    for sizes in [
        &[1u64 << 62, 4][..],
        &[1 << 33, 1 << 33, 1 << 33, 1 << 33],
        &[u64::MAX],
        &[1 << 61],
    ] {
        refused(&with(sizes, 0), &["'b'", "more than can be addressed"]);
    }
    // A quarter of the bytes are as many as can be addressed, the values are more.
    refused(&with(&[1 << 63], 10), &["'b'", "addressed"]);
    refused(&with(&[1 << 40], 0), &["truncated", "tensor 'b'"]);
}

#[test]
fn a_gguf_file_among_others_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let paths = ["a.gguf", "b.gguf"].map(|n| two().write(&dir.path().join(n)));
    let error = Weights::open_files(&paths).unwrap_err();
    assert!(error.to_string().contains("open it alone"), "{error}");
    let shard = r#"{"weight_map": {"a": "a.gguf"}}"#;
    std::fs::write(dir.path().join("model.safetensors.index.json"), shard).unwrap();
    let error = Weights::open(dir.path()).unwrap_err();
    assert!(matches!(error, WeightsError::Foreign { .. }), "{error}");
}

/// A generator of numbers that is the same everywhere.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) as usize % n.max(1)
    }
}

#[test]
fn changed_files_are_read_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let valid = two()
        .value("words", 9, list(8, &[text("one"), text("two")]))
        .value("deep", 9, list(9, &[list(5, &[vec![1; 4]])]))
        .tensor("c", &[2, 32], 8, 68)
        .bytes();
    let mut numbers = Numbers(1);
    let (mut read, mut refused) = (0, 0);
    for _ in 0..2_000 {
        let mut bytes = valid.clone();
        for _ in 0..1 + numbers.below(3) {
            let at = numbers.below(bytes.len());
            match numbers.below(4) {
                0 => bytes[at] = numbers.below(256) as u8,
                1 => bytes[at] ^= 1 << numbers.below(8),
                2 => bytes.truncate(at.max(8)),
                _ => {
                    let word = [0, 1, 1 << 32, u64::MAX, 1 << 63][numbers.below(5)];
                    let end = (at + 8).min(bytes.len());
                    let word = word.to_le_bytes();
                    bytes[at..end].copy_from_slice(&word[..end - at]);
                }
            }
        }
        std::fs::write(&path, &bytes).unwrap();
        match Weights::open(&path) {
            Ok(weights) => {
                read += 1;
                for (id, info) in weights.iter() {
                    let bytes = info.rows() * info.encoding.row_bytes(info.columns()).unwrap();
                    assert_eq!(weights.bytes(id).unwrap().len(), bytes);
                }
                let metadata = weights.metadata().unwrap();
                for (key, _) in metadata.iter() {
                    let _ = (metadata.texts(key), metadata.integers(key));
                }
                weights.fingerprint();
            }
            Err(error) => {
                refused += 1;
                assert!(error.to_string().contains("m.gguf"), "{error}");
            }
        }
    }
    assert!(read > 100 && refused > 100, "{read} read, {refused} not");
}
