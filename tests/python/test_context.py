# SPDX-License-Identifier: Apache-2.0
"""Contexts, handles and their lives: nothing leaks, nothing dangles."""
import copy
import gc
import io
import logging
import os
import pickle
import threading
import time
import weakref

import numpy as np
import pytest

import libfl as fl
from libfl import _lib, _pages


def handles(context):
    """One of each kind of handle."""
    model = fl.Model([fl.Tensor("w", [5])], context=context)
    compressor = fl.Compressor(5, "f32", context=context)
    scale = fl.Scale(norms=compressor.measure(np.ones(5)))
    return [model, compressor, compressor.partial(scale),
            fl.Client("c", context=context), fl.Server(context=context),
            fl.Cancel()]


def test_closing_twice_is_fine(context):
    for handle in handles(context):
        handle.close()
        handle.close()
        assert handle.is_closed
    assert context.memory == 0


def test_with_closes_every_kind(context):
    for handle in handles(context):
        with handle as entered:
            assert entered is handle and not handle.is_closed
        assert handle.is_closed


def test_dropped_handles_are_freed(context):
    made = handles(context)
    assert context.memory > 0
    assert context.memory_peak >= context.memory
    del made
    gc.collect()
    assert context.memory == 0


def test_closed_handles_refuse_calls():
    model = fl.Model([fl.Tensor("w", [5])])
    model.close()
    with pytest.raises(ValueError, match="Model is closed"):
        model.weight_count
    assert repr(model) == "Model(closed)"


def test_context_may_be_closed_before_its_handles():
    context = fl.Context()
    model = fl.Model([fl.Tensor("w", [5])], context=context)
    context.close()
    model.weights[:] = 3
    assert (model["w"] == 3).all()
    model.close()


def test_views_outlive_the_model(context):
    model = fl.Model([fl.Tensor("w", [1000])], context=context)
    view = model.weights
    view[:] = 7
    model.close()
    gc.collect()
    assert (view == 7).all()
    assert context.memory > 0
    del view
    assert context.memory == 0


def test_clients_with_callbacks_are_no_reference_cycle(context):
    client = fl.Client("c", train=lambda task: task.weights, context=context)
    watch = weakref.ref(client)
    gc.disable()
    try:
        del client
        assert watch() is None
    finally:
        gc.enable()


def decline(context):
    """Make a client that declines, which the library logs at INFO."""
    def train(task):
        raise fl.Declined

    with fl.Model([fl.Tensor("w", [5])]) as model, fl.Server() as server, \
            fl.Client("c", train=train, context=context) as client:
        server.add_job(model, rounds=1)
        for event in fl.Loopback(server, [client]).events():
            if event.kind == fl.ServerEventKind.CLIENT_LOST:
                return


@pytest.mark.parametrize("level, count", [(logging.INFO, 1),
                                          (logging.WARNING, 0)])
def test_log_lines_reach_the_logger_from_its_level_on(caplog, level, count):
    logger = logging.getLogger("test.libfl")
    logger.setLevel(level)
    with fl.Context(logger=logger) as context:
        decline(context)
    assert [record.levelname for record in caplog.records] == ["INFO"] * count
    for record in caplog.records:
        assert "declined" in record.getMessage()


def test_what_a_log_handler_raises_comes_out_of_the_call():
    class Broken(logging.Logger):
        def log(self, *arguments, **keywords):
            raise KeyError("broken handler")

    with fl.Context(logger=Broken("broken", logging.INFO)) as context:
        with pytest.raises(KeyError, match="broken handler"):
            decline(context)
        assert context.memory == 0


def test_cancel_flag():
    with fl.Cancel() as cancel:
        assert not cancel.is_requested
        cancel.request()
        assert cancel.is_requested
        cancel.reset()
        assert not cancel.is_requested


def test_log_level_follows_the_logger():
    for level, expected in ((logging.ERROR, 1), (logging.WARNING, 2),
                            (logging.INFO, 3), (logging.DEBUG, 4),
                            (logging.CRITICAL, 1)):
        assert fl.context._least_severe(level) == expected


def test_every_handle_class_names_its_pointer_type():
    for name in ("Buffer", "Cancel", "Client", "Compressor", "Context",
                 "Model", "ModelBuilder", "Partial", "Server"):
        assert getattr(_lib, name)._type_.__name__.startswith("fl_")


def test_copies_and_pickles_of_a_model_are_its_own(mlp):
    with mlp() as model:
        for other in (copy.copy(model), copy.deepcopy(model),
                      pickle.loads(pickle.dumps(model))):
            assert other.schema == model.schema
            assert (other.weights == model.weights).all()
            other.weights[:] = 0
            assert (model.weights != 0).any()


def test_other_handles_cannot_be_copied():
    for handle in handles(None)[1:]:
        for copied in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="cannot be copied or pickled"):
                copied(handle)


def test_progress_may_look_at_the_model(mlp, blobs):
    x, y = blobs(600)
    with mlp() as model:
        seen = []

        def told(progress):
            # Larger batches than those of the training want new memory.
            seen.append((progress.step, model.evaluate(x, y).loss))

        model.fit(x, y, epochs=2, progress=told, progress_every=1)
        assert [step for step, _ in seen] == list(range(1, 39))
        assert seen[-1][1] == model.evaluate(x, y).loss
        with mlp() as plain:
            plain.fit(x, y, epochs=2, progress=False)
            assert (plain.weights == model.weights).all()


def test_closing_during_fit_waits_for_its_end(context, mlp, blobs):
    x, y = blobs(64)
    model, cancel = mlp(context=context), fl.Cancel()

    def told(progress):
        model.close()
        cancel.close()
        gc.collect()
        assert context.memory > 0

    result = model.fit(x, y, epochs=5, progress=told, progress_every=1,
                       cancel=cancel)
    assert result.steps == 10 and model.is_closed
    assert context.memory == 0


def test_progress_that_raises_ends_fit_even_without_its_flag(mlp, blobs):
    cancel = fl.Cancel()

    def told(progress):
        cancel.close()
        raise KeyError(progress.step)

    with mlp() as model, pytest.raises(KeyError, match="1"):
        model.fit(*blobs(64), epochs=10**8, progress=told, progress_every=1,
                  cancel=cancel)


def federate(train, context=None):
    """Run one round with one client."""
    with fl.Model([fl.Tensor("w", [500])]) as model, fl.Server() as server:
        server.add_job(model, rounds=1)
        client = fl.Client("c", train=lambda task: train(client, task),
                           context=context)
        with client:
            fl.Loopback(server, [client]).run()


def test_trainer_may_close_its_client(context):
    def train(client, task):
        client.close()
        return task.weights

    with pytest.raises(ValueError, match="Client is closed"):
        federate(train, context)


@pytest.mark.parametrize("call", [
    lambda client: client.poll(0), lambda client: client.send(),
    lambda client: client.disconnected(), lambda client: client.save()])
def test_trainer_may_not_use_its_client(call):
    with pytest.raises(RuntimeError, match="Client is at work"):
        federate(lambda client, task: call(client))


def test_closing_on_another_thread_waits_for_the_call(context, mlp, blobs):
    x, y = blobs(64)
    model, cancel = mlp(context=context), fl.Cancel()
    begun = threading.Event()

    def close():
        begun.wait()
        model.close()
        cancel.request()

    thread = threading.Thread(target=close)
    thread.start()
    with pytest.raises(fl.CancelledError):
        model.fit(x, y, epochs=10**8, cancel=cancel, progress_every=10,
                  progress=lambda progress: begun.set())
    thread.join()
    assert context.memory == 0


def test_arrays_may_go_while_their_struct_is_in_use():
    scale = fl.Scale(norms=[1.0])  # converted: nobody else has the array
    struct = scale._struct()
    scale.norms = None
    gc.collect()
    assert struct.norms[0] == 1.0
    model = fl.Model([fl.Input((4,)), fl.Dense(2), fl.SoftmaxCrossEntropy()])
    data = model._dataset([[1, 2, 3, 4]], [1], [0])
    gc.collect()
    assert (data.y[0], data.indices[0]) == (1, 0)


def test_a_handle_whose_constructor_raises_late_is_freed(context):
    def made(out, *arguments):
        _lib.lib.fl_server_new(out, context._handle, None)
        raise KeyError("a log callback")

    with pytest.raises(KeyError):
        _lib.new(_lib.Server, made)
    assert context.memory == 0


def test_handles_live_on_in_a_forked_child(mlp, blobs):
    x, y = blobs(64)
    with mlp() as model:
        loss = model.evaluate(x, y).loss
        child = os.fork()
        if child == 0:
            is_same = model.evaluate(x, y).loss == loss
            model.fit(x, y, progress=False)
            model.close()
            os._exit(0 if is_same else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert model.evaluate(x, y).loss == loss


def test_other_threads_run_while_c_works(mlp, blobs):
    x, y = blobs(100_000)
    with mlp() as model:
        x, y = np.tile(x, (20, 1)), np.tile(y, 20)
        data, score = model._dataset(x, y), _lib.init(_lib.Evaluation)
        marks = []

        def work():
            marks.append(time.monotonic())
            _lib.lib.fl_model_evaluate(model._handle, _lib.byref(data),
                                       _lib.byref(score))
            marks.append(time.monotonic())

        thread = threading.Thread(target=work)
        longest, last = 0.0, time.monotonic()
        thread.start()
        while len(marks) < 2:
            now = time.monotonic()
            longest, last = max(longest, now - last), now
        thread.join()
        # With the GIL held this thread would stand still for all of it.
        assert longest < 0.8 * (marks[1] - marks[0])


# ---- huge pages ------------------------------------------------------------

def test_memory_in_huge_pages_is_counted_and_goes_with_its_last_handle():
    context = fl.Context(huge_pages=True)
    pages = context._resource.keep[-1]
    library = _pages.library()
    assert library.fl_pages_bytes(pages.pointer) == 0
    store = fl.EmbeddingStore(seed=1, secret=bytes(16), context=context)
    table = store.add_table(32)
    context.close()
    ids = np.arange(20000).reshape(-1, 10)
    out = table.forward(ids)
    assert library.fl_pages_bytes(pages.pointer) >= 20000 * 32 * 4
    alone = fl.EmbeddingStore(seed=1, secret=bytes(16), context=fl.Context())
    assert np.array_equal(alone.add_table(32).forward(ids), out)
    store.close()
    assert library.fl_pages_bytes(pages.pointer) == 0


def test_memory_cap_holds_in_huge_pages():
    context = fl.Context(huge_pages=True, memory_cap=1 << 20)
    with pytest.raises(fl.NomemError):
        fl.EmbeddingStore(context=context).add_table(64).forward(
            np.arange(40000).reshape(-1, 10))
    assert context.memory <= 1 << 20


def test_large_stores_have_huge_pages_of_their_own():
    def has_pages(**options):
        lease = fl.EmbeddingStore(**options)._resource.keep[0]
        return lease is not None and lease.keep[-1] is not None

    assert has_pages()
    assert has_pages(byte_budget=64 << 20)
    assert not has_pages(byte_budget=(64 << 20) - 1)
    assert not has_pages(context=fl.Context())
    file = io.BytesIO()
    fl.EmbeddingStore(byte_budget=1 << 20).save(file)
    for budget, is_there in (0, True), (1 << 20, False):
        file.seek(0)
        store = fl.EmbeddingStore.load(file, byte_budget=budget)
        lease = store._resource.keep[0]
        assert (lease is not None and lease.keep[-1] is not None) == is_there


def test_without_the_library_huge_pages_are_refused(monkeypatch):
    monkeypatch.setattr(_pages, "_candidates", lambda: [])
    _pages.library.cache_clear()
    try:
        with pytest.raises(RuntimeError, match="libfl-pages"):
            fl.Context(huge_pages=True)
        store = fl.EmbeddingStore()  # as ever
        assert store._resource.keep[0] is None
    finally:
        _pages.library.cache_clear()
