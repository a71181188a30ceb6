//! Weights in two forms: plain ones, and ones in blocks that are packed in the file.
//!
//! The toy code of these tests cuts the zero bytes off the end of each unit of 64 rows. So units of
//! equally many rows store different numbers of bytes, and unpacking is a copy and some zeros.

use crate::support::write_raw;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use trt_device::Work;
use trt_kernel::{BlockType, Encoding, ROW_PANEL, Role, Roles};
use trt_stream::{Error, FileId, Form, Matrix, Packed, Units, Unpack, Weight, Weights};

/// Blocks of 32 values in 34 bytes.
pub const BLOCKS: Encoding = Encoding::Blocks(BlockType::Q8_0);

/// Puts back the zeros that were cut off.
#[derive(Debug)]
pub struct Zeros;

impl Unpack for Zeros {
    fn works(&self, packed: &Packed<'_>) -> Result<Vec<Work>, Error> {
        let row = packed.held.len() / packed.rows.len();
        let mut works = Vec::new();
        for (unit, stored) in packed.units().enumerate() {
            let start = unit * ROW_PANEL * row;
            let end = packed.held.len().min(start + ROW_PANEL * row);
            let middle = start + stored.len();
            works.push(Work::Copy {
                dst: packed.held.slice(start..middle)?,
                src: packed.stored.slice(stored)?,
            });
            works.push(Work::Write {
                dst: packed.held.slice(middle..end)?,
                bytes: vec![0; end - middle],
            });
        }
        Ok(works)
    }
}

/// A weight to be written, whose values are a function of its name and their place.
#[derive(Clone, Copy)]
pub struct Made {
    pub name: &'static str,
    pub matrix: Matrix,
    /// Whether rows are read from a second form, in packed blocks.
    pub packed: bool,
}

impl Made {
    pub const fn new(name: &'static str, sizes: [usize; 3], packed: bool) -> Made {
        let [experts, rows, columns] = sizes;
        let matrix = Matrix {
            experts,
            rows,
            columns,
        };
        Made {
            name,
            matrix,
            packed,
        }
    }

    fn all_rows(&self) -> usize {
        self.matrix.experts * self.matrix.rows
    }

    /// Its values. The last rows of each unit are zero, more of them in later units.
    pub fn values(&self) -> Vec<f32> {
        let Matrix { rows, columns, .. } = self.matrix;
        let seed = self.name.bytes().fold(1.0, |s, b| s * 1.3 + f32::from(b));
        let value = |at: usize| {
            let row = at / columns;
            let (unit, within) = (row % rows / ROW_PANEL, row % rows % ROW_PANEL);
            match within + (unit * 13) % 50 >= ROW_PANEL {
                true => 0.0,
                false => ((at as f32) * 0.37 + seed).sin(),
            }
        };
        (0..self.all_rows() * columns).map(value).collect()
    }

    /// The bytes of its rows as kernels read them.
    pub fn held(&self) -> Vec<u8> {
        match self.packed {
            true => blocks(&self.values()),
            false => plain(&self.values()),
        }
    }

    /// Bytes of a row of that.
    pub fn row_bytes(&self) -> usize {
        self.held().len() / self.all_rows()
    }

    /// The ends of its units in rows of the whole weight.
    fn units(&self) -> Vec<Range<usize>> {
        let rows = self.matrix.rows;
        let experts = (0..self.matrix.experts).map(|e| e * rows);
        let starts = experts.flat_map(|e| (0..rows).step_by(ROW_PANEL).map(move |r| (e, r)));
        starts
            .map(|(e, r)| e + r..e + (r + ROW_PANEL).min(rows))
            .collect()
    }
}

fn plain(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Values as blocks: a scale of f16, then 32 values of i8.
pub fn blocks(values: &[f32]) -> Vec<u8> {
    let block = |values: &[f32]| {
        let largest = values.iter().fold(0f32, |m, v| m.max(v.abs()));
        let scale = half::f16::from_f32(largest / 127.0);
        let by = match scale.to_f32() {
            0.0 => 0.0,
            scale => 1.0 / scale,
        };
        let whole = values.iter().map(move |v| (v * by).round() as i8 as u8);
        scale
            .to_le_bytes()
            .into_iter()
            .chain(whole)
            .collect::<Vec<u8>>()
    };
    values.chunks(32).flat_map(block).collect()
}

/// Writes these to one file, the packed form of each after its plain one, and opens it.
pub fn write(path: &Path, made: &[Made]) -> (Weights, Vec<Weight>) {
    let mut data: Vec<u8> = Vec::new();
    let mut entries = Vec::new();
    let mut forms = Vec::new();
    let mut add = |name: String, dtype: &str, shape: &[usize], bytes: &[u8]| {
        let (start, end) = (data.len(), data.len() + bytes.len());
        entries.push(format!(
            r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{start},{end}]}}"#
        ));
        data.extend(bytes);
        start
    };
    for weight in made {
        let values = weight.values();
        let shape = [weight.all_rows(), weight.matrix.columns];
        let source = add(weight.name.into(), "F32", &shape, &plain(&values));
        let mut packed = Vec::new();
        let mut offsets = vec![0];
        if weight.packed {
            let (held, row) = (weight.held(), weight.row_bytes());
            for rows in weight.units() {
                let unit = &held[rows.start * row..rows.end * row];
                let kept = unit
                    .iter()
                    .rposition(|b| *b != 0)
                    .map_or(0, |last| last + 1);
                packed.extend(&unit[..kept]);
                offsets.push(packed.len());
            }
        }
        // Of a dtype that no kernel uses, so that the file's index leaves it alone.
        let name = format!("{}.packed", weight.name);
        let start = add(name, "U8", &[packed.len()], &packed);
        forms.push((source, start, offsets));
    }
    let header = format!("{{{}}}", entries.join(","));
    write_raw(path, &header, &data);
    let base = 8 + header.len();
    let weights = made.iter().zip(forms);
    let weights = weights.map(|(made, (source, packed, offsets))| Weight {
        name: made.name.into(),
        matrix: made.matrix,
        roles: Roles::from(Role::Rows),
        source: Form {
            encoding: trt_kernel::DType::F32.into(),
            file: FileId(0),
            start: base + source,
            units: None,
            unpack: None,
        },
        second: made.packed.then(|| Form {
            encoding: BLOCKS,
            file: FileId(0),
            start: base + packed,
            units: Some(Arc::new(Units::new(ROW_PANEL, offsets).unwrap())),
            unpack: Some(Arc::new(Zeros)),
        }),
    });
    let weights = weights.collect();
    (Weights::open(path).unwrap(), weights)
}
