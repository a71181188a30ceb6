//! What may be written after what: times and words in turn.

use super::rules::{Hidden, Rules, Special, log_sum};
use serde_json::json;
use tokenizers::Tokenizer;

const WORDS: u32 = 10;
const END: u32 = 10;
/// The first time.
const FIRST: u32 = 16;
const ALL: u32 = FIRST + 1501;

fn rules() -> Rules {
    let names = [
        "<|endoftext|>",
        "<|startoftranscript|>",
        "<|translate|>",
        "<|transcribe|>",
        "<|nospeech|>",
        "<|notimestamps|>",
    ];
    let special = (END..).zip(names).map(|(id, name)| (name.to_string(), id));
    let words = (0..WORDS).map(|id| (format!("w{id}"), id));
    let vocabulary: serde_json::Map<_, _> = words
        .chain(special)
        .map(|(name, id)| (name, id.into()))
        .collect();
    let model = json!({"type": "WordLevel", "vocab": vocabulary, "unk_token": "w0"});
    let tokenizer: Tokenizer = serde_json::from_value(json!({
        "version": "1.0", "added_tokens": [], "model": model,
    }))
    .expect("a tokenizer");
    let special = Special::new(&tokenizer, ALL as usize).expect("whisper's");
    assert!(special.languages.is_empty() && special.first_time() == FIRST);
    let hidden: Hidden = serde_json::from_value(json!({
        "suppress_tokens": [3, 4_000_000_000u32], "begin_suppress_tokens": [END], "top_k": 50,
    }))
    .expect("tokens");
    Rules::new(special, hidden)
}

/// What may come, where each token is as likely as it is said.
fn left(written: &[u32], likely: impl Fn(u32) -> f32) -> Vec<u32> {
    let mut logits: Vec<f32> = (0..ALL).map(likely).collect();
    rules().apply(written, &mut logits);
    let may = |id: &u32| logits[*id as usize] > f32::NEG_INFINITY;
    (0..ALL).filter(may).collect()
}

/// Words are likelier than all times together.
fn words(id: u32) -> f32 {
    if id < FIRST { 50.0 } else { 0.0 }
}

#[test]
fn a_text_begins_with_a_time_in_its_first_second() {
    let all = left(&[], words);
    assert_eq!(all, (FIRST..=FIRST + 50).collect::<Vec<_>>());
}

#[test]
fn times_and_words_come_in_turn_and_no_time_goes_back() {
    let plain = |all: &[u32]| {
        all.iter()
            .copied()
            .filter(|id| *id < END)
            .collect::<Vec<_>>()
    };
    let times = |all: &[u32]| all.iter().copied().find(|id| *id >= FIRST);
    // A piece began: words, of which one is never written, and no time.
    let all = left(&[FIRST], words);
    assert_eq!(plain(&all), [0, 1, 2, 4, 5, 6, 7, 8, 9]);
    assert_eq!(times(&all), None);
    // It goes on, or it ends later than it began, or all ends.
    let all = left(&[FIRST + 4, 1], words);
    assert_eq!((plain(&all).len(), times(&all)), (9, Some(FIRST + 5)));
    assert!(all.contains(&END));
    // It ended: the next begins then or later, or all ends.
    let all = left(&[FIRST + 4, 1, FIRST + 9], words);
    assert_eq!((plain(&all).len(), times(&all)), (0, Some(FIRST + 9)));
    assert!(all.contains(&END));
    // The next began.
    let all = left(&[FIRST + 4, 1, FIRST + 9, FIRST + 9], words);
    assert_eq!((plain(&all).len(), times(&all)), (9, None));
    // Nothing that only prompts have is written.
    assert!(all.iter().all(|id| *id <= END));
}

#[test]
fn a_time_comes_where_all_times_together_are_likelier_than_any_word() {
    // 1501 times of 0 are as likely as a word of 7.3.
    let all = left(&[FIRST, 1], |id| if id < FIRST { 7.0 } else { 0.0 });
    assert!(all.iter().all(|id| *id > FIRST) && !all.is_empty());
    let all = left(&[FIRST, 1], |id| if id < FIRST { 7.5 } else { 0.0 });
    assert!(all.contains(&1) && all.contains(&(FIRST + 1)));
}

#[test]
fn sums_of_exponentials_are_finite_or_of_nothing() {
    assert_eq!(log_sum(&[]), f32::NEG_INFINITY);
    assert_eq!(log_sum(&[f32::NEG_INFINITY; 3]), f32::NEG_INFINITY);
    assert!((log_sum(&[1000.0, 1000.0]) - 1000.0 - 2f32.ln()).abs() < 1e-3);
}
