//! The first bytes of a saved engine: whether the rest can be used at all.

use crate::error::SavedError;

/// The first bytes of a file; not text, and changed by transfers that mangle line ends.
const MARK: [u8; 8] = *b"\x93trt\r\n\x1a\n";
/// Counts changes of what follows the header, types of other crates included.
const FORMAT: u32 = 7;
/// Bytes that the library's version takes in the header.
const VERSION: usize = 16;
/// Mark, format, version, fingerprint, length, hash.
pub(super) const HEADER: usize = 8 + 4 + VERSION + 8 + 8 + 8;

/// A header of this version.
#[derive(Debug)]
pub(super) struct Header {
    /// The fingerprint of the weights that it was saved for.
    pub fingerprint: u64,
    /// Bytes after the header, as it says.
    len: u64,
    hash: u64,
    /// What is hashed of it.
    before: [u8; HEADER - 8],
}

/// The header before these bytes.
pub(super) fn before(fingerprint: u64, body: &[u8]) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER);
    header.extend(MARK);
    header.extend(FORMAT.to_le_bytes());
    header.extend(version());
    header.extend(fingerprint.to_le_bytes());
    header.extend((body.len() as u64).to_le_bytes());
    header.extend(hash(&[&header, body]).to_le_bytes());
    header
}

/// The version of this library, as the header has it.
fn version() -> [u8; VERSION] {
    let mut padded = [0; VERSION];
    let text = env!("CARGO_PKG_VERSION").bytes();
    padded
        .iter_mut()
        .zip(text)
        .for_each(|(to, from)| *to = from);
    padded
}

fn word(header: &[u8], at: usize) -> u64 {
    let bytes = header.get(at..at + 8).and_then(|b| b.first_chunk::<8>());
    bytes.map_or(0, |b| u64::from_le_bytes(*b))
}

impl Header {
    /// The header of a file of `found` bytes, if it is of this version.
    ///
    /// # Errors
    /// If it is of another kind or version, or cut short.
    pub fn read(header: &[u8], found: u64) -> Result<Header, SavedError> {
        if !header.starts_with(&MARK) {
            return Err(SavedError::Foreign);
        }
        let Some(before) = header.first_chunk().filter(|_| header.len() == HEADER) else {
            return Err(SavedError::Length {
                needed: HEADER as u64,
                found,
            });
        };
        let (format, theirs) = (word(header, 8) as u32, &header[12..12 + VERSION]);
        if format != FORMAT || theirs != version() {
            let name = |version: &[u8], format| {
                let text = String::from_utf8_lossy(version);
                format!("{} (format {format})", text.trim_end_matches('\0'))
            };
            return Err(SavedError::Version {
                found: name(theirs, format),
                expected: name(&version(), FORMAT),
            });
        }
        Ok(Header {
            fingerprint: word(header, 12 + VERSION),
            len: word(header, HEADER - 16),
            hash: word(header, HEADER - 8),
            before: *before,
        })
    }

    /// The bytes after the header, if a file of `found` bytes has just as many, and no more than
    /// `most`.
    ///
    /// # Errors
    /// [`SavedError::Length`] or [`SavedError::TooLarge`] if it has another length, or more.
    pub fn len(&self, found: u64, most: u64) -> Result<usize, SavedError> {
        let needed = self.len.saturating_add(HEADER as u64);
        if needed != found {
            return Err(SavedError::Length { needed, found });
        }
        match usize::try_from(self.len) {
            Ok(len) if self.len <= most => Ok(len),
            _ => Err(SavedError::TooLarge { found, most }),
        }
    }

    /// Whether these are the bytes that were written after it.
    ///
    /// # Errors
    /// [`SavedError::Damaged`] if they are not what was written.
    pub fn check(&self, body: &[u8]) -> Result<(), SavedError> {
        match hash(&[&self.before, body]) == self.hash {
            true => Ok(()),
            false => Err(SavedError::Damaged {
                what: "its hash is another than was written".into(),
            }),
        }
    }
}

/// A hash that any change of a word changes: each step is a bijection of the words before.
pub(in crate::compile) fn hash(parts: &[&[u8]]) -> u64 {
    let mix = |hash: u64, word: u64| {
        let mixed = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 32)
    };
    let mut state = 0x6c62_272e_07bb_0142;
    for part in parts {
        let (words, rest) = part.as_chunks::<8>();
        for bytes in words {
            state = mix(state, u64::from_le_bytes(*bytes));
        }
        for byte in rest {
            state = mix(state, u64::from(*byte));
        }
        state = mix(state, part.len() as u64);
    }
    state
}
