//! Sound and text against what `tests/references/speech.py` wrote.
//!
//! Model and sound come from the example, which leaves them in the cache folder. Without them a test says that it did not
//! run, unless `TRT_REQUIRE_MODEL=1`.

use super::listen::{self, Listener, Model, Segment};
use super::mel::{Mel, RATE};
use super::{sources, wav};
use candle_core::DType;
use candle_trt::device::{Host, HostMode};
use candle_trt::{Compiler, Engine, Request, Weights};
use std::path::PathBuf;

const VALUES: &str = include_str!("../../references/speech.txt");
/// One of so many values of the bands is written down.
const EVERY: usize = 211;

/// What faster-whisper made of some copies of the sound, each with so much silence behind it.
struct Case<'a> {
    copies: usize,
    pause: usize,
    likely: f32,
    pieces: Vec<(f64, f64, f32, &'a str)>,
}

fn number<T: std::str::FromStr>(word: Option<&str>) -> T {
    let parsed = word.and_then(|word| word.parse().ok());
    parsed.expect("a number")
}

fn cases() -> Vec<Case<'static>> {
    let mut cases: Vec<Case> = Vec::new();
    for line in VALUES.lines() {
        let mut words = line.splitn(5, ' ');
        match words.next() {
            Some("copies") => cases.push(Case {
                copies: number(words.next()),
                pause: number(words.next()),
                likely: {
                    assert_eq!(words.next(), Some("en"));
                    number(words.next())
                },
                pieces: Vec::new(),
            }),
            Some("piece") => {
                let mut next = || words.next();
                let (from, to) = (number(next()), number(next()));
                let piece = (from, to, number(next()), next().expect("a text"));
                cases.last_mut().expect("a case").pieces.push(piece);
            }
            _ => {}
        }
    }
    cases
}

/// Where the example keeps a file.
fn kept(name: &str) -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).map(PathBuf::from);
    let cache = set("CANDLE_TRT_CACHE")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("candle-trt")))
        .or_else(|| Some(set("HOME")?.join(".cache/candle-trt")))?;
    let place = cache.join(name);
    if place.exists() {
        return Some(place);
    }
    let required = std::env::var_os("TRT_REQUIRE_MODEL").is_some();
    assert!(!required, "no {}", place.display());
    println!(
        "did not run: no {}; run the example transcribe first",
        place.display()
    );
    None
}

fn sound() -> Option<Vec<f32>> {
    let file = kept("speech/beckett.wav")?;
    Some(wav::read(&file, RATE).expect("a sound"))
}

#[test]
fn bands_of_a_sound_are_those_that_whisper_was_trained_with() {
    let Some(samples) = sound() else { return };
    let mel = Mel::new(&samples, 80);
    let all = mel.window(0, mel.frames);
    let line = VALUES.lines().find_map(|line| line.strip_prefix("mel "));
    let bits = |word: &str| f32::from_bits(u32::from_str_radix(word, 16).expect("bits"));
    let expected: Vec<f32> = line.expect("bands").split(' ').map(bits).collect();
    let own: Vec<f32> = all.into_iter().step_by(EVERY).collect();
    assert_eq!(own.len(), expected.len());
    let differ = own.iter().zip(&expected).map(|(a, b)| (a - b).abs());
    let worst = differ.fold(0.0, f32::max);
    assert!(worst < 1e-4, "{worst:.1e}");
    // Behind the end there is nothing.
    let behind = mel.window(mel.frames - 1, 3);
    assert!(
        behind
            .chunks(3)
            .all(|row| row[0] != 0.0 && row[1..] == [0.0, 0.0])
    );
}

fn engine(folder: &PathBuf, model: &Model, mode: HostMode) -> Engine {
    let compiler = Compiler::new(Weights::open(folder).expect("they open"))
        .device(Host::new(mode))
        .dtype(DType::F32)
        .weight_streaming(true);
    listen::compile(compiler, &model.config).expect("it compiles")
}

/// What is said in a sound, and how sure the model is of its language.
fn heard(engine: &Engine, model: &Model, mel: &Mel) -> (f32, Vec<Segment>) {
    let mut listener = Listener::new(engine, model, mel).expect("a session");
    let (language, likely) = listener.language().expect("it hears");
    let name = model.tokenizer.id_to_token(language);
    assert_eq!(name.as_deref(), Some("<|en|>"));
    let mut all = Vec::new();
    let mut last = 0.0;
    let mut tell = |segments: &[Segment], until: f64| {
        assert!(until > last, "{until} after {last}");
        last = until;
        all.extend_from_slice(segments);
    };
    let prompt = [language, model.rules.special.transcribe];
    listener.listen(&prompt, &mut tell).expect("it writes");
    assert_eq!(last, mel.seconds());
    (likely, all)
}

#[test]
fn the_text_of_transcribe_is_that_of_faster_whisper_at_every_budget() {
    let (Some(samples), Some(folder)) = (sound(), kept("whisper-base")) else {
        return;
    };
    let model = sources::about(&folder).expect("a model");
    let engine = engine(&folder, &model, HostMode::Discrete);
    for case in cases() {
        let silence = vec![0.0; case.pause * RATE];
        let all = [samples.as_slice(), &silence].concat().repeat(case.copies);
        let mel = Mel::new(&all, model.config.num_mel_bins);
        let mut first: Option<(u32, Vec<Segment>)> = None;
        // The long one takes a while.
        let budgets = &["25%", "full"][..if case.copies == 1 { 2 } else { 1 }];
        for budget in budgets {
            let request: Request = budget.parse().expect("a budget");
            engine.set_device_budget(request).expect("it is set");
            let (likely, pieces) = heard(&engine, &model, &mel);
            let off = (likely - case.likely).abs();
            assert!(
                off < 1e-5,
                "{budget}: English by {likely}, not {}",
                case.likely
            );
            assert_eq!(pieces.len(), case.pieces.len(), "{budget}: {pieces:?}");
            for (piece, (from, to, likely, text)) in pieces.iter().zip(&case.pieces) {
                assert_eq!(piece.text, *text, "{budget}");
                let near = |a: f64, b: &f64| (a - b).abs() < 1e-6;
                assert!(
                    near(piece.from, from) && near(piece.to, to),
                    "{budget}: {piece:?}"
                );
                let off = (piece.likely - likely).abs();
                assert!(off < 1e-3, "{budget}: {piece:?} by {likely}");
            }
            let own = (likely.to_bits(), pieces);
            assert!(
                *first.get_or_insert_with(|| own.clone()) == own,
                "{budget}: other bits"
            );
        }
    }
}
