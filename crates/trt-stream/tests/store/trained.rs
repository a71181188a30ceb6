//! What packing leaves of trained weights.
//!
//! The checkpoints come from `candle-trt run --dtype bf16` and `--example embed`, which leave them in the cache folder. Without one its test says that it did
//! not run, unless `TRT_REQUIRE_MODEL=1`.

use half::bf16;
use std::path::PathBuf;
use std::sync::Arc;
use trt_kernel::DType;
use trt_stream::{Copies, PackOptions, Store, Weights};

fn model(name: &str) -> Option<Weights> {
    let cache = std::env::var_os("CANDLE_TRT_CACHE")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/candle-trt")))?;
    let file = cache.join(name).join("model.safetensors");
    if !file.exists() {
        let required = std::env::var_os("TRT_REQUIRE_MODEL").is_some();
        assert!(!required, "no {}", file.display());
        println!("did not run: no {}", file.display());
        return None;
    }
    Some(Weights::open(file).unwrap())
}

/// The share of the bytes of all matrices that is left.
fn ratio(weights: Weights) -> f64 {
    let weights = Arc::new(weights);
    let packed = weights.pack(&PackOptions::new(Store::Memory)).unwrap();
    let packing = packed.packing().unwrap();
    let matrices = weights.iter().filter(|(_, t)| t.shape.len() == 2);
    let bytes: usize = matrices.map(|(_, t)| t.bytes()).sum();
    assert!(packing.plain_bytes() as f64 > 0.99 * bytes as f64);
    packing.packed_bytes() as f64 / packing.plain_bytes() as f64
}

#[test]
fn smollm2_in_bf16_takes_less_than_seven_tenths() {
    let Some(weights) = model("SmolLM2-135M-Instruct-bf16") else {
        return;
    };
    let ratio = ratio(weights);
    println!("SmolLM2-135M: {ratio:.4}");
    assert!(ratio <= 0.70, "{ratio}");
}

#[test]
fn minilm_in_bf16_takes_less_than_seven_tenths() {
    let Some(weights) = model("all-MiniLM-L6-v2") else {
        return;
    };
    let mut copies = Copies::new().unwrap();
    for (id, info) in weights.iter() {
        let words = weights.bytes(id).unwrap().as_chunks::<4>().0.iter();
        let values = words.map(|w| bf16::from_f32(f32::from_le_bytes(*w)));
        let bytes: Vec<u8> = values.flat_map(|v| v.to_le_bytes()).collect();
        copies
            .add(&info.name, DType::BF16, &info.shape, &bytes)
            .unwrap();
    }
    let ratio = ratio(copies.finish().unwrap());
    println!("MiniLM: {ratio:.4}");
    assert!(ratio <= 0.70, "{ratio}");
}
