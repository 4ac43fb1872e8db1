# SPDX-License-Identifier: Apache-2.0
"""Layer freezing: a controller that says which modules have learned enough,
for any trainer."""
from __future__ import annotations

import contextlib
import dataclasses
import enum
import weakref
from typing import TYPE_CHECKING, Any, Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from . import _args, _lib, _np, _state
from ._err import EmptyError, FlError
from ._handle import Handle
from ._hooks import ModelResource
from ._lib import byref, c_double, lib
from ._np import BytesLike, F32Array
from .cache import ActivationCache
from .context import Context, lease_of
from .model import Model

if TYPE_CHECKING:
    from .protocol import TrainTask


class FreezeCriterion(enum.IntEnum):
    """What says that a module has learned enough; freeze.h has the rules."""

    GRADNORM = 1
    PLASTICITY = 2
    RELATIVE_PLASTICITY = 3
    CKA = 4
    FIXED = 5
    SERVER = 6


class FreezePreset(enum.IntEnum):
    """Window, tolerance and loss level of plasticity in one."""

    CAREFUL = 1
    BALANCED = 2
    FAST = 3


class FreezeReason(enum.IntEnum):
    """Why the plan is as it is."""

    NONE = 0
    CRITERION = 1
    FIXED = 2
    SERVER = 3
    RATE_FELL = 4
    RESTART = 5


class FreezeWants(enum.IntFlag):
    """What a step is to show."""

    GRADIENT = 1
    PAIR = 2
    LAST_PAIR = 4
    FEATURES = 8
    SNAPSHOT = 16


class FreezeEventKind(enum.IntEnum):
    """What a FreezeEvent tells of."""

    EVALUATED = 1
    BOOTED = 2
    CHANGED = 3
    CACHE_OFF = 4


@dataclasses.dataclass(frozen=True)
class FreezePlan:
    """Modules below `first_active` are frozen, and those that are true in
    `frozen`."""

    first_active: int
    version: int
    step: int
    reason: FreezeReason
    frozen: tuple[bool, ...]


@dataclasses.dataclass(frozen=True)
class FreezeRequest:
    """What a step trains and shows: `module` is the front one, `last` the
    last of the body, `rows` the samples of a pair, or features, at most."""

    wants: FreezeWants
    first_active: int
    has_changed: bool
    module: int
    last: int
    rows: int
    step: int


@dataclasses.dataclass(frozen=True)
class FreezeReport:
    """What a client tells of a round; `weight` is the aggregator's."""

    module: int
    value: float
    weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class FreezeEvent:
    """What happened. `threshold` is NaN while it is not known, `value` and
    `raw` where there is none."""

    kind: FreezeEventKind
    step: int
    module: int
    below: int
    value: float
    threshold: float
    raw: float
    first_active: int
    reason: FreezeReason
    version: int
    text: str


def _nothing() -> ModelResource | None:
    """In place of a reference to a model."""
    return None


def count_modules(model: Model) -> int:
    """Up to the last one that has something to train."""
    return max((tensor.module + 1 for tensor in model.tensors()
                if tensor.is_trainable), default=0)


class FreezeStep:
    """A step under way: what is asked for, and where its loss goes."""

    def __init__(self, request: FreezeRequest) -> None:
        self.request = request
        self.loss: float | None = None


def _rows(x: npt.ArrayLike, name: str) -> F32Array:
    """One row a sample."""
    array = _np.f32(x, name)
    if array.ndim < 2:
        raise ValueError(f"{name}: got shape {list(array.shape)}, want "
                         f"[samples, ...]")
    return array.reshape(len(array), -1)


def _pair(a: npt.ArrayLike, b: npt.ArrayLike) -> tuple[F32Array, F32Array]:
    first, second = _rows(a, "a"), _rows(b, "b")
    if len(first) != len(second):
        raise ValueError(f"b: got {len(second)} samples, want {len(first)}")
    return first, second


def _equal_pair(a: npt.ArrayLike, b: npt.ArrayLike
                ) -> tuple[F32Array, F32Array]:
    first, second = _pair(a, b)
    if first.shape != second.shape:
        raise ValueError(f"b: got {second.shape[1]} values a sample, want "
                         f"{first.shape[1]}")
    return first, second


def plasticity(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Return the similarity-preserving loss P between two sets of outputs of
    the same samples, [samples, ...] each."""
    first, second = _equal_pair(a, b)
    out = c_double()
    lib.fl_plasticity(None, _np.f32_pointer(first), _np.f32_pointer(second),
                      len(first), first.shape[1], byref(out))
    return out.value


def cka(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Return the linear CKA of two sets of features of the same samples."""
    first, second = _pair(a, b)
    out = c_double()
    lib.fl_cka(None, _np.f32_pointer(first), first.shape[1],
               _np.f32_pointer(second), second.shape[1], len(first),
               byref(out))
    return out.value


class Freeze(Handle):
    """Decides which modules of a model are frozen.

    `modules` is a Model, which is attached to it (see `attach`), or their
    number, for a trainer of your own. Then, every step: `with
    freeze.step(learning_rate) as step:` train the modules from
    `step.request.first_active` on, push what `step.request.wants` asks for,
    and set `step.loss`; or `begin` and `end`. A step that raises is not
    ended: it is begun anew.

    Options have the names of fl_freeze_options; None is the default.
    `fixed` is a list of (step, first_active). Without `steps_per_epoch` it is
    an aggregator's: see `end_round`.
    """

    _attached_to: Callable[[], ModelResource | None] = staticmethod(_nothing)

    def __init__(self, modules: int | Model,
                 criterion: FreezeCriterion | str = FreezeCriterion.GRADNORM,
                 *, steps_per_epoch: int | None = None,
                 preset: FreezePreset | str | None = None,
                 reports: FreezeCriterion | str | None = None,
                 total_steps: int | None = None, interval: int | None = None,
                 window: int | None = None, patience: int | None = None,
                 tolerance: float | None = None,
                 loss_level: float | None = None,
                 loss_change: float | None = None,
                 is_pretrained: bool = False,
                 pretrained_share: float | None = None,
                 max_frozen: int | None = None, hold: int | None = None,
                 gap: int | None = None, unfreezes: bool | None = None,
                 halves_window: bool = False, rows: int | None = None,
                 refresh: int | None = None,
                 warmup_share: float | None = None,
                 until_share: float | None = None,
                 fixed: Sequence[tuple[int, int]] | None = None,
                 allowed: Sequence[int] | None = None,
                 job: bytes | None = None, lag: int | None = None,
                 cache: ActivationCache | None = None,
                 samples: int | None = None,
                 context: Context | None = None) -> None:
        options, kept = options_of(
            criterion, preset=preset, reports=reports, unfreezes=unfreezes,
            is_pretrained=is_pretrained, halves_window=halves_window,
            steps_per_epoch=steps_per_epoch, total_steps=total_steps,
            interval=interval, window=window, patience=patience,
            tolerance=tolerance, loss_level=loss_level,
            loss_change=loss_change, pretrained_share=pretrained_share,
            max_frozen=max_frozen, hold=hold, gap=gap, rows=rows,
            refresh=refresh, warmup_share=warmup_share,
            until_share=until_share, fixed=fixed, allowed=allowed, job=job,
            lag=lag)
        model = modules if isinstance(modules, Model) else None
        if model is None and (cache is not None or samples is not None):
            raise ValueError("cache, samples: want a model to attach to")
        n_modules = _args.u32(modules if model is None else
                              count_modules(model), "modules")
        pointer, lease = lease_of(context)
        freeze = _lib.new(_lib.Freeze, lib.fl_freeze_new, pointer, n_modules,
                          byref(options))
        del kept
        self._own(freeze, lib.fl_freeze_free, lease)
        if model is not None:
            self.attach(model, cache, samples)

    # ---- attached to a model -----------------------------------------------

    def attach(self, model: Model, cache: ActivationCache | None = None,
               samples: int | None = None, first_active: int = 0) -> None:
        """See every step of the model's training from now on, and freeze its
        modules. What comes out of them is kept in `cache` for samples with
        ids, and for those of `fit`; ids are below `samples`, None = as many
        as the data at hand has. Nothing in front of module `first_active` is
        trained, whatever the plan.

        The model keeps the controller and the cache until `detach` or its
        own end: neither close() nor dropping them changes its training.
        """
        options = _lib.init(_lib.FreezeAttachOptions)
        options.first_active = _args.u32(first_active, "first_active")
        lease = model._unseen()
        kept = None if cache is None else cache._lease()
        if kept is not None:
            options.cache = kept.pointer
        if samples is not None:
            options.n_samples = _args.u64(samples, "samples")
        before, lease.attached = lease.attached, (self._lease(), kept)
        try:
            lib.fl_freeze_attach(self._handle, lease, byref(options))
        except FlError:  # after Ctrl-C it is attached
            lease.attached = before
            raise
        self._attached_to = weakref.ref(lease)

    def detach(self) -> None:
        """Let the model be as it is now. NotAllowedError: not attached."""
        lease = self._attached_to()
        if lease is not None and lease.is_training:
            raise RuntimeError("Freeze: its model is being trained: callbacks "
                               "may look at it only")
        lib.fl_freeze_detach(self._handle)
        if lease is not None:
            lease.attached = None
        self._attached_to = _nothing

    @property
    def is_attached(self) -> bool:
        return self._attached_to() is not None

    # ---- steps -------------------------------------------------------------

    def begin(self, learning_rate: float) -> FreezeRequest:
        """Begin a step; one that was begun and not ended is begun anew."""
        request = _lib.init(_lib.FreezeRequest)
        lib.fl_freeze_begin_step(self._handle, learning_rate, byref(request))
        return FreezeRequest(
            FreezeWants(request.wants), request.first_active,
            bool(request.has_changed), request.module, request.last,
            request.rows, request.step)

    def end(self, loss: float) -> None:
        lib.fl_freeze_end_step(self._handle, loss)

    @contextlib.contextmanager
    def step(self, learning_rate: float) -> Iterator[FreezeStep]:
        """A step whose `loss` is set in the block."""
        step = FreezeStep(self.begin(learning_rate))
        yield step
        if step.loss is None:
            raise ValueError("loss: got None, want the step's")
        self.end(step.loss)

    def push_gradient(self, module: int, gradient: npt.ArrayLike) -> None:
        """Show the module's gradient, all its trainable values in order."""
        array = _np.f32(gradient, "gradient")
        lib.fl_freeze_push_gradient(self._handle, _args.u32(module, "module"),
                                    _np.f32_pointer(array), array.size)

    def push_gradient_change(self, module: int, sum_of_squares: float) -> None:
        """Show the sum of squares of the gradient's change, instead."""
        lib.fl_freeze_push_gradient_change(
            self._handle, _args.u32(module, "module"), sum_of_squares)

    def push_pair(self, module: int, model: npt.ArrayLike,
                  snapshot: npt.ArrayLike) -> None:
        """Show outputs of the module in the model and in the snapshot,
        [samples, ...] each: in the step that asks for them, or in one of the
        `lag` steps behind it."""
        a, b = _equal_pair(model, snapshot)
        lib.fl_freeze_push_pair(self._handle, _args.u32(module, "module"),
                                _np.f32_pointer(a), _np.f32_pointer(b),
                                len(a), a.shape[1])

    def push_features(self, module: int, before: npt.ArrayLike,
                      after: npt.ArrayLike) -> None:
        """Show features before and after the module's adapter; of several
        the one that does most counts: push each."""
        a, b = _pair(before, after)
        lib.fl_freeze_push_features(
            self._handle, _args.u32(module, "module"), _np.f32_pointer(a),
            a.shape[1], _np.f32_pointer(b), b.shape[1], len(a))

    # ---- the plan ----------------------------------------------------------

    @property
    def plan(self) -> FreezePlan:
        plan = _lib.init(_lib.FreezePlan)
        lib.fl_freeze_get_plan(self._handle, byref(plan))
        return FreezePlan(
            plan.first_active, plan.version, plan.step,
            FreezeReason(plan.reason),
            tuple(bool(plan.frozen[i]) for i in range(plan.n_modules)))

    @property
    def plan_bytes(self) -> bytes:
        """The plan for `apply_plan` elsewhere."""
        return _lib.copy_bytes(lib.fl_freeze_copy_plan, self._handle)

    def apply_plan(self, plan: BytesLike) -> None:
        """Follow a plan made elsewhere, with criterion SERVER."""
        pointer, size = _np.data(plan, "plan")
        lib.fl_freeze_apply_plan(self._handle, pointer, size)

    # ---- federated ---------------------------------------------------------

    def follow(self, task: TrainTask, samples: int) -> None:
        """Follow the task's freeze plan, whatever was followed before: at the
        beginning of every round, with one Freeze for all of them, of
        criterion SERVER (steps_per_epoch=1 will do), attached or not.

        It measures what the task wants to know, of so many samples;
        `take_report` goes into TrainResult. Another job's plan, or an older
        one, for its job was begun afresh, begins it anew. Modules in front of
        task.first_active are not trained, and of a front module among them
        nothing is asked for."""
        struct, kept = _orders_of(task)
        lib.fl_freeze_follow(self._handle, byref(struct),
                             _args.u64(samples, "samples"))
        del kept

    def take_report(self) -> FreezeReport | None:
        """Return what was measured since the last one, or None."""
        report = _lib.init(_lib.FreezeReport)
        try:
            lib.fl_freeze_take_report(self._handle, byref(report))
        except EmptyError:
            return None
        return FreezeReport(report.module, report.value, report.weight)

    def end_round(self, loss: float, reports: Sequence[FreezeReport]) -> None:
        """End a round of an aggregator. `loss` may be NaN: not known."""
        structs = (_lib.FreezeReport * max(len(reports), 1))()
        for i, report in enumerate(reports):
            structs[i] = _lib.init(_lib.FreezeReport)
            structs[i].module = report.module
            structs[i].value = report.value
            structs[i].weight = report.weight
        lib.fl_freeze_end_round(self._handle, loss, structs, len(reports))

    # ---- what happened, state ----------------------------------------------

    def events(self) -> Iterator[FreezeEvent]:
        """Take what happened since the last time, the oldest first."""
        event = _lib.init(_lib.FreezeEvent)
        while True:
            try:
                lib.fl_freeze_poll(self._handle, byref(event))
            except EmptyError:
                return
            yield FreezeEvent(
                FreezeEventKind(event.kind), event.step, event.module,
                event.below, event.value, event.threshold, event.raw,
                event.first_active, FreezeReason(event.reason),
                event.version, _lib.text(event.text))

    def save(self) -> bytes:
        """Return everything but events and a step that was not ended."""
        return _state.save(lib.fl_freeze_save, self._handle, None)

    def load(self, state: bytes) -> None:
        """Take back what `save` returned, with the same options."""
        _state.load(lib.fl_freeze_load, self._handle,
                    bytes(memoryview(state)))


def _orders_of(task: TrainTask) -> tuple[Any, list[Any]]:
    """Return the part of fl_train_task that says what is frozen, and what has
    to live as long as C reads it."""
    struct = _lib.sized(_lib.TrainTask)
    struct.epochs, struct.batch_size = task.epochs, task.batch_size
    struct.first_active = task.first_active
    struct.freeze_reports = task.freeze_reports
    struct.freeze_plan_size = len(task.freeze_plan)
    kept = []
    for name, data in (("freeze_plan", task.freeze_plan),
                       ("freeze_job", task.freeze_job)):
        if data:
            kept.append(np.frombuffer(data, np.uint8))
            setattr(struct, name, kept[-1].ctypes.data_as(_lib.U8P))
    return struct, kept


def options_of(criterion: FreezeCriterion | str = FreezeCriterion.GRADNORM,
               *, fixed: Sequence[tuple[int, int]] | None = None,
               allowed: Sequence[int] | None = None,
               job: bytes | None = None, **given: Any
               ) -> tuple[Any, list[Any]]:
    """Return fl_freeze_options, and what has to live as long as they do."""
    choices: dict[str, type[enum.IntEnum]] = {
        "preset": FreezePreset, "reports": FreezeCriterion}
    options = _lib.init(_lib.FreezeOptions)
    options.criterion = _args.choice(FreezeCriterion, criterion, "criterion")
    names = {name for name, *_ in _lib.FreezeOptions._fields_}
    for name, value in given.items():
        if name not in names:
            raise TypeError(f"freeze: got an unexpected option {name!r}")
        if value is None:
            continue
        if name in choices:
            value = _args.choice(choices[name], value, name)
        elif isinstance(value, bool):
            value = int(value)
        setattr(options, name, value)
    return options, _set_lists(options, fixed, allowed, job)


def _set_lists(options: Any, fixed: Sequence[tuple[int, int]] | None,
               allowed: Sequence[int] | None, job: bytes | None
               ) -> list[Any]:
    """Fill in what is behind pointers; return what has to live as long."""
    kept: list[Any] = []
    if fixed is not None:
        rows = (_lib.FreezeFixed * len(fixed))()
        for row, (step, first_active) in zip(rows, fixed):
            row.step = _args.u64(step, "fixed")
            row.first_active = _args.u32(first_active, "fixed")
        kept.append(rows)
        options.fixed = rows
        options.n_fixed = len(fixed)
    if allowed is not None:
        values = np.array([_args.u32(value, "allowed") for value in allowed],
                          np.uint32)
        kept.append(values)
        options.allowed = _np.u32_pointer(values)
        options.n_allowed = values.size
    if job is not None:
        if len(job) != _lib.HASH_BYTES:
            raise ValueError(f"job: got {len(job)} bytes, want "
                             f"{_lib.HASH_BYTES}")
        kept.append(np.frombuffer(job, np.uint8))
        options.job = kept[-1].ctypes.data_as(_lib.U8P)
    return kept
