# SPDX-License-Identifier: Apache-2.0
"""Compressors of single vectors, in numpy: what a receiver decodes.

Each is a function (x, rng) -> what arrives, both float32. They are the usual
comparisons of summable compression; their updates cannot be added without
decoding them first.

  eden    Vargaftik et al., "EDEN", ICML 2022: rotation, Lloyd-Max centroids,
          the scale that makes the estimate unbiased
  drive   Vargaftik et al., "DRIVE", NeurIPS 2021: one bit, the same scale
  qsgd    Alistarh et al., "QSGD", NeurIPS 2017: sign and stochastic levels
  terngrad  Wen et al., "TernGrad", NeurIPS 2017
  topk    the largest tenth, exactly
  sign    the signs times the mean magnitude
"""
import functools
import math
import statistics

import numpy as np

NORMAL = statistics.NormalDist()


@functools.lru_cache(maxsize=None)
def hadamard(n):
    """Sylvester's matrix of size n, with entries +-1."""
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < n:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


def rotate(x):
    """Walsh-Hadamard transform that keeps lengths; len(x) a power of two.

    H of 2^k is the Kronecker product of small ones: matrix products with them
    are faster in numpy than butterflies.
    """
    left, y = x.size, x
    while left > 1:
        size = min(left, 128)
        left //= size
        y = (y.reshape(-1, size) @ hadamard(size)).T
        y = np.ascontiguousarray(y)
    return y.reshape(-1) * np.float32(x.size ** -0.5)


def draw_signs(rng, n):
    return np.float32(2) * rng.integers(0, 2, n, np.int8) - np.float32(1)


@functools.lru_cache(maxsize=None)
def lloyd_max(bits, steps=2000):
    """Centroids and inner borders of the quantiser of N(0, 1) with 2^bits
    values that has the least mean squared error."""
    n = 2 ** bits
    # Optimal density of many levels: the normal one to the power of 1/3.
    centres = np.array([math.sqrt(3) * NORMAL.inv_cdf((i + .5) / n)
                        for i in range(n)])
    for _ in range(steps):
        borders = (centres[1:] + centres[:-1]) / 2
        tail = [0.5 * math.erfc(b / math.sqrt(2)) for b in borders]
        share = -np.diff([1, *tail, 0])
        density = np.exp(-borders ** 2 / 2) / math.sqrt(2 * math.pi)
        moved = np.diff(-np.array([0, *density, 0])) / share
        step = np.abs(moved - centres).max()
        centres = moved
        if step < 1e-10:
            break
    return (centres.astype(np.float32),
            ((centres[1:] + centres[:-1]) / 2).astype(np.float32))


def _by_pieces(code, x, rng):
    """Run code(piece, rng) over pieces whose sizes are powers of two, the
    last one padded with zeros: padding all of x would send up to twice as
    many coordinates and drop as much of the error with them."""
    result, at = np.empty_like(x), 0
    while at < x.size:
        left = x.size - at
        size = max(1 << (left.bit_length() - 1), 256)
        piece = np.zeros(size, np.float32)
        piece[:left] = x[at:at + size]
        result[at:at + size] = code(piece, rng)[:left]
        at += size
    return result


def _unbiased(x, y, q, signs):
    """Undo the rotation of q, scaled by |x|^2 / <y, q>."""
    length = np.dot(x.astype(np.float64), x)
    match = np.dot(y.astype(np.float64), q)
    return rotate(q * np.float32(length / match)) * signs


def _eden_piece(x, rng, bits):
    centres, borders = lloyd_max(bits)
    signs = draw_signs(rng, x.size)
    y = rotate(x * signs)
    deviation = math.sqrt(np.dot(y.astype(np.float64), y) / y.size)
    if deviation == 0:
        return x
    place = np.searchsorted(borders, y / np.float32(deviation))
    return _unbiased(x, y, centres[place], signs)


def _drive_piece(x, rng):
    signs = draw_signs(rng, x.size)
    y = rotate(x * signs)
    if not y.any():
        return x
    return _unbiased(x, y, np.where(y < 0, np.float32(-1), np.float32(1)),
                     signs)


def eden(x, rng, bits):
    return _by_pieces(functools.partial(_eden_piece, bits=bits), x, rng)


def drive(x, rng):
    return _by_pieces(_drive_piece, x, rng)


def _stochastic(x, norm, levels, rng):
    """|x| / norm in 0..levels, rounded up or down by chance, with x's sign.
    Norms of 0 belong to zeros."""
    norm = np.where(norm > 0, norm, 1).astype(np.float32)
    noise = rng.random(x.shape, np.float32)
    q = np.floor(np.abs(x) * (np.float32(levels) / norm) + noise)
    q = np.minimum(q, np.float32(levels))  # what float32 rounds up to more
    return np.copysign(q * (norm / np.float32(levels)), x)


def qsgd_l2(x, rng, bits):
    norm = math.sqrt(np.dot(x.astype(np.float64), x))
    return _stochastic(x, norm, 2 ** (bits - 1) - 1, rng)


def qsgd_max(x, rng, bits):
    return _stochastic(x, np.abs(x).max(), 2 ** (bits - 1) - 1, rng)


def qsgd_bucket(x, rng, bits, size=512):
    padded = np.zeros(-(-x.size // size) * size, np.float32)
    padded[:x.size] = x
    rows = padded.reshape(-1, size)
    norms = np.abs(rows).max(axis=1, keepdims=True)
    return _stochastic(rows, norms, 2 ** (bits - 1) - 1,
                       rng).reshape(-1)[:x.size]


def terngrad(x, rng):
    most = np.abs(x).max()
    sent = rng.random(x.size, np.float32) * most < np.abs(x)
    return np.where(sent, np.copysign(most, x), np.float32(0))


def topk(x, rng, share=0.1):
    del rng
    count = max(int(share * x.size), 1)
    kept = np.argpartition(np.abs(x), -count)[-count:]
    result = np.zeros_like(x)
    result[kept] = x[kept]
    return result


def sign(x, rng):
    del rng
    return np.copysign(np.float32(np.abs(x).mean(dtype=np.float64)), x)


def fp16(x, rng):
    del rng
    return x.astype(np.float16).astype(np.float32)


def bf16(x, rng):
    """To the nearest, ties to even."""
    del rng
    word = x.view(np.uint32)
    odd = (word >> np.uint32(16)) & np.uint32(1)
    rounded = (word + np.uint32(0x7fff) + odd) & np.uint32(0xffff0000)
    return rounded.view(np.float32)


def _with_bits(function, bits):
    return functools.partial(function, bits=bits)


# Name -> (bits per coordinate, function). Scales and norms are not counted;
# a bucket's norm is 32 bits for 512 coordinates, a kept coordinate 32 bits
# and its place as many.
CODECS = {f"eden_b{b}": (b, _with_bits(eden, b)) for b in range(1, 9)}
CODECS |= {f"qsgd_l2_b{b}": (b, _with_bits(qsgd_l2, b)) for b in range(2, 9)}
CODECS |= {f"qsgd_max_b{b}": (b, _with_bits(qsgd_max, b))
           for b in range(2, 9)}
CODECS |= {
    "drive": (1, drive),
    "qsgd_bucket512_b4": (4 + 32 / 512, _with_bits(qsgd_bucket, 4)),
    "terngrad": (math.log2(3), terngrad),
    "topk10": (6.4, topk),
    "sign": (1, sign),
    "fp16": (16, fp16),
    "bf16": (16, bf16),
}
