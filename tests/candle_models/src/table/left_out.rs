//! Files that type-check and have no case, with the reason.

const PARTS: &str = "declares the modules of its folder, which have cases of their own";
const NUMBERS: &str = "no model: numbers that code computes between calls";
const CONFIGURATION: &str = "a configuration only";

/// By file.
pub const LEFT_OUT: &[(&str, &str)] = &[
    (
        "models/csm",
        "the smallest of its two sizes has 110 million weights, and it samples tokens within a call",
    ),
    ("models/flux/mod", PARTS),
    ("models/gemma4/config", CONFIGURATION),
    ("models/llava/config", CONFIGURATION),
    ("models/llava/utils", NUMBERS),
    ("models/mmdit/mod", PARTS),
    (
        "models/mpt",
        "its sizes are fixed in code: 3 billion weights at least",
    ),
    ("models/nvembed_v2/mod", PARTS),
    (
        "models/nvembed_v2/model",
        "its sizes are fixed in code: 7 billion weights at least",
    ),
    ("models/openclip/mod", PARTS),
    ("models/paddleocr_vl/config", CONFIGURATION),
    ("models/mimi/mod", PARTS),
    (
        "models/paddleocr_vl/text",
        "runs in the case of paddleocr_vl/mod",
    ),
    (
        "models/paddleocr_vl/vision",
        "runs in the case of paddleocr_vl/mod",
    ),
    ("models/persimmon", CONFIGURATION),
    ("models/pixtral/mod", PARTS),
    (
        "models/quantized_mpt",
        "its sizes are fixed in code: 3 billion weights at least",
    ),
    ("models/qwen3_vl/config", CONFIGURATION),
    (
        "models/qwen3_vl/conv3d_temporal_2",
        "runs in the case of qwen3_vl/mod",
    ),
    ("models/qwen3_vl/text", "runs in the case of qwen3_vl/mod"),
    ("models/qwen3_vl/vision", "runs in the case of qwen3_vl/mod"),
    (
        "models/segment_anything/mod",
        "a linear layer and a norm, which run in the cases of its folder",
    ),
    ("models/smol/mod", PARTS),
    (
        "models/smol/quantized_smollm3",
        "its only constructor opens a file by its path, which is for whoever compiles a model",
    ),
    (
        "models/stable_diffusion/clip",
        "its sizes are fixed in code: 123 million weights at least",
    ),
    ("models/stable_diffusion/ddim", NUMBERS),
    ("models/stable_diffusion/ddpm", NUMBERS),
    ("models/stable_diffusion/euler_ancestral_discrete", NUMBERS),
    (
        "models/stable_diffusion/mod",
        "opens files of weights and hands them to the models of its folder",
    ),
    ("models/stable_diffusion/schedulers", NUMBERS),
    ("models/stable_diffusion/uni_pc", NUMBERS),
    ("models/stable_diffusion/utils", NUMBERS),
    ("models/voxtral/audio", NUMBERS),
    ("models/voxtral/mod", PARTS),
    ("models/whisper/audio", NUMBERS),
    ("models/whisper/mod", PARTS),
    ("models/wuerstchen/ddpm", NUMBERS),
    ("models/wuerstchen/mod", PARTS),
    (
        "models/yi",
        "its sizes are fixed in code: 6 billion weights at least",
    ),
    ("models/z_image/mod", PARTS),
    ("models/z_image/preprocess", NUMBERS),
    ("models/z_image/sampling", NUMBERS),
    ("models/z_image/scheduler", NUMBERS),
];
