//! Text as it comes is the text that all tokens decode to, in the pieces of `tokenizers`' own stream.

mod common;

use common::{byte_level, sentence_piece, tokenizer};
use proptest::prelude::*;
use serde_json::Value;
use trt_text::{TextStream, Tokenizer};

/// The pieces of a stream, and what is left at its end.
fn streamed(tokenizer: &Tokenizer, ids: &[u32], special: bool) -> (Vec<String>, String) {
    let mut stream = TextStream::new(tokenizer, special);
    let pieces = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
    (pieces, stream.finish().unwrap())
}

fn same(json: &Value, ids: &[u32], special: bool) {
    let ours = tokenizer(json);
    let theirs = tokenizers::Tokenizer::from_bytes(json.to_string()).unwrap();
    let (pieces, last) = streamed(&ours, ids, special);
    let mut stream = theirs.decode_stream(!special);
    for (id, piece) in ids.iter().zip(&pieces) {
        match stream.step(*id) {
            Ok(step) => assert_eq!(*piece, step.unwrap_or_default(), "token {id} of {ids:?}"),
            // It fails where bytes take back what it gave out.
            Err(_) => break,
        }
    }
    let (shown, whole) = (pieces.concat(), theirs.decode(ids, !special).unwrap());
    match whole.strip_prefix(&shown) {
        Some(rest) => assert_eq!(last, rest, "{ids:?}"),
        // Bytes took back what was given out, which only bytes that are no character do.
        None => assert!(
            whole.contains('\u{fffd}'),
            "{ids:?}: {shown:?} of {whole:?}"
        ),
    }
}

fn ids(most: u32) -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(0..most, 0..24)
}

/// Bytes of whole characters, cut anywhere.
fn spelled(base: u32, special: u32) -> impl Strategy<Value = Vec<u32>> {
    let text = prop::collection::vec(
        prop_oneof!["[a é☃😀]{1,3}".prop_map(Some), Just(None)],
        0..6,
    );
    (text, any::<u8>(), any::<u8>()).prop_map(move |(parts, from, to)| {
        let mut ids = Vec::new();
        for part in parts {
            match part {
                Some(text) => ids.extend(text.bytes().map(|b| base + u32::from(b))),
                None => ids.push(special),
            }
        }
        let from = usize::from(from) % (ids.len() / 4 + 1);
        let to = ids.len() - usize::from(to) % (ids.len() / 4 + 1);
        ids[from.min(to)..to].to_vec()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn random_tokens_of_a_byte_level_vocabulary(ids in ids(280), special: bool) {
        same(&byte_level(), &ids, special);
    }

    #[test]
    fn random_tokens_of_a_sentence_piece_vocabulary(ids in ids(290), special: bool) {
        same(&sentence_piece(), &ids, special);
    }

    #[test]
    fn characters_of_several_byte_level_tokens(ids in spelled(0, 266), special: bool) {
        same(&byte_level(), &ids, special);
    }

    #[test]
    fn characters_of_several_byte_tokens(ids in spelled(3, 2), special: bool) {
        same(&sentence_piece(), &ids, special);
    }
}

#[test]
fn a_character_appears_with_its_last_byte() {
    let tokenizer = tokenizer(&byte_level());
    let ids: Vec<u32> = "a😀 b".bytes().map(u32::from).collect();
    let (pieces, last) = streamed(&tokenizer, &ids, false);
    assert_eq!(
        (pieces.join("|").as_str(), last.as_str()),
        ("a||||😀| |b", "")
    );
}

#[test]
fn an_unfinished_character_shows_at_the_end() {
    let tokenizer = tokenizer(&byte_level());
    let (pieces, last) = streamed(&tokenizer, &[97, 0xf0, 0x9f], false);
    assert_eq!((pieces.concat().as_str(), last.as_str()), ("a", "\u{fffd}"));
}

#[test]
fn a_blank_before_a_word_stays_after_a_special_token() {
    let tokenizer = tokenizer(&sentence_piece());
    let hi = tokenizer.token_to_id("▁hi").unwrap();
    let (pieces, _) = streamed(&tokenizer, &[hi, 1, hi, 2, hi], false);
    assert_eq!(pieces, ["hi", "", " hi", "", " hi"]);
}

#[test]
fn bytes_that_make_given_characters_invalid_do_not_take_them_back() {
    let tokenizer = tokenizer(&sentence_piece());
    // é, then a byte that begins nothing: all three together decode to replacement characters.
    let (pieces, last) = streamed(&tokenizer, &[3 + 0xc3, 3 + 0xa9, 3 + 0xff], false);
    assert_eq!((pieces.concat().as_str(), last.as_str()), ("é", "\u{fffd}"));
}

#[test]
fn tokens_that_never_make_a_character_are_not_held_for_ever() {
    let tokenizer = tokenizer(&byte_level());
    let ids = vec![0xff; 1000];
    let (pieces, last) = streamed(&tokenizer, &ids, false);
    assert_eq!(pieces.concat() + &last, "\u{fffd}".repeat(1000));
    assert!(pieces.iter().filter(|p| !p.is_empty()).count() >= 3);
}
