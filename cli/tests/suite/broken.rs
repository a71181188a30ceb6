//! A hub that is silent, breaks off, or gives other bytes than it should.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::hub::{answered, command, kept};
use crate::hubs::{Asked, Fault, Faults, Hub};
use crate::models;
use crate::program::run;

#[test]
fn a_silent_hub_is_waited_for_as_long_as_the_user_says() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(models::model(), |_| Some(Fault::Silent));
    let mut command = command(home.path(), &hub.endpoint, &[]);
    command.env("HF_HUB_ETAG_TIMEOUT", "0.5");
    let ended = run(command);
    let error = ended.error();
    assert!(
        error.contains("nothing came within 0.5 s (HF_HUB_ETAG_TIMEOUT"),
        "{error}"
    );
    assert!(ended.took < Duration::from_secs(30), "{:?}", ended.took);
}

#[test]
fn silence_about_a_file_that_need_not_be_there_is_told_and_not_waited_for_twice() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(models::model(), |asked| {
        let needed = [
            "config.json",
            "tokenizer.json",
            "model.safetensors",
            "model.safetensors.index.json",
        ];
        let needed = needed
            .iter()
            .any(|name| asked.path.ends_with(&format!("/{name}")));
        (!needed).then_some(Fault::Silent)
    });
    let mut command = command(home.path(), &hub.endpoint, &[]);
    command.env("HF_HUB_ETAG_TIMEOUT", "0.5");
    let ended = run(command);
    ended.json();
    assert_eq!(
        ended.err.matches("going on without").count(),
        1,
        "{}",
        ended.err
    );
}

#[test]
fn bytes_that_stop_coming_are_an_error_that_says_how_long_was_waited() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(models::model(), |asked| {
        asked.gets("config.json").then_some(Fault::Silent)
    });
    let mut command = command(home.path(), &hub.endpoint, &[]);
    command
        .env("HF_HUB_ETAG_TIMEOUT", "0.2")
        .env("HF_HUB_DOWNLOAD_TIMEOUT", "0.2");
    let ended = run(command);
    assert!(
        ended.error().contains("nothing came within 0.2 s"),
        "{}",
        ended.err
    );
}

#[test]
fn a_broken_download_goes_on_where_it_broke() {
    let home = tempfile::tempdir().unwrap();
    let times = AtomicUsize::new(0);
    let hub = Hub::new(models::model(), move |asked| {
        let first = asked.gets("model.safetensors") && times.fetch_add(1, Ordering::Relaxed) == 0;
        first.then_some(Fault::Cut(1000))
    });
    answered(home.path(), &hub.endpoint).json();
    let asked: Vec<_> = hub
        .log()
        .into_iter()
        .filter(|a| a.gets("model.safetensors"))
        .collect();
    let ranges: Vec<_> = asked.iter().map(|a| a.header("range")).collect();
    assert_eq!(ranges, [None, Some("bytes=1000-")]);
    let weights = kept(home.path()).join("blobs/model_safetensors");
    assert_eq!(
        std::fs::read(weights).unwrap(),
        models::model()["model.safetensors"]
    );
}

#[test]
fn what_a_killed_process_had_of_a_file_is_not_asked_for_again() {
    let home = tempfile::tempdir().unwrap();
    let whole = models::model()["model.safetensors"].clone();
    let blobs = kept(home.path()).join("blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join("model_safetensors.incomplete"), &whole[..5000]).unwrap();
    let hub = Hub::honest(models::model());
    answered(home.path(), &hub.endpoint).json();
    let log = hub.log();
    let asked = log.iter().find(|a| a.gets("model.safetensors")).unwrap();
    assert_eq!(asked.header("range"), Some("bytes=5000-"));
    assert_eq!(
        std::fs::read(blobs.join("model_safetensors")).unwrap(),
        whole
    );
    assert!(!blobs.join("model_safetensors.incomplete").exists());
}

#[test]
fn a_hub_that_gives_no_parts_is_asked_for_the_whole() {
    let home = tempfile::tempdir().unwrap();
    let blobs = kept(home.path()).join("blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join("model_safetensors.incomplete"), b"other bytes").unwrap();
    let hub = Hub::new(models::model(), |asked| {
        asked.gets("model.safetensors").then_some(Fault::NoParts)
    });
    answered(home.path(), &hub.endpoint).json();
    let weights = std::fs::read(blobs.join("model_safetensors")).unwrap();
    assert_eq!(weights, models::model()["model.safetensors"]);
}

#[test]
fn bytes_without_end_and_bytes_of_another_hash_are_refused_and_not_kept() {
    let endless = |asked: &Asked| asked.gets("config.json").then_some(Fault::Endless);
    let other = |_: &Asked| Some(Fault::Header("etag", "a".repeat(64)));
    let faults: [(&str, Box<Faults>); 2] = [
        ("more come than", Box::new(endless)),
        ("SHA-256", Box::new(other)),
    ];
    for (why, fault) in faults {
        let home = tempfile::tempdir().unwrap();
        let hub = Hub::new(models::model(), fault);
        let ended = answered(home.path(), &hub.endpoint);
        assert!(ended.error().contains(why), "{}", ended.err);
        assert!(!kept(home.path()).join("snapshots").exists());
    }
}
