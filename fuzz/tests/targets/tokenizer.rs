//! `tokenizer.json`: loaded, and used once in each direction.

use candle_trt_fuzz::Target;
use trt_text::{Files, TextStream, Tokenizer};

const BYTES: &str = r#"{"version":"1.0","truncation":{"max_length":8,"strategy":"LongestFirst","stride":0,"direction":"Right"},
"padding":{"strategy":{"Fixed":9},"direction":"Right","pad_to_multiple_of":null,"pad_id":0,"pad_type_id":0,"pad_token":"a"},
"added_tokens":[{"id":6,"content":"<s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],
"normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Replace","pattern":{"Regex":" {2,}"},"content":" "}]},
"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"(?i:'s|'t)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\s+(?!\\S)"},
"behavior":"Isolated","invert":false},{"type":"Digits","individual_digits":true},
{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true}]},
"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],
"pair":[{"Sequence":{"id":"A","type_id":0}},{"Sequence":{"id":"B","type_id":1}}],
"special_tokens":{"<s>":{"id":"<s>","ids":[6],"tokens":["<s>"]}}},
"decoder":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},
"model":{"type":"BPE","dropout":0.1,"unk_token":"a","continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":false,
"byte_fallback":false,"ignore_merges":false,"vocab":{"a":0,"b":1,"ab":2,"Ġ":3,"Ġa":4,"Ã":5},"merges":["a b","Ġ a"]}}"#;

const PIECES: &str = r#"{"version":"1.0","truncation":null,"padding":null,
"added_tokens":[{"id":0,"content":"<unk>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],
"normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},{"type":"Replace","pattern":{"String":" "},"content":"▁"}]},
"pre_tokenizer":{"type":"Metaspace","replacement":"▁","prepend_scheme":"always","split":true},"post_processor":null,
"decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},
{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]},
"model":{"type":"Unigram","unk_id":0,"vocab":[["<unk>",0.0],["▁",-1.5],["a",-2.0],["▁a",-1.0],["<0x41>",-3.0]],"byte_fallback":true}}"#;

const WORDS: &str = r###"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":{"type":"BertNormalizer",
"clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true},"pre_tokenizer":{"type":"BertPreTokenizer"},
"post_processor":{"type":"BertProcessing","sep":["b",1],"cls":["a",0]},"decoder":{"type":"WordPiece","prefix":"##","cleanup":true},
"model":{"type":"WordPiece","unk_token":"a","continuing_subword_prefix":"##","max_input_chars_per_word":100,"vocab":{"a":0,"b":1,"##a":2}}}"###;

const PARTS: [&str; 40] = [
    "\"BPE\"",
    "\"Unigram\"",
    "\"WordPiece\"",
    "\"WordLevel\"",
    "\"ByteLevel\"",
    "\"Metaspace\"",
    "\"Split\"",
    "\"Punctuation\"",
    "\"Whitespace\"",
    "\"Digits\"",
    "\"CTC\"",
    "\"BPEDecoder\"",
    "\"Fuse\"",
    "\"Strip\"",
    "\"ByteFallback\"",
    "\"NFKC\"",
    "\"Lowercase\"",
    "\"Precompiled\"",
    "\"precompiled_charsmap\":\"AAAA\"",
    "\"Prepend\"",
    "\"Replace\"",
    "\"FixedLength\"",
    "\"UnicodeScripts\"",
    "\"CharDelimiterSplit\"",
    "\"RobertaProcessing\"",
    "\"Sequence\"",
    "{\"Regex\":\"(a*)*b\"}",
    "{\"Regex\":\"\"}",
    "{\"String\":\"\"}",
    "(?=a)",
    "\\\\p{L}{1000}{1000}",
    "\"Removed\"",
    "\"MergedWithNext\"",
    "\"content\":\"\"",
    "\"ids\":[]",
    "\"merges\":[\"a b\"]",
    "4294967295",
    "\"vocab\":{}",
    "▁",
    "\"type\":",
];

#[test]
fn a_tokenizer_is_loaded_and_used_or_refused() {
    let corpus = [BYTES, PIECES, WORDS].map(|text| text.as_bytes().to_vec());
    let target = Target {
        words: &PARTS,
        bytes: 512 << 20,
        ..Target::new("tokenizer", &corpus)
    };
    target.run(|bytes| {
        let files = Files {
            tokenizer: bytes,
            ..Files::default()
        };
        let Ok(tokenizer) = Tokenizer::from_files(&files) else {
            return;
        };
        let _ = tokenizer.encode("", true);
        let ids = tokenizer
            .encode("a ab  'S 12 é\u{301}☃ <s>Aa\r\n", true)
            .unwrap_or_default();
        let _ = tokenizer.decode(&ids, false);
        let mut text = TextStream::new(&tokenizer, true);
        for id in [0, 5, 1, 6, 3, 4, 99, 2, u32::MAX] {
            let _ = text.push(id);
        }
        let _ = text.finish();
    });
}
