//! SentencePiece's way: blanks are letters, and of all neighbours that make a piece those of the best score are merged.
//!
//! A file has scores and no merges. Merging by rank is the same if the ranks follow the scores: every cut of a piece into
//! two others is a merge, in the order of the pieces' scores.

use serde_json::{Value, json};
use std::cmp::Ordering;

use super::{Index, Kind, Made, Source, TOKENS, Vocabulary};
use crate::Error;

const SCORES: &str = "tokenizer.ggml.scores";
const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";
/// What stands for a blank.
const BLANK: &str = "▁";
/// The most cuts of a vocabulary for each of its pieces; models have about two.
const CUTS: usize = 16;
/// The most bytes of a piece; the longest of models have about 100.
const LONGEST: usize = 256;

/// The tokenizer of a file with scores.
pub(super) fn made(
    source: &Source<'_>,
    vocabulary: &Vocabulary,
    index: &Index<'_>,
) -> Result<Made, Error> {
    let scores = source.read(|m| m.floats(SCORES))?;
    let scores = scores.ok_or_else(|| source.missing(SCORES))?;
    let tokens = vocabulary.tokens.len();
    if scores.len() != tokens {
        let why = format!("it has {} scores for {tokens} tokens", scores.len());
        return Err(source.bad(SCORES, &why));
    }
    if let Some(place) = scores.iter().position(|s| s.is_nan()) {
        return Err(source.bad(SCORES, &format!("that of token {place} is no number")));
    }
    if let Some((id, long)) = vocabulary.all().find(|(_, t)| t.len() > LONGEST) {
        let bytes = long.len();
        let why = format!("token {id} has {bytes} bytes; {LONGEST} are the most that are cut");
        return Err(source.bad(TOKENS, &why));
    }
    let unknown = match source.read(|m| m.count(UNKNOWN))? {
        Some(_) => source.token(UNKNOWN, vocabulary)?,
        None => Some(0),
    };
    let prefix = source.flag("tokenizer.ggml.add_space_prefix")?;
    let prefix = prefix.unwrap_or(true);
    Ok(Made {
        normalizer: normalizer(prefix),
        pre_tokenizer: Value::Null,
        decoder: decoder(prefix),
        unknown: unknown.and_then(|id| vocabulary.get(id)).map(String::from),
        byte_fallback: true,
        ignore_merges: false,
        merges: merges(vocabulary, index, &scores).ok_or_else(|| {
            let why = format!("its pieces can be cut in more than {CUTS} ways each");
            source.bad(TOKENS, &why)
        })?,
        add_bos: true,
    })
}

fn normalizer(prefix: bool) -> Value {
    let blanks = json!({"type": "Replace", "pattern": {"String": " "}, "content": BLANK});
    match prefix {
        true => {
            json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": BLANK}, blanks]})
        }
        false => blanks,
    }
}

fn decoder(prefix: bool) -> Value {
    let mut parts = vec![
        json!({"type": "Replace", "pattern": {"String": BLANK}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        parts.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    json!({"type": "Sequence", "decoders": parts})
}

/// All cuts of pieces into two others, those of the best score first; nothing if there are too many.
fn merges(
    vocabulary: &Vocabulary,
    index: &Index<'_>,
    scores: &[f32],
) -> Option<Vec<(String, String)>> {
    let piece = |id: u32| matches!(vocabulary.kind(id), Kind::Normal | Kind::UserDefined);
    let known = |token: &str| index.get(token).copied().filter(|id| piece(*id));
    let mut merges = Vec::new();
    for (id, token) in vocabulary.all().filter(|(id, _)| piece(*id)) {
        let mut cuts = Vec::new();
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if let (Some(l), Some(r)) = (known(left), known(right)) {
                cuts.push((l, r, left, right));
            }
        }
        cuts.sort_unstable();
        let score = scores.get(id as usize).copied().unwrap_or(0.0);
        merges.extend(cuts.into_iter().map(|(_, _, l, r)| (score, l, r)));
        // Some small vocabularies are all repetitions.
        if merges.len() > CUTS * index.len().max(1024) {
            return None;
        }
    }
    // Stable: equal scores stay in the order of the vocabulary, but longer parts come first.
    merges.sort_by(|a, b| {
        let longer = |x: &str, y: &str| y.chars().count().cmp(&x.chars().count());
        let score = b.0.partial_cmp(&a.0).unwrap_or(Ordering::Equal);
        score
            .then_with(|| longer(a.1, b.1))
            .then_with(|| longer(a.2, b.2))
    });
    let owned = |(_, l, r): (f32, &str, &str)| (l.to_string(), r.to_string());
    Some(merges.into_iter().map(owned).collect())
}
