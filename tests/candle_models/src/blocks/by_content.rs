//! Models that load from the content of a GGUF file, by its own names.

use super::file::{File, Parts};
use super::follow::{Prompts, follows};
use crate::values::noise;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::{Content, Value};
use candle_core::{Device, Tensor};
use candle_models_ported::models as ported;
use candle_transformers::models as theirs;
use candle_trt::candle;
use std::io::{Cursor, empty};

pub(super) const HIDDEN: usize = 256;
pub(super) const HEADS: usize = 4;
pub(super) const GROUPS: usize = 2;
pub(super) const DIM: usize = HIDDEN / HEADS;
const MIDDLE: usize = 512;
pub(super) const VOCAB: usize = 64;
pub(super) const LAYERS: usize = 2;

pub(super) fn count(n: usize) -> Value {
    Value::U32(n as u32)
}

/// What all architectures say of themselves.
pub(super) fn said(arch: &str) -> Parts {
    said_with(arch, GROUPS)
}

/// The same, with other heads of keys and values.
fn said_with(arch: &str, groups: usize) -> Parts {
    let key = |rest: &str| format!("{arch}.{rest}");
    Parts::default()
        .say("general.architecture", Value::String(arch.into()))
        .say(&key("attention.head_count"), count(HEADS))
        .say(&key("attention.head_count_kv"), count(groups))
        .say(&key("attention.key_length"), count(DIM))
        .say(&key("attention.value_length"), count(DIM))
        .say(&key("attention.sliding_window"), count(3))
        .say(&key("attention.layer_norm_rms_epsilon"), Value::F32(1e-5))
        .say(&key("attention.layer_norm_epsilon"), Value::F32(1e-5))
        .say(&key("block_count"), count(LAYERS))
        .say(&key("embedding_length"), count(HIDDEN))
        .say(&key("feed_forward_length"), count(MIDDLE))
        .say(&key("context_length"), count(128))
        .say(&key("rope.dimension_count"), count(DIM))
        .say(&key("rope.freq_base"), Value::F32(10_000.0))
}

/// Types that take turns, as in files that mix them.
fn dtype(i: usize) -> GgmlDType {
    const MIX: [GgmlDType; 6] = [
        GgmlDType::Q8_0,
        GgmlDType::Q4K,
        GgmlDType::Q4_0,
        GgmlDType::Q6K,
        GgmlDType::F16,
        GgmlDType::Q5_1,
    ];
    MIX[i % MIX.len()]
}

/// Matrices and vectors of each layer, by the ends of their names.
pub(super) fn layers(
    parts: &mut Parts,
    matrices: &[(&str, usize, usize)],
    vectors: &[(&str, usize, f32)],
) {
    for layer in 0..LAYERS {
        for (i, (name, n, k)) in matrices.iter().enumerate() {
            let name = format!("blk.{layer}.{name}.weight");
            parts.matrix(&name, (*n, *k), dtype(i + layer));
        }
        for (name, n, middle) in vectors {
            parts.vector(&format!("blk.{layer}.{name}"), *n, *middle);
        }
    }
}

pub(super) const ATTENTION: [(&str, usize, usize); 4] = [
    ("attn_q", HIDDEN, HIDDEN),
    ("attn_k", GROUPS * DIM, HIDDEN),
    ("attn_v", GROUPS * DIM, HIDDEN),
    ("attn_output", HIDDEN, HIDDEN),
];
const GATED: [(&str, usize, usize); 3] = [
    ("ffn_gate", MIDDLE, HIDDEN),
    ("ffn_down", HIDDEN, MIDDLE),
    ("ffn_up", MIDDLE, HIDDEN),
];
pub(super) const NORMS: [(&str, usize, f32); 2] = [
    ("attn_norm.weight", HIDDEN, 1.0),
    ("ffn_norm.weight", HIDDEN, 1.0),
];

/// The table, the last norm and, if it is not the table, the head.
pub(super) fn ends(parts: &mut Parts, head: bool) {
    parts.matrix("token_embd.weight", (VOCAB, HIDDEN), GgmlDType::Q8_0);
    parts.vector("output_norm.weight", HIDDEN, 1.0);
    if head {
        parts.matrix("output.weight", (VOCAB, HIDDEN), GgmlDType::Q6K);
    }
}

/// Norms and biases that not all architectures have.
pub(super) const HEAD_NORMS: [(&str, usize, f32); 2] = [
    ("attn_q_norm.weight", DIM, 1.0),
    ("attn_k_norm.weight", DIM, 1.0),
];
const BIASES: [(&str, usize, f32); 3] = [
    ("attn_q.bias", HIDDEN, 0.0),
    ("attn_k.bias", GROUPS * DIM, 0.0),
    ("attn_v.bias", GROUPS * DIM, 0.0),
];
const AFTER: [(&str, usize, f32); 2] = [
    ("post_attention_norm.weight", HIDDEN, 1.0),
    ("post_ffw_norm.weight", HIDDEN, 1.0),
];

fn gated(arch: &str, head: bool, vectors: &[(&str, usize, f32)]) -> File {
    gated_by(said(arch), head, vectors)
}

fn gated_by(mut parts: Parts, head: bool, vectors: &[(&str, usize, f32)]) -> File {
    ends(&mut parts, head);
    let vectors = [NORMS.as_slice(), vectors].concat();
    layers(
        &mut parts,
        &[ATTENTION.as_slice(), &GATED].concat(),
        &vectors,
    );
    parts.write()
}

/// A model of both sides: loaded by `from_gguf`, stepped by `forward`.
macro_rules! follow {
    ($file:expr, $prompts:expr, $model:ident $(, $first:expr)* $(; $last:expr)*) => {{
        let file = $file;
        let mut reader = Cursor::new(&file.values);
        let content = Content::read(&mut reader).expect("candle reads its file");
        let device = candle_core::Device::Cpu;
        let mut oracle = theirs::$model::ModelWeights::from_gguf(
            $($first,)*
            content,
            &mut reader,
            &device,
            $($last,)*
        )
        .expect("candle loads");
        let load = |vb: candle_trt::candle_nn::VarBuilder| {
            let mut model = ported::$model::ModelWeights::from_gguf(
                $($first,)*
                vb.gguf()?,
                &mut empty(),
                &candle::Device::Cpu,
                $($last,)*
            )?;
            Ok(move |ids: &candle::Tensor, past: usize| model.forward(ids, past))
        };
        follows(&file, $prompts, load, &mut |ids, past| oracle.forward(ids, past))
    }};
}

pub fn llama_with_neighbours_turned() -> f32 {
    follow!(
        gated("llama", true, &[]),
        Prompts::Anywhere,
        quantized_llama
    )
}

pub fn llama_whose_head_is_its_table() -> f32 {
    follow!(
        gated("llama", false, &[]),
        Prompts::Anywhere,
        quantized_llama
    )
}

pub fn qwen2_with_biases() -> f32 {
    follow!(
        gated("qwen2", true, &BIASES),
        Prompts::Anywhere,
        quantized_qwen2
    )
}

pub fn qwen3_by_the_way_that_reads_no_memory() -> f32 {
    let parts = said("qwen3").say("general.dtype", Value::U32(0));
    let file = gated_by(parts, false, &HEAD_NORMS);
    follow!(file, Prompts::Anywhere, quantized_qwen3)
}

/// What files that do not say a dtype have.
pub fn qwen3_with_rotary_tables_in_f16() -> f32 {
    let file = gated("qwen3", true, &HEAD_NORMS);
    follow!(file, Prompts::Anywhere, quantized_qwen3)
}

pub fn phi3_with_joined_weights() -> f32 {
    let mut parts = said("phi3");
    ends(&mut parts, true);
    let matrices = [
        ("attn_qkv", HIDDEN + 2 * GROUPS * DIM, HIDDEN),
        ("attn_output", HIDDEN, HIDDEN),
        ("ffn_up", 2 * MIDDLE, HIDDEN),
        ("ffn_down", HIDDEN, MIDDLE),
    ];
    layers(&mut parts, &matrices, &NORMS);
    follow!(parts.write(), Prompts::Anywhere, quantized_phi3, false)
}

pub fn phi2_with_layer_norms_and_biases_everywhere() -> f32 {
    let mut parts = said_with("phi2", HEADS);
    ends(&mut parts, true);
    parts.vector("output_norm.bias", HIDDEN, 0.0);
    parts.vector("output.bias", VOCAB, 0.0);
    let matrices = [
        ("attn_qkv", 3 * HIDDEN, HIDDEN),
        ("attn_output", HIDDEN, HIDDEN),
        ("ffn_up", MIDDLE, HIDDEN),
        ("ffn_down", HIDDEN, MIDDLE),
    ];
    let vectors = [
        ("attn_norm.weight", HIDDEN, 1.0),
        ("attn_norm.bias", HIDDEN, 0.0),
        ("attn_qkv.bias", 3 * HIDDEN, 0.0),
        ("attn_output.bias", HIDDEN, 0.0),
        ("ffn_up.bias", MIDDLE, 0.0),
        ("ffn_down.bias", HIDDEN, 0.0),
    ];
    layers(&mut parts, &matrices, &vectors);
    follow!(parts.write(), Prompts::Anywhere, quantized_phi)
}

pub fn gemma3_with_windows() -> f32 {
    let file = gated("gemma3", false, &[HEAD_NORMS, AFTER].concat());
    follow!(file, Prompts::Never, quantized_gemma3)
}

/// A layer that convolves, and one that attends.
pub fn lfm2_with_a_convolution() -> f32 {
    const WIDTH: usize = 3;
    let heads = [0, GROUPS].map(count).to_vec();
    let mut parts = said("lfm2")
        .say("lfm2.attention.head_count_kv", Value::Array(heads))
        .say("lfm2.shortconv.l_cache", count(WIDTH));
    ends(&mut parts, false);
    layers(&mut parts, &GATED, &NORMS);
    for (name, n, k) in ATTENTION {
        parts.matrix(&format!("blk.1.{name}.weight"), (n, k), GgmlDType::Q8_0);
    }
    for (name, n, middle) in HEAD_NORMS {
        parts.vector(&format!("blk.1.{name}"), n, middle);
    }
    for (name, n) in [("in_proj", 3 * HIDDEN), ("out_proj", HIDDEN)] {
        let name = format!("blk.0.shortconv.{name}.weight");
        parts.matrix(&name, (n, HIDDEN), GgmlDType::Q4K);
    }
    let taps = noise("taps", HIDDEN * WIDTH);
    let taps = Tensor::from_vec(taps, (HIDDEN, 1, WIDTH), &Device::Cpu);
    let taps = taps.expect("a tensor");
    parts.tensor("blk.0.shortconv.conv.weight", &taps, GgmlDType::F32);
    follow!(parts.write(), Prompts::Never, quantized_lfm2)
}

pub fn glm4_with_half_a_head_turned() -> f32 {
    let mut parts = said("glm4");
    ends(&mut parts, true);
    let matrices = [
        ATTENTION.as_slice(),
        &[("ffn_up", 2 * MIDDLE, HIDDEN), ("ffn_down", HIDDEN, MIDDLE)],
    ];
    let vectors = [NORMS.as_slice(), &AFTER, &BIASES].concat();
    layers(&mut parts, &matrices.concat(), &vectors);
    follow!(parts.write(), Prompts::Anywhere, quantized_glm4; candle_core::DType::F32)
}
