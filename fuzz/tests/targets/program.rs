//! Programs as saved engines hold them: read, and checked to the end.

use candle_trt::graph::candle::{DType, IndexOp, Module, Result, Tensor};
use candle_trt::graph::candle_nn::{self, Stored, VarBuilder, WeightSource};
use candle_trt::graph::program::Program;
use candle_trt::graph::{Call, Profile, compile, trace};
use candle_trt_fuzz::Target;
use std::sync::Arc;

/// Weights whose name says their shape: `5x4` is `[5, 4]` in f32.
struct Named;

impl WeightSource for Named {
    fn find(&self, name: &str) -> Option<Stored> {
        let leaf = name.rsplit('.').next()?;
        let shape = leaf.split('x').map(|n| n.parse().ok());
        let dtype = candle_trt::kernel::DType::F32;
        Some(Stored::new(name, shape.collect::<Option<_>>()?, dtype))
    }
    fn similar(&self, _: &str) -> Vec<String> {
        Vec::new()
    }
}

/// A decoder of one layer: gather, norm, products that share a launch, rope, a cache, attention,
/// a gate.
fn decoder(vb: VarBuilder) -> Result<impl FnMut(&Call<'_>) -> Result<Vec<Tensor>>> {
    let linear = |name: &str, n: usize, k: usize| -> Result<candle_nn::Linear> {
        Ok(candle_nn::Linear::new(vb.get((n, k), name)?, None))
    };
    let table = vb.get((20, 8), "20x8")?;
    let norm = vb.pp("n").get(8, "8")?;
    let [q, k, v, o] = ["q", "k", "v", "o"].map(|p| linear(&format!("{p}.8x8"), 8, 8));
    let (q, k, v, o) = (q?, k?, v?, o?);
    let (gate, up, down) = (
        linear("g.12x8", 12, 8)?,
        linear("u.12x8", 12, 8)?,
        linear("8x12", 8, 12)?,
    );
    let (cos, sin) = (
        vb.pp("c").get((32, 2), "32x2")?,
        vb.pp("s").get((32, 2), "32x2")?,
    );
    let mut cache = candle_nn::kv_cache::KvCache::new(2, 32);
    Ok(move |call: &Call<'_>| {
        let (past, seq) = (call.int("past")?, call.int("seq")?);
        let ids = call.input("ids", (1, seq), DType::U32)?;
        let x = table.embedding(&ids.flatten_all()?)?.reshape((1, seq, 8))?;
        let n = candle_nn::ops::rms_norm(&x, &norm, 1e-5)?;
        let heads = |t: Tensor| t.reshape((1, seq, 2, 4))?.transpose(1, 2);
        let turn = |t: Tensor| {
            let (cos, sin) = (cos.narrow(0, past, seq)?, sin.narrow(0, past, seq)?);
            candle_nn::rotary_emb::rope(&t, &cos, &sin)
        };
        let q = turn(heads(q.forward(&n)?)?)?;
        let (k, v) = cache.append(&turn(heads(k.forward(&n)?)?)?, &heads(v.forward(&n)?)?)?;
        let scores = (q.matmul(&k.t()?)? * 0.5)?;
        let y = candle_nn::ops::softmax_last_dim(&scores)?.matmul(&v)?;
        let x = (x + o.forward(&y.transpose(1, 2)?.reshape((1, seq, 8))?)?)?;
        let h = (gate.forward(&x)?.silu()? * up.forward(&x)?)?;
        let x = (x + down.forward(&h)?)?;
        Ok(vec![x.i((.., seq - 1, ..))?])
    })
}

/// Windows, moves, constants, and a group norm.
fn images(vb: VarBuilder) -> Result<impl FnMut(&Call<'_>) -> Result<Vec<Tensor>>> {
    let kernel = vb.get((4, 2, 3, 3), "4x2x3x3")?;
    Ok(move |call: &Call<'_>| {
        let x = call.input("x", (call.int("batch")?, 2, 6, 6), DType::F32)?;
        let y = x.conv2d(&kernel, 1, 1, 1, 1)?.relu()?;
        let scale = Tensor::new(&[1f32, 2., 3., 4.], y.device())?.reshape((1, 4, 1, 1))?;
        let y = y.broadcast_mul(&scale)?.upsample_nearest2d(12, 12)?;
        Ok(vec![y.max_pool2d(2)?, y.mean_all()?])
    })
}

fn stored<S: candle_trt::Step>(
    profile: Profile,
    mut load: impl FnMut(VarBuilder<'static>) -> Result<S>,
) -> Vec<Vec<u8>> {
    let vb = VarBuilder::new(Arc::new(Named), DType::F32);
    let stored = |class| {
        let graph = trace(&mut load, &vb, class).expect("it is traced");
        let (program, _) = compile(graph).expect("it compiles");
        program.verify().expect("it is a program");
        postcard::to_stdvec(&program).expect("it is stored")
    };
    profile.classes.iter().map(stored).collect()
}

#[test]
fn a_program_of_any_bytes_is_checked_soon_and_in_little_memory() {
    let mut corpus = stored(Profile::decoder(32, 8).expect("a profile"), decoder);
    corpus.extend(stored(
        Profile::single(&[("batch", 1, 5)]).expect("a profile"),
        images,
    ));
    Target::new("program", &corpus).run(|bytes| {
        if let Ok(program) = postcard::from_bytes::<Program>(bytes) {
            let _ = program.verify();
        }
    });
}
