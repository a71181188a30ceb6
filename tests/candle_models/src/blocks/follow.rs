//! A ported model in an engine beside candle's model: a prompt, then token by token.

use super::file::File;
use candle_core::Device;
use candle_trt::candle::{DType, Result, Tensor};
use candle_trt::candle_nn::{VarBuilder, WeightSource};
use candle_trt::graph::{Class, Profile, compile, trace};
use candle_trt::kernel::{Encoding, Role};
use candle_trt::{Call, Compiler, Request, Step, Weights, device};

/// candle's model: tokens and the position of the first one in, logits out.
pub type Oracle<'a> =
    dyn FnMut(&candle_core::Tensor, usize) -> candle_core::Result<candle_core::Tensor> + 'a;

/// Off by this much of the largest logit at most.
const TOLERANCE: f32 = 1e-4;
const PROMPT: usize = 5;
const TOKENS: usize = 4;
const CONTEXT: usize = 16;

/// Whether prompts run at once.
#[derive(Clone, Copy)]
pub enum Prompts {
    /// At any position.
    Anywhere,
    /// candle's code has no masks for prompts behind others, so they run token by token.
    Never,
}

impl Prompts {
    fn profile(self) -> Profile {
        let longest = match self {
            Prompts::Anywhere => 8,
            Prompts::Never => 1,
        };
        Profile::decoder(CONTEXT, longest).expect("a profile")
    }

    /// Tokens of the call at this position.
    fn longest(self, past: usize) -> usize {
        match self {
            Prompts::Anywhere if past == 0 => PROMPT,
            Prompts::Anywhere | Prompts::Never => 1,
        }
    }
}

/// The model with its inputs declared.
fn stepped<S>(mut model: S) -> impl Step
where
    S: FnMut(&Tensor, usize) -> Result<Tensor>,
{
    move |call: &Call<'_>| {
        let (past, seq) = call.positions()?;
        let ids = call.input("ids", (1, seq), DType::U32)?;
        Ok(vec![model(&ids, past)?])
    }
}

/// What each call gives is what candle's model gives, with all weights resident and with next to none.
pub fn follows<S>(
    file: &File,
    prompts: Prompts,
    mut load: impl FnMut(VarBuilder) -> Result<S>,
    oracle: &mut Oracle<'_>,
) -> f32
where
    S: FnMut(&Tensor, usize) -> Result<Tensor>,
{
    let mut load = |vb: VarBuilder| Ok(stepped(load(vb)?));
    for class in &prompts.profile().classes {
        read_as_stored(file, class, &mut load);
    }
    let want = expected(prompts, oracle);
    let calls: Vec<_> = calls(prompts).into_iter().map(|c| vec![c.1]).collect();
    let mut run = |budget| engine(file, prompts.profile(), &calls, &mut load, budget);
    let all = run(Request::Full);
    assert_eq!(all, run(Request::Minimum));
    close(&all, &want)
}

/// Matrices are read by rows or gathered, and each weight as it lies in the file; tensors of several matrices are values.
fn read_as_stored<S: Step>(
    file: &File,
    class: &Class,
    load: &mut dyn FnMut(VarBuilder) -> Result<S>,
) {
    let graph = trace(load, &file.builder(), class);
    let graph = graph.unwrap_or_else(|e| panic!("{}: {e}", class.name));
    let (program, _) = compile(graph).expect("a program");
    let source = file.source();
    for weight in &program.weights {
        let stored = source.find(&weight.name).expect("a weight of the file");
        let whole = weight.shape.len() == 2 && weight.roles.has(Role::Whole);
        assert!(!whole, "{} is read whole", weight.name);
        let same = weight.encoding == stored.encoding || weight.shape.len() == 3;
        assert!(same, "{} is read as {}", weight.name, weight.encoding);
    }
    let encodings = program.weights.iter().map(|w| w.encoding);
    let blocks = encodings.filter(|e| matches!(e, Encoding::Blocks(_)));
    assert!(blocks.count() > 2);
}

fn tokens() -> Vec<u32> {
    let token = |i| (i * 37 + 3) % 64;
    (0..(PROMPT + TOKENS) as u32).map(token).collect()
}

/// The calls: their first positions and tokens.
fn calls(prompts: Prompts) -> Vec<(usize, candle_core::Tensor)> {
    let (tokens, mut calls, mut past) = (tokens(), Vec::new(), 0);
    while past < tokens.len() {
        let new = prompts.longest(past);
        let ids = candle_core::Tensor::new(&tokens[past..past + new], &Device::Cpu);
        let ids = ids.and_then(|t| t.unsqueeze(0)).expect("tokens");
        calls.push((past, ids));
        past += new;
    }
    calls
}

fn floats(logits: &candle_core::Tensor) -> Vec<f32> {
    let flat = logits.flatten_all().and_then(|t| t.to_vec1());
    flat.expect("f32")
}

/// The logits of each call, by candle.
fn expected(prompts: Prompts, oracle: &mut Oracle<'_>) -> Vec<Vec<f32>> {
    let calls = calls(prompts).into_iter();
    let logits = calls.map(|(past, ids)| oracle(&ids, past).expect("candle runs"));
    logits.map(|t| floats(&t)).collect()
}

/// The logits of each call, by an engine with so much of the weights resident.
fn engine<S: Step>(
    file: &File,
    profile: Profile,
    calls: &[Vec<candle_core::Tensor>],
    load: &mut dyn FnMut(VarBuilder) -> Result<S>,
    budget: Request,
) -> Vec<Vec<f32>> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, &file.bytes).expect("the file is written");
    let engine = Compiler::new(Weights::open(&path).expect("the file opens"))
        .shared_device(device::open("host").expect("the host"))
        .profile(profile)
        .budget(budget)
        .compile(load)
        .expect("an engine");
    let mut session = engine.session().expect("a session");
    let mut call = |inputs: &Vec<_>| session.run(inputs).expect("a call").remove(0);
    calls.iter().map(|c| floats(&call(c))).collect()
}

/// What a model gives in a single call is what candle's gives.
pub fn gives<S: Step>(
    file: &File,
    profile: &Profile,
    inputs: Vec<candle_core::Tensor>,
    mut load: impl FnMut(VarBuilder) -> Result<S>,
    want: &candle_core::Tensor,
) -> f32 {
    read_as_stored(file, &profile.classes[0], &mut load);
    let got = engine(file, profile.clone(), &[inputs], &mut load, Request::Full);
    close(&got, &[floats(want)])
}

fn close(got: &[Vec<f32>], want: &[Vec<f32>]) -> f32 {
    let mut most = 0f32;
    for (call, (got, want)) in got.iter().zip(want).enumerate() {
        assert_eq!(got.len(), want.len());
        let largest = want.iter().fold(0f32, |m, v| m.max(v.abs()));
        let told = largest > 0.1 && largest.is_finite();
        assert!(told, "logits of call {call} compare nothing: {largest}");
        let far = got.iter().zip(want).map(|(g, w)| (g - w).abs());
        let far = far.fold(0.0, f32::max) / largest;
        assert!(far <= TOLERANCE, "call {call}: off by {far}");
        most = most.max(far);
    }
    most
}
