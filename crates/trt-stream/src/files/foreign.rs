//! Files of other kinds that are taken for weights: what they are, by how they begin.
//!
//! Only files that have failed as safetensors come here, so nothing that is valid is ever refused
//! for its first bytes.

/// How files of other kinds begin, what they are, and what to do about it.
const KINDS: [(&[u8], &str); 11] = [
    (
        b"version https://git-lfs",
        "a git-lfs pointer, which stands for the file: fetch it with `git lfs pull`",
    ),
    (
        b"GGUF",
        "a GGUF file, which is a model by itself: open it alone",
    ),
    (
        b"PK\x03\x04",
        "a zip archive, such as PyTorch writes: convert it to safetensors",
    ),
    (b"\x80\x02", PICKLE),
    (b"\x80\x03", PICKLE),
    (b"\x80\x04", PICKLE),
    (b"\x80\x05", PICKLE),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x93trt", "a saved engine: Compiler::load reads it"),
];
const PICKLE: &str = "a pickle, such as PyTorch writes: convert it to safetensors";
/// Bytes that are looked at.
const LOOK: usize = 256;

/// What these bytes are the beginning of, if that can be told.
pub(crate) fn kind(bytes: &[u8]) -> Option<&'static str> {
    let bytes = &bytes[..bytes.len().min(LOOK)];
    if let Some((_, what)) = KINDS.iter().find(|(mark, _)| bytes.starts_with(mark)) {
        return Some(what);
    }
    let text = bytes.trim_ascii_start();
    let begins = |mark: &str| {
        let start = text.get(..mark.len());
        start.is_some_and(|s| s.eq_ignore_ascii_case(mark.as_bytes()))
    };
    let plain = |b: &u8| b.is_ascii_graphic() || b.is_ascii_whitespace();
    match text {
        _ if ["<!doctype", "<html", "<head", "<?xml"]
            .into_iter()
            .any(begins) =>
        {
            Some("a web page, perhaps an answer that was saved in the file's place")
        }
        [b'{', ..] if bytes.iter().all(plain) => Some("JSON text"),
        _ if bytes.len() >= 8 && bytes.iter().all(plain) => Some("plain text"),
        _ => None,
    }
}
