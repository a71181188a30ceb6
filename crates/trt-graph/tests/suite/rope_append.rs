//! Rope and appends as part of the attention that reads them.

use crate::support::{compare, trace_in};
use trt_graph::candle::{D, DType, Device, Result, Tensor};
use trt_graph::candle_nn::{kv_cache::KvCache, ops, rotary_emb};
use trt_graph::program::{Program, Source};
use trt_graph::{Call, Profile, compile};
use trt_kernel::Kernel;

const HEADS: usize = 4;
const GROUPS: usize = 2;
const SIZE: usize = 16;

/// What is done to the queries, keys and values of a call.
struct Layer {
    cache: KvCache,
    cos: Tensor,
    sin: Tensor,
    past: usize,
    seq: usize,
}

impl Layer {
    fn new(dtype: DType) -> Result<Layer> {
        let angles: Vec<f32> = (0..64 * SIZE / 2)
            .map(|i| (i as f32 * 0.37).sin())
            .collect();
        let angles = Tensor::from_vec(angles, (64, SIZE / 2), &Device::Cpu)?;
        Ok(Layer {
            cache: KvCache::new(2, 64),
            cos: angles.cos()?.to_dtype(dtype)?,
            sin: angles.sin()?.to_dtype(dtype)?,
            past: 0,
            seq: 0,
        })
    }

    fn rope(&self, x: &Tensor) -> Result<Tensor> {
        let angles = |t: &Tensor| t.narrow(0, self.past, self.seq);
        rotary_emb::rope(&x.contiguous()?, &angles(&self.cos)?, &angles(&self.sin)?)
    }

    fn attention(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let repeat = |t: &Tensor| {
            let shape = (1, HEADS, self.past + self.seq, SIZE);
            Tensor::cat(&[t, t], 2)?.reshape(shape)
        };
        let wide = |t: Tensor| t.to_dtype(DType::F32);
        let (k, v) = (wide(repeat(k)?)?, wide(repeat(v)?)?);
        let (past, all) = (self.past, self.past + self.seq);
        let hidden = |i: usize| match i % all > i / all + past {
            true => f32::NEG_INFINITY,
            false => 0.,
        };
        let mask: Vec<f32> = (0..self.seq * all).map(hidden).collect();
        let mask = Tensor::from_vec(mask, (1, 1, self.seq, all), &Device::Cpu)?;
        let scores = (wide(q.clone())?.matmul(&k.t()?)? / (SIZE as f64).sqrt())?;
        let p = ops::softmax_last_dim(&scores.broadcast_add(&mask)?)?;
        p.matmul(&v)?.to_dtype(q.dtype())
    }
}

/// A step on queries, keys and values.
type Step = fn(&mut Layer, [Tensor; 3]) -> Result<Vec<Tensor>>;

fn plain(layer: &mut Layer, [q, k, v]: [Tensor; 3]) -> Result<Vec<Tensor>> {
    let (q, k) = (layer.rope(&q)?, layer.rope(&k)?);
    let (k, v) = layer.cache.append(&k, &v)?;
    Ok(vec![layer.attention(&q, &k, &v)?])
}

/// The program of a class of calls, after it was compared with the reference.
fn compiled(class: usize, dtype: DType, step: Step) -> Program {
    let mut profile = Profile::decoder(64, 16).unwrap();
    profile.classes.swap(0, class);
    let graph = trace_in(&profile, |_| {
        let mut layer = Layer::new(dtype)?;
        Ok(move |call: &Call<'_>| {
            (layer.past, layer.seq) = (call.int("past")?, call.int("seq")?);
            let part = |name: &str, heads: usize| {
                let x = call.input(name, (1, layer.seq, heads * SIZE), dtype)?;
                let x = x.reshape((1, layer.seq, heads, SIZE))?;
                x.transpose(1, 2)
            };
            let parts = [part("q", HEADS)?, part("k", GROUPS)?, part("v", GROUPS)?];
            step(&mut layer, parts)
        })
    });
    let graph = graph.unwrap();
    let calls = [[[0, 1], [1, 1], [63, 1]], [[0, 16], [5, 2], [40, 16]]];
    for ints in calls[class] {
        compare(&graph, &ints, 2e-2).unwrap_or_else(|e| panic!("{e}"));
    }
    compile(graph).unwrap().0
}

/// Its launches.
fn launches(program: &Program) -> Vec<String> {
    let name = |kernel: &Kernel| match kernel {
        Kernel::Group(g) => format!("group of {}", g.parts.len()),
        Kernel::Attention(k) => format!("attention behind {}", k.before.len()),
        other => other.kind().into(),
    };
    program.launches.iter().map(|l| name(&l.kernel)).collect()
}

#[test]
fn a_step_of_one_token_is_one_launch() {
    for dtype in [DType::BF16, DType::F16] {
        let program = compiled(0, dtype, plain);
        assert_eq!(launches(&program), ["attention behind 3"], "{program}");
    }
}

#[test]
fn many_tokens_and_dtypes_without_tensor_cores_are_left_apart() {
    for (class, dtype) in [(1, DType::BF16), (0, DType::F32)] {
        let found = launches(&compiled(class, dtype, plain));
        assert_eq!(
            found.last().unwrap(),
            "attention behind 0",
            "{class} {dtype:?}"
        );
    }
}

#[test]
fn queries_that_others_read_are_stored() {
    let program = compiled(0, DType::BF16, |layer, [q, k, v]| {
        let (q, k) = (layer.rope(&q)?, layer.rope(&k)?);
        let (k, v) = layer.cache.append(&k, &v)?;
        Ok(vec![layer.attention(&q, &k, &v)?, q])
    });
    let found = launches(&program);
    assert_eq!(found.last().unwrap(), "attention behind 0", "{program}");
}

#[test]
fn a_cache_that_others_read_is_written_before_they_do() {
    let program = compiled(0, DType::BF16, |layer, [q, k, v]| {
        let (q, k) = (layer.rope(&q)?, layer.rope(&k)?);
        let (k, v) = layer.cache.append(&k, &v)?;
        let sums = v.sum_keepdim(D::Minus1)?;
        Ok(vec![layer.attention(&q, &k, &v)?, sums])
    });
    // The values are appended by a launch of their own.
    let found = launches(&program);
    assert!(found.contains(&"attention behind 2".into()), "{program}");
}

#[test]
fn what_is_computed_on_the_way_to_a_cache_is_computed_there() {
    let program = compiled(0, DType::BF16, |layer, [q, k, v]| {
        let (q, k) = (layer.rope(&q)?, layer.rope(&k)?);
        let (k, v) = layer.cache.append(&k, &v.neg()?)?;
        Ok(vec![layer.attention(&q, &k, &v)?])
    });
    assert_eq!(launches(&program), ["attention behind 3"], "{program}");
}

#[test]
fn what_a_launch_writes_is_one_argument_of_it() {
    let program = compiled(0, DType::BF16, plain);
    let Kernel::Attention(k) = &program.launches[0].kernel else {
        panic!("{program}");
    };
    let [keys, values] = [&k.k, &k.v].map(|o| o.arg.0 as usize);
    let mut shared = program.clone();
    shared.launches[0].args[keys] = shared.launches[0].args[values];
    let error = shared.verify().expect_err("two rows write one cache");
    assert!(error.to_string().contains("another argument"), "{error}");
    // Queries that are the result's memory would be read where other blocks have written.
    let mut shared = program.clone();
    let out = shared.launches[0].args[k.out.arg.0 as usize];
    let read = k.before[0].body.insts.iter().find_map(|i| match i {
        trt_kernel::Inst::Load(arg, _) => Some(arg.0 as usize),
        _ => None,
    });
    shared.launches[0].args[read.unwrap()] = out;
    shared.verify().expect_err("queries lie in the result");
    let Source::Buffer(out) = out else { return };
    let mut shared = program.clone();
    shared.launches[0].in_place.push((out, out));
    let error = shared
        .verify()
        .expect_err("the result replaces what it is made from");
    assert!(error.to_string().contains("replace"), "{error}");
}
