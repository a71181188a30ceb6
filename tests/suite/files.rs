//! What files of other people make an engine say: nothing wrong in them goes unsaid.

use crate::common::tiny;
use crate::families::tokens;
use candle_core::{DType, Device, Tensor};
use candle_trt::candle_nn::VarBuilder;
use candle_trt::device::{Host, HostMode};
use candle_trt::models::{Llama, LoadOptions};
use candle_trt::{Call, Compiler, Engine, Error, FromTensors, Profile, Weights};
use std::collections::HashMap;
use std::path::Path;

const CONTEXT: usize = 64;

/// The tiny model in f16, with each tensor as `change` makes it of its name and its values.
fn engine(mode: HostMode, change: impl Fn(&str, Tensor) -> Tensor) -> Engine {
    let model = tiny::llama();
    let tensors = model.tensors(7).into_iter();
    let tensors: HashMap<String, Tensor> = tensors
        .map(|(name, t)| {
            let half = change(&name, t).to_dtype(DType::F16).expect("a float");
            (name, half)
        })
        .collect();
    let config = model.config();
    let options = LoadOptions {
        max_positions: Some(CONTEXT),
    };
    Compiler::new(Weights::from_tensors(tensors).expect("they are copied"))
        .device(Host::new(mode))
        .profile(Profile::decoder(CONTEXT, 8).expect("a profile"))
        .compile(|vb| Llama::load_with(vb, &config, &options))
        .expect("it compiles")
}

/// Projections whose results f16 cannot hold.
fn beyond_f16(name: &str, tensor: Tensor) -> Tensor {
    let part = |end: &str| name.ends_with(end);
    let scaled = match () {
        _ if part("down_proj.weight") => tensor.sign().and_then(|t| t * 6e4),
        _ if part("up_proj.weight") || part("gate_proj.weight") => tensor * 50.,
        _ => Ok(tensor),
    };
    scaled.expect("values")
}

#[test]
fn logits_that_are_no_numbers_are_an_error_that_names_the_position_and_how_many() {
    for mode in [HostMode::Unified, HostMode::Discrete] {
        let good = engine(mode, |_, t| t);
        let mut session = good.session().expect("a session");
        session.prefill(&tokens(5)).expect("numbers");
        let bad = engine(mode, beyond_f16);
        let mut session = bad.session().expect("a session");
        // A prompt of several calls says so at its first.
        for (count, position) in [(1, 0), (5, 4), (20, 7)] {
            match session.prefill(&tokens(count)).expect_err("no numbers") {
                Error::NotFinite {
                    position: at,
                    count,
                    nan,
                    positive,
                    negative,
                } => {
                    assert_eq!((at, count), (position, 96));
                    assert!(nan + positive + negative > 0);
                }
                other => panic!("{other}"),
            }
            assert_eq!(session.position(), 0, "the position before the call");
        }
        let error = session.decode(3).expect_err("no numbers").to_string();
        assert!(error.contains("of 96 logits at position 0"), "{error}");
        // Raw outputs are what the model computes.
        let ids = Tensor::new(&[[1u32, 2, 3]], &Device::Cpu).expect("ids");
        let outputs = session.run(&[ids]).expect("outputs are not looked at");
        let values = outputs[0].flatten_all().and_then(|t| t.to_vec1::<f32>());
        assert!(values.expect("values").iter().any(|v| !v.is_finite()));
        assert_eq!(session.position(), 3);
    }
}

/// Writes a safetensors file of these names, types and bytes of two elements each.
fn write(path: &Path, tensors: &[(&str, &str, usize)]) {
    let mut entries = Vec::new();
    let mut at = 0;
    for (name, dtype, size) in tensors {
        let end = at + 2 * size;
        entries.push(format!(
            r#""{name}":{{"dtype":"{dtype}","shape":[2],"data_offsets":[{at},{end}]}}"#
        ));
        at = end;
    }
    let header = format!("{{{}}}", entries.join(","));
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + at, 0);
    std::fs::write(path, bytes).expect("it is written");
}

/// What a model says that asks whether there is a tensor, and for it.
fn asked(dir: &Path, name: &str) -> (bool, String) {
    let mut there = false;
    let compiler = Compiler::new(Weights::open(dir).expect("it opens")).device(Host::unified());
    let profile = Profile::single(&[("n", 2, 4)]).expect("a profile");
    let made = compiler.profile(profile).compile(|vb: VarBuilder| {
        there = vb.contains_tensor(name);
        let w = vb.get(2, name)?;
        Ok(move |call: &Call| {
            let x = call.input("x", (call.int("n")?, 2), DType::F32)?;
            Ok(vec![x.broadcast_mul(&w)?])
        })
    });
    let said = made.map_or_else(|e| e.to_string(), |_| "it compiles".into());
    (there, said)
}

#[test]
fn a_tensor_of_a_type_that_no_kernel_has_is_there_and_said_to_be_of_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let tensors = [
        ("fine", "F32", 4),
        ("eighth", "F8_E4M3", 1),
        ("ids", "I64", 8),
        ("flags", "BOOL", 1),
        ("double", "F64", 8),
    ];
    write(&dir.path().join("model.safetensors"), &tensors);
    assert_eq!(asked(dir.path(), "fine"), (true, "it compiles".into()));
    for (name, dtype, _) in &tensors[1..] {
        let (there, said) = asked(dir.path(), name);
        assert!(there, "a model must not take it for absent");
        let named = format!("tensor '{name}' is {dtype}; weights can be F32, F16, BF16");
        assert!(said.contains(&named), "{said}");
        assert_eq!(said.matches(dtype).count(), 1, "{said}");
    }
    let (there, said) = asked(dir.path(), "model.fine");
    assert!(
        !there && said.contains("fine (without the prefix 'model.')"),
        "{said}"
    );
}

#[test]
fn what_an_index_promises_and_does_not_hold_is_there_and_said_to_be_missing() {
    let dir = tempfile::tempdir().expect("a folder");
    write(
        &dir.path().join("1.safetensors"),
        &[("a", "F32", 4), ("more", "F32", 4)],
    );
    let index = r#"{"weight_map":{"a":"./1.safetensors","mtp.fc.weight":"2.safetensors"}}"#;
    let path = dir.path().join("model.safetensors.index.json");
    std::fs::write(path, index).expect("it is written");
    assert_eq!(asked(dir.path(), "a"), (true, "it compiles".into()));
    let (there, said) = asked(dir.path(), "mtp.fc.weight");
    assert!(
        there && said.contains("'2.safetensors', which does not exist"),
        "{said}"
    );
    let (there, said) = asked(dir.path(), "more");
    assert!(!there && said.contains("does not name it"), "{said}");
}

#[test]
fn the_default_device_is_the_one_that_auto_names() {
    let dir = tempfile::tempdir().expect("a folder");
    write(&dir.path().join("model.safetensors"), &[("w", "F32", 4)]);
    let auto = candle_trt::device::open("auto").expect("a device");
    let profile = Profile::single(&[("n", 2, 4)]).expect("a profile");
    let compiler = Compiler::new(Weights::open(dir.path()).expect("it opens"));
    let engine = compiler.profile(profile).compile(|vb: VarBuilder| {
        let w = vb.get(2, "w")?;
        Ok(move |call: &Call| {
            let x = call.input("x", (call.int("n")?, 2), DType::F32)?;
            Ok(vec![x.broadcast_mul(&w)?])
        })
    });
    let engine = engine.expect("it compiles");
    assert_eq!(engine.device().info().name, auto.info().name);
}
