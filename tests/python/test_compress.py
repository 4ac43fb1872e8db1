# SPDX-License-Identifier: Apache-2.0
"""Compressor and Partial against numpy's mean."""
import itertools

import numpy as np
import pytest

import libfl as fl

CODECS = [
    fl.CodecOptions("f32"), fl.CodecOptions("bf16"),
    fl.CodecOptions("thc"), fl.CodecOptions("thc", bits=8),
    fl.CodecOptions("thc", fl.ThcMode.UNIFORM, bits=2)]
IDS = ["f32", "bf16", "thc4", "thc8", "thc2-uniform"]
SHAPES = [1, 15, 16, 17, 4095, 4096, 4097, [1, 1], [5000, 3, 4096]]


def agreed(compressor, vectors, **fields):
    """The scale that workers with these vectors agree on."""
    fields.setdefault("slots", len(vectors))
    scale = fl.Scale(**fields)
    scale.norms = fl.merge_norms(
        compressor.measure(x, scale, samples=n + 1)
        for n, x in enumerate(vectors))
    return scale


def encode_all(compressor, vectors, scale):
    return [compressor.encode(x, scale, slot=n, samples=n + 1)
            for n, x in enumerate(vectors)]


@pytest.mark.parametrize("codec", CODECS, ids=IDS)
@pytest.mark.parametrize("sizes", SHAPES, ids=str)
def test_decoded_mean_is_near_numpys(context, rng, codec, sizes):
    with fl.Compressor(sizes, codec, context=context) as compressor:
        vectors = rng.standard_normal((6, compressor.dim)).astype(np.float32)
        scale = agreed(compressor, vectors, noise_seed=rng.bytes(32), round=3)
        encoded = encode_all(compressor, vectors, scale)
        assert max(map(len, encoded)) <= compressor.max_update_size
        with compressor.partial(scale) as total:
            for data in encoded:
                total.add(data)
            mean = total.decode()
            again = compressor.decode(total.to_bytes(), scale)
        assert (mean == again).all()
        error = np.linalg.norm(mean - vectors.mean(0))
        # Relative to one vector: what a worker's quantisation may cost.
        limit = {"f32": 1e-5, "bf16": 4e-3}.get(codec.codec, 0.5)
        if codec.bits == 8:
            limit = 0.08
        assert error <= limit * np.linalg.norm(vectors) / len(vectors) ** 0.5


def test_thc_is_four_bits_a_coordinate():
    with fl.Compressor(100_000, "thc") as compressor:
        x = np.ones(100_000, np.float32)
        scale = agreed(compressor, [x])
        assert 50_000 <= len(compressor.encode(x, scale)) < 53_000


@pytest.mark.parametrize("codec", CODECS, ids=IDS)
def test_order_and_tree_do_not_matter(rng, codec):
    with fl.Compressor([100, 30], codec) as compressor:
        vectors = rng.standard_normal((4, 130)).astype(np.float32)
        scale = agreed(compressor, vectors, noise_seed=rng.bytes(32))
        encoded = encode_all(compressor, vectors, scale)
        sums = set()
        for order in itertools.permutations(encoded):
            left, right = compressor.partial(scale), compressor.partial(scale)
            for data in order[:2]:
                left.add(data)
            for data in order[2:]:
                right.add(data)
            left.merge(right)
            sums.add(left.to_bytes())
            tree = compressor.partial(scale)
            tree.merge(right.to_bytes())
            for data in order[:2]:
                tree.add(data)
            sums.add(tree.to_bytes())
        assert len(sums) == 1


def test_weights_count_by_samples(rng):
    with fl.Compressor(50, "f32") as compressor:
        vectors = rng.standard_normal((3, 50)).astype(np.float32)
        scale = agreed(compressor, vectors, weight_cap=3)
        with compressor.partial(scale) as total:
            for data in encode_all(compressor, vectors, scale):
                total.add(data)
            assert total.samples == 6
            expected = np.average(vectors, axis=0, weights=[1, 2, 3])
            assert np.allclose(total.decode(), expected, atol=1e-5)


def test_many_at_once_are_the_same_as_one_by_one(rng):
    with fl.Compressor([100, 30], "thc") as compressor:
        vectors = rng.standard_normal((5, 130)).astype(np.float32)
        scale = agreed(compressor, vectors)
        encoded = encode_all(compressor, vectors, scale)
        with compressor.partial(scale) as many, \
                compressor.partial(scale) as single:
            bad = [encoded[0], encoded[1][:-1], encoded[0], b"", *encoded[2:]]
            results = many.add_many(bad)
            kinds = [type(result) for result in results]
            assert kinds == [type(None), fl.TruncatedError, fl.DuplicateError,
                             fl.TruncatedError] + 3 * [type(None)]
            assert many.add_many([], []) == []
            assert many.add_many([]) == [] and len(many) == many.weight == 4
            for data in [encoded[0], *encoded[2:]]:
                single.add(data)
            assert many.to_bytes() == single.to_bytes()
            conflict, = many.add_many([encoded[1]], [2])
            assert isinstance(conflict, fl.ConflictError)
            assert "lane weight 2" in str(conflict)
            with pytest.raises(ValueError):
                many.add_many([encoded[1]], [1, 2])
            with pytest.raises(TypeError):
                many.add_many([7])


def test_updates_that_were_left_out_say_why(rng):
    with fl.Compressor(9, fl.CodecOptions(thc_mode="uniform")) as compressor:
        vectors = rng.standard_normal((2, 9)).astype(np.float32)
        scale = agreed(compressor, vectors)
        one, two = encode_all(compressor, vectors, scale)
        magic = b"FLCX" + two[4:]
        with compressor.partial(scale) as total:
            total.add(one)
            texts = [str(error) for error in total.add_many(
                [one, magic, two[:20], two], [1, 1, 1, 65536])]
    assert texts[0].startswith("updates[0]: slot 0, ")
    assert texts[1].startswith("updates[1]: header: magic, got ")
    assert texts[2].startswith("updates[2]: header: got 20 bytes, want >= ")
    assert texts[3].endswith("(lane weight 65536)")


def test_lane_weights_weigh_the_mean(rng):
    options = fl.CodecOptions("thc", fl.ThcMode.UNIFORM, bits=8)
    with fl.Compressor(500, options) as compressor:
        vectors = rng.standard_normal((3, 500)).astype(np.float32)
        scale = agreed(compressor, vectors)
        encoded = encode_all(compressor, vectors, scale)
        with compressor.partial(scale) as total:
            assert total.add_many(encoded, [16, 11, 9]) == 3 * [None]
            assert len(total) == 3 and total.weight == total.samples == 36
            mean = total.decode()
            assert (compressor.decode(total.to_bytes(), scale) == mean).all()
        expected = np.average(vectors, axis=0, weights=[16, 11, 9])
        assert np.linalg.norm(mean - expected) < 0.05 * np.linalg.norm(expected)


def test_sum_knows_its_slots(rng):
    with fl.Compressor(9, "thc") as compressor:
        vectors = rng.standard_normal((3, 9)).astype(np.float32)
        scale = agreed(compressor, vectors, weight_cap=10)
        encoded = encode_all(compressor, vectors, scale)
        with compressor.partial(scale) as total:
            assert total and len(total) == 0 and 1 not in total
            assert total.peek(encoded[1]) == (1, 2)
            total.add(encoded[1])
            assert len(total) == 1 and 1 in total and 2 not in total
            with pytest.raises(fl.DuplicateError):
                total.add(encoded[1])
            before = total.to_bytes()
            with pytest.raises(fl.PeerDataError):
                total.add(encoded[2][:-1])
            assert total.to_bytes() == before


def test_empty_sums_have_no_mean():
    with fl.Compressor(9, "f32") as compressor:
        with compressor.partial(fl.Scale(norms=[1])) as total:
            with pytest.raises(fl.EmptyError):
                total.decode()


def test_another_round_is_stale(rng):
    with fl.Compressor(9, "f32") as compressor:
        x = rng.standard_normal(9).astype(np.float32)
        first = agreed(compressor, [x], round=1)
        second = agreed(compressor, [x], round=2)
        with compressor.partial(second) as total:
            with pytest.raises(fl.StaleError):
                total.add(compressor.encode(x, first))


def test_segments_left_out_come_out_as_zeros():
    with fl.Compressor([4, 4], "f32") as compressor:
        x = np.arange(1, 9, dtype=np.float32)
        scale = agreed(compressor, [x])
        data = compressor.encode(x, scale, segments=[False, True])
        assert (compressor.decode(data, scale)
                == [0, 0, 0, 0, 5, 6, 7, 8]).all()


def test_report_counts_what_does_not_fit(rng):
    with fl.Compressor([4096, 4096], "thc") as compressor:
        x = rng.standard_normal(8192).astype(np.float32)
        norms = compressor.measure(x)
        scale = fl.Scale(norms=norms)
        _, report = compressor.encode_with_report(x, scale)
        assert report.rescaled == 0
        assert report.clamped == report.block_clamped.sum()
        x[:4096] *= 10
        data, report = compressor.encode_with_report(x, scale)
        assert report.rescaled == 1
        assert data == compressor.encode(x, scale)


def test_encoding_is_the_same_every_time(rng):
    x = rng.standard_normal(5000).astype(np.float32)
    seen = set()
    for _ in range(3):
        with fl.Compressor(5000) as compressor:
            scale = agreed(compressor, [x], noise_seed=bytes(range(32)))
            seen.add(compressor.encode(x, scale))
    assert len(seen) == 1


def test_hostile_bytes_are_errors_never_crashes(rng):
    with fl.Compressor([300, 20]) as compressor:
        x = rng.standard_normal(320).astype(np.float32)
        scale = agreed(compressor, [x])
        good = compressor.encode(x, scale)
        for length in range(0, len(good), 7):
            with pytest.raises(fl.PeerDataError):
                compressor.decode(good[:length], scale)
        for _ in range(300):
            bad = bytearray(good)
            bad[rng.integers(len(bad))] ^= 1 << int(rng.integers(8))
            try:
                assert np.isfinite(compressor.decode(bad, scale)).all()
            except fl.PeerDataError:
                pass


BEST_30 = [0, 3, 5, 7, 9, 11, 13, 14, 15, 17, 19, 21, 23, 25, 27, 30]


def test_table_is_solved_for_a_granularity_and_a_clip():
    codec = fl.CodecOptions(thc_mode="table", granularity=30, clip=2.15387)
    with fl.Compressor(9, codec) as compressor:
        assert compressor.granularity == 30
        assert compressor.table.tolist() == BEST_30
        assert compressor.clip == pytest.approx(2.15387)


def test_table_without_a_clip_comes_with_its_best():
    codec = fl.CodecOptions(thc_mode="table")
    with fl.Compressor(9, codec) as compressor:
        assert compressor.granularity == 17
        assert compressor.clip == compressor.best_clip(1) == 2.4150390625


def test_workers_bound_the_granularity_that_is_chosen():
    for workers, most in [(0, 31), (5, 51), (17, 15)]:
        codec = fl.CodecOptions(thc_mode=fl.ThcMode.TABLE, workers=workers)
        with fl.Compressor(9, codec) as compressor:
            assert 15 <= compressor.granularity <= most
            assert compressor.table[-1] == compressor.granularity


@pytest.mark.parametrize("kind", [list, tuple, np.array,
                                  lambda x: np.array(x, np.uint8)[::1]])
def test_given_table_is_used(kind):
    codec = fl.CodecOptions(thc_mode="table", bits=2, table=kind([0, 2, 5, 9]))
    with fl.Compressor(9, codec) as compressor:
        assert compressor.granularity == 9
        assert compressor.table.tolist() == [0, 2, 5, 9]


@pytest.mark.parametrize("kind", [list, np.array])
def test_options_with_a_table_are_equal_and_have_a_hash(kind):
    one, same, other = (fl.CodecOptions(thc_mode="table", table=kind(table))
                        for table in ([0, 2, 5, 9], [0, 2, 5, 9],
                                      [0, 1, 5, 9]))
    assert one == same and hash(one) == hash(same) and one != other
    assert one.table == (0, 2, 5, 9)


@pytest.mark.parametrize("table", [[0, 1, 2, 256], [-1, 0, 1, 2], [[0, 1]],
                                   [0.0, 1.0, 2.0, 3.0]])
def test_table_must_hold_bytes(table):
    with pytest.raises(ValueError):
        fl.Compressor(9, fl.CodecOptions(thc_mode="table", bits=2,
                                         table=table))


def test_table_that_does_not_rise_is_refused():
    codec = fl.CodecOptions(thc_mode="table", bits=2, table=[0, 2, 2, 3])
    with pytest.raises(fl.OptionsError, match=r"table\[2\]: got 2, want > 2"):
        fl.Compressor(9, codec)


def test_uniform_and_dither_have_the_identity_and_f32_none():
    with fl.Compressor(9, fl.CodecOptions(bits=3)) as compressor:
        assert compressor.table.tolist() == list(range(8))
        assert compressor.granularity == 7
    with fl.Compressor(9, "f32") as compressor:
        assert compressor.granularity == 0
        assert compressor.best_clip(10, 1.0) == 0.0
        with pytest.raises(fl.StateError):
            compressor.table


def test_thc_mode_must_be_known():
    with pytest.raises(ValueError, match="uniform"):
        fl.Compressor(9, fl.CodecOptions(thc_mode="best"))


def test_best_clip_grows_with_coherence():
    with fl.Compressor(9) as compressor:
        assert compressor.best_clip(10) == compressor.clip
        clips = [compressor.best_clip(10, r) for r in (.1, .3, .6, 1.0)]
        assert clips == sorted(set(clips))
        assert clips[-1] == 3.6875
        assert compressor.best_clip(10, 1.0, 2.0) == 3.6875 / 2
        assert compressor.best_clip(10, 1.0, spread=1e9) == .5


@pytest.mark.parametrize("sizes", [[], [0], [-1], [1.5], [[1, 2]]])
def test_sizes_must_be_positive_integers(sizes):
    with pytest.raises(ValueError):
        fl.Compressor(sizes)


def test_options_are_checked():
    with pytest.raises(ValueError, match="codec: got 'zip', want one of"):
        fl.Compressor(4, "zip")
    with pytest.raises(ValueError, match="rotation_seed: got 3 bytes"):
        fl.Compressor(4, fl.CodecOptions(rotation_seed=b"abc"))
    with pytest.raises(ValueError, match="noise_seed: got 0 bytes"):
        with fl.Compressor(4) as compressor:
            compressor.measure(np.ones(4), fl.Scale(noise_seed=b""))
    with pytest.raises(fl.OptionsError):
        fl.Compressor(4, fl.CodecOptions(bits=9))


def test_merge_norms_is_the_maximum_and_checks_the_grid():
    assert (fl.merge_norms([[1, 4], [2, 3]]) == [2, 4]).all()
    with pytest.raises(ValueError, match="want at least one"):
        fl.merge_norms([])
    with pytest.raises(fl.RangeError):
        fl.merge_norms([[1.0], [-1.0]])
    with pytest.raises(ValueError, match="got 1 values"):
        fl.merge_norms([[1, 2], [1]])


def test_properties(context):
    with fl.Compressor([5000, 3], context=context) as compressor:
        assert compressor.dim == 5003
        assert compressor.norm_count == 3
        assert compressor.clip > 0
    with fl.Compressor([5000, 3], "bf16", context=context) as compressor:
        assert compressor.norm_count == 2
        assert compressor.clip == 0
