"""Greedy tokens of a llama in a GGUF file, evaluated in f64 over its dequantised weights.

    python smollm2_f64.py SmolLM2-135M-Instruct.Q4_1.gguf > smollm2_f64.txt

Needs numpy and gguf. Each line: a prompt's ids, a colon, and the 48 ids that follow it, with the least distance of the two
largest logits. Weights are gguf's dequantised f32 values; everything after that is in f64.
"""

import sys

import gguf
import numpy as np

STEPS = 48
PROMPTS = [
    [504, 3575, 282, 4649, 314, 7042, 28, 285],
    [1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198],
]


def main(path):
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items() if name.startswith("llama.")}
    weights = {}
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        shape = [int(n) for n in reversed(tensor.shape)]
        weights[tensor.name] = values.reshape(shape).astype(np.float64)
    for prompt in PROMPTS:
        tokens, gap = decode(weights, fields, prompt)
        print(*prompt, ":", *tokens, f"# least gap {gap:.4f}")


def norm(x, weight, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def rope(x, positions, base):
    """Neighbours turn: rows of q and k lie in pairs in these files."""
    half = x.shape[-1] // 2
    angles = positions[:, None] / base ** (np.arange(half) / half)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    out = np.empty_like(x)
    out[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
    out[..., 1::2] = x[..., 1::2] * cos + x[..., 0::2] * sin
    return out


def decode(w, fields, prompt):
    get = lambda name: fields["llama." + name]
    layers, heads, kv_heads = get("block_count"), get("attention.head_count"), get("attention.head_count_kv")
    eps, base = get("attention.layer_norm_rms_epsilon"), get("rope.freq_base")
    head_dim = get("embedding_length") // heads
    head = w.get("output.weight", w["token_embd.weight"])
    cache = [([], []) for _ in range(layers)]
    position, ids, tokens, gap = 0, prompt, [], np.inf
    for _ in range(STEPS):
        x = w["token_embd.weight"][ids]
        positions = np.arange(position, position + len(ids), dtype=np.float64)
        for layer, (keys, values) in enumerate(cache):
            part = lambda name: w[f"blk.{layer}.{name}.weight"]
            h = norm(x, part("attn_norm"), eps)
            split = lambda y, n: y.reshape(len(ids), n, head_dim)
            q = rope(split(h @ part("attn_q").T, heads), positions, base)
            keys.extend(rope(split(h @ part("attn_k").T, kv_heads), positions, base))
            values.extend(split(h @ part("attn_v").T, kv_heads))
            k, v = (np.repeat(np.stack(c), heads // kv_heads, axis=1) for c in (keys, values))
            scores = np.einsum("shd,thd->hst", q, k) / np.sqrt(head_dim)
            hidden = np.arange(len(keys))[None, :] > positions[:, None]
            scores = np.where(hidden, -np.inf, scores)
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            scores /= scores.sum(-1, keepdims=True)
            mixed = np.einsum("hst,thd->shd", scores, v).reshape(len(ids), -1)
            x = x + mixed @ part("attn_output").T
            h = norm(x, part("ffn_norm"), eps)
            gate = h @ part("ffn_gate").T
            x = x + (gate / (1 + np.exp(-gate)) * (h @ part("ffn_up").T)) @ part("ffn_down").T
        logits = norm(x[-1], w["output_norm.weight"], eps) @ head.T
        second, first = np.sort(logits)[-2:]
        gap = min(gap, first - second)
        position += len(ids)
        tokens.append(int(logits.argmax()))
        ids = tokens[-1:]
    return tokens, gap


main(sys.argv[1])
