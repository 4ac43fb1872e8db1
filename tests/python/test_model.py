# SPDX-License-Identifier: Apache-2.0
"""Models: training on a toy problem, tensors by name, descriptions."""
import io
import sys
import threading

import numpy as np
import pytest

import libfl as fl


def test_training_learns_the_toy_problem(context, mlp, blobs):
    with mlp(context=context) as model:
        before = model.evaluate(*blobs(500, seed=2))
        result = model.fit(*blobs(600), epochs=5, learning_rate=0.1)
        after = model.evaluate(*blobs(500, seed=2))
        assert result.steps == 5 * 19 and result.samples == 3000
        assert after.accuracy > 0.97 > before.accuracy
        assert after.loss < before.loss
        assert result.mean_loss < 0.3


def test_uint8_samples_are_scaled_on_the_way_in(blobs):
    pixels = np.random.default_rng(5).integers(0, 256, (9, 6), np.uint8)
    layers = [fl.Dense(2), fl.SoftmaxCrossEntropy()]
    with fl.Model([fl.Input((6,), scale=1 / 255, shift=-0.5), *layers],
                  seed=3) as model, \
            fl.Model([fl.Input((6,)), *layers], seed=3) as plain:
        scaled = pixels.astype(np.float32) * np.float32(1 / 255) - 0.5
        assert np.allclose(model.predict(pixels), plain.predict(scaled),
                           atol=1e-5)


def test_predict_is_the_matrix_product(mlp, blobs):
    x, _ = blobs(40)
    with mlp() as model:
        hidden = np.maximum(x @ model["dense1.weight"].T
                            + model["dense1.bias"], 0)
        logits = hidden @ model["dense2.weight"].T + model["dense2.bias"]
        assert np.allclose(model.predict(x), logits, atol=1e-5)


def test_one_step_is_plain_sgd(blobs):
    x, y = blobs(7)
    with fl.Model([fl.Input((4,)), fl.Dense(3), fl.SoftmaxCrossEntropy()],
                  seed=1) as model:
        w, b = model["dense1.weight"], model["dense1.bias"]
        logits = (x @ w.T + b).astype(np.float64)
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        loss = -np.log(p[np.arange(7), y]).mean()
        p[np.arange(7), y] -= 1
        assert model.step(x, y, 0.3) == pytest.approx(loss, abs=1e-5)
        assert np.allclose(model["dense1.weight"], w - 0.3 * p.T @ x / 7,
                           atol=1e-5)
        assert np.allclose(model["dense1.bias"], b - 0.3 * p.mean(0),
                           atol=1e-5)


def test_evaluation_by_class(mlp, blobs):
    x, y = blobs(300)
    with mlp() as model:
        model.fit(x, y, epochs=3)
        score = model.evaluate(x, y)
        top = model.predict(x).argmax(1)
        assert score.count == 300 and score.correct == (top == y).sum()
        assert (score.class_count == np.bincount(y, minlength=3)).all()
        assert score.class_correct.sum() == score.correct
        assert score.accuracy == score.correct / 300


def test_fit_on_chosen_samples_only(mlp, blobs):
    x, y = blobs(100)
    with mlp() as one, mlp() as two:
        chosen = np.arange(0, 100, 3)
        one.fit(x, y, indices=chosen, shuffle=False)
        two.fit(x[chosen], y[chosen], shuffle=False)
        assert np.allclose(one.weights, two.weights, atol=1e-6)
        with pytest.raises(ValueError, match="indices: want values"):
            one.fit(x, y, indices=[100])
        with pytest.raises(ValueError, match="indices: want values"):
            one.fit(x, y, indices=[-1])
        with pytest.raises(TypeError, match="vector of integers"):
            one.fit(x, y, indices=[0.5])


def test_labels_out_of_range_change_nothing(mlp, blobs):
    x, y = blobs(20)
    y[13] = 3
    with mlp() as model:
        before = model.copy_weights()
        with pytest.raises(fl.RangeError):
            model.fit(x, y)
        assert (model.weights == before).all()


def test_tensors_by_name_round_trip(mlp, rng):
    with mlp() as model, mlp(seed=2) as other:
        assert list(model) == ["dense1.weight", "dense1.bias",
                               "dense2.weight", "dense2.bias"]
        assert len(model) == 4 and "dense1.bias" in model
        assert model["dense2.weight"].shape == (3, 16)
        other.load(model)
        assert (other.weights == model.weights).all()
        value = rng.standard_normal((3, 16)).astype(np.float32)
        model["dense2.weight"] = value
        assert (model["dense2.weight"] == value).all()
        with pytest.raises(ValueError, match="dense2.weight: got shape"):
            model["dense2.weight"] = value.T
        with pytest.raises(KeyError):
            model["dense3.weight"]
        with pytest.raises(ValueError, match="names do not agree"):
            model.load({"dense1.weight": value})


def test_flat_weights_round_trip_and_schema(mlp, rng):
    with mlp() as model, fl.Model([fl.Tensor("other", [131])]) as stranger:
        values = rng.standard_normal(131).astype(np.float32)
        model.set_weights(values, model.schema)
        assert (model.copy_weights() == values).all()
        with pytest.raises(fl.SchemaError):
            model.set_weights(values, stranger.schema)
        with pytest.raises(ValueError, match="schema: got 3 bytes"):
            model.set_weights(values, b"abc")
        with pytest.raises(ValueError, match="weights: got 130 values"):
            model.weights = values[:130]
        model.self_test()
        assert (model.weights == values).all()


def test_description_rebuilds_the_model(context, mlp, blobs):
    x, _ = blobs(5)
    with mlp() as model, fl.Model.from_description(
            model.description, context=context) as twin:
        assert twin.description == model.description
        assert twin.schema == model.schema
        assert repr(twin) == repr(model)
        assert (twin.weights == 0).all()
        twin.weights = model.weights
        assert (twin.predict(x) == model.predict(x)).all()


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x80", bytes(1000)])
def test_foreign_descriptions_are_refused(data):
    with pytest.raises(fl.PeerDataError):
        fl.Model.from_description(data)


def test_cut_descriptions_are_refused(mlp):
    with mlp() as model:
        whole = model.description
    for length in range(len(whole)):
        with pytest.raises(fl.PeerDataError):
            fl.Model.from_description(whole[:length])


def test_loose_tensors_for_hosts_with_their_own_trainer(rng):
    arrays = {"w": rng.standard_normal((2, 3)).astype(np.float32),
              "b": np.float32(1.5), "scale": np.ones(4, np.float32)}
    with fl.Model.from_tensors(arrays) as model:
        assert model.weight_count == 11 and model.output_count == 0
        assert model.input_count == 0
        for name, value in arrays.items():
            assert (model[name] == value).all()
        assert model["b"].shape == ()
        with pytest.raises(fl.NotAllowedError):
            model.fit(np.ones((1, 3)), [0])


def test_fixed_tensors_are_no_part_of_the_weights():
    with fl.Model([fl.Tensor("kept", [5], is_trainable=False),
                   fl.Tensor("w", [2])]) as model:
        assert model.weight_count == 2
        model["kept"] = np.arange(5)
        assert (model["kept"] == np.arange(5)).all()
        assert (model.weights == 0).all()
        assert "0, not trained" in repr(model)


def test_modules_make_segments():
    with fl.Model([fl.Tensor("a", [2], module=0), fl.Tensor("b", [3],
                                                            module=0),
                   fl.Tensor("c", [4], module=1)]) as model:
        assert model.segments == [5, 4]
        assert model.segment_modules == [0, 1]
        assert [info.module for info in model.tensors()] == [0, 0, 1]
        assert [info.offset for info in model.tensors()] == [0, 2, 5]
        assert model.find("c") == 2
        with pytest.raises(fl.NotFoundError):
            model.find("d")


def test_repr_shows_the_layers(mlp):
    with mlp() as model:
        lines = repr(model).splitlines()
    assert lines[0] == "Model(131 weights, 3 outputs)"
    assert [line.split() for line in lines[1:]] == [
        ["name", "kind", "output", "parameters", "module"],
        ["input", "input", "[4]"],
        ["dense1", "dense", "[16]", "80", "0"],
        ["relu1", "relu", "[16]"],
        ["dense2", "dense", "[3]", "51", "1"],
        ["softmaxcrossentropy1", "softmax_cross_entropy", "[3]"]]


def test_repr_shows_tensors_without_a_layer():
    with fl.Model([fl.Tensor("kept", [2, 3], is_trainable=False),
                   fl.Tensor("w", [])]) as model:
        rows = [line.split(maxsplit=2) for line in
                repr(model).splitlines()[2:]]
    assert rows[0][:2] == ["kept", "tensor"]
    assert rows[0][2].split() == ["[2,", "3]", "6", "0,", "not", "trained"]
    assert rows[1][2].split() == ["[]", "1", "0"]


def test_initial_weights_depend_on_the_seed_only(mlp):
    with mlp(1) as one, mlp(1) as same, mlp(2) as other:
        assert (one.weights == same.weights).all()
        assert (one.weights != other.weights).any()
        assert np.abs(one["dense1.weight"]).max() <= 0.5


@pytest.mark.parametrize("layers", [
    [], [fl.Dense(3)], [fl.Input((4,)), fl.Dense(3)],
    [fl.Input((4,)), fl.Dense(0), fl.SoftmaxCrossEntropy()]])
def test_incomplete_layers_are_refused(layers):
    with pytest.raises(fl.FlError):
        fl.Model(layers)


def test_sizes_below_one_are_refused():
    with pytest.raises(ValueError, match="want sizes >= 1"):
        fl.Model([fl.Tensor("w", [-1])])


def test_progress_function_is_told_on_the_calling_thread(mlp, blobs):
    seen = []
    with mlp() as model:
        model.fit(*blobs(64), epochs=2, batch_size=8, progress_every=4,
                  progress=lambda p: seen.append(
                      (p.epoch, p.step, p.steps, threading.get_ident())))
    me = threading.get_ident()
    assert seen == [(0, 4, 16, me), (0, 8, 16, me), (1, 12, 16, me),
                    (1, 16, 16, me)]


def test_what_a_progress_function_raises_stops_the_fit(mlp, blobs):
    class Enough(Exception):
        pass

    def stop(progress):
        raise Enough

    with mlp() as model, pytest.raises(Enough):
        model.fit(*blobs(64), epochs=10_000_000, progress=stop,
                  progress_every=1)


def test_cancel_stops_the_fit_at_a_whole_step(mlp, blobs):
    with mlp() as model, fl.Cancel() as cancel:
        with pytest.raises(fl.CancelledError):
            model.fit(*blobs(64), epochs=10_000_000, progress_every=10,
                      progress=lambda p: cancel.request(), cancel=cancel)
        assert np.isfinite(model.weights).all()


def test_bar_is_drawn_when_asked_for(mlp, blobs, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with mlp() as model:
        model.fit(*blobs(64), epochs=2, progress=None)
        assert stream.getvalue() == ""
        model.fit(*blobs(64), epochs=2, progress=True, progress_every=2)
    assert stream.getvalue().endswith("\n")
    assert "100%" in stream.getvalue() and "epoch 2" in stream.getvalue()


def test_models_are_equal_to_themselves_only(mlp):
    with mlp() as one, mlp() as two:
        assert one == one and one != two
        assert len({one, two}) == 2
