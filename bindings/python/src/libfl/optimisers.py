# SPDX-License-Identifier: Apache-2.0
"""Optimisers and schedules: plain descriptions that Model.optimiser takes.

Formulas are those of torch.optim. All of them: `learning_rate` and
`weight_decay`, 0..1e30; `clip_norm`, 0..1e30, the L2 norm that a gradient is
scaled down to, 0 = none; `accumulate` >= 1, batches per update, whose gradients
are averaged; `schedule`, how the rate moves with the updates. OptionsError,
when it is set, names the value that is out of range.
"""
from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Union

import numpy as np

from . import _lib


@dataclasses.dataclass(frozen=True)
class Constant:
    """The rate as it is, after rising to it over `warmup` >= 0 updates."""

    warmup: int = 0
    _kind: ClassVar[int] = 0


@dataclasses.dataclass(frozen=True)
class Step:
    """The rate times `factor`, 0..1e6, after every `period` >= 1 updates;
    `warmup` multiplies what comes of it."""

    period: int
    factor: float = 0.1
    warmup: int = 0
    _kind: ClassVar[int] = 1


@dataclasses.dataclass(frozen=True)
class Cosine:
    """Half a cosine from the rate down to `factor` times the rate over
    `period` updates, and there it stays. Ranges and `warmup` as for Step."""

    period: int
    factor: float = 0.1
    warmup: int = 0
    _kind: ClassVar[int] = 2


Schedule = Union[Constant, Step, Cosine]


@dataclasses.dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent, with momentum, 0..1, or Nesterov's (which
    wants a momentum). Momentum keeps 4 bytes per trained weight."""

    learning_rate: float = 0.05
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    accumulate: int = 1
    schedule: Schedule = Constant()
    _kind: ClassVar[int] = 0


@dataclasses.dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba, 2015); weight decay is added to the gradient. Keeps
    8 bytes per trained weight. `beta1`: 0..0.999999; `beta2`: 0..0.9999999;
    `epsilon`: 0..1, 0 = 1e-8. The bias correction counts all updates, also for
    weights that were frozen meanwhile (Model.first_active)."""

    learning_rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    accumulate: int = 1
    schedule: Schedule = Constant()
    _kind: ClassVar[int] = 1


@dataclasses.dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019). Ranges
    and memory as for Adam."""

    learning_rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.01
    clip_norm: float = 0.0
    accumulate: int = 1
    schedule: Schedule = Constant()
    _kind: ClassVar[int] = 2


@dataclasses.dataclass(frozen=True)
class Adagrad:
    """Adagrad (Duchi et al., 2011). Keeps 4 bytes per trained weight.
    `epsilon`: 0..1, 0 = 1e-10."""

    learning_rate: float = 0.01
    epsilon: float = 1e-10
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    accumulate: int = 1
    schedule: Schedule = Constant()
    _kind: ClassVar[int] = 3


Optimiser = Union[SGD, Adam, AdamW, Adagrad]

_OPTIMISERS: list[Any] = [SGD, Adam, AdamW, Adagrad]
_SCHEDULES: list[Any] = [Constant, Step, Cosine]


def _names(kind: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)
            if field.name != "schedule"]


def shortest(value: float) -> float:
    """Return the float32 `value` as the number that one would write."""
    return float(str(np.float32(value)))


def schedule_fields(schedule: Schedule) -> dict[str, Any]:
    """Return the fields of a schedule, and its kind as "schedule"."""
    if type(schedule) not in _SCHEDULES:
        raise TypeError(f"schedule: got {schedule!r}, want "
                        f"Constant, Step or Cosine")
    return {"schedule": schedule._kind, **dataclasses.asdict(schedule)}


def to_options(optimiser: Optimiser) -> Any:
    """Return fl_optimiser_options."""
    if type(optimiser) not in _OPTIMISERS:
        raise TypeError(f"optimiser: got {optimiser!r}, want SGD, Adam, "
                        f"AdamW or Adagrad")
    fields = schedule_fields(optimiser.schedule)
    options = _lib.init(_lib.OptimiserOptions)
    options.kind = optimiser._kind
    for name in _names(optimiser):
        setattr(options, name, getattr(optimiser, name))
    for name, value in fields.items():
        setattr(options, name, value)
    return options


def from_options(options: Any) -> Optimiser:
    """Return what to_options was given."""
    def read(kind: Any) -> dict[str, Any]:
        values = {name: getattr(options, name) for name in _names(kind)}
        return {name: shortest(value) if isinstance(value, float) else value
                for name, value in values.items()}

    schedule = _SCHEDULES[options.schedule]
    kind = _OPTIMISERS[options.kind]
    made: Optimiser = kind(**read(kind),
                           schedule=schedule(**read(schedule)))
    if isinstance(made, SGD):
        made = dataclasses.replace(made, nesterov=bool(made.nesterov))
    return made
