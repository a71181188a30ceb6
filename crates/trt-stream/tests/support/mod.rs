//! Hand-made safetensors files.
#![allow(dead_code, reason = "each test file uses some of it")]

use std::path::{Path, PathBuf};

/// A header given as text, then `data` bytes.
pub fn write_raw(path: &Path, header: &str, data: &[u8]) -> PathBuf {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(data);
    std::fs::write(path, bytes).unwrap();
    path.to_path_buf()
}

/// Tensors of f32, filled with distinct values, packed in order. The header is padded so that
/// data starts on a multiple of 8.
pub fn write_f32(path: &Path, tensors: &[(&str, &[usize])]) -> PathBuf {
    let mut entries = Vec::new();
    let mut at = 0;
    for (name, shape) in tensors {
        let end = at + shape.iter().product::<usize>() * 4;
        entries.push(format!(
            r#""{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{at},{end}]}}"#
        ));
        at = end;
    }
    let mut header = format!("{{{}}}", entries.join(","));
    header.push_str(&" ".repeat((8 - header.len() % 8) % 8));
    let data: Vec<u8> = (0..at / 4)
        .flat_map(|i| ((i as f32) * 0.37 + 1.0).to_le_bytes())
        .collect();
    write_raw(path, &header, &data)
}

/// Every tensor as a weight that is read by rows, numbered as the files have them.
pub fn rows_of(weights: &trt_stream::Weights) -> Vec<trt_stream::Weight> {
    let rows = |info| trt_stream::Weight::tensor(info, trt_kernel::Role::Rows.into());
    weights.iter().map(|(_, info)| rows(info)).collect()
}

/// A gather whose id (taken from zeroed memory) lies outside its table of no rows.
pub fn failing_kernel() -> trt_kernel::Kernel {
    use trt_kernel::{Arg, BodyBuilder, DType, Dim, Encoding, Gather, Kernel, Operand, View};
    let space = [Dim::from(1), Dim::from(4)];
    let mut body = BodyBuilder::new();
    let element = body.push(trt_kernel::Inst::Input);
    body.store(Arg(2), View::contiguous(&space), element);
    Kernel::Gather(Gather {
        rows: Dim::from(1),
        cols: 4,
        entries: 0,
        args: Encoding::plain([DType::U32, DType::F32, DType::F32]),
        ids: Operand {
            arg: Arg(0),
            view: View::contiguous(&[Dim::from(1)]),
        },
        table: Arg(1),
        body: body.finish(),
    })
}
