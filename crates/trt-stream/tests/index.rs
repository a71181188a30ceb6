//! An index decides: which tensors there are, where each is, and what is an error when.

mod support;

use std::path::{Path, PathBuf};
use support::write_f32;
use tempfile::TempDir;
use trt_stream::{Weights, WeightsError};

const NAME: &str = "model.safetensors.index.json";

/// A folder with shard 1 of `a`, shard 2 of `b` and `b2`, and an index with this weight map.
fn sharded(map: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_f32(&dir.path().join("1.safetensors"), &[("a", &[2])]);
    write_f32(
        &dir.path().join("2.safetensors"),
        &[("b", &[3]), ("b2", &[1])],
    );
    write_index(&dir.path().join(NAME), map);
    dir
}

fn write_index(path: &Path, map: &str) {
    let text = format!(r#"{{"metadata":{{"total_size":20}},"weight_map":{{{map}}}}}"#);
    std::fs::write(path, text).unwrap();
}

const BOTH: &str = r#""a":"1.safetensors","b":"2.safetensors""#;

fn names(weights: &Weights) -> Vec<&str> {
    weights.names().collect()
}

#[track_caller]
fn says(error: &WeightsError, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "'{part}' is not in: {text}");
    }
}

#[test]
fn the_tensors_are_those_that_the_index_names() {
    let dir = sharded(BOTH);
    write_f32(&dir.path().join("stray.safetensors"), &[("a", &[9])]);
    let weights = Weights::open(dir.path()).unwrap();
    assert_eq!(names(&weights), ["a", "b"]);
    assert_eq!(weights.files().len(), 2);
    // The shard has more, which is not there, and the error says why.
    assert!(!weights.contains("b2"));
    let error = weights.find("b2").unwrap_err();
    assert!(matches!(error, WeightsError::NotInIndex { .. }));
    says(&error, &["'b2'", "2.safetensors", NAME]);
}

#[test]
fn a_single_file_beside_an_index_does_not_count() {
    let dir = sharded(BOTH);
    write_f32(&dir.path().join("model.safetensors"), &[("a", &[77])]);
    let weights = Weights::open(dir.path()).unwrap();
    assert_eq!(names(&weights), ["a", "b"]);
    let a = weights.get(weights.find("a").unwrap()).unwrap();
    assert_eq!(a.shape, [2]);
}

#[test]
fn an_index_of_which_no_shard_exists_gives_way_to_a_single_file() {
    let dir = sharded(r#""a":"gone.safetensors""#);
    let error = Weights::open(dir.path()).unwrap_err();
    assert!(matches!(error, WeightsError::MissingShard { .. }));
    says(&error, &[NAME, "'a'", "'gone.safetensors'"]);
    write_f32(&dir.path().join("model.safetensors"), &[("a", &[77])]);
    assert_eq!(names(&Weights::open(dir.path()).unwrap()), ["a"]);
}

#[test]
fn a_tensor_in_two_shards_is_the_one_that_the_index_names() {
    let dir = sharded(r#""a":"1.safetensors","b":"3.safetensors""#);
    let both: [(&str, &[usize]); 2] = [("a", &[5]), ("b", &[6])];
    write_f32(&dir.path().join("3.safetensors"), &both);
    let weights = Weights::open(dir.path()).unwrap();
    let shape = |name| &weights.get(weights.find(name).unwrap()).unwrap().shape;
    assert_eq!((&shape("a")[..], &shape("b")[..]), (&[2][..], &[6][..]));
}

#[test]
fn a_tensor_in_a_shard_that_is_not_there_is_an_error_only_when_asked_for() {
    let dir = sharded(&format!(r#"{BOTH},"mtp.fc.weight":"sub/3.safetensors""#));
    let weights = Weights::open(dir.path()).unwrap();
    assert_eq!(names(&weights), ["a", "b"]);
    assert_eq!(weights.lookup("mtp.fc.weight"), None);
    assert!(weights.contains("mtp.fc.weight"));
    let error = weights.find("mtp.fc.weight").unwrap_err();
    assert!(matches!(error, WeightsError::MissingShard { .. }));
    says(&error, &[NAME, "'mtp.fc.weight'", "'sub/3.safetensors'"]);
}

#[test]
fn a_tensor_that_its_shard_does_not_hold_is_an_error_only_when_asked_for() {
    // `c` is nowhere, and `b` is in another shard than the index says.
    let dir = sharded(
        r#""a":"1.safetensors","b":"1.safetensors","b2":"2.safetensors","c":"2.safetensors""#,
    );
    let weights = Weights::open(dir.path()).unwrap();
    assert_eq!(names(&weights), ["a", "b2"]);
    for (name, shard) in [("b", "1.safetensors"), ("c", "2.safetensors")] {
        let error = weights.find(name).unwrap_err();
        assert!(matches!(error, WeightsError::NotInShard { .. }));
        says(&error, &[NAME, &format!("'{name}'"), shard]);
    }
}

#[test]
fn a_name_may_be_spelled_in_any_way_that_means_a_file_below_the_folder() {
    let dir = sharded(
        r#""a":"./1.safetensors","b":"././/2.safetensors","b2":"2.safetensors","d":"sub//./3.safetensors""#,
    );
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    write_f32(&dir.path().join("sub/3.safetensors"), &[("d", &[1])]);
    let weights = Weights::open(dir.path()).unwrap();
    assert_eq!(names(&weights), ["a", "b", "b2", "d"]);
    // Two spellings are one file.
    assert_eq!(weights.files().len(), 3);
}

#[test]
fn an_index_with_a_byte_order_mark_and_of_another_name_is_read() {
    let dir = tempfile::tempdir().unwrap();
    write_f32(&dir.path().join("1.safetensors"), &[("a", &[2])]);
    write_f32(&dir.path().join("other.safetensors"), &[("a", &[3])]);
    let path = dir.path().join("diffusion.safetensors.index.json");
    let text = "\u{feff}{\"weight_map\":{\"a\":\"1.safetensors\"}}";
    std::fs::write(&path, text).unwrap();
    for from in [dir.path(), &path] {
        let weights = Weights::open(from).unwrap();
        assert_eq!((names(&weights), weights.files().len()), (vec!["a"], 1));
    }
}

#[test]
fn a_shard_name_that_leads_elsewhere_is_refused_before_anything_is_opened() {
    let outside = tempfile::tempdir().unwrap();
    let secret = write_f32(&outside.path().join("secret.safetensors"), &[("s", &[1])]);
    let absolute = secret.to_str().unwrap();
    for name in [
        "../x",
        "..",
        "",
        ".",
        "/x",
        absolute,
        "a/../../x",
        "C:x",
        "x/",
        "NUL",
        "com1.safetensors",
        "a?b",
        "a#b",
        "x.",
        "a\\u0000b",
        "..\\\\x",
        "\\\\\\\\host\\\\x",
    ] {
        // A shard that cannot be opened would be another error if it were looked at first.
        let dir = sharded(&format!(r#""a":"1.safetensors","z":"{name}""#));
        std::fs::write(dir.path().join("1.safetensors"), "no weights at all").unwrap();
        let error = Weights::open(dir.path()).unwrap_err();
        assert!(
            matches!(error, WeightsError::BadIndex { .. }),
            "{name}: {error}"
        );
        says(&error, &[NAME, "\"z\"", "no plain file name"]);
    }
}

#[test]
fn a_broken_index_is_refused() {
    for index in [
        "",
        "{",
        "[]",
        "{}",
        r#"{"weight_map":{}}"#,
        r#"{"weight_map":{"a":1}}"#,
    ] {
        let dir = sharded(BOTH);
        std::fs::write(dir.path().join(NAME), index).unwrap();
        let error = Weights::open(dir.path()).unwrap_err();
        assert!(matches!(error, WeightsError::BadIndex { .. }), "{index}");
        says(&error, &[NAME]);
    }
    let dir = sharded(BOTH);
    let pointer = "version https://git-lfs.github.com/spec/v1\n";
    std::fs::write(dir.path().join(NAME), pointer).unwrap();
    says(&Weights::open(dir.path()).unwrap_err(), &[NAME, "git-lfs"]);
    // A link that leads nowhere is no absent index.
    let dir = sharded(BOTH);
    let path: PathBuf = dir.path().join(NAME);
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("nowhere", &path).unwrap();
    let error = Weights::open(dir.path()).unwrap_err();
    assert!(matches!(error, WeightsError::Io { .. }), "{error}");
}

#[test]
fn an_index_larger_than_any_real_one_is_not_read() {
    let dir = sharded(BOTH);
    let file = std::fs::File::create(dir.path().join(NAME)).unwrap();
    file.set_len(1 << 40).unwrap();
    let error = Weights::open(dir.path()).unwrap_err();
    says(&error, &[NAME, "1099511627776", "100000000"]);
}
