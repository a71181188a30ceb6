//! GPT-2's way: words are cut out of a text, and their bytes are merged in the order of a list.

use serde_json::json;

use super::{Index, Made, Source, pre, short};
use crate::Error;

const MERGES: &str = "tokenizer.ggml.merges";
const PRE: &str = "tokenizer.ggml.pre";

/// The tokenizer of a file with a list of merges.
pub(super) fn made(source: &Source<'_>, index: &Index<'_>) -> Result<Made, Error> {
    let name = source.read(|m| m.text(PRE))?;
    let pre = pre::named(name.as_deref()).ok_or_else(|| {
        let shown = short(name.as_deref().unwrap_or_default());
        let known = pre::names().collect::<Vec<_>>().join(", ");
        source.bad(PRE, &format!("'{shown}' is not known; these are: {known}"))
    })?;
    let merges = source.read(|m| m.texts(MERGES))?;
    let merges = merges.ok_or_else(|| source.missing(MERGES))?;
    let mut pairs = Vec::with_capacity(merges.len());
    for (place, merge) in merges.iter().enumerate() {
        // Neither part is empty, and the first blank may be the first part.
        let blank = merge.char_indices().skip(1).find(|(_, c)| *c == ' ');
        let parts = blank.map(|(at, _)| (&merge[..at], &merge[at + 1..]));
        let Some((left, right)) = parts.filter(|(_, right)| !right.is_empty()) else {
            let why = format!("merge {place}, {:?}, is not two tokens", short(merge));
            return Err(source.bad(MERGES, &why));
        };
        pairs.push((left.to_string(), right.to_string()));
    }
    check(source, index, &pairs)?;
    Ok(Made {
        normalizer: pre.normalizer,
        pre_tokenizer: pre.split,
        decoder: json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
        unknown: None,
        byte_fallback: false,
        ignore_merges: pre.whole_words,
        merges: pairs,
        add_bos: pre.add_bos,
    })
}

/// That every merge makes a token out of two.
fn check(source: &Source<'_>, index: &Index<'_>, merges: &[(String, String)]) -> Result<(), Error> {
    let mut both = String::new();
    for (place, (left, right)) in merges.iter().enumerate() {
        both.clear();
        both.push_str(left);
        both.push_str(right);
        let parts = [left.as_str(), right.as_str(), both.as_str()];
        if let Some(strange) = parts.into_iter().find(|part| !index.contains_key(part)) {
            let why = format!("merge {place} has {:?}, which is no token", short(strange));
            return Err(source.bad(MERGES, &why));
        }
    }
    Ok(())
}
