# SPDX-License-Identifier: Apache-2.0
"""Training beyond a plain fit: steps in their parts, the hook on the gradient,
frozen modules, memory known before, batches that are pulled, checkpoints."""
import gc
import io
import sys
import threading

import numpy as np
import pytest

import libfl as fl


def same_weights(one, two):
    return (one.weights == two.weights).all()


# ---- the step in its parts --------------------------------------------------


def test_accumulate_and_update_are_a_step(mlp, blobs):
    x, y = blobs(20)
    with mlp() as parts, mlp() as whole:
        loss = parts.accumulate(x, y)
        parts.update(0.1)
        assert loss == whole.step(x, y, 0.1)
        assert np.allclose(parts.weights, whole.weights, atol=1e-6)
        assert parts.updates == whole.updates == 1


def test_an_update_takes_the_mean_over_its_batches(mlp, blobs):
    x, y = blobs(30)
    with mlp() as model, mlp() as whole:
        for first in (0, 10, 20):
            model.accumulate(x[first:first + 10], y[first:first + 10])
        model.update(0.2)
        whole.step(x, y, 0.2)
        assert np.allclose(model.weights, whole.weights, atol=1e-6)


def test_the_gradient_is_that_of_finite_differences(mlp, blobs, rng):
    x, y = blobs(16)
    with mlp() as model:
        model.accumulate(x, y)
        gradient = model.gradient.copy()
        start = model.copy_weights()
        for at in rng.choice(start.size, 12, replace=False):
            losses = []
            for shift in (1e-2, -1e-2):
                model.weights[:] = start
                model.weights[at] += shift
                losses.append(model.evaluate(x, y).loss)
            assert (losses[0] - losses[1]) / 2e-2 == pytest.approx(
                gradient[at], abs=2e-3)


def test_the_gradient_is_the_models_own_memory(mlp, blobs):
    x, y = blobs(16)
    with mlp() as model:
        before = model.copy_weights()
        model.accumulate(x, y)
        view = model.gradient
        assert view.size == model.weight_count and view.flags.writeable
        view[:] = 0
        view[3] = 2
        del view
        model.update(0.5)
        before[3] -= 1
        assert np.allclose(model.weights, before, atol=1e-7)
        model.accumulate(x, y)
        model.gradient *= 0
        assert not model.gradient.any()
        model.gradient = np.ones(model.weight_count)
        assert (model.gradient == 1).all()
        with pytest.raises(ValueError, match="gradient: got 3 values"):
            model.gradient = [1, 2, 3]


def test_without_an_accumulated_batch_there_is_no_gradient(mlp, blobs):
    with mlp() as model:
        for call in (lambda: model.gradient, model.update):
            with pytest.raises(fl.NotAllowedError, match="since the last"):
                call()
        model.accumulate(*blobs(4))
        model.update()
        with pytest.raises(fl.NotAllowedError):
            model.update()


def test_a_gradient_that_is_not_finite_is_dropped(mlp, blobs):
    with mlp() as model:
        before = model.copy_weights()
        model.accumulate(*blobs(4))
        model.gradient[0] = np.nan
        with pytest.raises(fl.NotFiniteError):
            model.update()
        assert (model.weights == before).all()
        with pytest.raises(fl.NotAllowedError):
            model.update()


def test_memory_that_is_looked_at_is_not_given_back(mlp, blobs):
    x, y = blobs(8)
    with mlp() as model:
        model.accumulate(x, y)
        part = model.gradient[5:][::2]
        for change in (lambda: setattr(model, "optimiser", fl.Adam()),
                       lambda: setattr(model, "first_active", 1),
                       lambda: setattr(model, "memory_limit", 0),
                       lambda: setattr(model, "gradient_hook", None)):
            with pytest.raises(BufferError, match="still in use"):
                change()
        assert np.isfinite(part).all()
        del part
        model.optimiser = fl.Adam()


def test_the_gradient_outlives_the_model(context, mlp, blobs):
    model = mlp(context=context)
    model.accumulate(*blobs(8))
    view = model.gradient
    kept = view.copy()
    model.close()
    assert (view == kept).all() and context.memory > 0
    del view
    gc.collect()
    assert context.memory == 0


# ---- the hook ---------------------------------------------------------------


def test_the_hook_sees_and_changes_every_gradient(mlp, blobs):
    x, y = blobs(40)
    seen = []

    def prox(gradient, weights):
        seen.append(gradient.copy())
        gradient += 0.1 * (weights - anchor)

    with mlp() as model, mlp() as plain:
        anchor = np.float32(0.5) * model.weights
        model.gradient_hook = prox
        assert model.gradient_hook is prox
        plain.accumulate(x, y)
        expected = plain.gradient + np.float32(0.1) * (plain.weights - anchor)
        plain.gradient = expected
        plain.update(0.3)
        model.step(x, y, 0.3)
        assert np.allclose(model.weights, plain.weights, atol=1e-6)
        model.fit(x, y, epochs=2, batch_size=10)
        assert len(seen) == 1 + 8
        model.accumulate(x, y)
        model.update()
        assert len(seen) == 10
        model.gradient_hook = None
        assert model.gradient_hook is None
        model.step(x, y)
        assert len(seen) == 10


def test_the_hook_runs_on_the_calling_thread(mlp, blobs):
    threads = set()
    with mlp() as model:
        model.gradient_hook = lambda g, w: threads.add(threading.get_ident())
        model.fit(*blobs(40))
        model.step(*blobs(4))
        model.fit_batches([blobs(4)])
    assert threads == {threading.get_ident()}


@pytest.mark.parametrize("kind", [ZeroDivisionError, KeyboardInterrupt])
def test_what_the_hook_raises_comes_out_and_nothing_changes(mlp, blobs, kind):
    x, y = blobs(40)
    calls = []

    def fail(gradient, weights):
        gradient[:] = 1e9
        calls.append(1)
        raise kind("from the hook")

    with mlp() as model:
        before = model.copy_weights()
        model.gradient_hook = fail
        for call in (lambda: model.step(x, y),
                     lambda: model.fit(x, y, epochs=3),
                     lambda: model.fit_batches([(x, y)] * 5)):
            with pytest.raises(kind, match="from the hook"):
                call()
            assert (model.weights == before).all()
        assert len(calls) == 3
        model.gradient_hook = None
        model.fit(x, y)
        assert (model.weights != before).any()


def test_a_hook_changes_the_gradient_in_place_or_not_at_all(mlp, blobs):
    with mlp() as model:
        model.gradient_hook = lambda gradient, weights: gradient * 2
        with pytest.raises(TypeError, match="in place"):
            model.step(*blobs(4))
        with pytest.raises(TypeError, match="want a function"):
            model.gradient_hook = 3


def test_a_hook_cannot_write_weights_nor_use_the_model(mlp, blobs):
    x, y = blobs(8)
    with mlp() as model:
        def write(gradient, weights):
            weights[0] = 0

        def use(gradient, weights):
            model.evaluate(x, y)

        model.gradient_hook = write
        with pytest.raises(ValueError, match="read-only"):
            model.step(x, y)
        model.gradient_hook = use
        with pytest.raises(RuntimeError, match="gradient hook"):
            model.fit(x, y)


def test_arrays_of_a_hook_may_be_kept(context, mlp, blobs):
    kept = []
    model = mlp(context=context)
    model.gradient_hook = lambda gradient, weights: kept.append(
        (gradient, weights))
    model.step(*blobs(8))
    model.gradient_hook = None
    model.step(*blobs(64))
    model.close()
    assert all(np.isfinite(array).all() for array in kept[0])
    kept.clear()


# ---- partial training -------------------------------------------------------


def test_frozen_modules_keep_their_weights(mlp, blobs):
    x, y = blobs(60)
    with mlp() as model:
        before = dict(model)
        model.first_active = 1
        assert model.first_active == 1
        assert [layer.is_trained for layer in model.layers()
                if layer.tensors] == [False, True]
        model.accumulate(x, y)
        assert model.gradient.size == 51  # of the last layer
        model.update()
        model.fit(x, y)
        for name, value in model.items():
            assert (value == before[name]).all() == name.startswith("dense1")
        model.first_active = 0
        model.fit(x, y)
        assert (model["dense1.weight"] != before["dense1.weight"]).any()
        with pytest.raises(fl.RangeError, match="first active module: got 2"):
            model.first_active = 2
        assert model.first_active == 0


def test_any_module_may_be_frozen(mlp, blobs):
    with mlp() as model:
        before = dict(model)
        model.set_frozen([False, True])
        assert model.first_active == 0
        model.fit(*blobs(60))
        assert {name: (model[name] == before[name]).all()
                for name in model if name.endswith("bias")} == {
                    "dense1.bias": False, "dense2.bias": True}
        model.set_frozen([True])
        assert model.first_active == 1
        with pytest.raises(fl.RangeError):
            model.set_frozen([True, True])
        model.first_active = 0
        assert all(layer.is_trained for layer in model.layers()
                   if layer.tensors)


def test_frozen_modules_cost_less_memory(mlp):
    with mlp() as model:
        model.optimiser = fl.Adam()
        whole = model.memory_plan(64)
        model.first_active = 1
        part = model.memory_plan(64)
        assert whole.optimiser == 8 * 131 and part.optimiser == 8 * 51
        assert part.activations < whole.activations
        assert part.weights == whole.weights == 4 * 131


# ---- memory -----------------------------------------------------------------


def test_the_plan_is_what_is_taken(context, mlp, blobs):
    with mlp(context=context) as model:
        built = context.memory
        plan = model.memory_plan(32)
        assert plan.peak == (plan.weights + plan.gradients + plan.optimiser
                             + plan.activations)
        assert plan.gradients == 0
        assert model.memory_plan(32, training=False).peak < plan.peak
        model.step(*blobs(32))
        assert context.memory - built >= plan.activations
        assert context.memory - built <= plan.activations + 4096
        model.gradient_hook = lambda gradient, weights: None
        assert model.memory_plan(32).gradients == 4 * 131


def test_batches_above_the_limit_are_refused_with_what_fits(mlp, blobs):
    x, y = blobs(200)
    with mlp() as model:
        model.memory_limit = model.memory_plan(50).peak
        assert model.memory_limit == model.memory_plan(50).peak
        with pytest.raises(fl.LimitError, match="batch that fits is (5|6)"):
            model.step(x, y)
        with pytest.raises(fl.LimitError):
            model.fit(x, y, batch_size=200)
        model.fit(x, y, batch_size=50)
        model.memory_limit = 0
        model.step(x, y)
        with pytest.raises(ValueError, match="memory_limit: got -1"):
            model.memory_limit = -1


@pytest.mark.parametrize("size, kind", [(0, fl.ArgumentError),
                                        (-1, ValueError), (2**32, ValueError),
                                        ("8", TypeError)])
def test_plans_of_batches_that_cannot_be(mlp, size, kind):
    with mlp() as model, pytest.raises(kind):
        model.memory_plan(size)


# ---- what callbacks may do --------------------------------------------------


def test_callbacks_may_look_at_the_model_but_not_train_it(mlp, blobs):
    x, y = blobs(64)
    with mlp() as model:
        for change in (lambda: model.step(x, y), lambda: model.fit(x, y),
                       lambda: model.accumulate(x, y), model.update,
                       lambda: setattr(model, "optimiser", fl.SGD()),
                       lambda: setattr(model, "gradient_hook", None),
                       lambda: setattr(model, "first_active", 1),
                       lambda: setattr(model, "memory_limit", 9),
                       lambda: model.load_checkpoint(io.BytesIO())):
            with pytest.raises(RuntimeError, match="is being trained"):
                model.fit(x, y, progress_every=1,
                          progress=lambda progress: change())
        scores = []
        model.fit(x, y, epochs=3, progress_every=1,
                  progress=lambda progress: scores.append(
                      model.evaluate(x, y).loss))
        assert scores[-1] < scores[0] and len(scores) == 6


# ---- batches that are pulled ------------------------------------------------


def cut(x, y, size=10):
    return [(x[at:at + size], y[at:at + size])
            for at in range(0, len(y), size)]


def test_pulled_batches_are_the_steps_of_a_fit(mlp, blobs):
    x, y = blobs(45)
    with mlp() as pulled, mlp() as whole:
        result = pulled.fit_batches(cut(x, y), epochs=3, learning_rate=0.1)
        expected = whole.fit(x, y, epochs=3, batch_size=10, shuffle=False,
                             learning_rate=0.1)
        assert result == expected and result.steps == 15
        assert same_weights(pulled, whole)


def test_generators_give_one_epoch_and_functions_one_for_each(mlp, blobs):
    x, y = blobs(30)
    asked = []

    def batches(epoch):
        asked.append(epoch)
        return (batch for batch in cut(x, y))

    with mlp() as model, mlp() as other:
        model.fit_batches(batches, epochs=2)
        assert asked == [0, 1]
        other.fit_batches(batch for batch in cut(x, y) + cut(x, y))
        assert same_weights(model, other)
        with pytest.raises(ValueError, match="an iterator is for one epoch"):
            model.fit_batches(iter(cut(x, y)), epochs=2)
        with pytest.raises(TypeError):
            model.fit_batches(3)


def test_batches_come_on_the_calling_thread_and_may_score(mlp, blobs):
    x, y = blobs(30)
    losses, threads = [], set()
    with mlp() as model:
        def batches():
            for batch in cut(x, y):
                losses.append(model.evaluate(x, y).loss)
                threads.add(threading.get_ident())
                yield batch

        model.fit_batches(batches(), learning_rate=0.2)
    assert losses == sorted(losses, reverse=True) and len(losses) == 3
    assert threads == {threading.get_ident()}


@pytest.mark.parametrize("bad, kind, text", [
    ((np.zeros((2, 3)), [0, 1]), ValueError, "want samples of 4 values"),
    ((np.zeros((2, 4)), [0]), ValueError, r"y: got shape \[1\]"),
    ((np.zeros((2, 4)), [0, 3]), fl.RangeError, "label"),
    ((np.zeros((0, 4)), np.zeros(0, int)), ValueError,
     "number 1 of epoch 0 is empty"),
    (np.zeros((4, 4)), ValueError, "got 4 values, want x, y or x, y, ids"),
    (None, TypeError, "NoneType")])
def test_batches_that_do_not_fit_end_the_fit_between_steps(mlp, blobs, bad,
                                                           kind, text):
    x, y = blobs(20)
    with mlp() as model, mlp() as one:
        one.fit_batches([(x, y)])
        with pytest.raises(kind, match=text):
            model.fit_batches([(x, y), bad, (x, y)])
        assert same_weights(model, one)


def test_what_a_generator_raises_comes_out(mlp, blobs):
    def batches():
        yield blobs(8)
        raise KeyboardInterrupt("enough")

    with mlp() as model, mlp() as one:
        with pytest.raises(KeyboardInterrupt, match="enough"):
            model.fit_batches(batches())
        one.fit_batches([blobs(8)])
        assert same_weights(model, one)


def test_the_bar_counts_steps_when_nobody_knows_how_many(mlp, blobs,
                                                         monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with mlp() as model:
        model.fit_batches(cut(*blobs(40)), progress=True, progress_every=2)
    assert "epoch 1 step 4 loss" in stream.getvalue()
    assert "%" not in stream.getvalue()


# ---- stop, resume, checkpoints ----------------------------------------------


class Stop(Exception):
    pass


def stop_at(step):
    def told(progress):
        if progress.step == step:
            raise Stop
    return told


@pytest.mark.parametrize("optimiser", [
    fl.SGD(0.1, momentum=0.9), fl.Adam(0.01, schedule=fl.Cosine(20))])
@pytest.mark.parametrize("step", [1, 4, 5, 9])
def test_a_stopped_fit_goes_on_to_the_same_bits(mlp, blobs, optimiser, step):
    x, y = blobs(40)
    how = dict(epochs=2, batch_size=8, seed=3, progress_every=1)
    with mlp() as whole, mlp() as stopped, mlp() as other:
        whole.fit(x, y, optimiser=optimiser, **how)
        with pytest.raises(Stop):
            stopped.fit(x, y, optimiser=optimiser, progress=stop_at(step),
                        **how)
        file = io.BytesIO()
        stopped.save_checkpoint(file)
        stopped.fit(x, y, resume=True, **how)
        assert same_weights(stopped, whole)
        file.seek(0)
        other.load_checkpoint(file)
        assert other.optimiser == optimiser and other.updates == step
        other.fit(x, y, resume=True, **how)
        assert same_weights(other, whole)


def test_pulled_batches_that_were_done_are_passed_over(mlp, blobs):
    batches = cut(*blobs(40))
    with mlp() as whole, mlp() as stopped:
        whole.fit_batches(batches, epochs=2)
        with pytest.raises(Stop):
            stopped.fit_batches(batches, epochs=2, progress_every=1,
                                progress=stop_at(6))
        seen = []
        stopped.fit_batches(
            lambda epoch: (seen.append((epoch, i)) or batch
                           for i, batch in enumerate(batches)),
            epochs=2, resume=True)
        assert seen == [(1, 0), (1, 1), (1, 2), (1, 3)]
        assert same_weights(stopped, whole)


def test_resume_keeps_the_optimiser(mlp, blobs):
    with mlp() as model:
        with pytest.raises(ValueError, match="resume"):
            model.fit(*blobs(8), resume=True, optimiser=fl.SGD())


def test_checkpoints_go_to_paths_and_come_from_progress(mlp, blobs, tmp_path):
    x, y = blobs(40)
    path = tmp_path / "checkpoint"
    with mlp() as model, mlp(seed=9) as other:
        model.fit(x, y, progress_every=1, optimiser=fl.Adagrad(0.1),
                  progress=lambda progress: model.save_checkpoint(path))
        other.load_checkpoint(path)
        assert same_weights(model, other)
        assert other.optimiser == fl.Adagrad(0.1)
        with open(path, "rb") as file:
            other.load_checkpoint(file)
        assert [file.name for file in tmp_path.iterdir()] == ["checkpoint"]


def test_checkpoints_that_are_none_change_nothing(mlp, blobs, tmp_path):
    file = io.BytesIO()
    with mlp() as model, mlp(seed=2) as other, \
            fl.Model([fl.Tensor("w", [131])]) as stranger:
        model.fit(*blobs(20), optimiser=fl.Adam())
        model.save_checkpoint(file)
        data = file.getvalue()
        before = other.copy_weights()
        with pytest.raises(fl.SchemaError):
            stranger.load_checkpoint(io.BytesIO(data))
        for n in (0, 1, 20, len(data) - 1):
            with pytest.raises(fl.PeerDataError):
                other.load_checkpoint(io.BytesIO(data[:n]))
        with pytest.raises(FileNotFoundError):
            other.load_checkpoint(tmp_path / "none")
        assert (other.weights == before).all()
        assert other.optimiser == fl.SGD()


# ---- outputs ----------------------------------------------------------------


def test_the_best_classes_come_with_their_scores(mlp, blobs, rng):
    x, _ = blobs(300)
    with mlp() as model:
        logits = model.predict(x)
        order = np.argsort(-logits, axis=1, kind="stable")
        for top in (1, 2, 3):
            classes, scores = model.predict(x, top=top)
            assert classes.shape == scores.shape == (300, top)
            assert (classes == order[:, :top]).all()
            assert (scores == np.take_along_axis(logits, order[:, :top],
                                                 1)).all()
        for top, kind in ((0, fl.RangeError), (4, fl.RangeError),
                          (-1, ValueError), (1.5, TypeError)):
            with pytest.raises(kind):
                model.predict(x, top=top)


def test_equal_scores_come_by_their_index(mlp, blobs):
    with fl.Model([fl.Input((4,)), fl.Dense(3), fl.CrossEntropy()]) as model:
        classes, scores = model.predict(blobs(2)[0], top=2)
        assert (classes == [[0, 1], [0, 1]]).all() and not scores.any()


def test_a_fit_wants_samples_labels_and_a_batch_size(mlp, blobs):
    x, y = blobs(5)
    with mlp() as model:
        with pytest.raises(fl.EmptyError):
            model.fit(x[:0], y[:0])
        with pytest.raises(fl.ArgumentError, match="y is NULL"):
            model.fit(x, None)
        with pytest.raises(ValueError):
            model.fit(x, y, batch_size=-1)
        with pytest.raises(fl.OptionsError):
            model.fit(x, y, batch_size=0)


def test_many_models_train_at_once(mlp, blobs):
    x, y = blobs(200)
    with mlp() as reference:
        reference.fit(x, y, epochs=3)
        expected = reference.copy_weights()
    models = [mlp() for _ in range(4)]
    threads = [threading.Thread(target=model.fit, args=(x, y),
                                kwargs={"epochs": 3, "progress": False})
               for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for model in models:
        assert (model.weights == expected).all()
        model.close()
