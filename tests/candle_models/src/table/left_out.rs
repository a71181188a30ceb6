//! Files that type-check and have no case, with the reason.

const PARTS: &str = "declares the modules of its folder, which have cases of their own";
const NUMBERS: &str = "no model: numbers that code computes between calls";
const CONFIGURATION: &str = "a configuration only";
const LARGE: &str = "its sizes are fixed in code, and are those of a large model";

/// By file.
pub const LEFT_OUT: &[(&str, &str)] = &[
    ("models/csm", LARGE),
    ("models/flux/mod", PARTS),
    ("models/gemma4/config", CONFIGURATION),
    ("models/llava/config", CONFIGURATION),
    ("models/llava/utils", NUMBERS),
    ("models/mmdit/mod", PARTS),
    ("models/moondream", LARGE),
    ("models/mpt", LARGE),
    ("models/nvembed_v2/mod", PARTS),
    ("models/nvembed_v2/model", LARGE),
    ("models/openclip/mod", PARTS),
    ("models/paddleocr_vl/config", CONFIGURATION),
    ("models/paddleocr_vl/text", "private to its folder"),
    ("models/paddleocr_vl/vision", "private to its folder"),
    ("models/persimmon", CONFIGURATION),
    ("models/quantized_moondream", LARGE),
    ("models/quantized_mpt", LARGE),
    ("models/qwen3_vl/config", CONFIGURATION),
    ("models/qwen3_vl/conv3d_temporal_2", "private to its folder"),
    ("models/qwen3_vl/text", "private to its folder"),
    ("models/qwen3_vl/vision", "private to its folder"),
    (
        "models/segment_anything/mod",
        "a linear layer and a norm, which run in the cases of its folder",
    ),
    ("models/smol/mod", PARTS),
    ("models/stable_diffusion/clip", LARGE),
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
    ("models/wuerstchen/diffnext", LARGE),
    ("models/wuerstchen/mod", PARTS),
    ("models/yi", LARGE),
    ("models/z_image/mod", PARTS),
    ("models/z_image/preprocess", NUMBERS),
    ("models/z_image/sampling", NUMBERS),
    ("models/z_image/scheduler", NUMBERS),
];
