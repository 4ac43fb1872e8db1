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
        paged.remove()
        assert not list(tmp_path.glob("model-*"))


@pytest.mark.parametrize("name", ["a" * 65, "Model", "my model", "m+"])
def test_a_name_is_what_files_may_be_called(tmp_path, name):
    with pytest.raises(libfl.OptionsError):
        libfl.PagedModel(tmp_path / name)


def test_files_are_removed_by_whoever_comes_later(tmp_path):
    with libfl.PagedModel(tmp_path / "model") as paged:
        run(paged)
    assert list(tmp_path.glob("model-*"))
    with libfl.PagedModel(tmp_path / "model") as paged:
        paged.remove()
    assert not list(tmp_path.glob("model-*"))


def test_steps_go_on_from_what_was_written(tmp_path):
    """Two epochs of minibatches, against the same ones in memory."""
    batches = np.random.default_rng(5).normal(size=(4, 3)).astype(np.float32)

    def step(weights, batch):
        rate = np.float32(.25) * (np.float32(batch.mean()) - weights)
        return (weights + rate).astype(np.float32)

    def in_memory(task):
        weights = task.weights.copy()
        for batch in [*batches, *batches]:
            weights = step(weights, batch)
        return weights

    def outcome(train, paged=None):
        model = libfl.Model.from_tensors(
            {name: np.full(shape, .5, np.float32)
             for name, shape in SHAPES.items()})
        server = libfl.Server()
        server.add_job(model, rounds=2, seed=1, evaluate_every=1)
        scores = []

        def evaluate(weights):
            read = weights if paged is None else paged.read(0, COUNT)
            scores.append(read.copy())
            return libfl.Score(loss=float(read[0]), correct=0, count=1)

        client = libfl.Client("one", train=train, evaluate=evaluate,
                              paged=paged)
        libfl.Loopback(server, [client]).run()
        weights, _ = client.copy_weights()
        client.close()
        return weights, scores

    want, want_scores = outcome(in_memory)
    with libfl.PagedModel(tmp_path / "model") as paged:
        def in_files(task):
            for batch in [*batches, *batches]:
                for first, n in tensors():
                    paged.write(first, step(paged.read(first, n), batch))
            return libfl.TrainResult(samples=1)

        got, got_scores = outcome(in_files, paged)
    np.testing.assert_array_equal(got, want)
    assert len(want_scores) == 2
    np.testing.assert_array_equal(got_scores, want_scores)
