//! What models launch assembles: every kernel of their programs, for every target, at sizes of real
//! checkpoints.

#[path = "../../trt-kernel/tests/ptx/assemble.rs"]
mod assemble;

use std::collections::BTreeMap;
use std::sync::Arc;
use trt_graph::candle::DType;
use trt_graph::candle_nn::{Stored, VarBuilder, WeightSource};
use trt_graph::{Profile, compile, trace};
use trt_kernel::{DType as Width, Kernel};
use trt_models::{DecoderConfig, Llama, LoadOptions};

/// Sizes of a model of one layer.
#[derive(Clone, Copy)]
struct Sizes {
    hidden: usize,
    ffn: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    vocab: usize,
}

/// SmolLM2-135M's.
const SMALL: Sizes = Sizes {
    hidden: 576,
    ffn: 1536,
    heads: 9,
    kv_heads: 3,
    head_dim: 64,
    vocab: 49152,
};

/// Llama 3 8B's.
const LARGE: Sizes = Sizes {
    hidden: 4096,
    ffn: 14336,
    heads: 32,
    kv_heads: 8,
    head_dim: 128,
    vocab: 128_256,
};

/// Each family, and each fact of a configuration that changes what is computed.
const FAMILIES: [&str; 6] = [
    r#""llama""#,
    r#""llama", "attention_bias": true, "mlp_bias": true"#,
    r#""mistral", "sliding_window": 1000"#,
    r#""qwen2""#,
    r#""qwen3""#,
    r#""llama", "rope_scaling": {"type": "dynamic", "factor": 2.0}"#,
];

/// Weights of these sizes, by the ends of their names.
struct Shapes(Sizes, Width);

impl WeightSource for Shapes {
    fn find(&self, name: &str) -> Option<Stored> {
        let s = self.0;
        let (q, kv) = (s.heads * s.head_dim, s.kv_heads * s.head_dim);
        let mut parts = name.rsplit('.');
        let bias = parts.next()? == "bias";
        let (rows, columns) = match parts.next()? {
            "embed_tokens" | "lm_head" => (s.vocab, s.hidden),
            "q_proj" => (q, s.hidden),
            "k_proj" | "v_proj" => (kv, s.hidden),
            "o_proj" => (s.hidden, q),
            "gate_proj" | "up_proj" => (s.ffn, s.hidden),
            "down_proj" => (s.hidden, s.ffn),
            "q_norm" | "k_norm" => return Some(Stored::new(name, vec![s.head_dim], self.1)),
            _ => return Some(Stored::new(name, vec![s.hidden], self.1)),
        };
        let shape = match bias {
            true => vec![rows],
            false => vec![rows, columns],
        };
        Some(Stored::new(name, shape, self.1))
    }

    fn similar(&self, _: &str) -> Vec<String> {
        vec![]
    }
}

/// The kernels of all classes of calls of a decoder.
fn kernels(family: &str, sizes: Sizes, dtype: DType, stored: Width) -> Vec<Kernel> {
    let json = format!(
        r#"{{"vocab_size": {}, "hidden_size": {}, "intermediate_size": {}, "num_hidden_layers": 1,
            "num_attention_heads": {}, "num_key_value_heads": {}, "head_dim": {},
            "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
            "model_type": {family}}}"#,
        sizes.vocab, sizes.hidden, sizes.ffn, sizes.heads, sizes.kv_heads, sizes.head_dim
    );
    let config = DecoderConfig::from_json(&json).unwrap();
    let vb = VarBuilder::new(Arc::new(Shapes(sizes, stored)), dtype);
    let options = LoadOptions {
        max_positions: Some(2048),
    };
    let mut load = |vb| Llama::load_with(vb, &config, &options);
    let profile = Profile::decoder(2048, 512).unwrap();
    let mut all = Vec::new();
    for class in &profile.classes {
        let (program, _) = compile(trace(&mut load, &vb, class).unwrap()).unwrap();
        all.extend(program.launches.into_iter().map(|l| l.kernel));
    }
    all
}

#[test]
fn what_models_launch_assembles_on_every_target_without_spills() {
    let dtypes = [
        (DType::F32, Width::F32, SMALL),
        (DType::F16, Width::F16, SMALL),
        (DType::BF16, Width::BF16, LARGE),
    ];
    let all = FAMILIES.iter().flat_map(|f| dtypes.map(|d| (*f, d)));
    let mut cases: Vec<_> = all.collect();
    for other in [
        (DType::BF16, Width::BF16, SMALL),
        // Widened where they are read.
        (DType::F32, Width::BF16, SMALL),
    ] {
        cases.push((r#""llama""#, other));
    }
    // Equal kernels once.
    let mut distinct: BTreeMap<String, Kernel> = BTreeMap::new();
    for (family, (dtype, stored, sizes)) in cases {
        for kernel in kernels(family, sizes, dtype, stored) {
            distinct.insert(format!("{kernel:?}"), kernel);
        }
    }
    println!("{} kernels", distinct.len());
    assert!(distinct.len() > 100, "{} kernels", distinct.len());
    let numbered = distinct.into_values().enumerate();
    let named: Vec<(String, Kernel)> = numbered.map(|(i, k)| (format!("k{i}"), k)).collect();
    if let Some(all) = assemble::everywhere(&named) {
        // Some kernels have several entries.
        assert!(all.iter().all(|(_, entries)| entries.len() >= named.len()));
    }
}
