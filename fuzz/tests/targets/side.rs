//! Side files of packed weights whose bytes are anything, also with checksums that say that they are right.
//!
//! A file whose checksums are wrong is refused, or its rows are every bit what was packed. One that was made to lie may hold other values, and
//! no more: units lie in the file where kernels can begin, and unpacking reads nothing else.

use crate::files::{folder, put};
use candle_core::{DType, Device, Tensor};
use candle_trt::kernel::SumOrder;
use candle_trt::stream::{PackOptions, PackedRows};
use candle_trt::{FromTensors, Store, Weights};
use candle_trt_fuzz::Target;
use serde_json::Value;
use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;
use trt_pack::{Geometry, Unpacker};

/// Rows that 8 lanes share, and some that 32 do.
const TENSORS: [(&str, DType, [usize; 2]); 3] = [
    ("a.0", DType::BF16, [128, 256]),
    ("a.1", DType::BF16, [70, 1032]),
    ("b", DType::F16, [64, 512]),
];
/// Bytes before the place and the length of the header; where its checksum is.
const PLACE: usize = 16;
const CHECKSUM: Range<usize> = 12..16;

/// Weights, and a side file that was packed of them.
struct Packed {
    weights: Arc<Weights>,
    good: Vec<u8>,
    header: Value,
    path: PathBuf,
    _folder: TempDir,
}

impl Packed {
    fn new() -> Packed {
        let mut random = fastrand::Rng::with_seed(5);
        let mut tensor = |(name, dtype, shape): (&str, DType, [usize; 2])| {
            let mut normal = || (0..4).map(|_| random.f32() - 0.5).sum::<f32>();
            let values: Vec<f32> = (0..shape[0] * shape[1]).map(|_| normal()).collect();
            let tensor = Tensor::from_vec(values, &shape, &Device::Cpu).expect("a tensor");
            // Of f16 those that were bf16 are worth packing.
            let tensor = tensor.to_dtype(DType::BF16).expect("rounded");
            (name.to_string(), tensor.to_dtype(dtype).expect("a dtype"))
        };
        let all: HashMap<String, Tensor> = TENSORS.into_iter().map(&mut tensor).collect();
        let weights = Arc::new(Weights::from_tensors(all).expect("they are copied"));
        let folder = folder();
        let options = PackOptions::new(Store::Folder(folder.path().into()));
        let packed = weights.pack(&options).expect("they are packed");
        let path = packed.packing().and_then(|p| p.path()).expect("a file");
        let path = path.to_path_buf();
        let good = std::fs::read(&path).expect("it was written");
        let at = number(&good[PLACE..]);
        let header = serde_json::from_slice(&good[at..]).expect("JSON");
        let packed = Packed {
            weights,
            good,
            header,
            path,
            _folder: folder,
        };
        // If the format changes, this says so before every case is refused for its checksum.
        assert!(packed.sealed(&packed.good[at..]) == packed.good);
        assert!(packed.open(&packed.good), "it is opened as it was made");
        packed
    }

    /// The file with another header, whose checksum is right.
    fn sealed(&self, header: &[u8]) -> Vec<u8> {
        let at = number(&self.good[PLACE..]);
        let mut file = self.good[..at].to_vec();
        file.extend(header);
        file[CHECKSUM].copy_from_slice(&crc32fast::hash(header).to_le_bytes());
        file[PLACE + 8..][..8].copy_from_slice(&(header.len() as u64).to_le_bytes());
        file
    }

    /// Where the units of a tensor lie, and behind them their table.
    fn places(&self, tensor: usize) -> [Range<usize>; 2] {
        let of = |key: &str| {
            self.header["tensors"][tensor][key]
                .as_u64()
                .expect("a number")
        };
        let (start, bytes) = (of("start") as usize, of("bytes") as usize);
        let end = match self.header["tensors"].get(tensor + 1) {
            Some(_) => start + bytes + 8,
            None => number(&self.good[PLACE..]),
        };
        [start..start + bytes, start + bytes..end]
    }

    /// The file with other units of a tensor and another table of them, whose checksums are right.
    fn with(&self, tensor: usize, units: &[u8], table: &[u8]) -> Vec<u8> {
        let [at_units, at_table] = self.places(tensor);
        let mut header = self.header.clone();
        header["tensors"][tensor]["checksum"] = crc32fast::hash(table).into();
        let mut file = self.sealed(header.to_string().as_bytes());
        file[at_units].copy_from_slice(units);
        file[at_table].copy_from_slice(table);
        file
    }

    /// Opens a file and unpacks all that it says it has; whether it was opened.
    fn open(&self, bytes: &[u8]) -> bool {
        put(&self.path, bytes);
        match self.weights.with_packed(&self.path) {
            Ok(packed) => {
                for id in packed.ids() {
                    if let Some(rows) = packed.packed(id) {
                        unpack(&packed, rows);
                    }
                }
                true
            }
            Err(error) => {
                drop(error.to_string());
                false
            }
        }
    }

    /// Whether a file is refused, or holds the rows that were packed.
    fn honest(&self, bytes: &[u8]) {
        put(&self.path, bytes);
        let Ok(packed) = self.weights.with_packed(&self.path) else {
            return;
        };
        for id in packed.ids() {
            if let Some(rows) = packed.packed(id) {
                let values = unpack(&packed, rows);
                let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                assert!(Some(&bytes[..]) == packed.bytes(id), "other values");
            }
        }
    }
}

fn number(bytes: &[u8]) -> usize {
    let word = bytes.first_chunk().expect("a number");
    u64::from_le_bytes(*word) as usize
}

/// The rows as a kernel unpacks them, which finds units and code where it is told.
fn unpack(weights: &Weights, rows: &PackedRows) -> Vec<u16> {
    let file = &weights.files()[rows.file.0 as usize].map;
    let order = SumOrder::new(rows.columns, rows.encoding.into()).expect("whole pieces");
    let geometry = Geometry::new(rows.columns, order.lanes).expect("whole pieces");
    let code = weights.bytes(rows.code).expect("a code");
    let kinds = (rows.encoding.kind(), rows.encoding.arity());
    let unpacker = Unpacker::of_argument(geometry, kinds, code).expect("a table");
    assert!(rows.start.is_multiple_of(16));
    let mut values = vec![0; rows.rows * rows.columns];
    let mut left = &mut values[..];
    for pair in rows.offsets.windows(2) {
        assert!(pair[0] <= pair[1] && pair[0].is_multiple_of(16));
        let unit = &file[rows.start + pair[0]..rows.start + pair[1]];
        let count = left.len().min(rows.unit_rows * rows.columns);
        let (unpacked, rest) = left.split_at_mut(count);
        // A kernel does not look again at what was checked.
        unpacker.unpack(unit, unpacked).expect("checked places");
        left = rest;
    }
    assert!(left.is_empty());
    values
}

#[test]
fn a_side_file_of_any_bytes_is_refused_or_every_bit_of_what_was_packed() {
    let packed = Packed::new();
    let corpus = [packed.good.clone()];
    let target = Target {
        cases: 40_000,
        bytes: 8 << 20,
        ..Target::new("side file", &corpus)
    };
    target.run(|bytes| packed.honest(bytes));
}

#[test]
fn a_side_file_whose_header_lies_is_refused_or_read_within_its_bounds() {
    let packed = Packed::new();
    let corpus = [packed.header.to_string().into_bytes()];
    let words = [
        "\"code\":[",
        "\"start\":4096",
        "\"bytes\":",
        "18446744073709551615",
        "[2,1]",
    ];
    let target = Target {
        words: &words,
        cases: 40_000,
        bytes: 8 << 20,
        ..Target::new("side header", &corpus)
    };
    target.run(|header| {
        packed.open(&packed.sealed(header));
    });
}

#[test]
fn units_and_tables_that_lie_are_refused_or_read_within_their_bounds() {
    let packed = Packed::new();
    // Units whose checksum is right, and a table.
    let corpus: Vec<Vec<u8>> = (0..TENSORS.len())
        .flat_map(|tensor| {
            packed
                .places(tensor)
                .map(|range| packed.good[range].to_vec())
        })
        .collect();
    let target = Target {
        cases: 40_000,
        bytes: 8 << 20,
        ..Target::new("side units", &corpus)
    };
    let input = |seed: u64, case: u64| {
        let part = case as usize % corpus.len();
        let mut random = fastrand::Rng::with_seed(seed ^ case.wrapping_mul(0x9e37_79b9));
        let mut bytes = match case < corpus.len() as u64 {
            true => corpus[part].clone(),
            false => target.changed(corpus[part].clone(), &mut random),
        };
        // It lies where it lay, and which part it is comes with it.
        bytes.resize(corpus[part].len(), 0);
        bytes.push(part as u8);
        bytes
    };
    target.run_on(input, |bytes| {
        let Some((part, bytes)) = bytes.split_last() else {
            return;
        };
        let part = usize::from(*part);
        let (units, mut table) = match part % 2 {
            0 => (bytes, corpus[part + 1].clone()),
            _ => (&corpus[part - 1][..], bytes.to_vec()),
        };
        if part % 2 == 0 {
            // One unit is all of it.
            table[4..8].copy_from_slice(&crc32fast::hash(units).to_le_bytes());
        }
        packed.open(&packed.with(part / 2, units, &table));
    });
}
