//! Hand-made GGUF files: whatever they are told, right or wrong.
#![allow(dead_code, reason = "each test file uses some of it")]

use std::path::{Path, PathBuf};

/// A tensor's name, its sizes columns first, its type by number, its offset, its bytes.
#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    pub sizes: Vec<u64>,
    pub kind: u32,
    pub offset: u64,
    pub bytes: u64,
}

/// A file to be.
#[derive(Clone)]
pub struct Gguf {
    pub version: u32,
    pub tensor_count: Option<u64>,
    pub value_count: Option<u64>,
    /// Keys, types and values as they are to be written.
    pub values: Vec<(String, u32, Vec<u8>)>,
    pub tensors: Vec<Tensor>,
    pub alignment: usize,
    /// Bytes of the data; those of the tensors if not set.
    pub data: Option<usize>,
}

pub fn text(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// A list of values of a type that are written already.
pub fn list(kind: u32, values: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend((values.len() as u64).to_le_bytes());
    bytes.extend(values.concat());
    bytes
}

impl Gguf {
    /// Version 3, with nothing in it.
    pub fn new() -> Gguf {
        Gguf {
            version: 3,
            tensor_count: None,
            value_count: None,
            values: Vec::new(),
            tensors: Vec::new(),
            alignment: 32,
            data: None,
        }
    }

    pub fn value(mut self, key: &str, kind: u32, bytes: Vec<u8>) -> Gguf {
        self.values.push((key.into(), kind, bytes));
        self
    }

    pub fn text(self, key: &str, value: &str) -> Gguf {
        self.value(key, 8, text(value))
    }

    pub fn u32(self, key: &str, value: u32) -> Gguf {
        self.value(key, 4, value.to_le_bytes().to_vec())
    }

    pub fn u16(self, key: &str, value: u16) -> Gguf {
        self.value(key, 2, value.to_le_bytes().to_vec())
    }

    pub fn i32(self, key: &str, value: i32) -> Gguf {
        self.value(key, 5, value.to_le_bytes().to_vec())
    }

    pub fn f32(self, key: &str, value: f32) -> Gguf {
        self.value(key, 6, value.to_le_bytes().to_vec())
    }

    /// A tensor of `[rows, columns]` or other sizes, rows first, after those before it.
    pub fn tensor(mut self, name: &str, shape: &[u64], kind: u32, bytes: u64) -> Gguf {
        let end = self.tensors.last().map_or(0, |t| t.offset + t.bytes);
        self.tensors.push(Tensor {
            name: name.into(),
            sizes: shape.iter().rev().copied().collect(),
            kind,
            offset: end.next_multiple_of(self.alignment as u64),
            bytes,
        });
        self
    }

    /// A tensor of f32.
    pub fn f32s(self, name: &str, shape: &[u64]) -> Gguf {
        let bytes = 4 * shape.iter().product::<u64>();
        self.tensor(name, shape, 0, bytes)
    }

    /// The file: header, padding, and data whose bytes count up.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        let tensors = self.tensor_count.unwrap_or(self.tensors.len() as u64);
        let values = self.value_count.unwrap_or(self.values.len() as u64);
        out.extend(tensors.to_le_bytes());
        out.extend(values.to_le_bytes());
        for (key, kind, bytes) in &self.values {
            out.extend(text(key));
            out.extend(kind.to_le_bytes());
            out.extend(bytes);
        }
        for t in &self.tensors {
            out.extend(text(&t.name));
            out.extend((t.sizes.len() as u32).to_le_bytes());
            t.sizes.iter().for_each(|d| out.extend(d.to_le_bytes()));
            out.extend(t.kind.to_le_bytes());
            out.extend(t.offset.to_le_bytes());
        }
        out.resize(out.len().next_multiple_of(self.alignment), 0);
        let ends = self
            .tensors
            .iter()
            .map(|t| t.offset.saturating_add(t.bytes));
        let data = self.data.unwrap_or(ends.max().unwrap_or(0) as usize);
        out.extend((0..data).map(|i| i as u8));
        out
    }

    pub fn write(&self, path: &Path) -> PathBuf {
        std::fs::write(path, self.bytes()).unwrap();
        path.to_path_buf()
    }
}
