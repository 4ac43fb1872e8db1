# SPDX-License-Identifier: Apache-2.0
"""The training comparison and the recorder of real updates in tests/bench, on
a small data set made here."""
import gzip
import sys

import numpy as np
import pytest

import libfl as fl


def lines_of(capsys):
    return dict(line.split()
                for line in capsys.readouterr().out.splitlines())


def test_every_codec_trains(bench, images, capsys):
    bench("train_rivals").main(
        ["--images", str(images), "--clients", "3", "--seeds", "11,12",
         "--rounds", "6", "--steps", "4", "--batch", "16", "--alpha", "0"])
    lines = lines_of(capsys)
    for codec in ("f32", "bf16", "dither_b4", "uniform_b4_ef", "topk10_ef",
                  "sign_ef"):
        assert float(lines[f"accuracy_{codec}_c3"]) > .5, lines
        assert float(lines[f"accuracy_{codec}_c3_ci"]) >= 0
    assert "difference_f32_c3" not in lines
    assert abs(float(lines["difference_bf16_c3"])) < .1


@pytest.mark.parametrize("name", ["uniform_b4_ef", "topk10_ef", "sign_ef"])
def test_error_feedback_loses_nothing(bench, rng, name):
    # What arrived and what is remembered add up to what was meant.
    codec = bench("train_rivals").CODECS[name]
    codec.start([700, 300], 2, 5)
    meant, arrived = np.zeros(1000), np.zeros(1000)
    for number in range(8):
        updates = rng.standard_normal((2, 1000)).astype(np.float32)
        meant += updates.mean(axis=0)
        arrived += codec.mean(list(updates), number)
    left = np.mean([codec.lost(i) for i in range(2)], axis=0)
    np.testing.assert_allclose(arrived + left, meant, atol=1e-4)
    assert np.abs(left).max() > 1e-3


@pytest.mark.parametrize("name, error", [("f32", 1e-12), ("bf16", 1e-5),
                                         ("dither_b4", .01)])
def test_means_are_those_of_the_updates(bench, rng, name, error):
    codec = bench("train_rivals").CODECS[name]
    codec.start([3000, 2000], 4, 5)
    updates = rng.standard_normal((4, 5000)).astype(np.float32)
    off = codec.mean(list(updates), 0) - updates.mean(axis=0)
    assert np.dot(off, off) / np.mean((updates ** 2).sum(axis=1)) < error


@pytest.mark.parametrize("alpha", [0, .1, 100])
def test_clients_get_equal_parts(bench, rng, alpha):
    labels = np.arange(1000, dtype=np.int32) % 10
    parts = bench("train_rivals").parts(labels, 7, alpha, rng)
    assert [len(part) for part in parts] == [142] * 7
    if alpha == 0:
        assert len(set(np.concatenate(parts))) == 7 * 142


def test_small_alpha_is_uneven(bench, rng):
    labels = np.arange(1000, dtype=np.int32) % 10

    def largest_share(alpha):
        return np.mean([np.bincount(labels[part]).max() / len(part) for part
                        in bench("train_rivals").parts(labels, 20, alpha,
                                                       rng)])
    assert largest_share(.1) > .5 > .3 > largest_share(100)


def test_interval_is_students(bench):
    mean, half = bench("train_rivals").interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert mean == 3.0
    assert half == pytest.approx(2.776 * np.sqrt(2.5 / 5))


def test_updates_of_the_mlp_are_written(bench, images, tmp_path, capsys):
    path = tmp_path / "updates.npy"
    bench("gradients").main([str(path), "--images", str(images), "--workers",
                             "3", "--batch", "8", "--warm-up", "1"])
    rows = bench("rivals").load(path)
    assert rows.shape == (3, 1068810) and np.abs(rows).max() > 0
    assert not np.array_equal(rows[0], rows[1])
    assert 0 < float(lines_of(capsys)["coherence"]) <= 1


def test_updates_of_the_cnn_want_torch(bench, images, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit, match="python3-torch"):
        bench("gradients").main([str(tmp_path / "x.npy"), "--model", "cnn",
                                 "--images", str(images)])


def test_more_samples_than_there_are_is_refused(bench, images, tmp_path):
    with pytest.raises(SystemExit, match="want less than 2000"):
        bench("gradients").main([str(tmp_path / "x.npy"), "--workers", "500",
                                 "--images", str(images)])


def test_a_missing_data_set_is_named(bench, tmp_path):
    with pytest.raises(SystemExit, match="dataset-fashion-mnist"):
        bench("train_rivals").main(["--images", str(tmp_path / "none")])


def test_a_foreign_file_is_refused(bench, images):
    path = images / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(b"\0" * 64))
    with pytest.raises(ValueError, match="magic number"):
        bench("fashion").load("train", images)


def test_table_mode_takes_part_when_the_library_has_it(bench):
    assert (("table_b4_ef" in bench("train_rivals").CODECS)
            == hasattr(fl.ThcMode, "TABLE"))
