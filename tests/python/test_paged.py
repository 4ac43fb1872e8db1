# SPDX-License-Identifier: Apache-2.0
"""PagedModel: a client whose model lies in files, against one in memory."""
import numpy as np
import pytest

import libfl

SHAPES = {"a": (300, 40), "b": (7,), "c": (500, 300)}
COUNT = sum(int(np.prod(shape)) for shape in SHAPES.values())


def tensors():
    first = 0
    for shape in SHAPES.values():
        yield first, int(np.prod(shape))
        first += int(np.prod(shape))


def trained(before, first, round_number):
    index = np.arange(first, first + before.size)
    return before + ((index % 13 + round_number) * .01).astype(np.float32)


def run(paged):
    model = libfl.Model.from_tensors(
        {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()})

    def train(task):
        if paged is None:
            return trained(task.weights, 0, task.round)
        assert task.weights.size == 0
        for first, n in tensors():
            paged.write(first, trained(paged.read(first, n), first,
                                       task.round))
        return libfl.TrainResult(samples=3)

    server = libfl.Server()
    server.add_job(model, rounds=3, seed=1)
    client = libfl.Client("one", train=train, paged=paged)
    libfl.Loopback(server, [client]).run()
    weights, version = client.copy_weights()
    state = client.save()
    client.close()
    return weights, version, state


def test_a_model_in_files_becomes_the_same(tmp_path):
    want, version, _ = run(None)
    with libfl.PagedModel(tmp_path / "model",
                          memory_budget=8_000_000) as paged:
        got, paged_version, state = run(paged)
        assert paged_version == version == 3
        np.testing.assert_array_equal(got, want)
        assert len(state) < 4096
        # Another life finds it there.
        with libfl.Client("one", paged=paged, state=state) as client:
            np.testing.assert_array_equal(client.copy_weights()[0], want)
            assert len(paged) == COUNT
            np.testing.assert_array_equal(paged.read(100, 5), want[100:105])
            with pytest.raises(libfl.StateError):
                paged.write(0, want[:2])
        paged.remove(COUNT)
        assert not list(tmp_path.glob("model-*"))


def test_a_name_is_needed(tmp_path):
    with pytest.raises(libfl.OptionsError):
        libfl.PagedModel(tmp_path / ("a" * 65))
