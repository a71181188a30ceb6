//! What a layer of each kind of model launches: `launches.txt` names every launch by its kernel and the ops in it.
//! `UPDATE_GOLDEN=1` rewrites it; a launch more is then seen in the change.

use candle_models::layer;
use std::path::Path;

/// Files and ways of calling their models.
const SHOWN: [(&str, &str); 8] = [
    ("models/llama", "prompts"),
    ("models/gemma2", "prompts"),
    ("models/qwen3", "prompts"),
    ("models/bert", "batches of lengths"),
    ("models/vit", "batches"),
    ("models/t5", "lengths"),
    // A layer of the encoder and one of the decoder.
    ("models/whisper/model", "one call"),
    ("models/stable_diffusion/resnet", "sizes"),
];

#[test]
fn layers_launch_what_the_golden_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/held/launches.txt");
    let shown = SHOWN.map(|(file, way)| {
        layer::text(file, way).unwrap_or_else(|fault| panic!("{file} [{way}]: {fault}"))
    });
    let found = shown.join("\n");
    match std::env::var_os("UPDATE_GOLDEN").is_some() {
        true => std::fs::write(&path, found).expect("the golden is written"),
        false => {
            let kept = std::fs::read_to_string(&path).expect("the golden is read");
            assert_eq!(found, kept, "{path:?}: UPDATE_GOLDEN=1 rewrites it");
        }
    }
}
