"""Writes blocks/*.bin: blocks of every type and the values that the package `gguf` reads in them.

    pip install gguf==0.19.0 && python3 crates/trt-kernel/tests/references/blocks.py

A file holds blocks, then their values in f32, both little-endian. Bytes are random (of a fixed seed); scales
go through numbers of all sizes: zero of both signs, subnormal, normal, the greatest, negative ones.
"""

import pathlib
import random
import struct

import numpy
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

# Name, and where scales and minima of f16 are.
TYPES = {
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q8_0": [0],
    "Q2_K": [80, 82],
    "Q3_K": [108],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
    "IQ4_NL": [0],
    "IQ4_XS": [0],
    "MXFP4": [],
}
SCALES = [0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x2A31, 0x7BFF, 0xFBFF, 0x3C00, 0xB5C3]
EXPONENTS = [0, 1, 2, 127, 120, 200, 250]


def main():
    folder = pathlib.Path(__file__).parent / "blocks"
    chance = random.Random(15)
    for name, places in TYPES.items():
        kind = GGMLQuantizationType[name]
        values, size = GGML_QUANT_SIZES[kind]
        # As many as show all scales, fewer of the large blocks.
        count = 10 if values == 32 else 3
        blocks = bytearray()
        for i in range(count):
            block = bytearray(chance.randbytes(size))
            for place in places:
                scale = SCALES[i] if values == 32 else chance.choice(SCALES)
                struct.pack_into("<H", block, place, scale)
            if len(places) == 2 and i % 2 == 1:
                struct.pack_into("<H", block, places[1], chance.choice(SCALES))
            if kind == GGMLQuantizationType.MXFP4:
                block[0] = EXPONENTS[i % len(EXPONENTS)]
            blocks += block
        decoded = dequantize(numpy.frombuffer(bytes(blocks), dtype=numpy.uint8), kind)
        decoded = decoded.astype("<f4").tobytes()
        assert len(decoded) == 4 * count * values
        (folder / f"{name.lower()}.bin").write_bytes(bytes(blocks) + decoded)


main()
