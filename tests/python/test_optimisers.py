# SPDX-License-Identifier: Apache-2.0
"""Optimisers and schedules: set, read back, and followed."""
import math
import re

import numpy as np
import pytest

import libfl as fl
from libfl import _lib, layers, optimisers

ALL = [
    fl.SGD(), fl.SGD(0.1, momentum=0.9), fl.SGD(0.1, 0.9, nesterov=True,
                                                weight_decay=5e-4),
    fl.Adam(), fl.Adam(3e-4, beta1=0.8, beta2=0.99, epsilon=1e-6),
    fl.AdamW(1e-2, weight_decay=0.1, clip_norm=1.0), fl.Adagrad(0.3),
    fl.SGD(schedule=fl.Constant(warmup=10)),
    fl.Adam(accumulate=4, schedule=fl.Step(100, 0.5)),
    fl.AdamW(schedule=fl.Cosine(1000, 0.01, warmup=50))]


@pytest.mark.parametrize("optimiser", ALL, ids=repr)
def test_what_is_set_is_what_is_in_use(mlp, optimiser):
    with mlp() as model:
        model.optimiser = optimiser
        assert model.optimiser == optimiser and model.updates == 0


def test_a_new_model_has_plain_sgd(mlp):
    with mlp() as model:
        assert model.optimiser == fl.SGD(0.05)
        assert model.learning_rate == 0.05


def test_numbers_of_kinds_are_the_headers(root):
    text = "".join((root / "include" / "fl" / name).read_text()
                   for name in ("train.h", "layers.h"))
    for prefix, classes in (
            ("FL_OPTIMISER_", optimisers._OPTIMISERS),
            ("FL_SCHEDULE_", optimisers._SCHEDULES),
            ("FL_ACTIVATION_", [fl.ReLU, fl.GELU, fl.SiLU, fl.Tanh,
                                fl.Sigmoid])):
        constants = dict(re.findall(rf"\b{prefix}(\w+) = (\d+)", text))
        assert {name: int(value) for name, value in constants.items()} == {
            kind.__name__.upper(): kind._kind for kind in classes}
    assert re.search(r"FL_POOL_MAX = 0, FL_POOL_AVERAGE = 1", text)
    assert (layers.MaxPool2d._kind, layers.AvgPool2d._kind) == (0, 1)
    assert "#define FL_RATE_SCHEDULED (-1.0f)" in text


# One dense layer and the steps that numpy takes with the same gradients.
def net():
    return fl.Model([fl.Input((4,)), fl.Dense(3), fl.CrossEntropy()], seed=1)


def gradients(model, x, y):
    """The gradient of one batch; weights stay."""
    with net() as other:
        other.weights = model.weights
        other.accumulate(x, y)
        return other.gradient.astype(np.float64)


def follow(optimiser, blobs, rule, steps=6):
    """Whether weights go where rule(t, weights, gradient) says."""
    x, y = blobs(40)
    with net() as model:
        model.optimiser = optimiser
        weights = model.weights.astype(np.float64)
        for t in range(steps):
            weights = rule(t, weights, gradients(model, x, y))
            model.step(x, y)
            assert np.allclose(model.weights, weights, rtol=1e-4, atol=1e-5)
            weights = model.weights.astype(np.float64)
        assert model.updates == steps


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_is_torchs(blobs, nesterov):
    state = np.zeros(15)

    def rule(t, w, g):
        g = g + 0.01 * w
        state[:] = 0.9 * state + g
        return w - 0.1 * (g + 0.9 * state if nesterov else state)

    follow(fl.SGD(0.1, 0.9, nesterov, weight_decay=0.01), blobs, rule)


@pytest.mark.parametrize("kind", [fl.Adam, fl.AdamW])
def test_adam_is_torchs(blobs, kind):
    m, v = np.zeros(15), np.zeros(15)

    def rule(t, w, g):
        if kind is fl.Adam:
            g = g + 0.1 * w
        else:
            w = w * (1 - 0.02 * 0.1)
        m[:] = 0.9 * m + 0.1 * g
        v[:] = 0.99 * v + 0.01 * g * g
        return w - 0.02 * (m / (1 - 0.9 ** (t + 1))) / (
            np.sqrt(v / (1 - 0.99 ** (t + 1))) + 1e-8)

    follow(kind(0.02, beta2=0.99, weight_decay=0.1), blobs, rule)


def test_adagrad_is_torchs(blobs):
    total = np.zeros(15)

    def rule(t, w, g):
        total[:] += g * g
        return w - 0.1 * g / (np.sqrt(total) + 1e-10)

    follow(fl.Adagrad(0.1), blobs, rule)


def test_a_gradient_is_scaled_down_to_its_norm(blobs):
    follow(fl.SGD(1.0, clip_norm=0.05), blobs,
           lambda t, w, g: w - g * min(1, 0.05 / np.linalg.norm(g)))


@pytest.mark.parametrize("schedule, rate", [
    (fl.Constant(), lambda t: 1.0),
    (fl.Constant(warmup=4), lambda t: min(1, (t + 1) / 4)),
    (fl.Step(3, 0.5), lambda t: 0.5 ** (t // 3)),
    (fl.Cosine(6, 0.2), lambda t: 0.2 + 0.4 * (
        1 + math.cos(math.pi * min(t, 6) / 6))),
    (fl.Cosine(5, 0.0, warmup=2), lambda t: min(1, (t + 1) / 2) * 0.5 * (
        1 + math.cos(math.pi * min(t, 5) / 5)))])
def test_rates_follow_their_schedule(blobs, schedule, rate):
    x, y = blobs(8)
    with net() as model:
        model.optimiser = fl.SGD(0.1, schedule=schedule)
        for t in range(8):
            assert model.learning_rate == pytest.approx(0.1 * rate(t),
                                                        abs=1e-7)
            expected = model.weights - np.float32(
                0.1 * rate(t)) * gradients(model, x, y)
            model.step(x, y)
            assert np.allclose(model.weights, expected, atol=1e-6)


def test_a_rate_of_the_call_wins_over_the_schedule(blobs):
    x, y = blobs(8)
    with net() as model:
        model.optimiser = fl.SGD(0.1, schedule=fl.Step(1, 0.0))
        before = model.copy_weights()
        model.step(x, y, learning_rate=0.0)
        assert (model.weights == before).all() and model.learning_rate == 0
        model.step(x, y)
        assert (model.weights == before).all()
        model.fit(x, y, learning_rate=0.1)
        assert (model.weights != before).any()
        for rate in (-1, -0.5, math.nan):
            with pytest.raises(ValueError, match="learning_rate: got"):
                model.step(x, y, rate)
        with pytest.raises(ValueError, match="learning rate"):
            model.step(x, y, math.inf)


def test_batches_are_accumulated_into_one_update(blobs):
    x, y = blobs(24)
    with net() as model, net() as whole:
        model.optimiser = fl.SGD(0.1, accumulate=3)
        whole.optimiser = fl.SGD(0.1)
        before = model.copy_weights()
        for first in range(0, 16, 8):
            model.step(x[first:first + 8], y[first:first + 8])
        assert model.updates == 0 and (model.weights == before).all()
        model.step(x[16:], y[16:])
        assert model.updates == 1
        whole.step(x, y)
        assert np.allclose(model.weights, whole.weights, atol=1e-6)


def test_setting_an_optimiser_begins_its_state_anew(blobs):
    x, y = blobs(30)
    with net() as one, net() as two:
        for model in (one, two):
            model.optimiser = fl.SGD(0.1, momentum=0.9)
        one.step(x, y)
        one.weights = two.weights
        one.optimiser = one.optimiser
        assert one.updates == 0
        one.step(x, y)
        two.step(x, y)
        assert (one.weights == two.weights).all()


@pytest.mark.parametrize("optimiser, text", [
    (fl.SGD(-0.1), "learning_rate"), (fl.SGD(math.nan), "learning_rate"),
    (fl.SGD(momentum=1.5), "momentum"), (fl.SGD(nesterov=True), "nesterov"),
    (fl.Adam(beta1=1.0), "beta1"), (fl.Adam(beta2=-1), "beta2"),
    (fl.AdamW(weight_decay=-1), "weight_decay"),
    (fl.Adagrad(epsilon=2.0), "epsilon"),
    (fl.SGD(clip_norm=-1), "clip_norm"), (fl.SGD(accumulate=0), "accumulate"),
    (fl.SGD(schedule=fl.Step(0)), "period"),
    (fl.SGD(schedule=fl.Cosine(10, -1.0)), "factor")])
def test_values_out_of_range_are_named_and_change_nothing(mlp, optimiser,
                                                          text):
    with mlp() as model:
        model.optimiser = fl.Adam()
        with pytest.raises(fl.OptionsError, match=text):
            model.optimiser = optimiser
        assert model.optimiser == fl.Adam()


def test_things_that_are_no_optimiser_are_refused(mlp):
    with mlp() as model:
        for thing in (None, "adam", fl.Adam, 0.1):
            with pytest.raises(TypeError, match="optimiser: got"):
                model.optimiser = thing
        with pytest.raises(TypeError, match="schedule: got"):
            model.optimiser = fl.SGD(schedule="cosine")
        with pytest.raises(ValueError, match="accumulate: got -1"):
            model.optimiser = fl.SGD(accumulate=-1)


def test_defaults_are_the_librarys():
    options = _lib.init(_lib.OptimiserOptions)
    assert optimisers.from_options(options) == fl.SGD()
