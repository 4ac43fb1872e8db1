# SPDX-License-Identifier: Apache-2.0
"""Strategies: what the server makes of a round's updates.

A strategy is described by one of the classes here (FedAvg, FedAdam, Krum, ...),
which Server.add_job takes, or Strategy, for hosts that move updates by
themselves. Every setting has the library's default and name (strategy.h), so
FedAdam(rate=.05, beta2=.999) or Median(clip=1., clip_adapts=True).
"""
from __future__ import annotations

import dataclasses
from typing import Any, Callable, ClassVar, Sequence, Union

import numpy as np
import numpy.typing as npt

from . import _args, _lib, _np, _state
from ._handle import Handle
from ._lib import byref, c_double, c_uint64, lib
from ._np import F32Array
from .context import Context, lease_of

Score = Callable[[F32Array], float]
Combine = Callable[[Sequence[F32Array]], npt.ArrayLike]
Optimise = Callable[[F32Array, F32Array], npt.ArrayLike]
Rows = Union[npt.ArrayLike, Sequence[npt.ArrayLike]]

# Flags of fl_strategy_needs.
_UPDATES, _STEPS, _LOSSES, _CONTROLS = 1, 2, 4, 8
_HOST_RULE, _HOST_OPTIMISER = 10, 5


class StrategyOptions:
    """A strategy's settings. `score`: a hold-out gate, a function of the next
    model's weights that returns its loss; see gate_tolerance."""

    _name: ClassVar[str] = "fedavg"

    def __init__(self, *, score: Score | None = None, **settings: Any) -> None:
        self.score = score
        self.settings = settings
        # A name that is wrong is one now, not when the job begins.
        known = {name for name, _ in _lib.StrategyOptions._fields_}
        known -= {"struct_size", "reserved", "user", "combine", "optimise",
                  "score"}
        for name in settings:
            if name not in known:
                raise TypeError(f"{type(self).__name__}: no setting {name!r}")

    def _struct(self) -> tuple[Any, list[Any]]:
        """Return the C struct and what it must not outlive."""
        options = _lib.StrategyOptions()
        lib.fl_strategy_options_named(byref(options), _lib.sizeof(options),
                                      self._name.encode())
        for name, value in self.settings.items():
            setattr(options, name, int(value) if isinstance(value, bool)
                    else value)
        keep: list[Any] = []
        if self.score is not None:
            options.score = _score_of(self.score)
            keep.append(options.score)
        self._add_callbacks(options, keep)
        return options, keep

    def _add_callbacks(self, options: Any, keep: list[Any]) -> None:
        pass

    @property
    def needs_updates(self) -> bool:
        """Whether sums will not do: it needs every update by itself."""
        return bool(lib.fl_strategy_needs(byref(self._struct()[0])) & _UPDATES)

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}"
                             for name, value in self.settings.items())
        return f"{type(self).__name__}({settings})"


def _score_of(function: Score) -> Any:
    def score(_user: Any, weights: Any, n: int, loss: Any) -> None:
        loss[0] = float(function(_np.copied(weights, n)))

    return _lib.ScoreFn(_lib.keep_exceptions(score))


class FedAvg(StrategyOptions):
    """The mean by samples (is_uniform: of all alike), times `rate`."""


class FedAvgM(StrategyOptions):
    """FedAvg with server momentum, .9."""

    _name = "fedavgm"


class FedProx(StrategyOptions):
    """FedAvg whose clients are pulled to the global weights by `prox_mu`,
    .01 (LocalTerms)."""

    _name = "fedprox"


class FedAdam(StrategyOptions):
    """Adam at the server: rate .1, beta1 .9, beta2 .99, tau 1e-3."""

    _name = "fedadam"


class FedYogi(StrategyOptions):
    """Yogi at the server: rate .01, otherwise as FedAdam."""

    _name = "fedyogi"


class FedAdagrad(StrategyOptions):
    """Adagrad at the server: rate .1, beta1 .9, tau 1e-3."""

    _name = "fedadagrad"


class FedNova(StrategyOptions):
    """Updates of unequal numbers of local steps, each by what it amounts
    to."""

    _name = "fednova"


class Scaffold(StrategyOptions):
    """Clients' drift is taken out by control vectors (LocalTerms)."""

    _name = "scaffold"


class QFedAvg(StrategyOptions):
    """More weight where the loss is high, by `fairness` (q), 1."""

    _name = "q-fedavg"


class Median(StrategyOptions):
    """The median of every coordinate."""

    _name = "median"


class TrimmedMean(StrategyOptions):
    """Of every coordinate, the mean without the `trim`, .2, at each end."""

    _name = "trimmed-mean"


class Krum(StrategyOptions):
    """The update that is closest to its neighbours, where `byzantine`, 1, of
    them may be anything."""

    _name = "krum"


class MultiKrum(StrategyOptions):
    """The mean of those updates that Krum finds best, all but `byzantine`."""

    _name = "multi-krum"


class GeometricMedian(StrategyOptions):
    """The point of the least sum of distances, in `passes`, 4."""

    _name = "geometric-median"


def _updates_of(round_: Any, n: int) -> list[F32Array]:
    """Copies of a round's updates, in whole."""
    updates = []
    for index in range(round_.count):
        if round_.rows:
            updates.append(_np.copied(round_.rows[index], n))
            continue
        buffer = np.empty(n, np.float32)
        values = _np.f32_pointer(buffer)
        status = round_.read(round_.user, index, 0, n,
                             _np.f32_pointer(buffer), byref(values))
        if status != 0:
            raise RuntimeError(f"update {index} could not be read")
        updates.append(_np.copied(values, n))
    return updates


class HostStrategy(StrategyOptions):
    """Rules of your own. `combine`, of a list of updates, returns one vector
    (None: a mean by samples); `optimise`, of that vector and the weights,
    returns what is added to the weights (None: `rate` times the vector).
    NaN, or an exception, ends the step, and the model stays."""

    def __init__(self, combine: Combine | None = None,
                 optimise: Optimise | None = None, *,
                 score: Score | None = None, **settings: Any) -> None:
        super().__init__(score=score, **settings)
        self.combine = combine
        self.optimise = optimise

    def _add_callbacks(self, options: Any, keep: list[Any]) -> None:
        if self.combine is not None:
            options.rule = _HOST_RULE
            options.combine = self._combine_of(self.combine)
            keep.append(options.combine)
        if self.optimise is not None:
            options.optimiser = _HOST_OPTIMISER
            options.optimise = self._optimise_of(self.optimise)
            keep.append(options.optimise)

    @staticmethod
    def _combine_of(function: Combine) -> Any:
        def combine(_user: Any, round_: Any, out: Any, n: int) -> None:
            combined = function(_updates_of(round_.contents, n))
            _np.view(out, n, None)[:] = _np.f32(combined, "combined",
                                                n).reshape(-1)

        return _lib.CombineFn(_lib.keep_exceptions(combine))

    @staticmethod
    def _optimise_of(function: Optimise) -> Any:
        def optimise(_user: Any, combined: Any, weights: Any, step: Any,
                     n: int) -> None:
            moved = function(_np.copied(combined, n), _np.copied(weights, n))
            _np.view(step, n, None)[:] = _np.f32(moved, "step", n).reshape(-1)

        return _lib.OptimiseFn(_lib.keep_exceptions(optimise))


@dataclasses.dataclass(frozen=True)
class StrategyReport:
    """Of the last step: `count` updates, of which `clipped` were longer than
    the bound; `chosen` is Krum's. `clip` is the next round's bound, `length`
    that of the combined vector, `gate_loss` NaN where there is no gate."""

    count: int
    steps: int
    clip: float
    clipped: int
    chosen: int | None
    length: float
    gate_loss: float


def _rows(values: Rows, name: str, count: int, n: int
          ) -> tuple[Any, list[F32Array]]:
    """Return an array of pointers to the rows, and the rows."""
    rows = [_np.f32(row, f"{name}[{k}]", n)
            for k, row in enumerate(values)]  # type: ignore[arg-type]
    if len(rows) != count:
        raise ValueError(f"{name}: got {len(rows)} of them, want {count}")
    pointers = (_lib.F32P * max(count, 1))(*map(_np.f32_pointer, rows))
    return pointers, rows


class Strategy(Handle):
    """A strategy at work on a model of `n_weights`. Updates are what training
    has added to the weights. `state` is what an earlier `save` returned."""

    def __init__(self, options: StrategyOptions, n_weights: int, *,
                 state: bytes | None = None,
                 context: Context | None = None) -> None:
        struct, keep = options._struct()
        pointer, lease = lease_of(context)
        self.options = options
        self._n = _args.u64(n_weights, "n_weights")
        self._context = pointer
        self._own(_lib.new(_lib.Strategy, lib.fl_strategy_new, pointer,
                           byref(struct), self._n),
                  lib.fl_strategy_free, lease, *keep)
        if state is not None:
            _state.load(lib.fl_strategy_load, self._handle,
                        bytes(memoryview(state)))

    def step(self, weights: F32Array, updates: Rows, *,
             samples: Sequence[int] | None = None,
             steps: Sequence[int] | None = None,
             losses: Sequence[float] | None = None,
             controls: Rows | None = None) -> None:
        """Move `weights`, in place. All or nothing. `samples`: of every
        client; `steps`: FedNova's local steps; `losses`: q-FedAvg's, at the
        model that clients began with; `controls`: SCAFFOLD's changes."""
        model = _np.output(weights, "weights", [self._n])
        count = len(updates)  # type: ignore[arg-type]
        pointers, kept = _rows(updates, "updates", count, self._n)
        round_ = _lib.init(_lib.StrategyRound)
        round_.count = count
        round_.rows = pointers
        for name, values in (("samples", samples), ("steps", steps)):
            if values is not None:
                numbers = _np.ids(values, count)
                kept.append(numbers)  # type: ignore[arg-type]
                setattr(round_, name, _np.u64_pointer(numbers))
        if losses is not None:
            if len(losses) != count:
                raise ValueError(f"losses: got {len(losses)} of them, "
                                 f"want {count}")
            round_.losses = (c_double * max(count, 1))(*losses)
        if controls is not None:
            rows, more = _rows(controls, "controls", count, self._n)
            round_.control_rows = rows
            kept += more
        lib.fl_strategy_step(self._handle, byref(round_),
                             _np.f32_pointer(model), self._n)

    def step_mean(self, weights: F32Array, mean: npt.ArrayLike) -> None:
        """The same where the mean was made elsewhere (Partial.decode)."""
        model = _np.output(weights, "weights", [self._n])
        vector = _np.f32(mean, "mean", self._n)
        lib.fl_strategy_step_mean(self._handle, _np.f32_pointer(vector),
                                  _np.f32_pointer(model), self._n)

    @property
    def report(self) -> StrategyReport:
        report = _lib.init(_lib.StrategyReport)
        lib.fl_strategy_get_report(self._handle, byref(report))
        return StrategyReport(
            report.count, report.steps, report.clip, report.clipped,
            None if report.chosen == 2**32 - 1 else report.chosen,
            report.length, report.gate_loss)

    @property
    def factors(self) -> npt.NDArray[np.float64]:
        """What each update of the last step was multiplied with; 0 = left
        out. EmptyError where there are no such numbers."""
        factors = np.zeros(self.report.count, np.float64)
        lib.fl_strategy_copy_factors(
            self._handle, factors.ctypes.data_as(_lib.F64P), factors.size)
        return factors

    @property
    def control(self) -> F32Array:
        """SCAFFOLD's control of the server, which clients are sent; a
        copy."""
        control, n = _lib.F32P(), c_uint64()
        lib.fl_strategy_get_control(self._handle, byref(control), byref(n))
        return _np.copied(control, n.value)

    def save(self) -> bytes:
        """Return what steps have left, for `state`."""
        return _state.save(lib.fl_strategy_save, self._handle, self._context)


class LocalTerms(Handle):
    """A client's side of FedProx (`mu`) and SCAFFOLD: what they add to its
    gradients. `begin` a round, train with `correct` on every gradient (or
    with this as the gradient hook of a Model), `end` it."""

    def __init__(self, n_weights: int, *, mu: float = 0.0,
                 state: bytes | None = None,
                 context: Context | None = None) -> None:
        pointer, lease = lease_of(context)
        self._n = _args.u64(n_weights, "n_weights")
        self._context = pointer
        self._own(_lib.new(_lib.Local, lib.fl_local_new, pointer, mu, self._n),
                  lib.fl_local_free, lease)
        if state is not None:
            _state.load(lib.fl_local_load, self._handle,
                        bytes(memoryview(state)))

    def begin(self, weights: npt.ArrayLike,
              control: npt.ArrayLike | None = None) -> None:
        """A round begins with the global weights, and the server's control
        where SCAFFOLD runs."""
        model = _np.f32(weights, "weights", self._n)
        theirs = None if control is None else _np.f32(control, "control",
                                                      self._n)
        lib.fl_local_begin(self._handle, _np.f32_pointer(model),
                           None if theirs is None
                           else _np.f32_pointer(theirs), self._n)

    def correct(self, gradient: F32Array, weights: npt.ArrayLike,
                at: int = 0) -> None:
        """Add the terms to a gradient, in place; it and `weights` are
        coordinates from `at` on."""
        ours = _np.output(gradient, "gradient", [gradient.size])
        model = _np.f32(weights, "weights", ours.size)
        lib.fl_local_correct(self._handle, _np.f32_pointer(ours),
                             _np.f32_pointer(model), _args.u64(at, "at"),
                             ours.size)

    def __call__(self, gradient: F32Array, weights: F32Array) -> None:
        """As a gradient hook: of the last coordinates, where the first are
        frozen."""
        self.correct(gradient, weights, self._n - gradient.size)

    def end(self, weights: npt.ArrayLike, steps: int, rate: float
            ) -> F32Array:
        """A round has ended after so many steps of this rate. Return the
        change of the control, for the server."""
        model = _np.f32(weights, "weights", self._n)
        change = np.empty(self._n, np.float32)
        lib.fl_local_end(self._handle, _np.f32_pointer(model),
                         _args.u64(steps, "steps"), rate,
                         _np.f32_pointer(change), self._n)
        return change

    def save(self) -> bytes:
        """Return the client's control, for `state`."""
        return _state.save(lib.fl_local_save, self._handle, self._context)
