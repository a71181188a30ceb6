//! Weights that also lie packed: every bit comes back, what does not pay stays as it is, and nothing else about them changes.

use super::files;
use half::{bf16, f16};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use trt_kernel::{DType, SumOrder};
use trt_pack::{Geometry, Unpacker};
use trt_stream::{Copies, PackOptions, PackedRows, Store, StoreError, TensorId, Weights};

/// Sums of uniform numbers, which are as good as normal ones, of a seed.
fn normal(seed: u64, count: usize) -> impl Iterator<Item = f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..count).map(move |_| 0.04 * (0..6).map(|_| uniform()).sum::<f32>())
}

/// The tensors of the checkpoint: those that are packed, of both kinds and of experts whose rows are whole units; then too small a matrix,
/// rows that are no whole pieces, experts that are no whole units, f32, and values that are anything.
const TENSORS: [(&str, DType, &[usize]); 9] = [
    ("layers.10.weight", DType::BF16, &[700, 1032]),
    ("layers.2.weight", DType::BF16, &[2000, 64]),
    ("experts", DType::BF16, &[2, 256, 2048]),
    ("half", DType::F16, &[300, 512]),
    ("small", DType::BF16, &[8, 64]),
    ("odd", DType::BF16, &[900, 100]),
    ("ragged", DType::BF16, &[3, 100, 512]),
    ("single", DType::F32, &[300, 512]),
    ("noise", DType::BF16, &[300, 512]),
];
const PACKED: [&str; 4] = ["layers.10.weight", "layers.2.weight", "experts", "half"];

fn bytes(number: usize, dtype: DType, count: usize) -> Vec<u8> {
    let values = normal(number as u64 + 1, count);
    match (TENSORS[number].0, dtype) {
        ("noise", _) => {
            let mixed = (0..count).map(|i| (i as u32 ^ 77).wrapping_mul(0x9e37_79b1) >> 13);
            mixed.flat_map(|v| (v as u16).to_le_bytes()).collect()
        }
        (_, DType::BF16) => values
            .enumerate()
            .flat_map(|(i, v)| match i % 5003 {
                // Patterns of every kind are among them.
                0 => (i as u16).wrapping_mul(0x9e37).to_le_bytes(),
                _ => bf16::from_f32(v).to_le_bytes(),
            })
            .collect(),
        (_, DType::F16) => values
            .flat_map(|v| f16::from_f32(bf16::from_f32(v).to_f32()).to_le_bytes())
            .collect(),
        _ => values.flat_map(f32::to_le_bytes).collect(),
    }
}

fn checkpoint(folder: &Path) -> PathBuf {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (number, (name, dtype, shape)) in TENSORS.into_iter().enumerate() {
        let begin = data.len();
        data.extend(bytes(number, dtype, shape.iter().product()));
        let dtype = dtype.name().to_uppercase();
        let entry = serde_json::json!({
            "dtype": dtype, "shape": shape, "data_offsets": [begin, data.len()]
        });
        header.insert(name.into(), entry);
    }
    let header = serde_json::Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    let path = folder.join("model.safetensors");
    std::fs::write(&path, file).unwrap();
    path
}

fn opened(folder: &Path) -> Arc<Weights> {
    Arc::new(Weights::open(checkpoint(folder)).unwrap())
}

/// Packs, and says how many bytes of weights were packed.
fn packed(weights: &Arc<Weights>, store: &Store) -> (Arc<Weights>, u64) {
    let made = AtomicU64::new(0);
    let progress = |done: u64, total: u64| {
        assert!(done <= total && made.swap(done, Ordering::Relaxed) < done);
    };
    let options = PackOptions {
        store: store.clone(),
        progress: &progress,
    };
    let all = weights.pack(&options).unwrap();
    (all, made.into_inner())
}

/// A tensor's bytes, unpacked of its units by the code that is a table for kernels.
fn unpacked(weights: &Weights, rows: &PackedRows) -> Vec<u8> {
    let file = &weights.files()[rows.file.0 as usize].map;
    let lanes = SumOrder::new(rows.columns, DType::BF16.into())
        .unwrap()
        .lanes;
    let geometry = Geometry::new(rows.columns, lanes).unwrap();
    let code = weights.bytes(rows.code).unwrap();
    let word = |at: usize| u32::from_le_bytes(code[at..at + 4].try_into().unwrap());
    let kinds = (rows.encoding.kind(), rows.encoding.arity());
    let unpacker = Unpacker::of_argument(geometry, kinds, code).unwrap();
    let mut out = Vec::new();
    let units = rows.rows.div_ceil(rows.unit_rows);
    assert_eq!(rows.offsets.len(), units + 1);
    assert_eq!(code.len(), (16384 + 4 * (units + 1)).next_multiple_of(16));
    for unit in 0..units {
        let [from, to] = [unit, unit + 1].map(|u| word(16384 + 4 * u) as usize * 16);
        assert_eq!([from, to], [rows.offsets[unit], rows.offsets[unit + 1]]);
        let left = rows.rows - unit * rows.unit_rows;
        let mut values = vec![0; left.min(rows.unit_rows) * rows.columns];
        let unit = &file[rows.start + from..rows.start + to];
        unpacker.unpack(unit, &mut values).unwrap();
        out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    }
    out
}

fn check(plain: &Weights, all: &Weights) {
    let name = |id: TensorId| all.get(id).unwrap().name.as_str();
    let mut found = Vec::new();
    for id in all.ids() {
        assert_eq!(all.get(id), plain.get(id));
        if let Some(rows) = all.packed(id) {
            assert!(
                unpacked(all, rows) == plain.bytes(id).unwrap(),
                "{}",
                name(id)
            );
            found.push(name(id));
        }
    }
    found.sort_by_key(|n| PACKED.iter().position(|p| p == n));
    assert_eq!(found, PACKED);
}

#[test]
fn what_is_packed_is_every_bit_of_it_and_what_does_not_pay_stays() {
    let dir = tempfile::tempdir().unwrap();
    let weights = opened(dir.path());
    for store in [Store::Memory, Store::Folder(dir.path().join("made"))] {
        let (all, made) = packed(&weights, &store);
        check(&weights, &all);
        let packing = all.packing().unwrap();
        assert_eq!(made, packing.plain_bytes());
        let ratio = packing.packed_bytes() as f64 / packing.plain_bytes() as f64;
        assert!((0.6..0.69).contains(&ratio), "{ratio}");
        assert_eq!(packing.path().is_none(), store == Store::Memory);
    }
}

#[test]
fn packing_changes_nothing_else_about_weights() {
    let dir = tempfile::tempdir().unwrap();
    let weights = opened(dir.path());
    let (all, _) = packed(&weights, &Store::Memory);
    assert_eq!(all.fingerprint(), weights.fingerprint());
    assert_eq!(all.total_bytes(), weights.total_bytes());
    assert_eq!(all.len(), weights.len());
    assert!(all.names().eq(weights.names()));
    assert!(all.find("half.code").is_err());
    let same = |(a, b): ((TensorId, _), (TensorId, _))| a == b;
    assert!(all.iter().zip(weights.iter()).all(same));
    // Packed weights have nothing more to be packed.
    assert!(Arc::ptr_eq(&packed(&all, &Store::Memory).0, &all));
}

#[test]
fn weights_that_are_no_longer_what_was_packed_are_not_packed() {
    let mut copies = Copies::new().unwrap();
    for name in ["a", "b"] {
        let bytes = bytes(3, DType::F16, 300 * 512);
        copies.add(name, DType::F16, &[300, 512], &bytes).unwrap();
    }
    let weights = Arc::new(copies.finish().unwrap());
    let (all, _) = packed(&weights, &Store::Memory);
    assert!(all.ids().all(|id| all.packed(id).is_some()));
    let to = trt_kernel::BlockType::Q8_0;
    let blocks = all.quantised(to, &Store::Memory, &|_, _| {}).unwrap();
    assert!(blocks.names().eq(weights.names()));
    assert!(blocks.ids().all(|id| blocks.packed(id).is_none()));
}

#[test]
fn what_was_packed_is_kept_and_used_again_in_the_order_of_layers() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("made");
    let store = Store::Folder(folder.clone());
    let weights = opened(dir.path());
    let (first, made) = packed(&weights, &store);
    assert!(made > 0);
    let (again, made) = packed(&weights, &store);
    assert_eq!(made, 0, "it was packed again");
    check(&weights, &again);
    assert_eq!(files(&folder).len(), 1);
    assert_eq!(
        again.packing().unwrap().path(),
        first.packing().unwrap().path()
    );
    let start = |name: &str| first.packed(weights.find(name).unwrap()).unwrap().start;
    assert!(start("layers.2.weight") < start("layers.10.weight"));
    // Files that were changed since are other ones, and what was packed of them goes.
    std::thread::sleep(std::time::Duration::from_millis(20));
    let changed = opened(dir.path());
    assert!(packed(&changed, &store).1 > 0);
    assert_eq!(files(&folder).len(), 1);
}

#[test]
fn a_side_file_is_opened_wherever_it_lies_and_refused_if_it_is_of_other_weights() {
    let dir = tempfile::tempdir().unwrap();
    let weights = opened(dir.path());
    let store = Store::Folder(dir.path().join("made"));
    let (all, _) = packed(&weights, &store);
    let path = all.packing().unwrap().path().unwrap().to_path_buf();
    let moved = dir.path().join("moved");
    std::fs::rename(&path, &moved).unwrap();
    check(&weights, &weights.with_packed(&moved).unwrap());
    assert!(!path.exists());
    let error = weights.with_packed(&path).unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
    std::thread::sleep(std::time::Duration::from_millis(20));
    let error = opened(dir.path()).with_packed(&moved).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert!(moved.exists(), "what was only to be opened stays");
}

#[test]
fn a_damaged_file_is_packed_again_wherever_the_damage_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::Folder(dir.path().join("made"));
    let weights = opened(dir.path());
    let (whole, _) = packed(&weights, &store);
    let path = whole.packing().unwrap().path().unwrap().to_path_buf();
    let bytes = std::fs::read(&path).unwrap();
    let half = whole.packed(weights.find("half").unwrap()).unwrap();
    let table = half.start + half.bytes();
    let flips = [
        3,
        20,
        half.start,
        half.start + 100,
        table - 1,
        table,
        table + 5,
        bytes.len() - 9,
    ];
    let flipped = flips.map(|at| {
        let mut other = bytes.clone();
        other[at] ^= 1;
        other
    });
    let cuts = [0, 10, 5000, bytes.len() - 1].map(|len| bytes[..len].to_vec());
    for damaged in flipped.into_iter().chain(cuts) {
        std::fs::write(&path, damaged).unwrap();
        let (again, made) = packed(&weights, &store);
        assert!(made > 0, "it was not packed again");
        check(&weights, &again);
        // Who maps the file that was damaged keeps what it has: it was not written to again.
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
}

#[test]
fn weights_in_memory_are_packed_in_memory() {
    let mut copies = Copies::new().unwrap();
    for (number, (name, dtype, shape)) in TENSORS.into_iter().enumerate() {
        let bytes = bytes(number, dtype, shape.iter().product());
        copies.add(name, dtype, shape, &bytes).unwrap();
    }
    let weights = Arc::new(copies.finish().unwrap());
    let (all, _) = packed(&weights, &Store::Memory);
    check(&weights, &all);
    // What has nothing that it pays for is what it was.
    let mut copies = Copies::new().unwrap();
    copies.add("norm", DType::F32, &[64], &[0; 256]).unwrap();
    let weights = Arc::new(copies.finish().unwrap());
    assert!(Arc::ptr_eq(&packed(&weights, &Store::Memory).0, &weights));
}

#[test]
fn what_is_packed_lies_beside_the_model_or_where_that_cannot_be_in_the_other_folder() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    std::fs::create_dir(&model).unwrap();
    let weights = opened(&model);
    let other = dir.path().join("cache");
    let store = Store::Beside(other.clone());
    let (all, made) = packed(&weights, &store);
    assert!(made > 0);
    let path = all.packing().unwrap().path().unwrap().to_path_buf();
    assert_eq!(path.parent(), Some(&*model));
    assert!(!other.exists());
    // The model itself is found as before.
    assert_eq!(
        Weights::open(&model).unwrap().fingerprint(),
        weights.fingerprint()
    );
    // A folder in which nothing can be made: its lock cannot be.
    std::fs::remove_file(&path).unwrap();
    let name = path.file_name().unwrap().to_string_lossy();
    let lock = model.join(format!(".{name}.lock"));
    std::fs::remove_file(&lock).unwrap();
    std::fs::create_dir(&lock).unwrap();
    let (all, made) = packed(&weights, &store);
    assert!(made > 0);
    check(&weights, &all);
    assert_eq!(all.packing().unwrap().path(), Some(&*other.join(&*name)));
    assert_eq!(packed(&weights, &store).1, 0, "it was packed again");
    // What has no folder is in the other one.
    let mut copies = Copies::new().unwrap();
    let half = bytes(3, DType::F16, 300 * 512);
    copies.add("half", DType::F16, &[300, 512], &half).unwrap();
    let weights = Arc::new(copies.finish().unwrap());
    let (all, _) = packed(&weights, &store);
    let path = all.packing().unwrap().path().unwrap().to_path_buf();
    assert_eq!(path.parent(), Some(&*other));
}

#[test]
fn a_disk_without_room_is_told_before_anything_is_written() {
    const EACH: [usize; 2] = [1 << 21, 1 << 13];
    const MATRICES: usize = 12;
    let dir = tempfile::tempdir().unwrap();
    // 384 GiB of zeros, which take no room as they are.
    let (mut header, each) = (serde_json::Map::new(), 2 * EACH[0] * EACH[1]);
    for number in 0..MATRICES {
        let entry = serde_json::json!({
            "dtype": "BF16", "shape": EACH, "data_offsets": [number * each, (number + 1) * each]
        });
        header.insert(format!("{number}"), entry);
    }
    let header = serde_json::Value::Object(header).to_string();
    let path = dir.path().join("model.safetensors");
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    std::fs::write(&path, &bytes).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    let sparse = file.set_len((bytes.len() + MATRICES * each) as u64).is_ok();
    let room = trt_device::free_bytes(&file).unwrap();
    if !sparse || room.is_none_or(|room| room > 150 << 30) {
        println!("did not run: this disk has no sparse files of 384 GiB, or room for all of them");
        return;
    }
    let weights = Arc::new(Weights::open(&path).unwrap());
    let made = dir.path().join("made");
    let error = weights
        .pack(&PackOptions::new(Store::Folder(made.clone())))
        .unwrap_err();
    let StoreError::NoRoom { needed, free, .. } = error else {
        panic!("{error}");
    };
    assert!(free <= 150 << 30 && needed > 192 << 30, "{free} {needed}");
    assert!(files(&made).is_empty());
}

#[test]
fn processes_that_pack_at_once_have_the_same_file() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("made");
    let store = Store::Folder(folder.clone());
    checkpoint(dir.path());
    // Locks are of open files, so threads with weights of their own are to each other what processes are.
    let made: Vec<u64> = std::thread::scope(|scope| {
        let one = || {
            let weights = Weights::open(dir.path().join("model.safetensors"));
            let weights = Arc::new(weights.unwrap());
            let (all, made) = packed(&weights, &store);
            check(&weights, &all);
            made
        };
        let all: Vec<_> = (0..3).map(|_| scope.spawn(one)).collect();
        all.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(made.iter().filter(|made| **made > 0).count(), 1, "{made:?}");
    assert_eq!(files(&folder).len(), 1);
}
