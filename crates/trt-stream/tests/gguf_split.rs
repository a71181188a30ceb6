//! GGUF models in several files.

#[path = "support/gguf.rs"]
mod gguf;

use gguf::Gguf;
use std::path::PathBuf;
use tempfile::TempDir;
use trt_stream::{Weights, WeightsError};

/// Part `number`, from 0, of three; each has one tensor of its own number.
fn part(number: u16) -> Gguf {
    let file = match number {
        0 => Gguf::new().text("general.architecture", "qwen2"),
        _ => Gguf::new(),
    };
    file.u16("split.no", number)
        .u16("split.count", 3)
        .i32("split.tensors.count", 3)
        .f32s(&format!("blk.{number}.attn_q.weight"), &[2, 8])
}

fn path(dir: &TempDir, number: u16) -> PathBuf {
    let name = format!("model-{:05}-of-00003.gguf", number + 1);
    dir.path().join(name)
}

fn model() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..3 {
        part(number).write(&path(&dir, number));
    }
    dir
}

#[track_caller]
fn refused(dir: &TempDir, parts: &[&str]) -> WeightsError {
    let error = Weights::open(path(dir, 0)).unwrap_err();
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "'{part}' is not in: {text}");
    }
    error
}

#[test]
fn any_part_opens_all_of_them() {
    let dir = model();
    let whole = Weights::open(dir.path()).unwrap();
    for number in 0..3 {
        let weights = Weights::open(path(&dir, number)).unwrap();
        assert_eq!((weights.len(), weights.files().len()), (3, 3));
        assert_eq!(weights.fingerprint(), whole.fingerprint());
        let metadata = weights.metadata().unwrap();
        let architecture = metadata.text("general.architecture").unwrap();
        assert_eq!(architecture.as_deref(), Some("qwen2"), "that of the first");
        let name = format!("model.layers.{number}.self_attn.q_proj.weight");
        let info = weights.get(weights.find(&name).unwrap()).unwrap();
        assert_eq!(info.file.0, u32::from(number));
    }
}

#[test]
fn a_missing_part_is_named() {
    let dir = model();
    std::fs::remove_file(path(&dir, 1)).unwrap();
    let error = refused(&dir, &["one of 3", "model-00002-of-00003.gguf"]);
    assert!(matches!(error, WeightsError::MissingPart { .. }));
    std::fs::remove_file(path(&dir, 0)).unwrap();
    let error = Weights::open(dir.path()).unwrap_err().to_string();
    assert!(
        error.contains("no ") && error.contains("model-00001-of-00003.gguf"),
        "{error}"
    );
}

#[test]
fn parts_that_contradict_each_other_are_refused() {
    let dir = model();
    part(2).write(&path(&dir, 1));
    refused(
        &dir,
        &["00002-of-00003", "split.no", "part 3 of 3", "part 2 of 3"],
    );

    let dir = model();
    let mut other = part(1);
    other.values[1].2 = 4u16.to_le_bytes().to_vec();
    other.write(&path(&dir, 1));
    refused(&dir, &["00002-of-00003", "split.count", "part 2 of 4"]);

    let dir = model();
    Gguf::new().f32s("x", &[2]).write(&path(&dir, 2));
    refused(&dir, &["00003-of-00003", "split.count", "no such value"]);

    let dir = model();
    part(1).f32s("extra", &[2]).write(&path(&dir, 1));
    refused(&dir, &["split.tensors.count", "it is 3", "4 tensors"]);

    let dir = model();
    let mut twice = part(1);
    twice.tensors[0].name = "blk.0.attn_q.weight".into();
    twice.write(&path(&dir, 1));
    let error = refused(&dir, &["00001-of-00003", "00002-of-00003"]);
    assert!(matches!(error, WeightsError::Duplicate { .. }));
}

#[test]
fn a_part_has_the_name_of_one() {
    let dir = model();
    let renamed = dir.path().join("renamed.gguf");
    std::fs::rename(path(&dir, 0), &renamed).unwrap();
    let error = Weights::open(&renamed).unwrap_err().to_string();
    assert!(error.contains("'-00001-of-00003.gguf'"), "{error}");
    for (count, number) in [(3u32, 3u32), (3, 70_000), (4_000_000, 5)] {
        let file = Gguf::new()
            .u32("split.count", count)
            .u32("split.no", number);
        let error = Weights::open(file.write(&renamed)).unwrap_err().to_string();
        assert!(error.contains("split."), "{error}");
    }
    let alone = Gguf::new().u32("split.count", 1).f32s("a", &[2]);
    assert_eq!(Weights::open(alone.write(&renamed)).unwrap().len(), 1);
}
