//! The example `transcribe`: its network against candle's whisper (`oracle`), its text against faster-whisper's
//! (`reference`), its rules (`written`), and its readers of files
//! against files of every kind (`files`).

mod files;
mod oracle;
mod reference;
mod written;

#[path = "../../../examples/transcribe/ctranslate2.rs"]
mod ctranslate2;
#[path = "../../../examples/transcribe/listen.rs"]
mod listen;
#[path = "../../../examples/transcribe/mel.rs"]
mod mel;
#[path = "../../../examples/transcribe/rules.rs"]
mod rules;
#[path = "../../../examples/transcribe/sources.rs"]
#[allow(dead_code, reason = "tests fetch nothing")]
mod sources;
#[path = "../../../examples/transcribe/wav.rs"]
mod wav;
#[path = "../../../examples/transcribe/whisper.rs"]
mod whisper;
