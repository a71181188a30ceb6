//! Weights that kernels read packed or plain, with the same values.
//!
//! The toy code of these tests keeps the upper half of each f32, whose lower half is zero, and lets
//! some bytes follow each unit, so that units of equally many rows store different numbers of bytes.

use crate::support::write_raw;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use tempfile::TempDir;
use trt_alloc::Pool;
use trt_device::{Device, Memory, Stream, Work};
use trt_kernel::{DType, ROW_PANEL, Role, Roles};
use trt_stream::{
    Config, Error, FileId, Form, Matrix, Part, ProgramId, Request, Streamer, TileTarget, Turning,
    Units, Use, Weight, WeightId, Weights,
};

/// A weight `[experts, rows, columns]` of some roles, perhaps packed too.
type Made = (&'static str, [usize; 3], bool);

pub const MADE: [Made; 8] = [
    ("q", [1, 320, 48], true),
    ("k", [1, 130, 48], true),
    ("v", [1, 130, 48], false),
    ("up", [1, 500, 24], true),
    ("gate", [1, 500, 24], true),
    ("experts", [3, 150, 32], true),
    ("head", [1, 700, 16], true),
    ("norm", [1, 1, 96], false),
];
pub const EXPERTS: WeightId = WeightId(5);
pub const HEAD: WeightId = WeightId(6);

/// Everything once, of the experts only some, and one of them again.
pub fn program() -> Vec<Use> {
    let mut uses: Vec<Use> = (0..5).map(|w| WeightId(w).into()).collect();
    uses.extend([2, 0, 2].map(|e| Use::expert(EXPERTS, e)));
    uses.push(HEAD.into());
    uses
}

/// The first three share a launch, one of which has but one form, and so do the next two.
pub fn together() -> Vec<Vec<WeightId>> {
    [vec![0, 1, 2], vec![3, 4]]
        .map(|launch| launch.into_iter().map(WeightId).collect())
        .to_vec()
}

/// The values of each weight: those of bf16, as f32.
static VALUES: LazyLock<Vec<Vec<u32>>> = LazyLock::new(|| {
    let values = |(weight, (_, [experts, rows, columns], _)): (u32, Made)| {
        let count = (experts * rows * columns) as u32;
        let value = |at: u32| at.wrapping_mul(0x9e37_79b9).rotate_left(weight) & 0xffff_0000;
        (0..count).map(value).collect()
    };
    (0..).zip(MADE).map(values).collect()
});

fn values(weight: WeightId) -> &'static [u32] {
    &VALUES[weight.0 as usize]
}

fn plain(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn halves(values: &[u32]) -> Vec<u8> {
    let upper = values.iter().map(|v| (v >> 16) as u16);
    upper.flat_map(u16::to_le_bytes).collect()
}

/// Units of a weight in rows of all experts, and where each lies from the form's first byte.
fn units(weight: WeightId) -> Vec<(Range<usize>, Range<usize>)> {
    let (_, [experts, rows, columns], _) = MADE[weight.0 as usize];
    let mut at = 0;
    let mut units = Vec::new();
    for expert in 0..experts {
        for start in (0..rows).step_by(ROW_PANEL) {
            let end = (start + ROW_PANEL).min(rows);
            let bytes = (end - start) * columns * 2 + units.len() % 4 * 16;
            units.push((expert * rows + start..expert * rows + end, at..at + bytes));
            at += bytes;
        }
    }
    units
}

pub struct Bench {
    _dir: TempDir,
    pub device: Arc<dyn Device>,
    pub pool: Pool,
    files: Arc<Weights>,
    weights: Vec<Weight>,
    pub compute: Stream,
    out: Memory,
}

/// Rows that a pass handed out: of which use, whether packed, and where they were copied to.
struct Found {
    what: Use,
    rows: Range<usize>,
    packed: bool,
    bytes: Range<usize>,
}

impl Bench {
    pub fn on(device: Arc<dyn Device>) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let (files, weights) = write(&dir.path().join("w.safetensors"));
        Bench {
            _dir: dir,
            compute: device.stream("compute").unwrap(),
            out: device.allocate(1 << 20).unwrap(),
            pool: Pool::new(device.clone(), u64::MAX),
            device,
            files: Arc::new(files),
            weights,
        }
    }

    pub fn config(&self, request: Request) -> Config {
        Config {
            pool: self.pool.clone(),
            files: self.files.clone(),
            weights: self.weights.clone(),
            compute: self.compute,
            programs: vec![program()],
            turning: Turning {
                together: together(),
                prefer_plain: true,
            },
            tile_target: TileTarget::Bytes(8 << 10),
            request,
            free: 0,
        }
    }

    pub fn streamer(&self, request: Request) -> Streamer {
        Streamer::new(self.config(request)).unwrap()
    }

    /// A pass must hand out the rows that its uses read, each in the form that is in force.
    pub fn pass(&self, streamer: &mut Streamer) {
        let mut found: Vec<Found> = Vec::new();
        let mut pass = streamer.begin(ProgramId(0)).unwrap();
        for launch in together() {
            let two = launch.iter().filter(|w| MADE[w.0 as usize].2);
            let mut forms: Vec<bool> = two
                .map(|w| pass.form(*w).unwrap().units.is_some())
                .collect();
            forms.dedup();
            assert_eq!(forms.len(), 1, "{launch:?} are read in two forms");
        }
        let mut at = 0;
        while let Some(what) = pass.upcoming() {
            let packed = pass.form(what.weight).unwrap().units.is_some();
            pass.next_use(|tiles| {
                for (rows, src) in tiles.each() {
                    let bytes = at..at + src.len();
                    at = bytes.end;
                    let dst = self.out.whole().slice(bytes.clone())?;
                    let src = src.clone();
                    self.device.submit(self.compute, Work::Copy { dst, src })?;
                    found.push(Found {
                        what,
                        rows,
                        packed,
                        bytes,
                    });
                }
                Ok::<(), Error>(())
            })
            .unwrap();
        }
        pass.finish().unwrap();
        let mut bytes = vec![0; at];
        let out = self.out.whole().slice(0..at).unwrap();
        self.device.read(self.compute, &out, &mut bytes).unwrap();
        check(&found, &bytes);
    }
}

/// What was found must be the values of the uses, row by row.
fn check(found: &[Found], bytes: &[u8]) {
    let mut next: Vec<(Use, usize)> = program().into_iter().map(|u| (u, 0)).rev().collect();
    for Found {
        what,
        rows,
        packed,
        bytes: range,
    } in found
    {
        let (_, [experts, each, columns], _) = MADE[what.weight.0 as usize];
        let (base, all) = match what.part {
            Part::All => (0, experts * each),
            Part::Expert(expert) => (expert as usize * each, each),
        };
        let due = next.last_mut().unwrap();
        assert_eq!(*due, (*what, rows.start), "rows come in order");
        match rows.end == all {
            true => drop(next.pop()),
            false => due.1 = rows.end,
        }
        let rows = base + rows.start..base + rows.end;
        let values = values(what.weight);
        let (mut at, bytes) = (0, &bytes[range.clone()]);
        if !packed {
            let expected = plain(&values[rows.start * columns..rows.end * columns]);
            assert!(bytes == expected, "a pass handed out other bits");
            continue;
        }
        let of = units(what.weight).into_iter();
        for (unit, stored) in of.filter(|(u, _)| rows.start <= u.start && u.end <= rows.end) {
            let expected = halves(&values[unit.start * columns..unit.end * columns]);
            let there = &bytes[at..at + expected.len()];
            assert!(there == expected, "a pass handed out other bits");
            at += stored.len();
        }
        assert_eq!(at, bytes.len(), "a tile is its units");
    }
    assert!(next.is_empty(), "every row was handed out");
}

/// Writes all weights to one file, the packed form of each after its plain one, and opens it.
fn write(path: &Path) -> (Weights, Vec<Weight>) {
    let mut data: Vec<u8> = Vec::new();
    let mut entries = Vec::new();
    let mut add = |name: String, dtype: &str, shape: &[usize], bytes: &[u8]| {
        let (start, end) = (data.len(), data.len() + bytes.len());
        entries.push(format!(
            r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{start},{end}]}}"#
        ));
        data.extend(bytes);
        start
    };
    let mut weights = Vec::new();
    for (i, (name, [experts, rows, columns], two)) in MADE.into_iter().enumerate() {
        let id = WeightId(i as u32);
        let values = values(id);
        let source = add(
            name.into(),
            "F32",
            &[experts * rows, columns],
            &plain(values),
        );
        let mut packed = Vec::new();
        let mut offsets = vec![0];
        for (unit, stored) in units(id) {
            packed.extend(halves(&values[unit.start * columns..unit.end * columns]));
            packed.resize(stored.end, 0x55);
            offsets.push(packed.len());
        }
        let second = two.then(|| Form {
            encoding: DType::F32.into(),
            file: FileId(0),
            start: add(format!("{name}.packed"), "U8", &[packed.len()], &packed),
            units: Some(Arc::new(Units::new(ROW_PANEL, offsets).unwrap())),
            unpack: None,
        });
        weights.push(Weight {
            name: name.into(),
            matrix: Matrix {
                experts,
                rows,
                columns,
            },
            roles: match name {
                "norm" => Roles::from(Role::Whole),
                _ => Roles::from(Role::Rows),
            },
            source: Form {
                encoding: DType::F32.into(),
                file: FileId(0),
                start: source,
                units: None,
                unpack: None,
            },
            second,
        });
    }
    weights[HEAD.0 as usize].roles.add(Role::Table);
    let header = format!("{{{}}}", entries.join(","));
    let base = 8 + header.len();
    for weight in &mut weights {
        weight.source.start += base;
        if let Some(form) = &mut weight.second {
            form.start += base;
        }
    }
    write_raw(path, &header, &data);
    (Weights::open(path).unwrap(), weights)
}
