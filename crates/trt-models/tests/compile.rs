//! What the compiler makes of the Llama family.

use std::collections::HashMap;
use std::sync::Arc;
use trt_graph::candle::DType;
use trt_graph::candle_nn::{Stored, VarBuilder, WeightSource};
use trt_graph::passes::PASSES;
use trt_graph::reference::{Array, Leaves, run};
use trt_graph::{Graph, Profile, compile, trace, verify};
use trt_kernel::Env;
use trt_models::{DecoderConfig, Llama, LoadOptions};

/// Weights of any shape that a tiny model asks for, made from their name.
struct Shapes(trt_kernel::DType);

impl WeightSource for Shapes {
    fn find(&self, name: &str) -> Option<Stored> {
        let shape = match name.rsplit('.').nth(1)? {
            "embed_tokens" | "lm_head" => vec![96, 32],
            "q_proj" | "o_proj" => vec![32, 32],
            "k_proj" | "v_proj" => vec![16, 32],
            "gate_proj" | "up_proj" => vec![64, 32],
            "down_proj" => vec![32, 64],
            "q_norm" | "k_norm" => vec![8],
            _ => vec![32],
        };
        Some(Stored::new(name, shape, self.0))
    }
    fn similar(&self, _: &str) -> Vec<String> {
        vec![]
    }
}

fn config(extra: &str) -> DecoderConfig {
    DecoderConfig::from_json(&format!(
        r#"{{"vocab_size": 96, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64,
            "rms_norm_eps": 1e-5, "tie_word_embeddings": true, {extra}}}"#
    ))
    .unwrap()
}

fn graphs(config: &DecoderConfig, dtype: DType, stored: trt_kernel::DType) -> Vec<(String, Graph)> {
    let vb = VarBuilder::new(Arc::new(Shapes(stored)), dtype);
    let options = LoadOptions {
        max_positions: Some(64),
    };
    let mut load = |vb| Llama::load_with(vb, config, &options);
    let profile = Profile::decoder(64, 16).unwrap();
    let graph = |c: &trt_graph::Class| (c.name.clone(), trace(&mut load, &vb, c).unwrap());
    profile.classes.iter().map(graph).collect::<Vec<_>>()
}

/// A launch in short: its kind and, for a group, how many parts.
fn short(launch: &trt_graph::program::Launch) -> String {
    use trt_kernel::{Kernel, Order};
    match &launch.kernel {
        Kernel::Group(g) => {
            let order = match g.order {
                Order::Side => "group",
                Order::Chain => "chain",
            };
            format!("{order} of {} {}", g.parts.len(), g.parts[0].kind())
        }
        Kernel::Matmul(k) if k.a.stored().is_none() => "norm and matmul".into(),
        Kernel::Attention(k) if !k.before.is_empty() => {
            format!("{} rows and attention", k.before.len())
        }
        other => other.kind().into(),
    }
}

#[test]
fn a_layer_of_a_decode_step_is_five_launches() {
    let family = config(r#""model_type": "llama""#);
    for (class, graph) in graphs(&family, DType::BF16, trt_kernel::DType::BF16) {
        let (program, _) = compile(graph).unwrap();
        let found: Vec<String> = program.launches.iter().map(short).collect();
        if class != "decode" {
            // Norms, and gate and up, are launches of their own where rows are many, and so is what comes before the attention.
            let layer = [
                "row",
                "group of 3 matmul",
                "group of 3 row", // rope, appends
                "attention",
                "matmul",
                "row",
                "matmul",
                "matmul",
                "matmul",
            ];
            assert_eq!(found[1..10], layer, "{class}");
            assert_eq!(found[10..19], layer, "{class}");
            assert!(found.len() <= 2 * layer.len() + 3, "{class}: {found:#?}");
            continue;
        }
        let layer = [
            "group of 3 matmul",    // queries, keys, values, each from the norm
            "3 rows and attention", // rope, appends
            "matmul",               // output
            "chain of 2 matmul",    // gate and up, from the norm
            "matmul",               // down
        ];
        let ends = (["gather"].iter(), ["norm and matmul"].iter());
        let expected: Vec<&str> = ends
            .0
            .chain(layer.iter())
            .chain(layer.iter())
            .chain(ends.1)
            .copied()
            .collect();
        assert_eq!(found, expected, "{class}");
    }
}

#[test]
fn attention_is_recognised_in_every_layer() {
    for family in [
        "llama",
        "mistral\", \"sliding_window\": 5, \"x\": \"",
        "qwen3",
    ] {
        let config = config(&format!(r#""model_type": "{family}""#));
        for (class, graph) in graphs(&config, DType::F32, trt_kernel::DType::F32) {
            let (_, report) = compile(graph).unwrap();
            let count = report
                .kernels
                .iter()
                .filter(|k| k.kind == "attention")
                .count();
            assert_eq!(count, 2, "{family} {class}: {report:#?}");
        }
    }
}

/// Numbers that depend on a name and an index only.
fn noise(name: &str, n: usize) -> Vec<f64> {
    let seed = name
        .bytes()
        .fold(7u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b)));
    (0..n as u64)
        .map(|i| {
            let x =
                (seed ^ i.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            ((x >> 40) as f64 / (1u64 << 24) as f64 - 0.5) * 0.5
        })
        .collect()
}

fn outputs(graph: &Graph, env: Env, cache: &mut HashMap<String, Array>) -> Vec<Array> {
    let past = env.get(trt_kernel::Var(0)) as usize;
    let seq = env.get(trt_kernel::Var(1)) as usize;
    let states: Vec<Array> = (0..graph.states.len())
        .map(|i| Array::new(vec![1, 2, past, 8], noise(&format!("s{i}"), 16 * past)).unwrap())
        .collect();
    let ids = Array::new(
        vec![1, seq],
        (0..seq).map(|i| (i * 17 % 96) as f64).collect(),
    )
    .unwrap();
    for (_, node) in graph.ids().map(|id| (id, graph.node(id))) {
        if let trt_graph::Op::Weight(name, _) = &node.op {
            let shape: Vec<usize> = node
                .shape
                .iter()
                .filter_map(trt_kernel::Dim::constant_size)
                .collect();
            let n = shape.iter().product();
            cache.insert(name.to_string(), Array::new(shape, noise(name, n)).unwrap());
        }
    }
    let leaves = Leaves {
        env,
        inputs: &[ids],
        states: &states,
        weight: &|name| cache.get(name).cloned(),
    };
    let (mut out, after) = run(graph, &leaves).unwrap();
    out.extend(after);
    out
}

#[test]
fn every_pass_keeps_the_meaning() {
    for extra in [
        r#""model_type": "llama""#,
        r#""model_type": "mistral", "sliding_window": 5"#,
    ] {
        for (class, mut graph) in graphs(&config(extra), DType::F32, trt_kernel::DType::F32) {
            let env = if class == "decode" {
                Env::new(&[9, 1])
            } else {
                Env::new(&[6, 5])
            };
            let mut cache = HashMap::new();
            let expected = outputs(&graph, env, &mut cache);
            for (pass, run) in PASSES {
                graph = run(graph);
                verify(&graph, pass).unwrap();
                let found = outputs(&graph, env, &mut cache);
                for (a, b) in expected.iter().zip(&found) {
                    let worst = a
                        .data
                        .iter()
                        .zip(&b.data)
                        .map(|(x, y)| (x - y).abs())
                        .fold(0.0, f64::max);
                    assert!(
                        a.shape == b.shape && worst < 1e-5,
                        "{class} after {pass}: off by {worst}"
                    );
                }
            }
        }
    }
}

#[test]
fn printed_graphs_parse_back() {
    for (_, graph) in graphs(
        &config(r#""model_type": "qwen3""#),
        DType::BF16,
        trt_kernel::DType::BF16,
    ) {
        let literals: Vec<trt_graph::Literal> = graph
            .nodes
            .iter()
            .filter_map(|n| match &n.op {
                trt_graph::Op::Const(l) => Some(l.clone()),
                _ => None,
            })
            .collect();
        let find = |hash: u64| literals.iter().find(|l| l.hash() == hash).cloned();
        let parsed = Graph::parse(&graph.to_string(), &find).unwrap();
        assert_eq!(parsed.to_string(), graph.to_string());
        assert_eq!(parsed, graph);
    }
}
