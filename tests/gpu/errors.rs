//! What goes wrong on a GPU is an error with numbers, and the device goes on.

use crate::small::CONTEXT;
use crate::tiny::{self, tokens};
use crate::{cuda, cuda_alone};
use candle_core::Tensor;
use candle_trt::device::{self, Device, Work};
use candle_trt::kernel::{
    Arg, BodyBuilder, DType, Dim, Encoding, Env, Gather, Inst, Kernel, Operand, View,
};
use candle_trt::models::{Llama, LoadOptions};
use candle_trt::{Compiler, Error, FromTensors, Profile, Weights};
use std::collections::HashMap;

/// Projections whose results f16 cannot hold.
fn beyond_f16(name: &str, tensor: Tensor) -> candle_core::Result<Tensor> {
    let part = |end: &str| name.ends_with(end);
    let scaled = match () {
        _ if part("down_proj.weight") => tensor.sign().and_then(|t| t * 6e4),
        _ if part("up_proj.weight") || part("gate_proj.weight") => tensor * 50.,
        _ => Ok(tensor),
    };
    scaled?.to_dtype(candle_core::DType::F16)
}

#[test]
fn logits_that_are_no_numbers_are_an_error_that_names_the_position_and_how_many() {
    let Some(device) = cuda() else { return };
    let model = tiny::llama();
    let tensors = model.tensors(7).into_iter();
    let tensors = tensors.map(|(name, t)| Ok((name.clone(), beyond_f16(&name, t)?)));
    let tensors: candle_core::Result<HashMap<String, Tensor>> = tensors.collect();
    let weights = Weights::from_tensors(tensors.expect("values")).expect("they are copied");
    let config = model.config();
    let options = LoadOptions {
        max_positions: Some(CONTEXT),
    };
    let engine = Compiler::new(weights)
        .shared_device(device)
        .profile(Profile::decoder(CONTEXT, CONTEXT - 4).expect("a profile"))
        .compile(|vb| Llama::load_with(vb, &config, &options))
        .expect("it compiles");
    let mut session = engine.session().expect("a session");
    for prompt in [1, 5] {
        match session.prefill(&tokens(prompt)).expect_err("no numbers") {
            Error::NotFinite {
                position, count, ..
            } => assert_eq!((position, count), (prompt - 1, 96)),
            other => panic!("{other}"),
        }
        assert_eq!(session.position(), 0);
    }
}

#[test]
fn a_device_that_does_not_exist_is_an_error_with_its_number() {
    let Some(_gpu) = cuda() else { return };
    let error = device::open("cuda:77")
        .expect_err("there is none")
        .to_string();
    assert!(error.contains("77"), "{error}");
}

#[test]
fn too_much_memory_is_an_error_with_the_bytes_and_the_device_goes_on() {
    let Some(gpu) = cuda_alone() else { return };
    let bytes = 1usize << 44;
    let error = gpu.allocate(bytes).expect_err("no GPU has it").to_string();
    assert!(error.contains(&bytes.to_string()), "{error}");
    let reserved = gpu.reserve(1 << 40).expect("addresses are free");
    let error = gpu
        .commit(&reserved, 1 << 40)
        .expect_err("no GPU has it")
        .to_string();
    assert!(error.contains(&(1usize << 40).to_string()), "{error}");
    gpu.commit(&reserved, 4 << 20).expect("a little fits");
    round_trip(&*gpu);
}

/// Bytes come back as they were written.
fn round_trip(gpu: &dyn Device) {
    let stream = gpu.stream("test").expect("a stream");
    let memory = gpu.allocate(1 << 16).expect("memory").whole();
    let bytes: Vec<u8> = (0..1u32 << 16).map(|i| (i * 7 % 251) as u8).collect();
    let write = Work::Write {
        dst: memory.clone(),
        bytes: bytes.clone(),
    };
    gpu.submit(stream, write).expect("a write");
    let mut found = vec![0; bytes.len()];
    gpu.read(stream, &memory, &mut found).expect("a read");
    assert!(found == bytes);
}

fn gather(entries: usize) -> Kernel {
    let space = [Dim::from(3), Dim::from(4)];
    let mut body = BodyBuilder::new();
    let element = body.push(Inst::Input);
    body.store(Arg(2), View::contiguous(&space), element);
    Kernel::Gather(Gather {
        rows: Dim::from(3),
        cols: 4,
        entries,
        args: Encoding::plain([DType::U32, DType::F32, DType::F32]),
        ids: Operand {
            arg: Arg(0),
            view: View::contiguous(&[Dim::from(3)]),
        },
        table: Arg(1),
        body: body.finish(),
    })
}

#[test]
fn an_id_outside_its_table_is_an_error_with_numbers_and_the_stream_goes_on() {
    let Some(gpu) = cuda() else { return };
    let stream = gpu.stream("test").expect("a stream");
    let executable = gpu.load(&gather(5)).expect("it loads");
    let [ids, table, out] = [12, 80, 48].map(|n| gpu.allocate(n).expect("memory").whole());
    let run = |values: [u32; 3]| {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let dst = ids.clone();
        gpu.submit(stream, Work::Write { dst, bytes })?;
        let args = vec![ids.clone(), table.clone(), out.clone()];
        let work = Work::Launch {
            executable: executable.clone(),
            env: Env::default(),
            args,
            tiles: vec![],
            scratch: None,
        };
        gpu.submit(stream, work)?;
        gpu.synchronize(stream)
    };
    run([0, 4, 2]).expect("all in the table");
    let error = run([0, 4_000_000_000, 2]).expect_err("outside").to_string();
    assert!(
        error.contains("4000000000") && error.contains('5'),
        "{error}"
    );
    run([1, 1, 1]).expect("the stream goes on");
    round_trip(&*gpu);
}

#[test]
fn a_launch_with_wrong_arguments_is_refused() {
    let Some(gpu) = cuda() else { return };
    let stream = gpu.stream("test").expect("a stream");
    let executable = gpu.load(&gather(5)).expect("it loads");
    let work = Work::Launch {
        executable,
        env: Env::default(),
        args: vec![],
        tiles: vec![],
        scratch: None,
    };
    assert!(gpu.submit(stream, work).is_err());
    round_trip(&*gpu);
}
