#!/usr/bin/env python3
"""Rope frequencies as transformers computes them, for crates/trt-models/tests/references/rope.json.

    pip install numpy transformers==5.24.0
    python3 scripts/rope_reference.py > crates/trt-models/tests/references/rope.json

transformers' own functions run on its own configuration classes. torch is not needed: the few tensor functions that
they call are numpy's, in float32 as torch's are.
"""

import json
import sys
import types

import numpy as np
import transformers
from transformers import modeling_rope_utils as rope


class Tensor(np.ndarray):
    """An array with the one method of a tensor that is called."""

    def to(self, device=None, dtype=None):
        return self if dtype is None else self.astype(dtype)


def tensor(array):
    return np.asarray(array).view(Tensor)


rope.torch = types.SimpleNamespace(
    float=np.float32,
    float32=np.float32,
    int64=np.int64,
    Tensor=Tensor,
    arange=lambda *args, dtype=np.int64: tensor(np.arange(*args, dtype=dtype)),
    where=lambda *args: tensor(np.where(*args)),
    clamp=lambda x, low, high: tensor(np.clip(x, np.float32(low), np.float32(high))),
)

SIZES = {
    "vocab_size": 64,
    "hidden_size": 512,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}

# What a file says beside the sizes, and the lengths of texts where they matter.
CASES = [
    ("llama", {"rope_theta": 10000.0, "max_position_embeddings": 4096}, [0]),
    ("qwen2", {"rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0}}, [0]),
    ("llama", {"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 8.0}}, [0]),
    (
        "llama",
        {
            "rope_theta": 500000.0,
            "max_position_embeddings": 131072,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
        },
        [0],
    ),
    # Qwen2.5 with the long context of its model card.
    (
        "qwen2",
        {
            "rope_theta": 1000000.0,
            "max_position_embeddings": 32768,
            "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
        },
        [0],
    ),
    # Both names of the type, as transformers 4 wrote them.
    (
        "llama",
        {
            "max_position_embeddings": 65536,
            "rope_scaling": {
                "type": "yarn",
                "rope_type": "yarn",
                "factor": 16.0,
                "finetuned": True,
                "original_max_position_embeddings": 4096,
            },
        },
        [0],
    ),
    (
        "llama",
        {
            "max_position_embeddings": 163840,
            "rope_scaling": {
                "type": "yarn",
                "factor": 40,
                "beta_fast": 32,
                "beta_slow": 1,
                "mscale": 0.707,
                "mscale_all_dim": 1.0,
                "original_max_position_embeddings": 4096,
            },
        },
        [0],
    ),
    (
        "mistral",
        {
            "max_position_embeddings": 262144,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1000000000.0,
                "factor": 16.0,
                "beta_fast": 4.0,
                "beta_slow": 1.0,
                "original_max_position_embeddings": 16384,
                "truncate": False,
            },
        },
        [0],
    ),
    (
        "qwen3",
        {
            "head_dim": 64,
            "max_position_embeddings": 40960,
            "rope_theta": 1000000.0,
            "rope_scaling": {
                "rope_type": "yarn",
                "factor": 2.5,
                "attention_factor": 1.25,
                "original_max_position_embeddings": 16384,
            },
        },
        [0],
    ),
    (
        "llama",
        {"max_position_embeddings": 2048, "rope_scaling": {"type": "dynamic", "factor": 4.0}},
        [1, 2048, 2049, 3000, 8192, 20000],
    ),
    (
        "qwen2",
        {
            "rope_theta": 1000000.0,
            "max_position_embeddings": 64,
            "rope_scaling": {"rope_type": "dynamic", "factor": 2.0},
        },
        [1, 64, 65, 100, 200],
    ),
]

CLASSES = {
    "llama": transformers.LlamaConfig,
    "mistral": transformers.MistralConfig,
    "qwen2": transformers.Qwen2Config,
    "qwen3": transformers.Qwen3Config,
}


def plain(config):
    """`compute_default_rope_parameters` of the four model files, which need torch to be imported."""
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    base = config.rope_parameters["rope_theta"]
    return 1.0 / (base ** (rope.torch.arange(0, dim, 2, dtype=np.float32) / np.float32(dim))), 1.0


def kind_of(config):
    return config.rope_parameters["rope_type"]


def frequencies(config, length):
    kind = kind_of(config)
    if kind == "default":
        return plain(config)
    if kind == "dynamic":
        return rope.ROPE_INIT_FUNCTIONS[kind](config, seq_len=length)
    return rope.ROPE_INIT_FUNCTIONS[kind](config)


def main():
    out = []
    for family, extra, lengths in CASES:
        said = {"model_type": family, **SIZES, **extra}
        config = CLASSES[family](**{k: v for k, v in json.loads(json.dumps(said)).items() if k != "model_type"})
        for length in lengths:
            inverse, factor = frequencies(config, length)
            assert inverse.dtype == np.float32, (kind_of(config), inverse.dtype)
            out.append(
                {
                    "config": said,
                    "length": length,
                    "attention_factor": float(factor),
                    "inverse": [float(x) for x in inverse],
                }
            )
    versions = {"transformers": transformers.__version__, "numpy": np.__version__}
    json.dump({"made_by": "scripts/rope_reference.py", "versions": versions, "cases": out}, sys.stdout, indent=None)
    print()


main()
