//! Models of GGUF files, held to candle over the same file with every weight as its f32 values.
//!
//! A file is made of random weights in blocks of several types. An engine reads it as it lies there; candle reads the
//! values that the blocks mean, since over blocks it would round activations to eight bits.

mod by_builder;
mod by_content;
mod experts;
pub mod file;
mod follow;

/// A file, what is special about its model, and what runs it and says how far off it is, of the largest result; more than
/// is accepted panics.
pub type Run = (&'static str, &'static str, fn() -> f32);

/// What is held.
pub const CASES: &[Run] = &[
    (
        "models/quantized_llama",
        "neighbours turned",
        by_content::llama_with_neighbours_turned,
    ),
    (
        "models/quantized_llama",
        "a head that is the table",
        by_content::llama_whose_head_is_its_table,
    ),
    (
        "models/quantized_qwen2",
        "biases",
        by_content::qwen2_with_biases,
    ),
    (
        "models/quantized_qwen3",
        "the way that reads no memory",
        by_content::qwen3_by_the_way_that_reads_no_memory,
    ),
    (
        "models/quantized_qwen3",
        "rotary tables in f16",
        by_content::qwen3_with_rotary_tables_in_f16,
    ),
    (
        "models/quantized_qwen3_moe",
        "experts",
        experts::qwen3_with_experts,
    ),
    (
        "models/quantized_phi3",
        "joined weights",
        by_content::phi3_with_joined_weights,
    ),
    (
        "models/quantized_phi",
        "layer norms and biases",
        by_content::phi2_with_layer_norms_and_biases_everywhere,
    ),
    (
        "models/quantized_gemma3",
        "windows, token by token",
        by_content::gemma3_with_windows,
    ),
    (
        "models/quantized_lfm2",
        "a convolution, token by token",
        by_content::lfm2_with_a_convolution,
    ),
    (
        "models/quantized_glm4",
        "half a head turned",
        by_content::glm4_with_half_a_head_turned,
    ),
    (
        "models/quantized_mistral",
        "names of Hugging Face",
        by_builder::mistral_by_names_of_hugging_face,
    ),
    (
        "models/quantized_stable_lm",
        "a quarter of a head turned",
        by_builder::stable_lm_with_a_quarter_of_a_head_turned,
    ),
    (
        "models/quantized_mixformer",
        "layers beside each other, token by token",
        by_builder::mixformer_with_layers_beside_each_other,
    ),
    (
        "models/quantized_t5",
        "fixed sizes",
        by_builder::t5_of_fixed_sizes,
    ),
];
