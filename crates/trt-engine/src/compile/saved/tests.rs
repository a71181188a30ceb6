//! Files that lie: damaged, and with a hash that says they are not.

use super::header::{before, hash};
use super::*;
use crate::{Compiler, FromTensors, Weights};
use candle_core::{Device, Tensor};
use std::collections::HashMap;
use std::sync::Arc;
use trt_device::Host;
use trt_graph::candle::Module;
use trt_graph::candle_nn::{Embedding, Linear, VarBuilder, ops};
use trt_graph::{Call, candle::D};

fn weights() -> Arc<Weights> {
    let draw = |shape: (usize, usize)| Tensor::randn(0f32, 1., shape, &Device::Cpu).unwrap();
    let all = [
        ("table", draw((10, 8))),
        ("up", draw((128, 8))),
        ("down", draw((8, 128))),
    ];
    let all: HashMap<String, Tensor> = all.into_iter().map(|(n, t)| (n.into(), t)).collect();
    Arc::new(Weights::from_tensors(all).unwrap())
}

fn compiler(weights: Arc<Weights>) -> Compiler {
    Compiler::new(weights).device(Host::unified())
}

/// Gathers, multiplies by a weight and by one that is derived of another, and normalises.
fn engine(weights: Arc<Weights>) -> Engine {
    let profile = Profile::single(&[("n", 1, 9)]).unwrap();
    let engine = compiler(weights)
        .profile(profile)
        .compile(|vb: VarBuilder| {
            let table = Embedding::new(vb.get((10, 8), "table")?, 8);
            let up = Linear::new((vb.get((128, 8), "up")? * 0.5)?, None);
            let down = Linear::new(vb.get((8, 128), "down")?, None);
            Ok(move |call: &Call| {
                let ids = call.input("ids", call.int("n")?, candle_core::DType::U32)?;
                let x = table.forward(&ids)?;
                let h = down.forward(&up.forward(&x)?.silu()?)?;
                Ok(vec![ops::softmax(&(h + x)?, D::Minus1)?.t()?])
            })
        });
    engine.unwrap()
}

#[test]
fn a_damaged_program_with_the_right_hash_is_refused_or_loads_but_never_panics() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("program");
    let weights = weights();
    engine(weights.clone()).save(&path).unwrap();
    let good = std::fs::read(&path).unwrap();
    let (head, body) = good.split_at(HEADER);
    let fingerprint = weights.fingerprint();
    assert_eq!(head, before(fingerprint, body));
    let (mut refused, mut loaded) = (0, 0);
    let mut state = 1u64;
    for at in 0..body.len() {
        // One bit of every byte, another one in every run over the file.
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        let mut broken = body.to_vec();
        broken[at] ^= 1 << (state >> 61);
        let file = [before(fingerprint, &broken), broken].concat();
        std::fs::write(&path, file).unwrap();
        match compiler(weights.clone()).load(&path) {
            Ok(_) => loaded += 1,
            Err(_) => refused += 1,
        }
    }
    // Most changes are of names, sizes and ids that must agree.
    assert!(refused > loaded, "{refused} refused, {loaded} loaded");
}

#[test]
fn a_body_that_ends_early_or_late_is_refused_whatever_its_hash() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("program");
    let weights = weights();
    engine(weights.clone()).save(&path).unwrap();
    let good = std::fs::read(&path).unwrap();
    let body = &good[HEADER..];
    for body in [&body[..body.len() - 1], &body[..10], &[body, &[0]].concat()] {
        let file = [&before(weights.fingerprint(), body)[..], body].concat();
        std::fs::write(&path, file).unwrap();
        let error = compiler(weights.clone()).load(&path).unwrap_err();
        let damaged = |e: &SavedError| matches!(e, SavedError::Damaged { .. });
        assert!(
            matches!(&error, Error::Saved { source, .. } if damaged(source)),
            "{error}"
        );
    }
}

#[test]
fn a_hash_tells_every_change_of_a_byte_and_of_a_length() {
    let bytes = [7u8; 29];
    let whole = hash(&[&bytes]);
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut other = bytes;
            other[at] ^= 1 << bit;
            assert_ne!(hash(&[&other]), whole);
        }
    }
    assert_ne!(hash(&[&bytes[..28]]), whole);
    assert_ne!(hash(&[&bytes[..8], &bytes[8..]]), whole);
}

#[test]
fn lengths_without_end_are_refused_before_memory_is_taken_for_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("program");
    let weights = weights();
    let load = || match compiler(weights.clone()).load(&path).unwrap_err() {
        Error::Saved { source, .. } => source,
        other => panic!("{other}"),
    };
    let mut head = before(weights.fingerprint(), &[]);
    // As many bytes as there can be, said and, by a file that is mostly hole, there.
    for len in [u64::MAX, 1 << 62, 1 << 42] {
        head[HEADER - 16..HEADER - 8].copy_from_slice(&len.to_le_bytes());
        std::fs::write(&path, &head).unwrap();
        assert!(matches!(load(), SavedError::Length { .. }));
    }
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len((1 << 42) + HEADER as u64).unwrap();
    assert!(matches!(load(), SavedError::TooLarge { .. }));
    // Weights are compared before lengths are.
    head[28] ^= 1;
    std::fs::write(&path, &head).unwrap();
    assert!(matches!(load(), SavedError::OtherWeights { .. }));
    // A pipe does not block, a folder and a device are said to be that.
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
    assert!(load().to_string().contains("a device"));
}

#[test]
fn a_length_inside_that_the_file_cannot_hold_is_refused_without_memory_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("program");
    let weights = weights();
    engine(weights.clone()).save(&path).unwrap();
    let body = std::fs::read(&path).unwrap().split_off(HEADER);
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    for at in 0..body.len().min(600) {
        // Whatever is a length here is now nearly 2^64.
        let broken = [&body[..at], &huge, &body[at + 1..]].concat();
        let file = [before(weights.fingerprint(), &broken), broken].concat();
        std::fs::write(&path, file).unwrap();
        let _ = compiler(weights.clone()).load(&path);
    }
}
