//! Side files: weights that were made of others, in a file of their own.
//!
//! `magic, format, length of the header, its checksum (u32 each, little-endian), header (JSON)`, then the tensors, each
//! at a multiple of [`ALIGN`]. The header says what they were made of and how, and has a checksum for each.
//! The invariant: a [`Header`] that was read lies whole in its file, its tensors overlap neither it nor each other, and
//! are as long as their shape and encoding say.

use crate::files::{FileId, TensorInfo};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use trt_kernel::Encoding;

/// How a side file begins.
const MAGIC: &[u8; 8] = b"\x93trtside";
/// The format's number; it rises when a file means something else than before.
const FORMAT: u32 = 1;
/// Bytes before the header.
const PREFIX: usize = 20;
/// The most bytes of a header.
const LIMIT: usize = 64 << 20;
/// What the places of tensors are multiples of: a page of any machine that we know of.
pub(super) const ALIGN: usize = 4096;

/// What a side file says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Header {
    /// What was done, e.g. `quantise q8_0`.
    pub made: String,
    /// What it was done with.
    pub source: String,
    /// The tensors in the order in which they lie.
    pub tensors: Vec<Entry>,
}

/// A tensor of a side file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub name: String,
    pub encoding: Encoding,
    pub shape: Vec<usize>,
    /// Its first byte in the file.
    pub start: usize,
    pub bytes: usize,
    /// CRC-32 of its bytes.
    pub checksum: u32,
}

impl Header {
    /// Its tensors, of a file that has no number yet.
    pub fn infos(&self) -> Vec<TensorInfo> {
        let info = |entry: &Entry| TensorInfo {
            name: entry.name.clone(),
            encoding: entry.encoding,
            shape: entry.shape.clone(),
            file: FileId(0),
            range: entry.range(),
        };
        self.tensors.iter().map(info).collect()
    }
}

impl Entry {
    pub fn range(&self) -> Range<usize> {
        self.start..self.start + self.bytes
    }
}

/// Bytes of a tensor, if they can be counted and rows are whole blocks.
pub(super) fn bytes(encoding: Encoding, shape: &[usize]) -> Option<usize> {
    let (columns, rows) = match shape.split_last() {
        None => (1, 1),
        Some((columns, lead)) => {
            let rows = lead.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
            (*columns, rows?)
        }
    };
    encoding.row_bytes(columns)?.checked_mul(rows)
}

/// The bytes that a file begins with.
pub(super) fn write(header: &Header) -> serde_json::Result<Vec<u8>> {
    let json = serde_json::to_vec(header)?;
    let mut out = Vec::with_capacity(PREFIX + json.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&FORMAT.to_le_bytes());
    out.extend_from_slice(&(json.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(&json).to_le_bytes());
    out.extend_from_slice(&json);
    Ok(out)
}

/// The header of a file's bytes, or what is wrong with it.
pub(super) fn read(file: &[u8]) -> Result<Header, String> {
    let (prefix, rest) = file
        .split_first_chunk::<PREFIX>()
        .ok_or_else(|| format!("{} bytes are no side file", file.len()))?;
    let number = |at: usize| {
        u32::from_le_bytes([prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]])
    };
    if prefix[..8] != *MAGIC {
        return Err("it does not begin as a side file".into());
    }
    if number(8) != FORMAT {
        return Err(format!(
            "its format is {}, this version reads {FORMAT}",
            number(8)
        ));
    }
    let len = number(12) as usize;
    let json = rest.get(..len.min(LIMIT)).filter(|json| json.len() == len);
    let json = json.ok_or_else(|| format!("its header of {len} bytes is cut off"))?;
    if crc32fast::hash(json) != number(16) {
        return Err("its header is damaged".into());
    }
    let header: Header = serde_json::from_slice(json).map_err(|e| e.to_string())?;
    let mut end = PREFIX + len;
    for tensor in &header.tensors {
        let Entry {
            name, start, bytes, ..
        } = tensor;
        let expected = self::bytes(tensor.encoding, &tensor.shape);
        let last = start.checked_add(*bytes).filter(|last| *last <= file.len());
        match last {
            Some(last) if *start >= end && expected == Some(*bytes) => end = last,
            _ => {
                let len = file.len();
                return Err(format!(
                    "tensor '{name}' cannot be {bytes} bytes at {start} of {len}"
                ));
            }
        }
    }
    Ok(header)
}

/// The first tensor whose bytes are not those that were written.
pub(super) fn damaged<'a>(header: &'a Header, file: &[u8]) -> Option<&'a str> {
    let damaged = |entry: &&Entry| {
        let bytes = file.get(entry.range());
        bytes.is_none_or(|bytes| crc32fast::hash(bytes) != entry.checksum)
    };
    // Some for each thread: reading is bound by what one core hashes.
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let each = header.tensors.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let parts = header.tensors.chunks(each);
        let found: Vec<_> = parts
            .map(|part| scope.spawn(move || part.iter().find(damaged)))
            .collect();
        let found = found.into_iter().map(std::thread::ScopedJoinHandle::join);
        // Hashing does not panic.
        found.flatten().flatten().map(|e| e.name.as_str()).next()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use trt_kernel::{BlockType, DType};

    fn file() -> (Header, Vec<u8>) {
        let entry = |name: &str, encoding, shape: &[usize], start| Entry {
            name: name.into(),
            encoding,
            shape: shape.to_vec(),
            start,
            bytes: bytes(encoding, shape).unwrap(),
            checksum: 0,
        };
        let mut header = Header {
            made: "quantise q8_0".into(),
            source: "1234".into(),
            tensors: vec![
                entry("a", Encoding::Blocks(BlockType::Q8_0), &[3, 64], ALIGN),
                entry("b", Encoding::Plain(DType::BF16), &[2, 5], 2 * ALIGN),
            ],
        };
        let mut data = vec![0u8; 3 * ALIGN];
        data.iter_mut()
            .enumerate()
            .for_each(|(i, b)| *b = (i * 7) as u8);
        for entry in &mut header.tensors {
            entry.checksum = crc32fast::hash(&data[entry.range()]);
        }
        let head = write(&header).unwrap();
        data[..head.len()].copy_from_slice(&head);
        (header, data)
    }

    #[test]
    fn what_was_written_is_read_back_and_known_to_be_whole() {
        let (header, file) = file();
        let found = read(&file).unwrap();
        assert_eq!(found, header);
        assert_eq!(damaged(&found, &file), None);
    }

    #[test]
    fn a_changed_bit_is_found_wherever_it_is() {
        let (header, file) = file();
        let head = PREFIX + serde_json::to_vec(&header).unwrap().len();
        for at in (0..head).chain(header.tensors.iter().flat_map(Entry::range)) {
            let mut other = file.clone();
            other[at] ^= 0x10;
            match read(&other) {
                Err(_) => {}
                Ok(read) => assert!(damaged(&read, &other).is_some(), "byte {at}"),
            }
        }
    }

    #[test]
    fn headers_that_lie_are_refused() {
        let lies: [fn(&mut Header); 5] = [
            |h| h.tensors[0].start = 8,
            |h| h.tensors[1].start = ALIGN + 64,
            |h| h.tensors[1].bytes = usize::MAX,
            |h| h.tensors[0].shape = vec![3, 65],
            |h| h.tensors[0].shape = vec![usize::MAX, 64],
        ];
        let (header, file) = file();
        for lie in lies {
            let mut other = header.clone();
            lie(&mut other);
            let mut bytes = file.clone();
            let head = write(&other).unwrap();
            bytes[..head.len()].copy_from_slice(&head);
            read(&bytes).unwrap_err();
        }
        for len in 0..ALIGN {
            read(&file[..len]).unwrap_err();
        }
    }
}
