# SPDX-License-Identifier: Apache-2.0
"""LoRA and bottleneck adapters on a trained model."""
import copy

import numpy as np
import pytest

import libfl as fl


@pytest.fixture
def base(blobs):
    """A trained network of two hidden layers."""
    with fl.Model([fl.Input((4,)), fl.Dense(16, name="first"), fl.ReLU(),
                   fl.Dense(12, name="second"), fl.ReLU(),
                   fl.Dense(3, name="head"), fl.CrossEntropy()],
                  seed=1) as model:
        model.fit(*blobs(300), epochs=2, optimiser=fl.Adam(0.01))
        yield model


def test_lora_begins_as_its_base(base, blobs):
    x, _ = blobs(50)
    with base.with_lora(rank=2, seed=5) as model:
        assert np.allclose(model.predict(x), base.predict(x), atol=1e-6)
        assert model["first.lora_a"].shape == (2, 4)
        assert model["second.lora_b"].shape == (12, 2)
        assert model["first.lora_a"].any()
        assert not model["first.lora_b"].any()
        # rank (inputs + units) of two layers, and the head.
        assert model.weight_count == 2 * 20 + 2 * 28 + 39
        assert {layer.name: layer.kind for layer in model.layers()}[
            "first"] == "dense_lora"


def test_lora_trains_itself_and_the_head_only(base, blobs):
    x, y = blobs(300, seed=4)
    y = (y + 1) % 3
    with base.with_lora(rank=4, alpha=8) as model:
        before = dict(model)
        model.fit(x, y, epochs=10, optimiser=fl.Adam(0.01))
        changed = {name for name, value in model.items()
                   if (value != before[name]).any()}
        assert changed == {"first.lora_a", "first.lora_b", "second.lora_a",
                           "second.lora_b", "head.weight", "head.bias"}
        assert model.evaluate(x, y).accuracy > 0.9 > base.evaluate(
            x, y).accuracy
        # y = x W^T + b + alpha / rank x A^T B^T
        t = dict(model)
        z = x
        for name in ("first", "second"):
            z = np.maximum(z @ t[f"{name}.weight"].T + t[f"{name}.bias"]
                           + 2 * z @ t[f"{name}.lora_a"].T
                           @ t[f"{name}.lora_b"].T, 0)
        assert np.allclose(model.predict(x), z @ t["head.weight"].T
                           + t["head.bias"], atol=1e-4)


def test_lora_folds_into_the_weights(base, blobs):
    x, y = blobs(300)
    with base.with_lora(rank=2) as model:
        model.fit(x, (y + 1) % 3, epochs=2)
        with model.merge_lora() as merged:
            assert list(merged) == list(base)
            assert merged.schema == base.schema
            assert np.allclose(merged.predict(x), model.predict(x), atol=1e-5)
            scale = 16 / 2
            assert np.allclose(
                merged["first.weight"], base["first.weight"] + scale
                * model["first.lora_b"] @ model["first.lora_a"], atol=1e-5)


def test_layers_are_chosen_by_their_name(base):
    with base.with_lora(layers="second", trained="") as model:
        assert model.weight_count == 8 * (16 + 12)
        assert "first.lora_a" not in model
    with base.with_lora(layers="second", trained="first") as model:
        assert model.weight_count == 8 * 28 + 80
    with pytest.raises(fl.NotFoundError, match="nobody"):
        base.with_lora(layers="nobody")
    with pytest.raises(fl.ConflictError, match="head"):
        base.with_lora(layers="head")
    with pytest.raises(fl.FlError, match="rank|first"):
        base.with_lora(rank=0)
    with pytest.raises(ValueError, match="rank: got -1"):
        base.with_lora(rank=-1)


def test_adapters_begin_as_their_base_and_learn(base, blobs):
    x, y = blobs(300)
    y = (y + 1) % 3
    with base.with_adapters(width=5, activation=fl.Tanh(), seed=3) as model:
        assert np.allclose(model.predict(x), base.predict(x), atol=1e-6)
        assert model["first.down.weight"].shape == (5, 16)
        assert not model["first.up.weight"].any()
        assert "tanh" in {layer.kind for layer in model.layers()}
        before = base.evaluate(x, y).accuracy
        model.fit(x, y, epochs=10, optimiser=fl.Adam(0.01))
        assert model.evaluate(x, y).accuracy > 0.9 > before
        assert (model["first.weight"] == base["first.weight"]).all()
    with pytest.raises(TypeError, match="activation: got 'relu'"):
        base.with_adapters(activation="relu")
    with pytest.raises(TypeError, match="activation: got"):
        base.with_adapters(activation=fl.Dense(3))


def test_the_seed_draws_what_is_new(base):
    with base.with_lora(seed=1) as one, base.with_lora(seed=1) as same, \
            base.with_lora(seed=2) as other:
        assert (one.weights == same.weights).all()
        assert (one["first.lora_a"] != other["first.lora_a"]).any()


def test_models_with_adapters_are_copied_and_described(base, blobs):
    x, _ = blobs(9)
    with base.with_lora(rank=1) as model:
        model.weights += 0.01
        with copy.deepcopy(model) as twin, fl.Model.from_description(
                model.description) as empty:
            assert (twin.predict(x) == model.predict(x)).all()
            assert empty.schema == model.schema


def test_a_model_with_adapters_does_not_need_its_base(context, blobs):
    base = fl.Model([fl.Input((4,)), fl.Dense(8), fl.Dense(3),
                     fl.CrossEntropy()], seed=1, context=context)
    model = base.with_lora()
    with_base = context.memory
    base.close()
    assert context.memory < with_base
    model.fit(*blobs(40))
    model.close()
