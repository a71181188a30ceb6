"""What onnxruntime makes of the network of examples/diffuse: writes terrain.txt.

Needs numpy, onnxruntime and the wheel adaptive-terrain-diffusion==0.4.2.
python3 tests/references/terrain.py PATH/terrain_consistency_unet_difficulty100.onnx
"""

import math
import pathlib
import struct
import sys

import numpy as np
import onnxruntime

SIDE = 128
MASK = (1 << 64) - 1


def normal(seed, count):
    """The noise of examples/diffuse/noise.rs."""
    state = seed

    def uniform():
        nonlocal state
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return ((z ^ (z >> 31)) >> 11) / (1 << 53)

    def one():
        radius, angle = 1.0 - uniform(), uniform()
        return math.sqrt(-2.0 * math.log(radius)) * math.cos(2.0 * math.pi * angle)

    return np.array([one() for _ in range(count)], dtype=np.float32)


def main():
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    lines = [
        f"# onnxruntime {onnxruntime.__version__}; a line: seed, sigma, label, then every 61st value of {SIDE} x {SIDE}"
    ]
    for seed, sigma, label in [(7, 80.0, 59 / 99), (8, 80.0, 0.0), (9, 2.5, 1.0)]:
        noisy = normal(seed, SIDE * SIDE) * np.float32(sigma)
        inputs = {
            "noisy": noisy.reshape(1, 1, SIDE, SIDE),
            "sigma": np.array([sigma], dtype=np.float32),
            "difficulty": np.array([label], dtype=np.float32),
        }
        (out,) = session.run(["denoised"], inputs)
        bits = [struct.pack(">f", v).hex() for v in out.ravel()[::61]]
        lines.append(f"{seed} {sigma} {label!r} " + " ".join(bits))
    pathlib.Path(__file__).with_suffix(".txt").write_text("\n".join(lines) + "\n")


main()
