# SPDX-License-Identifier: Apache-2.0
"""A freezing controller attached to a Model: what it freezes, what its cache
gives back, and who keeps whom alive."""
import copy
import gc

import numpy as np
import pytest

import libfl as fl

SAMPLES, BATCH = 48, 8
STEPS = SAMPLES // BATCH  # of an epoch


@pytest.fixture
def net():
    """Return a function that makes a network of four modules."""
    def make(context=None):
        return fl.Model([fl.Input((4,)), fl.Dense(12), fl.ReLU(),
                         fl.Dense(10), fl.ReLU(), fl.Dense(8), fl.ReLU(),
                         fl.Dense(3), fl.SoftmaxCrossEntropy()],
                        seed=5, context=context)
    return make


@pytest.fixture
def fit(blobs):
    """Return a function that trains a model for some epochs."""
    x, y = blobs(SAMPLES)

    def run(model, epochs=1, **options):
        return model.fit(x, y, epochs=epochs, batch_size=BATCH, seed=3,
                         **options)
    return run


def stages(model, *fixed, **options):
    """A controller that follows a schedule of (epoch, first_active)."""
    return fl.Freeze(model, "fixed", steps_per_epoch=STEPS,
                     fixed=[(STEPS * epoch, first)
                            for epoch, first in fixed], **options)


def changes(freeze):
    return [(event.step, event.first_active) for event in freeze.events()
            if event.kind == fl.FreezeEventKind.CHANGED]


# ---- what happens -----------------------------------------------------------


def test_modules_freeze_while_the_model_is_fit(net, fit):
    with net() as model:
        freeze = stages(model, (1, 1), (2, 2))
        assert freeze.is_attached and model.first_active == 0
        fit(model)
        before = dict(model)
        fit(model, epochs=2)
        assert model.first_active == 2
        assert changes(freeze) == [(STEPS, 1), (2 * STEPS, 2)]
        same = {name: (model[name] == before[name]).all()
                for name in model if name.endswith("weight")}
        assert list(same.values()) == [True, False, False, False]
        assert freeze.plan.frozen == (True, True, False, False)


def test_plasticity_is_measured_by_itself(net, fit):
    with net() as model:
        freeze = fl.Freeze(model, "plasticity", steps_per_epoch=STEPS,
                           total_steps=20 * STEPS, is_pretrained=True,
                           pretrained_share=0.05, interval=2)
        fit(model, epochs=20)
        seen = [event for event in freeze.events()
                if event.kind == fl.FreezeEventKind.EVALUATED]
        assert len(seen) > 20
        assert max(event.raw for event in seen) > 0


def test_plasticity_counts_later_with_a_lag(net, fit):
    seen = []
    for lag in (None, 1):
        with net() as model:
            freeze = fl.Freeze(model, "plasticity", steps_per_epoch=STEPS,
                               total_steps=20 * STEPS, is_pretrained=True,
                               pretrained_share=0.05, interval=2, lag=lag,
                               hold=100 * STEPS)
            fit(model, epochs=4)
            seen.append([(event.step, event.raw) for event in freeze.events()
                         if event.kind == fl.FreezeEventKind.EVALUATED])
    at_once, later = seen
    assert len(later) > 4
    assert later == [(step + 1, raw) for step, raw in at_once][:len(later)]


def test_the_cache_changes_no_bit(net, fit):
    weights = []
    for cache in (None, fl.ActivationCache()):
        with net() as model:
            stages(model, (0, 1), (2, 2), cache=cache)
            result = fit(model, epochs=4)
            weights.append((model.copy_weights(), result.mean_loss))
    assert (weights[0][0] == weights[1][0]).all()
    assert weights[0][1] == weights[1][1]
    assert cache.status.hits == 2 * SAMPLES
    assert (len(cache), cache.status.n_values) == (SAMPLES, 10)


def test_the_cache_may_be_a_file_that_another_run_finds(net, fit, tmp_path):
    hits = []
    for _ in range(2):
        with net() as model, \
                fl.ActivationCache(path=tmp_path / "rows") as cache:
            stages(model, (0, 1), cache=cache)
            fit(model, epochs=2)
            hits.append(cache.status.hits)
    assert hits == [SAMPLES, 2 * SAMPLES]


def test_steps_name_their_samples(net, blobs):
    x, y = blobs(20)
    cache = fl.ActivationCache()
    with net() as model:
        stages(model, (0, 1), cache=cache, samples=100)
        for _ in range(2):
            model.step(x, y, 0.1, ids=range(80, 100))
        assert (cache.status.hits, cache.status.n_samples) == (20, 100)
        model.accumulate(x[:5], y[:5], ids=np.arange(80, 85, dtype=np.int16))
        model.update(0.1)
        assert cache.status.hits == 25
        model.fit_batches([(x, y, np.arange(60, 80)), (x, y, range(80, 100))])
        assert (cache.status.hits, len(cache)) == (45, 40)
        model.fit(x, y, batch_size=20, ids=range(60, 80), shuffle=False)
        assert cache.status.hits == 65


def test_samples_without_names_end_the_cache(net, blobs):
    x, y = blobs(8)
    with net() as model:
        freeze = stages(model, (0, 1), cache=fl.ActivationCache())
        model.step(x, y, 0.1)
        last = list(freeze.events())[-1]
        assert last.kind == fl.FreezeEventKind.CACHE_OFF
        assert "ids" in last.text


@pytest.mark.parametrize("ids, kind, text", [
    (range(7), ValueError, "got 7, want 8"),
    ([-1] * 8, ValueError, "got -1"),
    ([0.5] * 8, TypeError, "integers"),
    ([[1] * 8], ValueError, "one row")])
def test_ids_are_checked(net, blobs, ids, kind, text):
    with net() as model:
        before = model.copy_weights()
        for train in (model.step, model.fit, model.accumulate):
            with pytest.raises(kind, match=text):
                train(*blobs(8), ids=ids)
        with pytest.raises(kind, match=text):
            model.fit_batches([(*blobs(8), ids)])
        assert (model.weights == before).all()


def test_a_cache_that_is_begun_for_something_else_is_not_believed(net, fit):
    weights = []
    for cache in (None, fl.ActivationCache()):
        with net() as model:
            freeze = stages(model, (0, 1), cache=cache)
            fit(model)
            if cache is not None:
                cache.begin(bytes(32), SAMPLES, 5000)
                cache.put(range(SAMPLES), np.ones((SAMPLES, 5000)))
            fit(model, epochs=2)
            weights.append(model.copy_weights())
            assert not [event for event in freeze.events()
                        if event.kind == fl.FreezeEventKind.CACHE_OFF]
    assert (weights[0] == weights[1]).all()
    assert cache.status.n_values == 12 and len(cache) == SAMPLES


def test_two_models_may_have_one_cache(net, fit):
    cache = fl.ActivationCache()
    with net() as one, net() as other, net() as alone:
        stages(one, (0, 1), cache=cache)
        stages(other, (0, 2), cache=cache)
        stages(alone, (0, 1))
        for _ in range(3):
            fit(one)
            fit(other)
            fit(alone)
        assert (one.weights == alone.weights).all()


def test_safe_freezes_adapters(net, fit):
    with net() as base, base.with_lora(2) as model:
        with pytest.raises(fl.NotFoundError, match="adapters"):
            fl.Freeze(base, "cka", steps_per_epoch=STEPS,
                      total_steps=20 * STEPS)
        freeze = fl.Freeze(model, "cka", steps_per_epoch=STEPS,
                           total_steps=20 * STEPS)
        fit(model, epochs=20)
        assert any(event.kind == fl.FreezeEventKind.EVALUATED
                   for event in freeze.events())


# ---- who keeps whom ---------------------------------------------------------


def test_a_model_keeps_its_controller_and_the_cache(context, net, fit):
    with net(context) as model:
        cache = fl.ActivationCache(context=context)
        freeze = stages(model, (1, 1), cache=cache, context=context)
        freeze.close()
        cache.close()
        del freeze, cache
        gc.collect()
        held = context.memory
        fit(model, epochs=2)
        assert model.first_active == 1
        # The rows are there, and go with the model.
        assert context.memory > held + SAMPLES * 12 * 4 - 2000


def test_a_controller_outlives_its_model(context, net, fit):
    freeze = stages(net(context), (0, 1), context=context)
    gc.collect()
    assert not freeze.is_attached
    with pytest.raises(fl.NotAllowedError, match="not attached"):
        freeze.detach()
    with net(context) as model:
        freeze.attach(model)
        fit(model)
        assert changes(freeze) == [(0, 1)]
    freeze.close()


def test_detached_the_model_stays_as_it_is(net, fit):
    with net() as model:
        freeze = stages(model, (0, 1), (1, 2))
        fit(model)
        freeze.detach()
        assert not freeze.is_attached
        fit(model, epochs=2)
        assert model.first_active == 1
        freeze.attach(model)
        fit(model)
        assert model.first_active == 2


def test_one_controller_for_one_model(net):
    with net() as model, net() as other:
        freeze = stages(model, (0, 1))
        for again in (lambda: freeze.attach(model),
                      lambda: freeze.attach(other),
                      lambda: stages(model, (0, 1))):
            with pytest.raises(fl.NotAllowedError, match="attached"):
                again()
        assert freeze.is_attached
        with pytest.raises(fl.DimError, match="has 3 modules"):
            fl.Freeze(3, steps_per_epoch=2).attach(other)
        with pytest.raises(ValueError, match="want a model"):
            fl.Freeze(3, steps_per_epoch=2, cache=fl.ActivationCache())
        freeze.close()
        with pytest.raises(ValueError, match="closed"):
            freeze.attach(other)
    with pytest.raises(ValueError, match="closed"):
        stages(model, (0, 1))


def test_a_copy_is_not_attached(net, fit):
    with net() as model:
        stages(model, (0, 2))
        other = copy.copy(model)
        fit(other)
        fit(model)
        assert (model.first_active, other.first_active) == (2, 0)


# ---- while it trains --------------------------------------------------------


def test_callbacks_see_events_and_change_nothing(net, fit):
    with net() as model, net() as other:
        freeze = stages(model, (1, 1))
        seen = []

        def look(_progress):
            seen.extend(changes(freeze))
            for act in (freeze.detach, lambda: freeze.attach(other)):
                with pytest.raises((RuntimeError, fl.NotAllowedError)):
                    act()
            with pytest.raises(RuntimeError, match="being trained"):
                fl.Freeze(4, steps_per_epoch=1).attach(model)

        fit(model, epochs=2, progress=look, progress_every=1)
        assert seen == [(STEPS, 1)] and freeze.is_attached


def test_a_model_closed_in_a_callback_trains_to_the_end(context, net, fit):
    model = net(context)
    stages(model, (1, 1), cache=fl.ActivationCache(context=context),
           context=context)
    result = fit(model, epochs=3, progress=lambda _: model.close(),
                 progress_every=STEPS)
    assert result.steps == 3 * STEPS


def test_the_gradient_is_not_frozen_away_under_an_array(net, blobs, fit):
    x, y = blobs(8)
    with net() as model:
        stages(model, (0, 1))
        model.accumulate(x, y)
        view = model.gradient
        for train in (lambda: model.step(x, y, 0.1), lambda: fit(model)):
            with pytest.raises(BufferError):
                train()
        assert view.size == 12 * 10 + 10 + 10 * 8 + 8 + 8 * 3 + 3
        del view
        model.update(0.1)
        with pytest.raises(BufferError, match="freeze it away"):
            fit(model, progress=lambda _: model.gradient, progress_every=1)
