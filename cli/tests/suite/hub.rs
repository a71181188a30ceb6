//! Models from a hub that is honest, slow, broken or hostile.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::hubs::{COMMIT, Fault, Hub};
use crate::models::{self, Files};
use crate::program::{Ended, candle_trt, run, start};

const REPO: &str = "owner/name";

/// A run of a model from a hub.
pub fn command(home: &Path, endpoint: &str, more: &[&str]) -> Command {
    let line = [
        "run",
        "--model",
        REPO,
        "--raw",
        "--prompt",
        "a b c",
        "--max-tokens",
        "8",
        "--device",
        "host",
        "--json",
    ];
    let mut command = candle_trt(home, &[&line, more].concat());
    command.env("HF_ENDPOINT", endpoint);
    command
}

/// What became of it.
pub fn answered(home: &Path, endpoint: &str) -> Ended {
    run(command(home, endpoint, &[]))
}

/// Where the hub's files are kept.
pub fn kept(home: &Path) -> PathBuf {
    home.join(".cache/huggingface/hub/models--owner--name")
}

/// Files that are below a folder, links counted and not followed.
fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type().expect("a type").is_dir() {
            true => found.extend(below(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}

#[test]
fn what_is_in_the_cache_is_used_without_asking() {
    for files in [models::model(), models::sharded()] {
        let home = tempfile::tempdir().unwrap();
        let hub = Hub::honest(files);
        let first = answered(home.path(), &hub.endpoint).json();
        let asked = hub.log().len();
        assert!(asked > 0);
        let again = answered(home.path(), &hub.endpoint).json();
        assert_eq!(hub.log().len(), asked, "{:?}", &hub.log()[asked..]);
        assert_eq!(first["generated_tokens"], again["generated_tokens"]);
        // Nor is a hub needed that nobody may ask.
        for offline in ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"] {
            let mut command = command(home.path(), "http://127.0.0.1:1", &[]);
            command.env(offline, "1");
            assert_eq!(run(command).json()["text"], first["text"]);
        }
    }
}

#[test]
fn the_cache_is_laid_out_as_others_lay_it_out() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::honest(models::sharded());
    answered(home.path(), &hub.endpoint).json();
    let kept = kept(home.path());
    assert_eq!(
        std::fs::read_to_string(kept.join("refs/main")).unwrap(),
        COMMIT
    );
    let link = kept
        .join("snapshots")
        .join(COMMIT)
        .join("sub/two.safetensors");
    let target = std::fs::read_link(&link).unwrap();
    assert_eq!(target, Path::new("../../../blobs/sub_two_safetensors"));
    assert!(
        kept.join(".no_exist")
            .join(COMMIT)
            .join("chat_template.jinja")
            .is_file()
    );
}

#[test]
fn offline_asks_nobody_and_says_what_is_missing() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::honest(models::model());
    let mut command = command(home.path(), &hub.endpoint, &[]);
    command.env("HF_HUB_OFFLINE", "1");
    let ended = run(command);
    let error = ended.error();
    assert!(
        error.contains("config.json of owner/name") && error.contains("HF_HUB_OFFLINE"),
        "{error}"
    );
    assert!(hub.log().is_empty());
}

#[test]
fn a_name_that_leads_out_of_the_repository_is_refused_before_it_is_asked_for() {
    for name in [
        "../../../../escape",
        "/escape",
        "a\\escape",
        "escape?x",
        "escape#x",
        "",
        "%2e%2e/escape",
        "NUL",
    ] {
        let home = tempfile::tempdir().unwrap();
        let mut files = models::model();
        let index = serde_json::json!({"weight_map": {"model.norm.weight": name}});
        files.insert(
            "model.safetensors.index.json".into(),
            index.to_string().into_bytes(),
        );
        let hub = Hub::honest(files);
        let ended = answered(home.path(), &hub.endpoint);
        let error = ended.error();
        assert!(error.contains("is no plain file name"), "{name}: {error}");
        let log = hub.log();
        assert!(
            !log.iter().any(|a| a.path.contains("escape")),
            "{name}: {log:?}"
        );
        let outside = below(home.path())
            .into_iter()
            .filter(|p| !p.starts_with(home.path().join(".cache")));
        assert_eq!(outside.collect::<Vec<_>>(), [] as [PathBuf; 0]);
    }
}

#[test]
fn a_commit_or_an_etag_that_is_no_plain_name_is_refused() {
    for (header, value) in [
        ("x-repo-commit", "../../../../../escape"),
        ("x-repo-commit", "main"),
        ("etag", "\"../../../escape\""),
        ("etag", "\"/tmp/escape\""),
        ("x-linked-etag", "\"a/b\""),
        ("x-linked-size", "-1"),
    ] {
        let home = tempfile::tempdir().unwrap();
        let hub = Hub::new(models::model(), move |_| {
            Some(Fault::Header(header, value.into()))
        });
        let ended = answered(home.path(), &hub.endpoint);
        assert!(
            ended.error().contains("no hub's answer"),
            "{header}: {}",
            ended.err
        );
        assert!(!below(home.path()).iter().any(|p| p.ends_with("escape")));
    }
}

#[test]
fn an_empty_file_in_the_cache_is_fetched_again() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::honest(models::model());
    answered(home.path(), &hub.endpoint).json();
    std::fs::write(kept(home.path()).join("blobs/config_json"), "").unwrap();
    answered(home.path(), &hub.endpoint).json();
}

#[test]
fn the_token_goes_to_the_hub_and_not_to_where_it_refers() {
    let home = tempfile::tempdir().unwrap();
    let other = Hub::honest(models::model());
    let elsewhere = other.endpoint.replace("127.0.0.1", "localhost");
    let hub = Hub::new(models::model(), move |asked| {
        asked
            .path
            .ends_with("/model.safetensors")
            .then(|| Fault::Elsewhere(elsewhere.clone()))
    });
    let mut command = command(home.path(), &hub.endpoint, &[]);
    command.env("HF_TOKEN", "hf_secret");
    run(command).json();
    assert!(
        hub.log()
            .iter()
            .all(|a| a.header("authorization") == Some("bearer hf_secret"))
    );
    let referred = other.log();
    assert!(!referred.is_empty());
    assert!(
        referred.iter().all(|a| a.header("authorization").is_none()),
        "{referred:?}"
    );
}

#[test]
fn a_revision_is_asked_for_by_its_name_and_then_by_its_commit() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::honest(models::model());
    run(command(
        home.path(),
        &hub.endpoint,
        &["--revision", "refs/pr/1"],
    ))
    .json();
    let log = hub.log();
    assert_eq!(log[0].path, "/owner/name/resolve/refs%2Fpr%2F1/config.json");
    assert!(log[1..].iter().all(|a| {
        a.path
            .starts_with(&format!("/owner/name/resolve/{COMMIT}/"))
    }));
    assert!(kept(home.path()).join("refs/refs/pr/1").is_file());
    for bad in ["../x", "/x", "a?b", ""] {
        let ended = run(command(home.path(), &hub.endpoint, &["--revision", bad]));
        assert!(
            ended.error().contains("no revision can be named"),
            "{}",
            ended.err
        );
    }
}

#[test]
fn a_repository_that_may_not_be_read_or_lacks_a_file_is_told_so() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(models::model(), |_| Some(Fault::Status("401 Unauthorized")));
    let ended = answered(home.path(), &hub.endpoint);
    assert!(
        ended.error().contains("answers 401") && ended.error().contains("HF_TOKEN"),
        "{}",
        ended.err
    );
    let mut files: Files = models::model();
    files.remove("model.safetensors");
    let hub = Hub::honest(files);
    let ended = answered(home.path(), &hub.endpoint);
    assert!(
        ended
            .error()
            .contains("owner/name has no model.safetensors"),
        "{}",
        ended.err
    );
}

#[test]
fn two_processes_at_once_fetch_each_file_once() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(models::model(), |asked| {
        if asked.method == "GET" {
            std::thread::sleep(Duration::from_millis(100));
        }
        None
    });
    let both = [0; 2].map(|_| start(command(home.path(), &hub.endpoint, &[])));
    let [a, b] = both.map(|wait| wait().json());
    assert_eq!(a["generated_tokens"], b["generated_tokens"]);
    let fetched = hub
        .log()
        .iter()
        .filter(|a| a.gets("model.safetensors"))
        .count();
    assert_eq!(fetched, 1);
}
