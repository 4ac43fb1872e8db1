# SPDX-License-Identifier: Apache-2.0
"""The library's bytes against thc_numpy's, which knows docs/design/thc.md and
nothing of the library. All comparisons are of bytes."""
import itertools

import numpy as np
import pytest

import libfl as fl
import thc_numpy

MODES = list(fl.ThcMode)
SHAPES = [[1], [15], [255], [256], [257], [4095], [4096], [4097], [9000, 300],
          [3, 5000, 1], [4096, 4096], [3 * 4096 + 100, 1025, 2048]]
# Neighbourhoods of 26, 26 and 25 blocks, and a tail.
MANY_BLOCKS = 77 * 4096 + 777


class Pair:
    """The library's compressor and the document's codec."""

    def __init__(self, sizes, mode, bits, rng, table=None):
        seed = rng.bytes(32)
        options = fl.CodecOptions("thc", mode, bits, rotation_seed=seed,
                                  table=table)
        self.library = fl.Compressor(sizes, options)
        self.oracle = thc_numpy.Codec(sizes, int(mode), bits,
                                      self.library.clip, seed,
                                      self.library.table)
        assert self.oracle.g == self.library.granularity
        assert self.oracle.n_units == self.library.norm_count

    def measure(self, x, scale, samples=1):
        norms = self.library.measure(x, scale, samples=samples)
        expected = self.oracle.measure(x, scale, samples)
        assert norms.tobytes() == expected.tobytes()
        return norms

    def encode(self, x, scale, slot=0, samples=1, segments=None):
        data, report = self.library.encode_with_report(
            x, scale, slot=slot, samples=samples, segments=segments)
        update = self.oracle.quantised(x, scale, slot, samples, segments)
        assert data == self.oracle.update_bytes(update, scale)
        assert report.clamped == update.clamped
        assert report.rescaled == update.rescaled
        return data

    def decode(self, data, scale):
        mean = self.library.decode(data, scale)
        assert mean.tobytes() == self.oracle.decode(data, scale).tobytes()
        return mean

    def add(self, encoded, scale, weights=None):
        with self.library.partial(scale) as total:
            assert set(total.add_many(encoded, weights)) == {None}
            data, mean = total.to_bytes(), total.decode()
        summed = self.oracle.add(
            (self.oracle.read_update(one, scale) for one in encoded), scale,
            weights)
        assert data == self.oracle.sum_bytes(summed, scale)
        assert mean.tobytes() == self.decode(data, scale).tobytes()
        return mean


def drawn_table(bits, rng):
    """Values from 0 to a drawn granularity; None: the library's."""
    if rng.random() < .5:
        return None
    n = 1 << bits
    g = int(rng.integers(n - 1, 256))
    between = rng.choice(np.arange(1, g), n - 2, replace=False)
    return sorted({0, g, *between.tolist()})


def drawn_segments(n, rng):
    if rng.random() < .5:
        return None
    return (rng.random(n) < .7).tolist()


def drawn_round(sizes, mode, bits, rng):
    """Compare a round of drawn workers: some above the agreed norms, units
    not sent, segments left out, slots missing, weights."""
    table = drawn_table(bits, rng) if mode == fl.ThcMode.TABLE else None
    pair = Pair(sizes, mode, bits, rng, table)
    slots = int(rng.integers(1, 24))
    present = rng.permutation(slots)[:rng.integers(1, min(slots, 7) + 1)]
    scale = fl.Scale(
        slots, round=int(rng.integers(1 << 40)), noise_seed=rng.bytes(32),
        weight_cap=int(rng.choice([0, 1, 30, 1 << 40])),
        clip=float(rng.choice([0, rng.uniform(.5, 16)])),
        is_public=bool(rng.random() < .3))
    samples = rng.integers(1, 100, present.size).tolist()
    base = rng.standard_normal(sum(sizes))
    vectors = [((base + rng.standard_normal(base.size))
                * 10 ** rng.uniform(-1, 1)).astype(np.float32)
               for _ in present]
    measured = [pair.measure(x, scale, n) for x, n in zip(vectors, samples)]
    scale.norms = fl.merge_norms(measured[:max(1, present.size - 1)])
    scale.norms[rng.random(scale.norms.size) < .15] = 0
    encoded = [pair.encode(x, scale, int(slot), n,
                           drawn_segments(len(sizes), rng))
               for x, n, slot in zip(vectors, samples, present)]
    pair.decode(encoded[0], scale)
    weights = None
    if mode != fl.ThcMode.DITHER and rng.random() < .6:
        most = rng.choice([3, 300, 65535])
        weights = rng.integers(1, most + 1, present.size).tolist()
    pair.add(encoded, scale, weights)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name.lower())
def test_drawn_rounds_have_the_documents_bytes(mode, bits):
    for draw in range(3):
        seed = [int(mode), bits, draw]
        rng = np.random.default_rng(seed)
        sizes = SHAPES[rng.integers(len(SHAPES))]
        print("seed", seed, "sizes", sizes)
        drawn_round(sizes, mode, bits, rng)


@pytest.mark.parametrize("sizes", SHAPES, ids=str)
def test_every_shape_has_the_documents_bytes(rng, sizes):
    drawn_round(sizes, fl.ThcMode.DITHER, 4, rng)


@pytest.mark.parametrize("mode, blocks", [
    (fl.ThcMode.UNIFORM, 31), (fl.ThcMode.DITHER, 32),
    (fl.ThcMode.TABLE, 64)])
def test_neighbourhoods_begin_at_their_limits(rng, mode, blocks):
    drawn_round([blocks * 4096], mode, 4, rng)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name.lower())
def test_segments_of_several_neighbourhoods_have_the_documents_bytes(rng,
                                                                     mode):
    drawn_round([1000, MANY_BLOCKS], mode, 4, rng)


# Around half of the slots the decoder changes its way; from 256 updates of 8
# bits on the place in the cell has fewer than 16 bits, and at 303, 603 and 1027
# slots it matters what is divided by itself. Vectors that are small beside
# their norms leave Y small: then float32 holds its last bit.
@pytest.mark.parametrize("size", [1, 2.0 ** -24], ids=["large", "small"])
@pytest.mark.parametrize("slots, count", [
    (255, 255), (256, 256), (303, 303), (600, 300), (603, 301), (603, 302),
    (1027, 1027)])
def test_dither_of_many_slots_is_decoded_to_the_same_bits(rng, slots, count,
                                                          size):
    pair = Pair([200], fl.ThcMode.DITHER, 8, rng)
    scale = fl.Scale(slots, noise_seed=rng.bytes(32))
    x = rng.standard_normal(200).astype(np.float32)
    scale.norms = pair.measure(x, scale)
    x *= np.float32(size)
    encoded = [pair.library.encode(x * np.float32(rng.uniform(.2, 1)), scale,
                                   slot=int(slot))
               for slot in rng.permutation(slots)[:count]]
    pair.encode(x, scale, slots - 1)
    pair.add(encoded, scale)


@pytest.mark.parametrize("x, samples, norm", [
    ([1, 2 ** -15], 3, 1 + 2 ** -7),  # float32 would round it to 1
    ([3, 0], 1, 1 + 2 ** -7)],  # a third is rounded up as float32
    ids=["length", "weight"])
def test_norms_are_rounded_up_from_double(rng, x, samples, norm):
    pair = Pair([2], fl.ThcMode.DITHER, 4, rng)
    scale = fl.Scale(weight_cap=3)
    x = np.array(x, np.float32)
    assert pair.measure(x, scale, samples).tolist() == [norm]


@pytest.mark.parametrize("is_public", [False, True],
                         ids=["agreed", "announced"])
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name.lower())
def test_extreme_norms_have_the_documents_bytes(rng, mode, is_public):
    pair = Pair([4500], mode, 4, rng)
    for size, share in itertools.product(
            [-149, -126, -85, -80, 0, 119],
            [0, -1, -39, -41, -60]):
        print("size", size, "share", share)
        x = np.ldexp(rng.standard_normal(4500), size).astype(np.float32)
        scale = fl.Scale(3, noise_seed=rng.bytes(32), is_public=is_public)
        norms = pair.measure(x, scale).astype(np.float64)
        scale.norms = thc_numpy.round_up_to_bf16(np.ldexp(norms, share))
        pair.decode(pair.encode(x, scale, 1), scale)


def test_sums_of_updates_without_segments_have_the_documents_bytes(rng):
    pair = Pair([300, 300], fl.ThcMode.UNIFORM, 4, rng)
    scale = fl.Scale(9, weight_cap=10)
    x = rng.standard_normal(600).astype(np.float32)
    scale.norms = pair.measure(x, scale, 20)
    for chosen in itertools.product([[0, 0], [0, 1], [1, 1]], repeat=2):
        encoded = [pair.encode(x, scale, slot, 3 + 12 * slot, segments)
                   for slot, segments in enumerate(chosen)]
        pair.add(encoded, scale)
