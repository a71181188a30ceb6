//! Weights that are made of others: made once, kept whole, made again when they are not what was made.

mod packed;
mod trained;

use half::bf16;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use trt_kernel::{BlockType, DType, Encoding};
use trt_stream::{Copies, Derivation, Store, StoreError, TensorId, Weights, WeightsError};

/// Values about 0 that depend on a seed.
fn values(seed: usize, count: usize) -> Vec<f32> {
    let noise = |i: usize| (i.wrapping_mul(2_654_435_761).wrapping_add(seed * 97) % 2003) as f32;
    (0..count).map(|i| noise(i) / 1000.0 - 1.0).collect()
}

/// A file of a matrix whose rows are whole blocks of any type, one whose rows are of types of 32 values, one whose rows
/// are of none, and a norm.
fn checkpoint(folder: &Path, seed: usize) -> PathBuf {
    let tensors: [(&str, &[usize]); 4] = [
        ("large.weight", &[70, 512]),
        ("small.weight", &[64, 96]),
        ("odd.weight", &[5, 40]),
        ("norm.weight", &[512]),
    ];
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (number, (name, shape)) in tensors.into_iter().enumerate() {
        let begin = data.len();
        let all = values(seed + number, shape.iter().product());
        data.extend(all.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()));
        let entry = serde_json::json!({
            "dtype": "BF16", "shape": shape, "data_offsets": [begin, data.len()]
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

fn encoding(weights: &Weights, name: &str) -> Encoding {
    let id = weights.find(name).unwrap();
    weights.get(id).unwrap().encoding
}

/// The values of a tensor.
fn decoded(weights: &Weights, id: TensorId) -> Vec<f32> {
    let (info, bytes) = (weights.get(id).unwrap(), weights.bytes(id).unwrap());
    match info.encoding {
        Encoding::Blocks(block) => {
            let mut out = vec![0.0; info.elements()];
            let places = out.chunks_mut(block.values());
            bytes
                .chunks(block.bytes())
                .zip(places)
                .for_each(|(b, v)| block.decode(b, v));
            out
        }
        Encoding::Plain(DType::F32) => bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect(),
        Encoding::Packed(_) | Encoding::Code => unreachable!("no tensor of a file is packed"),
        Encoding::Plain(_) => bytes
            .chunks_exact(2)
            .map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32())
            .collect(),
    }
}

fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|n| !n.starts_with('.')).collect();
    names.sort();
    names
}

/// Quantises, and says how many bytes were made.
fn quantised(weights: &Weights, to: BlockType, store: &Store) -> (Weights, u64) {
    let made = AtomicU64::new(0);
    let progress = |done: u64, total: u64| {
        assert!(done <= total);
        made.store(done, Ordering::Relaxed);
    };
    let all = weights.quantised(to, store, &progress).unwrap();
    (all, made.into_inner())
}

#[test]
fn matrices_become_blocks_that_fit_their_rows_and_the_rest_stays() {
    let dir = tempfile::tempdir().unwrap();
    let weights = Weights::open(checkpoint(dir.path(), 1)).unwrap();
    for (to, small) in [
        (BlockType::Q4K, BlockType::Q5_0),
        (BlockType::Q6K, BlockType::Q8_0),
        (BlockType::Q2K, BlockType::Q4_0),
        (BlockType::Q8_0, BlockType::Q8_0),
    ] {
        let (made, _) = quantised(&weights, to, &Store::Memory);
        assert_eq!(encoding(&made, "large.weight"), Encoding::Blocks(to));
        assert_eq!(encoding(&made, "small.weight"), Encoding::Blocks(small));
        for name in ["odd.weight", "norm.weight"] {
            assert_eq!(encoding(&made, name), DType::BF16.into(), "{name}");
        }
        assert_eq!(made.len(), weights.len());
        for (id, info) in weights.iter() {
            let (from, to) = (decoded(&weights, id), decoded(&made, id));
            let squares = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>();
            let error = squares(&mut from.iter().zip(&to).map(|(a, b)| a - b));
            let whole = squares(&mut from.iter().copied());
            assert!(
                error < 0.04 * whole,
                "{to:?} {}: {}",
                info.name,
                error / whole
            );
        }
    }
}

#[test]
fn what_was_made_is_kept_and_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::Folder(dir.path().join("made"));
    let weights = Weights::open(checkpoint(dir.path(), 1)).unwrap();
    let (first, made) = quantised(&weights, BlockType::Q8_0, &store);
    assert_eq!(made, (70 * 512 + 64 * 96) / 32 * 34);
    let (again, made) = quantised(&weights, BlockType::Q8_0, &store);
    assert_eq!(made, 0, "it was made again");
    assert_eq!(first.fingerprint(), again.fingerprint());
    assert_ne!(first.fingerprint(), weights.fingerprint());
    assert_eq!(files(&dir.path().join("made")).len(), 1);
    // Another type is another file.
    assert!(quantised(&weights, BlockType::Q4_0, &store).1 > 0);
    assert_eq!(files(&dir.path().join("made")).len(), 2);
}

#[test]
fn a_damaged_file_is_made_again_wherever_the_damage_is() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("made");
    let store = Store::Folder(folder.clone());
    let weights = Weights::open(checkpoint(dir.path(), 1)).unwrap();
    let (whole, _) = quantised(&weights, BlockType::Q8_0, &store);
    let file = folder.join(&files(&folder)[0]);
    let bytes = std::fs::read(&file).unwrap();
    let want = decoded(&whole, whole.find("large.weight").unwrap());
    let cut = |len: usize| bytes[..len].to_vec();
    let flipped = |at: usize| {
        let mut other = bytes.clone();
        other[at] ^= 1;
        other
    };
    for damaged in [
        cut(0),
        cut(10),
        cut(5000),
        cut(bytes.len() - 1),
        flipped(3),
        flipped(20),
        flipped(bytes.len() - 1),
    ] {
        std::fs::write(&file, damaged).unwrap();
        let (again, made) = quantised(&weights, BlockType::Q8_0, &store);
        assert!(made > 0, "it was not made again");
        assert_eq!(decoded(&again, again.find("large.weight").unwrap()), want);
        assert_eq!(std::fs::read(&file).unwrap(), bytes);
    }
}

#[test]
fn other_files_are_other_weights() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::Folder(dir.path().join("made"));
    let (first, _) = quantised(
        &Weights::open(checkpoint(dir.path(), 1)).unwrap(),
        BlockType::Q8_0,
        &store,
    );
    // Of the same names, shapes and length, changed later.
    std::thread::sleep(std::time::Duration::from_millis(20));
    let changed = Weights::open(checkpoint(dir.path(), 2)).unwrap();
    let (second, made) = quantised(&changed, BlockType::Q8_0, &store);
    assert!(made > 0);
    let large = |w: &Weights| decoded(w, w.find("large.weight").unwrap());
    assert_ne!(large(&first), large(&second));
}

#[test]
fn values_that_blocks_cannot_hold_are_an_error_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::Folder(dir.path().join("made"));
    let mut copies = Copies::new().unwrap();
    let mut all = values(1, 2 * 64);
    all[70] = f32::INFINITY;
    let bytes: Vec<u8> = all.iter().flat_map(|v| v.to_le_bytes()).collect();
    copies
        .add("a.weight", DType::F32, &[2, 64], &bytes)
        .unwrap();
    let weights = copies.finish().unwrap();
    let error = weights
        .quantised(BlockType::Q8_0, &store, &|_, _| {})
        .unwrap_err();
    assert!(
        matches!(&error, StoreError::Encode { tensor, row: 1, .. } if tensor == "a.weight"),
        "{error}"
    );
    assert!(files(&dir.path().join("made")).is_empty());
    let error = weights
        .quantised(BlockType::Mxfp4, &store, &|_, _| {})
        .unwrap_err();
    assert!(error.to_string().contains("mxfp4"), "{error}");
}

#[test]
fn the_values_of_weights_in_blocks_are_beside_them() {
    let dir = tempfile::tempdir().unwrap();
    let weights = Weights::open(checkpoint(dir.path(), 1)).unwrap();
    let (blocks, _) = quantised(&weights, BlockType::Q4K, &Store::Memory);
    let of = [
        blocks.find("large.weight").unwrap(),
        blocks.find("small.weight").unwrap(),
    ];
    let (both, ids) = blocks.with_values(&of).unwrap();
    for (of, id) in of.into_iter().zip(ids) {
        assert_eq!(both.get(id).unwrap().encoding, DType::F32.into());
        assert_eq!(decoded(&both, id), decoded(&blocks, of));
        assert_eq!(both.get(of), blocks.get(of));
    }
    assert_eq!(
        both.find("large.weight").unwrap(),
        of[0],
        "a name leads to what it led to"
    );
}

/// Two weights that are derived of a checkpoint's norm: twice it, and its first half.
fn derivations() -> [Derivation; 2] {
    let one = |name: &str, shape: &[usize]| Derivation {
        name: name.into(),
        dtype: DType::F32,
        shape: shape.to_vec(),
    };
    [one("twice", &[512]), one("half", &[16, 16])]
}

/// Derives them, and says how many were made.
fn with_derived(weights: &Weights, store: &Store) -> (Weights, Option<PathBuf>, u64) {
    let norm = decoded(weights, weights.find("norm.weight").unwrap());
    let made = AtomicU64::new(0);
    let derive = |number: usize| {
        made.fetch_add(1, Ordering::Relaxed);
        let values: Vec<f32> = match number {
            0 => norm.iter().map(|v| 2.0 * v).collect(),
            _ => norm[..256].to_vec(),
        };
        Ok(values.iter().flat_map(|v| v.to_le_bytes()).collect())
    };
    let all = weights.with_derived(&derivations(), &derive, store);
    let all = all.unwrap();
    let norm: Vec<f32> = norm.iter().map(|v| 2.0 * v).collect();
    let twice = all.weights.require("twice", &[512], None).unwrap();
    assert_eq!(decoded(&all.weights, twice), norm);
    (all.weights, all.file, made.into_inner())
}

#[test]
fn derived_weights_are_made_once_and_found_by_name_beside_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let weights = Weights::open(checkpoint(dir.path(), 1)).unwrap();
    let store = Store::Folder(dir.path().join("made"));
    let (first, file, made) = with_derived(&weights, &store);
    assert_eq!(made, 2);
    assert_eq!(
        file.as_ref().and_then(|f| f.parent()),
        Some(&*dir.path().join("made"))
    );
    assert_eq!(with_derived(&weights, &store).2, 0, "they were made again");
    // Those that are made of a model's weights do not make it another model.
    assert_eq!(first.fingerprint(), weights.fingerprint());
    assert_eq!(first.len(), weights.len() + 2);
    let memory = with_derived(&weights, &Store::Memory);
    assert_eq!((memory.1, memory.2), (None, 2));
    // Damaged, and of files that were changed since.
    let bytes = std::fs::read(file.as_ref().unwrap()).unwrap();
    for at in [3, 20, bytes.len() - 1] {
        let mut other = bytes.clone();
        other[at] ^= 1;
        std::fs::write(file.as_ref().unwrap(), other).unwrap();
        assert_eq!(with_derived(&weights, &store).2, 2);
    }
    std::thread::sleep(std::time::Duration::from_millis(20));
    let changed = Weights::open(checkpoint(dir.path(), 2)).unwrap();
    assert_eq!(with_derived(&changed, &store).2, 2);
}

#[test]
fn what_cannot_be_derived_is_an_error_with_its_name_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let weights = Weights::open(checkpoint(dir.path(), 1)).unwrap();
    let store = Store::Folder(dir.path().join("made"));
    let refused = |wanted: &[Derivation], bytes: Option<usize>| {
        let derive = |_: usize| bytes.map(|n| vec![0; n]).ok_or_else(|| "no more".into());
        let all = weights.with_derived(wanted, &derive, &store);
        all.expect_err("it is refused")
    };
    let wanted = derivations();
    let error = refused(&wanted, None).to_string();
    assert!(
        error.contains("'twice'") && error.contains("no more"),
        "{error}"
    );
    let error = refused(&wanted, Some(4 * 511)).to_string();
    assert!(
        error.contains("2044 bytes") && error.contains("[512]"),
        "{error}"
    );
    assert!(files(&dir.path().join("made")).is_empty());
    // A name that the files have, or that comes twice.
    let mut taken = wanted[..1].to_vec();
    taken[0].name = "norm.weight".into();
    for wanted in [taken, vec![wanted[0].clone(), wanted[0].clone()]] {
        match refused(&wanted, Some(4 * 512)) {
            StoreError::Weights(WeightsError::Duplicate { tensor, .. }) => {
                assert_eq!(tensor, wanted[0].name);
            }
            other => panic!("{other}"),
        }
    }
}
