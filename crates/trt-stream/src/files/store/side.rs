//! Side files: weights that were made of others, in a file of their own.
//!
//! `magic, format, checksum of the header (u32 each, little-endian), its place, its length (u64 each)`, then the tensors, each
//! at a multiple of [`ALIGN`], and last the header (JSON). The header says what they were made of and how, and has a checksum for
//! each. A tensor whose rows are packed is its units one after another and behind them [a table](super::units) of where each ends and
//! its checksum; the header has the checksum of the table.
//! The invariant: a [`Header`] that was read lies whole in its file, its tensors overlap neither it nor each other, and
//! are as long as their shape and encoding say.

use super::cut::Cut;
use super::units;
use crate::files::{FileId, TensorInfo};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use trt_kernel::Encoding;

/// How a side file begins.
const MAGIC: &[u8; 8] = b"\x93trtside";
/// The format's number; it rises when a file means something else than before.
const FORMAT: u32 = 2;
/// Bytes before the first tensor's place.
const PREFIX: usize = 32;
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
    /// Its bytes; of packed rows those of all units.
    pub bytes: usize,
    /// CRC-32 of its bytes; of packed rows that of their table.
    pub checksum: u32,
    /// The code of packed rows, as `trt_pack::Code` writes it; none of a tensor that lies there as its encoding says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Vec<u8>>,
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

    /// How its rows are packed; none if they are not.
    pub fn cut(&self) -> Option<Cut> {
        self.code.as_ref()?;
        Cut::of(self.encoding, &self.shape)
    }

    /// Where the table of its units lies; nothing if it has none.
    pub fn table(&self) -> Range<usize> {
        let end = self.start + self.bytes;
        end..end + self.cut().map_or(0, |cut| units::table_bytes(&cut))
    }

    /// Where it and its table end, if it can be what it says in a file of so many bytes.
    fn end(&self, file: usize) -> Option<usize> {
        let end = self.start.checked_add(self.bytes)?;
        let end = match self.code {
            None => {
                let expected = bytes(self.encoding, &self.shape);
                (expected == Some(self.bytes)).then_some(end)?
            }
            Some(_) => {
                let cut = self.cut()?;
                end.checked_add(units::table_bytes(&cut))?
            }
        };
        Some(end).filter(|end| *end <= file)
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

/// The bytes that a file begins with, and those of the header, whose place is given.
pub(super) fn write(header: &Header, at: usize) -> serde_json::Result<([u8; PREFIX], Vec<u8>)> {
    let json = serde_json::to_vec(header)?;
    let mut out = [0; PREFIX];
    out[..8].copy_from_slice(MAGIC);
    out[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    out[12..16].copy_from_slice(&crc32fast::hash(&json).to_le_bytes());
    out[16..24].copy_from_slice(&(at as u64).to_le_bytes());
    out[24..].copy_from_slice(&(json.len() as u64).to_le_bytes());
    Ok((out, json))
}

/// The header of a file's bytes, or what is wrong with it.
pub(super) fn read(file: &[u8]) -> Result<Header, String> {
    let prefix = file
        .first_chunk::<PREFIX>()
        .ok_or_else(|| format!("{} bytes are no side file", file.len()))?;
    let short = |at: usize| {
        u32::from_le_bytes([prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]])
    };
    let long = |at: usize| u64::from(short(at)) | u64::from(short(at + 4)) << 32;
    if prefix[..8] != *MAGIC {
        return Err("it does not begin as a side file".into());
    }
    if short(8) != FORMAT {
        return Err(format!(
            "its format is {}, this version reads {FORMAT}",
            short(8)
        ));
    }
    let (at, len) = (long(16), long(24));
    let cut_off = || format!("its header of {len} bytes at {at} is cut off");
    let place = usize::try_from(at).ok().zip(usize::try_from(len).ok());
    let (at, len) = place.filter(|(_, len)| *len <= LIMIT).ok_or_else(cut_off)?;
    let json = file.get(at..).and_then(|rest| rest.get(..len));
    let json = json.ok_or_else(cut_off)?;
    if crc32fast::hash(json) != short(12) {
        return Err("its header is damaged".into());
    }
    let header: Header = serde_json::from_slice(json).map_err(|e| e.to_string())?;
    let mut end = PREFIX;
    for tensor in &header.tensors {
        match tensor.end(at) {
            Some(last) if tensor.start >= end && tensor.start.is_multiple_of(ALIGN) => end = last,
            _ => {
                let Entry {
                    name, start, bytes, ..
                } = tensor;
                return Err(format!(
                    "tensor '{name}' cannot be {bytes} bytes at {start} of {at}"
                ));
            }
        }
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::super::whole::check;
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
            code: None,
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
        let data = with_header(data, &header);
        (header, data)
    }

    /// A file's first bytes with a header about them.
    fn with_header(mut data: Vec<u8>, header: &Header) -> Vec<u8> {
        data.truncate(3 * ALIGN);
        let (prefix, json) = write(header, data.len()).unwrap();
        data[..PREFIX].copy_from_slice(&prefix);
        data.extend(json);
        data
    }

    #[test]
    fn what_was_written_is_read_back_and_known_to_be_whole() {
        let (header, file) = file();
        let found = read(&file).unwrap();
        assert_eq!(found, header);
        check(&found, &file).unwrap();
    }

    #[test]
    fn a_changed_bit_is_found_wherever_it_is() {
        let (header, file) = file();
        let bytes = header.tensors.iter().flat_map(Entry::range);
        for at in (0..PREFIX).chain(bytes).chain(3 * ALIGN..file.len()) {
            let mut other = file.clone();
            other[at] ^= 0x10;
            match read(&other) {
                Err(_) => {}
                Ok(read) => assert!(check(&read, &other).is_err(), "byte {at}"),
            }
        }
    }

    #[test]
    fn headers_that_lie_are_refused() {
        let lies: [fn(&mut Header); 7] = [
            |h| h.tensors[0].start = 0,
            |h| h.tensors[1].start = 2 * ALIGN + 16,
            |h| h.tensors[1].code = Some(vec![0]),
            |h| h.tensors[1].start = ALIGN,
            |h| h.tensors[1].bytes = usize::MAX,
            |h| h.tensors[0].shape = vec![3, 65],
            |h| h.tensors[0].shape = vec![usize::MAX, 64],
        ];
        let (header, file) = file();
        for lie in lies {
            let mut other = header.clone();
            lie(&mut other);
            read(&with_header(file.clone(), &other)).unwrap_err();
        }
        for len in 0..file.len() {
            read(&file[..len]).unwrap_err();
        }
    }
}
