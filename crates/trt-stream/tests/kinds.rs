//! Files that are no weights: each is said to be what it is, and none blocks or fills memory.

mod support;

use std::path::Path;
use std::process::Command;
use support::write_f32;
use trt_stream::{FileError, Weights, WeightsError, open_regular, read_regular};

/// The error of opening a file that holds these bytes.
fn error(bytes: &[u8]) -> WeightsError {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    std::fs::write(&path, bytes).unwrap();
    Weights::open(dir.path()).unwrap_err()
}

#[test]
fn a_file_of_another_kind_is_said_to_be_that() {
    let lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 4976698672\n";
    let zip = [&b"PK\x03\x04\0\0\0\0"[..], &[7; 40]].concat();
    for (bytes, kind) in [
        (lfs.as_bytes(), "git-lfs pointer"),
        (&zip, "zip"),
        (b"\x80\x02}q\x00(X\x06\0\0\0weight", "pickle"),
        (b"\n<!DOCTYPE html><html>", "web page"),
        (b"<html lang=\"en\">", "web page"),
        (br#"{"error":"Repository not found"}"#, "JSON"),
        (b"Entry not found", "plain text"),
        (b"\x93NUMPY\x01\0", "NumPy"),
    ] {
        let error = error(bytes);
        assert!(matches!(error, WeightsError::Foreign { .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.contains(kind) && text.contains("model.safetensors"),
            "{text}"
        );
    }
    assert!(error(lfs.as_bytes()).to_string().contains("git lfs pull"));
    // A GGUF file is one whatever it is called.
    let gguf = error(b"GGUF\x03\0\0\0\x10\0\0\0");
    assert!(matches!(gguf, WeightsError::Truncated { .. }), "{gguf}");
    // What nothing is known of is the bad header that it has.
    let unknown = error(&[0xff; 40]);
    assert!(
        matches!(unknown, WeightsError::BadHeader { .. }),
        "{unknown}"
    );
}

fn pipe(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}

#[test]
fn pipes_devices_and_folders_in_place_of_files_are_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    pipe(&at("pipe"));
    std::fs::create_dir(at("folder")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", at("device")).unwrap();
    let kinds = [
        ("pipe", "a named pipe"),
        ("folder", "a folder"),
        ("socket", "a socket"),
        ("device", "a device"),
    ];
    for (name, kind) in kinds {
        for error in [
            open_regular(at(name)).unwrap_err(),
            read_regular(at(name), 1 << 20).unwrap_err(),
        ] {
            assert!(
                matches!(error, FileError::NotRegular { kind: k } if k == kind),
                "{error}"
            );
        }
        // As the one file, as a shard, and as the index.
        let model = tempfile::tempdir().unwrap();
        let place = |file: &str| {
            let path = model.path().join(file);
            let _ = std::fs::remove_file(&path);
            std::os::unix::fs::symlink(at(name), &path).unwrap();
            let error = Weights::open(model.path()).unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, WeightsError::File { .. }), "{file}: {text}");
            assert!(text.contains(kind) && text.contains(file), "{text}");
            std::fs::remove_file(path).unwrap();
        };
        place("model.safetensors");
        place("model.safetensors.index.json");
        let index = r#"{"weight_map":{"a":"1.safetensors"}}"#;
        std::fs::write(model.path().join("model.safetensors.index.json"), index).unwrap();
        place("1.safetensors");
    }
}

#[test]
fn a_file_is_read_whole_only_up_to_a_size() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("text");
    std::fs::write(&path, "12345").unwrap();
    assert_eq!(read_regular(&path, 5).unwrap(), b"12345");
    let error = read_regular(&path, 4).unwrap_err();
    assert!(matches!(error, FileError::TooLarge { found: 5, most: 4 }));
    // A file of the system tells no length.
    let error = read_regular("/proc/self/status", 10).unwrap_err();
    assert!(
        matches!(error, FileError::TooLarge { most: 10, .. }),
        "{error}"
    );
}

#[test]
fn what_the_system_says_is_said_once() {
    let error = Weights::open("/no/such/model").unwrap_err();
    let mut chain = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        chain += &format!(": {cause}");
        source = cause.source();
    }
    assert_eq!(chain.matches("No such file").count(), 1, "{chain}");
}

#[test]
fn a_name_under_another_prefix_is_suggested_with_the_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let name = "language_model.model.norm.weight";
    let path = write_f32(&dir.path().join("w.safetensors"), &[(name, &[8])]);
    let error = Weights::open(path)
        .unwrap()
        .find("model.norm.weight")
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.ends_with(
            "near names: language_model.model.norm.weight (with the prefix 'language_model.')"
        ),
        "{text}"
    );
}

#[test]
fn asking_for_a_name_among_very_many_takes_a_bounded_time() {
    let dir = tempfile::tempdir().unwrap();
    // 9 MB of header: what took a minute is a fraction of a second.
    let names: Vec<String> = (0..60_000).map(|i| format!("{i:0>60}.weight")).collect();
    let tensors: Vec<(&str, &[usize])> = names.iter().map(|n| (&n[..], &[1][..])).collect();
    let weights = Weights::open(write_f32(&dir.path().join("w.safetensors"), &tensors)).unwrap();
    let start = std::time::Instant::now();
    weights.find(&"9.5".repeat(22)).unwrap_err();
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
}

#[test]
fn what_a_file_says_does_not_drive_the_terminal_and_has_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    let name = format!("\\u001b[2J{}", "x".repeat(100_000));
    let tensor = r#"{"dtype":"U8","shape":[1],"data_offsets":[0,1]}"#;
    support::write_raw(&path, &format!(r#"{{"{name}":{tensor}}}"#), &[0]);
    let weights = Weights::open(&path).unwrap();
    let name = format!("\u{1b}[2J{}", "x".repeat(100_000));
    for text in [
        weights.find(&name).unwrap_err().to_string(),
        weights.find(&name[..5]).unwrap_err().to_string(),
    ] {
        assert!(!text.contains('\u{1b}') && text.len() < 1000, "{text:?}");
    }
}
