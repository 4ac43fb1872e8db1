# SPDX-License-Identifier: Apache-2.0
"""The part of Model that trains, scores and predicts."""
from __future__ import annotations

import dataclasses
import weakref
from typing import (Any, Callable, Iterable, NamedTuple, Sequence, Union,
                    overload)

import numpy as np
import numpy.typing as npt

from . import _args, _data, _hooks, _interrupt, _lib, _np, _progress
from . import optimisers as _optimisers
from ._hooks import GradientFunction, GradientHook, ModelResource, Report
from ._lib import byref, c_double, c_float, c_uint64, lib
from ._np import F32Array
from .context import Cancel
from .optimisers import Optimiser
from .weights import WeightFiles

Batches = Iterable[Union[
    "tuple[npt.ArrayLike, npt.ArrayLike]",
    "tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike]"]]


@dataclasses.dataclass(frozen=True)
class FitProgress:
    """`epoch` counts from 0. `loss` is the mean over the steps since the last
    report; `steps` is 0 where nobody knows (fit_batches)."""

    epoch: int
    step: int
    steps: int
    loss: float


@dataclasses.dataclass(frozen=True)
class FitResult:
    """Steps and samples of this call; `mean_loss` is over the last epoch."""

    steps: int
    samples: int
    mean_loss: float


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """`loss` is the mean over `count` samples, or labels of sequences, without
    those that are ignored; `correct` are top-1 hits. `class_count` and
    `class_correct`: labels and hits of each class, empty for losses of
    numbers."""

    loss: float
    count: int
    correct: int
    class_count: npt.NDArray[np.uint64]
    class_correct: npt.NDArray[np.uint64]

    @property
    def accuracy(self) -> float:
        """Hits among what has a label; nan where nothing has."""
        labels = int(self.class_count.sum())
        return self.correct / labels if labels else float("nan")


@dataclasses.dataclass(frozen=True)
class MemoryPlan:
    """Bytes that training or scoring takes; `peak` is their sum. `gradients`
    is 0 where updates are made on the way back; `optimiser` is taken when it
    is set."""

    weights: int
    gradients: int
    optimiser: int
    activations: int
    peak: int


class TopClasses(NamedTuple):
    """The largest outputs, largest first, and which they are."""

    classes: npt.NDArray[np.uint32]
    scores: F32Array


def _obey(work: Callable[[], None]) -> None:
    work()


def _progress_hook(on_report: Callable[[FitProgress], None],
                   report: Report) -> Any:
    """Return fl_fit_progress_fn."""
    def told(pointer: Any, _user: Any) -> None:
        now = pointer.contents
        seen = FitProgress(now.epoch, now.step, now.steps, now.loss)
        report(lambda: on_report(seen))

    return _lib.FitProgressFn(_lib.keep_exceptions(told))


class Training(WeightFiles):
    """Optimiser, steps, fits, scores.

    Samples and labels that cannot be meant are a ValueError or TypeError; of
    values, RangeError is a label, id or target out of range, NotFiniteError a
    target. EmptyError: no samples; NotAllowedError: no layers; LimitError: see
    memory_limit. All of them come before anything changes. Setting optimiser,
    gradient_hook, first_active or memory_limit, and load_checkpoint, drops
    what was accumulated: a BufferError while an array of `gradient` is in use,
    a RuntimeError from a callback.
    """

    _resource_kind = ModelResource
    _form: _data.Form
    _memory_limit = 0
    _gradient_view: Callable[[], object] | None = None

    def _lease(self) -> ModelResource:
        lease = super()._lease()
        assert isinstance(lease, ModelResource)
        if lease.hook is not None and lease.hook.is_running:
            raise RuntimeError(f"{type(self).__name__} is at work: its "
                               f"gradient hook may not use it")
        return lease

    def _idle(self) -> ModelResource:
        """The handle for a call that must not come in the middle of a fit,
        nor take memory away that somebody looks at."""
        lease = self._lease()
        if lease.is_training:
            raise RuntimeError(f"{type(self).__name__} is being trained: its "
                               f"callbacks may look at it only")
        return lease

    def _unseen(self) -> ModelResource:
        """The handle for a call that gives the gradient's memory back."""
        lease = self._idle()
        if self._gradient_view is not None and self._gradient_view():
            raise BufferError("Model.gradient: an array of it is still in "
                              "use: drop it, or copy it, first")
        return lease

    def _train(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call function(handle, ...), which trains: nothing else may until
        it returns. A controller may freeze memory of the gradient away."""
        lease = self._idle()
        if lease.attached is not None:
            lease = self._unseen()
        hook = lease.hook
        try:
            lease.is_training = True
            if hook is not None:
                hook.owner = lease
            function(lease, *arguments)
        finally:
            lease.is_training = False
            if hook is not None:
                hook.owner = hook.report = None
            del lease  # a traceback would keep it longer

    # ---- optimiser -------------------------------------------------------

    @property
    def optimiser(self) -> Optimiser:
        """What trains: SGD at a rate of .05 unless it was set. Its state and
        `updates` begin anew when it is. OptionsError names a value out of
        range, and the one before stays."""
        options = _lib.init(_lib.OptimiserOptions)
        lib.fl_model_get_optimiser(self._handle, byref(options))
        return _optimisers.from_options(options)

    @optimiser.setter
    def optimiser(self, optimiser: Optimiser) -> None:
        options = _optimisers.to_options(optimiser)
        lib.fl_model_set_optimiser(self._unseen(), byref(options))

    @property
    def updates(self) -> int:
        """Updates since the optimiser was set."""
        return self._progress_of()[0]

    @property
    def learning_rate(self) -> float:
        """The rate of the next update, as the schedule says."""
        return self._progress_of()[1]

    def _progress_of(self) -> tuple[int, float]:
        updates, rate = c_uint64(), c_float()
        lib.fl_model_get_progress(self._handle, byref(updates), byref(rate))
        return updates.value, _optimisers.shortest(rate.value)

    # ---- steps -----------------------------------------------------------

    def step(self, x: npt.ArrayLike, y: npt.ArrayLike,
             learning_rate: float | None = None, *,
             ids: npt.ArrayLike | None = None) -> float:
        """Take one step on one batch and return its loss. `learning_rate`:
        finite, >= 0; None = as the optimiser says.
        `ids`: integers that name the samples, for the cache of a Freeze.

        NotFiniteError: a sample or the loss, and where gradients are gathered
        (clip_norm, accumulate, gradient_hook, and after `accumulate`) the
        gradient; the weights are as before. Otherwise a gradient that
        overflows leaves weights that are not finite, and the next step or
        score that they reach fails."""
        data = self._dataset(x, y, ids=ids)
        loss = c_double()
        self._train(lib.fl_model_step, byref(data),
                    _args.rate(learning_rate), byref(loss))
        return loss.value

    def accumulate(self, x: npt.ArrayLike, y: npt.ArrayLike, *,
                   ids: npt.ArrayLike | None = None) -> float:
        """Add the gradient of a batch's mean loss to `gradient`, and return
        the loss. `ids` and errors as for `step`; `gradient` is then as before."""
        data = self._dataset(x, y, ids=ids)
        loss = c_double()
        self._train(lib.fl_model_accumulate, byref(data), byref(loss))
        return loss.value

    @property
    def gradient(self) -> F32Array:
        """The gradient accumulated since the last update, a sum over batches
        and a view without a copy: writing to it changes the update. It is laid
        out like the last weights (all, unless the first modules are frozen).
        NotAllowedError: nothing was accumulated."""
        pointer, count = _lib.F32P(), c_uint64()
        lease = self._lease()
        if lease.is_training and lease.attached is not None:
            raise BufferError("Model.gradient: a controller may freeze it "
                              "away while somebody looks at it")
        lib.fl_model_get_gradient(lease, byref(pointer), byref(count))
        seen = _np.view(pointer, count.value, lease)
        # Views of views have this same object as their base.
        self._gradient_view = weakref.ref(seen.base) if count.value else None
        return seen

    @gradient.setter
    def gradient(self, values: npt.ArrayLike) -> None:
        view = self.gradient
        view[:] = _np.f32(values, "gradient", view.size).reshape(-1)

    def update(self, learning_rate: float | None = None) -> None:
        """Update with what was accumulated, divided by the number of
        batches, and start over. NotAllowedError: there is nothing;
        NotFiniteError: the gradient, which is dropped."""
        self._train(lib.fl_model_update, _args.rate(learning_rate))

    @property
    def gradient_hook(self) -> GradientFunction | None:
        """A function (gradient, weights) that sees the gradient, the mean over
        the batches of an update and not clipped yet, before each update and
        may change it in place: FedProx's pull, SCAFFOLD's correction, noise.
        Both are vectors like `gradient`; weights are read-only. What it raises
        ends the step, the weights unchanged and the gradient dropped. It runs
        on the thread that trains and may not use the model."""
        hook = self._lease().hook
        return hook.function if hook is not None else None

    @gradient_hook.setter
    def gradient_hook(self, function: GradientFunction | None) -> None:
        lease = self._unseen()
        hook = None
        if function is not None:
            if not callable(function):
                raise TypeError(f"gradient_hook: got {function!r}, want a "
                                f"function")
            hook = GradientHook(function)
        lib.fl_model_set_gradient_hook(
            lease, hook.pointer if hook else _lib.NO_GRADIENT_FN, None)
        lease.hook = hook

    @property
    def first_active(self) -> int:
        """The first module that is trained: those below are frozen, and cost
        no gradient and no state. Default 0, all are trained. The optimiser's
        state is kept for modules that stay trained and is zero for those that
        come back; `updates` goes on, and Adam's bias correction with it: they
        begin with steps up to 3.2 times the rate. RangeError: no module from
        there on has a trainable weight."""
        return int(lib.fl_model_first_active(self._handle))

    @first_active.setter
    def first_active(self, module: int) -> None:
        number = _args.u32(module, "first_active")
        lib.fl_model_set_first_active(self._unseen(), number)

    def set_frozen(self, frozen: Sequence[bool]) -> None:
        """Freeze the modules that are true and train the others, those not
        named too. One in the middle saves its gradient and state; the way
        back is saved in front of the first that is trained, which is then
        `first_active`. Setting that one undoes it."""
        flags = np.array([bool(flag) for flag in frozen], np.uint8)
        lib.fl_model_set_frozen(self._unseen(),
                                flags.ctypes.data_as(_lib.U8P), flags.size)

    # ---- memory ----------------------------------------------------------

    def memory_plan(self, batch_size: int = 32, *,
                    training: bool = True) -> MemoryPlan:
        """Say what a batch of one or more samples takes, before it is taken,
        with the optimiser, hook and frozen modules set now. NotAllowedError:
        no layers; NomemError: more than can be addressed."""
        plan = _lib.init(_lib.MemoryPlan)
        lib.fl_model_plan_memory(self._handle,
                                 _args.u32(batch_size, "batch_size"),
                                 int(training), byref(plan))
        return MemoryPlan(plan.weights, plan.gradients, plan.optimiser,
                          plan.activations, plan.peak)

    @property
    def memory_limit(self) -> int:
        """Bytes: batches whose plan's peak is above are refused with a
        LimitError that names the largest batch that fits; scores take smaller
        ones. 0 = none. The optimiser's state counts, but setting one is never
        refused; files and adapters take more while they run."""
        return self._memory_limit

    @memory_limit.setter
    def memory_limit(self, size: int) -> None:
        number = _args.u64(size, "memory_limit")
        lib.fl_model_set_memory_limit(self._unseen(), number)
        self._memory_limit = number

    # ---- fits ------------------------------------------------------------

    def fit(self, x: npt.ArrayLike, y: npt.ArrayLike, *, epochs: int = 1,
            batch_size: int = 32, learning_rate: float | None = None,
            optimiser: Optimiser | None = None, shuffle: bool = True,
            seed: int = 0, indices: npt.ArrayLike | None = None,
            ids: npt.ArrayLike | None = None,
            progress: _progress.Choice = None, progress_every: int = 100,
            resume: bool = False, cancel: Cancel | None = None) -> FitResult:
        """Train on float32 or uint8 samples `x` (integers for an Embedding)
        and labels `y` (numbers for losses of numbers).

        `optimiser`: as setting Model.optimiser before; None = the one that
        is there. `learning_rate`: in place of what its schedule says.
        `ids`: integers that name the samples, for the cache of a Freeze;
        None = their places in `x`.
        `progress`: a function that is told every `progress_every` steps and
        may look at the model, which stands still meanwhile; None = a bar
        when stderr is a terminal, True = always, False = never.
        Ctrl-C stops after the running step (KeyboardInterrupt), and so does
        `cancel.request()` from another thread (CancelledError); the weights
        are then those of the last whole step. `resume`: go on there, with
        the same data and options, also after load_checkpoint; ConflictError:
        another seed. Without it what was accumulated is dropped.

        `epochs`, `batch_size` and `progress_every` are >= 1 (OptionsError).
        Data are checked before the first step; what fails later, as in `step`,
        leaves the weights of the steps before.
        """
        data = self._dataset(x, y, indices, ids)
        options = _lib.init(_lib.FitOptions)
        options.epochs = epochs
        options.batch_size = batch_size
        options.shuffle = int(shuffle)
        options.seed = seed
        options.learning_rate = _args.rate(learning_rate)
        options.progress_every = progress_every
        self._begin_fit(options, optimiser, resume)

        return self._run_fit(lib.fl_model_fit, lambda report: (byref(data),),
                             options, progress, cancel)

    def fit_batches(self, batches: Union[Batches, Callable[[int], Batches]],
                    *, epochs: int = 1, learning_rate: float | None = None,
                    optimiser: Optimiser | None = None, seed: int = 0,
                    progress: _progress.Choice = None,
                    progress_every: int = 100, resume: bool = False,
                    cancel: Cancel | None = None) -> FitResult:
        """Train on batches (x, y), or (x, y, ids), as they come, each one
        step: for data that does not fit into memory, or is drawn anew.

        `batches`: something to iterate over once for every epoch (a list, a
        DataLoader; a generator for one epoch), or a function of the epoch's
        number that returns it. `seed` is for what layers draw. Everything
        else as for `fit`; `resume` passes over the batches that were done.
        """
        source = _hooks.Batches(self._form, batches, epochs)
        options = _lib.init(_lib.FitOptions)
        options.epochs = epochs
        options.seed = seed
        options.learning_rate = _args.rate(learning_rate)
        options.progress_every = progress_every
        self._begin_fit(options, optimiser, resume)

        return self._run_fit(lib.fl_model_fit_pull,
                             lambda report: (source.callback(report), None),
                             options, progress, cancel)

    def _begin_fit(self, options: Any, optimiser: Optimiser | None,
                   resume: bool) -> None:
        options.resume = int(resume)
        if optimiser is None:
            return
        if resume:
            raise ValueError("fit: resume goes on with the optimiser that is "
                             "there; want no other one")
        self.optimiser = optimiser

    def _run_fit(self, function: Any,
                 data: Callable[[Report], tuple[Any, ...]], options: Any,
                 progress: _progress.Choice, cancel: Cancel | None
                 ) -> FitResult:
        """Run one of C's fits on a thread of its own (see _interrupt)."""
        result = _lib.init(_lib.FitResult)

        def run(handle: ModelResource) -> None:
            on_report: Callable[[FitProgress], None] | None = None
            # Kept until the end, whoever closes it meanwhile.
            raised = (cancel or Cancel())._handle
            options.cancel = raised.pointer

            def call(report: Report) -> None:
                if on_report is not None:
                    options.progress = _progress_hook(on_report, report)
                if handle.hook is not None:
                    handle.hook.report = report
                function(handle, *data(report), byref(options),
                         byref(result))

            try:
                with _progress.reporter(progress) as on_report:
                    _interrupt.run(
                        call, lambda: lib.fl_cancel_request(raised), _obey)
            finally:
                del raised, handle  # a traceback would keep them longer

        self._train(run)
        return FitResult(result.steps, result.samples, result.mean_loss)

    # ---- scores ----------------------------------------------------------

    def evaluate(self, x: npt.ArrayLike, y: npt.ArrayLike) -> Evaluation:
        """Score the model: mean loss and top-1 hits, in all and by class.
        NotFiniteError: the loss."""
        data = self._dataset(x, y)
        room = self._form.output[-1] if self._form.output else 1
        count = np.zeros(room, np.uint64)
        correct = np.zeros(room, np.uint64)
        evaluation = _lib.init(_lib.Evaluation)
        evaluation.class_count = _np.u64_pointer(count)
        evaluation.class_correct = _np.u64_pointer(correct)
        evaluation.class_capacity = count.size
        lib.fl_model_evaluate(self._handle, byref(data), byref(evaluation))
        classes = evaluation.n_classes
        return Evaluation(evaluation.loss, evaluation.count,
                          evaluation.correct, count[:classes],
                          correct[:classes])

    @overload
    def predict(self, x: npt.ArrayLike, out: F32Array | None = None, *,
                top: None = None) -> F32Array: ...

    @overload
    def predict(self, x: npt.ArrayLike, out: None = None, *,
                top: int) -> TopClasses: ...

    def predict(self, x: npt.ArrayLike, out: F32Array | None = None, *,
                top: int | None = None) -> F32Array | TopClasses:
        """Return the outputs (logits) of every sample, finite or not; with
        `top`, the classes of the `top` largest of them and their values,
        largest first. RangeError: `top` is not 1..1024, or above the number of
        classes."""
        data = self._dataset(x, None)
        if top is not None:
            return self._predict_top(data, _args.u32(top, "top"))
        result = _np.output(out, "out", [data.n, *self._form.output])
        lib.fl_model_predict(self._handle, byref(data),
                             _np.f32_pointer(result), result.size)
        return result

    def _predict_top(self, data: Any, top: int) -> TopClasses:
        limit = self._form.output[-1] if self._form.output else 0
        room = [data.n, *self._form.output[:-1], min(top, limit)]
        classes = np.empty(room, np.uint32)
        scores = np.empty(room, np.float32)
        lib.fl_model_predict_top(self._handle, byref(data), top,
                                 _np.u32_pointer(classes),
                                 _np.f32_pointer(scores), scores.size)
        return TopClasses(classes, scores)

    def _dataset(self, x: npt.ArrayLike, y: npt.ArrayLike | None,
                 indices: npt.ArrayLike | None = None,
                 ids: npt.ArrayLike | None = None) -> Any:
        return _data.dataset(self._form, x, y, indices, ids)
