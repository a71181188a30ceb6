//! Saved engines whose bytes are anything, with a hash that says that they are right.

use crate::files::{folder, put};
use candle_core::{DType, Device as Cpu, Tensor};
use candle_trt::candle_nn::{Embedding, Linear, Module, VarBuilder, ops};
use candle_trt::device::{Device, Host};
use candle_trt::{Call, Compiler, FromTensors, Profile, Weights};
use candle_trt_fuzz::Target;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// Bytes of a header: the last 16 are the length of what follows and the hash of all before and
/// after.
const HEADER: usize = 52;

fn weights() -> Arc<Weights> {
    let draw = |shape: (usize, usize)| Tensor::ones(shape, DType::F32, &Cpu::Cpu).expect("ones");
    let all = [
        ("table", draw((10, 8))),
        ("up", draw((128, 8))),
        ("down", draw((8, 128))),
    ];
    let all: HashMap<String, Tensor> = all.into_iter().map(|(n, t)| (n.into(), t)).collect();
    Arc::new(Weights::from_tensors(all).expect("they are copied"))
}

/// Saves a model that gathers, multiplies and normalises.
fn save(weights: Arc<Weights>, device: Arc<dyn Device>, path: &Path) {
    let profile = Profile::single(&[("n", 1, 9)]).expect("a profile");
    let compiler = Compiler::new(weights)
        .shared_device(device)
        .profile(profile);
    let engine = compiler.compile(|vb: VarBuilder| {
        let table = Embedding::new(vb.get((10, 8), "table")?, 8);
        let up = Linear::new(vb.get((128, 8), "up")?, None);
        let down = Linear::new(vb.get((8, 128), "down")?, None);
        Ok(move |call: &Call| {
            let ids = call.input("ids", call.int("n")?, DType::U32)?;
            let x = table.forward(&ids)?;
            let h = down.forward(&up.forward(&x)?.silu()?)?;
            Ok(vec![ops::softmax(&(h + x)?, candle_core::D::Minus1)?])
        })
    });
    engine.expect("it compiles").save(path).expect("it saves");
}

/// The hash of a saved engine, as whoever makes one that lies would compute it.
fn hash(parts: [&[u8]; 2]) -> u64 {
    let mix = |hash: u64, word: u64| {
        let mixed = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 32)
    };
    let mut state = 0x6c62_272e_07bb_0142;
    for part in parts {
        let (words, rest) = part.as_chunks::<8>();
        let words = words.iter().map(|w| u64::from_le_bytes(*w));
        state = words
            .chain(rest.iter().map(|b| u64::from(*b)))
            .fold(state, mix);
        state = mix(state, part.len() as u64);
    }
    state
}

fn sealed(head: &[u8], body: &[u8]) -> Vec<u8> {
    let mut file = head[..HEADER - 16].to_vec();
    file.extend((body.len() as u64).to_le_bytes());
    let hash = hash([&file, body]);
    file.extend(hash.to_le_bytes());
    file.extend(body);
    file
}

#[test]
fn a_saved_engine_of_any_bytes_is_loaded_or_refused() {
    let dir = folder();
    let path = dir.path().join("model.engine");
    let weights = weights();
    let device: Arc<dyn Device> = Arc::new(Host::discrete().with_memory(64 << 20));
    save(weights.clone(), device.clone(), &path);
    let good = std::fs::read(&path).expect("it was saved");
    let (head, body) = good.split_at(HEADER);
    // If the format changes, this says so before every case is refused for its hash.
    assert!(
        sealed(head, body) == good,
        "the hash is made as the library makes it"
    );
    let load = |bytes: &[u8]| {
        put(&path, bytes);
        let compiler = Compiler::new(weights.clone()).shared_device(device.clone());
        compiler.load(&path)
    };
    load(&good).expect("it loads as it was saved");
    let bodies = [body.to_vec()];
    let target = Target::new("saved", &bodies);
    // What loads can be called: it may compute something else, and no more.
    let ids = Tensor::new(&[1u32, 2, 3], &Cpu::Cpu).expect("ids");
    target.run(|bytes| {
        let ran =
            load(&sealed(head, bytes)).and_then(|e| e.session()?.run(std::slice::from_ref(&ids)));
        drop(ran.map_err(|e| e.to_string()));
    });
    let whole = [good.clone()];
    let target = Target {
        bytes: 8 << 20,
        ..Target::new("saved-bytes", &whole)
    };
    target.run(|bytes| drop(load(bytes).map_err(|e| e.to_string())));
}
