# SPDX-License-Identifier: Apache-2.0
"""Contexts, handles and their lives: nothing leaks, nothing dangles."""
import gc
import logging
import weakref

import numpy as np
import pytest

import libfl as fl
from libfl import _lib


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
