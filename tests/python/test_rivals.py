# SPDX-License-Identifier: Apache-2.0
"""The codecs that tests/bench compares THC with: known errors, and the same
definition as the library's."""
import math
import sys

import numpy as np
import pytest

import libfl as fl

SIZE = 1 << 16


@pytest.fixture
def nmse(bench):
    """Return a function that measures a codec: mean over seeds."""
    rivals, codecs = bench("rivals"), bench("codecs_numpy")

    def measure(name, data="gauss", workers=1, seeds=4, size=SIZE):
        codec = codecs.CODECS[name][1]
        return np.mean([rivals.errors(
            codec, rivals.Vectors(data, size, seed), [workers],
            seed)[workers] for seed in range(1, seeds + 1)])
    return measure


@pytest.mark.parametrize("bits, error", [
    (1, math.pi / 2 - 1), (2, .1331), (3, .03578), (4, .009592)])
def test_edens_error_is_that_of_the_best_quantiser(nmse, bits, error):
    assert nmse(f"eden_b{bits}") == pytest.approx(error, rel=.02)


@pytest.mark.parametrize("name, error", [
    ("drive", math.pi / 2 - 1), ("sign", 1 - 2 / math.pi),
    ("topk10", .5608)])
def test_one_workers_error_is_the_known_one(nmse, name, error):
    assert nmse(name) == pytest.approx(error, rel=.02)


@pytest.mark.parametrize("name", ["eden_b4", "qsgd_max_b4", "terngrad",
                                  "qsgd_bucket512_b4"])
def test_unbiased_codecs_average_out(nmse, name):
    assert nmse(name, workers=16) == pytest.approx(nmse(name) / 16, rel=.05)


def test_biased_codecs_do_not_average_out(nmse):
    for name in ("sign", "topk10"):
        assert nmse(name, workers=8) == pytest.approx(nmse(name), rel=1e-6)


@pytest.mark.parametrize("size", [1, 2, 255, 257, 4095, 10007])
def test_any_length_is_coded(bench, rng, size):
    codecs = bench("codecs_numpy")
    x = rng.standard_normal(size).astype(np.float32)
    for name, (bits, codec) in codecs.CODECS.items():
        decoded = codec(x, np.random.default_rng(1))
        assert decoded.shape == x.shape and decoded.dtype == np.float32, name
        assert np.isfinite(decoded).all() and 1 <= bits <= 16, name


def test_padding_takes_no_share_of_edens_error(nmse):
    # 3/8 more than a power of two: padded whole, .69 of it would be left.
    assert nmse("eden_b4", size=SIZE // 8 * 11) == pytest.approx(.009592,
                                                                 rel=.03)


def test_zeros_stay_zeros(bench):
    for name, (_, codec) in bench("codecs_numpy").CODECS.items():
        decoded = codec(np.zeros(1000, np.float32), np.random.default_rng(1))
        assert not decoded.any(), name


def test_rotation_keeps_lengths_and_is_its_own_inverse(bench, rng):
    codecs = bench("codecs_numpy")
    for size in (1, 2, 128, 256, 1 << 15):
        x = rng.standard_normal(size).astype(np.float32)
        y = codecs.rotate(x)
        assert np.linalg.norm(y) == pytest.approx(np.linalg.norm(x), rel=1e-5)
        np.testing.assert_allclose(codecs.rotate(y), x, atol=1e-5)


def test_rotation_is_hadamards(bench, rng):
    codecs = bench("codecs_numpy")
    x = rng.standard_normal(512).astype(np.float32)
    np.testing.assert_allclose(codecs.rotate(x),
                               codecs.hadamard(512) @ x / np.sqrt(512),
                               atol=1e-5)


def test_bf16_is_what_the_library_sends(bench, rng):
    x = rng.standard_normal(5000).astype(np.float32)
    rounded = bench("codecs_numpy").bf16(x, None)
    with fl.Compressor(x.size, "bf16") as compressor:
        scale = fl.Scale()
        scale.norms = compressor.measure(x, scale)
        decoded = compressor.decode(compressor.encode(x, scale), scale)
    assert np.array_equal(decoded, rounded)


def test_files_that_are_no_matrix_of_float32_are_refused(bench, tmp_path):
    rivals = bench("rivals")
    for array in (np.zeros(3, np.float32), np.zeros((2, 2)),
                  np.array([[{}]], object)):
        path = tmp_path / "x.npy"
        np.save(path, array, allow_pickle=True)
        with pytest.raises(ValueError):
            rivals.load(path)


def test_lines_have_the_keys_of_nmse_thc(bench, capsys):
    bench("rivals").main(["--size", "1000", "--seeds", "2", "--workers",
                          "1,2", "--data", "sparse", "--codecs", "topk10"])
    lines = dict(line.split() for line in capsys.readouterr().out.split("\n")
                 if line)
    assert set(lines) == {"bits_topk10", "nmse_sparse_topk10_n1",
                          "nmse_sparse_topk10_n1_se", "nmse_sparse_topk10_n2",
                          "nmse_sparse_topk10_n2_se"}
    assert float(lines["nmse_sparse_topk10_n1"]) == 0.0


def test_plots_read_those_lines(bench):
    plots = bench("plot_thc")
    results = plots.Results.parse(
        ["bits_dither_b4_p91 4", "nmse_gauss_indep_dither_b4_p91_n10 0.5",
         "nmse_gauss_indep_dither_b4_p91_n10_se 0.1",
         "nmse_gauss_dither_b4_p91_n1 0.25"])
    family = next(f for f in plots.FAMILIES if f.label.endswith("1/91"))
    assert results.points("gauss_indep", family,
                          lambda scheme, n: n) == [(10, .5, .1)]
    assert results.points("gauss", family, lambda scheme, n:
                          results.bits[scheme]) == [(4.0, .25, 0.0)]
    with pytest.raises(ValueError):
        plots.Results.parse(["bits_x 4"])


def test_labels_keep_order_and_distance(bench):
    spread = bench("plot_thc").spread
    places = spread([.5, .5, .45, 3.0], 1.0, 0.0, 3.0)
    assert places == pytest.approx([1.0, 2.0, 0.0, 3.0])
    assert spread([.2], 1.0, 0.0, 3.0) == [.2]


def test_plots_want_matplotlib(bench, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit, match="python3-matplotlib"):
        bench("plot_thc").main([str(tmp_path / "plots"), "results"])
    assert not (tmp_path / "plots").exists()


def test_plots_want_results_or_a_program(bench, tmp_path, capsys):
    for arguments in ([], ["results", "--program", "nmse_thc"]):
        with pytest.raises(SystemExit):
            bench("plot_thc").main([str(tmp_path), *arguments])
        assert "--program, and not both" in capsys.readouterr().err


def test_plots_know_the_keys_of_both_programs(bench):
    results = bench("plot_thc").Results.parse(
        "bits_bf16 16\nbits_dither_b4_best 4\nnmse_gauss_bf16_n1 3e-6\n"
        "nmse_gauss_indep_dither_b4_best_n10 .001\n"
        "nmse_gauss_indep_dither_b4_best_n10_se .00001\n"
        "nmse_gauss_indep_dither_b4_best_n10_d1003 .5\n"
        "nmse_my_cnn_eden_b4_n2 .005\n".splitlines())
    assert results.data() == ["gauss_indep", "gauss", "my_cnn"]
    assert results.bits == {"bf16": 16, "dither_b4_best": 4}
    assert results.nmse == {
        ("gauss", "bf16", 1): (3e-6, 0),
        ("gauss_indep", "dither_b4_best", 10): (.001, .00001),
        ("my_cnn", "eden_b4", 2): (.005, 0)}
