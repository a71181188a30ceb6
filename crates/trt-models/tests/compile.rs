//! What the compiler makes of the Llama family.

use std::sync::Arc;
use trt_graph::candle::DType;
use trt_graph::candle_nn::{VarBuilder, WeightSource};
use trt_graph::{Profile, compile, trace};
use trt_models::{Config, Llama, LoadOptions};

/// Weights of any shape that a tiny model asks for.
struct Shapes;

impl WeightSource for Shapes {
    fn find(&self, name: &str) -> Option<(Vec<usize>, trt_kernel::DType)> {
        let shape = match name.rsplit('.').nth(1)? {
            "embed_tokens" | "lm_head" => vec![96, 32],
            "q_proj" | "o_proj" => vec![32, 32],
            "k_proj" | "v_proj" => vec![16, 32],
            "gate_proj" | "up_proj" => vec![64, 32],
            "down_proj" => vec![32, 64],
            _ => vec![32],
        };
        Some((shape, trt_kernel::DType::BF16))
    }
    fn similar(&self, _: &str) -> Vec<String> {
        vec![]
    }
}

fn tiny() -> Config {
    Config::from_json(
        r#"{"model_type": "llama", "vocab_size": 96, "hidden_size": 32, "intermediate_size": 64,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": true}"#,
    )
    .unwrap()
}

#[test]
fn a_layer_is_ten_launches_or_less() {
    let vb = VarBuilder::new(Arc::new(Shapes), DType::BF16);
    let profile = Profile::decoder(64, 16).unwrap();
    for class in &profile.classes {
        let options = LoadOptions {
            max_positions: Some(64),
        };
        let mut load = |vb| Llama::load_with(vb, &tiny(), &options);
        let graph = trace(&mut load, &vb, class).unwrap();
        if std::env::var("SHOW").is_ok() {
            println!("{graph}");
        }
        let (program, report) = compile(graph).unwrap();
        if std::env::var("SHOW").is_ok() {
            println!("{program}\n{report:#?}");
        }
        println!("{} launches", program.launches.len());
        assert!(
            program.launches.len() <= 2 * 12 + 5,
            "{} launches in {}",
            program.launches.len(),
            class.name
        );
    }
}
