# SPDX-License-Identifier: Apache-2.0
"""Python functions that C calls while it trains a model: each runs on the
thread that made the call, whichever thread C is on (see _interrupt)."""
from __future__ import annotations

import itertools
from typing import Any, Callable, Iterable, Iterator

import numpy as np

from . import _data, _lib, _np
from ._handle import Resource
from ._np import F32Array

GradientFunction = Callable[[F32Array, F32Array], None]
Report = Callable[[Callable[[], None]], None]


class ModelResource(Resource):
    """A model's handle, and what may not go before it. `attached`: the
    controller that freezes its modules, and that one's cache; `rows`: the
    store of its sparse embedding."""

    __slots__ = ("hook", "is_training", "attached", "rows", "__weakref__")

    def __init__(self, pointer: Any, free: Callable[[Any], None],
                 keep: tuple[object, ...]) -> None:
        super().__init__(pointer, free, keep)
        self.hook: GradientHook | None = None
        self.is_training = False
        self.attached: tuple[Resource, Resource | None] | None = None
        self.rows: Resource | None = None


def relay(report: Report | None, work: Callable[[], None]) -> bool:
    """Do `work` on the thread of the caller; False: it failed there, and the
    caller knows."""
    if report is None:
        work()
        return True
    done = []

    def run() -> None:
        work()
        done.append(True)

    report(run)
    return bool(done)


class GradientHook:
    """What stands between C and a gradient function. The function gets an
    array of its own: C's memory may go while somebody still has it."""

    def __init__(self, function: GradientFunction) -> None:
        self.function = function
        self.pointer = _lib.GradientFn(_lib.keep_exceptions(self._call))
        self.is_running = False
        # Of the call that runs: the model's handle, the way to its thread.
        self.owner: Resource | None = None
        self.report: Report | None = None
        self._gradient = np.empty(0, np.float32)

    def _call(self, gradient: Any, weights: Any, count: int,
              _user: Any) -> int:
        if self._gradient.size != count:
            self._gradient = np.empty(count, np.float32)
        theirs = _np.view(gradient, count, None)
        if self.owner is None:
            current = _np.copied(weights, count)
        else:
            current = _np.view(weights, count, self.owner)
        current.flags.writeable = False
        self._gradient[:] = theirs

        def work() -> None:
            self.is_running = True
            try:
                returned: Any = self.function(self._gradient, current)
            finally:
                self.is_running = False
            if returned is not None:
                raise TypeError("gradient_hook: got a value back, want None: "
                                "the function changes the gradient in place")

        if not relay(self.report, work):
            return _lib.callback_failed()
        theirs[:] = self._gradient
        return 0


class Batches:
    """What fl_model_fit_pull pulls: an iterable for every epoch."""

    def __init__(self, form: _data.Form, batches: Any, epochs: int) -> None:
        is_once = not callable(batches) and iter(batches) is batches
        if is_once and epochs > 1:
            raise ValueError("batches: an iterator is for one epoch; want a "
                             "list, or a function that returns an iterator")
        self._form = form
        self._batches = batches
        self._epoch = -1
        self._iterator: Iterator[Any] = iter(())
        self._position = 0
        self._data: Any = None

    def next(self, epoch: int, step: int) -> Any:
        """Return fl_dataset of a batch, None at the end of the epoch."""
        if epoch != self._epoch:
            given: Iterable[Any] = (self._batches(epoch)
                                    if callable(self._batches)
                                    else self._batches)
            self._iterator, self._position = iter(given), 0
            self._epoch = epoch
        # A fit that was stopped goes on: what was done is passed over.
        skipped = max(step - self._position, 0)
        self._position = step + 1
        self._data = None
        for x, y, *ids in itertools.islice(self._iterator, skipped,
                                           skipped + 1):
            if len(ids) > 1:
                raise ValueError(f"batches: got {2 + len(ids)} values, want "
                                 f"x, y or x, y, ids")
            self._data = _data.dataset(self._form, x, y, None, *ids)
            if self._data.n == 0:
                raise ValueError(f"batches: number {step} of epoch {epoch} "
                                 f"is empty")
        return self._data

    def callback(self, report: Report) -> Any:
        """Return fl_batch_fn."""
        def pull(batch: Any, epoch: int, step: int, _user: Any) -> int:
            def work() -> None:
                data = self.next(epoch, step)
                if data is not None:
                    batch[0] = data

            return 0 if relay(report, work) else _lib.callback_failed()

        return _lib.BatchFn(_lib.keep_exceptions(pull))
